# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Image-text matching made from the captions of another source: does this text belong to this scan, yes or no?

Half of the questions, by a seed, quote the caption of another record of the same split and modality. A caption that
says nearly the same, as two normal reports do, is no counterexample and is passed over.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from rapidfuzz import fuzz

from data_engine.adapters.base import Adapter, BrokenRow, MediaStore, Origin, Row, seeded
from data_engine.questions import MATCHING, pick_wording
from data_engine.records import Record

LENDERS = 8
"""Other rows that are tried for a false caption; they may be of another modality, broken, or say the same."""
HIGHEST_LIKENESS = 70.0
"""RapidFuzz `token_sort_ratio` (0 to 100) of two captions above which one does not contradict the other."""


def rows(folder: Path, *, source: Adapter, name: str) -> Iterator[Row]:
    """The source's rows; half of them, by a seed, with the rows that may lend them a false caption."""
    captions = list(source.rows(folder))
    by_split: dict[str, list[Row]] = {}
    for row in captions:
        if "broken" not in row.values:
            by_split.setdefault(row.values["split"], []).append(row)
    for row in captions:
        lenders: list[Row] = []
        rng = seeded(f"{name}/{row.where}")
        if "broken" not in row.values and rng.random() < 0.5:
            others = by_split[row.values["split"]]
            chosen = rng.choice(len(others), size=min(LENDERS, len(others)), replace=False)
            lenders = [others[index] for index in chosen]
        yield Row(row.where, {**row.values, "lenders": lenders})


def records(row: Row, folder: Path, store: MediaStore, *, source: Adapter, origin: Origin) -> list[Record]:
    """One record a caption."""
    (own,) = source.records(row, folder, store)
    lenders = row.values["lenders"]
    caption = _false_caption(own, lenders, folder, store, source) if lenders else own.answer
    question = pick_wording(
        MATCHING,
        seeded(origin.record_id(row)),
        kind=own.media[0].type if len(own.media) == 1 else "study",
        sentence=caption,
    )
    return [
        replace(origin, license=own.license).record(
            row,
            own.media,
            [(question, "no" if lenders else "yes")],
            modality=own.modality,
            task="image-text matching",
            language=own.language,
        )
    ]


def _false_caption(own: Record, lenders: list[Row], folder: Path, store: MediaStore, source: Adapter) -> str:
    for row in lenders:
        try:
            (other,) = source.records(row, folder, store)
        except BrokenRow:
            continue
        alike = fuzz.token_sort_ratio(own.answer.lower(), other.answer.lower())
        if (other.modality, other.language) == (own.modality, own.language) and alike <= HIGHEST_LIKENESS:
            return other.answer
    raise BrokenRow("no other caption of its modality and split says something else.")


def matching(source: Adapter, name: str) -> Adapter:
    """The adapter that asks about the captions of another one, whose rows give one record each."""
    return Adapter(
        name,
        f"Image-text matching on {source.title}",
        source.license,
        source.homepage,
        partial(rows, source=source, name=name),
        partial(records, source=source, origin=Origin(name, source.license)),
    )
