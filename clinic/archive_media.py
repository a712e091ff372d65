# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Series of an archive as media: found by an address, fetched for as long as they are read, and deleted again.

    media = ArchiveMedia(Path("archives.yaml"))
    clip = media.load_clip("dicomweb://radiology/studies/1.2.840.1/series/1.2.840.1.5", plane="coronal")

An address names an archive of the operator's YAML, never a server. A whole archive is `dicomweb://radiology/studies`,
which QIDO-RS's queries narrow: `?ModalitiesInStudy=CT&StudyDate=20240101-20240131`.
"""

from __future__ import annotations

import re
import shutil
import tempfile
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from pydicom.dataset import Dataset

from clinic.archive_settings import ArchiveError, read_settings
from clinic.dicomweb import Archive, FetchLimits, SeriesListing, TooLargeError
from clinic.studies import ADDRESS, ArchivedSeries, Found, Series, Skipped, frame_size
from clinic.uids import is_uid
from hub_model.clip_omniv_med import Clip
from hub_model.dicom_files_omniv_med import number_of
from hub_model.media_omniv_med import load_clip

FILTERS = ("AccessionNumber", "ModalitiesInStudy", "PatientID", "StudyDate", "StudyDescription")
"""By which studies are chosen, as DICOM calls them."""
NO_IMAGES = frozenset({"SR", "SEG", "PR", "KO", "DOC", "RTSTRUCT", "RTPLAN", "RTRECORD", "REG", "FID", "ECG", "AU"})
"""Modalities of series that hold no pictures, or what was made about pictures."""
MODALITY = re.compile(r"[A-Z0-9_ ]{1,16}")
"""A code (PS3.3 C.7.3.1.1.1); what else an archive says goes into no table."""
PATH = re.compile(r"(?:/studies(?:/(?P<study>[^/]+)(?:/series/(?P<series>[^/]+))?)?)?/?")


@dataclass(frozen=True)
class Address:
    """What `dicomweb://NAME/studies/STUDY/series/SERIES` says; its later parts may be missing.

    Attributes:
        archive: name in the operator's YAML.
        study, series: UIDs, or "".
        filters: by which studies are chosen where none is named.
    """

    archive: str
    study: str
    series: str
    filters: Mapping[str, str]

    @classmethod
    def parse(cls, text: str) -> Address:
        """Reads an address.

        Raises:
            ArchiveError: for anything else.
        """
        example = f"{ADDRESS}NAME/studies/STUDY/series/SERIES"
        parts = urlsplit(text)
        found = PATH.fullmatch(parts.path)
        if not text.startswith(ADDRESS) or not parts.netloc or found is None:
            raise ArchiveError(f"The address of an archive is {example}, with the UIDs of a listing.")
        study, series = found["study"] or "", found["series"] or ""
        if not all(is_uid(uid) for uid in (study, series) if uid):
            raise ArchiveError(f"The address of an archive is {example}; a UID has digits and points only.")
        filters = dict(parse_qsl(parts.query, keep_blank_values=True))
        if unknown := [name for name in filters if name not in FILTERS or study]:
            raise ArchiveError(
                f"Studies are not chosen by {unknown[0]} here; a whole archive may be searched by {', '.join(FILTERS)}."
            )
        return cls(parts.netloc, study, series, filters)


class ArchiveMedia:
    """The archives of an operator's YAML, as sources of `clinic.batch` and of `load_clip`; threads may share it.

    Args:
        settings: the YAML.
        patient_ids: whether found series say whose they are.
        limits: of one series.
        progress: called for every series that was looked at.
    """

    def __init__(
        self,
        settings: Path,
        patient_ids: bool = False,
        limits: FetchLimits | None = None,
        progress: Callable[[], object] = lambda: None,
    ) -> None:
        self._settings, self._patient_ids, self._progress = settings, patient_ids, progress
        self._limits = limits or FetchLimits()

    def archive(self, name: str) -> Archive:
        """A connection of its own to an archive, because one cannot be shared between threads."""
        return Archive(read_settings(self._settings, name))

    def find(self, text: str) -> Iterator[Found]:
        """The series at an address, as a folder with the same files gives them.

        Raises:
            ArchiveError: of the address, or whatever the archive does wrong.
        """
        address = Address.parse(text)
        archive = self.archive(address.archive)
        filters = {"StudyInstanceUID": address.study} if address.study else address.filters
        found = False
        for study in archive.studies(filters, show_patients=self._patient_ids):
            patient = study.patient_id
            for listing in archive.series(study.uid):
                if address.series in ("", listing.uid):
                    found = True
                    self._progress()
                    yield from self._in_series(archive, study.uid, listing, patient)
        if not found and address.study:
            raise ArchiveError(f"The archive {address.archive} has no such study or series; list what it has.")

    def _in_series(self, archive: Archive, study: str, listing: SeriesListing, patient: str) -> Iterator[Found]:
        """What the reader makes of a series: volumes of slices of one size, and each multi-frame file alone."""
        if listing.modality in NO_IMAGES:
            yield Skipped(listing.uid, f"a series without pictures, or with results about some ({listing.modality})")
            return
        try:
            instances = archive.instances(study, listing.uid, self._limits)
        except TooLargeError:
            yield Skipped(listing.uid, "a series of more instances or bytes than are fetched")
            return
        parts: dict[str, list[str]] = defaultdict(list)
        says_sizes = any(instance.get("Rows") for instance in instances)
        for instance in instances:
            uid = str(instance.SOPInstanceUID)
            if says_sizes and not (instance.get("Rows") and instance.get("Columns")):
                yield Skipped(uid, "DICOM without pixels: a report, an index, or a file cut short")
                continue
            parts[_part_of(instance) if says_sizes else ""].append(uid)
        for part, uids in parts.items():
            yield Series(
                study,
                ArchivedSeries(archive.settings.name, study, listing.uid, tuple(uids)),
                listing.uid,
                part,
                modality=modality_code(listing.modality),
                description=listing.description,
                patient_id=patient,
            )

    def fetch(self, source: ArchivedSeries, folder: Path) -> list[str]:
        """Fetches a series into a folder; its files, for `load_clip`.

        Raises:
            ArchiveError: whatever the archive does wrong.
        """
        archive = self.archive(source.archive)
        paths = archive.fetch_instances(source.study, source.series, source.instances, folder, self._limits)
        return [str(path) for path in paths]

    def load_clip(self, address: str, read: Callable[..., Clip] = load_clip, **options: Any) -> Clip:
        """`load_clip` of the series at an address. Of its parts the one with the most instances is read.

        Args:
            address: of one series, `dicomweb://NAME/studies/STUDY/series/SERIES`.
            read: what reads the files, such as an `IsolatedReader`'s `load_clip`.
            options: of `load_clip`.

        Raises:
            ArchiveError: of the address, or whatever the archive does wrong.
            MediaError: as `load_clip`.
        """
        if not Address.parse(address).series:
            raise ArchiveError("The address names no series; a clip is read from one.")
        found = list(self.find(address))
        series = [one for one in found if isinstance(one, Series)]
        if not series:
            reasons = {one.reason for one in found if isinstance(one, Skipped)}
            raise ArchiveError(f"The series holds nothing that is read: {', '.join(sorted(reasons))}.")
        largest = max(series, key=lambda one: one.file_count)
        with Downloads(self, [largest.source]) as downloads, downloads.files(largest.source) as files:
            return read(files, **options)


class Downloads:
    """The files of a run's series, each fetched when it is first read and deleted when it was read for the last time.

    They lie in a folder that this user alone can read, and that goes with the run. A kill without notice leaves it in
    the system's folder for temporary files.

    Args:
        media: the archives; None where no source is in one.
        uses: every source that will be read, as often as it will be.
    """

    def __init__(self, media: ArchiveMedia | None, uses: Iterable[object]) -> None:
        self._media = media
        self._left = Counter(one for one in uses if isinstance(one, ArchivedSeries))
        self._folder = tempfile.TemporaryDirectory(prefix="omniv_med_archive_")
        self._lock = threading.Lock()
        self._own: defaultdict[ArchivedSeries, threading.Lock] = defaultdict(threading.Lock)

    def __enter__(self) -> Downloads:
        return self

    def __exit__(self, *error: object) -> None:
        self._folder.cleanup()

    @contextmanager
    def files(self, source: str | tuple[str, ...] | ArchivedSeries) -> Iterator[str | list[str]]:
        """What `load_clip` reads of a source, while the block lasts; paths are as they are.

        Raises:
            ArchiveError: whatever the archive does wrong; a later use fetches what is missing.
        """
        if not isinstance(source, ArchivedSeries):
            yield source if isinstance(source, str) else list(source)
            return
        if self._media is None:
            raise ArchiveError("The series is in an archive; give the YAML that names the archives (--archives).")
        folder = Path(self._folder.name, source.series, source.instances[0])
        try:
            with self._lock:
                own = self._own[source]
            with own:
                files = self._media.fetch(source, folder)
            yield files
        finally:
            with self._lock:
                self._left[source] -= 1
                is_last = self._left[source] <= 0
            if is_last:
                shutil.rmtree(folder, ignore_errors=True)


def modality_code(text: str) -> str:
    """A modality of a listing, "" for what is no code."""
    return text if MODALITY.fullmatch(text) else ""


def _part_of(instance: Dataset) -> str:
    """What tells apart the series that the reader makes of one SeriesInstanceUID; as `Series.part`."""
    frames = number_of(instance, "NumberOfFrames") or 1
    return str(instance.SOPInstanceUID) if frames > 1 else frame_size(instance)
