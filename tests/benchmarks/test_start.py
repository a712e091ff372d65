# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The benchmark of starting, on commands that do nothing or fail."""

from __future__ import annotations

import subprocess

import pytest

from benchmarks.start import measure


def test_commands_take_turns_and_each_counts_its_own_time(tmp_path) -> None:
    order = tmp_path / "order"
    work = "sum(range(40_000_000))"
    rows = measure(
        {
            "idle": ["-S", "-c", f"open({str(order)!r}, 'a').write('i')"],
            "busy": ["-S", "-c", f"open({str(order)!r}, 'a').write('b'); {work}"],
        },
        repeats=2,
    )
    assert order.read_text() == "ibibib"
    idle, busy = rows
    assert (idle["command"], busy["command"]) == ("idle", "busy")
    assert min(busy["cpus"]) > max(idle["cpus"]), "forty million additions take longer than starting Python"
    assert len(busy["walls"]) == 2, "the first round is not counted"
    assert sum(busy["walls"]) / 2 == busy["wall"], "the median of two"


def test_a_command_that_fails_ends_the_measurement() -> None:
    with pytest.raises(subprocess.CalledProcessError):
        measure({"fails": ["-c", "raise SystemExit(1)"]}, repeats=1)
