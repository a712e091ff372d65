# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Measures how long one question takes from the shell, beside what importing the libraries takes alone.

    python -m benchmarks.start --json benchmarks/results/start.json

`examples.ask` starts, reads a picture, loads the weights and answers. The floor under it is a process that only imports
what every model of transformers needs. They take turns; the first round, which may read a cold disk, is not counted.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.report import write_json
from benchmarks.timing import seconds, take_turns
from data_engine.tables import markdown_table

ROOT = Path(__file__).resolve().parents[1]
IMPORTS = "import torch, transformers.modeling_utils, transformers.processing_utils, transformers.generation"
COMMANDS = {
    "the libraries' imports alone": ["-c", IMPORTS],
    "examples.ask": ["-m", "examples.ask", "examples/media/xray.png", "Which imaging modality is this?"],
}


def wall_and_cpu(arguments: Sequence[str]) -> tuple[float, float]:
    """Seconds of a run of Python with these arguments: on the clock, and of its processes on all cores together.

    Raises:
        subprocess.CalledProcessError: the command fails.
    """
    before = os.times()
    wall = seconds(lambda: subprocess.run([sys.executable, *arguments], cwd=ROOT, check=True, capture_output=True))
    after = os.times()
    return wall, after.children_user + after.children_system - before.children_user - before.children_system


def measure(commands: Mapping[str, Sequence[str]], repeats: int) -> list[dict[str, Any]]:
    """Runs Python with each of these arguments in turn, so often after a round that is not counted.

    Returns:
        One row a command: the medians of its seconds (`wall`) and of its processes' time on all cores (`cpu`), and both
        of every run.

    Raises:
        subprocess.CalledProcessError: for a command that fails.
    """
    runs = take_turns({name: partial(wall_and_cpu, arguments) for name, arguments in commands.items()}, repeats)
    rows = []
    for name, pairs in runs.items():
        wall, cpu = zip(*pairs, strict=True)
        medians = {"wall": statistics.median(wall), "cpu": statistics.median(cpu)}
        rows.append({"command": name, **medians, "walls": wall, "cpus": cpu})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7, help="runs of each command (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="where the figures are written")
    arguments = parser.parse_args()
    rows = measure(COMMANDS, arguments.repeats)
    table = [[row["command"], f"{row['wall']:.2f}", f"{row['cpu']:.2f}"] for row in rows]
    print(markdown_table(["command", "seconds", "seconds on all cores together"], table))
    if arguments.json:
        write_json(arguments.json, "start", {"repeats": arguments.repeats, "rows": rows})


if __name__ == "__main__":
    main()
