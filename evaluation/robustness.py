# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""How much worse a model answers when its pictures have been through what practice does to them.

    python -m evaluation.robustness --model hub_model --data data/real --limit 100 --out runs/robustness

The test questions of sets that `data_engine.build` made of real pictures are asked of the pictures as they are and
after each change of `evaluation.picture_changes`. Reported are the accuracy that is lost and the change of the mean
confidence, paired by question, with 95 % intervals that draw whole pictures. A mirrored picture is asked about with
left and right exchanged in question and answer. Answers go into ledgers under `--out`, so the same command goes on
where it was stopped; `--out` then holds robustness.json, robustness.md and robustness.png.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image
from tqdm import tqdm

from data_engine.adapters.base import seeded
from data_engine.commands import resumable_command
from data_engine.files import write_atomically
from data_engine.ledger import Ledger
from data_engine.records import REPORTS
from data_engine.tables import markdown_table
from evaluation.benchmarks import BenchmarkQuestion
from evaluation.breakdown import percent, span
from evaluation.nano.real_pictures import BATCH_SIZE, SEED, RealQuestion, answer_batch, read_questions
from evaluation.picture_changes import CHANGES, PictureChange, names_a_side, swap_sides
from evaluation.resampling import with_intervals
from evaluation.run import DTYPES, load
from evaluation.score import Scored, score_file
from hub_model.answering_omniv_med import AnswerCalibration, judge
from hub_model.media_omniv_med import MediaError, load_clip
from train.checkpoints.fingerprint import fingerprint

if TYPE_CHECKING:
    from hub_model.modeling_omniv_med import OmniVMedForConditionalGeneration
    from hub_model.processing_omniv_med import OmniVMedProcessor

UNCHANGED = "unchanged"


def answerable(questions: Sequence[RealQuestion], limit: int | None) -> list[RealQuestion]:
    """The questions about single pictures whose right reply is a short answer.

    Args:
        limit: so many of each source at most, drawn by a seed; None takes all.
    """
    by_source: dict[str, list[RealQuestion]] = {}
    for one in questions:
        pictures = all(medium.type == "image" for medium in one.question.media)
        if pictures and one.reply == "answer" and one.question.task != REPORTS:
            by_source.setdefault(one.source, []).append(one)
    rng = np.random.default_rng(SEED)
    return [
        found[place]
        for found in by_source.values()
        for place in sorted(
            rng.choice(len(found), size=len(found) if limit is None else min(limit, len(found)), replace=False)
        )
    ]


def changed_picture(file: Path, relative: str, change: PictureChange) -> Image.Image:
    """A file's picture, as the model's reader sees it, after a change whose chance depends on names alone.

    Raises:
        MediaError: a file that cannot be read.
    """
    [picture] = load_clip(file, kind="image").images()
    return change.apply(picture, seeded(f"{change.name}/{relative}"))


def with_change(question: BenchmarkQuestion, change: PictureChange, folder: Path) -> BenchmarkQuestion:
    """The question about the changed pictures, which are written below `folder`, each set's under its own path.

    A picture that cannot be read stays what it is, so that asking about it says why.
    """
    if change.swaps_sides:
        question = with_swapped_sides(question)
    changed = folder.joinpath(*question.folder.resolve().parts[1:])
    for medium in question.media:
        target = changed / medium.path
        if target.exists():
            continue
        try:
            picture = changed_picture(question.folder / medium.path, medium.path, change)
        except MediaError:
            return question
        target.parent.mkdir(parents=True, exist_ok=True)
        picture.save(target, format="PNG")  # whatever its name: the reader goes by the content
    return replace(question, folder=changed)


def with_swapped_sides(question: BenchmarkQuestion) -> BenchmarkQuestion:
    """The question and its answer, true of the mirrored picture."""
    return replace(
        question,
        question=swap_sides(question.question),
        answer=swap_sides(question.answer),
        choices=tuple(map(swap_sides, question.choices)),
    )


def ask(
    model: OmniVMedForConditionalGeneration,
    processor: OmniVMedProcessor,
    questions: Sequence[BenchmarkQuestion],
    change: PictureChange | None,
    path: Path,
    settings: dict[str, Any],
) -> list[Scored]:
    """Answers what the ledger does not hold yet, and scores all answers.

    Changed pictures are on disk for as long as their batch is answered.
    """
    about = settings | {"change": change.title if change else UNCHANGED, "questions": len(questions)}
    with Ledger(path, about) as ledger:
        left = sorted(
            (one for one in questions if one.id not in ledger.rows),
            key=lambda one: (str(one.folder), [medium.path for medium in one.media]),
        )
        with tqdm(total=len(questions), initial=len(questions) - len(left), unit="question", desc=path.stem) as bar:
            for start in range(0, len(left), BATCH_SIZE):
                batch = left[start : start + BATCH_SIZE]
                with tempfile.TemporaryDirectory() as folder:
                    if change is not None:
                        batch = [with_change(one, change, Path(folder)) for one in batch]
                    for row in answer_batch(model, processor, batch):
                        ledger.append(row)
                        bar.update()
    return score_file(path).scored


def compare(before: Sequence[Scored], after: Sequence[Scored], calibrated: AnswerCalibration | None) -> dict[str, Any]:
    """What a change does to the answers to the same questions, in the same order.

    Returns:
        `questions`, `pictures`, and each with `value` and `interval`: the `accuracy` after the change and the
        `accuracy_lost`, as shares; the mean `confidence` after it and the `confidence_change`.
    """
    right = np.array([[float(one.right) for one in rows] for rows in (before, after)])
    sure = np.array(
        [
            [judge(one.row["prediction"], one.row["log_probabilities"], calibrated).confidence for one in rows]
            for rows in (before, after)
        ]
    )
    means: dict[str, np.ndarray] = {
        "accuracy": right[1],
        "accuracy_lost": right[0] - right[1],
        "confidence": sure[1],
        "confidence_change": sure[1] - sure[0],
    }
    groups = [one.group for one in before]

    def mean_of(values: np.ndarray) -> Callable[[np.ndarray], float]:
        return lambda places: float(values[places].mean())

    figures = with_intervals({name: mean_of(values) for name, values in means.items()}, groups)
    return {"questions": len(groups), "pictures": len(set(groups)), **figures}


def measure(
    questions: Sequence[RealQuestion],
    unchanged: Sequence[Scored],
    changed: dict[str, Sequence[Scored]],
    calibrated: AnswerCalibration | None,
) -> dict[str, Any]:
    """Every change's figures: of all questions, of each source, and of those that name a side where sides are swapped.

    Args:
        questions: that were asked.
        unchanged: answers about the pictures as they are.
        changed: name of a change -> answers about the changed pictures.
        calibrated: what the model's confidence comes from.
    """
    source_of = {one.question.id: one.source for one in questions}
    sides = {one.question.id: names_a_side(f"{one.question.question} {one.question.answer}") for one in questions}
    before = {one.id: one for one in unchanged}

    def part(after: Sequence[Scored], wanted: Callable[[str], bool]) -> dict[str, Any] | None:
        chosen = [one for one in after if one.id is not None and wanted(one.id)]
        return compare([before[one.id] for one in chosen], chosen, calibrated) if chosen else None

    changes: dict[str, Any] = {}
    for change in CHANGES:
        after = changed[change.name]
        changes[change.name] = {
            "title": change.title,
            "all": part(after, lambda name: True),
            "sources": {
                source: part(after, lambda name, source=source: source_of[name] == source)
                for source in dict.fromkeys(source_of.values())
            },
        }
        if change.swaps_sides:
            changes[change.name] |= {
                "about_a_side": part(after, lambda name: sides[name]),
                "about_no_side": part(after, lambda name: not sides[name]),
            }
    return {
        UNCHANGED: compare(unchanged, unchanged, calibrated),
        "calibrated": calibrated is not None,
        "changes": changes,
    }


def rows_of(result: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Titles and figures of the rows of table and figure."""
    rows = []
    for one in result["changes"].values():
        rows.append((one["title"], one["all"]))
        if one.get("about_a_side") and one.get("about_no_side"):
            rows += [("of these, about a side", one["about_a_side"]), ("of these, about no side", one["about_no_side"])]
    return rows


def markdown(result: dict[str, Any]) -> str:
    """One row a change; a loss is positive where the change makes answers worse."""
    whole = result[UNCHANGED]
    header = ["pictures", "right", "lost (points)", "95 % interval"]
    header += ["mean confidence", "change (points)", "95 % interval", "n"]
    accuracy, confidence = (percent(whole[name]["value"]) for name in ("accuracy", "confidence"))
    lines = [["as they are", accuracy, "", "", confidence, "", "", str(whole["questions"])]]
    for title, one in rows_of(result):
        lost, change = one["accuracy_lost"], one["confidence_change"]
        lines.append(
            [
                title,
                percent(one["accuracy"]["value"]),
                percent(lost["value"], "+"),
                span(lost["interval"], "+"),
                percent(one["confidence"]["value"]),
                percent(change["value"], "+"),
                span(change["interval"], "+"),
                str(one["questions"]),
            ]
        )
    return markdown_table(header, lines) + "\n"


def draw(result: dict[str, Any], path: Path) -> None:
    """Bars with their intervals: accuracy lost, and change of the mean confidence."""
    rows = rows_of(result)
    figure = Figure(figsize=(11, 0.42 * len(rows) + 1.6), layout="constrained")
    places = np.arange(len(rows))[::-1]
    panels = (
        ("accuracy_lost", "right answers lost (points)", "tab:red"),
        ("confidence_change", "change of the mean confidence (points)", "tab:blue"),
    )
    for axes, (key, label, colour) in zip(figure.subplots(1, 2, sharey=True), panels, strict=True):
        values = np.array([100 * one[key]["value"] for _, one in rows])
        ends = np.array([one[key]["interval"] or [one[key]["value"]] * 2 for _, one in rows]) * 100
        axes.barh(places, values, color=colour, alpha=0.6)
        # A percentile interval may leave its value out by a hair, and matplotlib refuses a negative length.
        spread = np.abs(np.stack([np.minimum(ends[:, 0] - values, 0), np.maximum(ends[:, 1] - values, 0)]))
        axes.errorbar(values, places, xerr=spread, fmt="none", ecolor="0.2", capsize=3)
        axes.axvline(0, color="0.4", linewidth=1)
        axes.set_yticks(places, [title for title, _ in rows])
        axes.set_xlabel(label)
        axes.spines[["top", "right"]].set_visible(False)
    whole = result[UNCHANGED]
    figure.suptitle(
        f"{whole['questions']} questions about {whole['pictures']} pictures, "
        f"{percent(whole['accuracy']['value'])} right unchanged; lines are 95 % intervals",
        fontsize=11,
    )
    figure.savefig(path, dpi=120)


def report(arguments: argparse.Namespace) -> dict[str, Any]:
    """The whole command; raises `ValueError` for what a user can mend."""
    folder = Path(arguments.model)
    if not (folder / "config.json").is_file():
        raise ValueError(f"{folder} is no model's folder; assemble the Nano first: make model.")
    questions = answerable(read_questions(arguments.data, "test", {}, None), arguments.limit)
    if not questions:
        raise ValueError("The sets hold no test question about a picture that can be answered; name others by --data.")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model, processor = load(arguments.model, {}, device, arguments.dtype)
    fixed = {"model": fingerprint(folder), "dtype": arguments.dtype}
    asked = [one.question for one in questions]

    def answers(change: PictureChange | None, name: str) -> list[Scored]:
        return ask(model, processor, asked, change, arguments.out / f"{name}.jsonl", fixed)

    unchanged = answers(None, UNCHANGED)
    changed = {change.name: answers(change, change.name) for change in CHANGES}
    result = measure(questions, unchanged, changed, AnswerCalibration.of(model.config)) | {"about": fixed}
    with write_atomically(arguments.out / "robustness.json") as part:
        part.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (arguments.out / "robustness.md").write_text(markdown(result), encoding="utf-8")
    draw(result, arguments.out / "robustness.png")
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="hub_model", help="the model's folder (default hub_model)")
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="folders of built sets of real pictures")
    parser.add_argument("--limit", type=int, help="so many questions of each source at most")
    parser.add_argument("--out", type=Path, default=Path("runs/robustness"), help="folder for answers and figures")
    parser.add_argument("--dtype", choices=DTYPES, default="auto", help="of the computation (default: of the weights)")
    arguments = parser.parse_args()
    with resumable_command():
        result = report(arguments)
    print(markdown(result), end="")


if __name__ == "__main__":
    main()
