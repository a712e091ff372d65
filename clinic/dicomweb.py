# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Lists studies and series of a DICOMweb archive, fetches a series into a folder, and stores results.

python -m clinic.dicomweb --archives archives.yaml list radiology --modality CT
python -m clinic.dicomweb --archives archives.yaml fetch radiology STUDY SERIES --out series
python -m clinic.dicomweb --archives archives.yaml store radiology results/answers.dcm

QIDO-RS, WADO-RS and STOW-RS are parts of PS3.18. The package dicomweb-client speaks them; here is what an archive may
do (limits, retries, resuming), and what is shown of it: no names and numbers of patients unless asked for.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pydicom
import requests
from dicomweb_client import DICOMwebClient
from pydicom.dataset import Dataset
from requests.auth import HTTPBasicAuth
from tqdm import tqdm

from clinic.archive_settings import ArchiveError, ArchiveSettings, read_settings
from clinic.guarded_session import GuardedSession, RefusedError
from clinic.source_series import values_stay_out_of_logs
from clinic.uids import is_uid
from data_engine.commands import OneLineParser, UsageError

LISTING_BYTES = 1 << 26
"""Of one listing, however many pages it has; a series of 20,000 instances takes a tenth of it."""
PAGE = 500
"""Matches that are asked for at once; servers have limits of their own."""
MOST_MATCHES = 20_000

Result = TypeVar("Result")


@dataclass(frozen=True)
class StudyListing:
    """A study as an archive lists it; the patient is "" unless asked for."""

    uid: str
    date: str
    modalities: str
    description: str
    series: int
    instances: int
    patient_name: str = ""
    patient_id: str = ""


@dataclass(frozen=True)
class SeriesListing:
    """A series as an archive lists it."""

    uid: str
    number: str
    modality: str
    description: str
    instances: int


@dataclass(frozen=True)
class FetchLimits:
    """What one series may be.

    Attributes:
        max_instances: files; checked before anything is fetched.
        max_bytes: of all files together; checked before by what the archive says of the pixels, where it says so, and
            while they come.
    """

    max_instances: int = 20_000
    max_bytes: int = 4 * 2**30


class TooLargeError(ArchiveError):
    """A listing or series beyond the limits."""


class Archive:
    """One DICOMweb archive.

    Args:
        settings: where it is and how it is asked.
        environment: where the secrets are.

    Raises:
        ArchiveError: where a secret is missing. Its methods raise it for whatever the archive does wrong.
    """

    def __init__(self, settings: ArchiveSettings, environment: Mapping[str, str] = os.environ) -> None:
        self.settings = settings
        verify = str(settings.ca_file) if settings.ca_file else True
        self._session = GuardedSession(verify, settings.request_seconds)
        secrets = settings.secrets(environment)
        if settings.authorization == "basic":
            self._session.auth = HTTPBasicAuth(secrets[0].encode(), secrets[1].encode())
        elif settings.authorization == "bearer":
            self._session.headers["Authorization"] = f"Bearer {secrets[0]}"
        try:
            self._client = DICOMwebClient(settings.url.rstrip("/"), self._session, timeout=(10, 30))
        except ValueError:
            raise ArchiveError(f"The archive {settings.name} has a url that is not understood; check it.") from None
        self._client.set_http_retry_params(retry=False)  # it does not ask again after a broken connection; we do

    @classmethod
    def read(cls, path: Path, name: str) -> Archive:
        """The archive with that name in an operator's YAML (see `clinic.archive_settings`)."""
        return cls(read_settings(path, name))

    def studies(
        self, filters: Mapping[str, str], show_patients: bool = False, first: int | None = None
    ) -> list[StudyListing]:
        """Studies that match.

        Args:
            filters: values by DICOM keyword, as QIDO-RS takes them: {"ModalitiesInStudy": "CT", "PatientID": "4711"}.
            show_patients: whether the listing names the patients.
            first: so many are enough; without it all are listed, and too many are an error.
        """
        fields = ["StudyDate", "ModalitiesInStudy", "StudyDescription"]
        fields += ["NumberOfStudyRelatedSeries", "NumberOfStudyRelatedInstances"]
        fields += ["PatientName", "PatientID"] if show_patients else []

        def page(**paging: Any) -> list[dict[str, Any]]:
            return self._client.search_for_studies(search_filters=dict(filters), fields=fields, **paging)

        return [
            StudyListing(
                uid=_text(found, "StudyInstanceUID"),
                date=_text(found, "StudyDate"),
                modalities=_text(found, "ModalitiesInStudy"),
                description=_text(found, "StudyDescription"),
                series=_number(found, "NumberOfStudyRelatedSeries"),
                instances=_number(found, "NumberOfStudyRelatedInstances"),
                patient_name=_text(found, "PatientName") if show_patients else "",
                patient_id=_text(found, "PatientID") if show_patients else "",
            )
            for found in self._matches(page, "StudyInstanceUID", MOST_MATCHES, first)
        ]

    def series(self, study: str) -> list[SeriesListing]:
        """The series of a study."""
        _check_uids(study)
        fields = ["SeriesNumber", "Modality", "SeriesDescription", "NumberOfSeriesRelatedInstances"]

        def page(**paging: Any) -> list[dict[str, Any]]:
            return self._client.search_for_series(study, fields=fields, **paging)

        return [
            SeriesListing(
                uid=_text(found, "SeriesInstanceUID"),
                number=_text(found, "SeriesNumber"),
                modality=_text(found, "Modality"),
                description=_text(found, "SeriesDescription"),
                instances=_number(found, "NumberOfSeriesRelatedInstances"),
            )
            for found in self._matches(page, "SeriesInstanceUID", MOST_MATCHES)
        ]

    def fetch_series(
        self,
        study: str,
        series: str,
        folder: Path,
        limits: FetchLimits | None = None,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> list[Path]:
        """Fetches a series into a folder, an instance a file, for `load_clip`; files that are there stay as they are.

        A file gets its name when it is whole, so a fetch that was interrupted is resumed by the same call.

        Args:
            study, series: their UIDs.
            folder: made where it does not exist; use one for each series.
            limits: default: `FetchLimits()`.
            progress: called with the instances that are there and those of the series.
        """
        _check_uids(study, series)
        limits = limits or FetchLimits()
        uids = [_text(item, "SOPInstanceUID") for item in self.instances(study, series, limits)]
        return self.fetch_instances(study, series, uids, folder, limits, progress)

    def fetch_instances(
        self,
        study: str,
        series: str,
        instances: Sequence[str],
        folder: Path,
        limits: FetchLimits | None = None,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> list[Path]:
        """Fetches instances of a series, given by their UIDs, as `fetch_series` does."""
        _check_uids(study, series, *instances)
        limits = limits or FetchLimits()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            paths = [folder / f"{uid}.dcm" for uid in instances]
            there = {path for path in paths if path.is_file()}
            left = limits.max_bytes - sum(path.stat().st_size for path in there)
            for done, (uid, path) in enumerate(zip(instances, paths, strict=True)):
                progress(done, len(paths))
                if path not in there:
                    self._session.bytes_left = left
                    self._fetch_instance(study, series, uid, path)
                    left = self._session.bytes_left
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise ArchiveError(f"The folder {folder.name} cannot be written ({reason}); give another.") from None
        progress(len(paths), len(paths))
        return paths

    def store(self, paths: Sequence[Path]) -> None:
        """Stores DICOM files by STOW-RS, one a request."""
        for path in paths:
            with values_stay_out_of_logs():
                try:
                    dataset = pydicom.dcmread(path)
                except Exception:  # of many classes
                    raise ArchiveError(
                        f"{path.name} is no DICOM file that can be read; nothing of it is stored."
                    ) from None
            self._session.bytes_left = LISTING_BYTES

            def store(dataset: Dataset = dataset) -> Dataset:
                return self._client.store_instances([dataset])

            answer = self._ask(store)
            if answer.get("FailedSOPSequence"):
                raise ArchiveError(f"The archive {self.settings.name} refused to store {path.name}.")

    def instances(self, study: str, series: str, limits: FetchLimits | None = None) -> list[Dataset]:
        """The instances of a series, where they are within the limits.

        Returns:
            For each, its UID and what the archive says of its pixels: SOPInstanceUID, Rows, Columns, NumberOfFrames,
            SamplesPerPixel, PhotometricInterpretation, BitsAllocated.
        """
        _check_uids(study, series)
        limits = limits or FetchLimits()
        fields = ["NumberOfFrames", "Rows", "Columns", "BitsAllocated", "SamplesPerPixel", "PhotometricInterpretation"]

        def page(**paging: Any) -> list[dict[str, Any]]:
            return self._client.search_for_instances(study, series, fields=fields, **paging)

        found = self._matches(page, "SOPInstanceUID", limits.max_instances)
        if not found:
            raise ArchiveError(f"The archive {self.settings.name} has no such series; list the study's series.")
        _check_uids(*(_text(item, "SOPInstanceUID") for item in found))
        claimed = sum(
            _number(item, "Rows")
            * _number(item, "Columns")
            * max(_number(item, "NumberOfFrames"), 1)
            * max(_number(item, "SamplesPerPixel"), 1)
            * _number(item, "BitsAllocated")
            // 8
            for item in found
        )
        if claimed > limits.max_bytes:
            raise TooLargeError(
                f"The series has {claimed} bytes of pixels, over the limit of {limits.max_bytes}; nothing is fetched."
            )
        return found

    def _matches(
        self, page: Callable[..., list[dict[str, Any]]], key: str, most: int, first: int | None = None
    ) -> list[Dataset]:
        """All pages of a search, each match once, or the `first`; a server that repeats itself is at its end."""
        self._session.bytes_left = LISTING_BYTES
        found: dict[str, Dataset] = {}
        while True:

            def ask(offset: int = len(found)) -> list[Dataset]:
                return [Dataset.from_json(item) for item in page(limit=min(PAGE, first or PAGE), offset=offset)]

            before, answer = len(found), self._ask(ask)
            for item in answer:
                uid = _text(item, key)
                if not uid:
                    raise ArchiveError(f"The archive {self.settings.name} lists entries without their {key}.")
                found.setdefault(uid, item)
            if len(found) > most:
                raise TooLargeError(
                    f"The archive {self.settings.name} lists more than {most} entries, the limit; ask for fewer."
                )
            if len(found) == before or (first is not None and len(found) >= first):
                return list(found.values())[:first]

    def _fetch_instance(self, study: str, series: str, uid: str, path: Path) -> None:
        """Fetches one instance and writes it, in the encoding in which the archive has it."""
        dataset = self._ask(lambda: self._client.retrieve_instance(study, series, uid))
        if (dataset.get("SOPInstanceUID"), dataset.get("SeriesInstanceUID")) != (uid, series):
            raise ArchiveError(f"The archive {self.settings.name} sent another instance than it was asked for.")
        unfinished = path.with_name(f".{path.name}")  # no reader takes it for a slice
        try:
            with values_stay_out_of_logs():
                dataset.save_as(unfinished)
        except (MemoryError, OSError):
            raise
        except Exception:  # of many classes, as whatever encodes a value finds what is wrong with it
            raise ArchiveError(f"The archive {self.settings.name} sent a damaged instance; ask its operator.") from None
        os.replace(unfinished, path)

    def _ask(self, request: Callable[[], Result]) -> Result:
        """Makes a request, again where the server fails or cannot be reached, with growing pauses."""
        name, wait, problem = self.settings.name, self.settings.first_wait_seconds, ""
        for attempt in range(self.settings.attempts):
            if attempt:
                time.sleep(wait)
                wait *= 2
            with self._one_sentence_errors():
                try:
                    return request()
                except requests.exceptions.SSLError:
                    raise  # it will be no better in a second
                except (requests.ConnectionError, requests.Timeout):
                    problem = f"The archive {name} cannot be reached or breaks off; try again later."
                except requests.HTTPError as error:
                    if (status := _status(error)) < 500:
                        raise
                    problem = f"The archive {name} has an error of its own (status {status})."
        raise ArchiveError(problem)

    @contextmanager
    def _one_sentence_errors(self) -> Iterator[None]:
        """Around requests: `ArchiveError` for whatever is wrong, without a word that the server wrote."""
        name = self.settings.name
        try:
            with values_stay_out_of_logs():
                yield
        except (ArchiveError, MemoryError):
            raise
        except RefusedError as refused:
            raise ArchiveError(f"The archive {name} {refused}.") from None
        except requests.exceptions.SSLError:
            raise ArchiveError(f"The certificate of the archive {name} is not trusted; name its ca_file.") from None
        except requests.HTTPError as error:
            status = _status(error)
            reasons = {
                401: "does not accept the user, password or token",
                403: "does not allow this",
                404: "has no such",
            }
            reason = reasons.get(status, "does not accept the request")
            raise ArchiveError(f"The archive {name} {reason} (status {status}).") from None
        except Exception:  # of many classes: what JSON, multipart and DICOM parsers find in what is none
            raise ArchiveError(
                f"The archive {name} answers with something that is not DICOMweb; check its url."
            ) from None


def _status(error: requests.HTTPError) -> int:
    """The status of an answer, 0 where there was none."""
    return 0 if error.response is None else error.response.status_code


def _text(found: Dataset, keyword: str) -> str:
    """An element of a listing in one line."""
    value = found.get(keyword)
    values = value if isinstance(value, (list, pydicom.multival.MultiValue)) else [value]
    text = " ".join(str(one) for one in values if one is not None)
    return "".join(letter if letter.isprintable() else "?" for letter in text)[:200]


def _number(found: Dataset, keyword: str) -> int:
    """A count of a listing, 0 where the archive does not say."""
    value = found.get(keyword)
    return int(value) if isinstance(value, (int, float)) and value > 0 else 0


def _check_uids(*uids: str) -> None:
    """UIDs become names of files and parts of addresses, so they are nothing else."""
    if not all(is_uid(uid) for uid in uids):
        raise ArchiveError("A UID has digits and points only, 64 at most; copy it from a listing.")


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Reads the command line; raises `UsageError` for what it cannot mean."""
    parser = OneLineParser(
        prog="python -m clinic.dicomweb", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--archives", type=Path, required=True, metavar="FILE", help="YAML that names the archives")
    commands = parser.add_subparsers(dest="command", required=True)
    listing = commands.add_parser("list", help="list studies, or the series of one")
    listing.add_argument("name", help="archive in the YAML")
    listing.add_argument("--study", help="UID of the study whose series are listed")
    listing.add_argument("--patient-id", help="of this patient alone")
    listing.add_argument("--date", help="YYYYMMDD, or two with a hyphen between")
    listing.add_argument("--modality", help="studies with this modality, such as CT")
    listing.add_argument("--show-patients", action="store_true", help="with names and numbers of the patients")
    fetch = commands.add_parser("fetch", help="fetch a series; the same command resumes one that was interrupted")
    fetch.add_argument("name", help="archive in the YAML")
    fetch.add_argument("study", help="UID")
    fetch.add_argument("series", help="UID")
    fetch.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of this series alone")
    fetch.add_argument("--max-instances", type=int, default=FetchLimits.max_instances)
    fetch.add_argument("--max-bytes", type=int, default=FetchLimits.max_bytes)
    store = commands.add_parser("store", help="store DICOM files, such as results")
    store.add_argument("name", help="archive in the YAML")
    store.add_argument("files", type=Path, nargs="+")
    return parser.parse_args(arguments)


def listing(archive: Archive, options: argparse.Namespace) -> Iterator[str]:
    """The lines of `list`, with tabs between the columns."""
    if options.study:
        yield "series\tnumber\tmodality\tinstances\tdescription"
        for item in archive.series(options.study):
            yield f"{item.uid}\t{item.number}\t{item.modality}\t{item.instances}\t{item.description}"
        return
    asked = {"PatientID": options.patient_id, "StudyDate": options.date, "ModalitiesInStudy": options.modality}
    patients = "\tpatient\tname" if options.show_patients else ""
    yield f"study\tdate\tmodalities\tseries\tinstances\tdescription{patients}"
    filters = {keyword: value for keyword, value in asked.items() if value}
    for study in archive.studies(filters, options.show_patients):
        patient = f"\t{study.patient_id}\t{study.patient_name}" if options.show_patients else ""
        counts = f"{study.series}\t{study.instances}"
        yield f"{study.uid}\t{study.date}\t{study.modalities}\t{counts}\t{study.description}{patient}"


def run(options: argparse.Namespace) -> None:
    """Runs one command."""
    archive = Archive.read(options.archives, options.name)
    if options.command == "list":
        for line in listing(archive, options):
            print(line)
    elif options.command == "fetch":
        limits = FetchLimits(options.max_instances, options.max_bytes)
        with tqdm(unit=" instances", disable=None) as bar:

            def progress(done: int, total: int) -> None:
                bar.total = total
                bar.update(done - bar.n)

            paths = archive.fetch_series(options.study, options.series, options.out, limits, progress)
        print(f"{len(paths)} instances are in {options.out}.")
    else:
        archive.store(options.files)
        print(f"{len(options.files)} files were stored.")


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit code: 0, or 2 with one line on stderr."""
    try:
        run(parse_arguments(arguments))
    except (ArchiveError, UsageError) as error:
        print("dicomweb:", " ".join(str(error).split()), file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
