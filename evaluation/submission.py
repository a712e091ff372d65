# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Answers to a benchmark whose true answers are withheld, as the file that its owners score.

MedVidBench takes a list of {"id": "<video_id>&&<start>&&<end>&&<fps>", "qa_type", "prediction"} in the order of its
questions; ids repeat where several questions are about one clip.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from data_engine.adapters import get_adapter
from data_engine.adapters.base import Row
from data_engine.adapters.medvidbench import MEDVIDBENCH
from data_engine.files import write_atomically
from data_engine.ledger import read_lines

Entries = list[dict[str, str]]


def medvidbench(data: Path, predictions: Mapping[str, str]) -> Entries:
    """The list for MedVidBench.

    Args:
        data: its downloaded folder.
        predictions: id of a question -> the model's answer; a row that cannot be asked gets an empty one.
    """
    return [
        {
            "id": _clip_id(row.values["entry"].get("metadata")),
            "qa_type": str(row.values["entry"].get("qa_type", "")),
            "prediction": predictions.get(MEDVIDBENCH.record_id(row), ""),
        }
        for row in _entries(data)
    ]


def _entries(data: Path) -> list[Row]:
    return [row for row in get_adapter(MEDVIDBENCH.source).rows(data) if "entry" in row.values]


def _clip_id(metadata: object) -> str:
    """The id of a clip; a part of the set names the ends of a clip without "input_video_"."""
    about: Mapping[str, Any] = metadata if isinstance(metadata, dict) else {}
    ends = [about.get(f"input_video_{end}_frame") or about.get(f"{end}_frame") or "" for end in ("start", "end")]
    return "&&".join(str(part) for part in (about.get("video_id", ""), *ends, about.get("fps", "")))


SUBMISSIONS: dict[str, Callable[[Path, Mapping[str, str]], Entries]] = {MEDVIDBENCH.source: medvidbench}
"""Benchmark -> what makes its owners' list."""


def write_submission(benchmark: str, data: Path, predictions: Path, out: Path) -> Path:
    """Writes OUT/submission.json from a file of predictions, whole or not at all; returns its path.

    Args:
        benchmark: one of `SUBMISSIONS`.
        data: the benchmark's folder.
        predictions: that `evaluation.run` wrote.
    """
    answers = {
        str(row["id"]): str(row["prediction"]) for _, row in read_lines(predictions) if row and "prediction" in row
    }
    path = out / "submission.json"
    with write_atomically(path) as part:
        part.write_text(
            json.dumps(SUBMISSIONS[benchmark](data, answers), indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
        )
    return path
