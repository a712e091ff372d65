# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Mammography phantoms: a compressed breast of fat and gland under 20 keV X-rays, with masses and microcalcifications.

Lengths are in mm: `out` runs from the chest wall towards the nipple, `up` along the chest wall. Views hang as usual: a
left breast has its chest wall on the image left, a right breast on the image right.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from .geometry import SIZE, annotate, fit, grey, jpeg, lesion_map, quadrant, resize, smooth_noise
from .sample import Sample

FAT, GLAND, CALCIUM = 0.0456, 0.0802, 2.0
"""Attenuation per mm at 20 keV: fat and gland by Johns and Yaffe (Phys. Med. Biol. 32, 1987); calcium salts about."""
DENSITIES = {"a": (0.03, 0.17), "b": (0.28, 0.45), "c": (0.54, 0.7), "d": (0.8, 0.95)}
"""Share of the breast's area that is dense, per BI-RADS density: the quartiles of the atlas's 4th edition (2003), less
what lies near a limit. The 5th edition keeps the four classes and judges them by eye."""
SPECTRAL_SLOPE = (2.6, 3.2)
"""Range of the exponent of mammographic texture's power spectrum, 1 / f^slope (Burgess et al., Med. Phys. 28, 2001)."""


@dataclass(frozen=True)
class Breast:
    """A breast on a pixel grid, chest wall at column 0; all maps float32 (rows, columns).

    Attributes:
        inside: 1 in the breast (skin included), 0 in air, soft at the skin.
        depth: mm to the skin, 0 outside.
        muscle: share of the ray that runs through the pectoral muscle, 0 in a craniocaudal view.
        nipple: row and column of the nipple.
        pixel: mm per pixel.
    """

    inside: np.ndarray
    depth: np.ndarray
    muscle: np.ndarray
    nipple: tuple[float, float]
    pixel: float


def shape_breast(view: str, pixel: float, rng: np.random.Generator) -> Breast:
    """Outline of a breast in a "craniocaudal" or "mediolateral oblique" view, nipple drawn out, air around."""
    reach, half = rng.uniform(55, 115), rng.uniform(60, 105)
    oblique = view == "mediolateral oblique"
    above, below = (half * rng.uniform(1.1, 1.4), half * rng.uniform(0.7, 0.9)) if oblique else (half, half)
    air = rng.uniform(4, 45)
    rows = round((above + below + rng.uniform(2, 12)) / pixel)
    columns = round((reach + 6 + air) / pixel)
    up = ((above + below) / 2 + (above - below) / 2 - (np.arange(rows, dtype=np.float32) + 0.5) * pixel)[:, None] + 1
    out = ((np.arange(columns, dtype=np.float32) + 0.5) * pixel)[None, :]
    # A drooping breast in the oblique view: the upper outline is nearly straight, the lower one full.
    span = np.where(up > 0, above, below)
    fullness = np.where(up > 0, rng.uniform(1.2, 1.6) if oblique else 2.0, rng.uniform(2.0, 2.8))
    profile = np.maximum(1 - np.minimum(np.abs(up) / span, 1) ** fullness, 0) ** rng.uniform(0.5, 0.62)
    if oblique:
        profile = profile + 0.14 * np.clip(up / above, 0, 1)
    edge = reach * profile + 5 * np.exp(-((up / 5) ** 2)) + 0.8 * smooth_noise((rows, 1), rng, (14, 1))
    inside = np.clip((edge - out) / pixel + 0.5, 0, 1)
    depth = ndimage.distance_transform_edt(np.pad(inside > 0.5, ((1, 1), (1, 0)), mode="edge"))[1:-1, 1:] * pixel
    muscle = np.zeros_like(inside)
    if oblique:
        width, length = reach * rng.uniform(0.35, 0.65), above * rng.uniform(0.75, 1.15)
        along = (above - up) / length
        line = width * (1 - along) * (1 + rng.uniform(-0.1, 0.35) * along)
        muscle = np.clip((line - out) / rng.uniform(5, 14) + 0.5, 0, 1) * (along < 1)
    row = float(np.argmin(np.abs(up[:, 0])))
    return Breast(
        inside.astype(np.float32), depth.astype(np.float32), muscle.astype(np.float32),
        (row, float(reach / pixel)), pixel,
    )  # fmt: skip


def power_law_noise(shape: tuple[int, int], slope: float, rng: np.random.Generator) -> np.ndarray:
    """Unit-variance noise (rows, columns) with a power spectrum of 1 / f^slope, as fibroglandular tissue has."""
    frequency = np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None, :])
    frequency[0, 0] = 1 / max(shape)
    spectrum = np.fft.rfft2(rng.standard_normal(shape)) * frequency ** (-slope / 2)
    spectrum[0, 0] = 0
    noise = np.fft.irfft2(spectrum, s=shape)
    return (noise / noise.std()).astype(np.float32)


def glandular(breast: Breast, share: float, rng: np.random.Generator) -> np.ndarray:
    """Gland's share of every ray (rows, columns), such that above half of it lies on `share` of the breast's area.

    Gland gathers in a disc behind the nipple and its strands run towards the nipple; fat lies under the skin.
    """
    rows, columns = breast.inside.shape
    row, column = np.mgrid[:rows, :columns].astype(np.float32)
    down, back = row - breast.nipple[0], breast.nipple[1] - column
    distance = np.hypot(down, back) * breast.pixel
    texture = power_law_noise((rows, columns), rng.uniform(*SPECTRAL_SLOPE), rng)
    # Strands: noise that is long along lines through the nipple, read in polar coordinates around it.
    polar = smooth_noise((64, 96), rng, (2.0, 14.0))
    angle = (np.arctan2(down, back + 1e-3) / np.pi + 0.5) * 63
    strands = ndimage.map_coordinates(polar, np.stack([angle, np.minimum(distance / 1.6, 95)]), order=1, mode="nearest")
    reach = breast.nipple[1] * breast.pixel
    disc = -(((distance - 0.42 * reach) / (0.5 * reach)) ** 2)
    under_skin = -3 * np.exp(-breast.depth / 5)
    score = texture + 0.45 * strands + 0.9 * disc + under_skin - 4 * breast.muscle
    threshold = np.quantile(score[breast.inside > 0.5], 1 - share)
    # Gland is sharper against fat where there is little of it.
    return 1 / (1 + np.exp(-np.clip((score - threshold) * rng.uniform(1.4, 2.8), -30, 30)))


def add_mass(
    thickness: np.ndarray, centre: tuple[float, float], radius: float, pixel: float, spiculated: bool,
    rng: np.random.Generator,
) -> np.ndarray:  # fmt: skip
    """Adds a mass of `radius` mm to the length of rays in gland (rows, columns; mm), at a centre (row, column).

    A spiculated one has an uneven core and thin strands into the tissue around; the core is what is measured.

    Returns:
        Where the core is, bool (rows, columns); its greatest diameter is twice the radius.
    """
    rows, columns = thickness.shape
    row, column = np.mgrid[:rows, :columns].astype(np.float32)
    down, right = (row - centre[0]) * pixel, (column - centre[1]) * pixel
    turn, squeeze = rng.uniform(0, np.pi), rng.uniform(0.75, 1.0)
    c, s = np.cos(turn), np.sin(turn)
    distance = np.hypot(down * c + right * s, (right * c - down * s) / squeeze) / radius
    angle = np.arctan2(down, right)
    lobes = 1 + (0.12 if spiculated else 0.03) * np.cos(int(rng.integers(3, 7)) * angle + rng.uniform(0, 6.28))
    # Lobes only dent the outline, so that the greatest diameter stays.
    distance = distance * np.maximum(lobes, 1)
    core = np.sqrt(np.maximum(1 - distance**2, 0))
    if not spiculated:
        core += 0.3 * np.clip((1 - distance) * radius / pixel + 0.5, 0, 1)
    thickness += np.float32(rng.uniform(0.7, 1.0) * min(2 * radius, 18)) * core
    if spiculated:
        for direction in rng.uniform(0, 2 * np.pi, int(rng.integers(9, 16))):
            du, dv = np.cos(direction), np.sin(direction)
            along, across = right * du + down * dv, np.abs(down * du - right * dv)
            length = radius * rng.uniform(1.6, 2.8)
            fade = np.clip(1 - along / length, 0, 1) * (along > 0)
            thickness += np.float32(rng.uniform(4, 8)) * fade * np.exp(-((across / 0.9) ** 2))
    return distance < 1


def add_calcifications(
    calcium: np.ndarray, centre: tuple[float, float], pixel: float, rng: np.random.Generator
) -> None:
    """Adds a cluster of 10 to 24 grains of 0.5 to 1.3 mm within about 10 mm to the ray length in calcium (mm)."""
    rows, columns = calcium.shape
    for _ in range(int(rng.integers(10, 25))):
        at = np.array(centre) + rng.normal(0, 3.2, 2) / pixel
        size = rng.uniform(0.5, 1.3)
        low = np.floor(at).astype(int)
        part = at - low
        # The grain's volume, shared by the four pixels around it.
        volume = np.pi / 6 * size**3 / pixel**2
        for r, c in ((0, 0), (0, 1), (1, 0), (1, 1)):
            weight = (part[0] if r else 1 - part[0]) * (part[1] if c else 1 - part[1])
            if 0 <= low[0] + r < rows and 0 <= low[1] + c < columns:
                calcium[low[0] + r, low[1] + c] += volume * weight


def free_place(
    breast: Breast, margin: float, rng: np.random.Generator, taken: list[tuple[float, float]]
) -> tuple[float, float] | None:
    """A pixel (row, column) over `margin` mm deep in the breast, clear of muscle, border and others, or None."""
    gap = margin / breast.pixel
    rows, columns = breast.inside.shape
    row, column = np.ogrid[:rows, :columns]
    free = (breast.depth > margin + 3) & (breast.muscle < 0.05)
    free &= (row > gap) & (row < rows - gap) & (column > gap)
    for other in taken:
        free &= np.hypot(row - other[0], column - other[1]) > 2.6 * gap
    found = np.flatnonzero(free)
    if not len(found):
        return None
    index = int(found[rng.integers(len(found))])
    return float(index // columns), float(index % columns)


def expose(
    breast: Breast, gland: np.ndarray, calcium: np.ndarray, thickness: float, rng: np.random.Generator
) -> np.ndarray:
    """Log attenuation (rows, columns) of the compressed breast, with Poisson noise and some thickness equalisation.

    Args:
        gland, calcium: mm of every ray in gland (or muscle, skin, mass) and in calcium salts.
        thickness: mm between the compression plates; towards the skin the breast rounds off over half of it.
    """
    rounding = np.clip(breast.depth / (0.5 * thickness), 0, 1)
    path = thickness * np.sqrt(1 - (1 - rounding) ** 2) * breast.inside
    expected = FAT * path + (GLAND - FAT) * np.minimum(gland, path) + CALCIUM * calcium
    expected = ndimage.gaussian_filter(expected, rng.uniform(0.2, 0.6))
    counts = np.exp(rng.uniform(np.log(2e4), np.log(3e5)))
    measured = -np.log((rng.poisson(counts * np.exp(-expected)) + 0.5) / counts)
    equalised = rng.uniform(0.6, 1.0) * FAT * (thickness * breast.inside - path)
    return measured + equalised


def _display(logs: np.ndarray, inside: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Log attenuation as one uint8 frame (1, rows, columns, 3): dense is white; film is greyer than digital."""
    # Mammograms are sharpened, for calcifications; not across the skin, which would get a halo.
    soft = ndimage.gaussian_filter(logs * inside, 3) / np.maximum(ndimage.gaussian_filter(inside, 3), 1e-3)
    logs = logs + rng.uniform(0, 0.8) * inside * (logs - soft)
    tissue = logs[inside > 0.9]
    low, high = np.percentile(tissue, (rng.uniform(0.5, 3), rng.uniform(99.7, 99.95)))
    low -= (high - low) * rng.uniform(0.1, 0.45)
    level = np.clip((logs - low) / (high - low), 0, 1) ** rng.uniform(0.8, 1.5)
    if rng.random() < 0.3:
        level = rng.uniform(0.03, 0.15) + level * rng.uniform(0.7, 0.85)
        level += rng.normal(0, rng.uniform(0.005, 0.02), level.shape)
    return grey(level)[None]


def _marks(frames: np.ndarray, side: str, view: str, rng: np.random.Generator) -> np.ndarray:
    """Side and view letters in the air at the top, and text of the machine, on a uint8 frame (1, rows, columns, 3)."""
    if rng.random() < 0.35:
        return frames
    rows, columns = frames.shape[1:3]
    picture = Image.fromarray(resize(frames, (2 * rows, 2 * columns))[0])
    draw = ImageDraw.Draw(picture)
    short = "CC" if view == "craniocaudal" else "MLO"
    label = f"{side[0].upper()}{rng.choice([' ', '-', chr(10), ''])}{short}"
    size = int(rng.integers(14, 28))
    left, _, right, bottom = draw.multiline_textbbox((0, 0), label, font_size=size)
    x = 2 * columns - (right - left) - rng.uniform(4, 12) if side == "left" else rng.uniform(4, 12)
    y = 2 * rows * rng.uniform(0.02, 0.12)
    tone = int(rng.integers(170, 256))
    draw.multiline_text((x, y), label, fill=(tone,) * 3, font_size=size)
    if rng.random() < 0.3:
        draw.rectangle([x - 3, y - 2, x + right - left + 3, y + bottom + 3], outline=(tone,) * 3)
    if rng.random() < 0.2:
        annotate(draw, (2 * columns - 50 if side == "left" else 4, 2 * rows - 16), rng, (tone,) * 3)
    return resize(np.asarray(picture)[None], (rows, columns))


def _add_lesions(
    breast: Breast, gland: np.ndarray, calcium: np.ndarray, rng: np.random.Generator
) -> tuple[dict[str, str], tuple[float, float] | None, np.ndarray]:
    """Adds one to three masses to the rays in gland, or a cluster of grains to those in calcium (mm, in place).

    Returns:
        Their facts, the pixel (row, column) of a lesion that is the only one, and where they lie, bool (rows, columns):
        the masses without the strands around them, the cluster with the tissue between its grains.
    """
    where = np.zeros(gland.shape, bool)
    if rng.random() < 0.4:
        centre = free_place(breast, 12, rng, [])
        if centre is None:
            return {"lesion": "no"}, None, where
        add_calcifications(calcium, centre, breast.pixel, rng)
        where = ndimage.distance_transform_edt(calcium == 0) * breast.pixel < 3
        return {"lesion": "yes", "finding": "microcalcifications"}, centre, where
    wanted = int(rng.choice(3, p=[0.75, 0.15, 0.1])) + 1
    spiculated = bool(rng.random() < 0.5)
    masses: list[tuple[tuple[float, float], float]] = []
    for _ in range(wanted):
        radius = float(rng.uniform(6, 14) if wanted == 1 else rng.uniform(6, 9))
        centre = free_place(breast, radius * (2 if spiculated else 1.2), rng, [place for place, _ in masses])
        if centre:
            where |= add_mass(gland, centre, radius, breast.pixel, spiculated, rng)
            masses.append((centre, radius))
    if not masses:
        return {"lesion": "no"}, None, where
    facts = {"lesion": "yes", "finding": "mass", "count": str(len(masses)), "counted": "masses"}
    if len(masses) > 1:
        return facts, None, where
    centre, radius = masses[0]
    return facts | {"size": f"{2 * radius:.0f} mm", "measured": "the mass"}, centre, where


def generate(kind: str, rng: np.random.Generator) -> Sample:
    """One mammogram."""
    view = ("craniocaudal", "mediolateral oblique")[int(rng.integers(2))]
    side = ("left", "right")[int(rng.integers(2))]
    density = tuple(DENSITIES)[int(rng.choice(4, p=[0.2, 0.3, 0.3, 0.2]))]
    breast = shape_breast(view, float(rng.uniform(0.95, 1.35)), rng)
    thickness = float(rng.uniform(38, 65))
    share = glandular(breast, float(rng.uniform(*DENSITIES[density])), rng)
    lumps = 1 + np.float32(0.12) * np.clip(power_law_noise(share.shape, rng.uniform(*SPECTRAL_SLOPE), rng), -3, 3)
    gland = share * lumps * np.float32(thickness * rng.uniform(0.5, 0.7)) * breast.inside
    muscle = breast.muscle * (0.85 + 0.15 * np.clip(lumps, 0, 2))
    gland += muscle * np.float32(thickness * rng.uniform(0.5, 0.75))
    # Rays run far through skin where they graze it.
    gland += np.float32(rng.uniform(4, 9)) * (breast.depth > 0) * np.exp(-((breast.depth / 1.6) ** 2))
    for _ in range(int(rng.integers(1, 4))):
        vessel = np.abs(smooth_noise(gland.shape, rng, (40, 55)) - rng.uniform(-1, 1))
        gland += np.float32(rng.uniform(0.8, 2)) * np.clip(1 - vessel * 18, 0, 1) * (breast.depth > 4)
    calcium = np.zeros_like(gland)

    facts = {"modality": "mammography", "region": "breast", "plane": view, "side": side}
    facts |= {"severity": density, "graded": "the breast density"}
    found, centre, where = {"lesion": "no"}, None, None
    if rng.random() < 0.5:
        found, centre, where = _add_lesions(breast, gland, calcium, rng)
    facts |= found
    frames = _display(expose(breast, gland, calcium, thickness, rng), breast.inside, rng)
    rows, columns = gland.shape
    if side == "right":
        frames = frames[:, :, ::-1]
    frames = _marks(np.ascontiguousarray(frames), side, view, rng)
    frames, scale = fit(frames, rng, squash=0.45)
    if rng.random() < 0.4:
        frames = jpeg(frames, int(rng.integers(45, 92)))
    if centre:
        out = (centre[1] + 0.5 - columns / 2) * (1 if side == "left" else -1)
        facts |= quadrant((centre[0] + 0.5 - rows / 2) / scale[0] / SIZE, out / scale[1] / SIZE)
    lesions = None
    if facts["lesion"] == "yes" and where is not None:
        lesions = lesion_map((where if side == "left" else where[:, ::-1])[None], scale)
    return Sample(frames, kind, np.zeros(1), (breast.pixel * scale[0], breast.pixel * scale[1]), facts, lesions)
