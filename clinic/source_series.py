# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The DICOM series that results are about: its headers, in the order of its slices, and where these lie.

Results repeat what DICOM asks of them from these headers. By default that is what places them beside their images and
nothing of the patient; see `anonymous_header`.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset

from hub_model.dicom_files_omniv_med import numbers_of
from hub_model.file_types_omniv_med import identify

MOST_FILES = 20_000
"""In one folder; as many as the reader takes."""
RESULT_MODALITIES = frozenset({"SEG", "SR", "PR", "KO"})
"""Modalities of what was made about images and may lie beside them."""
PLACEMENT = (
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "FrameOfReferenceUID",
    "Modality",
    "InstanceNumber",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "SliceThickness",
    "SpacingBetweenSlices",
)
"""All that a result without the patient repeats of its images: which they are, and where they lie."""
EMPTY = ("PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate", "StudyTime")
"""What every DICOM file has of patient and study, and a result without the patient leaves empty (PS3.3 C.7.1)."""
ANONYMOUS = "ANON"
TALKATIVE = {"dicomweb_client", "highdicom", "pydicom", "retrying", "urllib3"}
EVEN_WITHIN = 0.01
"""Millimetres that slices may lie from even distances and still make one grid."""


class SeriesError(ValueError):
    """A series about which no result can be written; the message is one sentence without patient data."""


@dataclass(frozen=True)
class Placed:
    """Slices, and where they lie.

    Attributes:
        origins: float64 (slices, 3), LPS millimetres of the centre of each slice's first pixel, or None.
        steps: float64 (3, 3), one a column: LPS millimetres to the next column, to the next row, and on average to the
            next slice; None where `origins` is.
    """

    origins: np.ndarray | None
    steps: np.ndarray | None

    def affine(self) -> np.ndarray:
        """float64 (4, 4), from (column, row, slice) to LPS millimetres.

        Raises:
            SeriesError: where no one grid holds all slices within `EVEN_WITHIN`.
        """
        if self.origins is None or self.steps is None:
            raise SeriesError("The series does not say where its slices lie, so nothing can be laid over them.")
        even = self.origins[0] + np.arange(len(self.origins))[:, None] * self.steps[:, 2]
        if np.abs(self.origins - even).max() > EVEN_WITHIN:
            raise SeriesError("The distances of the slices vary, and NIfTI knows one distance only.")
        affine = np.eye(4)
        affine[:3, :3], affine[:3, 3] = self.steps, self.origins[0]
        return affine


@dataclass(frozen=True)
class SourceSeries(Placed):
    """One DICOM series.

    Attributes:
        files: in the order of the slices along their normal; in the order of their names where these do not say.
        headers: of the files, without pixels; anonymous unless the patient was asked to be kept.
    """

    files: tuple[Path, ...]
    headers: tuple[Dataset, ...]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Slices, rows and columns."""
        return len(self.files), int(self.headers[0].Rows), int(self.headers[0].Columns)


@contextmanager
def values_stay_out_of_logs() -> Iterator[None]:
    """Keeps libraries silent that log the values they complain about, or addresses with a patient's number in them."""
    loggers = [
        logger
        for name, logger in list(logging.root.manager.loggerDict.items())
        if isinstance(logger, logging.Logger) and name.split(".")[0] in TALKATIVE
    ]
    before = [logger.disabled for logger in loggers]
    for logger in loggers:
        logger.disabled = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, disabled in zip(loggers, before, strict=True):
            logger.disabled = disabled


def read_series(source: Path, series: str | None = None, keep_ids: bool = False) -> SourceSeries:
    """The series in a file or a folder and those below it.

    Args:
        source: a DICOM file, or a folder with some.
        series: number or UID of the series, needed where there are several.
        keep_ids: whether the headers keep the patient and the study as they are.

    Raises:
        SeriesError: no series, several, or a header that cannot be read.
    """
    with values_stay_out_of_logs():
        found: dict[str, list[tuple[Path, Dataset]]] = defaultdict(list)
        for path in _dicom_files(source):
            header = _read_header(path)
            if header.get("Rows") and header.get("Columns") and header.get("Modality") not in RESULT_MODALITIES:
                found[str(header.get("SeriesInstanceUID"))].append((path, header))
        files = _choose(found, series)
        places = [_place_of(header) for _, header in files]
        origins = steps = None
        if all(place is not None for place in places):
            known = [place for place in places if place is not None]
            normal = np.cross(known[0][1][:3], known[0][1][3:])
            order = np.argsort([position @ normal for position, _ in known], kind="stable")
            files = [files[index] for index in order]
            origins = np.array([known[index][0] for index in order])
            steps = _steps_of(files[0][1], known[order[0]][1], origins)
        prepare = _readable_header if keep_ids else anonymous_header
        headers = tuple(prepare(header) for _, header in files)
        return SourceSeries(origins, steps, tuple(path for path, _ in files), headers)


def save_result(result: Dataset, path: Path) -> None:
    """Writes a DICOM result.

    Raises:
        SeriesError: where a value from the headers cannot be written.
    """
    with values_stay_out_of_logs():
        try:
            result.save_as(path)
        except (MemoryError, OSError):
            raise
        except Exception:  # of many classes, with the value in its message
            raise SeriesError(
                "The headers of the series have values that DICOM cannot hold; leave the patient out."
            ) from None


def anonymous_header(header: Dataset) -> Dataset:
    """What places a result beside its images, and nothing of the patient, the study or the hospital.

    The UIDs are those of the images, as a reference must name them; whoever has these images can find the patient by
    them.
    """
    made = Dataset()
    for keyword in PLACEMENT:
        if keyword in header:
            made[keyword] = header[keyword]
    for keyword in EMPTY:
        setattr(made, keyword, "")
    made.ReferringPhysicianName = ""
    made.PatientName = made.PatientID = ANONYMOUS
    made.PatientIdentityRemoved, made.DeidentificationMethod = "YES", "Only UIDs and geometry of the images are kept"
    made.SpecificCharacterSet = "ISO_IR 192"
    return made


def _readable_header(header: Dataset) -> Dataset:
    """A header whose texts are Unicode, with what every DICOM file has of patient and study."""
    header.decode()
    header.SpecificCharacterSet = "ISO_IR 192"  # questions may have other letters than the patient's name
    for keyword in ("PatientID", "PatientName", "ReferringPhysicianName", *EMPTY):
        if keyword not in header:
            setattr(header, keyword, "")
    if header.PatientSex not in ("M", "F", "O", ""):
        header.PatientSex = ""
    return header


def _dicom_files(source: Path) -> list[Path]:
    """The DICOM files at a path, in the order of their names."""
    if not source.exists():
        raise SeriesError(f"{source.name} does not exist; check the path.")
    paths = [source] if source.is_file() else []
    for parent, folders, files in os.walk(source):
        folders.sort()
        paths += [Path(parent, file) for file in sorted(files) if not file.startswith(".")]
        if len(paths) > MOST_FILES:
            raise SeriesError(f"{source.name} holds over {MOST_FILES} files; give one series' folder.")
    found = [path for path in paths if path.is_file() and path.stat().st_size and identify(path) == "dicom"]
    if not found:
        raise SeriesError(f"{source.name} holds no DICOM file; give the folder of a series.")
    return found


def _read_header(path: Path) -> Dataset:
    try:
        return pydicom.dcmread(path, stop_before_pixels=True, force=True)
    except MemoryError:
        raise
    except Exception:  # of many classes
        raise SeriesError(f"{path.name} looks like DICOM but cannot be parsed; copy it again.") from None


def _choose(found: dict[str, list[tuple[Path, Dataset]]], asked: str | None) -> list[tuple[Path, Dataset]]:
    """The series with that number or UID, or the only one."""
    numbers = {uid: str(files[0][1].get("SeriesNumber", "")).strip() for uid, files in found.items()}
    fitting = [uid for uid in found if asked is None or asked in (uid, numbers[uid])]
    if not found:
        raise SeriesError("There are no images, only other DICOM files; give the folder of an image series.")
    if len(fitting) != 1:
        held = ", ".join(f"{numbers[uid] or 'without a number'} ({len(files)} files)" for uid, files in found.items())
        asked_for = "none of them or several have that number" if asked else "say which"
        raise SeriesError(f"There are {len(found)} series: {held}; {asked_for} (--series NUMBER or UID).")
    return found[fitting[0]]


def _place_of(header: Dataset) -> tuple[np.ndarray, np.ndarray] | None:
    """Position and orientation of a slice (PS3.3 C.7.6.2.1.1), None where its header does not say."""
    position = numbers_of(header, "ImagePositionPatient", 3)
    orientation = numbers_of(header, "ImageOrientationPatient", 6)
    return None if position is None or orientation is None else (position, orientation)


def _steps_of(header: Dataset, orientation: np.ndarray, origins: np.ndarray) -> np.ndarray | None:
    """The `steps` of a `SourceSeries`, None where the header gives no pixel spacing."""
    spacing = numbers_of(header, "PixelSpacing", 2)
    if spacing is None:
        return None
    row, column = orientation[:3], orientation[3:]
    if len(origins) > 1:
        step = (origins[-1] - origins[0]) / (len(origins) - 1)
    else:
        thickness = numbers_of(header, "SliceThickness", 1)
        step = np.cross(row, column) * (1.0 if thickness is None else thickness[0])
    return np.stack([row * spacing[1], column * spacing[0], step], axis=1)
