# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""What answers cost and are worth as more and more visual tokens are removed, by rule: the paper's claim in a picture.

    python -m evaluation.sweep --data data/mini --out runs/sweep --limit 400

All settings answer the same questions about volumes and videos (a single image has nothing to remove), so each is
compared question by question with the unpruned run. A removal of 60 % is a budget of 40 % of a clip's tokens, met by
the smallest threshold that does; clips that fall below by themselves stay so. Seconds to the first token are medians
over clips asked one at a time, all settings taking turns.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from evaluation.benchmarks import BENCHMARKS, BenchmarkQuestion, find_data, read_benchmark
from evaluation.compare import compare
from evaluation.ledger import Ledger
from evaluation.metrics import bootstrap_interval
from evaluation.run import ask_all, load
from evaluation.score import score_file

RULES = ("anchor", "previous")
COLOUR_OF = {"anchor": "#4477aa", "previous": "#ee6677"}
NAME_OF = {"anchor": "last kept token (ours)", "previous": "previous frame (published)"}
LONGEST_ANSWER = 96


def pruning_of(rule: str, removed: int, stage: str) -> dict[str, Any]:
    """The options that remove a percentage of the visual tokens; 0 prunes nothing."""
    if removed == 0:
        return {"prune_rule": "none", "prune_stage": stage}
    # From a threshold of 0 on, so that the budget alone decides how much is removed.
    return {"prune_rule": rule, "prune_threshold": 0.0, "keep_ratio": 1 - removed / 100, "prune_stage": stage}


@torch.inference_mode()
def seconds_to_first_token(
    model: Any, processor: Any, settings: dict[str, dict[str, Any]], questions: Sequence[BenchmarkQuestion]
) -> dict[str, list[float]]:
    """Seconds from the file to the first token, per setting and question; settings take turns on each question."""
    elapsed: dict[str, list[float]] = {name: [] for name in settings}
    for number, question in enumerate([questions[0], *questions]):
        for name, options in settings.items():
            model.config.vision_config.prune_stage = options["prune_stage"]
            begun = time.perf_counter()
            inputs = processor.apply_chat_template(
                question.messages("plain"),
                add_generation_prompt=True,
                tokenize=True,
                return_dict=True,
                processor_kwargs={k: v for k, v in options.items() if k != "prune_stage"} | {"return_tensors": "pt"},
            )
            model.generate(**inputs.to(model.device), max_new_tokens=1, do_sample=False)
            if number:  # the first question warms up
                elapsed[name].append(time.perf_counter() - begun)
    return elapsed


def measure(
    model_name: str, questions: Sequence[BenchmarkQuestion], removals: Sequence[int], stage: str, timed: int, out: Path
) -> list[dict[str, Any]]:
    """Asks everything under all settings, each with a ledger of its own in `out`; one row of figures a setting."""
    settings = {"unpruned": (RULES[0], 0)} | {
        f"{rule}-{removed}": (rule, removed) for rule in RULES for removed in removals if removed
    }
    options = {name: pruning_of(rule, removed, stage) for name, (rule, removed) in settings.items()}
    for name, pruning in options.items():
        model, processor = load(model_name, pruning, "cuda" if torch.cuda.is_available() else "cpu")
        fixed = {"model": model_name, "questions": len(questions), "pruning": pruning}
        print(f"{name}:", file=sys.stderr)
        with Ledger(out / f"{name}.jsonl", fixed) as ledger:
            ask_all(model, processor, questions, ledger, prompts="plain", batch_size=8, max_new_tokens=LONGEST_ANSWER)
    different = list({one.media[0].path: one for one in questions}.values())[:timed]
    elapsed = seconds_to_first_token(*load(model_name, {}, model.device), options, different)
    runs = {name: score_file(out / f"{name}.jsonl") for name in settings}
    tokens = {name: [one.row["prompt_tokens"] for one in run.scored] for name, run in runs.items()}
    rows = []
    for name, (rule, removed) in settings.items():
        scored = runs[name].scored
        right = [float(one.right) for one in scored]
        paired = compare(runs["unpruned"], runs[name])
        rows.append(
            {
                "setting": name,
                "rule": rule if removed else None,
                "removed": removed / 100,
                "prompt_tokens": float(np.mean(tokens[name])),
                "prompt_tokens_removed": 1 - float(np.sum(tokens[name])) / float(np.sum(tokens["unpruned"])),
                "accuracy": float(np.mean(right)),
                "accuracy_interval": bootstrap_interval(right, [one.group for one in scored]),
                "difference_to_unpruned": paired["right"]["difference"],
                "difference_interval": paired["right"]["interval"],
                "right_to_wrong": paired["n_right_to_wrong"],
                "wrong_to_right": paired["n_wrong_to_right"],
                "mcnemar_p": paired["mcnemar_p"],
                "questions": len(right),
                "seconds_to_first_token": float(np.median(elapsed[name])),
                "timed_clips": len(elapsed[name]),
            }
        )
    return rows


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Accuracy with its interval, prompt tokens and seconds to the first token, against the share removed."""
    figure = Figure(figsize=(12, 3.8), layout="constrained")
    panels = {
        "accuracy": "share of right answers",
        "prompt_tokens": "tokens of a prompt",
        "seconds_to_first_token": "seconds to the first token",
    }
    for axes, (key, label) in zip(figure.subplots(1, 3), panels.items(), strict=True):
        for rule in RULES:
            curve = [row for row in rows if row["rule"] in (None, rule)]
            removed = [100 * row["removed"] for row in curve]
            axes.plot(removed, [row[key] for row in curve], "o-", color=COLOUR_OF[rule], label=NAME_OF[rule])
            if key == "accuracy":
                low, high = zip(*(row["accuracy_interval"] for row in curve), strict=True)
                axes.fill_between(removed, low, high, color=COLOUR_OF[rule], alpha=0.18, linewidth=0)
        axes.set_xlabel("visual tokens removed, at least (%)")
        axes.set_ylabel(label)
        axes.set_ylim(bottom=0)
        axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.suptitle(f"{rows[0]['questions']} questions about volumes and videos; bands are 95 % intervals", fontsize=11)
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="hub_model", help="folder or Hub id (default hub_model)")
    parser.add_argument("--benchmark", choices=BENCHMARKS, default="generated")
    parser.add_argument("--data", required=True, help="folder that was built or downloaded")
    parser.add_argument("--out", type=Path, required=True, help="folder for answers, sweep.json and sweep.png")
    parser.add_argument("--removed", type=int, nargs="+", default=[30, 60, 80, 95], help="percentages of tokens")
    parser.add_argument("--stage", choices=("language", "encoder"), default="language", help="the model's prune_stage")
    parser.add_argument("--limit", type=int, help="ask the first so many questions only")
    parser.add_argument("--timed", type=int, default=20, help="clips for seconds to the first token (default 20)")
    arguments = parser.parse_args()
    try:
        questions, _ = read_benchmark(arguments.benchmark, find_data(arguments.data), arguments.out / "media", None)
        questions = [one for one in questions if one.dimension != "2d"][: arguments.limit]
        if not questions:
            raise ValueError(f"{arguments.data} holds no question about a volume or a video.")
        rows = measure(
            arguments.model, questions, sorted(arguments.removed), arguments.stage, arguments.timed, arguments.out
        )
    except ValueError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("Stopped; the same command goes on from here.")
    figures = {"model": arguments.model, "benchmark": arguments.benchmark, "prune_stage": arguments.stage, "rows": rows}
    (arguments.out / "sweep.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    draw(rows, arguments.out / "sweep.png")
    for row in rows:
        low, high = row["difference_interval"] or (0.0, 0.0)
        print(
            f"{row['setting']:14s} accuracy {row['accuracy']:6.1%}  difference {row['difference_to_unpruned']:+.1%} "
            f"[{low:+.1%}, {high:+.1%}]  prompt {row['prompt_tokens']:6.0f} tokens  "
            f"first token {row['seconds_to_first_token']:.2f} s  n={row['questions']}"
        )


if __name__ == "__main__":
    main()
