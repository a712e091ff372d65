# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Angiography phantoms: a contrast bolus runs through coronary, cerebral or leg arteries under noisy X-rays.

Lengths are in half picture heights (u right, v down, the picture spans -1 to 1); times are in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageDraw
from scipy import interpolate, ndimage

from .geometry import annotate, fit, grey, jpeg, lesion_map, quadrant, resize, smooth_noise
from .sample import Sample
from .xray import Film

STEP = 0.009
"""Distance between neighbouring points of a vessel: about half a pixel."""
GRADES = {"mild": (0.3, 0.45), "moderate": (0.53, 0.66), "severe": (0.74, 0.9)}
"""Share of the diameter that a stenosis takes. Cut-offs at 50 % and 70 %, as CAD-RADS 2.0 (Cury et al. 2022) grades
coronary arteries and the Society of Radiologists in Ultrasound (Grant et al. 2003) the carotids; values near a cut-off
are left out, because a picture of this size could not tell them apart."""
Way = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Vessel:
    """A vessel along its course.

    Attributes:
        points: (n, 2) positions u, v.
        radii: (n,) radius.
        arrival: (n,) path length from where the contrast is injected.
    """

    points: np.ndarray
    radii: np.ndarray
    arrival: np.ndarray


@dataclass(frozen=True)
class Tree:
    """Main vessels, which may carry a lesion, and their branches."""

    mains: list[Vessel]
    branches: list[Vessel]


@dataclass(frozen=True)
class Lesion:
    """Where a lesion lies (u, v), what it is, the grade of a stenosis, and the discs that cover all of it."""

    place: tuple[float, float]
    finding: str
    grade: str | None
    body: Vessel


def course(way: Way, radius: tuple[float, float], start: float, rng: np.random.Generator) -> Vessel:
    """A vessel through waypoints, rounded and a little tortuous, tapering from the first radius to the second."""
    corners = np.array(way) + rng.normal(0, 0.04, (len(way), 2))
    corners[0] = way[0]
    along = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(corners, axis=0).T))])
    count = max(8, int(along[-1] / STEP))
    at = np.linspace(0, along[-1], count)
    points = interpolate.make_interp_spline(along, corners, k=min(3, len(way) - 1))(at)
    tortuous = ndimage.gaussian_filter1d(rng.standard_normal((count, 2)), 9, axis=0) * rng.uniform(0.0, 0.05)
    points += (tortuous - tortuous[0]) * np.minimum(1, np.arange(count) / 20)[:, None]
    return Vessel(points, np.linspace(*radius, count), start + at)


def branches_of(
    parent: Vessel, rng: np.random.Generator, count: int, length: float, levels: int, bend: float = 0.9
) -> list[Vessel]:
    """Side branches, alternately to both sides, each with branches of its own for `levels` generations."""
    result = []
    turn = rng.choice([-1, 1])
    for t in np.sort(rng.uniform(0.12, 0.97, count)):
        turn = -turn if rng.random() < 0.8 else turn
        i = int(t * (len(parent.points) - 3)) + 1
        du, dv = parent.points[i + 1] - parent.points[i - 1]
        steps = int(length * rng.uniform(0.5, 1.2) / STEP)
        s = np.arange(steps) * STEP
        wander = ndimage.gaussian_filter1d(rng.standard_normal(steps), 12) * rng.uniform(1, 4)
        heading = np.arctan2(dv, du) + turn * (rng.uniform(0.5, 1.2) - bend * rng.uniform(0.0, 1.0) * s / length)
        heading = heading + wander - wander[0]
        points = parent.points[i] + np.stack([np.cumsum(np.cos(heading)), np.cumsum(np.sin(heading))], axis=1) * STEP
        first = parent.radii[i] * rng.uniform(0.4, 0.68)
        child = Vessel(points, first * np.linspace(1, 0.4, steps), parent.arrival[i] + s)
        result.append(child)
        if levels > 1:
            result += branches_of(child, rng, int(rng.integers(1, 4)), 0.5 * length, levels - 1, bend)
    return result


def coronary_tree(rng: np.random.Generator) -> Tree:
    """Left coronary artery (descending and circumflex branch), or the right one as a C with two end branches."""
    r = rng.uniform(0.05, 0.07)
    if rng.random() < 0.45:
        first = course(((0.05, -0.5), (-0.3, -0.58), (-0.52, -0.2), (-0.45, 0.25), (-0.12, 0.45)), (r, r * 0.8), 0, rng)
        end, s = tuple(first.points[-1]), float(first.arrival[-1])
        mains = [
            first,
            course((end, (0.15, 0.62), (0.45, 0.75)), (r * 0.65, r * 0.25), s, rng),
            course((end, (0.15, 0.4), (0.5, 0.35)), (r * 0.65, r * 0.25), s, rng),
        ]
        counts = (5, 3, 3)
    else:
        stem = course(((-0.42, -0.5), (-0.2, -0.45)), (r, r), 0, rng)
        end, s = tuple(stem.points[-1]), float(stem.arrival[-1])
        mains = [
            stem,
            course((end, (0.15, -0.42), (0.42, -0.15), (0.58, 0.3), (0.55, 0.7)), (r * 0.85, r * 0.22), s, rng),
            course((end, (-0.3, -0.15), (-0.28, 0.15), (-0.1, 0.5), (0.05, 0.7)), (r * 0.8, r * 0.22), s, rng),
        ]
        counts = (0, 8, 6)
    branches = []
    for main, count in zip(mains, counts, strict=True):
        branches += branches_of(main, rng, count, rng.uniform(0.4, 0.6), 2)
    return Tree(mains, branches)


def cerebral_tree(rng: np.random.Generator, plane: str, side: int) -> Tree:
    """Internal carotid artery with siphon, middle and anterior cerebral arteries; `side` 1 lies on the image right."""
    r = rng.uniform(0.05, 0.065)
    if plane == "frontal":
        ways: tuple[Way, ...] = (
            ((0.33, 1.1), (0.3, 0.75), (0.36, 0.5), (0.22, 0.34), (0.32, 0.22), (0.26, 0.08)),
            ((0.26, 0.08), (0.45, 0.08), (0.6, 0.02), (0.66, -0.15)),
            ((0.26, 0.08), (0.08, 0.06), (0.03, -0.2), (0.05, -0.55), (0.12, -0.75)),
        )
        ways = tuple(tuple((side * u, v) for u, v in way) for way in ways)
    else:
        ways = (
            ((0.12, 1.1), (0.1, 0.7), (0.12, 0.5), (-0.12, 0.42), (-0.14, 0.28), (0.03, 0.2)),
            ((0.03, 0.2), (0.15, 0.02), (0.4, -0.1), (0.68, -0.08)),
            ((0.03, 0.2), (-0.25, 0.1), (-0.5, -0.1), (-0.45, -0.4), (-0.1, -0.55), (0.3, -0.5)),
        )
    carotid = course(ways[0], (r, r * 0.9), 0, rng)
    end, s = tuple(carotid.points[-1]), float(carotid.arrival[-1])
    mains = [carotid] + [course((end, *way[1:]), (r * 0.75, r * 0.25), s, rng) for way in ways[1:]]
    branches = branches_of(mains[1], rng, 12, 0.75, 3, 1.6) + branches_of(mains[2], rng, 8, 0.5, 2, 0.5)
    if plane == "frontal":
        sinus: Way = ((0.1 * side, -0.85), (0.02, -0.4), (0.0, 0.3), (0.3 * side, 0.45), (0.5 * side, 0.7))
    else:
        sinus = ((-0.5, -0.72), (0.0, -0.88), (0.5, -0.75), (0.85, -0.25), (0.8, 0.2), (0.4, 0.4), (0.3, 0.75))
    # Veins fill when the arteries are emptying.
    late = max(float(vessel.arrival[-1]) for vessel in branches) + 1.5
    return Tree(mains, [*branches, course(sinus, (r * 0.25, r * 0.5), late, rng)])


def leg_tree(rng: np.random.Generator, both: bool) -> Tree:
    """Femoral and popliteal artery with its three branches below the knee, in one leg or both."""
    mains, branches = [], []
    level = rng.uniform(-0.2, 0.6)
    for side in (-1, 1) if both else (int(rng.choice([-1, 1])),):
        r = rng.uniform(0.05, 0.065) * (0.85 if both else 1.05)
        middle = side * 0.48 if both else rng.uniform(-0.1, 0.1)
        trunk = course(
            ((middle - side * 0.05, -1.15), (middle - side * 0.02, -0.4), (middle - side * 0.06, level)),
            (r, r * 0.8), 0, rng,
        )  # fmt: skip
        end, s = tuple(trunk.points[-1]), float(trunk.arrival[-1])
        mains.append(trunk)
        for outwards, size in ((0.12, 0.65), (0.02, 0.55), (-0.1, 0.6)):
            way = (end, (middle + side * outwards, level + 0.25), (middle + side * outwards * 0.9, 1.15))
            calf = course(way, (r * size, r * size * 0.7), s, rng)
            mains.append(calf)
            branches += branches_of(calf, rng, 4, 0.2, 1)
        deep = course(
            ((middle - side * 0.04, -0.95), (middle + side * 0.12, -0.6), (middle + side * 0.15, 0.0)),
            (r * 0.7, r * 0.3), 0.2, rng,
        )  # fmt: skip
        branches += [deep, *branches_of(deep, rng, 4, 0.25, 1), *branches_of(trunk, rng, 6, 0.3, 2)]
    return Tree(mains, branches)


def turned(tree: Tree, angle: float, scale: tuple[float, float]) -> Tree:
    """The tree rotated (radians) and stretched along u and v, as another patient or tube angle would show it."""
    c, s = np.cos(angle), np.sin(angle)
    matrix = np.array([[c, s], [-s, c]]) * scale

    def moved(vessels: list[Vessel]) -> list[Vessel]:
        return [replace(vessel, points=vessel.points @ matrix) for vessel in vessels]

    return Tree(moved(tree.mains), moved(tree.branches))


def place_lesion(tree: Tree, finding: str, rng: np.random.Generator) -> tuple[Tree, Lesion]:
    """Narrows or widens a main vessel, where no other vessel lies over it.

    Returns:
        The tree with the lesion, and what it is.
    """
    spots = []
    everything = tree.mains + tree.branches
    for number, vessel in enumerate(tree.mains):
        others = np.concatenate([other.points[10:] for other in everything if other is not vessel])
        for i in rng.integers(len(vessel.points) // 6, 5 * len(vessel.points) // 6 + 1, 8):
            point, radius = vessel.points[i], vessel.radii[i]
            if np.abs(point).max() < 0.72:
                spots.append((float(np.hypot(*(others - point).T).min() / radius), radius, number, int(i)))
    # A grade can be told only where the vessel is wide; a clear stretch is rare, because branches leave everywhere.
    wide = [spot for spot in spots if spot[1] > 0.038] or spots
    clear = [spot for spot in wide if spot[0] > 1.8] or [max(wide)]
    _, _, number, i = clear[int(rng.integers(len(clear)))]
    vessel = tree.mains[number]
    radius = float(vessel.radii[i])
    apart = vessel.arrival - vessel.arrival[i]
    mains, branches = list(tree.mains), list(tree.branches)
    grade, place = None, vessel.points[i]
    if finding == "stenosis":
        grade = tuple(GRADES)[int(rng.integers(len(GRADES)))]
        narrowed = rng.uniform(*GRADES[grade])
        length = max(1.1 * radius, 0.045)
        profile = np.exp(-((apart / length) ** 2))
        mains[number] = replace(vessel, radii=vessel.radii * (1 - narrowed * profile))
        body = Vessel(vessel.points[i : i + 1], np.array([1.5 * length]), vessel.arrival[i : i + 1])
    elif rng.random() < 0.35:
        profile = np.exp(-((apart / (2.5 * radius)) ** 2))
        mains[number] = replace(vessel, radii=vessel.radii * (1 + rng.uniform(1.0, 1.8) * profile))
        bulge = profile > 0.1
        body = Vessel(vessel.points[bulge], mains[number].radii[bulge], vessel.arrival[bulge])
    else:
        du, dv = vessel.points[i + 1] - vessel.points[i - 1]
        outwards = rng.choice([-1, 1]) * np.array([-dv, du]) / np.hypot(du, dv)
        sac = radius * rng.uniform(1.7, 2.8)
        place = place + outwards * (radius * 0.5 + sac * 0.7)
        lobes = place + rng.normal(0, 0.25 * sac, (3, 2))
        # A sac fills late and empties late.
        body = Vessel(lobes, sac * rng.uniform(0.7, 1.0, 3), np.full(3, vessel.arrival[i] + 0.15))
        branches.append(body)
    return Tree(mains, branches), Lesion((float(place[0]), float(place[1])), finding, grade, body)


@dataclass(frozen=True)
class Field:
    """The part of the scene on the detector: pixels along a side, and centre and half side in scene units."""

    pixels: int
    centre: tuple[float, float]
    reach: float

    @property
    def grid(self) -> tuple[np.ndarray, np.ndarray]:
        """u and v (pixels, pixels) of every pixel."""
        line = ((np.arange(self.pixels, dtype=np.float32) + 0.5) / self.pixels * 2 - 1) * self.reach
        v, u = np.meshgrid(line + self.centre[1], line + self.centre[0], indexing="ij")
        return u, v

    def pixel_of(self, points: np.ndarray) -> np.ndarray:
        """Fractional (column, row) of points (n, 2)."""
        return ((points - self.centre) / self.reach + 1) / 2 * self.pixels - 0.5


def project(vessels: list[Vessel], field: Field) -> tuple[np.ndarray, np.ndarray]:
    """Length of the ray inside the vessels, and path length of the contrast there, per pixel.

    Returns:
        Thickness and arrival, both float32 (pixels, pixels) in scene units. Of vessels that overlap the thicker shows.
    """
    scale = field.pixels / (2 * field.reach)
    at = field.pixel_of(np.concatenate([vessel.points for vessel in vessels]))
    radii = np.concatenate([vessel.radii for vessel in vessels]) * scale
    arrival = np.concatenate([vessel.arrival for vessel in vessels]).astype(np.float32)
    thickness, when = np.zeros(field.pixels**2, np.float32), np.zeros(field.pixels**2, np.float32)
    reach = np.ceil(radii + 0.7).astype(int)
    near = ((at > -reach[:, None]) & (at < field.pixels - 1 + reach[:, None])).all(axis=1)
    for k in np.unique(reach[near]):
        chosen = near & (reach == k)
        points, radius = at[chosen], radii[chosen]
        corner = np.round(points).astype(int)
        offsets = np.stack(np.meshgrid(np.arange(-k, k + 1), np.arange(-k, k + 1)), axis=-1).reshape(-1, 2)
        pixels = corner[:, None] + offsets
        squared = ((pixels - points[:, None]) ** 2).sum(axis=-1)
        # A vessel thinner than a pixel still darkens one, by its share of it.
        chord = 2 * np.sqrt(np.maximum(np.maximum(radius, 0.7)[:, None] ** 2 - squared, 0))
        chord *= np.minimum(radius / 0.7, 1)[:, None] ** 2 / scale
        inside = (chord > 0) & (pixels >= 0).all(axis=-1) & (pixels < field.pixels).all(axis=-1)
        index = (pixels[..., 1] * field.pixels + pixels[..., 0])[inside]
        length = chord[inside].astype(np.float32)
        np.maximum.at(thickness, index, length)
        winner = length >= thickness[index]
        when[index[winner]] = np.broadcast_to(arrival[chosen][:, None], inside.shape)[inside][winner]
    shape = (field.pixels, field.pixels)
    return thickness.reshape(shape), when.reshape(shape)


@dataclass(frozen=True)
class Bolus:
    """Contrast injected from time 0 for `duration` s; it runs `speed` units per s, its edges last `spread` s."""

    duration: float
    speed: float
    spread: float

    def concentration(self, arrival: np.ndarray | np.floating, time: float | np.ndarray) -> np.ndarray:
        """Share of the full concentration at a time, for every path length `arrival`; they broadcast."""
        since = (time - arrival / np.float32(self.speed)) / np.float32(self.spread)
        before = np.float32(self.duration / self.spread)
        return 1 / (1 + np.exp(-np.clip(4 * since, -30, 30))) / (1 + np.exp(np.clip(2 * (since - before), -30, 30)))


def _heart_background(film: Film, rng: np.random.Generator) -> None:
    """Chest around the heart: spine, ribs, diaphragm, and the lighter lung on one side."""
    film.body((rng.uniform(0.0, 0.3), 0.15), (rng.uniform(1.0, 1.5), 1.1), 0.5, rng.uniform(0.3, 0.8))
    film.body((rng.choice([-1.1, 1.1]), -0.4), (0.7, 1.2), -0.3)
    spine = rng.uniform(-0.8, 0.6)
    film.body((spine, 0), (0.3, 3.0), 0.25, rng.uniform(-0.15, 0.15))
    for k in range(6):
        film.body((spine + 0.02 * k, -1.1 + 0.42 * k), (0.22, 0.16), 0.1, flat=0.4)
    slope = rng.uniform(0.25, 0.6)
    for k in range(4):
        v = -1.0 + 0.55 * k
        film.bone((-1.3, v - 1.3 * slope), (1.3, v + 1.3 * slope), 0.06, 0.07, 0.0)
    film.body((rng.uniform(-0.6, 0.0), 1.5), (1.1, 0.75), 0.8, flat=0.4)


def _head_background(film: Film, rng: np.random.Generator, plane: str) -> None:
    """Skull vault, base, petrous bones or jaw."""
    half = (0.78, 0.92) if plane == "frontal" else (0.98, 0.82)
    centre = (0.0, -0.05) if plane == "frontal" else (0.05, -0.12)
    film.shell(centre, half, rng.uniform(0.05, 0.09), 1.0)
    if plane == "frontal":
        for side in (-1, 1):
            film.shell((side * 0.33, 0.33), (0.24, 0.2), 0.03, 0.25)
            film.body((side * 0.5, 0.45), (0.3, 0.1), 0.5, side * 0.2)
        film.body((0, 0.85), (0.45, 0.45), 0.5)
        film.body((0, 0.55), (0.12, 0.3), -0.3)
    else:
        film.body((0.15, 0.42), (0.3, 0.14), 0.9, -0.2)
        film.body((-0.6, 0.6), (0.35, 0.4), 0.45)
        film.body((0.3, 1.0), (0.2, 0.6), 0.5)
        film.shell((-0.2, 0.33), (0.1, 0.07), 0.02, 0.3)
        for k in range(4):
            film.body((-0.75 + 0.09 * k, 0.85), (0.04, 0.06), rng.uniform(0.2, 0.9))


def _leg_background(film: Film, rng: np.random.Generator, both: bool) -> None:
    """Thigh, knee and calf bones in soft tissue."""
    for side in (-1, 1) if both else (1,):
        middle = side * 0.5 if both else 0.0
        width = 0.45 if both else 0.85
        size = 0.085 if both else 0.14
        film.body((middle, 0), (width, 3.0), 0.8, flat=0.35)
        knee = rng.uniform(0.0, 0.3)
        film.bone((middle, -1.6), (middle + 0.02, knee - size), size, 0.55, 0.5)
        film.bone((middle, knee + size * 0.6), (middle - side * 0.02, 1.7), size * 0.95, 0.55, 0.5)
        outer = middle + side * size * 1.7
        film.bone((outer, knee + size * 2), (outer, 1.7), size * 0.35, 0.3, 0.4)


def _collimator(pixels: int, rng: np.random.Generator) -> np.ndarray:
    """Mask (pixels, pixels) of what the shutters leave open: 1 inside; straight, octagonal or round, or none."""
    line = (np.arange(pixels, dtype=np.float32) + 0.5) / pixels * 2 - 1
    v, u = np.abs(line)[:, None], np.abs(line)[None, :]
    style = rng.random()
    if style < 0.4:
        return np.ones((pixels, pixels), np.float32)
    if style < 0.6:
        cut = rng.uniform(0.88, 1.0, 2)
        distance = np.minimum(cut[0] - u, cut[1] - v)
    elif style < 0.82:
        distance = np.minimum(np.minimum(0.98 - u, 0.98 - v), rng.uniform(1.5, 1.75) - u - v)
    else:
        distance = rng.uniform(0.97, 1.1) - np.hypot(u, v)
    return np.clip(distance * pixels / 4 + 0.5, 0, 1)


def acquire(
    background: np.ndarray,
    thickness: np.ndarray,
    arrival: np.ndarray,
    bolus: Bolus,
    seconds: np.ndarray,
    rng: np.random.Generator,
    subtracted: bool,
    beating: bool,
    ill: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """X-ray frames of the bolus as log attenuation (T, pixels, pixels): Poisson counts, moving anatomy, subtraction.

    Args:
        background: log attenuation of the anatomy (pixels, pixels).
        thickness: length of the rays in vessels, arrival: path length of the contrast there, both (pixels, pixels).
        subtracted: whether a mask taken before the contrast is subtracted; motion since then leaves bright and dark
            edges. Motion is below a pixel, so that displacement times gradient describes it.
        beating: whether the vessels move with the heart.
        ill: share of each pixel that a lesion of the vessels covers at rest (pixels, pixels).

    Returns:
        The frames, and `ill` in every one of them, both float32 (T, pixels, pixels).
    """
    side = len(background)
    counts = np.exp(rng.uniform(np.log(300), np.log(4000)))
    iodine = np.float32(rng.uniform(7, 13))
    focus = rng.uniform(0.4, 0.8)
    slope = np.gradient(background)
    drift = rng.normal(0, 0.35, 2) if subtracted else rng.normal(0, 0.15, 2)
    stain = ndimage.gaussian_filter((thickness > 0).astype(np.float32), side / 14) * np.float32(rng.uniform(0.05, 0.25))
    stain_at = np.float32(np.percentile(arrival[thickness > 0], 90) if (thickness > 0).any() else 1.0)
    rows, columns = np.mgrid[:side, :side].astype(np.float32)
    swing = rng.normal(0, 0.022 * side, 2)
    twist, rate = rng.normal(0, 0.05), rng.uniform(0.9, 1.5)
    mask = background + np.float32(0.5) * rng.standard_normal(background.shape, dtype=np.float32) / np.sqrt(
        counts * np.exp(-background)
    ).astype(np.float32)
    frames, covers = [], []
    for time in seconds:
        depth, when, cover = thickness, arrival, ill
        if beating and len(seconds) > 1:
            phase = np.float32(np.sin(2 * np.pi * rate * time))
            at = np.stack(
                [
                    rows + phase * (swing[0] + twist * (columns - side / 2)),
                    columns + phase * (swing[1] - twist * (rows - side / 2)),
                ]
            ).astype(np.float32)
            depth, when, cover = (
                ndimage.map_coordinates(still, at, order=1, mode="nearest") for still in (thickness, arrival, ill)
            )
        filled = ndimage.gaussian_filter(iodine * depth * bolus.concentration(when, time), focus)
        filled += stain * bolus.concentration(stain_at, time - 0.6)
        moved = drift * (np.sin(0.9 * time + drift[0] * 9) if len(seconds) > 1 else 1)
        expected = background + moved[0] * slope[0] + moved[1] * slope[1] + filled
        measured = rng.poisson(counts * np.exp(-expected))
        live = -np.log((measured + 0.5) / counts)
        frames.append(live - mask if subtracted else live)
        covers.append(cover)
    return np.stack(frames).astype(np.float32), np.stack(covers).astype(np.float32)


def _display(logs: np.ndarray, background: np.ndarray, subtracted: bool, rng: np.random.Generator) -> np.ndarray:
    """Log attenuation (T, pixels, pixels) as uint8 frames: contrast dark on grey, more rarely white on black."""
    if rng.random() < 0.5:
        logs = ndimage.gaussian_filter(logs, (0, 0.5, 0.5))
    if subtracted:
        landmarks = rng.uniform(0.05, 0.2) if rng.random() < 0.3 else 0.0
        shade = (logs + landmarks * (background - background.mean())) / rng.uniform(0.7, 1.1)
        level = rng.uniform(0.62, 0.95) - shade * rng.uniform(0.6, 0.9)
        if rng.random() < 0.2:
            level = 1 - level
    else:
        low, high = np.percentile(logs, (rng.uniform(0.2, 2), rng.uniform(99.3, 99.9)))
        level = np.clip(1 - (logs - low) / (high - low), 0, 1) ** rng.uniform(0.8, 1.5)
        level = level * rng.uniform(0.75, 1.0) + rng.uniform(0, 0.1)
    return grey(level)


def _marks(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Text of the X-ray machine, the same on every uint8 frame (T, H, W, 3)."""
    if rng.random() < 0.6:
        return frames
    side = frames.shape[1]
    double = resize(frames, (2 * side, 2 * side))
    tone = int(rng.integers(150, 255))
    seed = int(rng.integers(2**63))
    for t, frame in enumerate(double):
        text = np.random.default_rng(seed)
        picture = Image.fromarray(frame)
        draw = ImageDraw.Draw(picture)
        for corner in range(4):
            if text.random() < 0.6:
                x, y = (4, 1.55 * side)[corner % 2], (4, 1.8 * side)[corner // 2]
                for line in range(int(text.integers(1, 3))):
                    annotate(draw, (x, y + 11 * line), text, (tone,) * 3)
        double[t] = np.asarray(picture)
    return resize(double, (side, side))


def _times(kind: str, bolus: Bolus, transit: float, rng: np.random.Generator) -> tuple[np.ndarray, str]:
    """Seconds after the injection of every frame, and what the contrast does between the first and the last."""
    if kind == "image":
        return np.array([rng.uniform(transit, max(bolus.duration, 1.05 * transit))]), ""
    motion = ("contrast arriving", "contrast washing out", "contrast arriving and washing out")[int(rng.integers(3))]
    empty_again = bolus.duration + transit + 2.5 * bolus.spread
    first = -2 * bolus.spread if "arriving" in motion else 0.5 * (transit + bolus.duration)
    last = empty_again if "out" in motion else transit + bolus.spread
    return np.linspace(first, last, int(rng.integers(8, 17))), motion


def generate(kind: str, rng: np.random.Generator) -> Sample:
    """One frame ("image") or an angiographic run ("video")."""
    region = ("heart", "brain", "leg")[int(rng.choice(3, p=[0.4, 0.35, 0.25]))]
    plane = "lateral" if region == "brain" and rng.random() < 0.5 else "frontal"
    side = int(rng.choice([-1, 1]))
    both = bool(rng.random() < 0.5)
    if region == "heart":
        tree = coronary_tree(rng)
    elif region == "brain":
        tree = cerebral_tree(rng, plane, side)
    else:
        tree = leg_tree(rng, both)
    spread = {"heart": 0.3, "brain": 0.08, "leg": 0.03}[region]
    stretch = rng.uniform(0.85, 1.12, 2)
    tree = turned(tree, rng.normal(0, spread), (float(stretch[0]), float(stretch[1])))
    lesion = None
    if rng.random() < 0.5:
        aneurysm = rng.random() < {"heart": 0.0, "brain": 0.65, "leg": 0.35}[region]
        tree, lesion = place_lesion(tree, "aneurysm" if aneurysm else "stenosis", rng)
    subtracted = region != "heart" and rng.random() < 0.75

    close = rng.random() < 0.3
    reach = float(rng.uniform(0.5, 0.75) if close else rng.uniform(0.88, 1.05))
    focus = np.array([0.0, 0.0])
    if close:
        main = tree.mains[int(rng.integers(len(tree.mains)))]
        target = lesion.place if lesion else main.points[len(main.points) // 2]
        focus = np.clip(np.asarray(target) + rng.uniform(-0.5, 0.5, 2) * reach, -0.4, 0.4)
    field = Field(int(rng.integers(112, 150)), (float(focus[0]), float(focus[1])), reach)
    thickness, arrival = project(tree.mains + tree.branches, field)
    ill = np.zeros_like(thickness)
    if lesion:
        ill = (project([lesion.body], field)[0] > 0).astype(np.float32)
    film = Film(*field.grid)
    if region == "heart":
        _heart_background(film, rng)
        film.bone((rng.uniform(-0.3, 0.3), -1.3), tuple(tree.mains[0].points[0]), 0.022, rng.uniform(0.2, 0.4), 0.0)
    elif region == "brain":
        _head_background(film, rng, plane)
    else:
        _leg_background(film, rng, both)
    film.density += np.float32(0.04) * smooth_noise(film.u.shape, rng, 6)
    background = np.maximum(film.density, 0) * np.float32(rng.uniform(0.7, 1.3))

    arteries = float(max(vessel.arrival[-1] for vessel in tree.mains))
    transit = rng.uniform(0.7, 1.6) * (2 if region == "leg" else 1)
    bolus = Bolus(transit * rng.uniform(1.3, 2.2), arteries / transit, transit * rng.uniform(0.2, 0.35))
    seconds, motion = _times(kind, bolus, transit, rng)
    logs, cover = acquire(background, thickness, arrival, bolus, seconds, rng, subtracted, region == "heart", ill)
    frames = _display(logs, background, subtracted, rng)
    opening = _collimator(field.pixels, rng)
    frames = (frames * opening[..., None] + (0 if rng.random() < 0.8 else 235) * (1 - opening[..., None])).astype(
        np.uint8
    )
    frames, scale = fit(_marks(frames, rng), rng)
    if rng.random() < 0.4:
        frames = jpeg(frames, int(rng.integers(40, 92)))

    facts = {"modality": "angiography", "region": region, "lesion": "yes" if lesion else "no"}
    if region != "heart":
        facts["plane"] = plane
    if motion:
        facts["motion"] = motion
    lesions = None
    if lesion:
        # A lesion of a vessel is seen only while there is contrast in it.
        seen = bolus.concentration(lesion.body.arrival.mean(), seconds) > 0.3
        lesions = lesion_map(cover * opening * seen[:, None, None], scale)
        facts["finding"] = lesion.finding
        if lesion.grade:
            facts |= {"severity": lesion.grade, "graded": "the stenosis"}
        # Seen from the front, image right is the patient's left.
        if plane == "frontal" and not close and (region == "brain" or (region == "leg" and both)):
            facts["side"] = "left" if lesion.place[0] > 0 else "right"
        right, down = (np.asarray(lesion.place) - focus) / (2 * reach)
        facts |= quadrant(float(down), float(right))
    return Sample(frames, kind, seconds - seconds[0], (0.0, 0.0), facts, lesions)
