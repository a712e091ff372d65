# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""What all adapters share: rows in, records and media out, one clear sentence for each row that cannot be used.

An adapter turns a data set that a user has downloaded into records. Listing its rows is cheap; converting a row may be
done in another process, so rows are small and can be pickled, and both steps are plain functions.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
from pydantic import ValidationError

from data_engine.files import write_atomically
from data_engine.records import DIMENSION_OF, DIMENSIONS, Medium, Record, Reply, Turn

CLOSED_ANSWERS = ("yes", "no")
WITHHELD = "(withheld)"
"""The answer of a test question that only the benchmark's owners know; it is asked, but not scored here."""
LONGEST_NAME = 255
"""Bytes that one part of a path may have on the usual file systems."""


class SourceError(ValueError):
    """A folder that does not hold the data set, and what it should hold."""


class BrokenRow(ValueError):  # noqa: N818 - what it is about is the row, not the program
    """One sentence: why a row cannot be used."""


@dataclass(frozen=True)
class Row:
    """One row of a source before it is converted.

    Attributes:
        where: for a reader who looks it up: "test.json, entry 12".
        values: "split", "number" (unique in the split), "entry" (the row's own fields) and what the adapter adds; or
            only "broken", the reason why there is no entry.
    """

    where: str
    values: dict[str, Any]


@dataclass(frozen=True)
class Adapter:
    """A data set that can be built from.

    Attributes:
        name, title: as configurations and as people write it.
        license: as the data set's pages state it; an SPDX name where there is one.
        homepage: where it is downloaded and its terms can be read.
        rows: the rows of a downloaded folder, in a fixed order; raises `SourceError`.
        records: converts a row of that folder and puts its media into a store; raises `BrokenRow`.
    """

    name: str
    title: str
    license: str
    homepage: str
    rows: Callable[[Path], Iterator[Row]]
    records: Callable[[Row, Path, MediaStore], list[Record]]


def inside(folder: Path, relative: str) -> Path:
    """The path of a file below a folder; raises `BrokenRow` for a path that leads elsewhere."""
    path = PurePosixPath(relative)
    leads_out = path.is_absolute() or ".." in path.parts or "\\" in relative or ":" in relative
    if not relative or leads_out or max(len(part.encode()) for part in path.parts or [""]) > LONGEST_NAME:
        raise BrokenRow(f"the path {relative[:80]!r} is not a relative path with forward slashes and without '..'.")
    return folder / path


@dataclass(frozen=True)
class MediaStore:
    """The media of a built set, below `folder`/media. Several processes, and a resumed build, may add the same file."""

    folder: Path

    def add(self, file: Path, relative: str) -> str:
        """Links a file into the store, or copies it where the disk cannot link; returns its path from `folder`.

        Raises:
            BrokenRow: the file is missing or empty, or `relative` leads out of the store.
        """
        if not file.is_file():
            raise BrokenRow(f"{file.name} is missing.")
        size = file.stat().st_size
        if size == 0:
            raise BrokenRow(f"{file.name} is empty.")
        return self._place(relative, size, lambda part: _link_or_copy(file.resolve(), part))

    def write(self, data: bytes, relative: str) -> str:
        """Writes a file into the store; returns its path from `folder`.

        Raises:
            BrokenRow: there are no bytes, or `relative` leads out of the store.
        """
        if not data:
            raise BrokenRow(f"{PurePosixPath(relative).name} is empty.")
        return self._place(relative, len(data), lambda part: part.write_bytes(data))

    def _place(self, relative: str, size: int, fill: Callable[[Path], object]) -> str:
        target = inside(self.folder / "media", relative)
        if not (target.is_file() and target.stat().st_size == size):
            target.parent.mkdir(parents=True, exist_ok=True)
            with write_atomically(target) as part:
                fill(part)
        return target.relative_to(self.folder).as_posix()


def _link_or_copy(file: Path, part: Path) -> None:
    try:
        os.link(file, part)
    except OSError:
        shutil.copyfile(file, part)


@dataclass(frozen=True)
class Origin:
    """What all records of an adapter have in common, and how they are made.

    Attributes:
        source, license: as in the records.
        media_folder: folder of the store for its media, where several adapters share files; the source's name if empty.
    """

    source: str
    license: str
    media_folder: str = ""

    def medium(
        self, kind: Literal["image", "volume", "video"], folder: Path, relative: str, store: MediaStore
    ) -> Medium:
        """Puts a file of the downloaded folder into the store, under the same path in the origin's folder of media."""
        file = inside(folder, relative)
        path = store.add(file, f"{self.media_folder or self.source}/{file.relative_to(folder).as_posix()}")
        return Medium(type=kind, path=path)

    def record_id(self, row: Row, part: str = "") -> str:
        """source/split/number, and the part where a row gives several records."""
        return "/".join([self.source, row.values["split"], row.values["number"], *([part] if part else [])])

    def record(
        self,
        row: Row,
        media: Iterable[Medium],
        turns: Iterable[tuple[str, str]],
        *,
        modality: str,
        task: str,
        language: str = "en",
        part: str = "",
        reply: Reply = "answer",
    ) -> Record:
        """A record of questions and answers in turns; raises `BrokenRow` for what a record does not accept."""
        media = tuple(media)
        kinds = [DIMENSION_OF[medium.type] for medium in media]
        try:
            return Record.model_validate(
                {
                    "id": self.record_id(row, part),
                    "dimension": max(kinds, key=DIMENSIONS.index, default="2d"),
                    "modality": modality,
                    "task": task,
                    "media": media,
                    "conversations": tuple(
                        turn
                        for question, answer in turns
                        for turn in (Turn(role="user", content=question), Turn(role="assistant", content=answer))
                    ),
                    "source": self.source,
                    "license": self.license,
                    "split": row.values["split"],
                    "language": language,
                    "reply": reply,
                }
            )
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(place) for place in first["loc"]) or "record"
            raise BrokenRow(f"{field}: {first['msg'].removeprefix('Value error, ')}.") from None


def entry_of(row: Row) -> dict[str, Any]:
    """The fields of a row; raises `BrokenRow` for one that could not be read when it was listed."""
    if "broken" in row.values:
        raise BrokenRow(row.values["broken"])
    return row.values["entry"]


def text(entry: dict[str, Any], name: str) -> str:
    """A field that must hold words or a number, without white space around it."""
    value = entry.get(name)
    if isinstance(value, bool) or not isinstance(value, (str, int, float)) or not str(value).strip():
        raise BrokenRow(f"{name!r} is missing or empty.")
    words = str(value).strip()
    if any("\ud800" <= character <= "\udfff" for character in words):
        raise BrokenRow(f"{name!r} is not Unicode text.")
    return words


def closed(answer: str) -> str:
    """An answer of yes or no in lower case and without a full stop; any other answer as it is."""
    plain = answer.strip().rstrip(".").lower()
    return plain if plain in CLOSED_ANSWERS else answer


def seeded(name: str) -> np.random.Generator:
    """Random numbers that depend on a name alone, so that a record is the same in every build and process."""
    return np.random.default_rng(list(hashlib.sha256(name.encode()).digest()))


def listed(where: str, split: str, number: str, entry: Any, **values: Any) -> Row:
    """A row of an entry, broken where the entry is no set of named fields."""
    if not isinstance(entry, dict):
        return Row(where, {"broken": "the entry is not an object with named fields."})
    return Row(where, {"split": split, "number": number, "entry": entry, **values})


def first_file(folder: Path, candidates: Iterable[str]) -> Path | None:
    """The first of some paths below a folder that is a file."""
    return next((folder / name for name in candidates if (folder / name).is_file()), None)


def missing_files(folder: Path, expected: str) -> SourceError:
    """The error for a folder that is not the downloaded data set."""
    return SourceError(f"The folder {folder} holds no {expected}.")


def read_json(path: Path) -> Any:
    """A JSON file; raises `SourceError` where it is something else."""
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise SourceError(f"{path} is not JSON ({error}); download it again.") from None


def json_rows(path: Path, split: str, prefix: str = "") -> Iterator[Row]:
    """The entries of a JSON file that holds a list, or of a JSON Lines file; they count from 1, lines as in the file.

    Args:
        path: ends in .json or .jsonl.
        split: of all rows.
        prefix: of the numbers, where one split has many files.

    Raises:
        SourceError: a .json file that is no list. A line that is not JSON gives a broken row.
    """
    if path.suffix == ".json":
        entries = read_json(path)
        if not isinstance(entries, list):
            raise SourceError(f"{path} should hold a list of entries.")
        for number, entry in enumerate(entries, 1):
            yield listed(f"{path.name}, entry {number}", split, f"{prefix}{number}", entry)
        return
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        for number, line in enumerate(file, 1):
            where = f"{path.name}, line {number}"
            if not line.strip():
                continue
            try:
                yield listed(where, split, f"{prefix}{number}", json.loads(line))
            except json.JSONDecodeError as error:
                yield Row(where, {"broken": f"the line is not JSON ({error.msg} at column {error.colno})."})


def table_rows(path: Path, split: str, prefix: str = "") -> Iterator[Row]:
    """The rows of a CSV file with a header, counted from 1; numbers get the prefix."""
    # Bytes that are no UTF-8 would end the whole listing; replaced, they break only their row.
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        reader, number = csv.DictReader(file), 0
        while True:
            number += 1
            where = f"{path.name}, row {number}"
            try:
                entry = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield Row(where, {"broken": f"the row is not CSV ({error})."})
                continue
            if None in entry:
                yield Row(where, {"broken": "the row has more fields than the header."})
            elif any("\ufffd" in (value or "") for value in entry.values()):
                yield Row(where, {"broken": "the row is not UTF-8 text."})
            else:
                yield listed(where, split, f"{prefix}{number}", entry)
