# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""What every benchmark writes down: the command, the machine and the figures, as JSON."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
import transformers

from data_engine.intervals import wilson_interval


def machine() -> dict[str, Any]:
    """The machine and the versions that a figure depends on."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        cpu = names[0] if names else cpu
    return {
        "cpu": cpu,
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def write_json(path: str | Path, benchmark: str, results: dict[str, Any]) -> None:
    """Writes the figures with what is needed to run them again."""
    command = " ".join(["python", "-m", f"benchmarks.{benchmark}", *sys.argv[1:]])
    report = {"command": command, "machine": machine(), **results}
    Path(path).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def share_with_interval(hits: int, count: int) -> dict[str, float | int]:
    """A share with its 95 % Wilson interval."""
    low, high = wilson_interval(hits, count)
    return {"share": hits / count, "low": low, "high": high, "n": count}


def medians_of_rounds(
    runs: Sequence[dict[str, Any]], about: Sequence[str], measured: Sequence[str]
) -> list[dict[str, Any]]:
    """One entry for all runs about the same, in the order of the runs: medians of what was measured.

    Args:
        runs: each with its "round" and, by stage, its "seconds".
        about: the fields that say what a run is about.
        measured: the fields that vary from round to round, beside the seconds; all others must not.

    Raises:
        ValueError: where two runs about the same differ in another field.
    """
    together: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for run in runs:
        together.setdefault(tuple(run[field] for field in about), []).append(run)
    entries = []
    for rounds in together.values():
        counted = [{key: run[key] for key in run if key not in (*measured, "seconds", "round")} for run in rounds]
        if any(one != counted[0] for one in counted):
            raise ValueError(f"Two runs about the same differ: {counted}.")
        seconds = {stage: median(run["seconds"][stage] for run in rounds) for stage in rounds[0]["seconds"]}
        entries.append(
            {**counted[0], **{key: median(run[key] for run in rounds) for key in measured}, "seconds": seconds}
        )
    return entries
