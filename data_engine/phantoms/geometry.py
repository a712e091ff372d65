# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Geometry, noise and display helpers shared by the phantoms: patient-space grids, soft solids, textures, resizing."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageDraw

from .sample import LESION_GRID

SIZE = 112
"""Rows and columns of every finished frame, in pixels."""

Range = tuple[float, float]
Point = tuple[float, float, float]


def patient_grid(
    shape: tuple[int, int],
    extent: tuple[float, float],
    centre: Point,
    offsets: np.ndarray,
    plane: str = "axial",
    angle: float = 0.0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Patient coordinates (LPS, mm) of every pixel of parallel slices, in radiological display order.

    Args:
        shape: rows and columns of a slice.
        extent: height and width of the field of view, mm.
        centre: patient point in the middle of the slice with offset 0, mm.
        offsets: (slices,) distances along the slice normal, mm.
        plane: "axial" (anterior up), "coronal" (superior up) or "sagittal" (anterior on the left).
        angle: in-plane rotation, radians.

    Returns:
        x (to patient left), y (posterior), z (superior), each float32 (slices, rows, columns).
    """
    rows = ((np.arange(shape[0]) + 0.5) / shape[0] - 0.5) * extent[0]
    columns = ((np.arange(shape[1]) + 0.5) / shape[1] - 0.5) * extent[1]
    down = (rows[:, None] * np.cos(angle) + columns[None, :] * np.sin(angle)).astype(np.float32)[None]
    right = (columns[None, :] * np.cos(angle) - rows[:, None] * np.sin(angle)).astype(np.float32)[None]
    normal = np.asarray(offsets, np.float32)[:, None, None]
    cx, cy, cz = centre
    if plane == "axial":
        axes = (cx + right, cy + down, cz + normal)
    elif plane == "coronal":
        axes = (cx + right, cy + normal, cz - down)
    else:
        axes = (cx + normal, cy + right, cz - down)
    full = (len(normal), *shape)
    x, y, z = (np.broadcast_to(axis.astype(np.float32), full) for axis in axes)
    return x, y, z


def warp(
    x: np.ndarray, y: np.ndarray, z: np.ndarray, rng: np.random.Generator, amplitude: float, wavelength: float
) -> tuple[np.ndarray, np.ndarray]:
    """Bends x and y (mm) by smooth waves of the patient position, so that no organ is a perfect ellipse."""
    frequency = 2 * np.pi / wavelength
    phases = rng.uniform(0, 2 * np.pi, 4)
    tilt = rng.uniform(0.6, 1.4, 4) * frequency
    a, b = amplitude * rng.uniform(0.4, 1.0, 2)
    bent_x = x + a * (np.sin(y * tilt[0] + z * frequency * 0.5 + phases[0]) + 0.5 * np.sin(x * tilt[1] + phases[1]))
    bent_y = y + b * (np.sin(x * tilt[2] - z * frequency * 0.5 + phases[2]) + 0.5 * np.sin(y * tilt[3] + phases[3]))
    return bent_x.astype(np.float32), bent_y.astype(np.float32)


class Scene:
    """Tissue values on a patient grid, painted solid by solid, later ones on top.

    Edges are soft over `edge` mm: the partial volume of a pixel that two tissues share.
    """

    def __init__(self, x: np.ndarray, y: np.ndarray, z: np.ndarray, background: float, edge: float) -> None:
        self.x, self.y, self.z = x, y, z
        self.edge = edge
        self.z_range = (float(z.min()), float(z.max()))
        self.values = np.full(x.shape, background, np.float32)

    def radius(self, centre: Point, radii: Point, angle: float = 0.0, power: float = 2.0) -> np.ndarray:
        """Normalised distance (slices, rows, columns) from an ellipsoid's centre: 1 on its surface."""
        dx, dy = self.x - np.float32(centre[0]), self.y - np.float32(centre[1])
        if angle:
            c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
            dx, dy = dx * c + dy * s, dy * c - dx * s
        if power == 2.0:
            total = (dx / np.float32(radii[0])) ** 2 + (dy / np.float32(radii[1])) ** 2
            if np.isfinite(radii[2]):
                total = total + ((self.z - np.float32(centre[2])) / np.float32(radii[2])) ** 2
            return np.sqrt(total)
        total = np.abs(dx / np.float32(radii[0])) ** power + np.abs(dy / np.float32(radii[1])) ** power
        if np.isfinite(radii[2]):
            total = total + np.abs((self.z - np.float32(centre[2])) / np.float32(radii[2])) ** power
        return total ** np.float32(1 / power)

    def coverage(self, centre: Point, radii: Point, angle: float = 0.0, power: float = 2.0) -> np.ndarray:
        """Share of each pixel, 0 to 1, that lies inside an ellipsoid (a box with round corners for a power above 2)."""
        distance = (1 - self.radius(centre, radii, angle, power)) * np.float32(min(radii[:2]) / self.edge)
        return np.clip(distance + np.float32(0.5), 0, 1)

    def paint(self, coverage: np.ndarray, value: float | np.ndarray) -> None:
        """Mixes `value` into the scene by `coverage`, both broadcastable to (slices, rows, columns)."""
        self.values += coverage * (np.asarray(value, np.float32) - self.values)

    def solid(
        self, centre: Point, radii: Point, value: float | np.ndarray, angle: float = 0.0, power: float = 2.0
    ) -> None:
        """Paints an ellipsoid; one that no slice meets is skipped."""
        low, high = self.z_range
        if np.isfinite(radii[2]) and (centre[2] - radii[2] > high or centre[2] + radii[2] < low):
            return
        self.paint(self.coverage(centre, radii, angle, power), value)

    def rod(self, start: Point, end: Point, radius: float, value: float | np.ndarray) -> None:
        """Paints a round rod between two patient points (mm)."""
        low, high = self.z_range
        if min(start[2], end[2]) - radius > high or max(start[2], end[2]) + radius < low:
            return
        a, b = np.asarray(start, np.float32), np.asarray(end, np.float32)
        axis = b - a
        px, py, pz = self.x - a[0], self.y - a[1], self.z - a[2]
        along = np.clip((px * axis[0] + py * axis[1] + pz * axis[2]) / max(float(axis @ axis), 1e-6), 0, 1)
        squared = (px - along * axis[0]) ** 2 + (py - along * axis[1]) ** 2 + (pz - along * axis[2]) ** 2
        self.paint(np.clip((radius - np.sqrt(squared)) / self.edge + 0.5, 0, 1), value)


def smooth_noise(shape: tuple[int, ...], rng: np.random.Generator, scale: float | Range) -> np.ndarray:
    """Unit-variance noise (rows, columns) or (slices, rows, columns) whose grains are about `scale` pixels wide.

    `scale` is one number or (rows, columns). Slices are interpolated between coarse ones, so noise is smooth through z.
    """
    row_scale, column_scale = (scale, scale) if isinstance(scale, (int, float)) else scale
    rows, columns = shape[-2:]
    coarse = (max(2, round(rows / row_scale) + 1), max(2, round(columns / column_scale) + 1))
    if len(shape) == 2:
        grain = rng.standard_normal(coarse).astype(np.float32)
        noise = np.asarray(Image.fromarray(grain).resize((columns, rows), Image.Resampling.BICUBIC))
    else:
        knots = max(2, shape[0] // 3 + 1) if shape[0] > 1 else 1
        layers = np.stack([smooth_noise(shape[1:], rng, (row_scale, column_scale)) for _ in range(knots)])
        where = np.linspace(0, knots - 1, shape[0])
        lower = np.minimum(where.astype(int), max(knots - 2, 0))
        part = (where - lower).astype(np.float32)[:, None, None]
        noise = layers[lower] * (1 - part) + layers[np.minimum(lower + 1, knots - 1)] * part
    return noise / max(float(noise.std()), 1e-6)


def grey(values: np.ndarray) -> np.ndarray:
    """Values in 0 to 1 (...) as uint8 grey (..., 3)."""
    return np.repeat(np.round(np.clip(values, 0, 1) * 255).astype(np.uint8)[..., None], 3, axis=-1)


def resize(frames: np.ndarray, shape: tuple[int, int], rng: np.random.Generator | None = None) -> np.ndarray:
    """Resizes uint8 frames (T, H, W, 3) to (T, *shape, 3); with `rng` the filter is a random one of three."""
    if frames.shape[1:3] == shape:
        return frames
    filters = (Image.Resampling.BICUBIC, Image.Resampling.BILINEAR, Image.Resampling.LANCZOS)
    method = filters[int(rng.integers(3))] if rng is not None else filters[0]
    return np.stack([np.asarray(Image.fromarray(frame).resize(shape[::-1], method)) for frame in frames])


def jpeg(frames: np.ndarray, quality: int) -> np.ndarray:
    """uint8 frames (T, H, W, 3) after a JPEG round trip: blocks and colour bleeding as in exported teaching files."""
    result = []
    for frame in frames:
        buffer = io.BytesIO()
        Image.fromarray(frame).save(buffer, "JPEG", quality=quality)
        result.append(np.asarray(Image.open(buffer)))
    return np.stack(result)


def fit(frames: np.ndarray, rng: np.random.Generator, squash: float = 0.6) -> tuple[np.ndarray, tuple[float, float]]:
    """Brings uint8 frames (T, H, W, 3) to SIZE × SIZE: squashed with probability `squash`, else letterboxed on black.

    Returns:
        The frames, and how many source pixels one finished pixel spans along rows and columns.
    """
    height, width = frames.shape[1:3]
    if rng.random() < squash:
        return resize(frames, (SIZE, SIZE), rng), (height / SIZE, width / SIZE)
    scale = SIZE / max(height, width)
    rows, columns = max(1, round(height * scale)), max(1, round(width * scale))
    inner = resize(frames, (rows, columns), rng)
    result = np.zeros((len(frames), SIZE, SIZE, 3), np.uint8)
    top, left = (SIZE - rows) // 2, (SIZE - columns) // 2
    result[:, top : top + rows, left : left + columns] = inner
    return result, (height / rows, width / columns)


def fit_cover(cover: np.ndarray, scale: tuple[float, float]) -> np.ndarray:
    """What `fit` did to frames, done to what a mask of them covers: float (T, H, W) in 0 to 1 to (T, SIZE, SIZE).

    Args:
        scale: acquired pixels per finished pixel along rows and columns, as `fit` told.
    """
    rows, columns = (round(side / factor) for side, factor in zip(cover.shape[1:], scale, strict=True))
    result = np.zeros((len(cover), SIZE, SIZE), np.float32)
    top, left = (SIZE - rows) // 2, (SIZE - columns) // 2
    for slice_of, layer in zip(result, cover, strict=True):
        inner = Image.fromarray(layer.astype(np.float32)).resize((columns, rows), Image.Resampling.BOX)
        slice_of[top : top + rows, left : left + columns] = np.asarray(inner)
    return result


def lesion_map(cover: np.ndarray, scale: tuple[float, float] | None = None) -> np.ndarray:
    """The `Sample.lesions` of what lesions cover, float (T, H, W) in 0 to 1.

    Args:
        cover: in frames as acquired, or, without `scale`, in finished frames (T, SIZE, SIZE).
        scale: as `fit` told.
    """
    if scale is not None:
        cover = fit_cover(cover, scale)
    cell = SIZE // LESION_GRID
    cells = cover.reshape(len(cover), LESION_GRID, cell, LESION_GRID, cell).mean(axis=(2, 4))
    return np.round(np.clip(cells, 0, 1) * 255).astype(np.uint8)


def photograph(frames: np.ndarray, rng: np.random.Generator, coarsest: int = 40) -> np.ndarray:
    """Camera-like grading of uint8 colour frames: exposure, white balance, contrast, noise, JPEG, low resolution.

    A low resolution has at least `coarsest` rows and columns, so that small things an answer names stay visible.
    """
    gain = rng.uniform(0.75, 1.2) * rng.uniform(0.92, 1.08, 3)
    values = np.clip(frames.astype(np.float32) / 255, 0, 1) ** np.float32(rng.uniform(0.8, 1.25)) * gain.astype(
        np.float32
    )
    values += rng.standard_normal(frames.shape, dtype=np.float32) * np.float32(rng.uniform(0, 0.025))
    graded = np.round(np.clip(values, 0, 1) * 255).astype(np.uint8)
    if rng.random() < 0.3:
        graded = resize(resize(graded, (int(rng.integers(coarsest, 90)),) * 2), graded.shape[1:3], rng)
    return jpeg(graded, int(rng.integers(30, 92))) if rng.random() < 0.5 else graded


def quadrant(row: float, column: float) -> dict[str, str]:
    """The "location" fact of a place, its distances below and right of the middle given as shares of the finished side.

    Empty where the place is near the middle in either direction (at most 15 %), or outside the picture.
    """
    if not (0.15 < abs(row) < 0.5 and 0.15 < abs(column) < 0.5):
        return {}
    return {"location": f"{'lower' if row > 0 else 'upper'} {'right' if column > 0 else 'left'}"}


def cross_section(radii: Point, angle: float, axis: int, distance: float) -> tuple[float, float]:
    """Long and short diameter (mm) of a plane's cut through an ellipsoid, both 0 where the plane misses it.

    Args:
        radii: half axes along x, y and z, mm.
        angle: turn about z, radians, as in `Scene.radius`.
        axis: 0, 1 or 2, the normal of the plane: x, y or z.
        distance: mm from the ellipsoid's centre to the plane.
    """
    c, s = np.cos(angle), np.sin(angle)
    turn = np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])
    quadric = turn.T @ np.diag(1 / np.asarray(radii) ** 2) @ turn
    inside = [k for k in range(3) if k != axis]
    block, mixed = quadric[np.ix_(inside, inside)], quadric[inside, axis]
    left = 1 - distance**2 * (quadric[axis, axis] - mixed @ np.linalg.solve(block, mixed))
    if left <= 0:
        return 0.0, 0.0
    short, long = 2 * np.sqrt(left / np.linalg.eigvalsh(block)[::-1])
    return float(long), float(short)


def lesion_facts(cover: np.ndarray, scale: tuple[float, float], diameter: float) -> dict[str, str]:
    """The "location" of a lesion, and its "size" where all of its largest cut lies inside the picture.

    Args:
        cover: share of each pixel that is lesion (slices, rows, columns), in the slices as acquired.
        scale: acquired pixels per finished pixel along rows and columns, as `fit` tells.
        diameter: its greatest diameter in the slices, mm.
    """
    largest = cover[int(cover.sum(axis=(1, 2)).argmax())]
    if not largest.any():
        return {}
    row, column = (
        float(np.average(np.arange(side) + 0.5 - side / 2, weights=largest.sum(axis=1 - axis))) / scale[axis] / SIZE
        for axis, side in enumerate(largest.shape)
    )
    facts = quadrant(row, column)
    if not (largest[[0, -1]].any() or largest[:, [0, -1]].any()):
        facts |= {"size": f"{diameter:.0f} mm", "measured": "the lesion"}
    return facts


def annotate(
    draw: ImageDraw.ImageDraw, xy: tuple[float, float], rng: np.random.Generator, colour: tuple[int, ...]
) -> None:
    """Writes a short invented machine annotation (letters and digits that name nobody) at `xy`."""
    letters = "ABCDEFGHILMNOPRSTUV"
    word = "".join(letters[i] for i in rng.integers(0, len(letters), int(rng.integers(1, 5))))
    number = f"{rng.uniform(0, 30):.1f}" if rng.random() < 0.5 else str(int(rng.integers(1, 99)))
    draw.text(xy, (word, number, f"{word} {number}")[int(rng.integers(3))], fill=colour)
