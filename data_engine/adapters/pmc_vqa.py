# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""PMC-VQA, version 2: `train_2.csv`, `test_2.csv` and the folder `figures/` (or `images/`) of unpacked figures.

Columns: index, Figure_path, Caption, Question, Choice A, Choice B, Choice C, Choice D, Answer (a letter), split. A
figure's modality is the one that its caption names, if it names just one.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from data_engine.adapters.base import (
    Adapter,
    MediaStore,
    Origin,
    Row,
    entry_of,
    missing_files,
    table_rows,
    text,
)
from data_engine.adapters.choices import answered, asked, choices_of
from data_engine.adapters.words import guess_modality, task_of
from data_engine.records import Record

PMC_VQA = Origin("pmc-vqa", "CC-BY-SA (see homepage)")
FILES = {"train": "train_2.csv", "test": "test_2.csv"}
FIGURES = ("figures", "images")


def _figures(folder: Path) -> Path:
    found = next((folder / name for name in FIGURES if (folder / name).is_dir()), None)
    if found is None:
        raise missing_files(folder, "folder figures; unpack images_2.zip under this name")
    return found


def rows(folder: Path) -> Iterator[Row]:
    """The rows of both splits, or of the one that was downloaded."""
    files = {split: folder / name for split, name in FILES.items() if (folder / name).is_file()}
    if not files:
        raise missing_files(folder, "train_2.csv or test_2.csv of PMC-VQA")
    _figures(folder)
    for split, file in files.items():
        yield from table_rows(file, split)


def records(row: Row, folder: Path, store: MediaStore) -> list[Record]:
    """One record a row."""
    entry = entry_of(row)
    question, choices = text(entry, "Question"), choices_of(entry)
    answer = answered(text(entry, "Answer"), choices)
    medium = PMC_VQA.medium("image", _figures(folder), text(entry, "Figure_path"), store)
    modality = guess_modality(entry.get("Caption") or "")
    turns = [(asked(question, choices), answer)]
    return [PMC_VQA.record(row, [medium], turns, modality=modality, task=task_of(question))]


ADAPTERS = (
    Adapter(
        PMC_VQA.source,
        "PMC-VQA",
        PMC_VQA.license,
        "https://huggingface.co/datasets/RadGenome/PMC-VQA",
        rows,
        records,
    ),
)
