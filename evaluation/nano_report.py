# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Everything that is claimed of the Nano, measured by one command and written beside its weights.

    python -m evaluation.nano.real_files --fetch
    python -m data_engine.build --config data_engine/configs/clips.yaml --out data/clips
    python -m evaluation.nano_report --model hub_model --data data/mini --clips data/clips --out runs/report

In this order: the test split answered seeing and blind, the real files, text perplexity, the pruning sweep, which needs
more questions about volumes and videos than the test split has to show a loss of a point. Answers go
into ledgers under `--out` and the other figures into files there, so the same command goes on where it was stopped; a
new model needs a new folder. After every part, MODEL/metrics.json and OUT/report.md (tables for README and model card)
are written with what is known by then; a part that could not be measured says why.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from evaluation import breakdown
from evaluation.benchmarks import GENERATED, BenchmarkQuestion, find_data, read_benchmark
from evaluation.blind import blinded
from evaluation.breakdown import MODALITY_NAMED, percent, span
from evaluation.ledger import Ledger
from evaluation.nano import real_files, sweep, text_perplexity
from evaluation.run import DTYPES, ask_all, load
from evaluation.score import score_file

if TYPE_CHECKING:
    from hub_model.modeling_omniv_med import OmniVMedForConditionalGeneration
    from hub_model.processing_omniv_med import OmniVMedProcessor

BATCH_SIZE = 48
REMOVALS = (60, 80, 95)
MODALITY_GOAL, SHORT_ANSWERS_GOAL, EACH_MODALITY_GOAL, REAL_FILES_GOAL = 0.95, 0.85, 0.70, 0.80
"""Shares of right answers that the Nano should reach."""


def fingerprint(model: Path, files: Sequence[str] = ("*.safetensors", "config.json", "processor_config.json")) -> str:
    """SHA-256 of a folder's weights and configuration, by which a report knows its model."""
    digest = hashlib.sha256()
    for path in sorted(path for pattern in files for path in model.glob(pattern)):
        with path.open("rb") as file:
            while block := file.read(1 << 24):
                digest.update(block)
    return digest.hexdigest()


def ask_split(
    model: OmniVMedForConditionalGeneration,
    processor: OmniVMedProcessor,
    questions: Sequence[BenchmarkQuestion],
    fixed: dict[str, Any],
    out: Path,
) -> dict[str, Any]:
    """Answers the split seeing and blind, and breaks both down."""
    for name, asked in (("seeing", questions), ("blind", blinded(questions))):
        print(f"{name}:", file=sys.stderr)
        with Ledger(out / f"{name}.jsonl", {**fixed, "questions": len(questions), "blind": name == "blind"}) as ledger:
            ask_all(model, processor, asked, ledger, benchmark=GENERATED, prompts="plain", batch_size=BATCH_SIZE)
    return breakdown.breakdown(score_file(out / "seeing.jsonl"), score_file(out / "blind.jsonl"))


def kept(path: Path, about: dict[str, Any], measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Figures from a file of the same model and settings if it is there, else measured and written to it."""
    if path.is_file():
        known = json.loads(path.read_text(encoding="utf-8"))
        if known["about"] == about:
            return known["figures"]
    figures = measure()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"about": about, "figures": figures}, indent=1, ensure_ascii=False), encoding="utf-8")
    return figures


def goals(metrics: dict[str, Any]) -> list[dict[str, Any]]:
    """What was aimed at, what came out, and whether that reaches it; only of what was measured."""
    found = []

    def add(goal: str, figure: str, reached: bool) -> None:
        found.append({"goal": goal, "measured": figure, "reached": reached})

    test = metrics.get("test", {})
    if "all" in test:
        named = test["task"].get(MODALITY_NAMED)
        if named:
            add(
                f"modality named: {percent(MODALITY_GOAL)}",
                percent(named["accuracy"]),
                named["accuracy"] >= MODALITY_GOAL,
            )
        everything = test["all"]["accuracy"]
        add(f"all short answers: {percent(SHORT_ANSWERS_GOAL)}", percent(everything), everything >= SHORT_ANSWERS_GOAL)
        below = [name for name, one in test["modality"].items() if one["accuracy"] < EACH_MODALITY_GOAL]
        add(
            f"each modality: {percent(EACH_MODALITY_GOAL)}",
            f"below it: {', '.join(below)}" if below else "all",
            not below,
        )
        rows = {name: one for name, one in test["task"].items() if one["interval"] is not None}
        not_above = [name for name, one in rows.items() if one["interval"][0] <= one["blind"]]
        add(
            "every task's interval above the blind baseline",
            f"not above: {', '.join(not_above)}" if not_above else "all",
            not not_above,
        )
    real = metrics.get("real_files", {})
    if "accuracy" in real:
        add(
            f"modality of real files: {percent(REAL_FILES_GOAL)} of at least 20",
            f"{percent(real['accuracy'])} of {real['count']}",
            real["count"] >= 20 and real["accuracy"] >= REAL_FILES_GOAL,
        )
    # A model that does not look at its clips loses nothing when they are pruned, and shows nothing by it.
    of_clips = [one["gain_interval"] for name, one in test.get("kind", {}).items() if name != "2d"]
    looks = bool(of_clips) and all(interval is not None and interval[0] > 0 for interval in of_clips)
    for row in metrics.get("pruning", {}).get("rows", []):
        if row["rule"] == "anchor" and row["removed"] >= sweep.REMOVED_AT_LEAST:
            add(
                f"{percent(row['removed'])} removed, stage {row['prune_stage']}: at most 1 point lost, 2 excluded",
                f"{percent(row['difference_to_unpruned'], '+')} ({span(row['difference_interval'], '+')})"
                + ("" if looks else "; but answers about clips are not shown to be better than blind ones"),
                looks and sweep.loses_little(row) and sweep.excludes(row),
            )
    text = metrics.get("text_perplexity", {})
    if "ratio" in text:
        add(
            "perplexity on plain text: within 10 %",
            f"{text['ratio']['value']:.3f} times",
            text["within_allowed_change"],
        )
    return found


def markdown(metrics: dict[str, Any]) -> str:
    """All tables, in the order of the goals."""
    parts = [
        "| goal | measured | reached |\n| --- | --- | --- |\n"
        + "\n".join(f"| {g['goal']} | {g['measured']} | {'yes' if g['reached'] else 'no'} |" for g in metrics["goals"])
        + "\n"
    ]
    writers = {
        "test": ("On the generated test split", breakdown.markdown),
        "real_files": ("On real files that it never saw", real_files.markdown),
        "pruning": ("What pruning costs in answers", lambda figures: sweep.markdown(figures["rows"])),
        "text_perplexity": ("On plain text", perplexity_markdown),
    }
    for key, (title, write) in writers.items():
        figures = metrics.get(key)
        if figures is not None:
            body = f"Not measured: {figures['not_measured']}\n" if "not_measured" in figures else write(figures)
            parts.append(f"## {title}\n\n{body}")
    return "\n".join(parts)


def perplexity_markdown(figures: dict[str, Any]) -> str:
    """The sentence that says what training did to the language model."""
    before, after = (figures[side]["perplexity"]["value"] for side in ("baseline", "model"))
    ratio, interval = figures["ratio"]["value"], figures["ratio"]["interval"]
    between = "" if interval is None else f" (95 % interval {interval[0]:.3f}–{interval[1]:.3f})"
    return (
        f"Perplexity on {figures['passages']} held-out English passages ({figures['scored_tokens']} tokens): "
        f"{before:.2f} before training, {after:.2f} after it, a ratio of {ratio:.3f}{between}.\n"
    )


def save(metrics: dict[str, Any], model: Path, out: Path) -> None:
    """Writes the figures beside the weights and the tables into `out`."""
    metrics["goals"] = goals(metrics)
    text = json.dumps(metrics, indent=1, ensure_ascii=False) + "\n"
    (model / "metrics.json").write_text(text, encoding="utf-8")
    (out / "report.md").write_text(markdown(metrics), encoding="utf-8")


def report(arguments: argparse.Namespace) -> dict[str, Any]:
    """The whole command; raises `ValueError` for what a user can mend."""
    folder = Path(arguments.model)
    if not (folder / "config.json").is_file():
        raise ValueError(f"{folder} is no model's folder; assemble the Nano first: make model.")

    def test_questions(data: str) -> list[BenchmarkQuestion]:
        return read_benchmark(GENERATED, find_data(data), arguments.out / "media", arguments.limit)[0]

    questions = test_questions(arguments.data)
    about_clips = sweep.about_clips(test_questions(arguments.clips) if arguments.clips else questions)
    if not questions or not about_clips:
        raise ValueError(f"{arguments.data} holds no test questions about images and clips; build it: make data-mini.")
    arguments.out.mkdir(parents=True, exist_ok=True)
    fixed = {"model": fingerprint(folder), "dtype": arguments.dtype}
    device = "cuda" if torch.cuda.is_available() else "cpu"
    metrics: dict[str, Any] = {
        "command": f"python -m evaluation.nano_report --model {arguments.model} --data {arguments.data} "
        + (f"--clips {arguments.clips} " if arguments.clips else "")
        + f"--out {arguments.out} --dtype {arguments.dtype}"
        + (f" --limit {arguments.limit}" if arguments.limit is not None else ""),
        "weights_and_configuration_sha256": fixed["model"],
        "dtype": arguments.dtype,
        "device": torch.cuda.get_device_name() if device == "cuda" else f"{os.cpu_count()} cores, {platform.machine()}",
        "torch": torch.__version__,
    }

    def split() -> dict[str, Any]:
        return ask_split(*load(arguments.model, {}, device, arguments.dtype), questions, fixed, arguments.out)

    def real() -> dict[str, Any]:
        files = real_files.read_manifest()
        there = [one.package.name for one in files if one.find() is not None]
        about = {**fixed, "files": len(there), "packages": sorted(set(there))}
        return kept(
            arguments.out / "real_files.json",
            about,
            lambda: real_files.measure(*load(arguments.model, {}, device, arguments.dtype), files),
        )

    def text() -> dict[str, Any]:
        return kept(
            arguments.out / "text_perplexity.json",
            {**fixed, "baseline": arguments.baseline},
            lambda: text_perplexity.compare_on_text(
                arguments.model, arguments.baseline, text_perplexity.HELD_OUT.read_text(encoding="utf-8")
            ),
        )

    def pruning() -> dict[str, Any]:
        folder = arguments.out / "sweep"
        rows = kept(
            folder / "figures.json",
            {**fixed, "questions": len(about_clips)},
            lambda: {
                "rows": sweep.measure(
                    arguments.model, about_clips, REMOVALS, arguments.timed, folder, arguments.dtype, fixed["model"]
                )
            },
        )["rows"]
        sweep.write(rows, {"model": arguments.model, "dtype": arguments.dtype}, folder)
        return {"rows": rows}

    for name, measure in (("test", split), ("real_files", real), ("text_perplexity", text), ("pruning", pruning)):
        print(f"== {name}", file=sys.stderr)
        try:
            metrics[name] = measure()
        except ValueError as error:
            metrics[name] = {"not_measured": str(error)}
            print(error, file=sys.stderr)
        save(metrics, folder, arguments.out)
    return metrics


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="hub_model", help="the model's folder (default hub_model)")
    parser.add_argument("--data", default="data/mini", help="folder that was built (default data/mini)")
    parser.add_argument("--clips", help="folder whose volumes and videos the sweep is about (default: those of --data)")
    parser.add_argument("--out", type=Path, default=Path("runs/report"), help="folder for answers and tables")
    parser.add_argument("--limit", type=int, help="ask the first so many test questions only")
    parser.add_argument("--timed", type=int, default=8, help="clips for seconds to the first token (default 8)")
    parser.add_argument("--dtype", choices=DTYPES, default="auto", help="of the computation (default: of the weights)")
    parser.add_argument("--baseline", default="smollm2", help="language model before training (default smollm2)")
    arguments = parser.parse_args()
    try:
        metrics = report(arguments)
    except ValueError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("Stopped; the same command goes on from here.")
    print(markdown(metrics), end="")


if __name__ == "__main__":
    main()
