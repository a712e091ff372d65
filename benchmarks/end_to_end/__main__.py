# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""From a file to the first token and to the 32nd, with peak memory, beside transformers' VideoLlama3.

    python -m benchmarks.end_to_end --json benchmarks/results/end_to_end.json --figure docs/end_to_end.png

Generated files: two NIfTI volumes of 64 and 181 slices, a DICOM folder of 275, five minutes of video at one frame a
second. The peer reads them with nibabel, pydicom or PyAV, sizes them with Pillow, and asks VideoLlama3 with its own
compression. Ours asks without pruning ("none") and with both stages of pruning at the processor's default threshold
("language", "encoder"). Both have the same frames and frame sizes, the same question, and the same random weights: they
say nothing, but cost what trained ones cost.

Each run is a process of its own, and the sides take turns. A process loads the model and asks about a tiny file first;
then the clock starts. The floor is a run's arithmetic and bytes over the rates of a matrix product and of reading
memory, measured in the same run. Linux only.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm
from transformers import PreTrainedTokenizerFast
from transformers.utils import logging

from benchmarks.end_to_end.cases import CASES, CLIP_TOKENS, DTYPES, HUB_MODEL, NEW_TOKENS, SIDES, Case, Run, Widths
from benchmarks.end_to_end.figures import draw_stages, medians, ratios, table
from benchmarks.end_to_end.files import tiny, write_files
from benchmarks.end_to_end.floor import floor, rates
from benchmarks.end_to_end.measuring import FreshProcesses, measure
from benchmarks.end_to_end.models import write_models
from benchmarks.report import write_json


def compare(cases: list[Case], dtypes: list[str], widths: Widths, rounds: int) -> dict[str, Any]:
    """All figures: rates of the machine, every run, medians with their floors, and ratios."""
    processes, threads = FreshProcesses(), torch.get_num_threads()
    vocabulary = len(PreTrainedTokenizerFast.from_pretrained(HUB_MODEL))
    runs: list[dict[str, Any]] = []
    measured: dict[str, list[dict[str, float]]] = {dtype: [] for dtype in dtypes}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        weights = write_models(folder, widths, dtypes)
        for case in cases:
            write_files(case, folder)
        with tqdm(total=rounds * len(dtypes) * len(cases) * len(SIDES)) as bar:
            for number in range(rounds):
                for dtype in dtypes:
                    measured[dtype].append(processes.call(rates, dtype, threads))
                    for case in cases:
                        for side in SIDES:
                            bar.set_description(f"{case.name}, {dtype}, {side}")
                            found = processes.call(measure, Run(case, dtype, side, threads), folder, tiny(case))
                            names = {"case": case.name, "dtype": dtype, "side": side, "round": number}
                            runs.append({**names, **found})
                            bar.update()
    best = {dtype: {name: max(one[name] for one in found) for name in found[0]} for dtype, found in measured.items()}
    entries = medians(runs)
    for entry in entries:
        entry["floor"] = floor(entry, widths, vocabulary, entry["dtype"], best[entry["dtype"]])
    return {
        "rounds": rounds,
        "new_tokens": NEW_TOKENS,
        "tokens_of_a_clip": CLIP_TOKENS,
        "widths": asdict(widths),
        "weights": weights,
        "rates": best,
        "ratios": ratios(entries),
        "cases": entries,
        "runs": runs,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True, metavar="OUT", help="file for the figures")
    parser.add_argument("--figure", type=Path, metavar="PNG", help="where the chart of the stages goes")
    keys = [case.key for case in CASES]
    parser.add_argument("--cases", nargs="+", choices=keys, default=keys, help="files (default: all)")
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=list(DTYPES), help="formats (default: both)")
    parser.add_argument(
        "--layers", type=int, default=Widths.layers, help="of encoder and of language model (default: %(default)s)"
    )
    parser.add_argument("--rounds", type=int, default=2, help="turns of each side (default: %(default)s)")
    arguments = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    chosen = [case for case in CASES if case.key in arguments.cases]
    results = compare(chosen, arguments.dtypes, Widths(arguments.layers), arguments.rounds)
    write_json(arguments.json, "end_to_end", results)
    if arguments.figure:
        draw_stages(results["cases"], arguments.figure)
    print(table(results["cases"]))


if __name__ == "__main__":
    main()
