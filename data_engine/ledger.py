# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The file that answers are written to as they are given, so that a killed run goes on where it stopped.

JSON Lines: first {"settings": {…}}, then one row per answered question with its "id". Lines are only ever added, and
each is on disk before the next question is asked. Several processes write a ledger each, and `merge` joins them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_engine.files import write_atomically

HEADER = b'{"settings": '
"""How every ledger begins."""


class LedgerError(ValueError):
    """A ledger that cannot be used as it is, and what to do about it."""


def read_lines(path: Path) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """Line numbers, from 1, and the JSON objects there; None for a line without one. Empty lines are passed over."""
    with path.open(encoding="utf-8-sig", errors="replace", newline="\n") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield number, _json_object(line)


def _json_object(line: str | bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def settings_of(row: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The settings if this is a ledger's first line, None for any other line."""
    settings = row["settings"] if row is not None and row.keys() == {"settings"} else None
    return settings if isinstance(settings, dict) else None


class Ledger:
    """One process's answers, on disk.

    Args:
        path: begun if it does not exist, else continued; a last line that a kill cut short is removed.
        settings: what the answers depend on (model, benchmark, pruning), as JSON values.

    Attributes:
        rows: question id -> row of the answers that are there.

    Raises:
        LedgerError: the file was begun with other settings, or is damaged before its last line.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self.path = path
        settings = json.loads(json.dumps(settings))
        path.parent.mkdir(parents=True, exist_ok=True)
        whole = _whole_lines(path) if path.exists() else b""
        self.rows: dict[str, dict[str, Any]] = {}
        if whole:
            begun_with, rows = _read(path)
            _refuse_other_settings(path, begun_with, settings)
            self.rows = {row["id"]: row for row in rows}
        self._file = path.open("ab")
        self._file.truncate(len(whole))
        if not whole:
            self._write({"settings": settings})

    def append(self, row: Mapping[str, Any]) -> None:
        """Writes one answered question and returns when it is on disk.

        Raises:
            ValueError: its id is not a text, or is there already.
        """
        if not isinstance(row.get("id"), str) or row["id"] in self.rows:
            raise ValueError(f"a row needs an id of its own that is a text, not {row.get('id')!r}")
        self._write(row)
        self.rows[row["id"]] = dict(row)

    def _write(self, row: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def remove_rows(path: Path, is_unwanted: Callable[[Mapping[str, Any]], bool]) -> int:
    """Takes rows out of a ledger that no process writes, so that their questions are asked again; says how many.

    Raises:
        LedgerError: the file is damaged before its last line.
    """
    settings, rows = _read(path)
    kept = [row for row in rows if not is_unwanted(row)]
    _write_ledger(path, settings, kept)
    return len(rows) - len(kept)


def _write_ledger(path: Path, settings: Mapping[str, Any], rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes one ledger, whole or not at all."""
    with write_atomically(path) as part, part.open("w", encoding="utf-8", newline="\n") as file:
        for row in ({"settings": settings}, *rows):
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
        file.flush()
        os.fsync(file.fileno())


def _whole_lines(path: Path) -> bytes:
    """The file up to its last line break: what follows was cut short while it was written."""
    held = path.read_bytes()
    if held[: len(HEADER)] != HEADER[: len(held)]:
        raise LedgerError(f"{path} is no ledger, as it does not begin with a line of settings: name a new file")
    return held[: held.rfind(b"\n") + 1]


def _read(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Settings and rows of a ledger, without a last line that was cut short."""
    lines = [_json_object(line) for line in _whole_lines(path).splitlines()]
    settings = settings_of(lines[0]) if lines else None
    if settings is None:
        raise LedgerError(f"the first line of {path} is damaged: remove the file to have its questions asked again")
    rows = []
    for number, row in enumerate(lines[1:], start=2):
        if row is None or not isinstance(row.get("id"), str):
            raise LedgerError(f"line {number} of {path} is damaged: remove that line to have its question asked again")
        rows.append(row)
    return settings, rows


def _refuse_other_settings(path: Path, begun_with: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    names = sorted(begun_with.keys() | settings.keys())
    different = [
        f"{name} {begun_with.get(name)!r}, not {settings.get(name)!r}"
        for name in names
        if begun_with.get(name) != settings.get(name)
    ]
    if different:
        raise LedgerError(
            f"{path} was begun with {'; '.join(different)}: name a new file, or take the settings it was begun with"
        )


@dataclass(frozen=True)
class Merged:
    """The answers of several ledgers as one.

    Attributes:
        settings: the same in all of them.
        rows: in the order of the questions, the first answer where there are several.
        missing: ids of questions without an answer, in their order.
        repeated: ids answered more than once.
        unknown: ids answered that are no questions; their rows are left out.
    """

    settings: dict[str, Any]
    rows: list[dict[str, Any]]
    missing: list[str]
    repeated: list[str]
    unknown: list[str]

    def write(self, path: Path) -> None:
        """Writes one ledger, whole or not at all."""
        _write_ledger(path, self.settings, self.rows)


def merge(paths: Sequence[Path], question_ids: Iterable[str]) -> Merged:
    """Joins the ledgers of several processes, or of one run begun with another number of processes.

    Args:
        paths: at least one.
        question_ids: of all questions, in their order.

    Raises:
        LedgerError: the ledgers differ in their settings, or one is damaged.
    """
    ledgers = [_read(path) for path in paths]
    settings = ledgers[0][0]
    rows: dict[str, dict[str, Any]] = {}
    repeated: dict[str, None] = {}
    for path, (begun_with, its_rows) in zip(paths, ledgers, strict=True):
        _refuse_other_settings(path, begun_with, settings)
        for row in its_rows:
            if row["id"] in rows:
                repeated[row["id"]] = None
            rows.setdefault(row["id"], row)
    order = list(question_ids)
    known = set(order)
    return Merged(
        settings=settings,
        rows=[rows[name] for name in order if name in rows],
        missing=[name for name in order if name not in rows],
        repeated=list(repeated),
        unknown=[name for name in rows if name not in known],
    )
