# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""3D-RAD: six tasks about chest CT volumes of CT-RATE (Gai et al., arXiv 2506.11147).

    test/Task1_Image_Observation/*.csv … test/Task6_Longitudinal_Temporal_Diagnosis/*.csv, train/… likewise
    valid_path.csv (and train_path.csv, if training is wanted): VolumeName, Path

Columns: Task, Subtask, VolumeName, Question, Answer, QuestionType ("Open" or "Close"), AnswerChoice, Choice A, …,
Choice D; a cell that is not used holds "-". `Path` names the volume as an array in M3D's layout, from the folder on, or
as its authors' machine had it; its end then decides. The folder may also be the repository, with both splits below
3DRAD/. Questions with the choices Yes and No are asked without them.

Tasks 5 and 6 ask about one volume; what was seen before stands in the words of task 6.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path, PurePosixPath

from data_engine.adapters.base import (
    CLOSED_ANSWERS,
    Adapter,
    BrokenRow,
    MediaStore,
    Origin,
    Row,
    closed,
    entry_of,
    first_file,
    missing_files,
    table_rows,
    text,
)
from data_engine.adapters.choices import LETTERS, answered, asked, choices_of
from data_engine.records import Record, Task

# Its Hub page says Apache-2.0, its repository MIT; the volumes are CT-RATE's.
RAD_3D = Origin("3d-rad", "CC-BY-NC-SA-4.0 (volumes; see homepage)")
UNUSED = "-"
ROOTS = ("", "3DRAD")
PATHS = {"test": ("valid_path.csv", "test_path.csv"), "train": ("train_path.csv",)}
TASK_OF: dict[str, Task] = {
    "Task1": "anatomy recognition",
    "Task2": "abnormality detection",
    "Task3": "counting and measurement",
    "Task4": "abnormality detection",
    "Task5": "temporal and procedure understanding",
    "Task6": "temporal and procedure understanding",
}
"""Beginning of a task's folder -> task."""
TASK_OF_FILE: dict[str, Task] = {
    "Pathological_observation": "abnormality detection",
    "Abnormality_position": "localization",
    "Diagnosis": "diagnosis",
}
"""Files of the first two tasks that ask something else than their folder."""


def rows(folder: Path) -> Iterator[Row]:
    """The rows of all tasks, split by split; a split without the table of its volumes is left out."""
    found = [
        (split, file)
        for split in PATHS
        for root in ROOTS
        for file in sorted((folder / root / split).glob("Task[1-6]_*/*.csv"))
    ]
    if not found:
        raise missing_files(folder, "test/Task1_*/*.csv of 3D-RAD")
    found = [(split, file) for split, file in found if _table(folder, split) is not None]
    if not found:
        raise missing_files(folder, "valid_path.csv, which names the volumes of 3D-RAD's test")
    for split, file in found:
        for row in table_rows(file, split, prefix=f"{file.parent.name}/{file.stem}/"):
            yield Row(row.where, {**row.values, "task": file.parent.name, "file": file.stem})


def _table(folder: Path, split: str) -> Path | None:
    return first_file(folder, [f"{root}/{name}" if root else name for root in ROOTS for name in PATHS[split]])


# Every row of a split looks its volume up in the same table.
@lru_cache(maxsize=2)
def _paths(table: Path) -> dict[str, str]:
    with table.open(encoding="utf-8-sig", newline="") as file:
        return {str(one.get("VolumeName")): str(one.get("Path")) for one in csv.DictReader(file)}


def _volume(name: str, split: str, folder: Path) -> str:
    """Where a volume lies, from the folder on."""
    table = _table(folder, split)
    path = _paths(table).get(name) if table is not None else None
    if path is None:
        raise BrokenRow(f"the volume {name} has no path in {PATHS[split][0]}.")
    parts = PurePosixPath(path).parts
    ends = (PurePosixPath(*parts[first:]).as_posix() for first in range(len(parts)) if parts[first] != "/")
    return next((end for end in ends if (folder / end).is_file()), PurePosixPath(path).name)


def records(row: Row, folder: Path, store: MediaStore) -> list[Record]:
    """One record a row."""
    entry = entry_of(row)
    question, answer, kind = text(entry, "Question"), text(entry, "Answer"), text(entry, "QuestionType")
    if kind not in ("Open", "Close"):
        raise BrokenRow(f"'QuestionType' is {kind!r}, neither Open nor Close.")
    offered = [entry.get(f"Choice {letter}") or UNUSED for letter in LETTERS]
    if kind == "Close" and UNUSED not in offered:
        choices = choices_of(entry)
        turn = asked(question, choices), answered(text(entry, "AnswerChoice"), choices)
    else:
        turn = question, closed(answer)
        if kind == "Close" and turn[1] not in CLOSED_ANSWERS:
            raise BrokenRow(f"the answer is {answer!r}, neither Yes nor No, and there are no four choices.")
    medium = RAD_3D.medium("volume", folder, _volume(text(entry, "VolumeName"), row.values["split"], folder), store)
    task = TASK_OF_FILE.get(row.values["file"]) or TASK_OF[row.values["task"][:5]]
    return [RAD_3D.record(row, [medium], [turn], modality="CT", task=task)]


ADAPTERS = (
    Adapter(
        RAD_3D.source,
        "3D-RAD",
        RAD_3D.license,
        "https://huggingface.co/datasets/Tang-xiaoxiao/3D-RAD",
        rows,
        records,
    ),
)
