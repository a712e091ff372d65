# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Ultrasound phantoms: speckle in beam coordinates, time gain, three probe shapes, beating hearts, machine screens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from .geometry import SIZE, annotate, fit, jpeg, lesion_map, quadrant, resize, smooth_noise
from .sample import Sample

DEPTHS, BEAMS = 160, 96
"""Samples along a beam and number of beams in the polar image."""
REGIONS = ("heart", "liver", "kidney", "breast", "neck", "uterus")


@dataclass(frozen=True)
class Probe:
    """Probe shape: "phased" (sector from a point), "curved" (sector from an arc) or "linear" (a rectangle).

    Depth runs from 0 to 1. Angles are in radians; `apex` is the radius of the probe face in units of the depth.
    """

    shape: str
    half_angle: float
    apex: float

    def beam_points(self) -> tuple[np.ndarray, np.ndarray]:
        """Lateral and depth position (DEPTHS, BEAMS) of each polar sample, in units of the depth."""
        depth = np.linspace(0, 1, DEPTHS, dtype=np.float32)[:, None]
        beam = np.linspace(-1, 1, BEAMS, dtype=np.float32)[None, :]
        if self.shape == "linear":
            return np.broadcast_to(beam * np.float32(self.half_angle), (DEPTHS, BEAMS)), np.broadcast_to(
                depth, (DEPTHS, BEAMS)
            )
        angle = beam * np.float32(self.half_angle)
        return (self.apex + depth) * np.sin(angle), (self.apex + depth) * np.cos(angle) - self.apex

    def _frame(self, rows: int, columns: int) -> tuple[float, float, float]:
        """Lateral position of a Cartesian picture's middle, depth of its top, and size of a pixel."""
        lateral, axial = self.beam_points()
        left, right = float(lateral.min()), float(lateral.max())
        top, bottom = float(axial.min()), float(axial.max())
        return (left + right) / 2, top, max((right - left) / columns, (bottom - top) / rows)

    def pixel_of(self, place: tuple[float, float], rows: int, columns: int) -> tuple[float, float]:
        """Row and column of a (lateral, depth) place in a Cartesian picture."""
        middle, top, size = self._frame(rows, columns)
        return (place[1] - top) / size, (place[0] - middle) / size + columns / 2

    def scan_convert(self, rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
        """Polar sample coordinates (2, rows, columns) of a Cartesian picture, and the mask of what lies inside."""
        middle, top, size = self._frame(rows, columns)
        across = ((np.arange(columns) + 0.5 - columns / 2) * size + middle)[None, :]
        down = ((np.arange(rows) + 0.5) * size + top)[:, None]
        if self.shape == "linear":
            beam, depth = (
                np.broadcast_to(across / self.half_angle, (rows, columns)),
                np.broadcast_to(down, (rows, columns)),
            )
        else:
            radius = np.hypot(across, down + self.apex)
            beam, depth = np.arctan2(across, down + self.apex) / self.half_angle, radius - self.apex
        inside = (np.abs(beam) <= 1) & (depth >= 0) & (depth <= 1)
        return np.stack([depth * (DEPTHS - 1), (beam + 1) / 2 * (BEAMS - 1)]), inside


class Echo:
    """Echo strength (DEPTHS, BEAMS) of tissue, painted ellipse by ellipse at the polar sample points.

    `ill` is the share of every sample that lesions cover.
    """

    def __init__(self, lateral: np.ndarray, axial: np.ndarray, rng: np.random.Generator, base: float) -> None:
        self.u, self.v = lateral, axial
        self.bend = 0.02 * smooth_noise((DEPTHS, BEAMS), rng, (40, 30))
        self.values = np.full(lateral.shape, base, np.float32)
        self.shadow = np.ones(lateral.shape, np.float32)
        self.ill = np.zeros(lateral.shape, np.float32)

    def distance(self, centre: tuple[float, float], radii: tuple[float, float], angle: float = 0.0) -> np.ndarray:
        """Normalised distance from an ellipse's centre, 1 on its outline."""
        du, dv = self.u - np.float32(centre[0]), self.v - np.float32(centre[1])
        c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
        return np.hypot((du * c + dv * s) / np.float32(radii[0]), (dv * c - du * s) / np.float32(radii[1])) + self.bend

    def blob(
        self,
        centre: tuple[float, float],
        radii: tuple[float, float],
        value: float,
        angle: float = 0.0,
        rim: float = 0.0,
        ill: bool = False,
    ) -> None:
        """An ellipse of echo strength `value`; its optional rim is brightest where the beam meets it head-on.

        `ill` says that it is a lesion.
        """
        d = self.distance(centre, radii, angle)
        soft = np.float32(min(radii) / 0.012)
        cover = np.clip((1 - d) * soft + 0.5, 0, 1)
        self.values += cover * (np.float32(value) - self.values)
        if ill:
            self.ill = np.maximum(self.ill, cover)
        if rim:
            facing = np.abs(self.v - centre[1]) / (np.abs(self.v - centre[1]) + np.abs(self.u - centre[0]) + 1e-3)
            self.values += np.float32(rim) * np.exp(-(((d - 1) * soft / 1.3) ** 2)) * (0.25 + 0.75 * facing)

    def cast(self, centre: tuple[float, float], radius: float, factor: float) -> None:
        """Shadow (factor < 1) or enhancement (factor > 1) along the beams behind a spot, soft at its sides."""
        row = int(np.clip(np.argmin(np.abs(self.v[:, BEAMS // 2] - centre[1])), 0, DEPTHS - 1))
        width = np.exp(-(((self.u[row] - centre[0]) / max(radius, 1e-3)) ** 4))
        behind = np.clip((np.arange(DEPTHS) - row) / 4, 0, 1)[:, None]
        self.shadow *= (1 + (factor - 1) * behind * width[None, :]).astype(np.float32)

    def line(self, points: np.ndarray, width: float, strength: float) -> None:
        """A bright interface through points (n, 2) of (lateral, axial), for valves, fascia and capsules."""
        for (u0, v0), (u1, v1) in pairwise(points):
            du, dv = u1 - u0, v1 - v0
            t = np.clip(((self.u - u0) * du + (self.v - v0) * dv) / (du * du + dv * dv + 1e-9), 0, 1)
            d = np.hypot(self.u - u0 - t * du, self.v - v0 - t * dv)
            self.values += np.float32(strength) * np.exp(-((d / width) ** 2)).astype(np.float32)


@dataclass(frozen=True)
class View:
    """What one examination shows.

    Attributes:
        paint: paints a moment of the cycle (phase 0 to 1) into the echo map.
        place: (lateral, depth) of the lesion at rest, in units of the depth; None without a lesion.
        facts: what is exactly known where the whole picture is shown.
        contraction: share of its length and width that the left ventricle loses in systole; 0 where it is not shown.
    """

    paint: Callable[[Echo, float], None]
    place: tuple[float, float] | None = None
    facts: dict[str, str] = field(default_factory=dict)
    contraction: float = 0.0


def squeeze(phase: float | np.ndarray, contraction: float) -> float | np.ndarray:
    """Length and width of a ventricle at phases 0 to 1 of the heart beat, 1 in diastole; systole ends at 0.45."""
    return 1 - contraction * np.sin(np.pi * np.clip(np.asarray(phase) / 0.45, 0, 1)) ** 2


def ejection_fraction(contraction: float) -> float:
    """Ejection fraction of a ventricle in an apical view by the area-length method: volume goes as area² / length."""
    return 1 - (1 - contraction) ** 3


def dysfunction(fraction: float) -> str:
    """Grade of a left ventricle's systolic dysfunction by its ejection fraction (ASE/EACVI 2015, limits rounded)."""
    return "none" if fraction >= 0.5 else "mild" if fraction >= 0.4 else "moderate" if fraction >= 0.3 else "severe"


APICAL = ("apical four-chamber", "apical two-chamber")
HEART_VIEWS = ((APICAL[0], 4), (APICAL[1], 2), ("parasternal long-axis", 3))
"""(view, number of chambers it shows)."""


def _heart(rng: np.random.Generator, lesion: bool, whole_beat: bool) -> View:
    """Apical four- or two-chamber view, or a parasternal long axis; chambers shrink in systole, valves swing."""
    view = int(rng.integers(3))
    size, shift, tilt = rng.uniform(0.8, 1.15), rng.uniform(-0.06, 0.06), rng.uniform(-0.25, 0.25)
    myocardium, blood, rim = rng.uniform(0.28, 0.55), rng.uniform(0.0, 0.04), rng.uniform(0.3, 0.9)
    ejection = rng.uniform(0.1, 0.3)
    thickness = rng.uniform(0.045, 0.09)
    apical = HEART_VIEWS[view][0] in APICAL
    # A heart that is called normal pumps normally; a weak one is only an abnormality where its beat can be seen.
    weak = lesion and apical and whole_beat and rng.random() < 0.6
    if weak:
        ejection = 0.08 + 0.6 * (ejection - 0.1)
    elif not lesion:
        ejection = 0.21 + 0.45 * (ejection - 0.1)
    mass = (float(shift) + 0.08, 0.62 if view < 2 else 0.5)

    def paint(echo: Echo, phase: float) -> None:
        shrunk = float(squeeze(phase, ejection))
        atrium = 1 + 0.8 * (1 - shrunk)
        opening = 0.0 if phase < 0.45 else np.sin(np.pi * (phase - 0.45) / 0.55)
        if view < 2:
            left_u = (0.13 if view == 0 else 0.0) * size + shift
            if view == 0:
                echo.blob(
                    (-0.14 * size + shift, 0.42),
                    (0.10 * size + thickness * 0.6, 0.25 * size),
                    myocardium,
                    0.12,
                    rim * 0.5,
                )
                echo.blob(
                    (-0.13 * size + shift, 0.77), (0.13 * size * atrium, 0.12 * size * atrium), myocardium, 0, rim
                )
                echo.blob((-0.14 * size + shift, 0.43), (0.085 * size * shrunk, 0.2 * size * shrunk), blood, 0.12)
                echo.blob((-0.13 * size + shift, 0.77), (0.105 * size * atrium, 0.10 * size * atrium), blood)
            outer = (0.14 * size + thickness, 0.30 * size + thickness)
            echo.blob((left_u, 0.40), outer, myocardium, -0.1 + tilt, rim * 0.6, ill=weak)
            echo.blob((left_u + 0.01, 0.79), (0.15 * size * atrium, 0.13 * size * atrium), myocardium, 0, rim)
            echo.blob((left_u, 0.41), (0.14 * size * shrunk, 0.28 * size * shrunk), blood, -0.1 + tilt, rim * 0.5)
            echo.blob((left_u + 0.01, 0.79), (0.12 * size * atrium, 0.105 * size * atrium), blood, 0, rim * 0.4)
            hinge = 0.655
            for side in (-1, 1):
                start = np.array([left_u + side * 0.12 * size, hinge])
                end = np.array(
                    [left_u + side * 0.02 * size + side * 0.08 * size * opening, hinge - 0.07 * opening + 0.01]
                )
                echo.line(np.stack([start, end]), 0.009, 0.8)
            echo.line(
                np.array([[left_u - 0.25, 0.93], [left_u, 0.95 + 0.01 * shrunk], [left_u + 0.24, 0.91]]), 0.018, 0.7
            )
        else:
            echo.blob((shift, 0.52), (0.36 * size + thickness, 0.15 * size + thickness), myocardium, 0.2 + tilt, rim)
            echo.blob((shift - 0.03, 0.52), (0.33 * size, 0.125 * size * shrunk), blood, 0.2 + tilt, rim * 0.5)
            echo.blob((shift + 0.3, 0.66), (0.15 * size * atrium, 0.1 * size * atrium), blood, 0.1, rim * 0.6)
            echo.blob((shift + 0.05, 0.24), (0.25 * size, 0.05 * size), blood, 0.1, rim * 0.4)
            start = np.array([shift + 0.2, 0.5])
            echo.line(np.stack([start, start + np.array([-0.17, 0.02 + 0.09 * (0.3 - opening)])]), 0.009, 0.8)
            echo.line(np.array([[-0.4, 0.80], [0.0, 0.84 + 0.015 * shrunk], [0.4, 0.80]]), 0.016, 0.9)
        if lesion and not weak:
            wobble = 0.02 * np.sin(2 * np.pi * phase)
            echo.blob((mass[0] + wobble, mass[1]), (0.045, 0.04), 0.65, 0, 0.2, ill=True)

    plane, chambers = HEART_VIEWS[view]
    facts = {"plane": plane, "count": str(chambers), "counted": "heart chambers"}
    if lesion:
        facts["finding"] = "reduced ejection fraction" if weak else "intracardiac mass"
    return View(paint, mass if lesion and not weak else None, facts, ejection if apical else 0.0)


def _abdomen(rng: np.random.Generator, region: str, lesion: bool) -> View:
    """Liver with vessels, diaphragm and gallbladder, or a kidney beside the liver."""
    organ = rng.uniform(0.3, 0.5)
    vessels = rng.uniform([-0.5, 0.25], [0.5, 0.8], (int(rng.integers(2, 7)), 2))
    sizes = rng.uniform(0.015, 0.05, (len(vessels), 2))
    bladder = (float(rng.uniform(-0.2, 0.3)), float(rng.uniform(0.3, 0.5))) if rng.random() < 0.5 else None
    stone = rng.random() < 0.5
    spot = (float(rng.uniform(-0.25, 0.25)), float(rng.uniform(0.35, 0.7)))
    cyst, radius = bool(rng.random() < 0.5), float(rng.uniform(0.05, 0.12))
    kidney = (float(rng.uniform(-0.1, 0.15)), float(rng.uniform(0.45, 0.6)), float(rng.uniform(-0.4, 0.4)))
    strength = float(rng.uniform(0.5, 0.7))
    bladder = bladder if region == "liver" else None
    gallstone = lesion and stone and bladder is not None

    def paint(echo: Echo, phase: float) -> None:
        breathing = 0.02 * np.sin(2 * np.pi * phase)
        echo.blob((0, 0.05), (1.2, 0.1), organ * 1.3, 0, 0.2)
        echo.blob((0, 0.65 + breathing), (0.9, 0.55), organ, 0.1, 0.2)
        if region == "liver":
            for (u, v), (a, b) in zip(vessels, sizes, strict=True):
                echo.blob((u, v + breathing), (a * 2, b), 0.03, 0.5 * u, 0.25)
            arc = np.linspace(-0.7, 0.7, 9)
            echo.line(np.stack([arc, 0.98 + breathing - 0.35 * arc**2], 1), 0.014, 0.9)
        else:
            u, v, angle = kidney
            echo.blob((u, v + breathing), (0.30, 0.15), organ * 0.6, angle, 0.35)
            echo.blob((u, v + breathing), (0.18, 0.065), organ * 1.9, angle)
            for step in (-0.16, -0.06, 0.06, 0.16):
                echo.blob(
                    (u + step * np.cos(angle), v + step * np.sin(angle) - 0.07 + breathing), (0.03, 0.03), organ * 0.35
                )
        if bladder:
            echo.blob((bladder[0], bladder[1] + breathing), (0.09, 0.16), 0.01, 0.5, 0.5)
            echo.cast((bladder[0], bladder[1] + 0.12), 0.08, 1.5)
            if gallstone:
                echo.blob((bladder[0], bladder[1] + 0.09 + breathing), (0.035, 0.022), 1.2, ill=True)
                echo.cast((bladder[0], bladder[1] + 0.11), 0.035, 0.1)
        if lesion and not gallstone:
            place = (spot[0], spot[1] + breathing)
            level, rim = (0.0, 0.4) if cyst else (strength * 1.3, 0.1)
            echo.blob(place, (radius, radius * 0.85), level, 0, rim, ill=True)
            echo.cast((place[0], place[1] + radius), radius, 1.6 if cyst else 0.9)

    if not lesion:
        return View(paint)
    if gallstone and bladder:
        return View(paint, (bladder[0], bladder[1] + 0.09), {"finding": "gallstone"})
    return View(paint, spot, {"finding": "cyst" if cyst else "hyperechoic mass"})


def _small_parts(rng: np.random.Generator, region: str, lesion: bool) -> View:
    """Linear-probe views: breast with layers, or neck with thyroid, carotid (pulsing) and jugular vein."""
    layers = np.sort(rng.uniform(0.04, 0.95, int(rng.integers(4, 9))))
    levels = rng.uniform(0.15, 0.6, len(layers))
    spot = (float(rng.uniform(-0.2, 0.2)), float(rng.uniform(0.3, 0.6)))
    radius, angle = float(rng.uniform(0.06, 0.14)), float(rng.uniform(-0.3, 0.3))
    cyst = bool(rng.random() < 0.4)
    carotid = (float(rng.uniform(-0.35, 0.35)), float(rng.uniform(0.4, 0.6)), float(rng.uniform(0.07, 0.12)))

    def paint(echo: Echo, phase: float) -> None:
        for start, level in zip(layers, levels, strict=True):
            wave = start + 0.02 * np.sin(echo.u * 6 + start * 40) + echo.bend * 1.5
            echo.values = np.where(echo.v > wave, np.float32(level), echo.values)
            echo.values += 0.5 * np.exp(-(((echo.v - wave) / 0.008) ** 2)) * np.float32(level > 0.3)
        if region == "neck":
            echo.blob((0, 0.42), (0.5, 0.17), 0.5, 0, 0.2)
            pulse = 1 + 0.12 * np.sin(2 * np.pi * phase)
            echo.blob(carotid[:2], (carotid[2] * pulse, carotid[2] * pulse), 0.01, 0, 0.8)
            echo.blob((carotid[0] + 0.2, carotid[1] - 0.12), (0.12 / pulse, 0.06), 0.01, 0.2, 0.5)
        if lesion:
            echo.blob(spot, (radius * 1.2, radius * 0.8), 0.0 if cyst else 0.12, angle, 0.25, ill=True)
            echo.cast((spot[0], spot[1] + radius * 0.7), radius, 1.6 if cyst else 0.55)

    return View(paint, spot, {"finding": "cyst" if cyst else "hypoechoic mass"}) if lesion else View(paint)


def _fetus(rng: np.random.Generator, lesion: bool) -> View:
    """Pregnant uterus: amniotic fluid, fetal head with skull and midline, limbs or trunk that move."""
    head = (float(rng.uniform(-0.2, 0.1)), float(rng.uniform(0.45, 0.6)))
    radius, angle = float(rng.uniform(0.16, 0.26)), float(rng.uniform(-0.5, 0.5))
    wall = float(rng.uniform(0.3, 0.5))
    cyst = (head[0] - 0.3 * radius, head[1] - 0.3 * radius)

    def paint(echo: Echo, phase: float) -> None:
        move = 0.025 * np.sin(2 * np.pi * phase)
        echo.blob((0, 0.12), (1.2, 0.16), wall, 0, 0.2)
        echo.blob((0, 0.58), (0.52, 0.36), 0.01, 0, 0.5)
        echo.blob((head[0] + 0.42, head[1] + 0.05 + move), (0.2, 0.13), 0.4, 0.4, 0.35)
        echo.blob((head[0] + move, head[1]), (radius * 1.2, radius), 0.18, angle, 1.2)
        along = np.array([np.cos(angle), np.sin(angle)])
        middle = np.array([head[0] + move, head[1]])
        echo.line(np.stack([middle - 0.9 * radius * along, middle + 0.9 * radius * along]), 0.008, 0.5)
        echo.line(np.array([[0.15, 0.8], [0.28, 0.72 + 3 * move]]), 0.018, 1.1)
        echo.cast((head[0], head[1] + radius), radius * 1.1, 0.55)
        if lesion:
            echo.blob((cyst[0] + move, cyst[1]), (radius * 0.3, radius * 0.25), 0.0, 0, 0.5, ill=True)

    return View(paint, cyst, {"finding": "intracranial cyst"}) if lesion else View(paint)


def _view(region: str, rng: np.random.Generator, lesion: bool, whole_beat: bool) -> View:
    if region == "heart":
        return _heart(rng, lesion, whole_beat)
    if region in ("liver", "kidney"):
        return _abdomen(rng, region, lesion)
    if region == "uterus":
        return _fetus(rng, lesion)
    return _small_parts(rng, region, lesion)


def _speckle(rng: np.random.Generator, lateral_grain: float) -> np.ndarray:
    """Complex speckle (DEPTHS, BEAMS): short along the beam, wider across it and widening with depth."""
    field = rng.standard_normal((2, DEPTHS, BEAMS), dtype=np.float32)
    near = ndimage.gaussian_filter(field, (0, 0.8, lateral_grain * 0.6))
    far = ndimage.gaussian_filter(field, (0, 1.1, lateral_grain * 1.6))
    depth = np.linspace(0, 1, DEPTHS, dtype=np.float32)[:, None]
    mixed = near / near.std() * (1 - depth) + far / far.std() * depth
    return mixed[0] + 1j * mixed[1]


def _doppler(
    picture: np.ndarray, inside: np.ndarray, flow: np.ndarray, box: tuple[float, float, float, float], strength: float
) -> None:
    """Adds a colour box: red toward the probe, blue away, where the tissue is dark (the lumen); in place."""
    height, width = inside.shape
    rows, columns = slice(int(box[0] * height), int(box[1] * height)), slice(int(box[2] * width), int(box[3] * width))
    part = picture[rows, columns]
    velocity = flow[rows, columns] * strength
    shown = (np.abs(velocity) > 0.35) & inside[rows, columns] & (part.max(axis=-1) < 70)
    speed = np.clip(np.abs(velocity), 0, 1.6)[..., None] / 1.6
    red = np.array([255, 40, 0]) * speed + np.array([0, 170, 0]) * np.maximum(speed - 0.55, 0)
    blue = np.array([0, 50, 255]) * speed + np.array([0, 170, 0]) * np.maximum(speed - 0.55, 0)
    colour = np.where(velocity[..., None] > 0, red, blue)
    part[shown] = colour[shown].astype(np.uint8)


def _screen(
    size: tuple[int, int], rng: np.random.Generator, frames: int, heart: bool
) -> tuple[np.ndarray, tuple[int, int, int, int]]:
    """The machine's screen around the picture: text, depth ruler, grey bar, button row, ECG trace.

    Returns:
        uint8 overlay (frames, *size, 3), and the box (top, left, height, width) the picture goes into.
    """
    height, width = size
    canvas = Image.new("RGB", (width, height))
    draw = ImageDraw.Draw(canvas)
    busy = rng.random()
    scale = rng.uniform(0.97, 1.0) if busy < 0.2 else rng.uniform(0.45, 0.95)
    box_h, box_w = int(height * scale), int(width * scale)
    top, left = int((height - box_h) * rng.uniform(0.1, 0.9)), int((width - box_w) * rng.uniform(0.2, 0.8))
    if busy >= 0.2:
        tone = int(rng.integers(90, 230))
        ink = (tone, tone, tone) if rng.random() < 0.7 else tuple(int(v) for v in rng.integers(60, 255, 3))
        for corner in range(4):
            if rng.random() < 0.6:
                x = 2 if corner % 2 == 0 else int(width * rng.uniform(0.78, 0.9))
                y = 2 if corner < 2 else int(height * rng.uniform(0.6, 0.85))
                for line in range(int(rng.integers(1, 6))):
                    annotate(draw, (x, y + line * 11), rng, ink)
        if rng.random() < 0.5:
            x = int(width * (rng.uniform(0.9, 0.99) if rng.random() < 0.6 else rng.uniform(0.01, 0.1)))
            step = height / int(rng.integers(8, 24))
            for k in range(1, int(height / step)):
                draw.line([(x, k * step), (x + (4 if k % 5 else 8), k * step)], fill=ink)
        if rng.random() < 0.4:
            x, y = int(width * rng.uniform(0.93, 0.97)), int(height * rng.uniform(0.05, 0.4))
            for k in range(30):
                draw.line([(x, y + k), (x + 5, y + k)], fill=(255 - 8 * k,) * 3)
        if rng.random() < 0.35:
            y = height - int(rng.integers(10, 18))
            shade = tuple(int(v) for v in rng.integers(20, 90, 3))
            draw.rectangle([int(width * 0.1), y, int(width * 0.9), height - 2], fill=shade)
            for k in range(6):
                annotate(draw, (width * (0.12 + 0.13 * k), y), rng, ink)
        if rng.random() < 0.5:
            colour = (60, 220, 120) if rng.random() < 0.5 else ink
            draw.ellipse([width // 2 + 3, top, width // 2 + 8, top + 5], fill=colour)
    overlay = np.repeat(np.asarray(canvas)[None], frames, axis=0).copy()
    if heart and rng.random() < 0.5:
        baseline = int(height * rng.uniform(0.86, 0.95))
        times = np.arange(width)
        beat = (times / (width / rng.uniform(2, 5)) + rng.uniform()) % 1
        trace = (
            3 * np.exp(-(((beat - 0.15) / 0.04) ** 2))
            + 16 * np.exp(-(((beat - 0.3) / 0.012) ** 2))
            + 4 * np.exp(-(((beat - 0.55) / 0.06) ** 2))
        )
        colour = ((60, 255, 90), (255, 220, 60), (230, 230, 230))[int(rng.integers(3))]
        sweep = rng.random() < 0.5
        points = list(zip(times.tolist(), (baseline - trace).tolist(), strict=True))
        for t in range(frames):
            until = int(width * (t + 1) / frames) if sweep and frames > 1 else width
            picture = Image.fromarray(overlay[t])
            ImageDraw.Draw(picture).line(points[: max(until, 2)], fill=colour, width=2)
            overlay[t] = np.asarray(picture)
    return overlay, (top, left, box_h, box_w)


def generate(kind: str, rng: np.random.Generator) -> Sample:
    """One frozen picture ("image") or a cine loop ("video")."""
    region = REGIONS[int(rng.choice(len(REGIONS), p=[0.4, 0.16, 0.12, 0.12, 0.1, 0.1]))]
    lesion = bool(rng.random() < 0.5)
    if region == "heart":
        probe = Probe("phased", rng.uniform(0.5, 0.8), rng.uniform(0.0, 0.06))
    elif region in ("breast", "neck"):
        probe = Probe("linear", rng.uniform(0.4, 0.62), 0.0)
    else:
        probe = Probe("curved", rng.uniform(0.45, 0.7), rng.uniform(0.25, 0.6))
    frames = 1 if kind == "image" else int(rng.integers(8, 17))
    rate = rng.uniform(8, 30)
    seconds = np.arange(frames) / rate
    heart_rate = rng.uniform(0.8, 2.2) if region in ("heart", "neck") else rng.uniform(0.25, 0.8)
    phases = (rng.uniform() + seconds * heart_rate) % 1.0

    height = int(rng.integers(150, 225))
    width = int(height * rng.uniform(0.95, 1.55))
    overlay, (top, left, box_h, box_w) = _screen((height, width), rng, frames, region == "heart")
    coordinates, inside = probe.scan_convert(box_h, box_w)
    coordinates = coordinates.astype(np.float32)
    lateral, axial = probe.beam_points()
    # Only a clip that shows the end of systole and of diastole tells how well a heart pumps.
    whole_beat = bool(np.ptp(squeeze(phases, 1.0)) > 0.97)
    view = _view(region, rng, lesion, whole_beat)
    grain = rng.uniform(0.8, 2.2)
    fixed = _speckle(rng, grain)
    shimmer = rng.uniform(0.05, 0.5) if frames > 1 else 0.0
    depth = np.linspace(0, 1, DEPTHS, dtype=np.float32)[:, None]
    gain_curve = np.exp(-rng.uniform(0, 2.2) * depth) * (1 + rng.uniform(-0.3, 0.4) * np.sin(depth * rng.uniform(2, 9)))
    contact = np.clip(
        1.2 - np.abs(np.linspace(-1, 1, BEAMS, dtype=np.float32) - rng.uniform(-0.2, 0.2)) ** rng.uniform(2, 8), 0.15, 1
    )
    dropout = (
        1 - 0.7 * np.clip(smooth_noise((1, 1, BEAMS), rng, (1, 12))[0] - 1.2, 0, 1)
        if rng.random() < 0.5
        else np.float32(1)
    )
    # Half of the hearts are thin bright walls in near darkness, as harmonic imaging at low gain shows them.
    sparse = region == "heart" and rng.random() < 0.5
    base = rng.uniform(0.02, 0.1) if sparse else rng.uniform(0.1, 0.35)
    dynamic = rng.uniform(28, 45) if sparse else rng.uniform(30, 65)
    gain = rng.uniform(-14, 2) if sparse else rng.uniform(-14, 8)
    clutter = rng.uniform(0.0, 0.025)
    face = rng.uniform(0, 0.6)
    stray = smooth_noise((DEPTHS, BEAMS), rng, (12, 10))
    patchy = np.exp(0.4 * stray * rng.uniform(1.0, 3.0 if sparse else 1.6) * (1 if sparse else rng.uniform(0, 1)))
    tint = np.ones(3)
    if rng.random() < 0.3:
        tint = np.array(((1.0, 0.85, 0.6), (0.75, 0.88, 1.0), (1.0, 0.92, 0.8))[int(rng.integers(3))])
    colour_flow = region in ("heart", "neck", "liver", "kidney") and rng.random() < 0.15
    flow = smooth_noise((box_h, box_w), rng, 22)
    colour_box = (rng.uniform(0.2, 0.4), rng.uniform(0.6, 0.8), rng.uniform(0.25, 0.4), rng.uniform(0.6, 0.75))
    state = np.random.default_rng(int(rng.integers(2**63)))  # the tissue's bends, the same in every frame
    seed = int(state.integers(2**63))

    pictures = overlay
    cover = np.zeros(overlay.shape[:3], np.float32)
    for t in range(frames):
        echo = Echo(lateral, axial, np.random.default_rng(seed), base)
        view.paint(echo, float(phases[t]))
        pattern = np.roll(fixed, round(2 * np.sin(2 * np.pi * phases[t])), axis=0)
        if shimmer:
            pattern = (1 - shimmer) * pattern + shimmer * np.roll(fixed, 17 * t + 40, axis=(0, 1))
        envelope = np.abs(pattern) * np.maximum(echo.values, 0) * patchy * echo.shadow + clutter
        envelope *= gain_curve * contact[None, :] * dropout
        envelope += face * np.exp(-((depth / 0.02) ** 2))
        decibel = 20 * np.log10(envelope + 1e-4) + gain
        level = np.clip((decibel + dynamic * 0.75) / dynamic, 0, 1)
        picture = ndimage.map_coordinates(level, coordinates, order=1, mode="nearest") * inside
        coloured = (picture[..., None] * tint * 255).astype(np.uint8)
        if colour_flow:
            _doppler(coloured, inside, flow, colour_box, float(np.sin(2 * np.pi * phases[t]) if frames > 1 else 1.0))
        window = pictures[t, top : top + box_h, left : left + box_w]
        np.maximum(window, coloured, out=window)
        ill = ndimage.map_coordinates(echo.ill, coordinates, order=1, mode="nearest") * inside
        cover[t, top : top + box_h, left : left + box_w] = ill
    if rng.random() < 0.2:
        # A crop inside the picture, where no probe geometry is left to see.
        cut_h, cut_w = int(box_h * rng.uniform(0.4, 0.7)), int(box_w * rng.uniform(0.3, 0.5))
        y, x = top + int((box_h - cut_h) * rng.uniform(0.2, 0.7)), left + (box_w - cut_w) // 2
        pictures = pictures[:, y : y + cut_h, x : x + cut_w]
        lesion_shown = False
    else:
        lesion_shown = True
    if rng.random() < 0.2:
        side = int(rng.integers(48, 100))
        pictures = resize(pictures, (side, side), rng)
    shown = pictures.shape[1:3]
    finished, scale = fit(pictures, rng)
    if rng.random() < 0.4:
        finished = jpeg(finished, int(rng.integers(35, 92)))
    facts = {"modality": "ultrasound", "region": region}
    lesions = None
    if lesion_shown:
        facts |= {"lesion": "yes" if lesion else "no"} | view.facts
        if lesion:
            whole = (scale[0] * height / shown[0], scale[1] * width / shown[1])
            lesions = lesion_map(cover, whole)
        if view.place:
            row, column = probe.pixel_of(view.place, box_h, box_w)
            row, column = (top + row) / height - 0.5, (left + column) / width - 0.5
            facts |= quadrant(row * shown[0] / scale[0] / SIZE, column * shown[1] / scale[1] / SIZE)
        if whole_beat and view.contraction:
            grade = dysfunction(ejection_fraction(view.contraction))
            facts |= {"severity": grade, "graded": "the left ventricular systolic dysfunction"}
    if region == "heart" and kind == "video":
        facts["motion"] = "beating"
    elif kind == "video":
        facts["motion"] = "pulsing" if region == "neck" else "moving" if region == "uterus" else "breathing"
    if colour_flow and lesion_shown:
        facts["contrast"] = "colour Doppler"
    return Sample(finished, kind, seconds, (0.0, 0.0), facts, lesions)
