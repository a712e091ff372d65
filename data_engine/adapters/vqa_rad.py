# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""VQA-RAD as its authors published it, as papers split it, or as its Hub folder; whichever of these a folder holds.

    VQA_RAD Dataset Public.json, VQA_RAD Image Folder/synpic….jpg     the authors' own, of the Open Science Framework
    trainset.json, testset.json, images/synpic….jpg                   the same questions in two files, as papers use
    data/train-….parquet, data/test-….parquet                         the Hub's, see `hub_parquet`

An entry: {"qid", "image_name": "synpic….jpg", "image_organ": "HEAD", "CHEST" or "ABD", "question", "answer",
"answer_type": "OPEN" or "CLOSED", "question_type": "PRES", "phrase_type": "freeform"}; in the authors' own file the
phrase types of the test begin with "test_".

All 203 pictures of the test stand in training too, with other questions. A tenth or so of the training questions, those
about a fifth of the pictures that the test does not show, become the validation split, which the set does not have.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from data_engine.adapters import hub_parquet
from data_engine.adapters.base import (
    Adapter,
    BrokenRow,
    MediaStore,
    Row,
    closed,
    entry_of,
    first_file,
    json_rows,
    missing_files,
    seeded,
    text,
)
from data_engine.adapters.hub_parquet import VQA_RAD
from data_engine.adapters.words import guess_modality, task_of
from data_engine.records import Record, Task

WHOLE = ("VQA_RAD Dataset Public.json",)
SPLIT_FILES = {"train": ("trainset.json",), "test": ("testset.json",)}
PICTURE_FOLDERS = ("VQA_RAD Image Folder", "images")
VALIDATION_SHARE = 0.2
"""Of the pictures that only training shows."""
TASK_OF: dict[str, Task] = {
    "PRES": "abnormality detection",
    "ABN": "abnormality detection",
    "POS": "localization",
    "SIZE": "counting and measurement",
    "COUNT": "counting and measurement",
    "MODALITY": "modality recognition",
    "PLANE": "view/plane identification",
    "ORGAN": "anatomy recognition",
}
"""First question type -> task; the words of the question tell the task of the others (attribute, colour, other)."""
ANATOMY_OF = {"HEAD": "head", "CHEST": "chest", "ABD": "abdomen"}


def rows(folder: Path) -> Iterator[Row]:
    """The entries of both splits, with the modality that the questions about the picture tell."""
    whole = first_file(folder, WHOLE)
    files = {split: first_file(folder, names) for split, names in SPLIT_FILES.items()}
    if whole is None and not any(files.values()):
        if any(folder.glob("data/*.parquet")):
            yield from hub_parquet.rows(folder)
            return
        raise missing_files(
            folder, f"{WHOLE[0]}, trainset.json or testset.json of VQA-RAD, nor the Hub's data/*.parquet"
        )
    pictures = picture_folder(folder)
    listed = list(json_rows(whole, "train")) if whole else []
    for split, file in files.items():
        if whole is None and file is not None:
            listed += json_rows(file, split)
    split_of = [_split(row) for row in listed]
    tested = {_picture(row) for row, split in zip(listed, split_of, strict=True) if split == "test"}
    modality_of = _modalities(listed)
    # Questions about one picture follow each other, so that a build reads it once.
    for row, split in sorted(zip(listed, split_of, strict=True), key=lambda item: _picture(item[0])):
        if "broken" in row.values:
            yield row
            continue
        name = _picture(row)
        if split == "train" and name not in tested and seeded(f"vqa-rad/{name}").random() < VALIDATION_SHARE:
            split = "validation"
        modality = modality_of.get(name, "unknown")
        yield Row(row.where, {**row.values, "split": split, "modality": modality, "pictures": pictures})


def picture_folder(folder: Path) -> str:
    """The name of the folder of pictures; raises `SourceError` where there is none."""
    for name in PICTURE_FOLDERS:
        if (folder / name).is_dir():
            return name
    raise missing_files(folder, "folder 'VQA_RAD Image Folder' or 'images'; unpack the pictures of VQA-RAD there")


def _split(row: Row) -> str:
    """The row's split; in the authors' own file the phrase type tells it."""
    phrase = str(row.values.get("entry", {}).get("phrase_type", ""))
    return "test" if phrase.startswith("test_") else row.values.get("split", "")


def _picture(row: Row) -> str:
    return str(row.values.get("entry", {}).get("image_name", ""))


def _modalities(listed: list[Row]) -> dict[str, str]:
    """Picture -> the modality that most open questions about it are answered with; pictures without such are absent."""
    told: dict[str, Counter[str]] = {}
    for row in listed:
        entry = row.values.get("entry", {})
        question = str(entry.get("question", ""))
        if str(entry.get("question_type", "")).startswith("MODALITY") and " not " not in question.lower():
            modality = guess_modality(str(entry.get("answer", "")))
            if modality != "unknown":
                told.setdefault(_picture(row), Counter())[modality] += 1
    return {name: counts.most_common(1)[0][0] for name, counts in told.items()}


def records(row: Row, folder: Path, store: MediaStore) -> list[Record]:
    """One record an entry."""
    if "shard" in row.values:
        return hub_parquet.records(row, folder, store, origin=VQA_RAD, modality=None)
    entry = entry_of(row)
    question, answer = " ".join(text(entry, "question").split()), closed(text(entry, "answer"))
    kind = text(entry, "question_type").split(",")[0].strip().upper()
    medium = VQA_RAD.medium("image", folder / row.values["pictures"], text(entry, "image_name"), store)
    task = TASK_OF.get(kind) or task_of(question)
    return [VQA_RAD.record(row, [medium], [(question, answer)], modality=row.values["modality"], task=task)]


def anatomy(row: Row) -> str:
    """The region that a row's picture shows; raises `BrokenRow` for one that VQA-RAD does not have."""
    organ = text(entry_of(row), "image_organ").upper()
    if organ not in ANATOMY_OF:
        raise BrokenRow(f"'image_organ' is {organ!r}, not one of {', '.join(ANATOMY_OF)}.")
    return ANATOMY_OF[organ]


ADAPTERS = (
    Adapter(
        VQA_RAD.source,
        "VQA-RAD",
        VQA_RAD.license,
        "https://huggingface.co/datasets/flaviagiammarino/vqa-rad",
        rows,
        records,
    ),
)
