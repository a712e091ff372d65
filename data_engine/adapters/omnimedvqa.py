# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""OmniMedVQA, its open part: two to four choices about pictures of many sources (Hu et al., CVPR 2024).

    QA_information/Open-access/*.json     lists of entries, one file a source
    Images/                               the pictures

An entry: {"question_type": "Modality Recognition", "question": "…", "gt_answer": "CT", "image_path":
"Images/S/a.png", "option_A": "CT", "option_B": "MR", "modality_type": "CT(Computed Tomography)"}; C and D may be
absent. Where two choices have the right answer's words, the last one counts, as in MedEvalKit. The restricted part
comes without pictures and is left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from data_engine.adapters.base import (
    Adapter,
    BrokenRow,
    MediaStore,
    Origin,
    Row,
    entry_of,
    json_rows,
    missing_files,
    text,
)
from data_engine.adapters.choices import LETTERS, answered, asked_in_lines, lettered
from data_engine.adapters.words import guess_modality, task_of
from data_engine.records import Record, Task

OMNIMEDVQA = Origin("omnimedvqa", "by source (see homepage)")
TASK_OF: dict[str, Task] = {
    "modality recognition": "modality recognition",
    "anatomy identification": "anatomy recognition",
    "disease diagnosis": "diagnosis",
    "lesion grading": "severity grading",
}
"""Question type -> task; the words of the question tell the task of "Other Biological Attributes"."""


def rows(folder: Path) -> Iterator[Row]:
    """The entries of all sources."""
    files = sorted((folder / "QA_information" / "Open-access").glob("*.json"))
    if not files:
        raise missing_files(folder, "QA_information/Open-access/*.json of OmniMedVQA; unpack OmniMedVQA.zip there")
    for file in files:
        yield from json_rows(file, "test", prefix=f"{file.stem}/")


def records(row: Row, folder: Path, store: MediaStore) -> list[Record]:
    """One record an entry."""
    entry = entry_of(row)
    question, answer = text(entry, "question"), " ".join(text(entry, "gt_answer").split())
    choices = lettered([entry[f"option_{letter}"] for letter in LETTERS if entry.get(f"option_{letter}")])
    right = [letter for letter, words in choices.items() if words == answer]
    if not right:
        raise BrokenRow(f"the answer {answer[:80]!r} is none of the choices.")
    kind = str(entry.get("modality_type", ""))
    modality = "microscopy" if kind.lower().startswith("microscopy") else guess_modality(kind)
    task = TASK_OF.get(str(entry.get("question_type", "")).lower()) or task_of(question)
    medium = OMNIMEDVQA.medium("image", folder, text(entry, "image_path"), store)
    turns = [(asked_in_lines(question, choices), answered(right[-1], choices))]
    return [OMNIMEDVQA.record(row, [medium], turns, modality=modality, task=task)]


ADAPTERS = (
    Adapter(
        OMNIMEDVQA.source,
        "OmniMedVQA",
        OMNIMEDVQA.license,
        "https://huggingface.co/datasets/foreverbeliever/OmniMedVQA",
        rows,
        records,
    ),
)
