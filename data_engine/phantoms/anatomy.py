# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Cross-sectional anatomy as soft solids, shared by CT and body MRI: the caller gives each tissue its value.

Patient coordinates are LPS in mm: x to the left, y posterior, z superior. Each region function paints one region into a
Scene and returns the places where a lesion may lie.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .geometry import Scene, smooth_noise

Tissues = dict[str, float]
EVERYWHERE = float("inf")


@dataclass(frozen=True)
class Site:
    """A place where a lesion may lie: a box of centres (mm), a radius range (mm) and the tissue around."""

    low: tuple[float, float, float]
    high: tuple[float, float, float]
    radius: tuple[float, float]
    tissue: str


@dataclass(frozen=True)
class Region:
    """A body region: half axes of the trunk or head (mm), z range of slices (mm), painter, and lesion sites."""

    half_axes: tuple[float, float]
    z_range: tuple[float, float]
    paint: Callable[[Scene, Tissues, np.random.Generator], None]
    sites: tuple[Site, ...]


def textured(scene: Scene, rng: np.random.Generator, value: float, amount: float, scale: float = 6.0) -> np.ndarray:
    """`value` with smooth variation of `amount` through the whole scene, for parenchyma and marrow."""
    return value + amount * smooth_noise(scene.values.shape, rng, scale)


def vertebra(scene: Scene, tissue: Tissues, rng: np.random.Generator, y: float, scale: float = 1.0) -> None:
    """Spine along z: bodies, discs, pedicles, laminae, transverse and spinous processes, canal with cord."""
    half = 19 * scale * rng.uniform(0.85, 1.15)
    depth = half * rng.uniform(0.72, 0.95)
    level = np.cos(scene.z * (2 * np.pi / rng.uniform(26, 34)) + rng.uniform(0, 6.28))
    bone = np.clip((level + 0.75) * 6, 0, 1)
    marrow = textured(scene, rng, tissue["marrow"], tissue["grain"], rng.uniform(2, 6))
    cortex, spread = tissue["cortex"], half * rng.uniform(1.5, 2.3)
    canal_y = y + depth * 1.45
    spine_y = canal_y + half * rng.uniform(1.1, 1.9)
    for side in (-1, 1):
        scene.rod((side * half * 0.7, y + depth * 0.8, -999), (side * half * 0.7, canal_y, 999), half * 0.2, cortex)
        tip = (side * spread, canal_y + half * rng.uniform(-0.1, 0.7), 0.0)
        start = (side * half * 0.6, canal_y, 0.0)
        _plate(scene, start, tip, half * 0.27, cortex)
        _plate(scene, start, tip, half * 0.14, marrow)
        _plate(scene, start, (0, canal_y + half * 0.7, 0), half * 0.2, cortex)
        _plate(scene, (side * half * 0.65, y + depth * 0.6, 0), start, half * 0.25, cortex)
    _plate(scene, (0, canal_y + half * 0.6, 0), (0, spine_y, 0), half * 0.2, cortex)
    _plate(scene, (0, canal_y + half * 0.7, 0), (0, spine_y - half * 0.1, 0), half * 0.1, marrow)
    core = tissue["disc"] + bone * (marrow - tissue["disc"])
    shell = tissue["disc"] + bone * (cortex - tissue["disc"])
    scene.solid((0, y, 0), (half, depth, EVERYWHERE), shell, power=2.4)
    scene.solid((0, y, 0), (half * 0.9, depth * 0.88, EVERYWHERE), core, power=2.4)
    scene.solid((0, canal_y, 0), (half * 0.52, half * 0.46, EVERYWHERE), tissue["csf"])
    scene.solid((0, canal_y, 0), (half * 0.33, half * 0.27, EVERYWHERE), tissue["cord"])


def _plate(
    scene: Scene,
    start: tuple[float, float, float],
    end: tuple[float, float, float],
    radius: float,
    value: float | np.ndarray,
) -> None:
    """Paints a bar between two points that runs along the whole z axis."""
    ax, ay, dx, dy = start[0], start[1], end[0] - start[0], end[1] - start[1]
    px, py = scene.x - np.float32(ax), scene.y - np.float32(ay)
    along = np.clip((px * np.float32(dx) + py * np.float32(dy)) / np.float32(max(dx * dx + dy * dy, 1e-6)), 0, 1)
    distance = np.hypot(px - along * np.float32(dx), py - along * np.float32(dy))
    scene.paint(np.clip((np.float32(radius) - distance) / scene.edge + 0.5, 0, 1), value)


def trunk(scene: Scene, tissue: Tissues, rng: np.random.Generator, half: tuple[float, float]) -> tuple[float, float]:
    """Skin, subcutaneous fat and the muscle wall; returns the half axes inside the wall (mm)."""
    fat = rng.uniform(4, 28)
    scene.solid((0, 0, 0), (half[0], half[1], EVERYWHERE), tissue["skin"], power=2.3)
    scene.solid(
        (0, 0, 0),
        (half[0] - 2, half[1] - 2, EVERYWHERE),
        textured(scene, rng, tissue["fat"], tissue["grain"] * 0.2),
        power=2.3,
    )
    inner = (half[0] - fat, half[1] - fat * 0.8)
    muscle = textured(scene, rng, tissue["muscle"], tissue["grain"] * 0.35, 3)
    scene.solid((0, 0, 0), (*inner, EVERYWHERE), muscle, power=2.4)
    wall = rng.uniform(7, 14)
    return inner[0] - wall, inner[1] - wall * 1.2


def back_muscles(scene: Scene, tissue: Tissues, rng: np.random.Generator, y: float) -> None:
    """Paired erector spinae with fat planes, behind the vertebral column centred at `y` (mm)."""
    muscle = textured(scene, rng, tissue["muscle"], tissue["grain"] * 0.4, (2.0 if rng.random() < 0.5 else 4.0))
    for side in (-1, 1):
        scene.solid((side * 30, y + 36, 0), (27, 22, EVERYWHERE), tissue["fat"], angle=side * 0.2)
        scene.solid((side * 30, y + 36, 0), (25, 20, EVERYWHERE), muscle, angle=side * 0.2)
        for _ in range(2):
            a = (side * rng.uniform(10, 50), y + rng.uniform(24, 52), 0.0)
            _plate(scene, a, (a[0] + rng.uniform(-14, 14), a[1] + rng.uniform(-8, 8), 0.0), 0.8, tissue["fat"])


def ribs(scene: Scene, tissue: Tissues, rng: np.random.Generator, half: tuple[float, float], width: float) -> None:
    """Obliquely cut ribs: segments of the thoracic wall whose place on it turns with z."""
    ring = scene.radius((0, 0, 0), (half[0], half[1], EVERYWHERE), power=2.3)
    turn = np.abs(np.arctan2(scene.x, scene.y + 1e-3))
    phase = np.cos(turn * rng.uniform(8, 13) + scene.z * (2 * np.pi / rng.uniform(22, 30)) + rng.uniform(0, 6.28))
    inside = np.clip((phase - 0.25) * 6, 0, 1)
    distance = np.abs(ring - 1) * np.float32(min(half))
    scene.paint(inside * np.clip((width - distance) / scene.edge + 0.5, 0, 1), tissue["cortex"])
    core = np.clip((phase - 0.42) * 6, 0, 1)
    scene.paint(core * np.clip((width * 0.55 - distance) / scene.edge + 0.5, 0, 1), tissue["marrow"])


def head(scene: Scene, tissue: Tissues, rng: np.random.Generator) -> None:
    """Head: scalp, skull, brain with cortex folds, ventricles, falx; orbits and sinuses below."""
    rx, ry, rz = rng.uniform(66, 78), rng.uniform(82, 96), rng.uniform(84, 95)
    skull, scalp = rng.uniform(5, 9), rng.uniform(3, 7)
    scene.solid((0, 0, 0), (rx + scalp, ry + scalp, rz + scalp), tissue["skin"])
    scene.solid((0, 0, 0), (rx + scalp - 1.5, ry + scalp - 1.5, rz + scalp - 1.5), tissue["fat"])
    scene.solid((0, 0, 0), (rx, ry, rz), tissue["cortex"])
    scene.solid((0, 0, 0), (rx - skull * 0.35, ry - skull * 0.35, rz - skull * 0.35), tissue["marrow"])
    scene.solid((0, 0, 0), (rx - skull * 0.65, ry - skull * 0.65, rz - skull * 0.65), tissue["cortex"])
    brain = (rx - skull, ry - skull, rz - skull)
    folds = smooth_noise(scene.values.shape, rng, 5)
    scene.solid((0, 0, 0), brain, tissue["csf"])
    depth = scene.radius((0, 0, 0), brain)
    grey = np.clip((0.985 - depth + 0.02 * folds) * 40, 0, 1)
    scene.paint(grey, textured(scene, rng, tissue["grey"], tissue["grain"] * 0.1, 4))
    white = np.clip((0.86 - depth + 0.07 * folds) * 18, 0, 1)
    scene.paint(white, tissue["white"])
    atrophy = rng.uniform(0.6, 1.6)
    for side in (-1, 1):
        scene.solid((side * 14, -22, 18), (5 * atrophy, 22, 16), tissue["csf"], angle=side * 0.35)
        scene.solid((side * 18, 26, 14), (5 * atrophy, 24, 14), tissue["csf"], angle=-side * 0.4)
        scene.solid((side * 22, -2, 5), (8, 14, 12), tissue["grey"], angle=side * 0.3)
        scene.solid((side * 31, -62, -42), (14, 16, 14), tissue["fluid"])
        scene.solid((side * 48, 22, -50), (16, 14, 12), tissue["cortex"])
        scene.solid((side * 50, 24, -52), (11, 9, 9), tissue["air"])
    scene.solid((0, 0, 5), (2.5 * atrophy, 12, 10), tissue["csf"])
    scene.solid((0, -66, -48), (11, 14, 18), tissue["air"])
    scene.solid((0, -76, -20), (16, 6, 12), tissue["air"])
    scene.solid((0, -5, 0), (1.1, brain[1] * 0.97, brain[2]), tissue["grey"] + 0.5 * (tissue["blood"] - tissue["grey"]))


def chest(scene: Scene, tissue: Tissues, rng: np.random.Generator) -> None:
    """Chest: wall with ribs and sternum, lungs with vessels, heart, great vessels, airway, thoracic spine."""
    inner = trunk(scene, tissue, rng, (rng.uniform(145, 185), rng.uniform(95, 125)))
    lung = textured(scene, rng, tissue["lung"], abs(tissue["lung"]) * 0.03, 5)
    gap = rng.uniform(22, 34)
    vessels = np.clip((smooth_noise(scene.values.shape, rng, rng.uniform(3, 6)) - rng.uniform(1.5, 2.2)) * 2.5, 0, 1)
    width = (inner[0] - gap) / 2
    for side in (-1, 1):
        lobe = scene.coverage((side * (gap + width), 4, 0), (width, inner[1] * 0.97, 150), side * 0.12, 2.3)
        scene.paint(lobe, lung)
        scene.paint(lobe * vessels, tissue["muscle"])
    for side in (-1, 1):
        for _ in range(3):
            hilum = (side * gap, rng.uniform(-5, 15), rng.uniform(-15, 15))
            tip = (side * (gap + rng.uniform(25, 65)), rng.uniform(-50, 55), hilum[2] + rng.uniform(-30, 30))
            scene.rod(hilum, tip, rng.uniform(1.5, 4), tissue["blood"])
    size = rng.uniform(0.85, 1.2)
    scene.solid((0, -5, 0), (gap * 1.05, inner[1] * 0.8, EVERYWHERE), tissue["fat"], power=2.5)
    scene.solid((20, -24, -45), (56 * size, 44 * size, 62 * size), tissue["muscle"], angle=0.5)
    scene.solid((34, -20, -45), (24 * size, 20 * size, 40 * size), tissue["blood"], angle=0.5)
    scene.solid((-4, -34, -40), (22 * size, 18 * size, 40 * size), tissue["blood"], angle=0.2)
    scene.solid((22, 38, 0), (12.5 * size, 12.5 * size, 70), tissue["blood"])
    scene.solid((0, 2, 62), (34, 13, 13), tissue["blood"], angle=0.9)
    scene.solid((-12, -28, 40), (15, 15, 45), tissue["blood"])
    scene.solid((-28, -20, 60), (9, 9, 50), tissue["blood"])
    scene.solid((0, 14, 70), (8.5, 8, 70), tissue["air"])
    scene.solid((4, 32, 40), (7, 6, 100), tissue["muscle"])
    ribs(scene, tissue, rng, (inner[0] + 5, inner[1] + 6), rng.uniform(3.2, 5))
    scene.solid((0, -inner[1] - 3, 0), (17, 5, EVERYWHERE), tissue["cortex"])
    scene.solid((0, -inner[1] - 3, 0), (14, 3, EVERYWHERE), tissue["marrow"])
    spine_y = inner[1] * 0.55
    back_muscles(scene, tissue, rng, spine_y)
    vertebra(scene, tissue, rng, spine_y)
    for side in (-1, 1):
        start = (side * (inner[0] * 0.62), inner[1] * 0.98, 0.0)
        _plate(scene, start, (side * inner[0] * 1.02, inner[1] * 0.6, 0.0), 2.4, tissue["cortex"])


def abdomen(scene: Scene, tissue: Tissues, rng: np.random.Generator) -> None:
    """Abdomen: liver, spleen, stomach, kidneys, pancreas, bowel with gas, great vessels, lumbar spine, psoas."""
    inner = trunk(scene, tissue, rng, (rng.uniform(140, 185), rng.uniform(95, 130)))
    cavity = textured(scene, rng, tissue["fat"], tissue["grain"] * 0.25, 5)
    scene.solid((0, 0, 0), (*inner, EVERYWHERE), cavity, power=2.3)
    liver = textured(scene, rng, tissue["liver"], tissue["grain"] * 0.12, 4)
    scene.solid((-inner[0] * 0.5, -8, 20), (inner[0] * 0.49, inner[1] * 0.82, 75), liver, angle=0.2, power=2.2)
    scene.solid((-8, -inner[1] * 0.5, 30), (inner[0] * 0.45, inner[1] * 0.36, 50), liver, angle=0.1)
    for _ in range(4):
        root = (-35.0, rng.uniform(-5, 15), 25 + rng.uniform(-25, 25))
        tip = (-inner[0] * rng.uniform(0.5, 0.85), rng.uniform(-50, 45), root[2] + rng.uniform(-20, 20))
        scene.rod(root, tip, rng.uniform(2, 4.5), tissue["blood"])
    scene.solid((-40, -inner[1] * 0.45, -5), (14, 20, 25), tissue["fluid"])
    scene.solid((inner[0] * 0.74, 28, 30), (24, 40, 45), tissue["spleen"], angle=0.5)
    scene.solid((inner[0] * 0.42, -inner[1] * 0.35, 25), (40, 32, 45), tissue["muscle"], angle=-0.4)
    scene.solid((inner[0] * 0.42, -inner[1] * 0.3, 25), (35, 27, 40), tissue["fluid"], angle=-0.4)
    scene.solid((inner[0] * 0.42, -inner[1] * 0.55, 25), (30, 10, 35), tissue["air"])
    for _ in range(14):
        centre = (rng.uniform(-0.7, 0.75) * inner[0], rng.uniform(-0.75, 0.1) * inner[1], rng.uniform(-95, 0))
        size = rng.uniform(10, 21)
        scene.solid(centre, (size, size * rng.uniform(0.6, 1), 22), tissue["muscle"])
        filling = tissue["air"] if rng.random() < 0.35 else tissue["fluid"]
        scene.solid(centre, (size * 0.75, size * 0.5, 18), filling)
    scene.solid((10, -4, 8), (42, 9, 14), tissue["spleen"], angle=-0.3)
    spine_y = inner[1] * 0.42
    back_muscles(scene, tissue, rng, spine_y)
    for side in (-1, 1):
        top = -8.0 if side < 0 else 2.0
        centre = (side * inner[0] * 0.5, spine_y + 8, top)
        scene.solid(centre, (25, 29, 52), tissue["kidney"], angle=side * 0.5)
        scene.solid((centre[0] - side * 9, centre[1] - 5, top), (12, 13, 24), tissue["fat"], angle=side * 0.5)
        scene.solid((centre[0] - side * 8, centre[1] - 5, top), (6, 7, 14), tissue["fluid"])
        scene.solid((side * 36, spine_y + 8, -70), (17, 21, 85), tissue["muscle"])
    scene.solid((6, spine_y - 30, 0), (10, 10, EVERYWHERE), tissue["blood"])
    scene.solid((-18, spine_y - 26, 0), (12, 9, EVERYWHERE), tissue["blood"])
    ribs(scene, tissue, rng, (inner[0] + 5, inner[1] + 6), rng.uniform(3, 4.5))
    vertebra(scene, tissue, rng, spine_y, 1.2)


def pelvis(scene: Scene, tissue: Tissues, rng: np.random.Generator) -> None:
    """Pelvis: iliac wings or hip joints by level, sacrum, bladder, rectum, gluteal muscles, iliac vessels."""
    inner = trunk(scene, tissue, rng, (rng.uniform(155, 195), rng.uniform(95, 125)))
    scene.solid(
        (0, -8, 0),
        (inner[0] * 0.72, inner[1] * 0.82, EVERYWHERE),
        textured(scene, rng, tissue["fat"], tissue["grain"] * 0.2),
        power=2.3,
    )
    for side in (-1, 1):
        scene.solid((side * 105, 62, 0), (52, 30, EVERYWHERE), tissue["muscle"], angle=-side * 0.5)
        _plate(scene, (side * 70, 66, 0), (side * 150, 26, 0), 1.5, tissue["fat"])
    marrow = textured(scene, rng, tissue["marrow"], tissue["grain"], 3)
    for side in (-1, 1):
        scene.solid((side * 88, 20, 55), (8, 52, 60), tissue["cortex"], angle=side * 0.5)
        scene.solid((side * 88, 20, 55), (5.5, 48, 56), marrow, angle=side * 0.5)
        scene.solid((side * 96, 8, -45), (38, 34, 40), tissue["cortex"])
        scene.solid((side * 96, 8, -45), (33, 29, 36), tissue["marrow"])
        scene.solid((side * 100, 4, -48), (27, 27, 30), tissue["muscle"])
        scene.solid((side * 101, 4, -48), (24.5, 24.5, 27), tissue["cortex"])
        scene.solid((side * 101, 4, -48), (22.5, 22.5, 25), marrow)
        scene.rod((side * 105, 6, -55), (side * 142, 22, -72), 14, tissue["cortex"])
        scene.rod((side * 105, 6, -55), (side * 142, 22, -72), 11, tissue["marrow"])
        scene.solid((side * 55, -40, 0), (9, 9, EVERYWHERE), tissue["blood"])
        scene.solid((side * 58, -22, 0), (10, 8, EVERYWHERE), tissue["blood"])
    scene.solid((0, 66, 30), (48, 22, 75), tissue["cortex"], power=2.5)
    scene.solid((0, 66, 30), (44, 18, 70), marrow, power=2.5)
    size = rng.uniform(0.7, 1.2)
    scene.solid((0, -35, -45), (44 * size, 32 * size, 40 * size), tissue["muscle"])
    scene.solid((0, -35, -45), (40 * size, 28 * size, 36 * size), tissue["fluid"])
    scene.solid((0, 12, -45), (26, 18, 30), tissue["muscle"])
    scene.solid((0, 42, 0), (18, 14, EVERYWHERE), tissue["muscle"])
    scene.solid((0, 40, 0), (10, 7, EVERYWHERE), tissue["air"] if rng.random() < 0.6 else tissue["fluid"])
    for _ in range(7):
        centre = (rng.uniform(-65, 65), rng.uniform(-60, 10), rng.uniform(15, 90))
        radius = rng.uniform(10, 18)
        scene.solid(centre, (radius, radius * 0.8, 24), tissue["muscle"])
        scene.solid(centre, (radius * 0.7, radius * 0.5, 18), tissue["air"] if rng.random() < 0.3 else tissue["fluid"])


REGIONS: dict[str, Region] = {
    "head": Region(
        (78, 96),
        (-50, 70),
        head,
        (Site((18, -40, -5), (48, 50, 45), (5, 17), "brain"), Site((-48, -40, -5), (-18, 50, 45), (5, 17), "brain")),
    ),
    "chest": Region(
        (175, 115),
        (-75, 85),
        chest,
        (Site((55, -45, -75), (105, 60, 80), (4, 15), "lung"), Site((-105, -45, -75), (-60, 60, 80), (4, 15), "lung")),
    ),
    "abdomen": Region(
        (175, 120),
        (-85, 65),
        abdomen,
        (
            Site((-95, -35, -10), (-50, 25, 50), (7, 22), "liver"),
            Site((48, 32, -25), (72, 62, 25), (7, 15), "kidney"),
            Site((-72, 32, -40), (-48, 62, 0), (7, 15), "kidney"),
        ),
    ),
    "pelvis": Region(
        (180, 110),
        (-75, 80),
        pelvis,
        (Site((80, -10, -75), (110, 15, 60), (7, 15), "bone"), Site((-110, -10, -75), (-80, 15, 60), (7, 15), "bone")),
    ),
}
"""Regions a cross-sectional phantom can show."""
