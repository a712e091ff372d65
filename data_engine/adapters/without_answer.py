# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Questions without an answer in the picture, and small talk, about the pictures of other sources.

Pictures of a source's training split are asked about in training, those of its test split in the test, in wordings of
their own (`data_engine.unanswerable`). Of VQA-RAD the pictures of the test are left out, because its training split
shows them too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from data_engine.adapters import labelled_pictures, slake, vqa_rad
from data_engine.adapters.base import Adapter, MediaStore, Origin, Row, entry_of, seeded, text
from data_engine.adapters.hub_parquet import VQA_RAD
from data_engine.records import Medium, Record
from data_engine.unanswerable import Shown, small_talk, without_answer

QUESTIONS_PER_PICTURE = {"labelled-pictures": 2, "slake": 6, "vqa-rad": 6}
"""Source -> questions; CT, MRI and X-ray have few pictures, and are what visitors ask about most."""
TALK_SHARE = 0.25
"""Of the pictures: so many are talked to about something else as well."""
Show = Callable[[Row, Path, MediaStore], tuple[Origin, Medium, Shown]]
"""Puts a row's picture into the store, and says what is known of it."""


def _labelled(row: Row, folder: Path, store: MediaStore) -> tuple[Origin, Medium, Shown]:
    origin, medium = labelled_pictures.medium_of(row, folder, store)
    label = row.values["label"]
    return origin, medium, Shown(label.kind, label.modality, label.anatomy)


def _slake(row: Row, folder: Path, store: MediaStore) -> tuple[Origin, Medium, Shown]:
    entry = entry_of(row)
    medium = slake.SLAKE.medium("image", folder / "imgs", text(entry, "img_name"), store)
    modality = slake.MODALITY_OF.get(text(entry, "modality").upper(), "unknown")
    return slake.SLAKE, medium, Shown("image", modality, text(entry, "location").lower())


def _vqa_rad(row: Row, folder: Path, store: MediaStore) -> tuple[Origin, Medium, Shown]:
    entry = entry_of(row)
    origin = VQA_RAD
    medium = origin.medium("image", folder / row.values["pictures"], text(entry, "image_name"), store)
    return origin, medium, Shown("image", row.values["modality"], vqa_rad.anatomy(row))


def rows(folder: Path, *, source: Adapter, picture: str) -> Iterator[Row]:
    """One row a picture, of the split that shows it; a picture of two splits of SLAKE or VQA-RAD is passed over.

    Args:
        picture: the field that names it.
    """
    first: dict[str, Row] = {}
    splits: dict[str, set[str]] = {}
    for row in source.rows(folder):
        entry = row.values.get("entry", {})
        # Of SLAKE, the English questions alone divide the pictures. Rows of the Hub's VQA-RAD do not name theirs.
        if entry.get(picture) and entry.get("q_lang", "en") == "en":
            name = str(entry[picture])
            first.setdefault(name, row)
            splits.setdefault(name, set()).add(row.values["split"])
    yield from (row for name, row in first.items() if len(splits[name]) == 1)


def records(row: Row, folder: Path, store: MediaStore, *, name: str, questions: int, show: Show) -> list[Record]:
    """A few records, each of one question.

    Args:
        questions: how many are asked about the picture, small talk aside.
    """
    own, medium, shown = show(row, folder, store)
    origin = Origin(name, own.license)
    split = row.values["split"]
    rng = seeded(f"{name}/{medium.path}")
    asked = without_answer(shown, split, questions, rng)
    if rng.random() < TALK_SHARE:
        asked.append(small_talk(split, rng))
    return [
        origin.record(
            row,
            [medium],
            [(one.question, one.answer)],
            modality=shown.modality,
            task=one.task,
            part=one.about.replace(" ", "-"),
            reply=one.reply,
        )
        for one in asked
    ]


def _adapter(source: Adapter, picture: str, show: Show) -> Adapter:
    name = f"unanswerable-{source.name}"
    return Adapter(
        name,
        f"Questions without an answer on {source.title}",
        source.license,
        source.homepage,
        partial(rows, source=source, picture=picture),
        partial(records, name=name, questions=QUESTIONS_PER_PICTURE[source.name], show=show),
    )


ADAPTERS = (
    _adapter(labelled_pictures.ADAPTERS[0], "file", _labelled),
    _adapter(slake.ADAPTERS[0], "img_name", _slake),
    _adapter(vqa_rad.ADAPTERS[0], "image_name", _vqa_rad),
)
