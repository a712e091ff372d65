# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""What was measured of the model that runs: the kinds of questions it answers better than blind, and its first figures.

`evaluation.nano_report` writes `metrics.json` into the model's folder, and `benchmarks.evidence` writes `evidence.json`
there; a model without these files promises nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

METRICS = "metrics.json"
EVIDENCE = "evidence.json"
MODEL = "weights_and_configuration_sha256"
"""In both files, which model was measured."""
TEST_SPLITS = {"slake": "SLAKE, English test", "vqa-rad": "VQA-RAD, official test"}
"""Source -> what its test split is called, on the page and in the documents."""


@dataclass(frozen=True)
class Measured:
    """Figures of one model.

    Attributes:
        answered: task of the evaluation -> whether answers are right oftener than with another picture in the
            picture's place, by the whole 95 % interval; tasks that were not measured are missing.
        lines: sentences for the "About" page, empty where nothing was measured.
        shows_findings: kinds of clips on whose findings the evidence of its answers lies more often than chance has it.
    """

    answered: Mapping[str, bool]
    lines: tuple[str, ...]
    shows_findings: frozenset[str] = frozenset()


def read_measured(model: str) -> Measured:
    """The figures in a model's folder; none for a Hub id or a folder without them."""
    figures, evidence = _read(Path(model) / METRICS), _read(Path(model) / EVIDENCE)
    real = figures.get("real_pictures", {})
    # What real pictures tell stands before what generated samples do.
    tasks = {**figures.get("test", {}).get("task", {}), **real.get("task", {})}
    if figures and evidence.get(MODEL) != figures.get(MODEL):
        evidence = {}  # of another model, such as the one before a training
    lines = (*_lines(real), *_evidence_lines(evidence))
    answered = {name: _above_blind(row) for name, row in tasks.items()}
    return Measured(answered, lines, frozenset(evidence.get("shows_findings", ())))


def _read(path: Path) -> dict[str, Any]:
    """The figures in a file; {} where there are none."""
    try:
        figures = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return figures if isinstance(figures, dict) else {}


def _evidence_lines(evidence: Mapping[str, Any]) -> list[str]:
    lines = []
    for name, row in evidence.get("sets", {}).items():
        overlap = row["overlap"]
        lines.append(
            f"**Where did it look?** The strongest region overlaps the finding in {overlap['value']:.1%} of "
            f"{row['count']} {name}; any region would in {overlap['chance']:.1%}, and the strongest place of another "
            f"one in {overlap['elsewhere']:.1%}."
        )
    kinds = evidence.get("shows_findings", ())
    if lines and "image" not in kinds:
        lines.append("In pictures that is not clearly more often than chance, so the page does not offer it there.")
    if lines and "volume" not in kinds:
        lines.append("In volumes and videos it was not seen to be more often than chance, so it is not offered there.")
    return lines


def _above_blind(row: Mapping[str, Any]) -> bool:
    return row.get("gain_interval") is not None and row["gain_interval"][0] > 0


def _lines(real: Mapping[str, Any]) -> list[str]:
    lines = []
    for source, name in TEST_SPLITS.items():
        if row := real.get("sources", {}).get(source, {}).get("all"):
            low, high = row["interval"]
            lines.append(
                f"**{name}**: {row['accuracy']:.1%} of {row['count']:,} questions right (95 % interval {low:.1%} to "
                f"{high:.1%}), {row['blind']:.1%} with another picture in the picture's place."
            )
    declined = real.get("declined", {})
    for reply, what in (("cannot tell", "questions that the picture cannot answer"), ("not medical", "other pictures")):
        if row := declined.get(reply):
            lines.append(f"It declines {row['share']:.1%} of {row['count']} {what}.")
    return lines
