# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Fine-tunes a model on a folder of your own: records, training, merged weights, and a table of before and after.

    python -m examples.finetune                                         # labels that no model knows, in minutes
    python -m examples.finetune --data my_folder --out runs/mine --set steps=500

The folder holds `train.jsonl` and, to measure, `test.jsonl`, in the format of LLaVA and VideoLLaMA3, and the media:

    {"image": "a.png", "conversations": [{"from": "human", "value": "<image>\\nWhich team reads this image?"},
                                         {"from": "gpt", "value": "amber"}]}

A folder that `data_engine.build` wrote, or records of one's own in its format (volumes too), is taken as it is.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import defaultdict
from pathlib import Path

import torch

from data_engine.build import BuildConfig, SourceConfig, build
from data_engine.tables import markdown_table
from evaluation.benchmarks import read_benchmark
from evaluation.run import answer, load
from evaluation.score import score_file
from examples.finetune.example_data import write_example
from train.checkpoints.merge import load_base, merged, write_merged
from train.config import StageConfig
from train.stage import run_stage

STAGE = Path(__file__).with_name("stage.yaml")
LONGEST_ANSWER = 32


def build_records(data: Path, out: Path) -> Path:
    """The folder of records: of the folder's conversations, checked against their own test split, or itself.

    Raises:
        ValueError: a folder with neither.
    """
    first = data / "train.jsonl"
    if first.is_file():
        with first.open(encoding="utf-8") as lines:
            if '"media"' in lines.readline():
                return data
    source = SourceConfig(name="videollama3", path=data, splits=("train", "validation", "test"))
    build(BuildConfig(title=data.name, seed=0, sources=(source,), on_leak="drop"), out, "local", os.cpu_count() or 1)
    return out


def ask(model_folder: Path, records: Path, out: Path, batch_size: int = 8) -> dict[str, tuple[int, int]]:
    """Asks the test questions; returns for each wording how many were answered rightly, and how many there are."""
    print(f"Asking {model_folder} …", flush=True)
    questions, _ = read_benchmark("generated", records, records, None)
    model, processor = load(str(model_folder), {}, "cpu" if not torch.cuda.is_available() else "cuda")
    with out.open("w", encoding="utf-8") as file:
        for start in range(0, len(questions), batch_size):
            for row in answer(model, processor, questions[start : start + batch_size], "plain", LONGEST_ANSWER):
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for one in score_file(out).scored:
        counts[one.row["question"]][0] += one.right
        counts[one.row["question"]][1] += 1
    return {question: (right, asked) for question, (right, asked) in counts.items()}


def table(before: dict[str, tuple[int, int]], after: dict[str, tuple[int, int]]) -> str:
    """Before and after, one line a question, as Markdown."""
    rows = [
        [question, str(asked), f"{right / asked:.0%}", f"{after[question][0] / asked:.0%}"]
        for question, (right, asked) in before.items()
    ]
    return markdown_table(["question", "n", "before", "after"], rows)


def finetune(data: Path | None, model: Path, out: Path, changes: list[str]) -> str:
    """The whole of it; each step that is done already is left alone. Returns the table, "" without test questions."""
    if data is None:
        data = out / "example"
        write_example(data)
    records, merged_folder = build_records(data, out / "data"), out / "merged"
    own = [f"output={out / 'training'}", f"model={model}", f"data.folders=[{records}]"]
    config = StageConfig.read(STAGE, [*own, *changes])
    tested = (records / "test.jsonl").exists()
    before = ask(model, records, out / "before.jsonl") if tested else {}
    trained = run_stage(config)
    if config.trains_language_model_in_full:
        merged_folder = trained
    elif not merged_folder.exists():
        write_merged(merged(load_base(model), trained), model, merged_folder)
    print(f"{merged_folder} holds the model; from_pretrained loads it.")
    return table(before, ask(merged_folder, records, out / "after.jsonl")) if tested else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="your folder (default: a generated one)")
    parser.add_argument("--model", type=Path, default=Path("hub_model"), help="folder to begin with (hub_model)")
    parser.add_argument("--out", type=Path, default=Path("runs/finetune"), help="folder for all results")
    parser.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE", help="fields of the stage to change")
    arguments = parser.parse_args()
    try:
        shown = finetune(arguments.data, arguments.model, arguments.out, arguments.set)
    except ValueError as error:
        sys.exit(f"Error: {error}")
    print(shown)


if __name__ == "__main__":
    main()
