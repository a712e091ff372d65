# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""SLAKE, English and Chinese: `train.json`, `validate.json` (`validation.json` on the Hub), `test.json`, `imgs/`.

An entry: {"img_id", "img_name": "xmlab1/source.jpg", "question", "answer", "q_lang": "en" or "zh", "location",
"modality", "answer_type": "OPEN" or "CLOSED", "base_type", "content_type", "triple", "qid"}.
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
    closed,
    entry_of,
    first_file,
    json_rows,
    missing_files,
    text,
)
from data_engine.records import Record

SLAKE = Origin("slake", "CC-BY-4.0")
FILES = {"train": ("train.json",), "validation": ("validation.json", "validate.json"), "test": ("test.json",)}
MODALITY_OF = {"CT": "CT", "MRI": "MRI", "X-RAY": "X-ray"}
TASK_OF = {
    "modality": "modality recognition",
    "plane": "view/plane identification",
    "organ": "anatomy recognition",
    "abnormality": "abnormality detection",
    "position": "localization",
    "size": "counting and measurement",
    "quantity": "counting and measurement",
    "color": "anatomy recognition",
    "shape": "anatomy recognition",
    # Questions on the knowledge graph: diseases that an organ may have, their causes and treatment.
    "kg": "diagnosis",
}
"""Content type in lower case -> task; colour and shape are asked of organs."""
LANGUAGES = ("en", "zh")


def rows(folder: Path) -> Iterator[Row]:
    """The entries of all splits that were downloaded."""
    files = {split: first_file(folder, names) for split, names in FILES.items()}
    if not any(files.values()):
        raise missing_files(folder, "train.json, validation.json or test.json of SLAKE")
    if not (folder / "imgs").is_dir():
        raise missing_files(folder, "folder imgs; unpack imgs.zip there")
    for split, file in files.items():
        if file is not None:
            yield from json_rows(file, split)


def records(row: Row, folder: Path, store: MediaStore) -> list[Record]:
    """One record an entry."""
    entry = entry_of(row)
    question, answer, language = text(entry, "question"), text(entry, "answer"), text(entry, "q_lang")
    if language not in LANGUAGES:
        raise BrokenRow(f"'q_lang' is {language!r}, not one of {', '.join(LANGUAGES)}.")
    content, modality = text(entry, "content_type"), text(entry, "modality")
    if content.lower() not in TASK_OF:
        raise BrokenRow(f"'content_type' is {content!r}, which SLAKE does not have.")
    medium = SLAKE.medium("image", folder / "imgs", text(entry, "img_name"), store)
    return [
        SLAKE.record(
            row,
            [medium],
            [(question, closed(answer))],
            modality=MODALITY_OF.get(modality.upper(), "unknown"),
            task=TASK_OF[content.lower()],
            language=language,
        )
    ]


ADAPTERS = (
    Adapter(SLAKE.source, "SLAKE", SLAKE.license, "https://huggingface.co/datasets/BoKelvin/SLAKE", rows, records),
)
