# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""MedXpertQA MM: examination questions about one or several pictures, with five choices (Zuo et al., arXiv 2501.18362).

    MM/dev.jsonl, MM/test.jsonl     one question a line
    images/                         the unpacked pictures of images.zip

A line: {"id": "MM-1", "question": "… Answer Choices: (A) x (B) y …", "options": {"A": "x", …, "E": "y"}, "label": "B",
"images": ["MM-1-a.jpeg"], "medical_task": "Diagnosis", "body_system": "Digestive", "question_type": "Reasoning"}. The
question's own list of choices is left out, as `options` holds them.
"""

from __future__ import annotations

import re
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
from data_engine.adapters.choices import answered, asked_in_lines, lettered
from data_engine.adapters.words import guess_modality, task_of
from data_engine.records import Record

MEDXPERTQA = Origin("medxpertqa-mm", "MIT")
FILES = {"validation": "MM/dev.jsonl", "test": "MM/test.jsonl"}
PICTURES = ("images", "MM/images")
LISTED_CHOICES = re.compile(r"\s*Answer Choices:\s*\(A\).*$", re.DOTALL)


def rows(folder: Path) -> Iterator[Row]:
    """The questions of both splits, or of the one that was downloaded."""
    files = {split: folder / name for split, name in FILES.items() if (folder / name).is_file()}
    if not files:
        raise missing_files(folder, "MM/test.jsonl of MedXpertQA")
    if not any((folder / name).is_dir() for name in PICTURES):
        raise missing_files(folder, "folder images; unpack images.zip there")
    for split, file in files.items():
        yield from json_rows(file, split)


def records(row: Row, folder: Path, store: MediaStore) -> list[Record]:
    """One record a question."""
    entry = entry_of(row)
    options, pictures = entry.get("options"), entry.get("images")
    if not isinstance(options, dict):
        raise BrokenRow("'options' is not an object of letters and words.")
    if not isinstance(pictures, list) or not pictures or not all(isinstance(one, str) for one in pictures):
        raise BrokenRow("'images' is not a list of pictures.")
    question = LISTED_CHOICES.sub("", text(entry, "question"))
    choices = lettered([options[letter] for letter in sorted(options)])
    place = next((folder / name for name in PICTURES if (folder / name).is_dir()), folder)
    media = [MEDXPERTQA.medium("image", place, one, store) for one in pictures]
    turns = [(asked_in_lines(question, choices), answered(text(entry, "label"), choices))]
    task = "diagnosis" if text(entry, "medical_task") == "Diagnosis" else task_of(question)
    return [MEDXPERTQA.record(row, media, turns, modality=guess_modality(question), task=task)]


ADAPTERS = (
    Adapter(
        MEDXPERTQA.source,
        "MedXpertQA MM",
        MEDXPERTQA.license,
        "https://huggingface.co/datasets/TsinghuaC3I/MedXpertQA",
        rows,
        records,
    ),
)
