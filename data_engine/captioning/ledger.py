# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""What was paid for: an append-only file with every answered request, so that a run that was killed pays none again."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from data_engine.captioning.config import CaptionError

Role = Literal["generator", "judge", "repair"]
"""Who is asked: for a caption, for scores, or for scores once more after an answer that could not be used."""


class Entry(BaseModel):
    """One answered request.

    Attributes:
        key: `request_key` of all that the answer depends on.
        item, role, model: for people who read the file.
        answer: the model's words; empty where it refused.
        finish_reason: why it stopped: "stop", or "length" where it was cut off.
        input_tokens, output_tokens: as the server counts them; None where it does not say.
        cost: at the prices of the day, in their currency.
        seconds: from sending to the answer, waits for retries included.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str
    item: str
    role: Role
    model: str
    answer: str
    finish_reason: str
    input_tokens: int | None
    output_tokens: int | None
    cost: float
    seconds: float


@dataclass
class Totals:
    """Sums over all entries of a ledger; `uncounted` are requests whose tokens the server did not say."""

    requests: int = 0
    uncounted: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost: float = 0.0
    seconds: float = 0.0

    def add(self, entry: Entry) -> None:
        """Counts one more entry."""
        self.requests += 1
        self.uncounted += entry.input_tokens is None or entry.output_tokens is None
        self.input_tokens += entry.input_tokens or 0
        self.output_tokens += entry.output_tokens or 0
        self.cost += entry.cost
        self.seconds += entry.seconds


def request_key(**parts: Any) -> str:
    """SHA-256 of what a request consists of, in canonical JSON."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


class Ledger:
    """The file. Answers stay on disk; memory holds where they are. A context manager, for one run at a time.

    Raises:
        CaptionError: another run has the file open, or a line of it (not the last, torn one) cannot be read.
    """

    def __init__(self, path: Path):
        self.path, self.totals = path, Totals()
        self._places: dict[str, tuple[int, int]] = {}
        self._end = 0
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            self._lock()
            self._read()
        except BaseException:
            os.close(self._file)
            raise

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        os.close(self._file)

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise CaptionError(
                f"Another run writes to {self.path}; let it end first, or choose another --out."
            ) from None

    def _read(self) -> None:
        with open(self._file, "rb", closefd=False) as lines:
            for number, line in enumerate(lines, 1):
                if not line.endswith(b"\n"):
                    break
                try:
                    self._add(Entry.model_validate_json(line), len(line))
                except ValidationError:
                    message = f"{self.path}, line {number} is damaged; delete this line, and its request is made again."
                    raise CaptionError(message) from None
        # A line without its end was being written when the last run was killed.
        os.ftruncate(self._file, self._end)

    def _add(self, entry: Entry, length: int) -> None:
        self._places[entry.key] = (self._end, length)
        self._end += length
        self.totals.add(entry)

    def get(self, key: str) -> Entry | None:
        """The entry of a request, or None if it has not been answered yet."""
        if key not in self._places:
            return None
        start, length = self._places[key]
        return Entry.model_validate_json(os.pread(self._file, length, start))

    def append(self, entry: Entry) -> None:
        """Adds an entry; when this returns, it is on the disk.

        Raises:
            CaptionError: the disk is full, or gone.
        """
        line = entry.model_dump_json().encode() + b"\n"
        try:
            if os.write(self._file, line) != len(line):
                raise OSError("only a part was written")
            os.fsync(self._file)
        except OSError as error:
            # Whatever came of it is taken back, or the next line would be torn with it.
            os.ftruncate(self._file, self._end)
            raise CaptionError(f"{self.path} cannot be written ({error.strerror or error}).") from None
        self._add(entry, len(line))
