# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""What all runs say together: medians, ratios, the table, and the chart of where the time goes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from benchmarks.end_to_end.cases import DTYPES, PEER, PRUNED, SIDES
from benchmarks.end_to_end.measuring import STAGES
from benchmarks.report import medians_of_rounds
from data_engine.tables import markdown_table

MEASURED = ("first_token_s", "last_token_s", "peak_bytes", "before_bytes")
GIGABYTE = 1e9
COLOURS = ("#94a3b8", "#0284c7", "#0f766e", "#f59e0b", "#be123c")
"""Of the stages, in order."""


def medians(runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One entry for each case, number format and side, in the order of the runs: medians of what was measured.

    Raises:
        ValueError: where two runs of a side differ in what they asked about, or two sides in their frames.
    """
    found = medians_of_rounds(runs, ("case", "dtype", "side"), MEASURED)
    shapes: dict[str, tuple[int, list[int]]] = {}
    for entry in found:
        shape = entry["frames"], entry["tokens_of_a_frame"]
        if shapes.setdefault(entry["case"], shape) != shape:
            raise ValueError(f"{entry['case']}: {entry['side']} has {shape}, another side {shapes[entry['case']]}.")
    return found


def rise(entry: dict[str, Any]) -> float:
    """Bytes that a question took at most, beyond those of the libraries and the loaded model."""
    return entry["peak_bytes"] - entry["before_bytes"]


def ratios(entries: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """For each case and number format, peer over ours in time and ours over peer in memory, with pruned tokens neither
    encoded nor in the prompt (`PRUNED`), and what was removed then; `first_token_…` and `memory_…` of our other sides.
    `memory` compares whole processes, `memory_beyond_model` what the question took of it.

    Cases that were not asked about by both are left out.
    """
    found: dict[str, dict[str, float]] = {}
    for (case, dtype), sides in _by_case(entries).items():
        if PEER not in sides or PRUNED not in sides:
            continue
        peer, pruned = sides[PEER], sides[PRUNED]
        one = {
            "first_token": peer["first_token_s"] / pruned["first_token_s"],
            "last_token": peer["last_token_s"] / pruned["last_token_s"],
            "memory": pruned["peak_bytes"] / peer["peak_bytes"],
            "memory_beyond_model": rise(pruned) / rise(peer),
            "removed": pruned["removed"],
            "removed_by_peer": peer["removed"],
        }
        for name, side in sides.items():
            if name not in (PEER, PRUNED):
                one[f"first_token_{name}"] = peer["first_token_s"] / side["first_token_s"]
                one[f"memory_{name}"] = side["peak_bytes"] / peer["peak_bytes"]
        found[f"{case}, {dtype}"] = one
    return found


def _by_case(entries: Sequence[dict[str, Any]]) -> dict[tuple[str, str], dict[str, dict[str, Any]]]:
    """Entries by (case, number format), then by side."""
    found: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
    for entry in entries:
        found.setdefault((entry["case"], entry["dtype"]), {})[entry["side"]] = entry
    return found


def table(entries: Sequence[dict[str, Any]]) -> str:
    """Seconds, floor and memory as Markdown, one line a case and number format."""
    compared = ratios(entries)
    rows = []
    for (case, dtype), sides in _by_case(entries).items():
        peer, pruned, ratio = sides.get(PEER), sides.get(PRUNED), compared.get(f"{case}, {dtype}")
        rows.append(
            [
                f"{case}, {dtype}",
                " / ".join(f"{side['removed']:.0%}" if side else "" for side in (peer, pruned)),
                *(f"{sides[name]['first_token_s']:.2f} s" if name in sides else "" for name in SIDES),
                f"{ratio['first_token']:.1f}×" if ratio else "",
                f"{pruned['floor']['first_token_s']:.2f} s" if pruned else "",
                " / ".join(f"{side['last_token_s']:.2f} s" if side else "" for side in (peer, pruned)),
                " / ".join(f"{side['peak_bytes'] / GIGABYTE:.2f} GB" if side else "" for side in (peer, pruned)),
                f"{ratio['memory']:.2f}×" if ratio else "",
            ]
        )
    header = ["file", f"removed: {PEER} / ours", PEER, *(f"ours, {side}" for side in SIDES[1:]), "sooner"]
    header += [f"floor of {PRUNED}", "32nd token: both", "peak memory: both", "memory"]
    return markdown_table(header, rows)


def draw_stages(entries: Sequence[dict[str, Any]], path: Path) -> None:
    """Writes a PNG: rows are number formats, panels cases, bars sides and colours stages."""
    cases = list(dict.fromkeys(entry["case"] for entry in entries))
    dtypes = [dtype for dtype in DTYPES if any(entry["dtype"] == dtype for entry in entries)]
    figure = Figure(figsize=(max(3.6 * len(cases), 7), 2.1 * len(dtypes) + 0.6), layout="constrained")
    panels = figure.subplots(len(dtypes), len(cases), squeeze=False, sharey=True, sharex="col")
    grouped = _by_case(entries)
    for line, dtype in zip(panels, dtypes, strict=True):
        for panel, case in zip(line, cases, strict=True):
            sides = grouped.get((case, dtype), {})
            names = [name for name in SIDES if name in sides]
            left = [0.0] * len(names)
            for stage, colour in zip(STAGES, COLOURS, strict=True):
                lengths = [sides[name]["seconds"][stage] for name in names]
                panel.barh(names, lengths, left=left, color=colour, label=stage)
                left = [start + length for start, length in zip(left, lengths, strict=True)]
            if dtype == dtypes[0]:
                panel.set_title(case, fontsize="medium")
            panel.spines[["top", "right"]].set_visible(False)
            panel.grid(axis="x", alpha=0.3)
        line[0].set_ylabel(dtype)
        line[0].invert_yaxis()
    for panel in panels[-1]:
        panel.set_xlabel("seconds")
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(STAGES), frameon=False)
    figure.savefig(path, dpi=110)
