# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""MRI phantoms: brains from the MNI152 tissue maps, and body, knee and spine models, in the common contrasts."""

from __future__ import annotations

from functools import lru_cache
from importlib import resources

import nibabel
import numpy as np
from scipy import ndimage

from hub_model.media_omniv_med import scale_intensity

from .anatomy import REGIONS
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

PLANES = ("axial", "coronal", "sagittal")
ORIGIN = np.array([98.0, 134.0, 72.0])
"""Voxel (RAS, 1 mm) of the anterior commissure in the MNI152 maps."""

BRAIN_CONTRASTS: dict[str, dict[str, float]] = {
    "T1-weighted": {"white": 0.82, "grey": 0.58, "csf": 0.16, "bone": 0.06, "fat": 1.0, "lesion": 0.30},
    "T2-weighted": {"white": 0.36, "grey": 0.52, "csf": 1.0, "bone": 0.05, "fat": 0.70, "lesion": 0.92},
    "FLAIR": {"white": 0.46, "grey": 0.60, "csf": 0.10, "bone": 0.05, "fat": 0.75, "lesion": 1.0},
}
"""Relative signal of the tissues of a head."""

BODY_CONTRASTS: dict[str, dict[str, float]] = {
    "T1-weighted": {
        "fat": 1.0, "muscle": 0.34, "liver": 0.48, "spleen": 0.32, "kidney": 0.36, "blood": 0.08, "fluid": 0.14,
        "csf": 0.14, "cord": 0.38, "disc": 0.30, "marrow": 0.72, "lesion": 0.20, "cartilage": 0.42,
    },
    "T2-weighted": {
        "fat": 0.72, "muscle": 0.16, "liver": 0.26, "spleen": 0.50, "kidney": 0.60, "blood": 0.06, "fluid": 1.0,
        "csf": 1.0, "cord": 0.40, "disc": 0.55, "marrow": 0.50, "lesion": 0.95, "cartilage": 0.50,
    },
    "proton-density-weighted": {
        "fat": 0.90, "muscle": 0.42, "liver": 0.45, "spleen": 0.55, "kidney": 0.60, "blood": 0.10, "fluid": 0.85,
        "csf": 0.80, "cord": 0.62, "disc": 0.50, "marrow": 0.70, "lesion": 0.85, "cartilage": 0.65,
    },
}  # fmt: skip
"""Relative signal of the tissues of trunk and limbs; flowing blood is dark as in spin echo."""


@lru_cache(maxsize=1)
def brain_maps() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """T1 template, grey and white matter (uint8, RAS, 1 mm); distance outside the brain (float32 mm, 2 mm grid).

    The template is skull-stripped, so skull and scalp are shells at given distances around the brain.
    """
    folder = resources.files("nilearn.datasets").joinpath("data")
    maps = []
    for name in ("t1", "gm", "wm"):
        with resources.as_file(folder / f"mni_icbm152_{name}_tal_nlin_sym_09a_converted.nii.gz") as path:
            maps.append(np.asarray(nibabel.Nifti1Image.from_filename(path).dataobj))
    brain = ndimage.binary_closing(np.pad(maps[0][::2, ::2, ::2] > 30, 16), iterations=5)
    # A neck below the brain stem, so that coronal and sagittal slices do not end in a round chin.
    i, j = np.ogrid[: brain.shape[0], : brain.shape[1]]
    neck = ((i - 65) / 17) ** 2 + ((j - 70) / 18) ** 2 < 1
    brain_and_neck = brain.copy()
    brain_and_neck[:, :, :24] |= neck[:, :, None]
    inside = ndimage.distance_transform_edt(brain_and_neck)
    distance = (ndimage.distance_transform_edt(~brain_and_neck) - inside).astype(np.float32) * 2
    return maps[0], maps[1], maps[2], distance


def _brain(
    grid: tuple[np.ndarray, np.ndarray, np.ndarray], rng: np.random.Generator, contrast: str, signal: dict[str, float]
) -> np.ndarray:
    """Signal (slices, rows, columns) of a head at patient coordinates (LPS, mm; origin at the anterior commissure)."""
    t1, grey, white, distance = brain_maps()
    size = rng.uniform(0.92, 1.1, 3)
    x, y = warp(*grid, rng, amplitude=rng.uniform(0, 3), wavelength=rng.uniform(60, 120))
    voxel = np.stack([ORIGIN[0] - x / size[0], ORIGIN[1] - y / size[1], ORIGIN[2] + grid[2] / size[2]])

    def sample(volume: np.ndarray, at: np.ndarray, outside: float = 0.0) -> np.ndarray:
        return ndimage.map_coordinates(volume, at, order=1, cval=outside, output=np.float32)

    def inside(volume: np.ndarray) -> np.ndarray:
        return sample(volume, voxel) / np.float32(255)

    away = sample(distance, voxel / 2 + 16, 60.0)
    shape = away.shape
    skull, scalp = rng.uniform(4, 8), rng.uniform(4, 9)
    deep = signal["csf"] + (0.5 * signal["grey"] - signal["csf"]) * np.clip((grid[2] + 46) / -10, 0, 1)
    if contrast == "T1-weighted" and rng.random() < 0.5:
        values = inside(t1) ** np.float32(rng.uniform(0.8, 1.8)) * np.float32(0.85)
    else:
        g, w = inside(grey), inside(white)
        values = g * signal["grey"] + w * signal["white"] + np.clip(1 - g - w, 0, 1) * deep
    values = np.where(away > 1, signal["csf"], values)
    scalp_signal = signal["fat"] * rng.uniform(0.6, 1)
    shells = [
        (2.5, signal["bone"]),
        (2.5 + skull * 0.35, signal["bone"] + 0.3 * signal["fat"]),
        (2.5 + skull * 0.65, signal["bone"]),
        (2.5 + skull, scalp_signal),
        (2.5 + skull + scalp, 0.35),
        (4.0 + skull + scalp, 0.0),
    ]
    if rng.random() < 0.25:
        # A skull-stripped brain, as research data often is; the neck goes with the skull.
        shells = [(1.0, 0.0)]
        values *= np.clip(inside(t1) * 6, 0, 1)
    for start, value in shells:
        values += np.clip((away - np.float32(start)) / 1.2, 0, 1) * (np.float32(value) - values)
    if rng.random() < 0.5 and len(shells) > 1:
        face = np.clip((away - 2.5 - skull) / 2, 0, 1) * (away < 2.5 + skull + scalp)
        values += face * smooth_noise(shape, rng, 5) * np.float32(0.15)
    return values


def _knee(scene: Scene, tissue: dict[str, float], rng: np.random.Generator) -> None:
    """Knee joint: femur, tibia, fibula, patella, cartilage, menisci, cruciate ligaments, muscles and fat."""
    far = float("inf")
    bulk = rng.uniform(0.85, 1.25)
    scene.solid((0, 4, 0), (66 * bulk, 70 * bulk, far), tissue["fat"])
    for centre, radii in (((0, -42, 85), (42, 24, 75)), ((-24, 36, 85), (22, 26, 80)), ((26, 36, 85), (22, 26, 80)),
                          ((-22, 40, -80), (26, 26, 95)), ((24, 40, -80), (26, 26, 95))):  # fmt: skip
        scene.solid(centre, radii, tissue["muscle"] * rng.uniform(0.85, 1.15))
    scene.rod((0, 40, -160), (0, 34, 160), 5, tissue["blood"])
    grain = 1 + 0.06 * smooth_noise(scene.values.shape, rng, 3)
    marrow = tissue["marrow"] * grain
    for shrink, value in ((0.0, tissue["cortex"]), (2.5, marrow)):
        scene.rod((0, -4, 30), (0, -8, 200), 16 - shrink, value)
        for side in (-1, 1):
            scene.solid((side * 22, 4, 16), (23 - shrink, 32 - shrink, 26 - shrink), value)
        scene.solid((0, 2, -28), (42 - shrink, 28 - shrink, 19 - shrink), value, power=3)
        scene.rod((0, -2, -40), (4, 2, -210), 15 - shrink, value)
        scene.rod((38, 20, -38), (34, 20, -210), 7 - shrink * 0.7, value)
        scene.solid((0, -46, 18), (20 - shrink, 10 - shrink, 21 - shrink), value)
    gap = np.clip((3.5 - np.abs(scene.z + 9.5)) / scene.edge + 0.5, 0, 1)
    joint = scene.coverage((0, 2, -9), (42, 28, 30), power=3)
    scene.paint(gap * joint, tissue["cartilage"])
    for side in (-1, 1):
        for front in (-1, 1):
            scene.solid((side * 24, 4 + front * 18, -9), (12, 7, 4), tissue["cortex"])
    scene.rod((4, -8, -12), (-6, 16, 14), 4, tissue["cortex"] + 0.08)
    scene.rod((-4, 22, -26), (4, 4, 8), 5, tissue["cortex"])
    scene.rod((0, -54, 30), (0, -58, 110), 4, tissue["cortex"])
    scene.rod((0, -54, 4), (0, -36, -46), 3.5, tissue["cortex"])
    if rng.random() < 0.5:
        scene.solid((0, -34, 52), (24, 6, 20), tissue["fluid"])


def _spine(scene: Scene, tissue: dict[str, float], rng: np.random.Generator) -> None:
    """Sagittal spine: a stack of vertebral bodies and discs, cord in its canal, spinous processes, muscle and fat."""
    far = float("inf")
    scene.solid((0, -20, 0), (165, 105, far), tissue["fat"], power=2.4)
    scene.solid((0, -52, 0), (130, 62, far), tissue["muscle"], power=2.4)
    blobs = np.clip(smooth_noise(scene.values.shape, rng, 9) * 0.8 - 0.2, 0, 1)
    scene.paint(scene.coverage((0, -60, 0), (110, 45, far)) * blobs, tissue["fluid"] * 0.6)
    scene.rod((6, -24, -300), (6, -24, 300), 9, tissue["blood"])
    for side in (-1, 1):
        scene.solid((side * 30, 46, 0), (26, 20, far), tissue["muscle"])
    scene.solid((0, 44, 0), (6, 16, far), tissue["fat"] * 0.8)
    scene.solid((0, 24, 0), (11, 9.5, far), tissue["csf"])
    scene.paint(
        scene.coverage((0, 24, 0), (5.5, 4.5, far)) * np.clip((scene.z + rng.uniform(-80, 40)) / 20, 0, 1),
        tissue["cord"],
    )
    pitch = rng.uniform(26, 36)
    degenerated = rng.integers(-4, 5)
    for level in range(-8, 9):
        z = level * pitch
        disc = tissue["disc"] * (0.35 if level == degenerated else rng.uniform(0.8, 1.2))
        scene.solid((0, 0, z + pitch / 2), (21, 16, pitch * 0.18), disc, power=3)
        scene.solid((0, 0, z), (21, 16, pitch * 0.40), tissue["cortex"], power=5)
        scene.solid((0, 0, z), (19.5, 14.5, pitch * 0.355), tissue["marrow"] * rng.uniform(0.9, 1.1), power=5)
        scene.rod((0, 38, z - 2), (0, 60, z - pitch * 0.45), pitch * 0.18, tissue["cortex"])
        scene.rod((0, 38, z - 2), (0, 60, z - pitch * 0.45), pitch * 0.13, tissue["marrow"])


def _body(
    region: str,
    grid: tuple[np.ndarray, np.ndarray, np.ndarray],
    rng: np.random.Generator,
    signal: dict[str, float],
    edge: float,
) -> Scene:
    """Paints a trunk region, a knee or a spine with MR signal values."""
    tissue = signal | {"air": 0.0, "lung": 0.03, "skin": 0.45, "cortex": 0.03, "grain": 0.15, "white": 0.5, "grey": 0.5}
    wave = (0.0, 1e3) if region == "knee" else (rng.uniform(1, 6), rng.uniform(60, 140))
    x, y = warp(*grid, rng, *wave)
    if region == "spine":
        y = y + np.float32(rng.uniform(4, 16)) * np.cos(
            grid[2] * np.float32(2 * np.pi / rng.uniform(280, 420)) + np.float32(rng.uniform(0, 6))
        )
    scene = Scene(x, y, grid[2], 0.0, edge)
    if region == "knee":
        _knee(scene, tissue, rng)
    elif region == "spine":
        _spine(scene, tissue, rng)
    else:
        REGIONS[region].paint(scene, tissue, rng)
    return scene


LESION_BOXES: dict[str, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
    "brain": ((16, -40, -20), (50, 70, 50)),
    "knee": ((-30, -10, -40), (30, 20, 30)),
    "spine": ((-6, -8, -70), (6, 8, 70)),
    "abdomen": ((-95, -35, -10), (-50, 25, 50)),
    "pelvis": ((80, -10, -75), (110, 15, 60)),
    "chest": ((-30, 55, -40), (30, 75, 40)),
}
"""Boxes (mm, LPS) a lesion's centre is drawn from; the brain box is mirrored half of the time."""
EXTENTS = {"brain": 225.0, "knee": 170.0, "spine": 300.0, "abdomen": 390.0, "pelvis": 400.0, "chest": 390.0}
"""Field of view (mm) that shows the whole of each region."""


def generate(kind: str, rng: np.random.Generator) -> Sample:
    """One MR slice ("image") or a stack in one of the three planes ("volume")."""
    region = (
        "brain"
        if rng.random() < 0.6
        else ("knee", "spine", "abdomen", "pelvis", "chest")[int(rng.choice(5, p=[0.3, 0.25, 0.2, 0.15, 0.1]))]
    )
    if region == "brain":
        plane = PLANES[int(rng.integers(3))]
    elif region in ("knee", "spine"):
        plane = ("sagittal", "coronal" if region == "knee" else "sagittal", "axial")[
            int(rng.choice(3, p=[0.6, 0.25, 0.15]))
        ]
    else:
        plane = ("axial", "coronal")[int(rng.random() < 0.25)]
    table = BRAIN_CONTRASTS if region == "brain" else BODY_CONTRASTS
    contrast = tuple(table)[int(rng.integers(3))]
    signal = {name: float(np.clip(value * rng.normal(1, 0.1), 0, 1.2)) for name, value in table[contrast].items()}

    low, high = (np.asarray(corner, float) for corner in LESION_BOXES[region])
    lesion = rng.uniform(low, high)
    if region == "brain" and rng.random() < 0.5:
        lesion[0] = -lesion[0]
    radius = float(rng.uniform(4, 8 if region == "spine" else 15))
    has_lesion = bool(rng.random() < 0.5)

    slices = 1 if kind == "image" else int(rng.integers(8, 17))
    spacing = float(rng.uniform(1.5, 6)) if slices > 1 else 0.0
    if region in ("knee", "spine"):
        spacing = min(spacing, 3.0)
    offsets = (np.arange(slices) - (slices - 1) / 2) * spacing
    axis = {"axial": 2, "coronal": 1, "sagittal": 0}[plane]
    centre = rng.uniform(low, high) * (1 if region == "brain" else 0.6)
    if region == "brain":
        centre = np.array([rng.uniform(-50, 50), rng.uniform(-40, 70), rng.uniform(-30, 60)])
    whole = EXTENTS[region]
    zoom = rng.random()
    field = whole * (
        rng.uniform(0.95, 1.3) if zoom < 0.55 else rng.uniform(0.5, 0.8) if zoom < 0.8 else rng.uniform(0.2, 0.45)
    )
    focus = centre.copy()
    if zoom < 0.55:
        focus = np.array([0.0, 16.0 if region == "brain" else 0.0, 10.0 if region == "brain" else 0.0]) + rng.uniform(
            -8, 8, 3
        )
    if has_lesion:
        if zoom >= 0.55:
            focus = lesion + rng.uniform(-0.3, 0.3, 3) * max(field - 2 * radius, 0)
        focus[axis] = lesion[axis] + rng.uniform(-0.5, 0.5) * radius + rng.uniform(-0.8, 0.8) * offsets[-1]
    else:
        focus[axis] = centre[axis]
    pixels = int(rng.integers(28, 145)) if slices == 1 else int(rng.integers(32, 113))
    aspect = float(rng.uniform(0.7, 1.35)) if rng.random() < 0.4 else 1.0
    shape = (max(20, round(pixels * min(1, aspect))), max(20, round(pixels / max(1, aspect))))
    extent = (field * shape[0] / pixels, field * shape[1] / pixels)
    grid = patient_grid(shape, extent, tuple(focus), offsets, plane, float(rng.normal(0, 0.08)))
    edge = max(1.0, field / pixels)
    if region == "brain":
        scene = Scene(*grid, 0.0, edge)
        scene.values = _brain(grid, rng, contrast, signal)
    else:
        scene = _body(region, grid, rng, signal, edge)
        scene.x, scene.y = grid[0], grid[1]
    if has_lesion:
        shape_mm = radius * rng.uniform(0.75, 1.25, 3)
        shape_mm[axis] = max(shape_mm[axis], radius)
        turn = float(rng.uniform(0, 3)) if region == "brain" else 0.0
        scene.solid(tuple(lesion), tuple(shape_mm), signal["lesion"], angle=turn)
    values = _acquire(scene.values, rng, surface_coil=region in ("knee", "spine"))
    frames = scale_intensity(values)
    if rng.random() < 0.4:
        gamma = rng.uniform(0.6, 1.5)
        frames = np.round((frames / 255.0) ** gamma * 255).astype(np.uint8)
    frames, scale = fit(frames, rng)
    if kind == "image" and rng.random() < 0.3:
        frames = jpeg(frames, int(rng.integers(35, 92)))
    facts = {"modality": "MRI", "plane": plane, "contrast": contrast, "lesion": "yes" if has_lesion else "no"}
    if zoom < 0.8:
        facts["region"] = region
    lesions = None
    if has_lesion:
        distance = float(np.abs(focus[axis] + offsets - lesion[axis]).min())
        long, _ = cross_section(tuple(shape_mm), turn, axis, distance)
        cover = scene.coverage(tuple(lesion), tuple(shape_mm), turn)
        facts |= lesion_facts(cover, scale, long)
        lesions = lesion_map(cover, scale)
    if has_lesion and region == "brain" and plane != "sagittal" and zoom < 0.55:
        facts["side"] = "left" if lesion[0] > 0 else "right"
    pixel_spacing = (field / pixels * scale[0], field / pixels * scale[1])
    return Sample(frames, kind, offsets - offsets[0], pixel_spacing, facts, lesions)


def _acquire(values: np.ndarray, rng: np.random.Generator, surface_coil: bool) -> np.ndarray:
    """Scanner effects: receive-coil bias, resolution, a ghost along the phase direction, Rician noise."""
    rows, columns = values.shape[1:]
    v, u = np.meshgrid(np.linspace(-1, 1, rows), np.linspace(-1, 1, columns), indexing="ij")
    strength = rng.uniform(0.3, 1.4) if surface_coil else rng.uniform(0, 0.6)
    direction = rng.uniform(0, 2 * np.pi)
    bias = np.exp(
        strength * (u * np.cos(direction) + v * np.sin(direction)) - rng.uniform(-0.3, 0.5) * strength * (u**2 + v**2)
    )
    values = values * bias.astype(np.float32)
    blur = rng.uniform(0, 0.9)
    if blur > 0.35:
        values = ndimage.gaussian_filter(values, (0, blur, blur))
    if rng.random() < 0.2:
        values = values + np.float32(rng.uniform(0.02, 0.08)) * np.roll(
            values, int(rng.integers(rows // 3, rows)), axis=1
        )
    level = np.float32(rng.choice([0.005, 0.02, 0.04, 0.08]) * rng.uniform(0.7, 1.4))
    noise = rng.standard_normal((2, *values.shape), dtype=np.float32) * level
    return np.hypot(values + noise[0], noise[1])
