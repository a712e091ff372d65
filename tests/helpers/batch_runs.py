# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""What the tests of batch runs share: questions, command lines, and the rows of a run."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet

from clinic.batch import ANSWERS
from clinic.questions import Questions
from clinic.studies import find_series
from clinic.tasks import Task, tasks_about
from data_engine.ledger import read_lines

QUESTIONS = """\
max_new_tokens: 4
reading: {max_frames: 8}
questions:
  - {id: modality, ask: "Which imaging modality is this?"}
  - {id: lesion, ask: "Is there a lesion?", answer: yes/no}
  - {id: bone, ask: "Is there a fracture?", modality: CT, reading: {windows: bone}}
"""


def write_questions(folder: Path) -> Path:
    """The file of the questions above."""
    path = folder / "questions.yaml"
    path.write_text(QUESTIONS, encoding="utf-8")
    return path


def arguments(studies: Path, questions: Path, out: Path, model: Path, *more: str) -> list[str]:
    return [str(studies), "--questions", str(questions), "--out", str(out), "--model", str(model), *more]


def rows_in(out: Path, name: str = ANSWERS) -> list[dict[str, Any]]:
    """The rows of a run's ledger, without its settings."""
    return [row for _, row in read_lines(out / name) if row is not None and "id" in row]


def without_seconds(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def table_of(out: Path) -> list[dict[str, Any]]:
    """The rows of a finished run in the order of its studies, without the seconds."""
    return without_seconds(pyarrow.parquet.read_table(out / "answers.parquet").to_pylist())


def few_tasks(studies: Path, questions: Path, folder: Path, *names: str) -> list[Task]:
    """The tasks about some of the files."""
    for name in names:
        shutil.copy(studies / name, folder / name)
    return tasks_about(find_series(folder)[0], Questions.read(questions))[0]
