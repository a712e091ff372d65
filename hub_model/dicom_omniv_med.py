# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Reads DICOM with pydicom: pixels, geometry and time, as a `Scan` (a grey or colour volume) or a `Picture` (frames).

pydicom decides how pixels are decoded, because ITK returns wrong values without an error for some run-length and
JPEG encodings. No patient field is read, and no message or note holds one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.encaps import generate_fragments

from .clip_omniv_med import ChooseFrames, MediaError, MediaLimits
from .dicom_files_omniv_med import (
    VIDEO_SYNTAXES,
    _check_pixels,
    _frame_count,
    _frame_times,
    _is_colour,
    _modality,
    _number,
    _open,
)
from .dicom_pixels_omniv_med import _read_picture
from .dicom_series_omniv_med import _build_scan, _enhanced_slices, _read_slices, _Slice
from .pictures_omniv_med import Picture
from .volume_omniv_med import Scan

# Modalities whose many frames are slices, not moments, when the header names neither positions nor times.
VOLUME_MODALITIES = frozenset({"CT", "MR", "PT", "NM", "RTDOSE", "SEG"})


@dataclass(frozen=True)
class Film:
    """An MPEG stream that a DICOM file wraps, and the file's modality."""

    data: bytes
    modality: str


def read_dicom(
    path: Path,
    name: str,
    limits: MediaLimits,
    choose: ChooseFrames,
    modality: str | None = None,
    kind: str | None = None,
    volume: int = 0,
) -> Scan | Picture | Film:
    """Reads one DICOM file. `kind` ("volume", "video") says what many frames are where the caller knows better.

    Of several volumes (`volume_index` of `load_clip`), number `volume` is read.

    Returns:
        A `Scan` where many frames are slices, a `Film` where they are MPEG, a `Picture` otherwise.
    """
    dataset = _open(path, name, limits)
    count = _check_pixels(dataset, name, limits)
    if dataset.file_meta.TransferSyntaxUID.startswith(VIDEO_SYNTAXES):
        return Film(b"".join(generate_fragments(dataset.PixelData)), modality or _modality(dataset))
    if count > 1 and "TotalPixelMatrixColumns" in dataset:
        raise MediaError(f"{name} is a tiled whole-slide image; export a region of it as one picture.")
    if count > 1 and kind != "video":
        slices = _enhanced_slices(dataset, path, count)
        grey_slices = dataset.get("Modality") in VOLUME_MODALITIES and not _is_colour(dataset)
        if not slices and (kind == "volume" or (grey_slices and not _frame_times(dataset, count)[1])):
            slices = [_Slice(path, frame) for frame in range(count)]
        # Frames that all lie at one place are a film of it.
        if len({item.frame if item.position is None else tuple(item.position) for item in slices}) > 1:
            return _build_scan(slices, dataset, lambda _: dataset, name, limits, modality, volume)
    if volume:
        raise MediaError(f"{name} does not hold several volumes; leave volume_index out.")
    return _read_picture(dataset, name, count, choose, modality)


def read_dicom_series(
    paths: Sequence[Path],
    name: str,
    limits: MediaLimits,
    choose: ChooseFrames,
    modality: str | None = None,
    kind: str | None = None,
    volume: int = 0,
    series_asked: str | int | None = None,
) -> Scan | Picture | Film:
    """Reads one series among DICOM files: the one asked for by its number or UID, else the one with the most slices.

    A series is what shares a SeriesInstanceUID and a frame size; a multi-frame file is a series of its own. On a tie,
    also among those asked for, the first in the order of the paths is used, and of copies of a slice the first.
    """
    series: dict[tuple, list[tuple[Path, Dataset]]] = defaultdict(list)
    counts: dict[tuple, int] = defaultdict(int)
    seen: set[str] = set()
    copies = 0
    for path in paths:
        header = _open(path, name, limits, header_only=True)
        if not header.get("Rows") or not header.get("Columns"):
            continue  # reports, plans and DICOMDIR files lie beside images in every export
        # Some anonymisers give all slices one UID, so number and place count too.
        identity = [header.get(key) for key in ("SOPInstanceUID", "InstanceNumber", "ImagePositionPatient")]
        if identity[0] and str(identity) in seen:
            copies += 1
            continue
        seen.add(str(identity))
        frames = _frame_count(header, name)
        key = (str(header.get("SeriesInstanceUID")), header.Rows, header.Columns, _is_colour(header))
        key = (*key, str(path)) if frames > 1 else key
        series[key].append((path, header))
        counts[key] += frames
    if not series:
        raise MediaError(f"{name} holds DICOM files, but none with pixels; give the image series instead.")
    numbers = {key: _series_number(files[0][1]) for key, files in series.items()}
    asked = [key for key in series if series_asked is None or series_asked in (key[0], numbers[key])]
    if not asked:
        held = ", ".join(map(str, sorted({number for number in numbers.values() if number is not None})))
        raise MediaError(
            f"{name} holds no series of that {'UID' if isinstance(series_asked, str) else 'number'}; "
            f"it holds {len(series)}{f', with the numbers {held}' if held else ', without numbers'}."
        )
    chosen = max(asked, key=lambda key: counts[key])
    files = series[chosen]
    if len(files) == 1:
        result = read_dicom(files[0][0], name, limits, choose, modality, kind, volume)
    else:
        result = _read_slices(files, name, limits, modality, volume)
    if isinstance(result, Film):
        return result
    notes = [f"{copies} files are copies of others and were left out."] if copies else []
    if series_asked is not None:
        number = "" if numbers[chosen] is None else f" number {numbers[chosen]}"
        notes.append(f"{len(series)} series found; of those asked for,{number} with {counts[chosen]} slices is used.")
    elif len(series) > 1:
        notes.append(f"{len(series)} series were found; the one with the most slices ({counts[chosen]}) is used.")
    return replace(result, notes=(*notes, *result.notes))


def _series_number(header: Dataset) -> int | None:
    """SeriesNumber (PS3.3 C.7.3.1), None where it is missing or no whole number."""
    number = _number(header, "SeriesNumber")
    return None if number is None or number != int(number) else int(number)
