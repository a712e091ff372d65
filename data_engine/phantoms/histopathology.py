# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Histopathology phantoms: nuclei, glands and stroma as dye concentrations, coloured by the Beer-Lambert law."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from .geometry import SIZE, photograph, smooth_noise
from .sample import Sample

HAEMATOXYLIN = np.array([0.65, 0.70, 0.29])
EOSIN = np.array([0.07, 0.99, 0.11])
DAB = np.array([0.27, 0.57, 0.78])
"""Optical density per unit of dye in red, green and blue (Ruifrok and Johnston 2001)."""
PATTERNS = ("glands", "stroma", "sheet", "lymphoid")


def _ellipses(points: np.ndarray, radii: np.ndarray, angles: np.ndarray, levels: np.ndarray, side: int) -> np.ndarray:
    """Filled ellipses (n of them, pixels) as a concentration map (side, side) in 0 to 1, wobbly like nuclei."""
    canvas = Image.new("L", (side, side))
    draw = ImageDraw.Draw(canvas)
    turn = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    wobble = 1 + 0.12 * np.sin(2 * turn[None] + 7 * angles[:, None]) * np.cos(3 * turn[None] + 3 * angles[:, None])
    c, s = np.cos(angles)[:, None], np.sin(angles)[:, None]
    ex, ey = radii[:, :1] * np.cos(turn) * wobble, radii[:, 1:] * np.sin(turn) * wobble
    x, y = points[:, :1] + ex * c - ey * s, points[:, 1:] + ex * s + ey * c
    outline = np.stack([x, y], axis=-1).reshape(len(points), 2 * x.shape[1])
    for polygon, level in zip(outline.tolist(), levels.tolist(), strict=True):
        draw.polygon(polygon, fill=int(255 * level))
    return np.asarray(canvas, np.float32) / 255


def allred_proportion(share: float) -> str:
    """Allred proportion score of the share of stained nuclei, above 10 %: to a third 3, to two thirds 4, more 5."""
    return f"Allred proportion score {3 if share <= 1 / 3 else 4 if share <= 2 / 3 else 5}"


def _mitoses(
    haematoxylin: np.ndarray, eosin: np.ndarray, holes: np.ndarray, radius: float, rng: np.random.Generator
) -> int:
    """Paints dividing cells into the dye maps (side, side), in place, and returns how many found room in the tissue.

    A mitotic figure is a dense bar of chromosomes, or two that part, in a cell cleared of all else.
    """
    side = len(holes)
    row, column = np.mgrid[0:side, 0:side].astype(np.float32)
    wanted = int(rng.integers(1, 7))
    places: list[tuple[float, float]] = []
    for _ in range(60):
        x, y = rng.uniform(2.2 * radius, side - 2.2 * radius, 2)
        apart = all(np.hypot(x - u, y - v) > 4 * radius for u, v in places)
        reach = int(1.5 * radius)
        tissue = holes[int(y) - reach : int(y) + reach, int(x) - reach : int(x) + reach].max() < 0.1
        if len(places) < wanted and apart and tissue:
            places.append((x, y))
    rough = smooth_noise((side, side), rng, max(1.5, 0.35 * radius))
    for x, y in places:
        turn, parted = rng.uniform(0, np.pi), rng.random() < 0.35
        c, s = np.cos(turn), np.sin(turn)
        u, v = (column - x) * c + (row - y) * s, (row - y) * c - (column - x) * s
        cell = 0.85 * np.clip((1.6 * radius - np.hypot(u, v)) / (0.5 * radius), 0, 1)
        away = np.abs(np.abs(v) - 0.7 * radius) if parted else np.abs(v)
        distance = np.hypot(away / (0.42 * radius), u / (1.15 * radius)) + 0.3 * rough
        haematoxylin += cell * (0.12 - haematoxylin) + 1.9 * np.clip((1 - distance) * radius / 2, 0, 1)
        eosin += cell * (0.42 - eosin)
    return len(places)


def generate(kind: str, rng: np.random.Generator) -> Sample:
    """One field of view of a stained section."""
    side = int(rng.choice([SIZE, 2 * SIZE, 160]))
    ihc = bool(rng.random() < 0.4)
    pattern = PATTERNS[int(rng.integers(4))]
    tumour = bool(rng.random() < 0.5)
    magnification = float(np.exp(rng.uniform(np.log(0.5), np.log(2.6)))) * side / SIZE
    radius = 3.0 * magnification
    flow = smooth_noise((side, side), rng, side / 3)
    row, column = np.mgrid[0:side, 0:side].astype(np.float32)
    direction = rng.uniform(0, np.pi)
    wave = (column * np.cos(direction) + row * np.sin(direction)) / (radius * rng.uniform(0.8, 1.6)) + 4 * flow
    fibres = 0.5 + 0.5 * np.sin(wave + smooth_noise((side, side), rng, 5 * magnification))
    cloud = smooth_noise((side, side), rng, 6 * magnification)
    eosin = 0.35 + 0.3 * fibres + 0.1 * cloud
    haematoxylin = np.full((side, side), 0.04, np.float32)

    spacing = radius * (rng.uniform(1.7, 2.3) if pattern == "lymphoid" or tumour else rng.uniform(2.3, 4.0))
    lattice = np.stack(
        np.meshgrid(np.arange(-spacing, side + spacing, spacing), np.arange(-spacing, side + spacing, spacing)), -1
    )
    points = lattice.reshape(-1, 2) + rng.uniform(-0.45, 0.45, (lattice.size // 2, 2)) * spacing
    if pattern == "stroma":
        points = points[rng.random(len(points)) < 0.45]
    lumen, epithelium = np.zeros((2, side, side), np.float32)
    if pattern == "glands":
        rings = []
        for _ in range(int(np.clip(10 / magnification * side / SIZE, 2, 12))):
            centre = rng.uniform(0, side, 2)
            a, b = radius * rng.uniform(4, 9) * np.array([1, rng.uniform(0.55, 1)])
            tilt = rng.uniform(0, np.pi)
            c, s = np.cos(tilt), np.sin(tilt)
            du, dv = column - centre[0], row - centre[1]
            bumps = 0.15 * cloud if tumour else 0.05 * cloud
            distance = np.hypot((du * c + dv * s) / a, (dv * c - du * s) / b) + bumps
            body = np.clip((1.25 - distance) * a / 3, 0, 1)
            epithelium = np.maximum(epithelium, body)
            lumen = lumen * (1 - body) + np.clip((0.6 - distance) * a / 2, 0, 1)
            for layer in range(2 if tumour else 1):
                turn = np.arange(0, 2 * np.pi, 1.9 * radius / max(a, b))
                ring = (1.0 - 0.22 * layer) + rng.normal(0, 0.05, len(turn))
                ex, ey = a * ring * np.cos(turn), b * ring * np.sin(turn)
                rings.append(np.stack([centre[0] + ex * c - ey * s, centre[1] + ex * s + ey * c], 1))
        inside = epithelium[
            np.clip(points[:, 1], 0, side - 1).astype(int), np.clip(points[:, 0], 0, side - 1).astype(int)
        ]
        points = np.concatenate([points[(inside < 0.2) & (rng.random(len(points)) < 0.6)], *rings])
        eosin = eosin * (1 - epithelium) + epithelium * (0.4 + 0.08 * cloud)
        haematoxylin += 0.1 * epithelium
    points = points[rng.permutation(len(points))[:900]]
    count = len(points)
    spread = 0.32 if tumour else 0.12
    sizes = (
        radius * np.exp(rng.normal(0, spread, (count, 1))) * np.stack([np.ones(count), rng.uniform(0.6, 1, count)], 1)
    )
    if pattern == "stroma":
        sizes *= [1.7, 0.55]
        angles = np.full(count, direction + np.pi / 2) + rng.normal(0, 0.3, count)
    else:
        angles = rng.uniform(0, np.pi, count)
    levels = np.clip(rng.normal(0.85 if tumour else 0.75, 0.14, count), 0.35, 1)
    positive = rng.random(count) < rng.uniform(0.15, 0.85) if ihc else np.zeros(count, bool)
    membrane = ihc and rng.random() < 0.3
    nuclei = _ellipses(points, sizes, angles, levels, side)
    rim = np.clip(nuclei - ndimage.uniform_filter(nuclei, max(3, int(radius * 0.8))), 0, 1)
    chromatin = 1 + 0.2 * smooth_noise((side, side), rng, max(1.2, 0.7 * magnification))
    haematoxylin = np.maximum(haematoxylin, (nuclei * chromatin * 0.9 + rim * 0.5) * rng.uniform(0.8, 1.5))
    eosin = eosin * (1 - 0.6 * nuclei)
    holes = lumen if pattern != "sheet" else np.zeros_like(lumen)
    if rng.random() < 0.35:
        tear = np.clip((smooth_noise((side, side), rng, side / 3) - rng.uniform(0.9, 1.8)) * 6, 0, 1)
        holes = np.maximum(holes, tear)
    if rng.random() < 0.15:
        # Adipocytes: empty round cells with thin walls.
        fat = _ellipses(
            rng.uniform(0, side, (14, 2)),
            rng.uniform(5, 8, (14, 1)) * radius / 3 * np.ones((14, 2)),
            np.zeros(14),
            np.ones(14),
            side,
        )
        holes = np.maximum(holes, fat)
    keep = 1 - 0.95 * holes
    haematoxylin, eosin = haematoxylin * keep, eosin * keep
    # A generator of its own, so that mitoses leave the draws of everything else as they are.
    dividing = rng.spawn(1)[0]
    mitoses = 0
    if tumour and not ihc and radius * SIZE / side >= 3.5 and dividing.random() < 0.7:
        mitoses = _mitoses(haematoxylin, eosin, holes, radius, dividing)
    if ihc:
        # Again a generator of its own.
        stained = rng.spawn(1)[0]
        cytoplasm = membrane and stained.random() < 0.6
        dab = _ellipses(
            points[positive], sizes[positive] * (1.5 if membrane else 1.05), angles[positive], levels[positive], side
        )
        if cytoplasm:  # around the nuclei of the positive cells, in glands of all of the epithelium
            cells = _ellipses(points[positive], sizes[positive] * 1.9, angles[positive], levels[positive], side)
            dab = (epithelium if pattern == "glands" else cells) * (0.7 + 0.2 * fibres) * (1 - 0.7 * nuclei)
        elif membrane:
            dab = np.clip(
                dab
                - 0.8 * _ellipses(points[positive], sizes[positive] * 1.15, angles[positive], levels[positive], side),
                0,
                1,
            )
        dab = np.clip(ndimage.gaussian_filter(dab, 0.5 * magnification) * 1.1 + 0.06 * np.abs(cloud), 0, 1.5) * keep
        dyes = [
            (HAEMATOXYLIN, haematoxylin * 0.7 * (1 - 0.7 * np.clip(dab, 0, 1)) + 0.05 * keep),
            (DAB, dab * rng.uniform(0.9, 1.6)),
            (EOSIN, 0.03 * eosin),
        ]
    else:
        dyes = [(HAEMATOXYLIN, haematoxylin), (EOSIN, eosin * rng.uniform(0.5, 1.2))]
    density = np.zeros((side, side, 3))
    for vector, amount in dyes:
        tilted = np.clip(vector + rng.normal(0, 0.05, 3), 0.02, 1.1)
        density += amount[..., None] * tilted * rng.uniform(0.8, 1.2)
    light = 245 * rng.uniform(0.92, 1.0, 3) * np.exp(-density)
    blur = rng.uniform(0.2, 1.1)
    picture = ndimage.gaussian_filter(light, (blur, blur, 0)).clip(0, 255).astype(np.uint8)
    picture = np.asarray(
        Image.fromarray(picture).resize((SIZE, SIZE), Image.Resampling.BOX if side > SIZE else Image.Resampling.BICUBIC)
    )
    picture = np.rot90(picture, int(rng.integers(4))).copy()
    facts = {
        "modality": "histopathology",
        "stain": "immunohistochemistry" if ihc else "H&E",
        "lesion": "yes" if tumour else "no",
        "region": {"glands": "glands", "stroma": "stroma", "sheet": "epithelium", "lymphoid": "lymphoid tissue"}[
            pattern
        ],
    }
    if mitoses:
        facts |= {"count": str(mitoses), "counted": "mitotic figures"}
    row_of, column_of = (points[:, axis].astype(int) for axis in (1, 0))
    shown = (points.min(axis=1) >= 0) & (points.max(axis=1) < side)
    shown[shown] = holes[row_of[shown], column_of[shown]] < 0.5
    if ihc and not membrane and shown.sum() >= 20:
        facts |= {"severity": allred_proportion(float(positive[shown].mean())), "graded": "the staining of the nuclei"}
    return Sample(photograph(picture[None], rng, coarsest=80 if mitoses else 40), kind, np.zeros(1), (0.0, 0.0), facts)
