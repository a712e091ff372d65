# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Finds the series in a folder, or in a list of files: what a batch run asks about, and what it passes over and why.

DICOM files are grouped by their headers alone, wherever they lie; of these, UIDs, modality and frame size are kept, the
description chooses questions, and nothing else is read. Every other file is a series, and a study, of its own. What an
archive holds `clinic.archive_media` finds.
"""

from __future__ import annotations

import csv
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet
import yaml
from pydicom.dataset import Dataset

from clinic.uids import is_uid
from hub_model.archives_omniv_med import unpack_archive
from hub_model.clip_omniv_med import MODALITY_CODES, MediaError, MediaLimits, ReadingOptions
from hub_model.dicom_files_omniv_med import frame_count, is_colour, modality_of, open_dicom
from hub_model.dicom_omniv_med import series_key
from hub_model.file_types_omniv_med import identify
from hub_model.library_guards_omniv_med import one_sentence_errors

MORE_TAGS = ("StudyInstanceUID", "SeriesDescription")
PATIENT_ID = "PatientID"
LIST_OPTIONS = ("kind", "modality", "spacing", "plane", "windows", "series", "volume_index", "max_frames", "fps")
"""Columns of a list that are arguments of `load_clip`."""
PATH, STUDY = "path", "study"
LIMITS = MediaLimits()


class StudiesError(ValueError):
    """A folder or list that cannot be used, in one sentence."""


@dataclass(frozen=True)
class ArchivedSeries:
    """A series in an archive, or those of its instances that the reader takes for one series.

    Attributes:
        archive: its name in the operator's YAML.
        study, series, instances: UIDs.
    """

    archive: str
    study: str
    series: str
    instances: tuple[str, ...]


@dataclass(frozen=True)
class Series:
    """One series: what the model is shown at a time.

    Attributes:
        study: StudyInstanceUID; the path of a file without one; what a list names it.
        series: SeriesInstanceUID, or "".
        part: what tells apart the series that the reader makes of one SeriesInstanceUID: the SOPInstanceUID of a
            multi-frame file, the frame size of others; "" for what is not DICOM.
        path: below the folder, or as the list gives it. "" for DICOM files of a folder, which their UIDs name: what
            exports call their folders may be a patient's name.
        source: what `load_clip` reads, or what is fetched for it from an archive.
        options: arguments of `load_clip` that a list gives.
        reading: arguments of `load_clip` that find the series in its source.
        modality: DICOM code, or "".
        description: SeriesDescription. It chooses questions, and goes into no output: people type into it.
        patient_id: PatientID, where it was asked for.
    """

    study: str
    source: str | tuple[str, ...] | ArchivedSeries
    series: str = ""
    part: str = ""
    path: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    reading: Mapping[str, Any] = field(default_factory=dict)
    modality: str = ""
    description: str = ""
    patient_id: str = ""

    @property
    def key(self) -> str:
        """Its name in a run: the same wherever the folder lies, and whatever else is in it."""
        options = json.dumps(dict(self.options), sort_keys=True) if self.options else ""
        return " ".join(dict.fromkeys(filter(None, (self.study, self.series, self.part, self.path, options))))

    @property
    def file_count(self) -> int:
        """How many files it is in."""
        if isinstance(self.source, ArchivedSeries):
            return len(self.source.instances)
        return 1 if isinstance(self.source, str) else len(self.source)

    @property
    def described(self) -> str:
        """What the pattern of a question is looked for in."""
        return self.description or self.path


@dataclass(frozen=True)
class Skipped:
    """A file that is nothing to ask about.

    Attributes:
        path: below the folder, or as the list gives it.
        reason: why, in words that many files share.
    """

    path: str
    reason: str


Found = Series | Skipped
InArchive = Callable[[str], Iterator[Found]]
"""Finds the series at an address of an archive."""
ADDRESS = "dicomweb://"
"""How addresses of an archive begin; see `clinic.archive_media`."""


def find_series(
    studies: str | Path,
    patient_ids: bool = False,
    progress: Callable[[], object] = lambda: None,
    in_archive: InArchive | None = None,
) -> tuple[list[Series], list[Skipped]]:
    """The series of a folder, a list (CSV or Parquet) or an archive, sorted by study; and what is passed over.

    Args:
        studies: a path, or the address of an archive.
        patient_ids: reads PatientID too; of archives, `in_archive` says whether it does.
        progress: called for every file that was looked at.
        in_archive: without it no address is looked up.

    Raises:
        StudiesError: a path or list that cannot be used.
    """
    tags, path = (*MORE_TAGS, PATIENT_ID) if patient_ids else MORE_TAGS, Path(studies)
    if is_address(studies):
        found = list(_in_archive(str(studies), in_archive))
    elif path.is_dir():
        found = list(_Finder(path, tags, progress).in_folder(path))
    elif path.is_file():
        found = list(_in_list(path, tags, progress, in_archive))
    else:
        raise StudiesError(f"{studies} is neither a folder nor a list of files; check the path.")
    return _sorted(found)


def is_address(source: str | Path) -> bool:
    """Whether it names an archive, and not a path."""
    return isinstance(source, str) and source.startswith(ADDRESS)


def _in_archive(address: str, in_archive: InArchive | None) -> Iterator[Found]:
    if in_archive is None:
        raise StudiesError(f"{address} is in an archive; give the YAML that names the archives (--archives).")
    return in_archive(address)


def _sorted(found: Iterable[Found]) -> tuple[list[Series], list[Skipped]]:
    """The series, each once, by their keys; and what is passed over."""
    found = list(found)
    series: dict[str, Series] = {}
    skipped = [one for one in found if isinstance(one, Skipped)]
    for one in found:
        if isinstance(one, Series) and series.setdefault(one.key, one) is not one:
            skipped.append(Skipped(one.path or one.series, "the same series, or file with the same options, again"))
    return sorted(series.values(), key=lambda one: one.key), skipped


class _Finder:
    """Looks through folders and files.

    Args:
        root: the folder that paths are given below.
        tags: elements of DICOM headers that are read beside those of every reading.
        progress: as in `find_series`.
    """

    def __init__(self, root: Path, tags: Sequence[str], progress: Callable[[], object]) -> None:
        self._root, self._tags, self._progress = root, tags, progress

    def in_folder(self, folder: Path) -> Iterator[Found]:
        """The series of a folder and of those below it."""
        dicom: list[Path] = []
        for parent, folders, files in os.walk(folder):
            for name in sorted(folders):
                if Path(parent, name).is_symlink():
                    yield Skipped(self._below(Path(parent, name)), "a link to a folder, which is not followed")
            folders[:] = sorted(name for name in folders if not name.startswith((".", "__MACOSX")))
            for name in sorted(files):
                self._progress()
                path = Path(parent, name)
                content, reason = ("", "a hidden file") if name.startswith(".") else _content_of(path)
                if content == "dicom":
                    dicom.append(path)
                elif reason:
                    yield Skipped(self._below(path), reason)
                else:
                    yield from self.in_file(path, content)
        yield from self._in_dicom(dicom)

    def in_file(self, path: Path, content: str) -> Iterator[Found]:
        """The series of one file, of a kind that `identify` tells."""
        if content == "dicom":
            yield from self._in_dicom([path])
        elif content == "zip":
            yield from self._in_archive(path)
        else:
            below = self._below(path)
            yield Series(below, os.fspath(path), path=below)

    def _in_dicom(self, paths: Sequence[Path]) -> Iterator[Found]:
        """DICOM files, grouped as the reader groups them."""
        groups: dict[tuple[object, ...], Series] = {}
        files: dict[tuple[object, ...], list[str]] = {}
        for path in paths:
            try:
                with one_sentence_errors(path.name):  # libraries warn of what they find in headers, and quote it
                    header = open_dicom(path, path.name, LIMITS, header_only=True, more=self._tags)
                    has_pixels = bool(header.get("Rows") and header.get("Columns"))
                    frames = frame_count(header, path.name)
                    one = self._described(header, path, frames)
                    key = (one.study, *series_key(header, path, frames)) if has_pixels else ()
            except MediaError:  # the reader says in its row what is wrong
                yield Series(self._below(path), os.fspath(path), path=self._below(path))
                continue
            if not has_pixels:
                yield Skipped(self._below(path), "DICOM without pixels: a report, an index, or a file cut short")
                continue
            groups.setdefault(key, one)
            files.setdefault(key, []).append(os.fspath(path))
        # A list even of one file: sentences about a list do not name files, which may be called after a patient.
        yield from (replace(one, source=tuple(files[key])) for key, one in groups.items())

    def _described(self, header: Dataset, path: Path, frames: int) -> Series:
        """What a header says of its series; a file without valid UIDs is known by where it lies."""
        study, series, instance = (
            _uid(header, name) for name in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
        )
        part = instance or path.name if frames > 1 else frame_size(header)
        place = "" if study and series else self._below(path.parent)
        return Series(
            study or place,
            os.fspath(path),
            series,
            part,
            place,
            modality=modality_of(header),
            description=str(header.get("SeriesDescription") or ""),
            patient_id=str(header.get(PATIENT_ID) or ""),
        )

    def _in_archive(self, path: Path) -> Iterator[Found]:
        """The DICOM series of a zip archive, each to be read out of it by its UID; else the archive as one series."""
        below = self._below(path)
        whole = Series(below, os.fspath(path), path=below)
        with tempfile.TemporaryDirectory(prefix="omniv_med_") as scratch:
            try:
                folder, _ = unpack_archive(path, path.name, LIMITS, Path(scratch))
            except (MediaError, OSError):  # the reader says in its row what is wrong
                yield whole
                return
            inside = _Finder(folder, self._tags, lambda: None).in_folder(folder)
            held = [one for one in inside if isinstance(one, Series) and one.series]
        by_uid: dict[str, list[Series]] = {}
        for one in held:
            by_uid.setdefault(one.series, []).append(one)
        if not by_uid:
            yield whole
        for uid, (one, *others) in by_uid.items():
            # Of several parts the reader takes the largest, and says so in a note.
            part = "" if others else one.part
            study, place = (below, below) if one.path else (one.study, "")
            yield replace(one, source=os.fspath(path), study=study, path=place, part=part, reading={"series": uid})

    def _below(self, path: Path) -> str:
        return path.relative_to(self._root).as_posix()


def _content_of(path: Path) -> tuple[str, str]:
    """What a file holds, or why it is passed over."""
    try:
        if not path.is_file():
            return "", "no file: a broken link, a socket or a device"
        if path.stat().st_size == 0:
            return "", "an empty file"
        content = identify(path)
    except OSError:
        return "", "a file that this user may not read"
    return content, "" if content else "no known medical image, volume or video, or the voxels of a header beside it"


def frame_size(header: Dataset) -> str:
    """Rows, columns and colour, which the slices of a volume share."""
    return f"{header.get('Rows')}x{header.get('Columns')}{' colour' if is_colour(header) else ''}"


def _uid(header: Dataset, keyword: str) -> str:
    """A UID, "" where there is none or what stands there is none."""
    value = str(header.get(keyword) or "")
    return value if is_uid(value) else ""


def _in_list(
    path: Path, tags: Sequence[str], progress: Callable[[], object], in_archive: InArchive | None
) -> Iterator[Found]:
    """The series of the files, folders and addresses in a list; paths are relative to the folder of the list."""
    for place, row in _rows_of(path):
        given, study = str(row.pop(PATH)), row.pop(STUDY, None)
        target = path.parent / given
        options = _options_of(row, f"{path}, {place}")
        if is_address(given):
            for one in _in_archive(given, in_archive):
                yield (
                    one
                    if isinstance(one, Skipped)
                    else replace(
                        one,
                        study=str(study) if study else one.study,
                        options=options,
                        modality=options.get("modality", one.modality),
                    )
                )
            continue
        finder = _Finder(target if target.is_dir() else target.parent, tags, progress)
        content, reason = ("folder", "") if target.is_dir() else _content_of(target)
        if not target.exists() or "series" in options:
            found: Iterator[Found] = iter([Series(given, os.fspath(target))])  # the reader says what is not there
        elif content == "folder":
            found = finder.in_folder(target)
        elif reason:
            found = iter([Skipped(given, reason)])
        else:
            found = finder.in_file(target, content)
        for one in found:
            if isinstance(one, Skipped):
                yield replace(one, path=given)
                continue
            # Files of a folder in a list that are not DICOM are told apart by where they lie in it.
            inner = given if not one.path or content != "folder" else f"{given}/{one.path}"
            yield replace(
                one,
                path=inner,
                study=str(study) if study else one.study if one.series else inner,
                options=options,
                modality=options.get("modality", one.modality),
            )


def _rows_of(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Where each row of a list stands, and its fields that are not empty; those of a CSV file are read as YAML is."""
    try:
        if path.suffix.lower() == ".parquet":
            rows: list[Mapping[str, Any]] = pyarrow.parquet.read_table(path).to_pylist()
        else:
            with path.open(encoding="utf-8-sig", newline="") as file:
                rows = list(csv.DictReader(file, restkey="more", strict=True))
    except (OSError, ValueError, csv.Error, pyarrow.ArrowException):
        raise StudiesError(f"{path} is no list: give a folder, or a CSV or Parquet file.") from None
    known = (PATH, STUDY, *LIST_OPTIONS)
    for number, row in enumerate(rows, start=1):
        place = f"row {number}"
        if unknown := [name for name in row if name not in known]:
            raise StudiesError(
                f"{path}: the column {unknown[0]!r} is not known; take it out. Known are {', '.join(known)}."
            )
        fields = {name: value for name, value in row.items() if value is not None and value != "" and value == value}
        if not str(fields.get(PATH, "")).strip():
            raise StudiesError(f"{path}, {place} has no path; give each row one in the column {PATH!r}.")
        yield place, fields


def _options_of(row: Mapping[str, Any], place: str) -> dict[str, Any]:
    """The reading options of a row, checked.

    Raises:
        StudiesError: a value that means nothing.
    """
    try:
        texts = ("modality", "series", "plane", "kind")  # the UID 1.2 is no number
        options = {
            name: yaml.safe_load(value) if isinstance(value, str) and name not in texts else value
            for name, value in row.items()
        }
        ReadingOptions.check(**options)
    except (MediaError, yaml.YAMLError) as error:
        sentence = str(error) if isinstance(error, MediaError) else "an option is not written as YAML."
        raise StudiesError(f"{place}: {sentence}") from None
    if "modality" in options:
        code = str(options["modality"]).strip().upper()
        options["modality"] = MODALITY_CODES.get(code, code)
    return options
