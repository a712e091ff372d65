# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Any folder of videos with captions or questions beside them: surgical, endoscopic or ultrasound films of one's own.

    captions.jsonl or captions.csv      one caption a line: video, caption
    questions.jsonl or questions.csv    one question a line: video, question, answer
    …                                   videos, in any folders below

`video` is a path relative to the folder. Each line may also have `split` (train, validation, test; train by default),
`modality` (one of the 14; "unknown" by default), `task` (of a question, one of the 11; "temporal and procedure
understanding" by default), `language` (ISO 639-1; "en" by default) and `license`. For example:

    {"video": "case_01/clip_3.mp4", "question": "Which instrument is used?", "answer": "grasper", "split": "test"}
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from data_engine.adapters.base import (
    Adapter,
    MediaStore,
    Origin,
    Row,
    closed,
    entry_of,
    first_file,
    json_rows,
    missing_files,
    seeded,
    table_rows,
    text,
)
from data_engine.questions import caption_request
from data_engine.records import SPLITS, Record

VIDEO_FOLDER = Origin("video-folder", "as the owner of the folder states")
KINDS = ("captions", "questions")


def rows(folder: Path, *, kinds: tuple[str, ...] = KINDS) -> Iterator[Row]:
    """The captions, then the questions."""
    files = {kind: first_file(folder, (f"{kind}.jsonl", f"{kind}.csv")) for kind in kinds}
    if not any(files.values()):
        raise missing_files(folder, " or ".join(f"{kind}.jsonl or {kind}.csv" for kind in kinds))
    for kind, file in files.items():
        if file is not None:
            read = json_rows if file.suffix == ".jsonl" else table_rows
            for row in read(file, "train", prefix=f"{kind}/"):
                split = row.values.get("entry", {}).get("split") or "train"
                if "entry" in row.values and split not in SPLITS:
                    yield Row(row.where, {"broken": f"'split' is {split!r}, not one of {', '.join(SPLITS)}."})
                else:
                    yield Row(row.where, {**row.values, "kind": kind, "split": split})


def _given(entry: dict[str, Any], name: str, default: str) -> str:
    """An optional field; an empty cell of a table counts as not given."""
    return text(entry, name) if entry.get(name) not in (None, "") else default


def records(row: Row, folder: Path, store: MediaStore) -> list[Record]:
    """One record a line."""
    entry = entry_of(row)
    origin = replace(VIDEO_FOLDER, license=_given(entry, "license", VIDEO_FOLDER.license))
    if row.values["kind"] == "captions":
        request = caption_request("video", seeded(origin.record_id(row)))
        turn, task = (request, text(entry, "caption")), "report generation and captioning"
    else:
        turn = text(entry, "question"), closed(text(entry, "answer"))
        task = _given(entry, "task", "temporal and procedure understanding")
    return [
        origin.record(
            row,
            [origin.medium("video", folder, text(entry, "video"), store)],
            [turn],
            modality=_given(entry, "modality", "unknown"),
            task=task,
            language=_given(entry, "language", "en"),
        )
    ]


VIDEO_CAPTIONS = Adapter(
    VIDEO_FOLDER.source,
    "Captions of a folder of videos",
    VIDEO_FOLDER.license,
    "",
    partial(rows, kinds=("captions",)),
    records,
)
"""The captions alone, for image-text matching."""
ADAPTERS = (Adapter(VIDEO_FOLDER.source, "A folder of videos", VIDEO_FOLDER.license, "", rows, records),)
