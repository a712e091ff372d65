# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Conversations in the format that VideoLLaMA3 and LLaVA train on.

The folder holds any number of `*.json` (a list) or `*.jsonl` files, and media below it. An entry:

    {"image": ["a.jpg", "b.jpg"], "conversations": [{"from": "human", "value": "<image>\\n<image>\\nWhat changed?"},
                                                    {"from": "gpt", "value": "…"}]}

or "video" with <video>; a single path may stand for a list, as in LLaVA. Where no placeholder is written, media stand
before the first question, as VideoLLaMA3 has it. Turns from "system" are left out, because a record has none. A file
whose name has the word test, val, valid or validation is of that split, any other of train.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_engine.adapters.base import (
    Adapter,
    BrokenRow,
    MediaStore,
    Origin,
    Row,
    entry_of,
    json_rows,
    missing_files,
    text,
)
from data_engine.adapters.words import modality_named_in, task_of
from data_engine.records import MEDIA_PLACEHOLDER, Record

VIDEOLLAMA3 = Origin("videollama3", "as the owner of the folder states")
KINDS = ("image", "video")
PLACEHOLDER = re.compile(r"<(image|video)>")
SPLIT_OF_WORD = {"test": "test", "val": "validation", "valid": "validation", "validation": "validation"}


def _split(file: Path) -> str:
    words = re.split(r"[^a-z]+", file.stem.lower())
    return next((SPLIT_OF_WORD[word] for word in words if word in SPLIT_OF_WORD), "train")


def rows(folder: Path) -> Iterator[Row]:
    """The entries of all files, by their names."""
    files = sorted(path for path in folder.glob("*.json*") if path.suffix in (".json", ".jsonl"))
    if not files:
        raise missing_files(folder, "*.json or *.jsonl file of conversations")
    for file in files:
        yield from json_rows(file, _split(file), prefix=f"{file.name}/")


def _paths(entry: dict[str, Any], kind: str) -> list[str]:
    held = entry.get(kind)
    paths = held if isinstance(held, list) else [] if held is None else [held]
    if not all(isinstance(path, str) and path for path in paths):
        raise BrokenRow(f"{kind!r} is not a path or a list of paths.")
    return paths


def _turns(entry: dict[str, Any]) -> list[tuple[str, str]]:
    """Questions and answers, placeholders as they are in the file."""
    said = entry.get("conversations")
    if not isinstance(said, list) or not all(isinstance(turn, dict) for turn in said):
        raise BrokenRow("'conversations' is not a list of turns.")
    said = [turn for turn in said if turn.get("from") != "system"]
    speakers = [turn.get("from") for turn in said]
    if not said or speakers != ["human", "gpt"] * (len(said) // 2):
        raise BrokenRow("the conversation does not go from human to gpt in turns.")
    values = [text(turn, "value") for turn in said]
    if any(PLACEHOLDER.search(answer) for answer in values[1::2]):
        raise BrokenRow("an answer holds a placeholder of media.")
    return list(zip(values[::2], values[1::2], strict=True))


def records(row: Row, folder: Path, store: MediaStore) -> list[Record]:
    """One record an entry."""
    entry = entry_of(row)
    turns = _turns(entry)
    paths = {kind: _paths(entry, kind) for kind in KINDS}
    written = [kind for question, _ in turns for kind in PLACEHOLDER.findall(question)]
    kinds = written or [kind for kind in KINDS for _ in paths[kind]]
    if not kinds:
        raise BrokenRow("it has no image or video.")
    for kind in KINDS:
        if kinds.count(kind) != len(paths[kind]):
            raise BrokenRow(f"{kinds.count(kind)} <{kind}> placeholders for {len(paths[kind])} paths in {kind!r}.")
    following = {kind: iter(paths[kind]) for kind in KINDS}
    media = [VIDEOLLAMA3.medium(kind, folder, next(following[kind]), store) for kind in kinds]
    words = PLACEHOLDER.sub("", turns[0][0]).strip()
    turns = [(PLACEHOLDER.sub(MEDIA_PLACEHOLDER, question), answer) for question, answer in turns]
    modality = modality_named_in(words, turns[0][1])
    return [VIDEOLLAMA3.record(row, media, turns, modality=modality, task=task_of(words))]


ADAPTERS = (
    Adapter(
        VIDEOLLAMA3.source,
        "Conversations in VideoLLaMA3's format",
        VIDEOLLAMA3.license,
        "https://github.com/DAMO-NLP-SG/VideoLLaMA3",
        rows,
        records,
    ),
)
