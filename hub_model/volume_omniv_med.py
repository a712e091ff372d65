# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Cuts a volume into the frames of a clip: orients it, chooses plane and slices, and places them in millimetres."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk  # noqa: N813 - the name all of its documentation uses

from .clip_omniv_med import PLANES, Clip, Geometry, MediaError, MediaLimits, ReadingOptions, evenly_spaced
from .intensity_omniv_med import fill_background, grey_frames, intensity_range, scale_to_grey, window_ct


@dataclass(frozen=True)
class Volume:
    """A volume before it is cut into frames.

    Attributes:
        image: SimpleITK image of three dimensions in LPS millimetres, scalar (HU for CT) or three 8-bit channels.
        modality: DICOM modality code or "".
        spacing_known: whether the spacing is a measurement; False leaves positions that count slices.
        offsets: float64 array (slices,), millimetres of the acquired slices along the image's third axis, or None
            where they are evenly spaced.
        shear: float64 array (3,), millimetres in LPS that a slice lies aside of where the image puts it, for every
            millimetre from the first slice (the gantry was tilted), or None where they lie straight.
        origins: float64 array (slices, 3), where in LPS millimetres the first pixel of each acquired slice is centred,
            or None where the source does not say.
        notes: what was chosen, one sentence each.
        axes: float64 (3, 3), LPS millimetres of a step along each of the image's axes, one a column, where the source
            says it more exactly than the image, whose axes are at right angles; else None.
    """

    image: sitk.Image
    modality: str = ""
    spacing_known: bool = True
    offsets: np.ndarray | None = None
    shear: np.ndarray | None = None
    origins: np.ndarray | None = None
    notes: tuple[str, ...] = ()
    axes: np.ndarray | None = None


def note_volumes(count: int, in_voxels: bool, options: ReadingOptions) -> list[str]:
    """Notes which of a file's several volumes is used; `in_voxels` says that every voxel holds a value of each."""
    if count == 1:
        return []
    held = f"Each voxel has {count} values" if in_voxels else f"The file holds {count} volumes"
    return [f"{held}; {options.chosen_volume} is used."]


def _looks_like_ct(values: np.ndarray) -> bool:
    """The rule for a volume without a modality: see `load_clip`."""
    if values.ndim != 3:
        return False
    sample = values[tuple(slice(None, None, max(1, extent // 128)) for extent in values.shape)]
    air = np.mean((sample >= -1100) & (sample <= -900)) >= 0.01
    return bool(air and (sample == np.round(sample)).all() and -32768 <= values.min() <= -900)


def _is_normalised(values: np.ndarray) -> bool:
    """Fractions from 0 to 1, as data sets for training hold them: not what a scanner measured."""
    return values.dtype.kind == "f" and values.min() >= 0 and values.max() <= 1


def _cut(values: np.ndarray, plane: str) -> np.ndarray:
    """A view of an LPS array (z, y, x, …) as (slices, rows, columns, …) of a plane; rows run from the head down."""
    if plane == "axial":
        return values
    return np.moveaxis(values, PLANES.index(plane), 0)[:, ::-1]


def clip_of_volume(volume: Volume, name: str, options: ReadingOptions) -> Clip:
    """A volume as slices of the chosen plane, through the CT windows or scaled by all of its voxels."""
    notes = list(volume.notes)
    turned = _turn(volume.image)
    steps, known = turned.steps, volume.spacing_known
    if options.spacing:
        if len(options.spacing) != 3:
            raise MediaError("spacing of a volume must be three numbers: slices, rows and columns in mm.")
        steps, known = np.array(options.spacing), True
    plane = _choose_plane(turned.values.shape[:3], steps if known else np.ones(3), options, notes)
    axis = PLANES.index(plane)
    if volume.shear is not None and volume.offsets is None and axis != _slice_axis(volume.image, turned):
        turned = _turn(_straighten(volume.image, volume.shear, name, options.limits))
        notes.append("The slices were moved back in line for this plane.")
    values = turned.values
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        values = fill_background(values.copy())
        notes.append("Voxels that are not finite are shown as background.")
    modality = volume.modality
    slices = _cut(values, plane)
    indices = evenly_spaced(len(slices), options.max_frames)
    if not modality and _looks_like_ct(values):
        modality = "CT"
        notes.append("No modality in the header; whole numbers with air near -1000 are taken for CT.")
    chosen = slices if len(indices) == len(slices) else slices[indices]
    if chosen.ndim == 4:
        # Copied in any case: ITK's memory goes with its image.
        frames = np.array(chosen[..., :3]) if chosen.shape[-1] >= 3 else grey_frames(np.array(chosen[..., 0]))
    elif modality == "CT" and not _is_normalised(values):
        frames = window_ct(chosen, options.windows)
        notes.append(options.windows_note)
    else:
        if modality == "CT":
            notes.append("The values lie between 0 and 1, so they are not HU, and no CT windows are applied.")
        # The order of voxels does not matter for their range, and as they are stored they are read faster.
        stored = sitk.GetArrayViewFromImage(turned.image) if values is turned.values else values
        frames = grey_frames(scale_to_grey(chosen, intensity_range(stored)))
        notes.append("Grey levels: 1st to 99th percentile of the whole volume.")
    count = len(slices)
    if count > 1:
        taken = f"All {count}" if len(indices) == count else f"{len(indices)} of {count}"
        notes.append(f"{taken} {plane} slices{'' if len(indices) == count else ', evenly spaced'}.")
    if not known:
        notes.append("The header gives no spacing; positions count slices.")
    rows, columns = (float(step) for step in np.delete(steps, axis))
    notes += _geometry_notes(volume.image, rows, columns, known)
    positions = _slice_positions(volume, turned, axis, count, steps, known and not options.spacing)
    kind = "volume" if count > 1 else "image"
    spacing = (rows, columns) if known else (0.0, 0.0)
    geometry = _geometry(volume, turned, axis, indices) if known and not options.spacing else None
    return Clip(
        frames, kind, positions[indices] - positions[0], spacing, count, modality, tuple(notes), plane, geometry
    )


def _choose_plane(shape: tuple[int, ...], steps: np.ndarray, options: ReadingOptions, notes: list[str]) -> str:
    """The plane that volumes of `shape` (z, y, x) with `steps` in mm are cut along; says where it is not the asked one.

    "automatic" cuts across the axis with the largest spacing, and axially where that is not clearly larger.
    """
    plane = options.plane
    if plane == "automatic":
        axis = int(np.argmax(steps))
        plane = PLANES[axis] if steps[axis] > 1.01 * steps[0] else "axial"
        notes.append(f"The plane was chosen by the spacing: {plane}.")
    thin = [axis for axis in range(3) if shape[axis] == 1]
    if len(thin) == 1 and shape[PLANES.index(plane)] > 1:
        plane = PLANES[thin[0]]
        notes.append(f"The volume is one slice, which is {plane}.")
    return plane


@dataclass(frozen=True)
class _Turned:
    """A volume seen along LPS axes.

    Attributes:
        values: view of the image's voxels (z, y, x) or (z, y, x, channels), from the feet, the front and the right.
        steps: float64 array (3,), mm between voxels along z, y and x.
        direction: float64 array (3, 3), LPS direction of the x, y and z axis, one a column.
        image: whose memory `values` is in.
        first: int64 array (3,), the image's indices (x, y, z) of the first voxel.
        axes: int64 array (3, 3), by how much these change along the x, y and z axis, one a column.
    """

    values: np.ndarray
    steps: np.ndarray
    direction: np.ndarray
    image: sitk.Image
    first: np.ndarray
    axes: np.ndarray


def _turn(image: sitk.Image) -> _Turned:
    """Turns an image to LPS axes as sitk.DICOMOrient does, but without a copy: it is asked about one voxel only."""
    voxel = sitk.Image([1, 1, 1], sitk.sitkUInt8)
    voxel.SetDirection(image.GetDirection())
    orient = sitk.DICOMOrientImageFilter()
    orient.SetDesiredCoordinateOrientation("LPS")
    direction = np.array(orient.Execute(voxel).GetDirection()).reshape(3, 3)
    order, flips = list(orient.GetPermuteOrder()), orient.GetFlipAxes()  # of x, y and z; arrays have them backwards
    values = sitk.GetArrayViewFromImage(image)
    values = values.transpose(*[2 - axis for axis in reversed(order)], *range(3, values.ndim))
    values = values[tuple(slice(None, None, -1 if flipped else 1) for flipped in reversed(flips))]
    axes = np.eye(3, dtype=np.int64)[:, order] * np.where(flips, -1, 1)
    first = np.where(axes.sum(axis=1) < 0, np.array(image.GetSize()) - 1, 0)
    return _Turned(values, np.array(image.GetSpacing())[order][::-1], direction, image, first, axes)


def _slice_axis(acquired: sitk.Image, turned: _Turned) -> int:
    """Which axis (0 for z) of the turned volume the slices of the acquired image follow each other along."""
    normal = np.array(acquired.GetDirection()).reshape(3, 3)[:, 2]
    return 2 - int(np.argmax(np.abs(normal @ turned.direction)))


def _straighten(image: sitk.Image, shear: np.ndarray, name: str, limits: MediaLimits) -> sitk.Image:
    """Moves each slice back to where it lies; the frame grows, filled with the smallest value.

    Args:
        image: the volume as it was acquired.
        shear: as in `Volume`.
        name: as messages call the source.
        limits: what the larger frame may hold.
    """
    direction, spacing = np.array(image.GetDirection()).reshape(3, 3), np.array(image.GetSpacing())
    size, origin = np.array(image.GetSize()), np.array(image.GetOrigin())
    steps = direction.T @ shear * spacing[2] * (size[2] - 1) / spacing  # pixels that the last slice lies aside
    first = np.floor(np.minimum(steps, 0))
    new_size = (size + np.ceil(np.maximum(steps, 0)) - first).astype(int)
    limits.check_volume(name, *new_size[::-1].tolist())
    transform = sitk.AffineTransform(3)  # from a place in the new image to the same in the old one
    transform.SetMatrix((np.eye(3) - np.outer(shear, direction[:, 2])).ravel().tolist())
    transform.SetCenter(origin.tolist())
    new_origin = (origin + direction @ (first * spacing)).tolist()
    background = float(sitk.GetArrayViewFromImage(image).min())
    return sitk.Resample(
        image,
        new_size.tolist(),
        transform,
        sitk.sitkLinear,
        new_origin,
        spacing.tolist(),
        image.GetDirection(),
        background,
        # Between whole numbers lie fractions.
        sitk.sitkFloat32 if image.GetNumberOfComponentsPerPixel() == 1 else image.GetPixelID(),
    )


def _slice_positions(
    volume: Volume, turned: _Turned, axis: int, count: int, steps: np.ndarray, as_acquired: bool
) -> np.ndarray:
    """float64 (count,), mm along an axis (0 for z) of the turned volume; uneven where the slices were acquired so."""
    step = steps[axis] if volume.spacing_known or not as_acquired else 1.0
    if volume.offsets is not None and as_acquired:
        acquired = np.array(volume.image.GetDirection()).reshape(3, 3)[:, 2]
        along = turned.direction[:, 2 - axis] @ acquired
        if abs(along) > 0.99:
            return volume.offsets if along > 0 else volume.offsets[-1] - volume.offsets[::-1]
    return np.arange(count) * float(step)


def _geometry(volume: Volume, turned: _Turned, axis: int, indices: np.ndarray) -> Geometry | None:
    """Where slices of a volume lie, cut across an axis (0 for z) as `_cut` does, with these numbers.

    None where the source does not say, and where the distances of the acquired slices vary and it is cut across them.
    """
    if volume.origins is None:
        return None
    columns, rows = [(0, 1), (0, 2), (1, 2)][axis]
    # In the image's indices: by how much they change to the next column, row and slice, and those of the first pixel.
    changes, first = turned.axes[:, [columns, rows, 2 - axis]].copy(), turned.first
    if axis:  # rows run from the head down
        first = first + changes[:, 1] * (turned.values.shape[2 - rows] - 1)
        changes[:, 1] *= -1
    image = turned.image
    steps = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
    if image is not volume.image:  # the slices were moved back in line, where the image says
        origins = np.array(image.GetOrigin()) + (first + indices[:, None] * changes[:, 2]) @ steps.T
        return Geometry(origins, steps @ changes)
    if volume.axes is not None:
        steps = volume.axes.copy()
    if len(volume.origins) > 1:
        steps[:, 2] = (volume.origins[-1] - volume.origins[0]) / (len(volume.origins) - 1)
    if changes[2, 2]:  # the acquired slices themselves: they lie where they say
        corner = steps[:, :2] @ first[:2]
        return Geometry(volume.origins[first[2] + indices * changes[2, 2]] + corner, steps @ changes)
    if volume.offsets is not None:
        return None
    return Geometry(volume.origins[0] + (first + indices[:, None] * changes[:, 2]) @ steps.T, steps @ changes)


def _geometry_notes(image: sitk.Image, rows: float, columns: float, known: bool) -> list[str]:
    """What a reader of the frames should know: slices that lie oblique, pixels that are not square."""
    notes = []
    direction = np.abs(np.array(image.GetDirection()).reshape(3, 3))
    angle = float(np.degrees(np.arccos(np.clip(direction.max(axis=0).min(), 0, 1))))
    if angle > 1:
        notes.append(f"The volume lies oblique by {angle:.0f} degrees; it is cut along its own axes, not resampled.")
    if known and max(rows, columns) > 1.5 * min(rows, columns):
        notes.append(f"Pixels are not square: {rows:.2f} x {columns:.2f} mm.")
    return notes
