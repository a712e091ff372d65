# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""MedFrameQA: one question about two to five frames of a teaching video, in Parquet (Yu et al., arXiv 2505.16964).

    data/test-00000-of-00002.parquet, …

Columns: `question`, `options` (a list), `correct_answer` (the letter or the words of the right option), `image_1` to
`image_5` (structs of `bytes` and `path`; those that are not used are empty) and, where they are there, `modality` and
`question_id`.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from data_engine.adapters.base import (
    Adapter,
    BrokenRow,
    MediaStore,
    Origin,
    Row,
    entry_of,
    listed,
    missing_files,
    text,
)
from data_engine.adapters.choices import answered, asked_in_lines, lettered
from data_engine.adapters.hub_parquet import open_shard, store_picture
from data_engine.adapters.words import guess_modality, task_of
from data_engine.records import Record

MEDFRAMEQA = Origin("medframeqa", "CC-BY-4.0")
WORDS = ("question", "options", "correct_answer")
PICTURES = tuple(f"image_{number}" for number in range(1, 6))


def rows(folder: Path) -> Iterator[Row]:
    """The rows of all shards, without their pictures."""
    shards = sorted(folder.glob("data/test-*.parquet"))
    if not shards:
        raise missing_files(folder, "data/test-*.parquet of MedFrameQA; download the data set's Hub folder")
    number = 0
    for shard in shards:
        file = open_shard(shard, (*WORDS, *PICTURES))
        wanted = [name for name in (*WORDS, "modality") if name in file.schema_arrow.names]
        in_shard = 0
        for group in range(file.num_row_groups):
            for offset, entry in enumerate(file.read_row_group(group, wanted).to_pylist()):
                number, in_shard = number + 1, in_shard + 1
                place = {"shard": f"data/{shard.name}", "group": group, "offset": offset}
                yield listed(f"{shard.name}, row {in_shard}", "test", str(number), entry, **place)


# Rows come in the order of the file, so one row group at a time is read once.
@lru_cache(maxsize=1)
def _pictures(shard: Path, group: int) -> list[dict[str, Any]]:
    return pq.ParquetFile(shard).read_row_group(group, list(PICTURES)).to_pylist()


def records(row: Row, folder: Path, store: MediaStore) -> list[Record]:
    """One record a row."""
    entry = entry_of(row)
    question, said = text(entry, "question"), text(entry, "correct_answer")
    if not isinstance(entry.get("options"), list):
        raise BrokenRow("'options' is not a list.")
    choices = lettered(entry["options"])
    letter = said.strip("(). ") if said.strip("(). ") in choices else None
    if letter is None:
        same = " ".join(said.split())
        letter = next((one for one, words in choices.items() if words == same or f"{one}. {words}" == same), said)
    held = _pictures(folder / row.values["shard"], row.values["group"])[row.values["offset"]]
    frames = [held[name] for name in PICTURES if held[name] and held[name].get("bytes")]
    media = [store_picture(one["bytes"], MEDFRAMEQA, store) for one in frames]
    modality = guess_modality(str(entry.get("modality") or ""))
    turns = [(asked_in_lines(question, choices), answered(letter, choices))]
    return [MEDFRAMEQA.record(row, media, turns, modality=modality, task=task_of(question))]


ADAPTERS = (
    Adapter(
        MEDFRAMEQA.source,
        "MedFrameQA",
        MEDFRAMEQA.license,
        "https://huggingface.co/datasets/SuhaoYu1020/MedFrameQA",
        rows,
        records,
    ),
)
