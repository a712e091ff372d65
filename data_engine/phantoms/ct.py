# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""CT phantoms: axial slices of four regions in Hounsfield units with beam noise and lesions, windowed like real CT."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from hub_model.media_omniv_med import window_ct

from .anatomy import REGIONS, Site
from .geometry import (
    Scene,
    cross_section,
    fit,
    jpeg,
    lesion_facts,
    lesion_map,
    patient_grid,
    smooth_noise,
    warp,
)
from .sample import Sample

GREY_WINDOWS = {
    "head": ((80.0, 40.0), (120.0, 40.0), (100.0, 35.0)),
    "chest": ((400.0, 40.0), (1500.0, -600.0), (350.0, 40.0)),
    "abdomen": ((400.0, 40.0), (350.0, 40.0), (180.0, 60.0)),
    "pelvis": ((2000.0, 400.0), (1500.0, 300.0), (1100.0, 250.0)),
}
"""(width, level) in HU that exported grey pictures of each region use; in all of them its lesions can be seen."""


def hounsfield(rng: np.random.Generator, enhanced: bool) -> dict[str, float]:
    """HU of every tissue for one patient; `enhanced` is iodine contrast in vessels and parenchyma."""
    jitter = rng.normal(0, 4, 10)
    uptake = rng.uniform(0.4, 1.2) if enhanced else 0.0
    return {
        "air": -1000.0,
        "lung": rng.uniform(-890, -760),
        "fat": -100 + jitter[0] * 2,
        "skin": 30 + jitter[1],
        "muscle": 52 + jitter[2] + 10 * uptake,
        "liver": 56 + jitter[3] + 55 * uptake,
        "spleen": 48 + jitter[4] + 70 * uptake,
        "kidney": 33 + jitter[5] + 130 * uptake,
        "blood": 42 + jitter[6] + 190 * uptake,
        "fluid": 8 + jitter[7],
        "csf": 10 + jitter[8],
        "cord": 35.0,
        "disc": 80 + jitter[9],
        "grey": 38.0 + 5 * uptake,
        "white": 28.0 + 3 * uptake,
        "cortex": rng.uniform(700, 1300),
        "marrow": rng.uniform(120, 380),
        "grain": rng.uniform(20, 60),
    }


NAME_OF = {"lung": "lung nodule", "liver": "liver lesion", "kidney": "kidney cyst"}
"""Site of a lesion -> its name; in brain and bone the name depends on its density."""


def lung_rads(long: float, short: float) -> str:
    """Lung-RADS v2022 category of a solid nodule at a first screening, by the mean of its two diameters (mm)."""
    mean = (long + short) / 2
    category = "2" if mean < 6 else "3" if mean < 8 else "4A" if mean < 15 else "4B"
    return f"Lung-RADS {category}"


def _finding(tissue: str, value: float) -> str:
    """Name of a lesion of `value` HU at a site."""
    if tissue == "brain":
        return "haemorrhage" if value > 40 else "hypodense brain lesion"
    if tissue == "bone":
        return "sclerotic bone lesion" if value > 500 else "lytic bone lesion"
    return NAME_OF[tissue]


def _lesion(rng: np.random.Generator, site: Site) -> tuple[tuple[float, float, float], float, float]:
    """Centre (mm), radius (mm) and HU of a lesion at `site`."""
    centre = tuple(float(v) for v in rng.uniform(site.low, site.high))
    radius = float(rng.uniform(*site.radius))
    values = {
        "brain": (65.0, 85.0) if rng.random() < 0.6 else (8.0, 18.0),
        "lung": (20.0, 90.0),
        "liver": (0.0, 25.0),
        "kidney": (-5.0, 15.0),
        "bone": (20.0, 60.0) if rng.random() < 0.5 else (900.0, 1300.0),
    }
    return (centre[0], centre[1], centre[2]), radius, float(rng.uniform(*values[site.tissue]))


def generate(kind: str, rng: np.random.Generator) -> Sample:
    """One CT slice ("image") or an axial stack ("volume")."""
    name = tuple(REGIONS)[int(rng.integers(len(REGIONS)))]
    region = REGIONS[name]
    enhanced = bool(rng.random() < 0.5)
    tissue = hounsfield(rng, enhanced)
    has_lesion = bool(rng.random() < 0.5)
    site = region.sites[int(rng.integers(len(region.sites)))]
    centre, radius, value = _lesion(rng, site)

    slices = 1 if kind == "image" else int(rng.integers(8, 17))
    middle = float(rng.uniform(*region.z_range))
    spacing = float(rng.uniform(1.5, 6)) if slices > 1 else 0.0
    offsets = (np.arange(slices) - (slices - 1) / 2) * spacing
    if has_lesion:
        middle = centre[2] + float(rng.uniform(-0.3, 0.3)) * max(radius, 0.6 * spacing * slices)
        middle = float(np.clip(middle, centre[2] - 0.5 * radius - offsets[-1], centre[2] + 0.5 * radius + offsets[-1]))

    zoom = rng.random()
    full = 2 * max(region.half_axes)
    if zoom < 0.5:
        field, focus = full * rng.uniform(0.95, 1.45), rng.uniform(-15, 15, 2)
    else:
        field = full * (rng.uniform(0.5, 0.85) if zoom < 0.72 else rng.uniform(0.2, 0.45))
        focus = rng.uniform(-0.6, 0.6, 2) * np.asarray(region.half_axes)
        if name != "head" and rng.random() < 0.4:
            focus = np.array([rng.uniform(-25, 25), rng.uniform(35, 85)])
        if has_lesion:
            focus = np.asarray(centre[:2]) + rng.uniform(-0.3, 0.3, 2) * (field - radius)
    pixels = int(rng.integers(40, 145)) if slices == 1 else int(rng.integers(64, 113))
    aspect = float(rng.uniform(0.7, 1.35)) if rng.random() < 0.35 else 1.0
    shape = (max(24, round(pixels * min(1, aspect))), max(24, round(pixels / max(1, aspect))))
    extent = (field * shape[0] / pixels, field * shape[1] / pixels)

    grid = patient_grid(
        shape, extent, (float(focus[0]), float(focus[1]), middle), offsets, angle=float(rng.normal(0, 0.06))
    )
    x, y = warp(*grid, rng, amplitude=float(rng.uniform(1, 6)), wavelength=float(rng.uniform(60, 140)))
    scene = Scene(x, y, grid[2], tissue["air"], edge=max(1.2, field / pixels))
    if name != "head" or rng.random() < 0.5:
        table = region.half_axes[1] * rng.uniform(1.08, 1.25)
        bed = grid[1] - table - 0.0008 * grid[0] ** 2 * (-1 if rng.random() < 0.5 else 1)
        scene.paint(np.clip((1.5 - np.abs(bed)) / scene.edge + 0.5, 0, 1), rng.uniform(-300, 200))
        scene.paint(np.clip((9 - np.abs(bed - 11)) / scene.edge + 0.5, 0, 1), rng.uniform(-980, -880))
    region.paint(scene, tissue, rng)
    if has_lesion:
        # The lesion is placed in unbent coordinates, so its side and place in the stack stay true.
        scene.x, scene.y = grid[0], grid[1]
        radii = (radius, radius * float(rng.uniform(0.8, 1.2)), radius * float(rng.uniform(0.8, 1.2)))
        scene.solid(centre, radii, value)

    values = _acquire(scene.values, rng, shape)
    frames, scale = _display(values, kind, name, rng)
    facts = {"modality": "CT", "plane": "axial", "lesion": "yes" if has_lesion else "no"}
    lesions = None
    if zoom < 0.72:
        facts["region"] = name
    elif name != "head" and abs(focus[0]) < 30 and focus[1] > 30:
        facts["region"] = "spine"
    if name != "head" and zoom < 0.72:
        facts["contrast"] = "contrast-enhanced" if enhanced else "non-contrast"
    if has_lesion:
        long, short = cross_section(radii, 0.0, 2, float(np.abs(middle + offsets - centre[2]).min()))
        cover = scene.coverage(centre, radii)
        facts |= lesion_facts(cover, scale, long)
        lesions = lesion_map(cover, scale)
    if has_lesion and zoom < 0.72:
        facts["finding"] = _finding(site.tissue, value)
        if site.tissue == "lung" and "size" in facts:
            facts |= {"severity": lung_rads(long, short), "graded": "the lung nodule"}
    if has_lesion and zoom < 0.5:
        facts["side"] = "left" if centre[0] > 0 else "right"
    pixel_spacing = (field / pixels * scale[0], field / pixels * scale[1])
    return Sample(frames, kind, offsets - offsets[0], pixel_spacing, facts, lesions)


def _acquire(values: np.ndarray, rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Scanner effects on HU (slices, rows, columns): kernel blur, quantum noise, photon-starvation streaks."""
    blur = rng.uniform(0, 0.8)
    if blur > 0.3:
        values = ndimage.gaussian_filter(values, (0, blur, blur))
    noise = rng.standard_normal(values.shape, dtype=np.float32)
    if rng.random() < 0.7:
        noise = ndimage.uniform_filter(noise, (0, 2, 2))[: len(values)] * np.float32(1.6)
    noise *= np.float32(rng.choice([3, 8, 15, 30]) * rng.uniform(0.7, 1.3))
    if rng.random() < 0.4:
        streaks = smooth_noise((len(values), *shape), rng, (1.2, rng.uniform(6, 25)))
        band = np.exp(-(((np.linspace(-1, 1, shape[0]) - rng.uniform(-0.5, 0.8)) / rng.uniform(0.2, 0.6)) ** 2))
        noise = noise + streaks * np.float32(rng.uniform(10, 50)) * band[:, None].astype(np.float32)
    return np.maximum(values + noise, -1024)


def _display(
    values: np.ndarray, kind: str, region: str, rng: np.random.Generator
) -> tuple[np.ndarray, tuple[float, float]]:
    """HU to finished frames: the three windows of a CT file, or, for some images, a grey exported picture."""
    if kind == "image" and rng.random() < 0.3:
        width, level = GREY_WINDOWS[region][int(rng.integers(len(GREY_WINDOWS[region])))]
        window = (width * float(rng.uniform(0.8, 1.25)), level + float(rng.uniform(-0.08, 0.08)) * width)
        frames = window_ct(values, (window,) * 3)
        frames, scale = fit(frames, rng)
        return (jpeg(frames, int(rng.integers(35, 92))) if rng.random() < 0.5 else frames), scale
    return fit(window_ct(values), rng, squash=0.7)
