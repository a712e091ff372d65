# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""What answers cost and are worth as more and more visual tokens are removed, by rule: the paper's claim in a picture.

    python -m evaluation.nano.sweep --data data/mini --out runs/sweep

All settings answer the same questions about volumes and videos (a single image has nothing to remove) that have a short
answer, so each is compared question by question with the unpruned run. A removal of 60 % is a budget of 40 % of a
clip's tokens, met by the smallest threshold that does; clips that fall below by themselves stay so. Our rules are asked
with tokens removed before the language model and before the encoder (`prune_stage`), the published one as published,
before the language model; `--rules` says which. Seconds to the first token are medians over clips asked one at a time,
settings taking turns.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from matplotlib.figure import Figure
from transformers import BatchFeature

from data_engine.commands import resumable_command
from data_engine.ledger import Ledger
from data_engine.records import REPORTS
from data_engine.tables import markdown_table
from evaluation.benchmarks import GENERATED, BenchmarkQuestion, find_data, read_benchmark
from evaluation.breakdown import percent, span
from evaluation.compare import compare
from evaluation.metrics import bootstrap_interval
from evaluation.run import DTYPES, PRUNE_STAGE, ask_all, load
from evaluation.score import score_file
from hub_model.configuration_omniv_med import PRUNE_STAGES, PruneStage
from hub_model.token_pruning_omniv_med import PRUNE_RULES, RULE_WORDS, PruneRule

if TYPE_CHECKING:
    from hub_model.modeling_omniv_med import OmniVMedForConditionalGeneration
    from hub_model.processing_omniv_med import OmniVMedProcessor

BATCH_SIZE = 48
LARGEST_LOSS, EXCLUDED_LOSS, REMOVED_AT_LEAST = 0.01, 0.02, 0.6
"""The goal: where so much is removed, accuracy falls by one point at most, and the interval excludes a fall of two."""


@dataclass(frozen=True)
class Curve:
    """One way of pruning, asked at several removals."""

    rule: PruneRule
    stage: PruneStage

    @property
    def name(self) -> str:
        """What tables and figures call it."""
        return f"{RULE_WORDS[self.rule]}, before the {'language model' if self.stage == 'language' else 'encoder'}"


ASKABLE = tuple(rule for rule in PRUNE_RULES if rule != "none")
ASKED: tuple[PruneRule, ...] = ("anchor", "previous")
"""The rules asked by default: ours and the published one. Each takes an answer to every question at each removal."""
COLOURS = ("#4477aa", "#228833", "#ee6677", "#ccbb44", "#66ccee", "#aa3377")
"""Of the curves, in turn."""
UNPRUNED = "unpruned"


def curves_of(rules: Sequence[PruneRule]) -> list[Curve]:
    """The curves of rules: each before the language model and, but for the published one, before the encoder."""
    return [Curve(rule, stage) for rule in rules for stage in PRUNE_STAGES if (rule, stage) != ("previous", "encoder")]


def pruning_of(curve: Curve | None, removed: int) -> dict[str, Any]:
    """The options that remove a percentage of the visual tokens; no curve prunes nothing."""
    if curve is None:
        return {"prune_rule": "none", "keep_ratio": None, "prune_stage": "language"}
    # From a threshold of 0 on, so that the budget alone decides how much is removed.
    return {
        "prune_rule": curve.rule,
        "prune_threshold": 0.0,
        "keep_ratio": 1 - removed / 100,
        "prune_stage": curve.stage,
    }


def settings_of(removals: Sequence[int], rules: Sequence[PruneRule] = ASKED) -> dict[str, tuple[Curve | None, int]]:
    """Name of each setting -> its curve and the percentage removed; the first prunes nothing and is of no curve."""
    settings: dict[str, tuple[Curve | None, int]] = {UNPRUNED: (None, 0)}
    for curve in curves_of(rules):
        settings |= {f"{curve.rule}-{curve.stage}-{removed}": (curve, removed) for removed in removals if removed}
    return settings


def about_clips(questions: Sequence[BenchmarkQuestion]) -> list[BenchmarkQuestion]:
    """The questions about volumes and videos whose short answers are right or wrong.

    Sentences are left out: they are hardly ever matched exactly, so they would hide a loss.
    """
    return [one for one in questions if one.dimension != "2d" and one.task != REPORTS]


@torch.inference_mode()
def seconds_to_first_token(
    model: OmniVMedForConditionalGeneration,
    processor: OmniVMedProcessor,
    settings: dict[str, dict[str, Any]],
    questions: Sequence[BenchmarkQuestion],
) -> dict[str, list[float]]:
    """Seconds from the file to the first token, per setting and question; settings take turns on each question."""
    elapsed: dict[str, list[float]] = {name: [] for name in settings}
    for number, question in enumerate([questions[0], *questions]):
        for name, options in settings.items():
            begun = time.perf_counter()
            inputs: BatchFeature = processor.apply_chat_template(
                question.messages("plain"),
                add_generation_prompt=True,
                tokenize=True,
                return_dict=True,
                processor_kwargs={k: v for k, v in options.items() if k != PRUNE_STAGE} | {"return_tensors": "pt"},
            )
            inputs = inputs.to(model.device)
            model.generate(**inputs, prune_stage=options[PRUNE_STAGE], max_new_tokens=1, do_sample=False)
            if number:  # the first question warms up
                elapsed[name].append(time.perf_counter() - begun)
    return elapsed


def answer_all(
    model: OmniVMedForConditionalGeneration,
    processor: OmniVMedProcessor,
    fixed: dict[str, Any],
    questions: Sequence[BenchmarkQuestion],
    removals: Sequence[int],
    out: Path,
    rules: Sequence[PruneRule] = ASKED,
) -> None:
    """Asks everything under all settings, each with a ledger of its own in `out`, which is continued if it is there.

    Args:
        fixed: what else the answers depend on, such as the model's name and dtype, for the ledgers.
    """
    for name, (curve, removed) in settings_of(removals, rules).items():
        pruning = pruning_of(curve, removed)
        for option, value in pruning.items():
            if option != PRUNE_STAGE:
                setattr(processor, option, value)
        print(f"{name}:", file=sys.stderr)
        with Ledger(out / f"{name}.jsonl", {**fixed, "questions": len(questions), "pruning": pruning}) as ledger:
            ask_all(
                model,
                processor,
                questions,
                ledger,
                benchmark=GENERATED,
                prompts="plain",
                batch_size=BATCH_SIZE,
                prune_stage=pruning[PRUNE_STAGE],
            )


def measure(
    model_name: str,
    questions: Sequence[BenchmarkQuestion],
    removals: Sequence[int],
    timed: int,
    out: Path,
    dtype: str = "auto",
    known_as: str | None = None,
    rules: Sequence[PruneRule] = ASKED,
) -> list[dict[str, Any]]:
    """Asks everything under all settings and times the first `timed` clips; one row of figures a setting.

    Args:
        known_as: what the ledgers call the model, such as the hash of its weights; None takes its name.
        rules: those that are asked, see `curves_of`.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model, processor = load(model_name, {}, device, dtype)
    answer_all(model, processor, {"model": known_as or model_name, "dtype": dtype}, questions, removals, out, rules)
    settings = settings_of(removals, rules)
    options = {name: pruning_of(curve, removed) for name, (curve, removed) in settings.items()}
    different = list({one.media[0].path: one for one in questions}.values())[:timed]
    elapsed = seconds_to_first_token(model, processor, options, different)
    return [
        row | {"seconds_to_first_token": float(np.median(elapsed[row["setting"]])), "timed_clips": len(different)}
        for row in rows_of(removals, out, rules)
    ]


def rows_of(removals: Sequence[int], out: Path, rules: Sequence[PruneRule] = ASKED) -> list[dict[str, Any]]:
    """The figures of the answers in `out`, each setting compared with the unpruned one question by question."""
    settings = settings_of(removals, rules)
    runs = {name: score_file(out / f"{name}.jsonl") for name in settings}
    tokens = {name: [one.row.get("prompt_tokens", 0) for one in run.scored] for name, run in runs.items()}
    rows = []
    for name, (curve, removed) in settings.items():
        scored = runs[name].scored
        right = [float(one.right) for one in scored]
        paired = compare(runs[UNPRUNED], runs[name])
        row = {
            "setting": name,
            "rule": curve.rule if curve else None,
            "prune_stage": curve.stage if curve else None,
            "removed": removed / 100,
            "prompt_tokens": float(np.mean(tokens[name])),
            "prompt_tokens_removed": 1 - float(np.sum(tokens[name])) / float(np.sum(tokens[UNPRUNED])),
            "accuracy": float(np.mean(right)),
            "accuracy_interval": bootstrap_interval(right, [one.group for one in scored]),
            "difference_to_unpruned": paired["right"]["difference"],
            "difference_interval": paired["right"]["interval"],
            "right_to_wrong": paired["n_right_to_wrong"],
            "wrong_to_right": paired["n_wrong_to_right"],
            "mcnemar_p": paired["mcnemar_p"],
            "questions": len(right),
            "clips": len({one.group for one in scored}),
        }
        rows.append(
            row | ({"loss_at_most_1_point": loses_little(row), "excludes_2_points": excludes(row)} if curve else {})
        )
    return rows


def loses_little(row: dict[str, Any]) -> bool:
    """Whether accuracy fell by one point at most."""
    return row["difference_to_unpruned"] >= -LARGEST_LOSS


def excludes(row: dict[str, Any]) -> bool:
    """Whether the interval of the difference lies above a fall of two points; False where there is none."""
    return row["difference_interval"] is not None and row["difference_interval"][0] > -EXCLUDED_LOSS


def curves_in(rows: Sequence[dict[str, Any]]) -> list[Curve]:
    """The curves that rows belong to, in their order."""
    return [Curve(*pair) for pair in dict.fromkeys((row["rule"], row["prune_stage"]) for row in rows if row["rule"])]


def verdict(rows: Sequence[dict[str, Any]]) -> str:
    """What the figures say of the claim, a sentence for each way of pruning at 60 % removed or more."""
    sentences = []
    for curve in curves_in(rows):
        for row in rows:
            if (row["rule"], row["prune_stage"]) == (curve.rule, curve.stage) and row["removed"] >= REMOVED_AT_LEAST:
                sentences.append(
                    f"{curve.name}, {percent(row['removed'])} removed: the loss is "
                    f"{'at most' if loses_little(row) else 'more than'} 1 point, and its interval "
                    f"{'excludes' if excludes(row) else 'does not exclude'} a loss of 2."
                )
    return "\n".join(f"- {one[0].upper()}{one[1:]}" for one in sentences)


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """The table of all settings, and what it says of the claim."""
    name_of = {(curve.rule, curve.stage): curve.name for curve in curves_in(rows)} | {(None, None): "unpruned"}
    header = ["pruning", "removed", "right", "95 % interval", "difference to unpruned"]
    header += ["right to wrong, wrong to right", "tokens of a prompt", "seconds to the first token"]
    lines = []
    for row in rows:
        seconds = row.get("seconds_to_first_token")
        lines.append(
            [
                name_of[row["rule"], row["prune_stage"]],
                percent(row["removed"]),
                percent(row["accuracy"]),
                span(row["accuracy_interval"]),
                f"{percent(row['difference_to_unpruned'], '+')} ({span(row['difference_interval'], '+')})",
                f"{row['right_to_wrong']}, {row['wrong_to_right']}",
                f"{row['prompt_tokens']:.0f}",
                "–" if seconds is None else f"{seconds:.2f}",
            ]
        )
    return f"{markdown_table(header, lines)}\n\n{verdict(rows)}\n"


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """What accuracy changes by, with its interval, prompt tokens and seconds, against the share removed."""
    figure = Figure(figsize=(12, 3.8), layout="constrained")
    panels = {
        "difference_to_unpruned": "right answers, less unpruned (points)",
        "prompt_tokens": "tokens of a prompt",
        "seconds_to_first_token": "seconds to the first token",
    }
    for axes, (key, label) in zip(figure.subplots(1, 3), panels.items(), strict=True):
        scale = 100 if key == "difference_to_unpruned" else 1
        for curve, colour in zip(curves_in(rows), cycle(COLOURS), strict=False):
            points = [
                row for row in rows if (row["rule"], row["prune_stage"]) in ((None, None), (curve.rule, curve.stage))
            ]
            removed = [100 * row["removed"] for row in points]
            axes.plot(removed, [scale * row[key] for row in points], "o-", color=colour, label=curve.name)
            if key == "difference_to_unpruned":
                ends = [row["difference_interval"] or (0.0, 0.0) for row in points]
                low, high = zip(*([100 * end for end in pair] for pair in ends), strict=True)
                axes.fill_between(removed, low, high, color=colour, alpha=0.15, linewidth=0)
        if key == "difference_to_unpruned":
            axes.axhline(-100 * EXCLUDED_LOSS, color="0.4", linestyle=":", linewidth=1)
        else:
            axes.set_ylim(bottom=0)
        axes.set_xlabel("visual tokens removed, at least (%)")
        axes.set_ylabel(label)
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    figure.suptitle(
        f"{rows[0]['questions']} questions about volumes and videos, {percent(rows[0]['accuracy'])} right unpruned; "
        "bands are 95 % intervals, the dotted line a loss of 2 points",
        fontsize=11,
    )
    figure.savefig(path, dpi=120)


def write(rows: Sequence[dict[str, Any]], about: dict[str, Any], out: Path) -> None:
    """Writes sweep.json, sweep.md and sweep.png."""
    figures = {**about, "rows": list(rows)}
    (out / "sweep.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    (out / "sweep.md").write_text(markdown(rows), encoding="utf-8")
    draw(rows, out / "sweep.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="hub_model", help="folder or Hub id (default hub_model)")
    parser.add_argument("--data", required=True, help="folder that was built: make data-mini")
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for answers, sweep.json, sweep.md and sweep.png"
    )
    parser.add_argument("--removed", type=int, nargs="+", default=[60, 80, 95], help="percentages of tokens")
    parser.add_argument(
        "--rules",
        nargs="+",
        choices=ASKABLE,
        default=ASKED,
        help=f"pruning rules to ask, each as many answers again (default {' '.join(ASKED)})",
    )
    parser.add_argument("--limit", type=int, help="ask the first so many questions only")
    parser.add_argument("--timed", type=int, default=8, help="clips for seconds to the first token (default 8)")
    parser.add_argument("--dtype", choices=DTYPES, default="auto", help="of the computation (default: of the weights)")
    arguments = parser.parse_args()
    with resumable_command():
        questions, _ = read_benchmark(GENERATED, find_data(arguments.data), arguments.out / "media", None)
        questions = about_clips(questions)[: arguments.limit]
        if not questions:
            raise ValueError(f"{arguments.data} holds no question about a volume or a video.")
        removals = sorted(arguments.removed)
        rows = measure(
            arguments.model,
            questions,
            removals,
            arguments.timed,
            arguments.out,
            arguments.dtype,
            rules=arguments.rules,
        )
    write(rows, {"model": arguments.model, "dtype": arguments.dtype}, arguments.out)
    print(markdown(rows), end="")


if __name__ == "__main__":
    main()
