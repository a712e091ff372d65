# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Everything that is claimed of the Nano, measured by one command and written beside its weights.

    python -m evaluation.nano.real_files --fetch
    python -m data_engine.build --config data_engine/configs/clips.yaml --out data/clips
    python -m evaluation.nano_report --model hub_model --data data/mini --clips data/clips --real ../real \\
        --out runs/report

In this order: real pictures, where `--real` names their folder and `real_pictures --fit` has calibrated the model; the
test split of generated samples answered seeing and blind; the real files; text perplexity; the pruning sweep, which
needs more questions about volumes and videos than the test split has to show a loss of a point. Answers go into ledgers
under `--out` and the other figures into files there, so the same command goes on where it was stopped; a new model
needs a new folder. After every part, MODEL/metrics.json and OUT/report.md (tables for README and model card) are
written with what is known by then; a part that could not be measured says why.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from data_engine.commands import resumable_command
from data_engine.ledger import Ledger
from evaluation import breakdown
from evaluation.benchmarks import GENERATED, BenchmarkQuestion, find_data, read_benchmark
from evaluation.blind import blinded
from evaluation.nano import real_files, real_pictures, sweep, text_perplexity
from evaluation.nano.goals import goals
from evaluation.nano.goals import markdown as goals_markdown
from evaluation.run import DTYPES, ask_all, load
from evaluation.score import score_file
from train.checkpoints.fingerprint import fingerprint

if TYPE_CHECKING:
    from hub_model.modeling_omniv_med import OmniVMedForConditionalGeneration
    from hub_model.processing_omniv_med import OmniVMedProcessor

BATCH_SIZE = 48
REMOVALS = (60, 80, 95)


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


def markdown(metrics: dict[str, Any]) -> str:
    """All tables, in the order of the goals."""
    parts = [goals_markdown(metrics["goals"])]
    writers = {
        "real_pictures": ("On real pictures that it never saw", real_pictures.markdown),
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
        + (f" --limit {arguments.limit}" if arguments.limit is not None else "")
        + (f" --real DIR --real-data {arguments.real_data}" if arguments.real is not None else "")
        + (f" --real-limit {arguments.real_limit}" if arguments.real_limit is not None else ""),
        "weights_and_configuration_sha256": fixed["model"],
        "dtype": arguments.dtype,
        "device": torch.cuda.get_device_name() if device == "cuda" else f"{os.cpu_count()} cores, {platform.machine()}",
        "torch": torch.__version__,
    }

    def pictures() -> dict[str, Any]:
        if arguments.real is None:
            raise ValueError("Real pictures are asked about where --real names their folder; see docs/real-data.md.")
        return real_pictures.report(
            folder,
            [arguments.real_data],
            arguments.real,
            arguments.out / "real_pictures",
            arguments.real_limit,
            arguments.dtype,
        )

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

    for name, measure in (
        ("real_pictures", pictures),
        ("test", split),
        ("real_files", real),
        ("text_perplexity", text),
        ("pruning", pruning),
    ):
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
    parser.add_argument("--real", type=Path, help="folder of real pictures, with vqa-rad/ and slake/ as published")
    parser.add_argument(
        "--real-data", type=Path, default=Path("data/real"), help="set built of them (default data/real)"
    )
    parser.add_argument("--real-limit", type=int, help="so many questions of each of their sources at most")
    parser.add_argument("--out", type=Path, default=Path("runs/report"), help="folder for answers and tables")
    parser.add_argument("--limit", type=int, help="ask the first so many test questions only")
    parser.add_argument("--timed", type=int, default=8, help="clips for seconds to the first token (default 8)")
    parser.add_argument("--dtype", choices=DTYPES, default="auto", help="of the computation (default: of the weights)")
    parser.add_argument("--baseline", default="smollm2", help="language model before training (default smollm2)")
    arguments = parser.parse_args()
    with resumable_command():
        metrics = report(arguments)
    print(markdown(metrics), end="")


if __name__ == "__main__":
    main()
