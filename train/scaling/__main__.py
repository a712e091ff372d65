# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""How the held-out loss of the Nano's recipe falls with parameters and data: nine runs, and a law fitted to them.

    python -m train.scaling --data data/mini --json benchmarks/results/scaling.json --figure docs/scaling.png

Three sizes of model and three nested parts of the set; the middle size on the smallest part again with two more seeds,
which the fit leaves out. A stopped command goes on where it was; what is done lies in --runs. `train.scaling.costs`
says what 1.5B and 7B would cost.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch
import transformers

from data_engine.files import write_atomically
from train.scaling import runs
from train.scaling.figure import Point, draw
from train.scaling.law import Law
from train.scaling.runs import measured_run
from train.scaling.summary import REDRAWS, planned_runs, summary, table_of_law, table_of_runs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="a set built by data_engine.build as JSON Lines")
    parser.add_argument("--runs", type=Path, default=Path("runs/scaling"), help="folder of the runs")
    parser.add_argument("--json", type=Path, required=True, metavar="OUT", help="file for the figures")
    parser.add_argument("--figure", type=Path, required=True, metavar="OUT", help="PNG of losses and law")
    arguments = parser.parse_args()
    try:
        measured = [measured_run(run, arguments.data, arguments.runs, runs.CONVERSATIONS) for run in planned_runs()]
        report = summary(measured, REDRAWS)
    except ValueError as error:
        sys.exit(f"Error: {error}")
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    command = " ".join(["python -m train.scaling", *sys.argv[1:]])
    with write_atomically(arguments.json) as part:
        part.write_text(json.dumps({"command": command, **versions, **report}, indent=1) + "\n", encoding="utf-8")
    nine = [row for row in report["runs"] if row["seed"] == 0]
    points = [Point(*(row[name] for name in ("parameters", "samples", "loss", "low", "high"))) for row in nine]
    draw(points, Law(**report["law"]["constants"]), arguments.figure)
    print(table_of_runs(report))
    print("\n" + table_of_law(report))
    for one in report["extrapolated"]:
        print(
            f"\n{one['model']} on {one['samples']:,} samples: {one['loss']:.3f} ({one['low']:.3f}–{one['high']:.3f}); "
            f"{one['worth']}."
        )


if __name__ == "__main__":
    main()
