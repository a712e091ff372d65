# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""DeepTumorVQA 2.0: questions about abdominal CT, with four choices and without (Chen et al., arXiv 2505.18915).

    benchmark/test_qa.json (its list under "questions") or benchmark/test_qa.jsonl
    benchmark/ct/<image_id>/ct.nii.gz

An entry: {"qid": "bench_1", "image_id": "BDMAP_00000001", "spacing": "[0.8 0.8 5.0]", "shape": "(512, 512, 90)",
"question": "…", "answer": "210 cm3", "mc_question": "… A: … B: … C: … D: …", "correct_option": "A", "organ": "spleen",
"question_type": "measurement", "question_subtype": "organ volume measurement"}. Questions of measurement are asked with
spacing and shape, as the benchmark does, because a model sees neither in resized slices.
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
    SourceError,
    closed,
    entry_of,
    first_file,
    json_rows,
    listed,
    missing_files,
    read_json,
    text,
)
from data_engine.adapters.choices import LETTERS, answered, asked, lettered
from data_engine.records import Record, Task

LICENSE = "CC-BY-4.0 (annotations; volumes by source)"
CHOICES, FREE = Origin("deeptumorvqa", LICENSE), Origin("deeptumorvqa-free", LICENSE)
FILES = ("benchmark/test_qa.json", "benchmark/test_qa.jsonl")
OPTIONS = re.compile(r"^(?P<question>.*?)\s*\bA: (.*?)\s+B: (.*?)\s+C: (.*?)\s+D: (.*)$", re.DOTALL)
TASK_OF: dict[str, Task] = {
    "recognition": "abnormality detection",
    "measurement": "counting and measurement",
    "visual reasoning": "counting and measurement",
    "medical reasoning": "diagnosis",
}


def rows(folder: Path) -> Iterator[Row]:
    """The entries of the test."""
    file = first_file(folder, FILES)
    if file is None:
        raise missing_files(folder, f"{FILES[0]} of DeepTumorVQA 2.0")
    if file.suffix == ".jsonl":
        yield from json_rows(file, "test")
        return
    content = read_json(file)
    entries = content.get("questions") if isinstance(content, dict) else None
    if not isinstance(entries, list):
        raise SourceError(f'{file} should hold an object with a list "questions".')
    for number, entry in enumerate(entries, 1):
        yield listed(f"{file.name}, entry {number}", "test", str(number), entry)


def records_with_choices(row: Row, folder: Path, store: MediaStore) -> list[Record]:
    """One record an entry, with its choices."""
    entry = entry_of(row)
    found = OPTIONS.match(text(entry, "mc_question"))
    if found is None:
        raise BrokenRow(f"'mc_question' does not list the choices {', '.join(LETTERS)}.")
    choices = lettered(found.groups()[1:])
    return one_record(CHOICES, row, folder, store, found["question"], text(entry, "correct_option"), choices)


def records_with_free_answers(row: Row, folder: Path, store: MediaStore) -> list[Record]:
    """One record an entry, with its answer in words or as a number."""
    entry = entry_of(row)
    answer = closed(text(entry, "answer"))
    return one_record(FREE, row, folder, store, text(entry, "question"), answer, None)


def one_record(
    origin: Origin,
    row: Row,
    folder: Path,
    store: MediaStore,
    question: str,
    answer: str,
    choices: dict[str, str] | None,
) -> list[Record]:
    """The record of a question in either form."""
    entry = entry_of(row)
    kind = text(entry, "question_type").replace("_", " ").lower()
    if kind not in TASK_OF:
        raise BrokenRow(f"'question_type' is {kind!r}, not one of {', '.join(TASK_OF)}.")
    if kind == "measurement":
        question += f" The voxels' spacing is {text(entry, 'spacing')} mm, the volume's shape {text(entry, 'shape')}."
    medium = origin.medium("volume", folder, f"benchmark/ct/{text(entry, 'image_id')}/ct.nii.gz", store)
    turn = (question, answer) if choices is None else (asked(question, choices), answered(answer, choices))
    return [origin.record(row, [medium], [turn], modality="CT", task=TASK_OF[kind])]


ADAPTERS = tuple(
    Adapter(origin.source, title, LICENSE, "https://huggingface.co/datasets/tumor-vqa/DeepTumorVQA_2.0", rows, convert)
    for origin, title, convert in (
        (CHOICES, "DeepTumorVQA 2.0", records_with_choices),
        (FREE, "DeepTumorVQA 2.0, free answers", records_with_free_answers),
    )
)
