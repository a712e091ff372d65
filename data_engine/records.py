# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The one record of OmniV-Med-Instruct, its checks, and its two file formats: JSON Lines and Parquet.

A record is a conversation about one or several images, volumes or videos, with where it came from and what it trains.
Paths of media are relative to the folder that holds the file of records, so a built set can be moved.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, get_args

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from data_engine.files import write_atomically

VERSION: Literal[1] = 1
"""Version of the record; a file of a later one is refused instead of misread."""
Dimension = Literal["2d", "3d", "video"]
Modality = Literal[
    "CT", "MRI", "X-ray", "ultrasound", "PET", "OCT", "endoscopy", "microscopy", "histopathology",
    "fundus photography", "dermoscopy", "angiography", "mammography", "clinical photograph", "unknown",
]  # fmt: skip
Task = Literal[
    "modality recognition",
    "anatomy recognition",
    "view/plane identification",
    "abnormality detection",
    "diagnosis",
    "localization",
    "counting and measurement",
    "severity grading",
    "report generation and captioning",
    "image-text matching",
    "temporal and procedure understanding",
]
Split = Literal["train", "validation", "test"]
Reply = Literal["answer", "cannot tell", "not medical", "conversation"]
DIMENSIONS: tuple[Dimension, ...] = get_args(Dimension)
MODALITIES: tuple[str, ...] = get_args(Modality)[:-1]
"""The 14 modalities; a record of a source that does not name its own says "unknown"."""
TASKS: tuple[str, ...] = get_args(Task)
REPORTS: Task = "report generation and captioning"
"""The task whose answers are free sentences; those of all others are short and right or wrong."""
SPLITS: tuple[Split, ...] = get_args(Split)
DIMENSION_OF: dict[str, Dimension] = {"image": "2d", "volume": "3d", "video": "video"}
"""Kind of medium -> dimension of a record that holds it (the largest one, where kinds are mixed)."""
MEDIA_PLACEHOLDER = "<media>"
"""Where a medium stands in a user's words; without any, all media stand before the first question."""
ROWS_PER_PARQUET_SHARD = 50_000


class RecordError(ValueError):
    """A file that does not hold records, with the line and the field that are wrong."""


def _relative(path: str) -> str:
    parts = PurePosixPath(path)
    if not path or "\\" in path or ":" in path or parts.is_absolute() or ".." in parts.parts:
        raise ValueError("must be a path relative to the file of records, with forward slashes and without '..'")
    return path


class Strict(BaseModel):
    """Cannot be changed, and refuses a field that it does not know; records and all configurations are so."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Medium(Strict):
    """One file.

    Attributes:
        type: how it is read: "image", "volume" or "video".
        path: relative to the folder of the file of records.
        spacing: where the file does not say, mm of (slices, rows, columns) for a volume, of (rows, columns) for others.
    """

    type: Literal["image", "volume", "video"]
    path: Annotated[str, AfterValidator(_relative)]
    spacing: tuple[float, ...] | None = None

    @model_validator(mode="after")
    def _has_the_axes_of_its_type(self) -> Medium:
        axes = 3 if self.type == "volume" else 2
        if self.spacing is not None and (len(self.spacing) != axes or min(self.spacing) <= 0):
            raise ValueError(f"spacing of {self.type} must be {axes} numbers above 0")
        return self


class Turn(Strict):
    """What the user or the assistant says."""

    role: Literal["user", "assistant"]
    content: Annotated[str, Field(min_length=1)]


class Record(Strict):
    """One training or test sample.

    Attributes:
        id: unique in a set; "source/split/number" by habit.
        dimension, modality, task: what the media are and what the conversation trains.
        media: in the order of their placeholders.
        conversations: user and assistant in turns, the user first, the assistant last.
        source, license: where the sample comes from, and under which terms (an SPDX name where there is one).
        language: ISO 639-1 code of the words.
        reply: what the first answer does: it answers; it says that the picture cannot tell, or that it is none of
            medicine; or it is small talk ("Who are you?", "Thank you."). `data_engine.unanswerable` writes the last
            three, so that evaluation can tell them from answers.
    """

    id: Annotated[str, Field(min_length=1)]
    dimension: Dimension
    modality: Modality
    task: Task
    media: Annotated[tuple[Medium, ...], Field(min_length=1)]
    conversations: Annotated[tuple[Turn, ...], Field(min_length=2)]
    source: Annotated[str, Field(min_length=1)]
    license: Annotated[str, Field(min_length=1)]
    split: Split
    language: str = "en"
    reply: Reply = "answer"
    version: Literal[1] = VERSION

    @model_validator(mode="after")
    def _fits_together(self) -> Record:
        roles = [turn.role for turn in self.conversations]
        if roles != ["user", "assistant"] * (len(roles) // 2):
            raise ValueError("conversations must take turns, the user first and the assistant last")
        held = sum(turn.content.count(MEDIA_PLACEHOLDER) for turn in self.conversations if turn.role == "user")
        if held not in (0, len(self.media)):
            raise ValueError(f"{held} {MEDIA_PLACEHOLDER} placeholders for {len(self.media)} media")
        largest = max((DIMENSION_OF[medium.type] for medium in self.media), key=DIMENSIONS.index)
        if self.dimension != largest:
            raise ValueError(f"dimension {self.dimension!r}, but the media are {largest!r}")
        return self

    @property
    def question(self) -> str:
        """The user's first words, without placeholders."""
        return self.conversations[0].content.replace(MEDIA_PLACEHOLDER, "").strip()

    @property
    def answer(self) -> str:
        """The assistant's first words."""
        return self.conversations[1].content


def to_record(row: dict[str, Any], where: str) -> Record:
    """A record from its row of JSON or Parquet.

    Raises:
        RecordError: names `where` (file and line) and the first field that is wrong.
    """
    try:
        if isinstance(row, dict) and isinstance(row.get("version"), int) and row["version"] > VERSION:
            raise RecordError(f"{where}: version {row['version']} is newer than {VERSION}, which this code reads.")
        return Record.model_validate(row)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "record"
        raise RecordError(f"{where}: {field}: {first['msg'].removeprefix('Value error, ')}.") from None


def to_line(record: Record) -> str:
    """The record as one line of JSON, keys in fixed order, so that equal sets are equal bytes."""
    return json.dumps(record.model_dump(mode="json"), ensure_ascii=False) + "\n"


def write_jsonl(records: Iterable[Record], path: Path) -> int:
    """Writes a JSON Lines file through a temporary one beside it; returns the number of records."""
    count = 0
    with write_atomically(path) as part, part.open("w", encoding="utf-8", newline="\n") as file:
        for record in records:
            file.write(to_line(record))
            count += 1
    return count


def read_jsonl(path: Path) -> Iterator[Record]:
    """The records of a JSON Lines file, one at a time; blank lines are passed over.

    Raises:
        RecordError: with file, line number and field.
    """
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                where = f"{path.name}, line {number}"
                try:
                    row = json.loads(line)
                except json.JSONDecodeError as error:
                    raise RecordError(f"{where}: not JSON ({error.msg} at column {error.colno}).") from None
                yield to_record(row, where)


PARQUET_SCHEMA = pa.schema(
    [
        *(pa.field(name, pa.string()) for name in ("id", "dimension", "modality", "task")),
        pa.field(
            "media",
            pa.list_(
                pa.struct([("type", pa.string()), ("path", pa.string()), ("spacing", pa.list_(pa.float64()))]),
            ),
        ),
        pa.field("conversations", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
        *(pa.field(name, pa.string()) for name in ("source", "license", "split", "language", "reply")),
        pa.field("version", pa.int64()),
    ]
)
"""Columns of a Parquet shard; `datasets` needs them where it streams JSON Lines too (an early null has no type)."""


def write_parquet(records: Iterable[Record], folder: Path, name: str) -> list[Path]:
    """Writes `name-00000.parquet`, … of at most 50,000 records into a folder; returns their paths."""
    paths: list[Path] = []
    rows: list[dict[str, Any]] = []

    def flush() -> None:
        path = folder / f"{name}-{len(paths):05d}.parquet"
        pq.write_table(pa.Table.from_pylist(rows, schema=PARQUET_SCHEMA), path)
        paths.append(path)
        rows.clear()

    for record in records:
        rows.append(record.model_dump(mode="json"))
        if len(rows) == ROWS_PER_PARQUET_SHARD:
            flush()
    if rows or not paths:
        flush()
    return paths


def read_parquet(path: Path) -> Iterator[Record]:
    """The records of one Parquet shard, read in batches.

    Raises:
        RecordError: with file, row number (from 1) and field.
    """
    number = 0
    for batch in pq.ParquetFile(path).iter_batches():
        for row in batch.to_pylist():
            number += 1
            yield to_record(row, f"{path.name}, row {number}")


def read_records(path: Path) -> Iterator[Record]:
    """The records of a JSON Lines or Parquet file, by its ending.

    Raises:
        RecordError: another ending, or a wrong record.
    """
    if path.suffix == ".jsonl":
        return read_jsonl(path)
    if path.suffix == ".parquet":
        return read_parquet(path)
    raise RecordError(f"{path.name}: records are read from .jsonl and .parquet files.")


def stream(paths: list[Path]) -> Any:
    """The records as a streaming `datasets.IterableDataset` of plain dictionaries (all JSON Lines, or all Parquet)."""
    from datasets import Features, load_dataset

    kind = "json" if paths[0].suffix == ".jsonl" else "parquet"
    files = [str(path) for path in paths]
    features = Features.from_arrow_schema(PARQUET_SCHEMA)
    return load_dataset(kind, data_files=files, split="train", streaming=True, features=features)
