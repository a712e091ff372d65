# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Fundus photography phantoms: optic disc, vessel arcades, macula and diabetic lesions in a camera's round field."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from .geometry import SIZE, lesion_map, photograph, smooth_noise
from .sample import Sample

SCALE = 2
"""Vessels are drawn at this multiple of SIZE, so that fine ones are thinner than a pixel."""
RED_FREE = 0.15
"""Share of the photographs taken in green light, or shown as their green channel: grey, with the vessels dark."""
LARGEST_COUNT = 9
"""More lesions than this are not asked to be counted."""


def retinopathy_grade(haemorrhages: int) -> str:
    """Grade of a retina without new vessels by its haemorrhages, as Messidor grades: none is 0, 1 to 4 is 2, more 3."""
    return "grade 0" if not haemorrhages else "grade 2" if haemorrhages < 5 else "grade 3"


def oedema_risk(nearest: float) -> str:
    """Risk of macular oedema by the nearest hard exudate's distance from the macula in disc diameters (Messidor)."""
    return "high" if nearest <= 1 else "low"


def _vessel(
    draw: ImageDraw.ImageDraw,
    rng: np.random.Generator,
    point: np.ndarray,
    angle: float,
    width: float,
    length: float,
    bend: float,
    depth: int,
) -> None:
    """Draws one vessel and its branches; point, width and length in canvas pixels, angle and bend in radians."""
    step = length / 12
    for k in range(12):
        angle += bend / 12 + rng.normal(0, 0.06)
        end = point + step * np.array([np.cos(angle), np.sin(angle)])
        draw.line([*point, *end], fill=255, width=max(1, round(width * (1 - 0.4 * k / 12))))
        point = end
        if depth and k in (3, 6, 9):
            turn = angle + rng.choice([-1, 1]) * rng.uniform(0.4, 1.0)
            _vessel(draw, rng, point, turn, width * 0.6, length * rng.uniform(0.4, 0.7), rng.normal(0, 0.5), depth - 1)


def _mask(canvas: Image.Image) -> np.ndarray:
    """A drawn 8-bit canvas as float32 coverage (SIZE, SIZE, 1) in 0 to 1."""
    return np.asarray(canvas.resize((SIZE, SIZE), Image.Resampling.BOX), np.float32)[..., None] / 255


def generate(kind: str, rng: np.random.Generator) -> Sample:
    """One photograph of a retina, in colour or red-free."""
    side = SIZE * SCALE
    right_eye = bool(rng.random() < 0.5)
    toward_nose = 1 if right_eye else -1
    # The disc lies nasal to the macula; the observer sees a right eye's disc on the image right.
    zoom = rng.uniform(0.85, 1.25)
    disc_centred = rng.random() < 0.3
    middle = np.array([side / 2, side / 2]) + rng.normal(0, 4, 2)
    apart = side * 0.32 * zoom
    disc = middle + np.array([toward_nose * (0.06 * side if disc_centred else apart * 0.55), rng.normal(0, 4)])
    macula = disc - np.array([toward_nose * apart, -0.03 * side])
    disc_radius = side * rng.uniform(0.055, 0.08) * zoom

    row, column = ((np.mgrid[0:SIZE, 0:SIZE] + 0.5) * SCALE).astype(np.float32)
    base = np.array((rng.uniform(0.65, 0.95), rng.uniform(0.25, 0.5), rng.uniform(0.05, 0.22)), np.float32)
    texture = 1 + 0.05 * smooth_noise((SIZE, SIZE), rng, 5) + 0.07 * smooth_noise((SIZE, SIZE), rng, 20)
    picture = base * texture[..., None].astype(np.float32)
    if rng.random() < 0.4:
        choroid = np.clip(smooth_noise((SIZE, SIZE), rng, (5, 9)), -1, 1)
        picture *= 1 + choroid[..., None] * np.array([0.05, 0.12, 0.1], np.float32)
    fovea = np.exp(-((column - macula[0]) ** 2 + (row - macula[1]) ** 2) / (2 * (0.06 * side * zoom) ** 2))
    picture *= 1 - fovea[..., None] * np.array([0.25, 0.5, 0.4], np.float32) * np.float32(rng.uniform(0.5, 1))

    veins, arteries = Image.new("L", (side, side)), Image.new("L", (side, side))
    for canvas, thick in ((veins, 1.0), (arteries, 0.7)):
        draw = ImageDraw.Draw(canvas)
        for up in (-1, 1):
            for temporal in (True, False):
                out = -toward_nose if temporal else toward_nose
                angle = np.arctan2(up * rng.uniform(0.8, 1.6), out * (0.55 if temporal else 0.8))
                bend = (-1 if out * up > 0 else 1) * (rng.uniform(0.7, 1.3) if temporal else rng.uniform(-0.2, 0.5))
                width = rng.uniform(3.2, 5.2) * zoom * thick * (1 if temporal else 0.75)
                _vessel(
                    draw,
                    rng,
                    disc + rng.normal(0, 2, 2),
                    float(angle),
                    width,
                    side * rng.uniform(0.5, 0.75) * zoom,
                    bend,
                    2,
                )

    d = (np.hypot((column - disc[0]) * rng.uniform(1.0, 1.15), row - disc[1]) / disc_radius).astype(np.float32)
    glow = np.clip((1 - d) * 4 + 0.5, 0, 1)[..., None]
    picture += glow * (np.array([1.0, 0.83, 0.5], np.float32) * np.float32(rng.uniform(0.85, 1.1)) - picture)
    cup = rng.uniform(0.3, 0.75)
    picture += (
        np.clip((cup - d) * 4 + 0.5, 0, 1)[..., None]
        * np.float32(0.5)
        * (np.array([1.0, 0.95, 0.75], np.float32) - picture)
    )
    for canvas, absorb in ((veins, (0.35, 0.6, 0.45)), (arteries, (0.22, 0.48, 0.4))):
        mask = _mask(canvas)
        picture *= 1 - mask * np.asarray(absorb, np.float32)

    lesion = bool(rng.random() < 0.5)
    finding = "normal"
    drawn: list[tuple[float, float, float]] = []
    cover = np.zeros((SIZE, SIZE, 1), np.float32)
    if lesion:
        finding = ("haemorrhages", "exudates")[int(rng.integers(2))]
        count = int(rng.integers(6, 30))
        # In sight whatever the field that the camera shows.
        spots = np.clip(middle + rng.normal(0, side * 0.17, (count, 2)), 0.23 * side, 0.77 * side)
        # Half of the retinas have few lesions; how many, a generator of its own says.
        few = rng.spawn(1)[0]
        wanted = int(few.integers(1, LARGEST_COUNT + 1)) if few.random() < 0.5 else count
        canvas = Image.new("L", (side, side))
        draw = ImageDraw.Draw(canvas)
        for x, y in spots:
            a, b = rng.uniform(2, 9, 2) if finding == "haemorrhages" else rng.uniform(1.5, 6, 2)
            fill = int(rng.integers(170, 256))
            a, b = max(a, 3.0), max(b, 3.0)
            # Each lies apart from the others and off the bright disc.
            apart = all(np.hypot(x - u, y - v) > max(a, b) + size + 3 for u, v, size in drawn)
            if apart and np.hypot(x - disc[0], y - disc[1]) > 1.3 * disc_radius and len(drawn) < wanted:
                draw.ellipse([x - a, y - b, x + a, y + b], fill=fill)
                drawn.append((x, y, max(a, b)))
        mask = _mask(canvas)
        cover = _mask(canvas.point(lambda level: 255 if level else 0))
        colour = np.array([0.38, 0.06, 0.03] if finding == "haemorrhages" else [1.0, 0.9, 0.5], np.float32)
        picture += mask * (colour - picture) * np.float32(0.85)

    radius = np.hypot(column - side / 2, row - side / 2) / (side / 2)
    tilt = rng.uniform(-0.25, 0.25, 2)
    light = 1 - rng.uniform(0.1, 0.5) * radius**2 + tilt[0] * (column / side - 0.5) + tilt[1] * (row / side - 0.5)
    picture *= light[..., None].astype(np.float32)
    framing = rng.random()
    if framing < 0.8:
        field = rng.uniform(0.82, 1.0) if framing < 0.55 else rng.uniform(1.0, 1.2)
        shown = np.clip((field - radius) * 60, 0, 1)
        if rng.random() < 0.4:
            shown *= np.abs(row - side / 2) < side * rng.uniform(0.36, 0.48)
        picture *= shown[..., None].astype(np.float32)
        cover = cover * shown[..., None]
    frame = Image.fromarray((np.clip(picture, 0, 1) * 255).astype(np.uint8))
    if framing >= 0.8 and rng.random() < 0.6:
        cut = int(SIZE * rng.uniform(0.05, 0.2))
        frame = frame.crop((cut, cut, SIZE - cut, SIZE - cut))
        cover = cover[cut : SIZE - cut, cut : SIZE - cut]
    frames = np.asarray(frame.resize((SIZE, SIZE), Image.Resampling.BICUBIC))[None]
    # A generator of its own, so that red-free pictures leave the draws of everything else as they are.
    filtered = rng.spawn(1)[0]
    if filtered.random() < RED_FREE:
        green = frames[..., 1:2] * filtered.uniform(1.0, 1.8)
        frames = np.broadcast_to(green.clip(0, 255).astype(np.uint8), frames.shape)
    facts = {"modality": "fundus photography", "region": "retina", "lesion": "yes" if lesion else "no"}
    if lesion:
        facts["finding"] = finding
        if len(drawn) <= LARGEST_COUNT:
            facts |= {"count": str(len(drawn)), "counted": finding}
    if finding == "exudates" and np.abs(macula - side / 2).max() < 0.28 * side:
        nearest = min((np.hypot(x - macula[0], y - macula[1]) for x, y, _ in drawn), default=np.inf)
        facts |= {"severity": oedema_risk(nearest / (2 * disc_radius)), "graded": "the risk of macular oedema"}
    elif finding != "exudates":
        facts |= {"severity": retinopathy_grade(len(drawn)), "graded": "the diabetic retinopathy"}
    facts["side"] = "right" if right_eye else "left"
    lesions = lesion_map(cover[None, ..., 0], (len(cover) / SIZE,) * 2) if lesion else None
    frames = photograph(frames, rng, coarsest=80 if drawn else 40)
    return Sample(frames, kind, np.zeros(1), (0.0, 0.0), facts, lesions)
