# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Reads a DICOM file or one series among many, as a `Volume`, a `Picture` or an `EncodedVideo`.

pydicom decides how pixels are decoded, because ITK silently returns wrong values for some run-length and JPEG
encodings. No patient field is read, so no message or note contains one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.encaps import generate_fragments

from .clip_omniv_med import MediaError, ReadingOptions, Series
from .dicom_files_omniv_med import (
    VIDEO_SYNTAXES,
    check_pixels,
    find_frame_times,
    frame_count,
    is_colour,
    modality_of,
    number_of,
    open_dicom,
)
from .dicom_pixels_omniv_med import read_picture
from .dicom_series_omniv_med import Slice, build_volume, read_slices, slices_of_multi_frame_file
from .pictures_omniv_med import Picture
from .volume_omniv_med import Volume

# Modalities whose many frames are slices, not moments, when the header names neither positions nor times.
VOLUME_MODALITIES = frozenset({"CT", "MR", "PT", "NM", "RTDOSE", "SEG"})


@dataclass(frozen=True)
class EncodedVideo:
    """An MPEG stream that a DICOM file wraps, and the file's modality."""

    data: bytes
    modality: str


def read_dicom(path: Path, name: str, options: ReadingOptions) -> Volume | Picture | EncodedVideo:
    """Reads one DICOM file.

    Returns:
        A `Volume` where many frames are slices, an `EncodedVideo` where they are MPEG, a `Picture` otherwise.
    """
    dataset = open_dicom(path, name, options.limits)
    count = check_pixels(dataset, name, options.limits)
    if dataset.file_meta.TransferSyntaxUID.startswith(VIDEO_SYNTAXES):
        return EncodedVideo(b"".join(generate_fragments(dataset.PixelData)), options.modality or modality_of(dataset))
    if count > 1 and "TotalPixelMatrixColumns" in dataset:
        raise MediaError(f"{name} is a tiled whole-slide image; export a region of it as one picture.")
    if count > 1 and options.kind != "video":
        slices = slices_of_multi_frame_file(dataset, path, count)
        grey_slices = dataset.get("Modality") in VOLUME_MODALITIES and not is_colour(dataset)
        if not slices and (options.kind == "volume" or (grey_slices and not find_frame_times(dataset, count)[1])):
            slices = [Slice(path, frame) for frame in range(count)]
        # Frames that all lie at one place are a video of it.
        if len({item.frame if item.place is None else tuple(item.place.position) for item in slices}) > 1:
            return build_volume(slices, dataset, lambda _: dataset, name, options)
    if options.volume_index:
        raise MediaError(f"{name} does not hold several volumes; leave volume_index out.")
    return read_picture(dataset, name, count, options)


def read_dicom_series(
    paths: Sequence[Path], name: str, options: ReadingOptions
) -> tuple[Volume | Picture | EncodedVideo, tuple[Series, ...]]:
    """Reads one series among DICOM files: the one asked for by its number or UID, else the one with the most slices.

    A series is what shares a SeriesInstanceUID and a frame size; a multi-frame file is a series of its own. On a tie,
    also among those asked for, the first in the order of the paths is used, and of copies of a slice the first.

    Returns:
        The series, and the numbers of all if there are several: of those with one number, the one that it names.
    """
    series, copies = _group_by_series(paths, name, options)
    if not series:
        raise MediaError(f"{name} holds DICOM files, but none with pixels; give the image series instead.")
    chosen = _choose_series(series, name, options.series)
    if len(chosen.files) == 1:
        result = read_dicom(chosen.files[0][0], name, options)
    else:
        result = read_slices(chosen.files, name, options)
    listed = _listed(series, chosen) if len(series) > 1 else ()
    if isinstance(result, EncodedVideo):
        return result, listed
    notes = [f"{copies} files are copies of others and were left out."] if copies else []
    if options.series is not None:
        number = "" if chosen.number is None else f" number {chosen.number}"
        notes.append(f"{len(series)} series found; of those asked for,{number} with {chosen.slices} slices is used.")
    elif len(series) > 1:
        notes.append(f"{len(series)} series were found; the one with the most slices ({chosen.slices}) is used.")
    return replace(result, notes=(*notes, *result.notes)), listed


@dataclass
class _Series:
    """The files of one series.

    Attributes:
        uid, number: what `series` of `load_clip` may name it by; the number is None where there is none.
        files: path and header of each file, in the order of the paths.
        slices: frames of all files together.
    """

    uid: str
    number: int | None
    files: list[tuple[Path, Dataset]] = field(default_factory=list)
    slices: int = 0


def _group_by_series(paths: Sequence[Path], name: str, options: ReadingOptions) -> tuple[list[_Series], int]:
    """The series of DICOM files with pixels, and how many files were left out as copies of others."""
    series: dict[tuple[object, ...], _Series] = {}
    seen: set[str] = set()
    copies = 0
    for path in paths:
        header = open_dicom(path, name, options.limits, header_only=True)
        if not header.get("Rows") or not header.get("Columns"):
            continue  # reports, plans and DICOMDIR files lie beside images in every export
        # Some anonymisers give all slices one UID, so number and place count too.
        identity = [header.get(key) for key in ("SOPInstanceUID", "InstanceNumber", "ImagePositionPatient")]
        if identity[0] and str(identity) in seen:
            copies += 1
            continue
        seen.add(str(identity))
        frames = frame_count(header, name)
        uid = str(header.get("SeriesInstanceUID"))
        item = series.setdefault(series_key(header, path, frames), _Series(uid, _series_number(header)))
        item.files.append((path, header))
        item.slices += frames
    return list(series.values()), copies


def series_key(header: Dataset, path: Path, frames: int) -> tuple[object, ...]:
    """What the files of one series share: UID, frame size and colour; a multi-frame file shares it with no other."""
    uid = str(header.get("SeriesInstanceUID"))
    return (uid, header.Rows, header.Columns, is_colour(header), str(path) if frames > 1 else "")


def _choose_series(series: Sequence[_Series], name: str, asked: str | int | None) -> _Series:
    """The series with the most slices of those asked for."""
    fitting = [item for item in series if asked is None or asked in (item.uid, item.number)]
    if not fitting:
        held = ", ".join(map(str, sorted({item.number for item in series if item.number is not None})))
        raise MediaError(
            f"{name} holds no series of that {'UID' if isinstance(asked, str) else 'number'}; "
            f"it holds {len(series)}{f', with the numbers {held}' if held else ', without numbers'}."
        )
    return max(fitting, key=lambda item: item.slices)


def _listed(series: Sequence[_Series], chosen: _Series) -> tuple[Series, ...]:
    """The series that have numbers, in their order; of those with one number the one with the most slices."""
    named: dict[int, _Series] = {}
    for item in series:
        if item.number is not None and (item.number not in named or item.slices > named[item.number].slices):
            named[item.number] = item
    return tuple(
        Series(number, item.slices, modality_of(item.files[0][1]), item is chosen)
        for number, item in sorted(named.items())
    )


def _series_number(header: Dataset) -> int | None:
    """SeriesNumber (PS3.3 C.7.3.1), None where it is missing or no whole number."""
    number = number_of(header, "SeriesNumber")
    return None if number is None or number != int(number) else int(number)
