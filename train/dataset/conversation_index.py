# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Finds conversations in the data engine's files without holding them in memory: records about one medium are joined.

The files are read once for an index of a few bytes a record; a conversation's words are read when it is drawn.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from data_engine.files import write_atomically
from data_engine.records import DIMENSIONS, MEDIA_PLACEHOLDER, REPORTS, Record, RecordError, to_record

logger = logging.getLogger(__name__)


def record_files(folder: Path, split: str) -> list[Path]:
    """The files of one split of a built set.

    Raises:
        RecordError: a folder without any.
    """
    files = sorted([*folder.glob(f"{split}.jsonl"), *folder.glob(f"{split}-*.parquet")])
    if not files:
        raise RecordError(
            f"{folder} holds neither {split}.jsonl nor {split}-*.parquet; build it with python -m data_engine.build."
        )
    return files


def as_json_lines(file: Path, scratch: Path) -> Path:
    """A file whose rows can be reached one by one: itself, or for Parquet a copy as JSON Lines in `scratch`."""
    if file.suffix == ".jsonl":
        return file
    name = hashlib.sha256(str(file.resolve()).encode()).hexdigest()[:8]
    copy = scratch / f"{file.stem}-{name}.jsonl"
    if not copy.exists() or copy.stat().st_mtime < file.stat().st_mtime:
        scratch.mkdir(parents=True, exist_ok=True)
        with write_atomically(copy) as part, part.open("w", encoding="utf-8", newline="\n") as out:
            for batch in pq.ParquetFile(file).iter_batches():
                out.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in batch.to_pylist())
    return copy


@dataclass(frozen=True)
class Located:
    """A record and the folder that its media's paths start from."""

    record: Record
    folder: Path


class ConversationIndex:
    """The conversations of one split of one or several built sets.

    Args:
        folders: of built sets.
        split: "train" or "validation".
        questions: records about the same media that one conversation joins at most.
        scratch: where Parquet files are copied to as JSON Lines.
        tasks: records of other tasks are left out; None takes all.
        languages: records in other languages are left out; None takes all.
        passes: source -> how often a conversation with a record of it comes while others come once.

    Attributes:
        dimension: uint8 (conversations,), place in `DIMENSIONS`.
        passes: uint8 (conversations,), how often each comes while others come once.
        broken: how many lines hold no record.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        split: str,
        questions: int,
        scratch: Path,
        tasks: Collection[str] | None = None,
        languages: Collection[str] | None = None,
        passes: Mapping[str, int] | None = None,
    ):
        self.sources = [(folder, file) for folder in folders for file in record_files(folder, split)]
        self.files = [as_json_lines(file, scratch) for _, file in self.sources]
        self.broken = 0
        rows = list(self._scan(tasks, languages, passes or {}))
        if not rows:
            raise RecordError(
                f"No records of the split {split!r}, the chosen tasks and languages in {', '.join(map(str, folders))}."
            )
        file, offset, dimension, times, media = (np.array(column) for column in zip(*rows, strict=True))
        _, first, group = np.unique(media, return_index=True, return_inverse=True)
        # Conversations in the order of their first record, and inside one the records in the order of the file.
        order = np.argsort(first[group], kind="stable")
        starts = np.flatnonzero(np.r_[True, np.diff(first[group][order]) != 0])
        rank = np.arange(len(order)) - np.repeat(starts, np.diff(np.r_[starts, len(order)]))
        self.starts = np.flatnonzero(rank % questions == 0)
        self.file, self.offset = file[order].astype(np.uint16), offset[order]
        self.dimension = dimension[order][self.starts].astype(np.uint8)
        self.passes = np.maximum.reduceat(times[order], self.starts).astype(np.uint8)

    def _scan(
        self, tasks: Collection[str] | None, languages: Collection[str] | None, passes: Mapping[str, int]
    ) -> Iterator[tuple[int, int, int, int, bytes]]:
        """File, offset, dimension, passes and media of every record; what cannot be read is counted."""
        for number, file in enumerate(self.files):
            offset = 0
            with file.open("rb") as lines:
                for count, line in enumerate(lines, 1):
                    start, offset = offset, offset + len(line)
                    if not line.strip():
                        continue
                    try:
                        record = to_record(json.loads(line), f"{self.sources[number][1].name}, record {count}")
                    except (RecordError, UnicodeDecodeError, json.JSONDecodeError) as error:
                        self.broken += 1
                        logger.warning("Skipped a broken record. %s", error)
                        continue
                    if tasks is not None and record.task not in tasks:
                        continue
                    if languages is not None and record.language not in languages:
                        continue
                    media = [f"{self.sources[number][0]}", *(f"{one.path} {one.spacing}" for one in record.media)]
                    if not _media_stand_first(record):
                        media.append(record.id)
                    key = hashlib.blake2b("\n".join(media).encode(), digest_size=12).digest()
                    yield number, start, DIMENSIONS.index(record.dimension), passes.get(record.source, 1), key

    def __len__(self) -> int:
        return len(self.starts)

    def records(self, index: int) -> list[Located]:
        """The records that conversation `index` joins."""
        end = self.starts[index + 1] if index + 1 < len(self.starts) else len(self.offset)
        located = []
        for row in range(self.starts[index], end):
            folder, _ = self.sources[self.file[row]]
            with self.files[self.file[row]].open("rb") as file:
                file.seek(self.offset[row])
                located.append(Located(to_record(json.loads(file.readline()), "record"), folder))
        return located


def _media_stand_first(record: Record) -> bool:
    """Whether all media stand before the first words, so that other questions about them can follow."""
    words = record.conversations[0].content.lstrip()
    for _ in record.media:
        words = words.removeprefix(MEDIA_PLACEHOLDER).lstrip()
    return not any(
        MEDIA_PLACEHOLDER in text for text in [words, *(turn.content for turn in record.conversations[2::2])]
    )


def turns_of(records: Sequence[Record], shuffle: Callable[[Sequence[Record]], Sequence[Record]]) -> tuple:
    """The questions and answers of the records in a shuffled order, captions last, as these give all answers away."""
    ordered = sorted(shuffle(records), key=lambda record: record.task == REPORTS)
    turns = [
        (one.conversations[place].content, one.conversations[place + 1].content)
        for one in ordered
        for place in range(0, len(one.conversations), 2)
    ]
    if len(records) > 1:
        turns = [(question.replace(MEDIA_PLACEHOLDER, "").strip(), answer) for question, answer in turns]
    return tuple(turns)
