# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Dermoscopy phantoms: pigmented skin lesions with network, dots and veil, hairs, gel bubbles and lens vignetting."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from .geometry import SIZE, lesion_map, photograph, smooth_noise
from .sample import Sample


def greatest_diameter(cover: np.ndarray) -> float:
    """Greatest diameter in pixels of what a mask (rows, columns) covers: the longest way across it in any direction."""
    rows, columns = np.nonzero(cover)
    turns = np.linspace(0, np.pi, 60, endpoint=False)
    along = np.outer(np.cos(turns), columns) + np.outer(np.sin(turns), rows)
    return float(np.ptp(along, axis=1).max()) + 1


def generate(kind: str, rng: np.random.Generator) -> Sample:
    """One dermoscopic photograph, with or without a pigmented lesion."""
    axis = np.linspace(-1, 1, SIZE, dtype=np.float32)
    v, u = np.meshgrid(axis, axis, indexing="ij")
    melanin = rng.uniform(0, 1)
    skin = np.array([0.93, 0.72, 0.62]) * (1 - melanin) + np.array([0.70, 0.48, 0.36]) * melanin
    picture = (
        np.ones((SIZE, SIZE, 3))
        * skin
        * (1 + 0.025 * smooth_noise((SIZE, SIZE), rng, 4) + 0.03 * smooth_noise((SIZE, SIZE), rng, 25))[..., None]
    )
    lines = np.clip(1 - np.abs(smooth_noise((SIZE, SIZE), rng, 9)) * 4, 0, 1) * rng.uniform(0, 0.07)
    picture *= 1 - lines[..., None]
    lesion = bool(rng.random() < 0.5)
    irregular = bool(rng.random() < 0.5)
    if lesion:
        centre, size = rng.uniform(-0.2, 0.2, 2), rng.uniform(0.3, 0.95)
        stretch, angle = rng.uniform(0.65, 1.0), rng.uniform(0, np.pi)
        du, dv = u - centre[0], v - centre[1]
        p, q = du * np.cos(angle) + dv * np.sin(angle), dv * np.cos(angle) - du * np.sin(angle)
        turn = np.arctan2(q, p)
        waves = sum(
            rng.normal(0, (0.10 if irregular else 0.03)) * np.cos(k * turn + rng.uniform(0, 6.28)) for k in range(2, 7)
        )
        distance = np.hypot(p, q / stretch) / size * (1 + waves) + 0.05 * smooth_noise((SIZE, SIZE), rng, 8)
        cover = np.clip((1 - distance) * rng.uniform(3, 12) + 0.5, 0, 1)
        brown = np.array([0.48, 0.28, 0.17]) * rng.uniform(0.6, 1.3)
        shade = np.clip(1 - 0.25 * (1 - distance), 0.4, 1.2)
        tone = brown * (shade * (1 + 0.12 * smooth_noise((SIZE, SIZE), rng, 12)))[..., None]
        if irregular:
            for _ in range(int(rng.integers(1, 4))):
                patch = np.clip(smooth_noise((SIZE, SIZE), rng, 30) * 1.5 - 0.4, 0, 1)[..., None]
                colour = np.array(
                    ((0.15, 0.1, 0.1), (0.35, 0.4, 0.5), (0.7, 0.35, 0.3), (0.8, 0.7, 0.65))[int(rng.integers(4))]
                )
                tone = tone * (1 - 0.8 * patch) + 0.8 * patch * colour
        if rng.random() < 0.6:
            period = rng.uniform(0.05, 0.1)
            mesh_u = u + 0.03 * smooth_noise((SIZE, SIZE), rng, 12)
            mesh_v = v + 0.03 * smooth_noise((SIZE, SIZE), rng, 12)
            mesh = np.maximum(
                np.cos(2 * np.pi * (mesh_u + 0.5 * mesh_v) / period),
                np.cos(2 * np.pi * (mesh_v - 0.5 * mesh_u) / period),
            )
            tone = tone * (1 - rng.uniform(0.1, 0.35) * np.clip(mesh, 0, 1) ** 2)[..., None]
        if rng.random() < 0.5:
            dots = np.clip((smooth_noise((SIZE, SIZE), rng, 3.5) - 1.7) * 3, 0, 1)
            tone = tone * (1 - 0.7 * dots)[..., None]
        picture = picture * (1 - cover[..., None]) + cover[..., None] * np.minimum(tone, picture * 1.05)
    canvas = Image.new("L", (2 * SIZE, 2 * SIZE))
    draw = ImageDraw.Draw(canvas)
    if rng.random() < 0.55:
        for _ in range(int(rng.integers(2, 22))):
            start, heading = rng.uniform(0, 2 * SIZE, 2), rng.uniform(0, 6.28)
            curve, points = rng.normal(0, 0.12), [start]
            for _step in range(10):
                heading += curve
                points.append(points[-1] + rng.uniform(5, 18) * np.array([np.cos(heading), np.sin(heading)]))
            draw.line([tuple(p) for p in points], fill=int(rng.integers(140, 255)), width=int(rng.integers(1, 4)))
    hair = np.asarray(canvas.resize((SIZE, SIZE), Image.Resampling.BOX), np.float64)[..., None] / 255
    picture = picture * (1 - hair) + hair * np.array([0.12, 0.08, 0.06])
    if rng.random() < 0.3:
        for _ in range(int(rng.integers(2, 9))):
            centre, radius = rng.uniform(-1, 1, 2), rng.uniform(0.03, 0.12)
            d = np.hypot(u - centre[0], v - centre[1]) / radius
            picture += (np.exp(-(((d - 1) / 0.15) ** 2)) * 0.25)[..., None] + (
                np.exp(-((np.hypot(u - centre[0] + 0.4 * radius, v - centre[1] + 0.4 * radius) / (0.25 * radius)) ** 2))
                * 0.6
            )[..., None]
    r = np.hypot(u, v)
    picture *= (1 - rng.uniform(0, 0.3) * r**2)[..., None]
    lens = np.inf
    if rng.random() < 0.3:
        lens = rng.uniform(0.95, 1.25)
        picture *= np.clip((lens - r) * 30, 0, 1)[..., None]
    ticks = 0.0
    if rng.random() < 0.15:
        ticks = rng.uniform(5, 10)  # millimetres in half of the picture's width
        for every, top in ((1, 0.90), (5, 0.84)):
            away = np.abs((u * ticks / every + 0.5) % 1 - 0.5) * every / ticks * SIZE / 2
            tick = np.clip(1.1 - away, 0, 1) * (v > top) * (v < 0.96)
            picture += tick[..., None] * (0.1 - picture)
    frames = (np.clip(picture, 0, 1) * 255).astype(np.uint8)[None]
    lesions = None
    facts = {"modality": "dermoscopy", "region": "skin", "lesion": "yes" if lesion else "no"}
    if lesion:
        facts["border"] = "irregular" if irregular else "regular"
        # An uneven border and several colours are what the ABCD rule (Nachbar et al. 1994) warns of.
        facts["finding"] = "suspected melanoma" if irregular else "naevus"
        pigmented = cover > 0.5
        whole = not (pigmented[[0, -1]].any() or pigmented[:, [0, -1]].any())
        if ticks and whole and lens > 1.1:
            millimetres = greatest_diameter(pigmented) * 2 * ticks / SIZE
            facts |= {"size": f"{millimetres:.0f} mm", "measured": "the lesion"}
        lesions = lesion_map((cover * np.clip((lens - r) * 30, 0, 1))[None])
    return Sample(photograph(frames, rng), kind, np.zeros(1), (0.0, 0.0), facts, lesions)
