# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The rows of a batch run as files: a Parquet table, one JSON file for each study, and a page about the run."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from clinic.studies import Skipped
from clinic.uids import is_uid
from data_engine.files import write_atomically

PARQUET, STUDIES, REPORT, THUMBNAILS = "answers.parquet", "studies", "report.html", "thumbnails"
TEXT, WHOLE, REAL, TRUTH = pyarrow.string(), pyarrow.int64(), pyarrow.float64(), pyarrow.bool_()
COLUMNS = {
    "id": TEXT,
    "study": TEXT,
    "series": TEXT,
    "part": TEXT,
    "path": TEXT,
    "question": TEXT,
    "asked": TEXT,
    "answer": TEXT,
    "value": TEXT,
    "confidence": REAL,
    "declined": TRUTH,
    "likeliest": TEXT,
    "error": TEXT,
    "kind": TEXT,
    "modality": TEXT,
    "frames": WHOLE,
    "source_frames": WHOLE,
    "tokens_kept": WHOLE,
    "tokens_total": WHOLE,
    "seconds": REAL,
    "notes": pyarrow.list_(TEXT),
    "model": TEXT,
    "code": TEXT,
}
"""Columns of the table, and of the rows of answers.jsonl; docs/hospital.md says what each holds."""
PATIENT_ID = "patient_id"
BINS = 10
"""Bars of the histogram of confidences, each a tenth wide."""
MOST_FAILURES, MOST_VALUES = 1000, 8
"""What the page lists of failures in all, and of the values that a question was given."""


@dataclass(frozen=True)
class QuestionFigures:
    """What the page says of one question.

    Attributes:
        id, asked: its name and its words.
        answers, declined, without_value: rows with an answer; of these, those that decline; of the others, those
            whose answer could not be read as what was asked for.
        values: the most frequent values, with how often each came.
        bars: for each tenth of confidence, the number of answers; all 0 where it is not known.
    """

    id: str
    asked: str
    answers: int
    declined: int
    without_value: int
    values: list[tuple[str, int]]
    bars: list[int]


def write_results(
    out: Path, rows: Sequence[Mapping[str, Any]], settings: Mapping[str, Any], skipped: Sequence[Skipped]
) -> None:
    """Writes all results of a run; each file appears whole or not at all.

    Args:
        out: the folder of the run.
        rows: of its ledger.
        settings: of its ledger.
        skipped: what was passed over.
    """
    write_table(out / PARQUET, rows)
    (out / STUDIES).mkdir(exist_ok=True)
    by_study: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        by_study.setdefault(row["study"], []).append(row)
    for study, held in by_study.items():
        text = json.dumps(study_record(study, held), indent=1, ensure_ascii=False) + "\n"
        _write_text(out / STUDIES / f"{study_file_name(study)}.json", text)
    drawn = {path.name for path in (out / THUMBNAILS).iterdir()} if (out / THUMBNAILS).is_dir() else set()
    _write_text(out / REPORT, page(rows, settings, skipped, drawn))


def _write_text(path: Path, text: str) -> None:
    with write_atomically(path) as part:
        part.write_text(text, encoding="utf-8")


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """The rows as Parquet, with the same columns whatever the rows hold; patient ids only where some have one."""
    columns = dict(COLUMNS)
    if any(PATIENT_ID in row for row in rows):
        columns[PATIENT_ID] = TEXT
    table = pyarrow.Table.from_pylist(
        [{name: row.get(name) for name in columns} for row in rows], schema=pyarrow.schema(columns.items())
    )
    with write_atomically(path) as part:
        pyarrow.parquet.write_table(table, part)


def study_file_name(study: str) -> str:
    """A UID as it is; of any other name, a digest, because it may be a path."""
    return study if is_uid(study) else hashlib.sha256(study.encode()).hexdigest()[:16]


def thumbnail_name(row_id: str) -> str:
    """The name of the file that belongs to a row: a digest, because the id may hold a path."""
    return f"{hashlib.sha256(row_id.encode()).hexdigest()[:16]}.jpg"


def _series_of(row: Mapping[str, Any]) -> str:
    """The key of a row's series; of a list, one path with other options is another."""
    key: str = row["id"].rpartition(" ? ")[0]
    return key


def study_record(study: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One study's answers, series by series."""
    of_series = ("series", "part", "path", PATIENT_ID)
    of_run = ("study", "id", "model", "code")
    series = []
    for _, held in itertools.groupby(rows, key=_series_of):
        answered = list(held)
        facts = {name: value for row in answered for name, value in row.items() if name in of_series}
        answers = [
            {name: value for name, value in row.items() if name not in (*of_series, *of_run)} for row in answered
        ]
        series.append({**facts, "answers": answers})
    return {"study": study, "model": rows[0]["model"], "code": rows[0]["code"], "series": series}


def figures_of(rows: Sequence[Mapping[str, Any]]) -> list[QuestionFigures]:
    """What is said of each question, in the order in which they were first asked."""
    by_question: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        if "error" not in row:
            by_question.setdefault(row["question"], []).append(row)
    figures = []
    for name, held in by_question.items():
        told = [row for row in held if not row["declined"]]
        bars = [0] * BINS
        for row in held:
            if row["confidence"] is not None:
                bars[min(int(row["confidence"] * BINS), BINS - 1)] += 1
        figures.append(
            QuestionFigures(
                id=name,
                asked=held[0]["asked"],
                answers=len(held),
                declined=len(held) - len(told),
                without_value=sum(row["value"] is None for row in told),
                values=Counter(row["value"] for row in told if row["value"] is not None).most_common(MOST_VALUES),
                bars=bars,
            )
        )
    return figures


def page(
    rows: Sequence[Mapping[str, Any]], settings: Mapping[str, Any], skipped: Sequence[Skipped], drawn: Container[str]
) -> str:
    """The report of a run as one HTML page.

    Args:
        rows, settings, skipped: as in `write_results`.
        drawn: names of the thumbnails that are there.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    failures = [row for row in rows if "error" in row]
    # Tokens belong to a series, and each of its rows repeats them.
    tokens = {_series_of(row): row for row in rows if "error" not in row}.values()
    return environment.get_template("report.html.jinja").render(
        studies=len({row["study"] for row in rows}),
        series=len({_series_of(row) for row in rows}),
        answers=len(rows) - len(failures),
        declined=sum(bool(row.get("declined")) for row in rows),
        seconds=sum(row["seconds"] for row in rows),
        kept=sum(row["tokens_kept"] for row in tokens),
        total=sum(row["tokens_total"] for row in tokens),
        figures=figures_of(rows),
        failures=failures[:MOST_FAILURES],
        failed=len(failures),
        seen=[(row, name) for row in rows if (name := thumbnail_name(row["id"])) in drawn],
        skipped=Counter(one.reason for one in skipped).most_common(),
        settings=settings,
    )
