# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Builds a volume from DICOM slices: sorts them by position and derives spacing, direction and gantry tilt."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813 - the name all of its documentation uses
from pydicom.dataset import Dataset

from .clip_omniv_med import MediaError, ReadingOptions
from .dicom_files_omniv_med import (
    check_pixels,
    find_pixel_spacing,
    is_colour,
    is_inverted,
    modality_of,
    number_of,
    numbers_of,
    open_dicom,
)
from .dicom_pixels_omniv_med import decode_frames, to_colours, to_measured_values
from .intensity_omniv_med import fill_background
from .volume_omniv_med import Volume

LEAST_TILT = 0.5
"""Degrees between the normal of slices and the way they are stacked, below which that is rounding."""


@dataclass(frozen=True)
class Place:
    """Where a slice lies (PS3.3 C.7.6.2.1.1).

    Attributes:
        position: float64 (3,), millimetres in LPS of the centre of the first pixel.
        orientation: float64 (6,), cosines of the direction of a row and of a column.
    """

    position: np.ndarray
    orientation: np.ndarray

    @property
    def normal(self) -> np.ndarray:
        """float64 (3,), the direction at right angles to the slice, towards the head where it is axial."""
        return np.cross(self.orientation[:3], self.orientation[3:])


@dataclass(frozen=True)
class Slice:
    """One slice: where it is stored and where it lies.

    Attributes:
        path, frame: its file, and its number there.
        place: where it lies, None where the header does not say.
        rescale: slope and intercept, where the frame has its own.
    """

    path: Path
    frame: int = 0
    place: Place | None = None
    rescale: tuple[float, float] | None = None


def _place_of(position_holder: Dataset, orientation_holder: Dataset) -> Place | None:
    """The place that two data sets, which may be one, give together."""
    position = numbers_of(position_holder, "ImagePositionPatient", 3)
    orientation = numbers_of(orientation_holder, "ImageOrientationPatient", 6)
    return None if position is None or orientation is None else Place(position, orientation)


def _group(dataset: Dataset, frame: int, sequence: str) -> Dataset:
    """One functional group macro of a frame: its own, else the shared one (PS3.3 C.7.6.16)."""
    for holder, index in (("PerFrameFunctionalGroupsSequence", frame), ("SharedFunctionalGroupsSequence", 0)):
        items = dataset.get(holder) or ()
        if index < len(items) and items[index].get(sequence):
            item: Dataset = items[index][sequence][0]
            return item
    return Dataset()


def slices_of_multi_frame_file(dataset: Dataset, path: Path, count: int) -> list[Slice]:
    """The slices of a multi-frame file that says where its frames lie; empty where it does not.

    Functional groups: PS3.3 C.7.6.16.2; dose grids: C.8.8.3.2.
    """
    if "PerFrameFunctionalGroupsSequence" in dataset:
        slices = []
        for frame in range(count):
            place = _place_of(
                _group(dataset, frame, "PlanePositionSequence"), _group(dataset, frame, "PlaneOrientationSequence")
            )
            if place is None:
                return []
            transform = _group(dataset, frame, "PixelValueTransformationSequence")
            slope, intercept = number_of(transform, "RescaleSlope"), number_of(transform, "RescaleIntercept")
            rescale = None if slope is None or intercept is None else (slope, intercept)
            slices.append(Slice(path, frame, place, rescale))
        return slices
    offsets, first = numbers_of(dataset, "GridFrameOffsetVector", count), _place_of(dataset, dataset)
    if offsets is None or first is None:
        return []
    places = [Place(first.position + first.normal * (offset - offsets[0]), first.orientation) for offset in offsets]
    return [Slice(path, frame, place) for frame, place in enumerate(places)]


def _largest_stack(
    places: list[Place], name: str, options: ReadingOptions, notes: list[str]
) -> tuple[list[int], np.ndarray]:
    """Chooses the slices of one volume.

    Where several slices share a place (echoes, phases, b-values), number `volume_index` in the order given is kept;
    places that have no such number are left out.

    Returns:
        Numbers of the slices along their normal, one a place, and their offsets in mm, float64 (slices,).
    """
    groups: dict[tuple[float, ...], list[int]] = defaultdict(list)
    for index, place in enumerate(places):
        groups[tuple((np.round(place.orientation, 2) + 0.0).tolist())].append(index)
    chosen = max(groups.values(), key=len)
    if len(groups) > 1:
        notes.append(f"Slices lie in {len(groups)} directions; the largest group ({len(chosen)}) is used.")
    normal = places[chosen[0]].normal
    offsets = np.array([places[index].position @ normal for index in chosen])
    order = np.argsort(offsets, kind="stable")
    together: list[list[int]] = [[]]
    for index in order.tolist():
        if together[-1] and offsets[index] - offsets[together[-1][0]] > 1e-3:
            together.append([])
        together[-1].append(index)
    most, volume = max(map(len, together)), options.volume_index
    options.check_volume_index(name, most)
    kept = [group[volume] for group in together if len(group) > volume]
    if most > 1:
        which = options.chosen_volume
        notes.append(f"{len(chosen)} slices lie at {len(together)} places; {which} at each place is used.")
    if len(kept) < len(together):
        notes.append(f"{len(together) - len(kept)} of these places have no slice of that number; they are left out.")
    return [chosen[index] for index in kept], offsets[kept] - offsets[kept[0]]


def build_volume(
    slices: list[Slice],
    first: Dataset,
    open_file: Callable[[Path], Dataset],
    name: str,
    options: ReadingOptions,
) -> Volume:
    """Decodes slices of one size into one image with their geometry; of several volumes, the one asked for."""
    notes: list[str] = []
    options.limits.check_volume(name, len(slices), int(first.Rows), int(first.Columns))
    places = [item.place for item in slices if item.place is not None]
    located = len(places) == len(slices)
    offsets = step = shear = origins = None
    if located:
        order, offsets = _largest_stack(places, name, options, notes)
        slices, places = [slices[index] for index in order], [places[index] for index in order]
        first = open_file(slices[0].path)
        origins = np.array([place.position for place in places])
        if len(slices) > 1:
            shear = _gantry_shear(places, offsets, notes)
            gaps = np.diff(offsets)
            step = float(np.median(gaps))
            if gaps.max() - gaps.min() > 0.01 * step + 1e-3:
                notes.append(
                    f"Slice distances vary from {gaps.min():.2f} to {gaps.max():.2f} mm; a slice may be missing."
                )
            else:
                offsets = None
    measures = _group(first, slices[0].frame, "PixelMeasuresSequence")
    pixel_spacing = find_pixel_spacing(measures if "PixelSpacing" in measures else first)[0]
    for key in ("SpacingBetweenSlices", "SliceThickness"):
        step = step or abs(number_of(measures, key) or number_of(first, key) or 0.0) or None
    known = bool(step) and pixel_spacing[0] > 0
    if not located:
        if options.volume_index:
            raise MediaError(f"{name} does not say where its slices lie, so volumes cannot be told apart.")
        notes.append("Header gives no slice positions; slices are in the order of their numbers, taken for axial.")
    values = _decode_slices(slices, first, open_file, name, notes)
    image = sitk.GetImageFromArray(values, isVector=values.ndim == 4)
    image.SetSpacing((pixel_spacing[1] or 1.0, pixel_spacing[0] or 1.0, step or 1.0))
    if located:
        image.SetDirection(_orthonormal(places[0].orientation).ravel().tolist())
        image.SetOrigin(places[0].position.tolist())
    modality = options.modality or modality_of(first)
    return Volume(image, modality, known, offsets, shear, origins, tuple(notes))


def _gantry_shear(places: list[Place], offsets: np.ndarray, notes: list[str]) -> np.ndarray | None:
    """How sorted slices are stacked where not along their normal: the `shear` of a `Volume`."""
    shear: np.ndarray = (places[-1].position - places[0].position) / offsets[-1] - places[0].normal
    angle = np.degrees(np.arctan(np.linalg.norm(shear)))
    if angle < LEAST_TILT:
        return None
    notes.append(f"Slices are not stacked along their normal (gantry tilt of {angle:.0f} degrees).")
    return shear


def _orthonormal(orientation: np.ndarray) -> np.ndarray:
    """Direction matrix (3, 3) whose columns are the row, column and slice axes, free of the header's rounding."""
    row, column = orientation[:3], orientation[3:]
    row = row / max(np.linalg.norm(row), 1e-9)
    column = column - row * (row @ column)
    column = column / max(np.linalg.norm(column), 1e-9)
    return np.stack([row, column, np.cross(row, column)], axis=1)


def _decode_slices(
    slices: list[Slice], first: Dataset, open_file: Callable[[Path], Dataset], name: str, notes: list[str]
) -> np.ndarray:
    """int16 or float32 (slices, height, width), or uint8 (…, 3) for colour; files are opened one at a time.

    What a scanner measured in whole numbers stays so, as it takes half of the memory, which ITK needs once more.
    """
    shape = (len(slices), int(first.Rows), int(first.Columns))
    colour, turned = is_colour(first), is_inverted(first) and first.get("Modality") != "CT"
    volume = np.empty((*shape, 3), np.uint8) if colour else np.empty(shape, np.float32 if turned else np.int16)
    places: dict[Path, list[int]] = defaultdict(list)
    for index, item in enumerate(slices):
        places[item.path].append(index)
    for path, indices in places.items():
        dataset = open_file(path)
        frames = decode_frames(dataset, name, [slices[i].frame for i in indices], notes)
        for index, frame in zip(indices, frames, strict=True):
            if frame.shape[:2] != shape[1:]:
                raise MediaError(f"{name} holds slices of different sizes; give one series.")
            if colour:
                volume[index] = to_colours(frame, dataset)
                continue
            values = to_measured_values(frame, dataset, slices[index].rescale)
            if volume.dtype == np.int16 and not _fits_sixteen_bits(values):
                volume = volume.astype(np.float32)
            volume[index] = values
    if not colour:
        fill_background(volume)
        if turned:
            np.negative(volume, out=volume)
    return volume


def _fits_sixteen_bits(values: np.ndarray) -> bool:
    """Whether float values are whole numbers that int16 holds; NaN, which stands for padding, is none."""
    with np.errstate(invalid="ignore"):
        return np.array_equal(values.astype(np.int16), values)


def read_slices(files: list[tuple[Path, Dataset]], name: str, options: ReadingOptions) -> Volume:
    """The files of one series, each one slice, in the order of their instance numbers before any geometry counts."""
    files = sorted(files, key=lambda item: (number_of(item[1], "InstanceNumber") or 0.0, str(item[0])))

    def open_file(path: Path) -> Dataset:
        dataset = open_dicom(path, name, options.limits)
        check_pixels(dataset, name, options.limits)
        return dataset

    slices = [Slice(path, place=_place_of(header, header)) for path, header in files]
    return build_volume(slices, open_file(files[0][0]), open_file, name, options)
