# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""OCT phantoms: layered retina with a foveal pit, drusen or fluid, vessel shadows and speckle; a B-scan or a stack."""

from __future__ import annotations

import numpy as np
from scipy import ndimage, signal

from .geometry import fit, grey, jpeg, lesion_map, smooth_noise
from .sample import Sample

LAYERS = (
    (0.10, 0.85), (0.28, 0.50), (0.38, 0.62), (0.48, 0.35), (0.60, 0.55),
    (0.84, 0.22), (0.88, 0.70), (0.93, 0.30), (1.0, 1.0),
)  # fmt: skip
"""(lower boundary as a share of the thickness, reflectivity): nerve fibre layer down to the pigment epithelium."""


def bump_count(profile: np.ndarray) -> int:
    """Bumps on a height profile (columns,) in mm that rise 0.04 mm above the dips beside them; 0 if some rise less."""
    padded = np.pad(profile, 1, constant_values=0.0)
    clear, any_at_all = (len(signal.find_peaks(padded, prominence=rise)[0]) for rise in (0.04, 0.01))
    return clear if clear == any_at_all else 0


def pockets(fluid: np.ndarray, column_mm: float) -> tuple[int, float]:
    """How many separate fluid pockets a B-scan (rows, columns) shows, and the width of the widest in mm."""
    labels, _ = ndimage.label(fluid)
    # A pocket of a few pixels drowns in the speckle.
    shown = [place for k, place in enumerate(ndimage.find_objects(labels), 1) if (labels[place] == k).sum() >= 8]
    widths = [(place[1].stop - place[1].start) * column_mm for place in shown]
    return len(shown), max(widths, default=0.0)


def generate(kind: str, rng: np.random.Generator) -> Sample:
    """One B-scan ("image") or neighbouring B-scans through the macula ("volume")."""
    slices = 1 if kind == "image" else int(rng.integers(8, 17))
    spacing = float(rng.uniform(0.1, 0.35))
    offsets = (np.arange(slices) - (slices - 1) / 2) * spacing
    start = rng.uniform(-1, 1) if slices == 1 else rng.uniform(-0.4, 0.4)
    rows, columns = int(rng.integers(90, 150)), int(rng.integers(90, 190))
    width = rng.uniform(4, 9)
    x = (np.linspace(-0.5, 0.5, columns, dtype=np.float32) * np.float32(width))[None, None]
    y = (start + offsets).astype(np.float32)[:, None, None]
    height = rng.uniform(1.2, 2.2)
    depth = (np.linspace(0, 1, rows, dtype=np.float32) * np.float32(height))[None, :, None]
    fovea_x = rng.uniform(-0.25, 0.25) * width
    has_pit = rng.random() < 0.8
    thickness = rng.uniform(0.26, 0.36)
    pit = 0.6 * np.exp(-(((x - fovea_x) ** 2 + y**2) / (2 * rng.uniform(0.3, 0.55) ** 2))) if has_pit else 0.0 * (x + y)
    rim = 0.12 * np.exp(-(((np.hypot(x - fovea_x, y) - 1.2) / 0.6) ** 2))
    floor = (
        height * rng.uniform(0.5, 0.72)
        + rng.uniform(-0.05, 0.03) * (x - 0.5) ** 2
        + rng.uniform(-0.08, 0.08) * x
        + 0.02 * np.sin(x * 1.3 + y)
    )
    lesion = bool(rng.random() < 0.5)
    finding = ("fluid", "drusen")[int(rng.integers(2))] if lesion else ""
    bumps = np.zeros_like(x + y)
    if finding == "drusen":
        for _ in range(int(rng.integers(3, 8))):
            bumps = bumps + rng.uniform(0.04, 0.12) * np.exp(
                -(
                    ((x - rng.uniform(-0.4, 0.4) * width) ** 2) / rng.uniform(0.02, 0.12)
                    + (y - start - rng.normal(0, spacing * 2)) ** 2 / 0.4
                )
            )
    swelling: float | np.ndarray = 0.0
    if finding == "fluid":
        swelling = rng.uniform(0.3, 0.9) * np.exp(-(((x - fovea_x) ** 2 + (y - start) ** 2) / 1.2))
    bottom = floor - bumps
    top = floor - thickness * (1 - pit + rim + swelling)
    share = (depth - top) / np.maximum(bottom - top, 1e-3)
    values = np.full(share.shape, rng.uniform(0.02, 0.06), np.float32)
    if rng.random() < 0.3:
        values = values + 0.03 * np.abs(smooth_noise(share.shape, rng, 8)) * (share < 0)
    previous = 0.0
    for lower, reflect in LAYERS:
        level = reflect * rng.uniform(0.85, 1.15)
        # Inner layers thin out at the pit; the photoreceptor bands do not.
        values = np.where((share >= previous) & (share < lower), np.float32(level * 0.75), values)
        previous = lower
    below = depth - floor
    choroid = (
        np.float32(0.5)
        * np.exp(-np.maximum(below, 0) / np.float32(rng.uniform(0.15, 0.35)))
        * (1 + 0.35 * smooth_noise(share.shape, rng, (6, 10)))
    )
    values = np.where(share >= 1, np.maximum(choroid, 0.03), values)
    deposits = np.zeros(share.shape, bool)
    if finding == "drusen":
        deposits = (depth > bottom) & (depth < floor)
        values = np.where(deposits, np.float32(0.45), values)
    fluid = np.zeros(share.shape, bool)
    if finding == "fluid":
        for _ in range(int(rng.integers(2, 7))):
            cx, cy = fovea_x + rng.normal(0, 0.5), start + rng.normal(0, 0.1)
            cz = float(floor.mean()) - thickness * rng.uniform(0.5, 1.1)
            inside = ((x - cx) / rng.uniform(0.1, 0.35)) ** 2 + ((depth - cz) / rng.uniform(0.04, 0.1)) ** 2 + (
                (y - cy) / 0.6
            ) ** 2 < 1
            fluid |= inside & (share > 0.1) & (share < 0.85)
        values = np.where(fluid, np.float32(0.04), values)
    for _ in range(int(rng.integers(0, 6))):
        shadow = np.exp(-(((x - rng.uniform(-0.5, 0.5) * width) / rng.uniform(0.03, 0.08)) ** 2)) * rng.uniform(
            0.3, 0.7
        )
        values = values * (1 - shadow * (share > 0.1))
    values = ndimage.gaussian_filter(values, (0, 0.7, 0.7))
    looks = float(rng.uniform(2, 16))
    speckle = np.asarray(rng.gamma(looks, 1 / looks, values.shape), np.float32)
    speckle = ndimage.gaussian_filter(speckle, (0, 0.4, 0.8))
    values = values * speckle + rng.uniform(0, 0.05) * rng.random(values.shape, dtype=np.float32)
    level = np.log1p(values * rng.uniform(2, 12)) / np.log1p(rng.uniform(2.5, 8))
    level = level * rng.uniform(0.7, 1.05)
    if rng.random() < 0.1:
        level = 1 - level
    frames, scale = fit(grey(level), rng, squash=0.75)
    if rng.random() < 0.3:
        frames = jpeg(frames, int(rng.integers(35, 92)))
    facts = {"modality": "OCT", "region": "retina", "lesion": "yes" if lesion else "no"}
    if lesion:
        facts["finding"] = finding
        drusen = bump_count(bumps[0, 0]) if finding == "drusen" and kind == "image" else 0
        number, widest = pockets(fluid[slices // 2], width / columns)
        if 0 < drusen < 10:
            facts |= {"count": str(drusen), "counted": "drusen"}
        elif 0 < number < 10 and kind == "image":
            facts |= {"count": str(number), "counted": "fluid pockets", "size": f"{widest:.1f} mm"}
            facts["measured"] = "the widest fluid pocket"
    spacing_mm = (height / rows * scale[0], width / columns * scale[1])
    lesions = lesion_map(deposits | fluid, scale)
    return Sample(frames, kind, offsets - offsets[0], spacing_mm, facts, lesions)
