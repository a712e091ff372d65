# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Endoscopy phantoms: a mucosal tunnel lit from the tip, with folds, vessels, highlights, polyps and camera motion."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from .geometry import SIZE, annotate, lesion_map, photograph, quadrant, smooth_noise
from .sample import Sample

REGIONS = ("colon", "stomach", "oesophagus")
MOTIONS = ("moving forward", "moving backward", "still")


def _mask(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The picture's outline (SIZE, SIZE, 1) in 0 to 1 (round, octagon or full frame), and a text overlay uint8."""
    shape = rng.random()
    v, u = np.meshgrid(np.linspace(-1, 1, SIZE), np.linspace(-1, 1, SIZE), indexing="ij")
    shift = rng.uniform(0, 0.2) if rng.random() < 0.4 else 0.0
    u = u - shift
    size = rng.uniform(0.8, 1.0)
    if shape < 0.35:
        distance = np.hypot(u, v)
        distance = np.maximum(distance, np.abs(v) * rng.uniform(1.0, 1.25))
    elif shape < 0.7:
        corner = rng.uniform(1.3, 1.6)
        distance = np.maximum(np.maximum(np.abs(u), np.abs(v)), (np.abs(u) + np.abs(v)) / corner)
    else:
        distance = np.zeros_like(u)
    mask = np.clip((size - distance) * SIZE / 3 + 0.5, 0, 1)[..., None].astype(np.float32)
    canvas = Image.new("RGB", (SIZE * 2, SIZE * 2))
    if shape < 0.7 and rng.random() < 0.5:
        draw = ImageDraw.Draw(canvas)
        tone = int(rng.integers(120, 255))
        for line in range(int(rng.integers(1, 7))):
            annotate(draw, (2, 6 + 14 * line), rng, (tone, tone, tone))
    return mask, np.asarray(canvas.resize((SIZE, SIZE), Image.Resampling.BOX))


def _into_view(place: np.ndarray, size: float, mask: np.ndarray) -> np.ndarray:
    """The place (u, v) from -1 to 1 of a polyp of radius `size`, moved to where the picture shows it."""
    axis = np.linspace(-1, 1, SIZE)
    middle = np.array([np.average(axis, weights=mask[..., 0].sum(axis=k)) for k in (0, 1)])
    away = place - middle
    return middle + away * min(1.0, max(0.75 - size, 0.2) / max(float(np.hypot(*away)), 1e-6))


def more_polyps(
    first: np.ndarray, size: float, wanted: int, mask: np.ndarray, rng: np.random.Generator
) -> list[np.ndarray]:
    """Places of up to `wanted` polyps of radii up to `size`, the first one given, all in view and apart."""
    places = [first]
    for _ in range(80):
        place = _into_view(rng.uniform(-0.8, 0.8, 2), size, mask)
        if len(places) < wanted and all(np.hypot(*(place - other)) > 2.6 * size for other in places):
            places.append(place)
    return places


def generate(kind: str, rng: np.random.Generator, lesion: bool | None = None, frames: int | None = None) -> Sample:
    """One still ("image") or a short clip ("video") from inside a hollow organ.

    `lesion` says whether it has a polyp; None has chance decide. All else is the same with and without one. `frames`
    says how many a clip has; None has chance decide.
    """
    region = REGIONS[int(rng.integers(3))]
    drawn = bool(rng.random() < 0.5)
    lesion = drawn if lesion is None else lesion
    length = 1 if kind == "image" else int(rng.integers(8, 17))
    frames = length if frames is None else frames
    rate = rng.uniform(4, 15)
    seconds = np.arange(frames) / rate
    motion = MOTIONS[int(rng.integers(3))]
    speed = {"moving forward": 1.0, "moving backward": -1.0, "still": 0.0}[motion] * rng.uniform(0.35, 0.9)

    lumen = (
        rng.uniform(-0.45, 0.45, 2)
        if rng.random() < 0.75
        else rng.uniform(0.9, 1.5) * np.array([np.cos(a := rng.uniform(0, 6.28)), np.sin(a)])
    )
    mucosa = np.array(
        {"colon": (0.86, 0.50, 0.42), "stomach": (0.85, 0.42, 0.34), "oesophagus": (0.88, 0.62, 0.55)}[region]
    )
    mucosa = mucosa * rng.uniform(0.9, 1.1, 3)
    if rng.random() < 0.07:
        mucosa = np.array([0.55, 0.75, 0.7]) * rng.uniform(0.9, 1.1, 3)  # narrow-band light: green and blue only
    folds = rng.uniform(1.2, 2.6) if region == "colon" else rng.uniform(0.5, 1.2)
    sharp = rng.uniform(1.5, 4)
    lobes, lobe_phase, lobe_depth = int(rng.integers(2, 5)), rng.uniform(0, 6.28), rng.uniform(0.05, 0.3)
    rugae = int(rng.integers(5, 12)) if region == "stomach" else 0
    texture = smooth_noise((3 * SIZE, SIZE), rng, (7, 9))
    texture = texture[:, np.r_[0:SIZE, SIZE - 1 : -1 : -1]]  # mirrored, so that it closes around the tunnel
    vessels = np.clip(1 - np.abs(smooth_noise((3 * SIZE, SIZE), rng, (14, 12))) * 7, 0, 1)
    vessels = vessels[:, np.r_[0:SIZE, SIZE - 1 : -1 : -1]] * rng.uniform(0, 0.35)
    roll = rng.uniform(0, 6.28)
    bend = 0.25 * smooth_noise((SIZE, SIZE), rng, 50)
    polyp_angle, polyp_size = rng.uniform(0, 6.28), rng.uniform(0.16, 0.34)
    polyp_depth = rng.uniform(1.2, 2.0)
    polyp_colour = mucosa * np.array([1.05, 0.72, 0.7]) * rng.uniform(0.9, 1.15)
    shine = rng.uniform(0.4, 1.0)
    falloff = rng.uniform(0.5, 1.1)
    drift = rng.uniform(-0.2, 0.2, 2)
    noise = smooth_noise((SIZE, SIZE), rng, 3)
    mask, text = _mask(rng)
    axis = np.linspace(-1, 1, SIZE, dtype=np.float32)
    v, u = np.meshgrid(axis, axis, indexing="ij")
    result = np.empty((frames, SIZE, SIZE, 3), np.uint8)
    polyps_cover = np.zeros((frames, SIZE, SIZE), np.float32)
    # A still may show several polyps, whose number a generator of its own says.
    several = rng.spawn(1)[0]
    wanted = int(several.choice([1, 2, 3, 4], p=[0.4, 0.3, 0.2, 0.1])) if kind == "image" else 1
    track: list[list[np.ndarray]] = []
    for t in range(frames):
        travelled = speed * seconds[t] * 1.5
        du = u - lumen[0] - drift[0] * np.sin(2 * seconds[t])
        dv = v - lumen[1] - drift[1] * np.sin(1.5 * seconds[t])
        angle = np.arctan2(dv, du)
        radius = np.hypot(du, dv) * (1 + lobe_depth * np.cos(lobes * angle + lobe_phase)) + 0.02
        depth = 0.55 / radius
        phase = (np.log(depth + 0.15) * 1.6 + travelled) * folds + bend + 0.35 * np.cos(lobes * angle + 2 * lobe_phase)
        ridge = (0.5 + 0.5 * np.cos(2 * np.pi * phase)) ** sharp
        slope = -np.sin(2 * np.pi * phase) * ridge
        rows = (((np.log(depth + 0.1) * 0.8 + travelled) * SIZE) % (3 * SIZE)).astype(int)
        columns = (((angle + roll) / (2 * np.pi) % 1) * (2 * SIZE - 1)).astype(int)
        grain = texture[rows, columns]
        light = np.clip(1.15 * np.exp(-falloff * (depth - 0.4)), 0, 1.2) * (0.75 + 0.3 * ridge + 0.18 * slope)
        if rugae:
            light *= 0.85 + 0.2 * np.cos(rugae * angle + 2 * np.sin(3 * depth) + roll)
        light *= 1 + 0.05 * grain
        picture = mucosa * light[..., None]
        picture *= 1 - vessels[rows, columns][..., None] * np.array([0.25, 0.75, 0.7])
        bump = ridge + 0.15 * grain + 0.12 * noise
        if lesion:
            where = 0.55 / max(polyp_depth - travelled * 0.5, 0.6)
            aim = (lumen[0] + where * np.cos(polyp_angle), lumen[1] + where * np.sin(polyp_angle))
            size = polyp_size * np.clip(where / 0.4, 0.6, 1.7) if wanted == 1 else min(polyp_size, 0.26)
            first = _into_view(np.clip(aim, -0.65, 0.65), size, mask)
            track.append(more_polyps(first, size, wanted, mask, several))
            for centre in track[-1]:
                pu, pv = (u - centre[0]) / size, (v - centre[1]) / size
                rr = pu**2 + pv**2 + 0.08 * grain
                height = np.sqrt(np.clip(1 - rr, 0, 1))
                toward = np.clip(0.35 + 0.75 * height - 0.25 * (pu * lumen[0] + pv * lumen[1]), 0.2, 1.2)
                cover = np.clip((1 - rr) * 5, 0, 1)[..., None]
                polyps_cover[t] = np.maximum(polyps_cover[t], cover[..., 0])
                ring = np.exp(-(((rr - 1.15) / 0.25) ** 2))[..., None]
                picture = picture * (1 - 0.35 * ring)
                picture = picture * (1 - cover) + cover * polyp_colour * (toward * (1 + 0.08 * noise))[..., None]
                bump = bump * (1 - cover[..., 0]) + cover[..., 0] * height
        gloss = np.clip((bump + 0.1 * noise - 0.98) * 5 * shine, 0, 1) * np.clip(light, 0, 1) ** 2
        picture = picture + gloss[..., None] * (1 - picture)
        result[t] = (np.clip(picture * mask, 0, 1) * 255).astype(np.uint8)
    polyps_cover *= mask[..., 0]
    mirrored = rng.random() < 0.3
    if mirrored:
        result, mask, polyps_cover = result[:, :, ::-1], mask[:, ::-1], polyps_cover[:, :, ::-1]
    result = np.maximum(result, text[None] * (mask < 0.1))
    facts = {"modality": "endoscopy", "region": region, "lesion": "yes" if lesion else "no"}
    if lesion:
        facts["finding"] = "polyp"
        if kind == "image":
            facts |= {"count": str(len(track[0])), "counted": "polyps"}
        # The place as displayed, where it is the same from the first frame to the last.
        places = [quadrant(y / 2, (-x if mirrored else x) / 2) for polyps in track for x, y in polyps]
        if all(place == places[0] for place in places):
            facts |= places[0]
    if kind == "video":
        facts["motion"] = motion
    lesions = lesion_map(polyps_cover) if lesion else None
    return Sample(photograph(np.ascontiguousarray(result), rng), kind, seconds, (0.0, 0.0), facts, lesions)
