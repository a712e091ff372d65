# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Builds a volume of DICOM slices: where they lie, in which order, and their geometry."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813 - the name all of its documentation uses
from pydicom.dataset import Dataset

from .clip_omniv_med import MediaError, MediaLimits
from .dicom_files_omniv_med import (
    _check_pixels,
    _is_colour,
    _is_inverted,
    _modality,
    _number,
    _numbers,
    _open,
    _pixel_spacing,
)
from .dicom_pixels_omniv_med import _colours, _decode, _grey
from .intensity_omniv_med import fill_background
from .volume_omniv_med import Scan

LEAST_TILT = 0.5
"""Degrees between the normal of slices and the way they are stacked, below which that is rounding."""


@dataclass(frozen=True)
class _Slice:
    """One slice: where it is stored and where it lies."""

    path: Path
    frame: int = 0
    position: np.ndarray | None = None  # (3,) mm, centre of the first pixel in LPS
    orientation: np.ndarray | None = None  # (6,) cosines of a row and of a column
    rescale: tuple[float, float] | None = None  # slope and intercept, where the frame has its own


def _group(dataset: Dataset, frame: int, sequence: str) -> Dataset:
    """One functional group macro of a frame: its own, else the shared one (PS3.3 C.7.6.16)."""
    for holder, index in (("PerFrameFunctionalGroupsSequence", frame), ("SharedFunctionalGroupsSequence", 0)):
        items = dataset.get(holder) or ()
        if index < len(items) and items[index].get(sequence):
            return items[index][sequence][0]
    return Dataset()


def _enhanced_slices(dataset: Dataset, path: Path, count: int) -> list[_Slice]:
    """The slices of a multi-frame file that says where its frames lie; empty where it does not.

    Functional groups: PS3.3 C.7.6.16.2; dose grids: C.8.8.3.2.
    """
    if "PerFrameFunctionalGroupsSequence" in dataset:
        slices = []
        for frame in range(count):
            position = _numbers(_group(dataset, frame, "PlanePositionSequence"), "ImagePositionPatient", 3)
            cosines = _numbers(_group(dataset, frame, "PlaneOrientationSequence"), "ImageOrientationPatient", 6)
            transform = _group(dataset, frame, "PixelValueTransformationSequence")
            slope, intercept = _number(transform, "RescaleSlope"), _number(transform, "RescaleIntercept")
            rescale = None if slope is None or intercept is None else (slope, intercept)
            if position is None or cosines is None:
                return []
            slices.append(_Slice(path, frame, position, cosines, rescale))
        return slices
    offsets = _numbers(dataset, "GridFrameOffsetVector", count)
    position = _numbers(dataset, "ImagePositionPatient", 3)
    cosines = _numbers(dataset, "ImageOrientationPatient", 6)
    if offsets is None or position is None or cosines is None:
        return []
    normal = np.cross(cosines[:3], cosines[3:])
    return [_Slice(path, f, position + normal * (offset - offsets[0]), cosines) for f, offset in enumerate(offsets)]


def _largest_stack(slices: list[_Slice], volume: int, name: str, notes: list[str]) -> tuple[list[_Slice], np.ndarray]:
    """Sorts slices along their normal and keeps one per place; also their offsets in mm, float64 (slices,).

    Where several slices share a place (echoes, phases, b-values), number `volume` in the order given is kept; places
    that have no such number are left out.
    """
    groups: dict[tuple, list[_Slice]] = defaultdict(list)
    for item in slices:
        groups[tuple(np.round(item.orientation, 2) + 0.0)].append(item)
    chosen = max(groups.values(), key=len)
    if len(groups) > 1:
        notes.append(f"Slices lie in {len(groups)} directions; the largest group ({len(chosen)}) is used.")
    cosines = chosen[0].orientation
    normal = np.cross(cosines[:3], cosines[3:])
    offsets = np.array([item.position @ normal for item in chosen])
    order = np.argsort(offsets, kind="stable")
    places: list[list[int]] = [[]]
    for index in order.tolist():
        if places[-1] and offsets[index] - offsets[places[-1][0]] > 1e-3:
            places.append([])
        places[-1].append(index)
    most = max(map(len, places))
    if volume >= most:
        raise MediaError(f"{name} holds {most} volumes, so volume_index must lie from 0 to {most - 1}.")
    kept = [place[volume] for place in places if len(place) > volume]
    if most > 1:
        which = "the first" if volume == 0 else f"number {volume}, counted from 0,"
        notes.append(f"{len(chosen)} slices lie at {len(places)} places; {which} at each place is used.")
    if len(kept) < len(places):
        notes.append(f"{len(places) - len(kept)} of these places have no slice of that number; they are left out.")
    return [chosen[i] for i in kept], offsets[kept] - offsets[kept[0]]


def _build_scan(
    slices: list[_Slice],
    first: Dataset,
    open_file: Callable[[Path], Dataset],
    name: str,
    limits: MediaLimits,
    modality: str | None,
    volume: int,
) -> Scan:
    """Decodes slices of one size into one image with their geometry; of several volumes, number `volume`."""
    notes: list[str] = []
    limits.check_volume(name, len(slices), int(first.Rows), int(first.Columns))
    located = all(item.position is not None and item.orientation is not None for item in slices)
    offsets = step = shear = None
    if located:
        slices, offsets = _largest_stack(slices, volume, name, notes)
        first = open_file(slices[0].path)
        if len(slices) > 1:
            shear = _gantry_shear(slices, offsets, notes)
            gaps = np.diff(offsets)
            step = float(np.median(gaps))
            if gaps.max() - gaps.min() > 0.01 * step + 1e-3:
                notes.append(
                    f"Slice distances vary from {gaps.min():.2f} to {gaps.max():.2f} mm; a slice may be missing."
                )
            else:
                offsets = None
    measures = _group(first, slices[0].frame, "PixelMeasuresSequence")
    pixel_spacing = _pixel_spacing(measures if "PixelSpacing" in measures else first)[0]
    for key in ("SpacingBetweenSlices", "SliceThickness"):
        step = step or abs(_number(measures, key) or _number(first, key) or 0.0) or None
    known = bool(step) and pixel_spacing[0] > 0
    if not located:
        if volume:
            raise MediaError(f"{name} does not say where its slices lie, so volumes cannot be told apart.")
        notes.append("Header gives no slice positions; slices are in the order of their numbers, taken for axial.")
    volume = _decode_slices(slices, first, open_file, name, notes)
    image = sitk.GetImageFromArray(volume, isVector=volume.ndim == 4)
    image.SetSpacing((pixel_spacing[1] or 1.0, pixel_spacing[0] or 1.0, step or 1.0))
    if located:
        row, column = slices[0].orientation[:3], slices[0].orientation[3:]
        axes = _orthonormal(row, column)
        image.SetDirection(axes.ravel().tolist())
        image.SetOrigin(slices[0].position.tolist())
    kind = modality or _modality(first)
    return Scan(image, kind, known, offsets, shear, tuple(notes))


def _gantry_shear(slices: list[_Slice], offsets: np.ndarray, notes: list[str]) -> np.ndarray | None:
    """How sorted slices are stacked where not along their normal: the `shear` of a `Scan`."""
    cosines = slices[0].orientation
    normal = np.cross(cosines[:3], cosines[3:])
    shear = (slices[-1].position - slices[0].position) / offsets[-1] - normal
    angle = np.degrees(np.arctan(np.linalg.norm(shear)))
    if angle < LEAST_TILT:
        return None
    notes.append(f"Slices are not stacked along their normal (gantry tilt of {angle:.0f} degrees).")
    return shear


def _orthonormal(row: np.ndarray, column: np.ndarray) -> np.ndarray:
    """Direction matrix (3, 3) whose columns are the row, column and slice axes, free of the header's rounding."""
    row = row / max(np.linalg.norm(row), 1e-9)
    column = column - row * (row @ column)
    column = column / max(np.linalg.norm(column), 1e-9)
    return np.stack([row, column, np.cross(row, column)], axis=1)


def _decode_slices(
    slices: list[_Slice], first: Dataset, open_file: Callable[[Path], Dataset], name: str, notes: list[str]
) -> np.ndarray:
    """float32 (slices, height, width), or uint8 (…, 3) for colour; files are opened one at a time."""
    shape = (len(slices), int(first.Rows), int(first.Columns))
    colour = _is_colour(first)
    volume = np.empty((*shape, 3), np.uint8) if colour else np.empty(shape, np.float32)
    places: dict[Path, list[int]] = defaultdict(list)
    for index, item in enumerate(slices):
        places[item.path].append(index)
    for path, indices in places.items():
        dataset = open_file(path)
        frames = _decode(dataset, name, [slices[i].frame for i in indices], notes)
        for index, frame in zip(indices, frames, strict=True):
            if frame.shape[:2] != shape[1:]:
                raise MediaError(f"{name} holds slices of different sizes; give one series.")
            volume[index] = _colours(frame, dataset) if colour else _grey(frame, dataset, slices[index].rescale)
    if not colour:
        fill_background(volume)
        if _is_inverted(first) and first.get("Modality") != "CT":
            np.negative(volume, out=volume)
    return volume


def _read_slices(
    files: list[tuple[Path, Dataset]], name: str, limits: MediaLimits, modality: str | None, volume: int
) -> Scan:
    """The files of one series, each one slice, in the order of their instance numbers before any geometry counts."""
    files = sorted(files, key=lambda item: (_number(item[1], "InstanceNumber") or 0.0, str(item[0])))

    def open_file(path: Path) -> Dataset:
        dataset = _open(path, name, limits)
        _check_pixels(dataset, name, limits)
        return dataset

    slices = [
        _Slice(path, 0, _numbers(header, "ImagePositionPatient", 3), _numbers(header, "ImageOrientationPatient", 6))
        for path, header in files
    ]
    return _build_scan(slices, open_file(files[0][0]), open_file, name, limits, modality, volume)
