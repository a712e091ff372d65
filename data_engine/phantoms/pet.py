# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""PET phantoms: FDG uptake of body and brain, blurred and noisy like reconstructed counts; slices, projections, PET-CT.

Uptake is in SUV (standardised uptake value). A whole body is built of soft solids, a brain of the MNI152 tissue maps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from .geometry import (
    SIZE,
    Point,
    annotate,
    fit,
    grey,
    jpeg,
    lesion_map,
    patient_grid,
    quadrant,
    resize,
    smooth_noise,
)
from .mri import ORIGIN, PLANES, brain_maps
from .sample import Sample

FWHM_TO_SIGMA = 1 / (2 * np.sqrt(2 * np.log(2)))
EXTENTS = {"chest": (20.0, 260.0), "abdomen": (-250.0, 10.0), "pelvis": (-470.0, -250.0), "whole body": (-560.0, 530.0)}
"""Lowest and highest z of a region, mm above the xiphoid of a patient of 1.7 m."""

HOT_IRON = ((0, 0, 0), (130, 0, 0), (255, 60, 0), (255, 150, 20), (255, 255, 120), (255, 255, 255))
HOT_METAL = ((0, 0, 0), (60, 0, 70), (190, 20, 40), (255, 110, 0), (255, 210, 60), (255, 255, 255))
RAINBOW = ((0, 0, 0), (40, 0, 160), (0, 120, 255), (0, 210, 90), (240, 230, 0), (255, 40, 0), (255, 235, 235))
COLOURS = (HOT_IRON, HOT_METAL, RAINBOW)
"""Colour scales of PET workstations as evenly spaced stops from no uptake to the top of the window."""


class Body:
    """SUV, and on demand HU, on a grid of axes (patient coordinates LPS, mm), painted solid by solid, later on top.

    Every solid touches only its own bounding box, which keeps a whole body quick.
    """

    def __init__(
        self, axes: tuple[np.ndarray, np.ndarray, np.ndarray], edge: float, with_ct: bool, rng: np.random.Generator
    ) -> None:
        """Takes the x, y and z of the grid, ascending, and over how many mm edges are soft."""
        self.axes = tuple(np.asarray(axis, np.float32) for axis in axes)
        self.edge = edge
        shape = tuple(len(axis) for axis in axes[::-1])
        # Bends every outline by a few mm, so that no organ is a perfect ellipsoid.
        self.bend = np.float32(rng.uniform(1.5, 3.5)) * smooth_noise(shape, rng, float(rng.uniform(6, 14)))
        self.suv = np.full(shape, 0.02, np.float32)
        self.hu = np.full(shape, -1000, np.float32) if with_ct else None
        self.lesions = np.zeros(shape, np.float32)

    def near(self, low: np.ndarray, high: np.ndarray) -> tuple[tuple[slice, ...], tuple[np.ndarray, ...]]:
        """The part of the grid between two corners: index (z, y, x), and its x, y, z that broadcast to it."""
        cut = [
            slice(*np.searchsorted(axis, (a - self.edge, b + self.edge)))
            for axis, a, b in zip(self.axes, low, high, strict=True)
        ]
        x, y, z = (axis[part] for axis, part in zip(self.axes, cut, strict=True))
        return (cut[2], cut[1], cut[0]), (x[None, None, :], y[None, :, None], z[:, None, None])

    def _mix(self, index: tuple[slice, ...], cover: np.ndarray, suv: float, hu: float | None) -> None:
        self.suv[index] += cover * (np.float32(suv) - self.suv[index])
        if self.hu is not None and hu is not None:
            self.hu[index] += cover * (np.float32(hu) - self.hu[index])

    def coverage(
        self, centre: Point, radii: Point, angle: float = 0.0, power: float = 2.0, bent: bool = True
    ) -> tuple[tuple[slice, ...], np.ndarray]:
        """The part of the grid (z, y, x) around a solid, and the share, 0 to 1, of each of its voxels inside it."""
        c, s = abs(np.cos(angle)), abs(np.sin(angle))
        reach = np.array([c * radii[0] + s * radii[1], s * radii[0] + c * radii[1], radii[2]])
        index, (x, y, z) = self.near(np.asarray(centre) - reach, np.asarray(centre) + reach)
        if not self.suv[index].size:
            return index, self.suv[index]
        dx, dy, dz = x - np.float32(centre[0]), y - np.float32(centre[1]), z - np.float32(centre[2])
        if angle:
            c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
            dx, dy = dx * c + dy * s, dy * c - dx * s
        if power == 2:
            total = np.sqrt(
                (dx / np.float32(radii[0])) ** 2 + (dy / np.float32(radii[1])) ** 2 + (dz / np.float32(radii[2])) ** 2
            )
        else:
            parts = (np.abs(d / np.float32(r)) ** np.float32(power) for d, r in zip((dx, dy, dz), radii, strict=True))
            total = sum(parts) ** np.float32(1 / power)
        if bent:
            total = total + self.bend[index] / np.float32(max(min(radii), 20))
        return index, np.clip((1 - total) * np.float32(min(radii) / self.edge) + np.float32(0.5), 0, 1)

    def solid(
        self, centre: Point, radii: Point, suv: float, hu: float | None = 40, angle: float = 0.0, power: float = 2.0
    ) -> None:
        """An ellipsoid, or for a power above 2 a box with round corners, turned about z by `angle` (radians)."""
        self._mix(*self.coverage(centre, radii, angle, power), suv, hu)

    def hot_spot(self, centre: Point, radii: Point, suv: float) -> None:
        """A lesion: an ellipsoid that keeps its exact shape, and whose place `lesions` keeps."""
        index, cover = self.coverage(centre, radii, bent=False)
        self._mix(index, cover, suv, 40)
        self.lesions[index] = np.maximum(self.lesions[index], cover)

    def rod(self, start: Point, end: Point, radius: float, suv: float, hu: float | None = 40) -> None:
        """A round rod between two points."""
        a, b = np.asarray(start, np.float32), np.asarray(end, np.float32)
        index, (x, y, z) = self.near(np.minimum(a, b) - radius, np.maximum(a, b) + radius)
        if not self.suv[index].size:
            return
        axis = b - a
        dx, dy, dz = x - a[0], y - a[1], z - a[2]
        along = np.clip((dx * axis[0] + dy * axis[1] + dz * axis[2]) / (axis @ axis), 0, 1)
        distance = np.sqrt((dx - along * axis[0]) ** 2 + (dy - along * axis[1]) ** 2 + (dz - along * axis[2]) ** 2)
        self._mix(index, np.clip((radius - distance) / self.edge + np.float32(0.5), 0, 1), suv, hu)


def paint_body(body: Body, rng: np.random.Generator) -> None:
    """A fasting adult an hour after FDG: typical SUV of every organ, varied as between patients."""
    muscle, fat, marrow = rng.uniform(0.5, 0.9), rng.uniform(0.15, 0.35), rng.uniform(0.9, 2.0)
    blood, liver = rng.uniform(1.2, 2.0), rng.uniform(1.8, 2.8)
    layer = rng.uniform(8, 24)
    arms_up = rng.random() < 0.6
    for shrink, suv, hu in ((0.0, fat, -100.0), (layer, muscle, 50.0)):
        body.solid((0, 0, -70), (165 - shrink, 108 - shrink, 375), suv, hu, power=2.8)
        body.solid((0, 12, 215), (185 - shrink, 70 - shrink, 62 - shrink / 2), suv, hu, power=2.4)
        body.solid((0, 5, -400), (178 - shrink, 112 - shrink, 150), suv, hu, power=2.4)
        body.rod((0, 12, 250), (0, 0, 380), 62 - shrink / 2, suv, hu)
        for side in (-1, 1):
            body.rod((side * 92, 0, -430), (side * 82, 5, -800), 84 - shrink, suv, hu)
            body.rod((side * 82, 5, -830), (side * 75, 12, -1180), 54 - shrink / 2, suv, hu)
            elbow = (side * 190.0, -20.0, 470.0) if arms_up else (side * 232.0, 10.0, -60.0)
            hand = (side * 70.0, -40.0, 640.0) if arms_up else (side * 215.0, -30.0, -330.0)
            body.rod((side * 168, 12, 225), elbow, 44 - shrink / 2, suv, hu)
            body.rod(elbow, hand, 36 - shrink / 2, suv, hu)
    if body.hu is not None:
        for side in (-1, 1):
            body.rod((side * 120, 20, -410), (side * 82, 8, -800), 15, muscle, 900)
            body.rod((side * 168, 12, 225), (side * 160, 12, 180), 16, muscle, 700)
    _head_and_neck(body, rng, muscle, fat)
    _thorax(body, rng, muscle, blood, marrow)
    _abdomen_and_pelvis(body, rng, blood, liver, marrow)


def _head_and_neck(body: Body, rng: np.random.Generator, muscle: float, fat: float) -> None:
    """Brain with cooler white matter, skull, tonsils, salivary glands, larynx."""
    body.solid((0, -5, 430), (76, 96, 112), fat, 20)
    body.solid((0, -3, 440), (72, 90, 98), 0.5, 900)
    body.solid((0, -45, 375), (48, 45, 45), muscle, 60)
    body.solid((0, -75, 375), (14, 25, 22), 0.2, -900)
    body.solid((0, -8, 344), (9, 8, 60), 0.2, -950)
    grey = rng.uniform(7, 13)
    body.solid((0, 0, 452), (66, 83, 70), grey, 36)
    body.solid((0, -2, 450), (44, 60, 44), grey * 0.45, 30)
    for side in (-1, 1):
        body.solid((side * 24, -8, 448), (12, 20, 16), grey * 0.95, 36)
        body.solid((side * 28, 45, 392), (28, 26, 22), grey * 0.8, 36)
        body.solid((side * 20, -12, 352), (8, 9, 10), rng.uniform(1.5, 4), 45)
        body.solid((side * 48, -5, 362), (13, 15, 18), rng.uniform(1.2, 2.5), 30)
    body.solid((0, -28, 292), (9, 8, 8), rng.uniform(0.8, 3.5), 60)


def _thorax(body: Body, rng: np.random.Generator, muscle: float, blood: float, marrow: float) -> None:
    """Lungs, mediastinum, great vessels, left ventricle (its uptake differs most between patients), ribs, spine."""
    lung = rng.uniform(0.3, 0.55)
    for side in (-1, 1):
        body.solid((side * 72, 5, 110), (62, 84, 132), lung, rng.uniform(-880, -780), angle=side * 0.1, power=2.3)
    body.solid((0, -5, 120), (30, 68, 120), 0.9, 10)
    body.solid((-20, -30, 110), (14, 14, 60), blood, 45)
    body.rod((-10, -35, 80), (10, -10, 178), 15, blood, 45)
    body.rod((10, -10, 178), (20, 40, 165), 12, blood, 45)
    body.rod((20, 40, 165), (14, 42, -190), 11, blood, 45)
    body.rod((0, 14, 290), (0, 22, 180), 8, 0.3, -950)
    body.solid((2, -40, 45), (44, 36, 46), blood * 0.9, 45)
    body.solid((44, -32, 38), (42, 38, 44), rng.uniform(4, 11) if rng.random() < 0.5 else blood, 60, angle=0.5)
    # Open towards the valves, so that an axial slice shows a horseshoe.
    body.solid((37, -27, 42), (31, 23, 36), blood, 45, angle=0.5)
    if body.hu is not None:
        _bones_of_the_chest(body, body.hu)
    body.rod((0, 62, 260), (0, 52, 60), 17, marrow, 280)
    body.rod((0, 52, 60), (0, 45, -260), 20, marrow, 280)
    body.rod((0, 86, 260), (0, 72, -260), 8, muscle, 15)
    body.solid((0, -92, 120), (15, 5, 80), marrow, 250)


def _bones_of_the_chest(body: Body, hu: np.ndarray) -> None:
    """Ribs, as arcs that run down and forward around the lungs, painted into `body.hu`."""
    index, (x, y, z) = body.near(np.array([-160, -110, -60]), np.array([160, 110, 250]))
    ring = np.sqrt((x / 142) ** 2 + (y / 96) ** 2)
    band = np.cos((z + 0.45 * (y + 96)) * (2 * np.pi / 27))
    cover = np.clip(5 - np.abs(ring - 1) * 105, 0, 1) * np.clip(band * 4, 0, 1)
    hu[index] += cover * (np.float32(650) - hu[index])


def _abdomen_and_pelvis(body: Body, rng: np.random.Generator, blood: float, liver: float, marrow: float) -> None:
    """Liver, spleen, stomach, bowel, kidneys with urine in calices and ureters, pelvic bones, bladder."""
    body.solid((0, -18, -150), (128, 62, 150), 0.5, -90, power=2.5)
    body.solid((0, -10, -340), (85, 60, 90), 0.5, -70)
    body.solid((0, -12, -385), (62, 48, 60), 0.6, 35)
    body.solid((-72, -2, -40), (78, 82, 78), liver, 58, power=2.2)
    body.solid((2, -42, -25), (66, 38, 38), liver, 58)
    body.solid((102, 42, -25), (28, 42, 50), liver * 0.85, 50)
    body.solid((62, -30, -40), (40, 32, 42), rng.uniform(1, 3), 40)
    body.solid((62, -32, -38), (28, 22, 30), 0.6, 5)
    bowel = rng.uniform(0.6, 2.0)
    for _ in range(14):
        centre = (rng.uniform(-75, 80), rng.uniform(-65, -10), rng.uniform(-310, -120))
        radius = rng.uniform(12, 20)
        body.solid(centre, (radius * 1.4, radius, radius), bowel * rng.uniform(0.3, 1.2), 30)
    corners = ((-98, -5, -300), (-98, -10, -125), (0, -60, -150), (98, -5, -100), (100, 5, -290), (20, 30, -360))
    for k in range(len(corners) - 1):
        body.rod(corners[k], corners[k + 1], rng.uniform(14, 20), bowel * rng.uniform(0.4, 1.5), -200 + 40 * k)
    urine = rng.uniform(8, 30)
    for side in (-1, 1):
        z = -105.0 if side < 0 else -92.0
        body.solid((side * 60, 46, z), (27, 25, 52), rng.uniform(2.5, 4.5), 35, angle=side * 0.4)
        for k in (-1, 0, 1):
            calyx = (side * 52.0, 42.0, z + 22 * k)
            body.solid(calyx, (9, 10, 11), urine * rng.uniform(0.3, 0.8), 15)
        if rng.random() < 0.5:
            low = rng.uniform(-330, -200)
            body.rod((side * 42, 38, low), (side * 40, 38, low + rng.uniform(20, 90)), 4, urine * 0.6, 15)
        body.solid((side * 88, 35, -315), (14, 50, 58), marrow, 500, angle=side * 0.5)
        body.solid((side * 95, 10, -405), (30, 28, 32), marrow * 0.7, 550)
        body.solid((side * 38, -35, -360), (9, 9, 80), blood, 45)
    body.solid((0, 68, -325), (46, 20, 62), marrow, 350)
    body.solid((0, 45, -400), (20, 16, 40), bowel * 0.8, 20)
    size = rng.uniform(0.6, 1.15)
    body.solid((0, -28, -395), (38 * size, 30 * size, 30 * size), urine, 5)


@dataclass(frozen=True)
class HotSpot:
    """A spherical lesion: centre (patient coordinates, mm), radius (mm), and SUV."""

    centre: tuple[float, float, float]
    radius: float
    suv: float


SITES = (
    ((-112, -40, 40), (-55, 45, 200)), ((62, -10, 95), (108, 45, 195)), ((82, 10, 40), (110, 45, 95)),
    ((-25, -25, 115), (25, 15, 205)), ((-50, 5, 285), (-28, 25, 325)), ((28, 5, 285), (50, 25, 325)),
    ((-150, 5, 180), (-128, 30, 205)), ((128, 5, 180), (150, 30, 205)), ((-130, -45, -80), (-50, 40, -5)),
    ((-6, 40, -290), (6, 50, -195)), ((-95, 20, -350), (-75, 55, -290)), ((75, 20, -350), (95, 55, -290)),
    ((-100, -45, -440), (-78, -25, -415)), ((78, -45, -440), (100, -25, -415)), ((-115, 0, -520), (-85, 20, -455)),
    ((85, 0, -520), (115, 20, -455)), ((88, 30, -50), (112, 52, -5)),
)  # fmt: skip
"""Boxes where tumours and nodes outshine the organ: lungs, hila, neck, armpits, liver, spleen, bones, groins."""


def draw_hot_spots(rng: np.random.Generator, count: int, heights: tuple[float, float], pixel: float) -> list[HotSpot]:
    """Up to `count` hot spots between two heights (mm), apart by over two pixels (mm) as seen from the front."""
    usable = [
        (np.array(low, float), np.array(high, float))
        for low, high in SITES
        if low[2] >= heights[0] and high[2] <= heights[1]
    ]
    spots: list[HotSpot] = []
    for _ in range(10 * count):
        low, high = usable[int(rng.integers(len(usable)))]
        centre = rng.uniform(low, high)
        radius = max(float(rng.uniform(6, 15)), 0.9 * pixel)
        if all(
            np.hypot(centre[0] - other.centre[0], centre[2] - other.centre[2]) > radius + other.radius + 2.5 * pixel
            for other in spots
        ):
            spots.append(HotSpot((centre[0], centre[1], centre[2]), radius, float(rng.uniform(6, 15))))
        if len(spots) == count:
            break
    return spots


def acquire(suv: np.ndarray, pixel: float, rng: np.random.Generator) -> np.ndarray:
    """SUV (slices, rows, columns) as reconstructed: detector blur, counting noise, post-filter; 4-7 mm FWHM in all.

    Counts are many enough per voxel for the Gaussian limit of Poisson noise, whose variance is the expected count.
    """
    total = rng.uniform(4, 7) * FWHM_TO_SIGMA / pixel
    detector = total * rng.uniform(0.5, 0.7)
    blurred = ndimage.gaussian_filter(suv, (0, detector, detector))
    counts = np.float32(np.exp(rng.uniform(np.log(12), np.log(150))))
    noise = rng.standard_normal(suv.shape, dtype=np.float32) * np.sqrt(np.maximum(blurred, 0.03) / counts)
    rest = np.sqrt(total**2 - detector**2)
    return np.maximum(ndimage.gaussian_filter(blurred + noise, (0, rest, rest)), 0)


def coloured(level: np.ndarray, stops: tuple[tuple[int, int, int], ...]) -> np.ndarray:
    """Values in 0 to 1 (...) as uint8 colours (..., 3) of a scale given by evenly spaced stops."""
    at = np.linspace(0, 1, len(stops))
    table = np.stack([np.interp(np.linspace(0, 1, 256), at, channel) for channel in zip(*stops, strict=True)], axis=-1)
    return table.round().astype(np.uint8)[np.round(np.clip(level, 0, 1) * 255).astype(np.uint8)]


@dataclass(frozen=True)
class View:
    """What is imaged: slices of uptake, and what is true of them.

    Attributes:
        suv: float32 (slices, rows, columns).
        hu: CT of the same slices where they are to be fused, else None.
        cover: share of each pixel that lesions cover, float32 (slices, rows, columns).
        pixel: mm per pixel, the same along rows and columns.
        offsets: (slices,) mm along the slice axis.
        centre: mm down and right of the view's middle to the lesion, if there is one that alone can be pointed at.
        top: SUV at the top of the display window.
        facts: facts of the view and its lesions.
    """

    suv: np.ndarray
    hu: np.ndarray | None
    cover: np.ndarray
    pixel: float
    offsets: np.ndarray
    centre: tuple[float, float] | None
    top: float
    facts: dict[str, str]


def _offsets(kind: str, rng: np.random.Generator, low: float, high: float) -> np.ndarray:
    """Slice positions around 0, mm: one for an image, else 8 to 16 with a spacing between `low` and `high`."""
    if kind == "image":
        return np.zeros(1)
    slices = int(rng.integers(8, 17))
    return (np.arange(slices) - (slices - 1) / 2) * rng.uniform(low, high)


def _body_view(kind: str, plane: str, projected: bool, rng: np.random.Generator) -> View:
    """The body in axial or coronal slices, or as coronal maximum-intensity projection."""
    if plane == "axial":
        region = ("chest", "abdomen", "pelvis")[int(rng.integers(3))]
    else:
        region = "whole body" if rng.random() < 0.7 else ("chest", "abdomen", "pelvis")[int(rng.integers(3))]
    low, high = EXTENTS[region]
    height = (high - low) * rng.uniform(1.0, 1.12) if plane == "coronal" else rng.uniform(250, 400)
    width = rng.uniform(420, 540)
    longest = max(height, width)
    girth, stature = rng.uniform(0.88, 1.15), rng.uniform(0.95, 1.06)
    scale = np.array([girth, girth, stature])
    count = 0 if rng.random() < 0.5 else int(rng.integers(1, 6)) if projected and region == "whole body" else 1
    spots = draw_hot_spots(rng, count, (low, high), longest / SIZE)

    pixel = longest / SIZE * rng.uniform(0.7, 1.0) if plane == "coronal" else rng.uniform(3.2, 4.8)
    across = (np.arange(round(width / pixel)) + 0.5 - round(width / pixel) / 2) * pixel + rng.uniform(-10, 10)
    down = (np.arange(round(height / pixel)) + 0.5 - round(height / pixel) / 2) * pixel
    x, edge = across / girth, max(2.0, 0.8 * pixel)
    if plane == "axial":
        offsets = _offsets(kind, rng, 2.5, 5)
        if spots:
            middle = (
                spots[0].centre[2] * stature
                + rng.uniform(-0.25, 0.25) * spots[0].radius
                + 0.7 * offsets[-1] * rng.uniform(-1, 1)
            )
        else:
            middle = rng.uniform(low + 30, high - 30) * stature
        y, z = down / girth, (middle + offsets) / stature
    else:
        middle = (low + high) / 2 * stature
        z = (middle + down) / stature
        if projected:
            offsets, y = np.zeros(1), np.linspace(-112, 112, 15)
        else:
            offsets = _offsets(kind, rng, 6, 10)
            depth = spots[0].centre[1] * girth if spots else rng.uniform(-35, 50)
            y = (depth + offsets + 0.7 * offsets[-1] * rng.uniform(-1, 1)) / girth
            edge = max(edge, 3.0)
    fused = not projected and rng.random() < 0.22
    body = Body((x, y, z), edge, fused, rng)
    paint_body(body, rng)
    for spot in spots:
        radii = spot.radius / scale
        if projected:
            # No lesion slips between the layers of a projection; its outline from the front stays.
            radii[1] = max(radii[1], 12)
        body.hot_spot(spot.centre, (radii[0], radii[1], radii[2]), spot.suv)
    suv, hu, cover = body.suv, body.hu, body.lesions
    suv *= 1 + np.float32(0.08) * smooth_noise(suv.shape, rng, 4)
    if plane == "coronal":
        suv = suv.transpose(1, 0, 2)[:, ::-1]
        hu = None if hu is None else hu.transpose(1, 0, 2)[:, ::-1]
        cover = cover.transpose(1, 0, 2)[:, ::-1]
    suv = acquire(suv, pixel, rng)
    if projected:
        suv, cover = suv.max(axis=0, keepdims=True), cover.max(axis=0, keepdims=True)

    facts = {"region": region, "plane": plane} | _hot_spot_facts(spots, longest / SIZE)
    if spots and projected and region == "whole body":
        facts |= {"count": str(len(spots)), "counted": "hot spots"}
    centre = None
    if len(spots) == 1:
        place = spots[0].centre * scale
        vertical = place[1] - down.mean() if plane == "axial" else middle - place[2]
        centre = (float(vertical), float(place[0] - across.mean()))
    # A slice without hot organs is shown in a narrower window, as a reader would.
    top = min(rng.uniform(3.5, 7), max(1.6 * float(np.percentile(suv, 99.5)), 1.8))
    return View(suv, hu, cover, pixel, offsets, centre, top, facts)


def _hot_spot_facts(spots: list[HotSpot], pixel: float) -> dict[str, str]:
    """Facts of hot spots in a body: a side if all clearly lie on one, a size if there is one of over 3 pixels (mm)."""
    if not spots:
        return {"lesion": "no"}
    facts = {"lesion": "yes", "finding": "hot spot"}
    sides = {np.sign(spot.centre[0]) if abs(spot.centre[0]) > 20 else 0 for spot in spots}
    if sides in ({1.0}, {-1.0}):
        facts["side"] = "left" if 1.0 in sides else "right"
    if len(spots) == 1 and 2 * spots[0].radius > 3 * pixel:
        facts |= {"size": f"{2 * spots[0].radius:.0f} mm", "measured": "the hot spot"}
    return facts


def _brain_view(kind: str, rng: np.random.Generator) -> View:
    """A brain: grey matter takes up about four times as much glucose as white, basal ganglia and occiput the most."""
    plane = PLANES[int(rng.choice(3, p=[0.6, 0.2, 0.2]))]
    axis = {"axial": 2, "coronal": 1, "sagittal": 0}[plane]
    template, grey_map, white_map, distance = brain_maps()
    size = rng.uniform(0.94, 1.08, 3)
    hot = bool(rng.random() < 0.5)
    has_lesion = bool(rng.random() < 0.5)
    radius = float(rng.uniform(7, 13) if hot else rng.uniform(12, 18))
    side = float(rng.choice([-1.0, 1.0]))
    choices = np.stack(
        [side * rng.uniform(24, 52, 12), rng.uniform(-40, 80, 12) + 10, rng.uniform(-10, 45, 12)], axis=1
    )
    # Most grey matter around: a cold spot in white matter would not be seen.
    lesion = max(choices, key=lambda at: _share(grey_map, at))
    offsets = _offsets(kind, rng, 2.5, 5)
    middle = np.array([rng.uniform(-35, 35), rng.uniform(-30, 60), rng.uniform(-5, 45)])
    if has_lesion:
        middle[axis] = (
            lesion[axis] * size[axis] + rng.uniform(-0.25, 0.25) * radius + 0.7 * offsets[-1] * rng.uniform(-1, 1)
        )
    for other, at in enumerate((0.0, 16.0, 12.0)):
        if other != axis:
            middle[other] = at + rng.uniform(-6, 6)
    field = rng.uniform(205, 290)
    pixel = rng.uniform(1.8, 3.2)
    rows = round(field / pixel)
    columns = round(field * (rng.uniform(0.75, 1.0) if plane == "axial" else 1.0) / pixel)
    grid = patient_grid(
        (rows, columns), (rows * pixel, columns * pixel), (middle[0], middle[1], middle[2]), offsets, plane
    )
    voxel = np.stack([ORIGIN[0] - grid[0] / size[0], ORIGIN[1] - grid[1] / size[1], ORIGIN[2] + grid[2] / size[2]])

    def sampled(volume: np.ndarray, at: np.ndarray, outside: float = 0.0) -> np.ndarray:
        return ndimage.map_coordinates(volume, at, order=1, cval=outside, output=np.float32)

    cortex = np.float32(rng.uniform(7, 12))
    away = sampled(distance, voxel / 2 + 16, 60.0)
    back = (
        1 + np.float32(0.15) * np.clip((grid[1] - 50) / 30, 0, 1) - np.float32(0.2) * np.clip(-grid[2] / 20 - 1, 0, 1)
    )
    suv = cortex * (sampled(grey_map, voxel) * back + np.float32(0.27) * sampled(white_map, voxel)) / 255
    suv += np.float32(rng.uniform(0.5, 1.4)) * (away > 5) * np.clip((16 - away) / 4, 0, 1)
    cover = np.zeros_like(suv)
    if has_lesion:
        apart = np.sqrt(sum(((g - c * s) / radius) ** 2 for g, c, s in zip(grid, lesion, size, strict=True)))
        cover = np.clip((1 - apart) * np.float32(radius / 3) + 0.5, 0, 1)
        suv += cover * (cortex * rng.uniform(1.5, 2.2) - suv) if hot else -cover * suv * np.float32(0.75)
    hu = None
    if rng.random() < 0.12:
        hu = np.float32(32) + np.float32(6) * sampled(template, voxel) / 255
        for start, value in ((1.0, 10.0), (3.0, 1100.0), (9.0, 0.0), (15.0, -1000.0)):
            hu += np.clip((away - np.float32(start)) / 2 + 0.5, 0, 1) * (np.float32(value) - hu)
    facts = {"region": "brain", "plane": plane, "lesion": "yes" if has_lesion else "no"}
    centre = None
    if has_lesion:
        finding = "hot spot" if hot else "cold spot"
        facts |= {"finding": finding, "size": f"{2 * radius:.0f} mm", "measured": f"the {finding}"}
        if plane != "sagittal":
            facts["side"] = "left" if side > 0 else "right"
        away_from_middle = lesion * size - middle
        down, right = {"axial": (1, 0), "coronal": (2, 0), "sagittal": (2, 1)}[plane]
        centre = (float(away_from_middle[down] * (1 if down == 1 else -1)), float(away_from_middle[right]))
    top = float(cortex * rng.uniform(0.85, 1.15))
    return View(acquire(suv, pixel, rng), hu, cover, pixel, offsets, centre, top, facts)


def _share(grey_map: np.ndarray, at: np.ndarray) -> float:
    """Mean grey matter (0 to 255) within about a centimetre of a point (patient coordinates, mm)."""
    i, j, k = np.round((ORIGIN[0] - at[0], ORIGIN[1] - at[1], ORIGIN[2] + at[2])).astype(int)
    return float(grey_map[i - 9 : i + 10 : 3, j - 9 : j + 10 : 3, k - 9 : k + 10 : 3].mean())


def _display(view: View, rng: np.random.Generator) -> np.ndarray:
    """SUV to uint8 frames (slices, rows, columns, 3): mostly inverted grey, or grey, a colour scale, PET-CT fusion."""
    level = np.clip(view.suv / view.top, 0, 1) ** np.float32(rng.uniform(0.75, 1.15))
    if view.hu is not None:
        noisy = view.hu + np.float32(rng.uniform(5, 25)) * rng.standard_normal(view.hu.shape, dtype=np.float32)
        low, width = (-160, 400) if rng.random() < 0.7 else (-900, 1300)
        ct = grey((noisy - low) / width).astype(np.float32)
        hot = coloured(level, COLOURS[int(rng.integers(2))]).astype(np.float32)
        share = np.clip(level * rng.uniform(1.0, 2.0), 0, rng.uniform(0.6, 0.9))[..., None]
        return (ct * (1 - share) + hot * share).round().astype(np.uint8)
    brain = view.facts["region"] == "brain"
    style = rng.random()
    if style < (0.25 if brain else 0.65):
        return grey(1 - level * rng.uniform(0.85, 1.0))
    if style < (0.45 if brain else 0.78):
        return grey(level)
    return coloured(level, COLOURS[int(rng.choice(3, p=[0.3, 0.3, 0.4] if brain else [0.5, 0.4, 0.1]))])


def _screen_marks(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Workstation marks on uint8 frames (T, H, W, 3): orientation letters, numbers, a scale of uptake."""
    if rng.random() < 0.55:
        return frames
    rows, columns = frames.shape[1:3]
    double = resize(frames, (2 * rows, 2 * columns))
    letters, numbers, bar = rng.random(3) < (0.5, 0.4, 0.3)
    seed = int(rng.integers(2**63))
    # Text that stands on a white picture is dark.
    ink = (30, 30, 30) if frames[:, :4, :4].mean() > 128 else (230, 230, 230)
    scale = frames[0].reshape(-1, 3)
    scale = scale[np.argsort(scale.sum(axis=1))][:: max(1, len(scale) // rows)]
    for t, frame in enumerate(double):
        picture = Image.fromarray(frame)
        draw = ImageDraw.Draw(picture)
        if letters:
            draw.text((4, rows - 8), "R", fill=ink, font_size=14)
            draw.text((2 * columns - 14, rows - 8), "L", fill=ink, font_size=14)
        if numbers:
            annotate(draw, (3, 3), np.random.default_rng(seed), ink)
            annotate(draw, (3, 2 * rows - 14), np.random.default_rng(seed + 1), ink)
        double[t] = np.asarray(picture)
        if bar:
            length = min(len(scale), rows)
            top = (2 * rows - length) // 2
            double[t, top : top + length, -10:-3] = scale[:length][::-1, None]
    return resize(double, (rows, columns))


def generate(kind: str, rng: np.random.Generator) -> Sample:
    """One slice or projection ("image") or a stack of slices ("volume")."""
    choice = rng.random()
    if choice < 0.32:
        view = _brain_view(kind, rng)
    elif choice < 0.62:
        view = _body_view(kind, "axial", False, rng)
    else:
        view = _body_view(kind, "coronal", kind == "image" and choice < 0.88, rng)
    frames = _screen_marks(_display(view, rng), rng)
    frames, scale = fit(frames, rng, squash=0.35)
    if kind == "image" and rng.random() < 0.4:
        frames = jpeg(frames, int(rng.integers(40, 92)))
    spacing = (view.pixel * scale[0], view.pixel * scale[1])
    facts = {"modality": "PET"} | view.facts
    if view.centre:
        facts |= quadrant(view.centre[0] / spacing[0] / SIZE, view.centre[1] / spacing[1] / SIZE)
    lesions = lesion_map(view.cover, scale)
    return Sample(frames, kind, view.offsets - view.offsets[0], spacing, facts, lesions)
