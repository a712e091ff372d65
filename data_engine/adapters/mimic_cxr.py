# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""MIMIC-CXR: the reports of chest X-ray studies, each with all of its pictures.

    mimic-cxr-2.0.0-split.csv or .csv.gz      columns dicom_id, study_id, subject_id, split
    files/p10/p10000032/s50414267/<dicom_id>.jpg or .dcm
    files/p10/p10000032/s50414267.txt         the report, here or below mimic-cxr-reports/

The answer is the report's findings and impression; what it says of the patient and of earlier visits elsewhere
(indication, history, comparison) is left out, because no picture shows it.
"""

from __future__ import annotations

import csv
import gzip
import re
from collections.abc import Iterator
from pathlib import Path

from data_engine.adapters.base import (
    Adapter,
    BrokenRow,
    MediaStore,
    Origin,
    Row,
    SourceError,
    entry_of,
    first_file,
    inside,
    listed,
    missing_files,
    seeded,
)
from data_engine.questions import REPORT_REQUESTS, pick_wording
from data_engine.records import Record

MIMIC_CXR = Origin("mimic-cxr", "PhysioNet Credentialed Health Data License 1.5.0")
SPLIT_FILES = ("mimic-cxr-2.0.0-split.csv", "mimic-cxr-2.0.0-split.csv.gz")
SPLIT_OF = {"train": "train", "validate": "validation", "test": "test"}
COLUMNS = ("dicom_id", "study_id", "subject_id", "split")
PICTURE_ENDINGS = (".jpg", ".dcm")
REPORT_FOLDERS = ("", "mimic-cxr-reports/")
HEADING = re.compile(r"^[ \t]*([A-Z][A-Z /,&()-]+|Findings|Impression|Conclusion)[ \t]*:", re.MULTILINE)
"""A section's heading: capitals before a colon at the start of a line; the ones that are used also in small letters."""
SECTION_OF = {"FINDING": "Findings", "IMPRESSION": "Impression", "CONCLUSION": "Impression"}
"""Word in a heading -> section; a heading of both ("FINDINGS AND IMPRESSION") counts as findings."""


def rows(folder: Path) -> Iterator[Row]:
    """One row a study, in the order of the split file."""
    file = first_file(folder, SPLIT_FILES)
    if file is None:
        raise missing_files(folder, f"{SPLIT_FILES[0]} of MIMIC-CXR-JPG")
    if not (folder / "files").is_dir():
        raise missing_files(folder, "folder files of MIMIC-CXR")
    for study, images in _studies(file).items():
        where = f"{file.name}, study {study}"
        subject, split = images[0]["subject_id"], images[0]["split"]
        if not all(image[name] for image in images for name in COLUMNS):
            yield Row(where, {"broken": "one of its rows is incomplete."})
        elif split not in SPLIT_OF:
            yield Row(where, {"broken": f"the split is {split!r}, not one of {', '.join(SPLIT_OF)}."})
        else:
            path = f"files/p{subject[:2]}/p{subject}/s{study}"
            entry = {"study": path, "pictures": [image["dicom_id"] for image in images]}
            yield listed(where, SPLIT_OF[split], study, entry)


def _studies(file: Path) -> dict[str, list[dict[str, str]]]:
    """The rows of the split file, one a picture, by study."""
    studies: dict[str, list[dict[str, str]]] = {}
    try:
        with (gzip.open if file.suffix == ".gz" else open)(file, "rt", encoding="utf-8", newline="") as lines:
            reader = csv.DictReader(lines)
            absent = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
            if absent:
                raise SourceError(f"{file} has no column {absent[0]!r}; it is not MIMIC-CXR's split file.")
            for image in reader:
                studies.setdefault(image["study_id"] or "", []).append(image)
    except (OSError, EOFError, UnicodeDecodeError, csv.Error):
        raise SourceError(f"{file} is damaged; download it again.") from None
    return studies


def sections(report: str) -> dict[str, str]:
    """The sections of findings and impression of a report, as far as it has them, each on one line."""
    found: dict[str, str] = {}
    headings = list(HEADING.finditer(report))
    ends = [heading.start() for heading in headings[1:]] + [len(report)]
    for heading, end in zip(headings, ends, strict=False):
        name = next((name for word, name in SECTION_OF.items() if word in heading[1].upper()), None)
        words = " ".join(report[heading.end() : end].split())
        if name and words and name not in found:
            found[name] = words
    return found


def records(row: Row, folder: Path, store: MediaStore) -> list[Record]:
    """One record a study."""
    entry = entry_of(row)
    inside(folder, entry["study"])
    report = first_file(folder, [f"{place}{entry['study']}.txt" for place in REPORT_FOLDERS])
    if report is None:
        raise BrokenRow(f"the report {Path(entry['study']).name}.txt is missing.")
    found = sections(report.read_text(encoding="utf-8", errors="replace"))
    if not found:
        raise BrokenRow("the report has no section of findings or impression.")
    answer = " ".join(f"{name}: {found[name]}" for name in ("Findings", "Impression") if name in found)
    media = []
    for picture in entry["pictures"]:
        paths = [f"{entry['study']}/{picture}{ending}" for ending in PICTURE_ENDINGS]
        path = next((path for path in paths if inside(folder, path).is_file()), paths[0])
        media.append(MIMIC_CXR.medium("image", folder, path, store))
    request = pick_wording(REPORT_REQUESTS, seeded(MIMIC_CXR.record_id(row)), kind="study")
    task = "report generation and captioning"
    return [MIMIC_CXR.record(row, media, [(request, answer)], modality="X-ray", task=task)]


ADAPTERS = (
    Adapter(
        MIMIC_CXR.source,
        "MIMIC-CXR reports",
        MIMIC_CXR.license,
        "https://physionet.org/content/mimic-cxr-jpg/",
        rows,
        records,
    ),
)
