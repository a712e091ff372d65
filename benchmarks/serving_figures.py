# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""What became of the requests of the serving benchmark, as figures: rates, percentiles, ratios, and a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from data_engine.tables import markdown_table

SERVER = "vLLM server"
ONE_BY_ONE = "generate, one by one"
IN_BATCHES = "generate, in static batches"
PICTURES, PRUNED, UNPRUNED = "pictures", "CT, pruned", "CT, not pruned"
PRUNED_EARLY = "CT, pruned before the encoder"
OVER_UNPRUNED = {PRUNED: "pruned_over_unpruned", PRUNED_EARLY: "pruned_before_the_encoder_over_unpruned"}
"""A workload -> the name of its ratio to the unpruned one."""
GOALS = {"server_over_one_by_one": 4.0, **dict.fromkeys(OVER_UNPRUNED.values(), 2.0)}
"""What the ratio of that name should reach with `GOAL_CLIENTS` clients."""
GOAL_CLIENTS = 8


@dataclass(frozen=True)
class Reply:
    """An answer that came.

    Attributes:
        file: number of the file among those of the workload.
        first_token, seconds: from the request to the first token, and to the last.
        text: the answer.
        prompt_tokens: the medium's included.
    """

    file: int
    first_token: float
    seconds: float
    text: str
    prompt_tokens: int


@dataclass(frozen=True)
class Turn:
    """What one side answered in one turn.

    Attributes:
        replies: in any order.
        seconds: from the first request to the last answer.
        peak_mib: the largest memory of the side's processes in this time.
    """

    replies: Sequence[Reply]
    seconds: float
    peak_mib: float

    @property
    def rate(self) -> float:
        """Answered requests a second."""
        return len(self.replies) / self.seconds


@dataclass(frozen=True)
class Cell:
    """What is measured: a workload, who answers, and how many requests that side has at once."""

    workload: str
    side: str
    clients: int


def row_of(cell: Cell, turns: Sequence[Turn], expected: Mapping[int, str]) -> dict[str, Any]:
    """The figures of a cell.

    Args:
        cell: which.
        turns: at least one.
        expected: number of a file -> the answer of the other side, for those files that it was asked about.
    """
    replies = [reply for turn in turns for reply in turn.replies]
    p50, p95 = np.percentile([reply.first_token for reply in replies], [50, 95])
    compared = [reply for reply in replies if reply.file in expected]
    return {
        "workload": cell.workload,
        "side": cell.side,
        "clients": cell.clients,
        "requests_per_second": median(turn.rate for turn in turns),
        "first_token_p50_s": float(p50),
        "first_token_p95_s": float(p95),
        "peak_mib": max(turn.peak_mib for turn in turns),
        "prompt_tokens_median": median(reply.prompt_tokens for reply in replies),
        "requests": len(replies),
        "same_answers": sum(reply.text == expected[reply.file] for reply in compared),
        "compared_answers": len(compared),
        "turns": [
            {
                "requests": len(turn.replies),
                "seconds": turn.seconds,
                "requests_per_second": turn.rate,
                "peak_mib": turn.peak_mib,
                "first_token_s": [reply.first_token for reply in turn.replies],
            }
            for turn in turns
        ],
    }


def rows_of(turns: Mapping[Cell, Sequence[Turn]]) -> list[dict[str, Any]]:
    """A row a cell; each answer is compared with that of `generate`, one by one, to the same file."""
    rows = []
    for cell, held in turns.items():
        alone = turns.get(Cell(cell.workload, ONE_BY_ONE, 1), ())
        expected = {reply.file: reply.text for turn in alone for reply in turn.replies}
        rows.append(row_of(cell, held, expected))
    return rows


def ratios(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, dict[int, float]]]:
    """Requests a second of the server over those of each peer, and of pruned volumes over those of unpruned ones.

    Returns:
        Name of the ratio -> workload (the side, where workloads are compared) -> clients -> ratio.
    """
    rates = {Cell(row["workload"], row["side"], row["clients"]): row["requests_per_second"] for row in rows}
    found: dict[str, dict[str, dict[int, float]]] = {}
    for cell, rate in rates.items():
        if cell.side == SERVER:
            for name, side in (("server_over_one_by_one", ONE_BY_ONE), ("server_over_static_batches", IN_BATCHES)):
                for peer in rates:
                    if (peer.workload, peer.side) == (cell.workload, side):
                        found.setdefault(name, {}).setdefault(cell.workload, {})[cell.clients] = rate / rates[peer]
        unpruned = Cell(UNPRUNED, cell.side, cell.clients)
        if cell.workload in OVER_UNPRUNED and unpruned in rates:
            of_sides = found.setdefault(OVER_UNPRUNED[cell.workload], {})
            of_sides.setdefault(cell.side, {})[cell.clients] = rate / rates[unpruned]
    return found


def goals(found: Mapping[str, Mapping[str, Mapping[int, float]]]) -> list[dict[str, Any]]:
    """Each goal beside what was measured, for the server with `GOAL_CLIENTS` clients; none where it had others."""
    return [
        {"ratio": name, "of": of, "clients": GOAL_CLIENTS, "goal": goal, "measured": values[GOAL_CLIENTS]}
        for name, goal in GOALS.items()
        for of, values in found.get(name, {}).items()
        if GOAL_CLIENTS in values and (name not in OVER_UNPRUNED.values() or of == SERVER)
    ]


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows in Markdown."""
    header = ["what", "who", "at once", "requests/s", "first token p50", "p95", "peak memory", "same answers"]
    lines = [
        [
            row["workload"],
            row["side"],
            str(row["clients"]),
            f"{row['requests_per_second']:.2f}",
            f"{row['first_token_p50_s']:.2f} s",
            f"{row['first_token_p95_s']:.2f} s",
            f"{row['peak_mib']:.0f} MiB",
            f"{row['same_answers']} of {row['compared_answers']}",
        ]
        for row in rows
    ]
    return markdown_table(header, lines)


def goals_table(found: Sequence[Mapping[str, Any]]) -> str:
    """Goals and what was measured, in Markdown."""
    header = ["ratio", "of", "clients", "goal", "measured"]
    lines = [
        [one["ratio"], one["of"], str(one["clients"]), f"{one['goal']:.1f}×", f"{one['measured']:.2f}×"]
        for one in found
    ]
    return markdown_table(header, lines)
