# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""VQA-RAD and PathVQA as their Hub folders hold them: Parquet shards with the pictures inside.

    data/train-00000-of-00001-….parquet, data/validation-….parquet (PathVQA only), data/test-….parquet

Columns: `image` (struct of `bytes` and `path`), `question`, `answer`. Pictures are stored under the hash of their
bytes, because many questions share one.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Sequence
from functools import lru_cache, partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from data_engine.adapters.base import (
    Adapter,
    BrokenRow,
    MediaStore,
    Origin,
    Row,
    SourceError,
    closed,
    entry_of,
    listed,
    missing_files,
    text,
)
from data_engine.adapters.words import modality_named_in, task_of
from data_engine.records import SPLITS, Medium, Record

VQA_RAD = Origin("vqa-rad", "CC0-1.0")
PATH_VQA = Origin("path-vqa", "MIT")
COLUMNS = ("image", "question", "answer")
SUFFIX_OF = {"JPEG": "jpg", "PNG": "png", "TIFF": "tif", "WEBP": "webp", "BMP": "bmp", "GIF": "gif"}
"""What Pillow may find in the bytes, and the ending of the file that they become."""


def rows(folder: Path) -> Iterator[Row]:
    """The rows of all shards, split by split, without their pictures."""
    shards = {split: sorted(folder.glob(f"data/{split}-*.parquet")) for split in SPLITS}
    if not any(shards.values()):
        raise missing_files(folder, "data/train-*.parquet or data/test-*.parquet; download the data set's Hub folder")
    for split in SPLITS:
        number = 0
        for shard in shards[split]:
            file = open_shard(shard, COLUMNS)
            in_shard = 0
            for group in range(file.num_row_groups):
                for offset, entry in enumerate(file.read_row_group(group, ["question", "answer"]).to_pylist()):
                    number, in_shard = number + 1, in_shard + 1
                    place = {"shard": f"data/{shard.name}", "group": group, "offset": offset}
                    yield listed(f"{shard.name}, row {in_shard}", split, str(number), entry, **place)


def open_shard(shard: Path, columns: Sequence[str]) -> pq.ParquetFile:
    """A shard; raises `SourceError` for one that is damaged or lacks a column."""
    try:
        file = pq.ParquetFile(shard)
    except (pa.ArrowException, OSError):
        raise SourceError(f"{shard} is not a Parquet file; download it again.") from None
    absent = [name for name in columns if name not in file.schema_arrow.names]
    if absent:
        raise SourceError(f"{shard} has no column {absent[0]!r}; it is not this data set.")
    return file


# Rows come in the order of the file, so one row group at a time is read once.
@lru_cache(maxsize=1)
def _pictures(shard: Path, group: int) -> pa.ChunkedArray:
    return pq.ParquetFile(shard).read_row_group(group, ["image"])["image"]


def _picture(row: Row, folder: Path, origin: Origin, store: MediaStore) -> Medium:
    held = _pictures(folder / row.values["shard"], row.values["group"])[row.values["offset"]].as_py()
    return store_picture((held or {}).get("bytes"), origin, store)


def store_picture(data: bytes | None, origin: Origin, store: MediaStore) -> Medium:
    """Puts a picture's bytes into the store under their hash; raises `BrokenRow` for what is none."""
    if not data:
        raise BrokenRow("the picture is missing.")
    try:
        with Image.open(io.BytesIO(data), formats=tuple(SUFFIX_OF)) as image:
            suffix = SUFFIX_OF[image.format or ""]
    except (OSError, SyntaxError, Image.DecompressionBombError):
        raise BrokenRow("the picture is damaged or of an unknown format.") from None
    digest = hashlib.sha256(data).hexdigest()[:24]
    return Medium(type="image", path=store.write(data, f"{origin.source}/{digest[:2]}/{digest}.{suffix}"))


def records(row: Row, folder: Path, store: MediaStore, *, origin: Origin, modality: str | None) -> list[Record]:
    """One record a row.

    Args:
        origin: of the data set.
        modality: of all its pictures; None takes what the words tell ("on this chest x-ray").
    """
    entry = entry_of(row)
    question, answer = text(entry, "question"), closed(text(entry, "answer"))
    medium = _picture(row, folder, origin, store)
    modality = modality or modality_named_in(question, answer)
    return [origin.record(row, [medium], [(question, answer)], modality=modality, task=task_of(question))]


ADAPTERS = (
    Adapter(
        PATH_VQA.source,
        "PathVQA",
        PATH_VQA.license,
        "https://huggingface.co/datasets/flaviagiammarino/path-vqa",
        rows,
        partial(records, origin=PATH_VQA, modality="histopathology"),
    ),
)
