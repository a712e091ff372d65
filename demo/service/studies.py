# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Studies of the archives that the operator configured, for visitors: listed without the patient, fetched to be read.

A visitor names an archive of the operator's list, and a study or series by a code of a listing. No address and no UID
that a visitor types is asked for. A code is the beginning of the SHA-256 of the UID: who has the UID finds it in a
list, and nobody else learns from it.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from clinic.archive_media import NO_IMAGES, ArchiveMedia, Downloads, modality_code
from clinic.archive_settings import read_all_settings
from clinic.dicomweb import FetchLimits
from clinic.studies import Series
from hub_model.clip_omniv_med import MODALITY_CODES

MOST_LISTED = 200
"""Studies of a listing, however many there are."""
MOST_REMEMBERED = 20_000
"""Codes that are known; of more, those of the oldest listings are forgotten."""
CODE_DIGITS = 16


@dataclass(frozen=True)
class ListedStudy:
    """What a visitor learns of a study: no name, number, date or description, because any of these may be a patient's.

    Attributes:
        code: by which it is chosen.
        modalities: DICOM codes with spaces between.
        series, images: counts, 0 where the archive does not say.
    """

    code: str
    modalities: str
    series: int
    images: int


@dataclass(frozen=True)
class ListedSeries:
    """What a visitor learns of a series; as `ListedStudy`."""

    code: str
    modality: str
    images: int


@dataclass(frozen=True)
class _Place:
    archive: str
    study: str
    series: str = ""


class Studies:
    """The archives of an operator's YAML; threads may share it.

    Args:
        archives: the YAML.
        largest: bytes of one series at most.

    Attributes:
        names: of the archives.

    Raises:
        ValueError: the YAML is wrong, or a secret is missing.
    """

    def __init__(self, archives: Path, largest: int) -> None:
        self.names = [settings.name for settings in read_all_settings(archives)]
        self._media = ArchiveMedia(archives, limits=FetchLimits(max_bytes=largest))
        for name in self.names:
            self._media.archive(name)
        self._places: OrderedDict[str, _Place] = OrderedDict()
        self._lock = threading.Lock()

    def studies(self, archive: str, modality: str = "") -> list[ListedStudy]:
        """The first studies that an archive lists.

        Args:
            archive: one of `names`.
            modality: of these alone, a DICOM code or an everyday name.

        Raises:
            ValueError: another archive, or one that does not answer; the message is for the visitor.
        """
        if archive not in self.names:
            raise ValueError(f"There is no archive of that name; choose one of {', '.join(self.names)}.")
        code = modality_code(MODALITY_CODES.get(modality.strip().upper(), modality.strip().upper()))
        if modality.strip() and not code:
            raise ValueError("A modality is a code of DICOM, such as CT, MR or US.")
        filters = {"ModalitiesInStudy": code} if code else {}
        return [
            ListedStudy(
                self._code(_Place(archive, study.uid)),
                " ".join(filter(None, map(modality_code, study.modalities.split()))),
                study.series,
                study.instances,
            )
            for study in self._media.archive(archive).studies(filters, first=MOST_LISTED)
        ]

    def series(self, study: str) -> list[ListedSeries]:
        """The series with pictures of a study.

        Args:
            study: its code.

        Raises:
            ValueError: a code of no listing, or an archive that does not answer; the message is for the visitor.
        """
        place = self._place(study)
        return [
            ListedSeries(
                self._code(_Place(place.archive, place.study, one.uid)), modality_code(one.modality), one.instances
            )
            for one in self._media.archive(place.archive).series(place.study)
            if one.modality not in NO_IMAGES
        ]

    @contextmanager
    def files(self, series: str) -> Iterator[list[Path]]:
        """The files of a series while the block lasts; of its parts the one with the most instances.

        Args:
            series: its code.

        Raises:
            ValueError: as `series`; also a series over the limits.
        """
        place = self._place(series)
        if not place.series:
            raise ValueError("That is the code of a study; choose one of its series.")
        address = f"dicomweb://{place.archive}/studies/{place.study}/series/{place.series}"
        parts = [one for one in self._media.find(address) if isinstance(one, Series)]
        if not parts:
            raise ValueError("This series holds no pictures, or is larger than files may be here.")
        source = max(parts, key=lambda one: one.file_count).source
        with Downloads(self._media, [source]) as downloads, downloads.files(source) as files:
            yield [Path(file) for file in files]

    def _code(self, place: _Place) -> str:
        code = hashlib.sha256((place.series or place.study).encode()).hexdigest()[:CODE_DIGITS]
        with self._lock:
            self._places[code] = place
            self._places.move_to_end(code)
            while len(self._places) > MOST_REMEMBERED:
                self._places.popitem(last=False)
        return code

    def _place(self, code: object) -> _Place:
        with self._lock:
            place = self._places.get(code) if isinstance(code, str) else None
        if place is None:
            raise ValueError("There is no study or series of that code; list the studies again.")
        return place
