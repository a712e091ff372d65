# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""X-ray phantoms: attenuation along parallel rays through chest, hand, limb, skull and pelvis models, shown as film."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from .geometry import SIZE, fit, grey, jpeg, lesion_map, quadrant, resize, smooth_noise
from .sample import Sample

REGIONS = ("chest", "hand", "leg", "knee", "pelvis", "skull", "spine")
Pair = tuple[float, float]
COLLAPSE = {"mild": (0.20, 0.25), "moderate": (0.25, 0.40), "severe": (0.40, 0.60)}
"""Grade of a vertebral fracture -> share of its height that the body has lost (Genant et al. 1993)."""


def effusion_size(height: float) -> str:
    """Size of a pleural effusion by the share of the lung's height it covers, in thirds as reports commonly give it."""
    return "small" if height < 1 / 3 else "moderate" if height < 2 / 3 else "large"


class Lesion(NamedTuple):
    """Where a lesion lies on the film, and how far it has gone where that is graded."""

    u: float
    v: float
    effusion: float
    """Share of the lung's height that a pleural effusion covers; 0 where a chest shows another lesion."""
    collapse: float
    """Share of its height that a fractured vertebra has lost."""


class Film:
    """Path-integrated attenuation on a grid u (right), v (down) in units of half the object's height; additive."""

    def __init__(self, u: np.ndarray, v: np.ndarray) -> None:
        self.u, self.v = u, v
        self.density = np.zeros(u.shape, np.float32)
        self.lesion = np.zeros(u.shape, np.float32)
        """Share of each pixel, 0 to 1, that the lesion covers."""

    def distance(self, centre: Pair, radii: Pair, angle: float = 0.0) -> np.ndarray:
        """Normalised squared distance from an ellipse's centre, 1 on its outline."""
        du, dv = self.u - np.float32(centre[0]), self.v - np.float32(centre[1])
        c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
        return ((du * c + dv * s) / np.float32(radii[0])) ** 2 + ((dv * c - du * s) / np.float32(radii[1])) ** 2

    def body(self, centre: Pair, radii: Pair, amount: float, angle: float = 0.0, flat: float = 0.5) -> None:
        """A solid whose thickness falls to its outline as an ellipsoid's (flat 0.5) or more like a slab's (smaller)."""
        thickness = np.maximum(1 - self.distance(centre, radii, angle), 0)
        self.density += np.float32(amount) * thickness ** np.float32(flat)

    def focus(self, centre: Pair, radii: Pair, amount: float) -> None:
        """An oval lesion, denser than what it lies in or, for a negative amount, less dense."""
        self.body(centre, radii, amount)
        self.mark(centre, radii)

    def mark(self, centre: Pair, radii: Pair) -> None:
        """Says that the lesion lies in an ellipse."""
        self.lesion = (self.distance(centre, radii) < 1).astype(np.float32)

    def shell(self, centre: Pair, radii: Pair, wall: float, amount: float, angle: float = 0.0) -> None:
        """A hollow ellipsoid: bright where rays run along its wall, as a skull or a bone's cortex is."""
        self.body(centre, radii, amount, angle)
        self.body(centre, (radii[0] - wall, radii[1] - wall), -amount * 0.8, angle)

    def bone(self, start: Pair, end: Pair, radius: float, amount: float, flare: float = 0.3) -> None:
        """A long bone: a hollow tube with cortical edges, flared ends and spongy heads."""
        du, dv = end[0] - start[0], end[1] - start[1]
        length = float(np.hypot(du, dv)) + 1e-6
        along = ((self.u - start[0]) * du + (self.v - start[1]) * dv) / length**2
        across = np.abs((self.u - start[0]) * dv - (self.v - start[1]) * du) / length
        t = np.clip(along, 0, 1)
        width = np.float32(radius) * (1 + np.float32(flare) * np.abs(2 * t - 1) ** 4)
        over = np.maximum(np.abs(along - 0.5) - 0.5, 0) * length
        squared = across**2 + (over * 1.6) ** 2
        outer = np.sqrt(np.maximum(width**2 - squared, 0))
        cavity = np.sqrt(np.maximum((width * (0.58 + 0.2 * np.abs(2 * t - 1) ** 4)) ** 2 - squared, 0))
        self.density += np.float32(amount / radius) * (outer - np.float32(0.75) * cavity).astype(np.float32)


def _chest(film: Film, rng: np.random.Generator, lesion: Lesion | None) -> str:
    """Frontal chest: soft tissue, two lungs, mediastinum, heart, diaphragm domes, ribs, clavicles, spine, scapulae."""
    film.body((0, 0.15), (0.98, 1.5), 1.3, flat=0.35)
    for side in (-1, 1):
        film.body((side * 0.95, -0.55), (0.3, 0.55), 0.7)
    volume = rng.uniform(0.85, 1.1)
    dome = rng.uniform(0.5, 0.72)
    mask = np.zeros_like(film.u)
    for side in (-1, 1):
        level = (
            dome
            - (0.06 if side < 0 else 0.0)
            + 0.55 * (film.u - side * 0.4) ** 2
            + 0.1 * np.maximum(side * film.u - 0.4, 0)
        )
        shape = np.maximum(
            1 - film.distance((side * 0.43, 0.02), (0.37 * volume, 0.86), side * -0.07), 0
        ) ** np.float32(0.3)
        mask = np.maximum(mask, shape * np.clip((level - film.v) / 0.02, 0, 1))
    markings = smooth_noise(film.u.shape, rng, 4) * 0.03 + np.abs(smooth_noise(film.u.shape, rng, 9)) * 0.04
    film.density += mask * (-0.85 + markings)
    for side in (-1, 1):
        film.body((side * 0.17, -0.05), (0.09, 0.2), 0.22, side * -0.3)
        for _ in range(6):
            angle = rng.uniform(-1.1, 1.3)
            tip = (side * (0.15 + 0.4 * np.cos(angle)), -0.03 + 0.45 * np.sin(angle))
            film.bone((side * 0.14, -0.03), tip, 0.012, 0.06, 0.0)
    size = rng.uniform(0.8, 1.35)
    film.body((0.1 * size, 0.36), (0.32 * size, 0.27 * size), 0.8, 0.45, 0.4)
    film.body((-0.06, 0.2), (0.17 * size, 0.28), 0.45, 0.1, 0.4)
    film.body((0.09, -0.35), (0.09, 0.14), 0.35)
    film.body((0, 0.0), (0.13, 1.3), 0.55, flat=0.3)
    film.body((0, -0.75), (0.035, 0.4), -0.35)
    for k in range(14):
        film.body((0, -0.95 + 0.145 * k), (0.075, 0.055), 0.16, flat=0.25)
    strength = rng.uniform(0.1, 0.28)
    for k in range(9):
        top = -0.86 + 0.155 * k
        span = 0.86 * np.sqrt(max(0.05, 1 - ((top - 0.25) / 1.25) ** 2))
        a = np.clip(np.abs(film.u) / span, 0, 1)
        edge = np.clip((1 - np.abs(film.u) / span) * 30, 0, 1)
        back = top - 0.1 * np.sin(np.pi * np.minimum(a * 1.1, 1)) + 0.16 * a**3
        front = top + 0.36 - 0.20 * np.sqrt(np.maximum(1 - a, 0)) * 0.2 - 0.32 * a**2 + 0.25 * (1 - a)
        d = np.abs(film.v - back) / 0.042
        film.density += (strength * edge * np.clip((1 - d) * 4, 0, 1) * (0.55 + 0.45 * d**2)).astype(np.float32)
        if k < 7:
            d = np.abs(film.v - front) / 0.045
            show = edge * np.clip((a - 0.35) * 5, 0, 1)
            film.density += (0.55 * strength * show * np.clip((1 - d) * 4, 0, 1)).astype(np.float32)
    for side in (-1, 1):
        film.bone((side * 0.07, -0.72), (side * 0.75, -0.93 + rng.uniform(-0.04, 0.08)), 0.042, 0.28, 0.4)
        film.bone((side * 0.62, -0.85), (side * 0.72, -0.2), 0.03, 0.15, 0.4)
        film.bone((side * 0.98, -0.75), (side * 1.15, 0.1), 0.09, 0.35, 0.6)
    finding = ""
    if lesion:
        radius = rng.uniform(0.05, 0.15)
        nodule = rng.random() < 0.5
        if lesion.effusion:
            finding = "pleural effusion"
            lung = mask * (film.u * np.sign(lesion.u) > 0)
            # Fluid climbs the chest wall, so its upper border falls toward the middle.
            out = np.abs(film.u) - 0.43
            border = dome - lesion.effusion * (dome + 0.84) - 0.2 * out - 1.3 * np.maximum(out, 0) ** 2
            fluid = lung * np.clip((film.v - border) / 0.05 + 0.5, 0, 1)
            # As dense as the heart, whose border is lost in it; ribs still show through.
            film.density += (0.75 * fluid * (2.0 - film.density)).astype(np.float32)
            film.lesion = fluid.astype(np.float32)
        elif nodule:
            finding = "nodule"
            film.focus((lesion.u, lesion.v), (radius, radius), 0.5)
        else:
            finding = "consolidation"
            place = (lesion.u, lesion.v), (radius * 1.8, radius * 1.5)
            cloud = np.exp(-film.distance(*place))
            film.mark(*place)
            film.density += (0.5 * cloud * (1 + 0.3 * smooth_noise(film.u.shape, rng, 5))).astype(np.float32)
    if rng.random() < 0.25:
        film.bone((rng.uniform(-0.2, 0.3), -1.2), (rng.uniform(-0.15, 0.1), rng.uniform(-0.2, 0.4)), 0.01, 0.25, 0.0)
    return finding


def _hand(film: Film, rng: np.random.Generator, lesion: Lesion | None) -> str:
    """Hand and wrist: soft tissue, five rays of metacarpal and phalanges, carpal bones, distal radius and ulna."""
    film.body((0, 0.3), (0.48, 0.52), 0.32, flat=0.3)
    film.body((0, 1.0), (0.28, 0.7), 0.32, flat=0.3)
    spread = rng.uniform(0.6, 1.3)
    for finger in range(5):
        angle = spread * (-0.62, -0.2, -0.02, 0.14, 0.32)[finger]
        direction = np.array([np.sin(angle), -np.cos(angle)])
        point = np.array([(-0.26, -0.17, -0.03, 0.1, 0.22)[finger], (0.55, 0.42, 0.4, 0.42, 0.47)[finger]])
        lengths = (
            (0.28, 0.24, 0.19) if finger == 0 else np.array([0.42, 0.29, 0.19, 0.13]) * (1, 1, 1.07, 1, 0.8)[finger]
        )
        tip = point + direction * sum(lengths)
        film.bone(tuple(point + direction * lengths[0] * 0.8), tuple(tip + direction * 0.03), 0.082, 0.3, 0.0)
        for k, length in enumerate(lengths):
            end = point + direction * length
            gap = 0.025 * direction
            film.bone(tuple(point + gap), tuple(end - gap), (0.045, 0.038, 0.032, 0.026)[k], 0.5, 0.5)
            if lesion and finger == 2 and k == 0:
                middle = (point + end) / 2
                place = (float(middle[0]), float(middle[1]))
                film.body(place, (0.05, 0.016), -0.45, rng.uniform(-0.5, 0.5))
                film.mark(place, (0.065, 0.065))
            point = end
    for row in range(2):
        for k in range(4):
            centre = (-0.17 + 0.115 * k + rng.uniform(-0.01, 0.01), 0.52 + 0.115 * row)
            film.shell(centre, (0.066, 0.062), 0.02, 0.45, rng.uniform(0, 3))
    film.bone((-0.08, 0.78), (-0.12, 1.7), 0.10, 0.55, 0.5)
    film.bone((0.15, 0.8), (0.12, 1.7), 0.06, 0.5, 0.4)
    return "fracture"


def _leg(film: Film, rng: np.random.Generator, lesion: Lesion | None) -> str:
    """Two long bones of a lower leg or forearm with a joint at one end; a lesion is a fracture gap with a step."""
    film.body((0, 0), (rng.uniform(0.35, 0.55), 1.9), 0.5, flat=0.35)
    thick = rng.uniform(0.09, 0.13)
    lean = rng.uniform(-0.08, 0.08)
    if lesion:
        break_v = lesion.v * 0.6
        step = rng.uniform(0.04, 0.14)
        film.bone((-0.08, -0.8), (-0.08 + lean * 0.5, break_v - 0.015), thick, 0.7, 0.2)
        film.bone((-0.08 + lean * 0.5 + step, break_v + 0.02), (-0.06 + lean + step, 0.95), thick, 0.7, 0.2)
        film.mark((-0.08 + (lean + step) / 2, break_v), (thick + step / 2,) * 2)
    else:
        film.bone((-0.08, -0.8), (-0.06 + lean, 0.95), thick, 0.7, 0.7)
    film.bone((0.2, -0.72), (0.16 + lean, 1.0), thick * rng.uniform(0.45, 0.8), 0.6, 0.5)
    for side in (-1, 1):
        film.shell((-0.05 + side * 0.1, -0.98), (0.15, 0.13), 0.03, 0.6)
    film.bone((-0.04, -1.9), (-0.04, -1.0), thick * 1.1, 0.8, 0.6)
    return "fracture"


def _knee(film: Film, rng: np.random.Generator, lesion: Lesion | None) -> str:
    """Frontal knee: femur with condyles, tibial plateau, fibula, patella in overlap."""
    film.body((0, 0), (0.62, 1.9), 0.55, flat=0.35)
    film.bone((0, -1.6), (0, -0.25), 0.17, 0.7, 0.6)
    film.bone((0, 0.22), (0.02, 1.7), 0.16, 0.7, 0.9)
    for side in (-1, 1):
        film.shell((side * 0.17, -0.14), (0.2, 0.17), 0.035, 0.55)
        film.shell((side * 0.17, 0.17), (0.21, 0.13), 0.035, 0.55)
    film.bone((0.33, 0.35), (0.3, 1.7), 0.06, 0.4, 0.5)
    film.shell((0.02, -0.3), (0.14, 0.14), 0.03, 0.25)
    if lesion:
        film.focus((lesion.u * 0.3, 0.35 + 0.1 * lesion.v), (rng.uniform(0.07, 0.13), 0.09), -0.35)
    return "lytic bone lesion"


def _pelvis(film: Film, rng: np.random.Generator, lesion: Lesion | None) -> str:
    """Frontal pelvis: iliac wings, sacrum, pubic rami, hip joints, proximal femora, lumbar spine, bowel gas."""
    film.body((0, 0.1), (1.25, 1.4), 1.0, flat=0.35)
    for _ in range(6):
        film.body(
            (rng.uniform(-0.5, 0.5), rng.uniform(-0.9, 0.2)),
            (rng.uniform(0.05, 0.14), 0.07),
            -rng.uniform(0.1, 0.3),
            rng.uniform(0, 3),
        )
    for side in (-1, 1):
        film.shell((side * 0.55, -0.35), (0.24, 0.46), 0.035, 0.5, side * 0.55)
        film.shell((side * 0.62, 0.25), (0.19, 0.19), 0.03, 0.5)
        film.shell((side * 0.66, 0.27), (0.135, 0.135), 0.03, 0.5)
        film.bone((side * 0.7, 0.28), (side * 0.93, 0.42), 0.09, 0.45, 0.4)
        film.bone((side * 0.92, 0.36), (side * 0.85, 1.6), 0.1, 0.7, 0.5)
        film.bone((side * 0.5, 0.3), (side * 0.06, 0.42), 0.055, 0.45, 0.3)
        film.bone((side * 0.08, 0.44), (side * 0.38, 0.72), 0.05, 0.4, 0.3)
        film.bone((side * 0.52, 0.38), (side * 0.42, 0.72), 0.06, 0.4, 0.2)
    film.body((0, -0.25), (0.24, 0.45), 0.45, flat=0.35)
    for k in range(4):
        film.shell((0, -0.72 - 0.2 * k), (0.14, 0.09), 0.025, 0.5)
        film.body((0, -0.72 - 0.2 * k), (0.25, 0.02), 0.15)
    amount = 0.0
    if lesion:
        amount = float(rng.choice([-0.4, 0.45]))
        film.focus((0.6 * np.sign(lesion.u), -0.3 + 0.2 * lesion.v), (0.12, 0.1), amount)
    return "sclerotic bone lesion" if amount > 0 else "lytic bone lesion"


def _skull(film: Film, rng: np.random.Generator, lesion: Lesion | None) -> str:
    """Lateral skull: vault with two tables, sutures, orbit, sinuses, base, mandible, cervical spine."""
    film.body((0, -0.1), (0.92, 0.85), 0.35)
    film.shell((0, -0.15), (0.86, 0.76), 0.06, 0.9)
    film.body((0.1, 0.35), (0.5, 0.16), 0.4)
    film.shell((-0.62, 0.2), (0.14, 0.13), 0.03, 0.35)
    film.body((-0.62, 0.5), (0.17, 0.14), -0.15)
    film.bone((-0.7, 0.98), (-0.05, 0.75), 0.09, 0.5, 0.2)
    film.bone((-0.08, 0.78), (0.02, 0.3), 0.08, 0.35, 0.3)
    for k in range(6):
        film.body((-0.72 + 0.07 * k, 0.78), (0.025, 0.08), 0.4)
    for k in range(5):
        film.body((0.2 + 0.02 * k, 0.62 + 0.17 * k), (0.13, 0.07), 0.35)
    film.body((0.1, 1.3), (0.42, 0.7), 0.4)
    if lesion:
        film.focus((lesion.u * 0.5, -0.3 + 0.25 * lesion.v), (0.12, 0.1), -0.35)
    return "lytic bone lesion"


def _spine(film: Film, rng: np.random.Generator, lesion: Lesion | None) -> str:
    """Lateral lumbar spine: stacked vertebral bodies on a curve, disc spaces, pedicles, spinous processes."""
    film.body((0, 0), (0.9, 1.8), 0.8, flat=0.35)
    bend, phase = rng.uniform(0.1, 0.25), rng.uniform(-0.5, 0.5)
    for k in range(8):
        v = -1.1 + 0.32 * k
        u = -0.15 + bend * np.cos(v * 1.5 + phase)
        tilt = -bend * np.sin(v * 1.5 + phase)
        height = 0.125 * (1 - lesion.collapse) if lesion and k == 3 else 0.125
        box = np.clip((1 - ((film.u - u) / 0.19) ** 6 - ((film.v - v - tilt * (film.u - u)) / height) ** 6) * 3, 0, 1)
        if lesion and k == 3:
            film.lesion = box.astype(np.float32)
        rim = np.clip(
            (1 - ((film.u - u) / 0.16) ** 6 - ((film.v - v - tilt * (film.u - u)) / (height - 0.025)) ** 6) * 3, 0, 1
        )
        film.density += (0.55 * box - 0.25 * rim).astype(np.float32)
        film.bone((u + 0.2, v), (u + 0.34, v + 0.02), 0.045, 0.3, 0.2)
        film.bone((u + 0.4, v + 0.02), (u + 0.62, v + 0.14), 0.06, 0.25, 0.2)
    for _ in range(5):
        film.body(
            (rng.uniform(-0.75, -0.3), rng.uniform(-0.9, 0.9)), (rng.uniform(0.06, 0.15), 0.08), -0.2, rng.uniform(0, 3)
        )
    return "vertebral compression fracture"


PAINTERS = {
    "chest": _chest,
    "hand": _hand,
    "leg": _leg,
    "knee": _knee,
    "pelvis": _pelvis,
    "skull": _skull,
    "spine": _spine,
}


def _lesion_place(region: str, lesion: Lesion) -> Pair:
    """Where on the film the painter of `region` puts the lesion drawn as `lesion`, so that a close-up shows it."""
    return {
        "chest": (lesion.u, 0.6 - 1.44 * lesion.effusion) if lesion.effusion else (lesion.u, lesion.v),
        "hand": (-0.03, 0.2),
        "leg": (-0.08, 0.6 * lesion.v),
        "knee": (0.3 * lesion.u, 0.35 + 0.1 * lesion.v),
        "pelvis": (0.6 * float(np.sign(lesion.u)), -0.3 + 0.2 * lesion.v),
        "skull": (0.5 * lesion.u, -0.3 + 0.25 * lesion.v),
        "spine": (0.0, -0.14),
    }[region]


def generate(kind: str, rng: np.random.Generator) -> Sample:
    """One radiograph."""
    region = REGIONS[int(rng.choice(len(REGIONS), p=[0.46, 0.12, 0.1, 0.1, 0.08, 0.06, 0.08]))]
    lesion = None
    grade = ""
    side = float(rng.choice([-1.0, 1.0]))
    if rng.random() < 0.5:
        # A generator of its own, so that the grades leave the draws of everything else as they are.
        extent = rng.spawn(1)[0]
        effusion = float(extent.uniform(0.1, 0.95)) if region == "chest" and extent.random() < 0.4 else 0.0
        grade = tuple(COLLAPSE)[int(extent.integers(3))]
        collapse = float(extent.uniform(*COLLAPSE[grade]))
        lesion = Lesion(side * float(rng.uniform(0.28, 0.58)), float(rng.uniform(-0.45, 0.35)), effusion, collapse)
    pixels = int(rng.integers(48, 150))
    aspect = float(rng.uniform(0.7, 1.3)) if rng.random() < 0.5 else 1.0
    rows, columns = max(24, round(pixels * min(1, aspect))), max(24, round(pixels / max(1, aspect)))
    zoom = rng.random()
    reach = rng.uniform(0.92, 1.15) if zoom < 0.7 else rng.uniform(0.4, 0.75)
    centre = rng.uniform(-0.08, 0.08, 2) if zoom < 0.7 else rng.uniform(-0.4, 0.4, 2)
    if lesion and zoom >= 0.7:
        centre = np.asarray(_lesion_place(region, lesion)) + rng.uniform(-0.15, 0.15, 2)
    v, u = np.meshgrid(np.linspace(-1, 1, rows), np.linspace(-1, 1, columns), indexing="ij")
    u, v = u * reach * columns / pixels, v * reach * rows / pixels
    small = region in ("hand", "leg", "knee")
    tilt = rng.normal(0, 0.06) if not small else rng.choice([0, np.pi]) + rng.normal(0, 0.3)
    turned_u, turned_v = u * np.cos(tilt) - v * np.sin(tilt), u * np.sin(tilt) + v * np.cos(tilt)
    mirrored = region in ("hand", "leg", "skull", "spine") and rng.random() < 0.5
    film = Film(
        (turned_u * (-1 if mirrored else 1) + centre[0]).astype(np.float32), (turned_v + centre[1]).astype(np.float32)
    )
    finding = PAINTERS[region](film, rng, lesion)

    density = film.density + 0.02 * smooth_noise((rows, columns), rng, 3)
    scatter = ndimage.gaussian_filter(density, rows / 10)
    density = density - rng.uniform(0, 0.35) * scatter
    blur = rng.uniform(0, 0.9)
    if blur > 0.3:
        density = ndimage.gaussian_filter(density, blur)
    exposed = 1 - np.exp(-np.maximum(density - density.min(), 0) * rng.uniform(0.7, 1.6))
    low, high = np.percentile(exposed, (rng.uniform(0, 4), rng.uniform(97, 100)))
    level = np.clip((exposed - low) / max(high - low, 1e-3), 0, 1) ** rng.uniform(0.7, 1.5)
    level = level * rng.uniform(0.7, 1.0) + rng.uniform(0, 0.15)
    level += rng.standard_normal(level.shape) * rng.uniform(0, 0.04)
    inverted = rng.random() < 0.1
    frames = grey(1 - level if inverted else level)[None]
    frames, cover = _film_marks(frames, film.lesion, rng)
    shown = frames.shape[1:3]
    frames, scale = fit(frames, rng)
    if rng.random() < 0.1:
        warm = np.array(rng.uniform(0.75, 1.0, 3))
        frames = (frames * warm).astype(np.uint8)
    if rng.random() < 0.5:
        frames = jpeg(frames, int(rng.integers(35, 92)))
    facts = {"modality": "X-ray", "lesion": "yes" if lesion else "no"}
    if zoom < 0.7 or region != "chest":
        facts["region"] = region
    facts["plane"] = "lateral" if region in ("skull", "spine") else "frontal"
    if lesion:
        facts["finding"] = finding
        place = _lesion_place(region, lesion)
        right, down = (place[0] - centre[0]) * (-1 if mirrored else 1), place[1] - centre[1]
        column = (right * np.cos(tilt) + down * np.sin(tilt)) / (2 * reach * columns / pixels)
        row = (down * np.cos(tilt) - right * np.sin(tilt)) / (2 * reach * rows / pixels)
        if effusion_size(lesion.effusion) == "small":  # a larger one lies in more than one quadrant
            facts |= quadrant(row * shown[0] / scale[0] / SIZE, column * shown[1] / scale[1] / SIZE)
        if finding == "pleural effusion" and zoom < 0.7:
            facts |= {"severity": effusion_size(lesion.effusion), "graded": "the pleural effusion"}
        if region == "spine":
            facts |= {"severity": grade, "graded": "the vertebral fracture"}
    if lesion and region == "chest" and zoom < 0.7:
        # The film is read as if facing the patient: image right is the patient's left.
        facts["side"] = "left" if side > 0 else "right"
    return Sample(frames, kind, np.zeros(1), (0.0, 0.0), facts, lesion_map(cover[None], scale))


def _film_marks(frames: np.ndarray, cover: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Collimator borders, a lead side marker and film text on uint8 frames (1, H, W, 3).

    Returns:
        The frames at no more than SIZE rows and columns, and of `cover`, float32 (H, W), what the borders leave.
    """
    rows, columns = frames.shape[1:3]
    picture = Image.fromarray(resize(frames, (2 * rows, 2 * columns))[0])
    draw = ImageDraw.Draw(picture)
    if rng.random() < 0.3:
        cut = [int(f * rng.uniform(0, 0.12)) for f in (2 * columns, 2 * rows, 2 * columns, 2 * rows)]
        shade = (0, 0, 0) if rng.random() < 0.85 else (235, 235, 235)
        draw.rectangle([0, 0, cut[0], 2 * rows], fill=shade)
        draw.rectangle([0, 0, 2 * columns, cut[1]], fill=shade)
        draw.rectangle([2 * columns - cut[2], 0, 2 * columns, 2 * rows], fill=shade)
        draw.rectangle([0, 2 * rows - cut[3], 2 * columns, 2 * rows], fill=shade)
        left, top, right, bottom = (side // 2 for side in cut)
        kept = np.zeros_like(cover)
        kept[top : rows - bottom, left : columns - right] = cover[top : rows - bottom, left : columns - right]
        cover = kept
    if rng.random() < 0.35:
        x = 2 * columns * (rng.uniform(0.03, 0.12) if rng.random() < 0.5 else rng.uniform(0.84, 0.92))
        draw.text(
            (x, 2 * rows * rng.uniform(0.03, 0.3)),
            "LR"[int(x < columns)],
            fill=(245, 245, 245),
            font_size=int(rng.integers(12, 28)),
        )
    if rng.random() < 0.15:
        draw.text(
            (4, 2 * rows - 14), ("PORTABLE", "SUPINE", "ERECT", "AP", "PA")[int(rng.integers(5))], fill=(230, 230, 230)
        )
    shape = (min(rows, SIZE), min(columns, SIZE))
    cover = np.asarray(Image.fromarray(cover).resize(shape[::-1], Image.Resampling.BOX))
    return resize(np.asarray(picture)[None], shape, rng), cover
