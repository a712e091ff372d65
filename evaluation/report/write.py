# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""One page about runs of `evaluation.run`: figures, accuracy by group, differences between runs, examples, faults.

    python -m evaluation.report runs/vqa-rad runs/slake-en --out report.html --model hub_model
    python -m evaluation.report runs/pruned runs/unpruned --media data/mini --out report.md

A name that ends in .html gives one page that holds all of its pictures; one that ends in .md gives Markdown, with the
pictures in a folder beside it. A RUN may also be a file of predictions. Media are looked for in RUN/media, where a run
keeps those of a downloaded benchmark, and in the folders of --media, such as the built set of a generated test split.
What was pruned is drawn by the processor of --model, for the runs of that model and with their own options; its code
is run, so it is never taken from a file of predictions.
"""

from __future__ import annotations

import argparse
import json
import random
import string
import sys
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import AutoProcessor

from evaluation.report.figures import (
    ReportError,
    Run,
    difference_tables,
    fault_tables,
    figures_table,
    group_tables,
    read_run,
    said,
    settings_table,
    with_the_same_questions,
)
from evaluation.report.media import MediaPictures
from evaluation.report.page import Answer, Example, Section, write_html, write_markdown
from evaluation.score import Scored

if TYPE_CHECKING:
    from hub_model.processing_omniv_med import OmniVMedProcessor

WRITERS = {".html": write_html, ".md": write_markdown}
TITLE = "Evaluation report"
FOR_RESEARCH = "For research only: the models are no medical devices, and their answers can be wrong."
ABOUT_FIGURES = (
    "An open answer is right when it matches the true one exactly. Intervals are bootstrap intervals over whole media,"
    " as questions about one medium are right or wrong together; where all answers of a group agree, the interval is"
    " Wilson's with each medium as one trial."
)
ABOUT_GROUPS = (
    "“Most frequent answer” is what always giving the group's most frequent true answer would reach: a model that looks"
    " at nothing can do as well."
)
ABOUT_DIFFERENCES = "Paired by question, in points of percent; the intervals are those of the differences."


def take_turns(scored: Iterable[Scored], key: Callable[[Scored], Hashable]) -> list[Scored]:
    """First one of each key, then a second one of each, and so on; otherwise in the order given."""
    seen: Counter[Hashable] = Counter()
    turns = []
    for one in scored:
        turns.append((seen[key(one)], one))
        seen[key(one)] += 1
    return [one for _, one in sorted(turns, key=lambda turn: turn[0])]


def choose_examples(scored: Iterable[Scored], count: int, seed: int) -> list[Scored]:
    """Some questions by chance, dimensions and within them modalities taking turns; none without an answer."""
    candidates = [one for one in scored if one.fault != "broken" and not one.row.get("error")]
    random.Random(seed).shuffle(candidates)
    by_modality = take_turns(candidates, lambda one: (said(one.row, "dimension"), said(one.row, "modality")))
    return take_turns(by_modality, lambda one: said(one.row, "dimension"))[:count]


def prunings_of(runs: Iterable[Run], model: str | None) -> list[tuple[str, dict[str, Any]]]:
    """The pruning options that runs of a model had, each once, with the runs' names; the model's folder may differ."""
    alike: dict[str, list[Run]] = {}
    for run in runs:
        if model and Path(str(run.settings.get("model"))).name == Path(model).name:
            alike.setdefault(json.dumps(run.pruning, sort_keys=True), []).append(run)
    return [(f"Run {', '.join(str(run.number) for run in group)}", group[0].pruning) for group in alike.values()]


def make_example(
    one: Scored, answers: Sequence[Answer], pictures: MediaPictures, prunings: Sequence[tuple[str, dict[str, Any]]]
) -> Example:
    """A question with its medium, what was pruned of that, and everyone's answers."""
    drawn, notes = pictures.show(one.row, prunings)
    letters = zip(string.ascii_uppercase, one.row.get("choices") or (), strict=False)
    return Example(
        id=one.id or f"of line {one.line}",
        facts=" · ".join(said(one.row, name) for name in ("modality", "task", "dimension")),
        question=said(one.row, "question"),
        choices=[f"{letter}. {text}" for letter, text in letters],
        truth=said(one.row, "answer"),
        answers=answers,
        pictures=drawn,
        notes=notes,
    )


def make_examples(
    runs: Sequence[Run],
    media: Sequence[Path],
    processor: OmniVMedProcessor | None,
    model: str | None,
    count: int,
    seed: int,
) -> dict[str, list[Example]]:
    """Right and wrong answers of the first of some runs that asked the same questions, beside those of the others."""
    pictures = MediaPictures([*dict.fromkeys(run.path.parent / "media" for run in runs), *media], processor)
    prunings = prunings_of(runs, model)
    answered = [{one.id or one.line: one for one in run.scored} for run in runs]

    def answers(name: Hashable) -> list[Answer]:
        each = [(run, by_name[name]) for run, by_name in zip(runs, answered, strict=True)]
        return [Answer(f"Run {run.name}", str(one.row.get("prediction", "")), one.right) for run, one in each]

    examples = {}
    for words, right in (("Right", True), ("Wrong", False)):
        chosen = choose_examples((one for one in runs[0].scored if one.right == right), count, seed)
        examples[f"{words} answers of run {runs[0].name}"] = [
            make_example(one, answers(one.id or one.line), pictures, prunings) for one in chosen
        ]
    return {heading: group for heading, group in examples.items() if group}


def make_sections(
    runs: Sequence[Run],
    media: Sequence[Path] = (),
    processor: OmniVMedProcessor | None = None,
    model: str | None = None,
    count: int = 6,
    seed: int = 0,
) -> list[Section]:
    """The whole report.

    Args:
        media: folders in which media are looked for besides those of the runs.
        processor, model: what draws the pruning, and its name, as runs have it in their settings; None draws none.
        count: right answers, and as many wrong ones, that are shown of each set of questions.
        seed: of their choice.
    """
    unknown = [run.name for run in runs if run.source_faults is None]
    words = [f"No scores.json says whether rows of the benchmark were broken: run {'; '.join(unknown)}."]
    sections = [
        Section("Runs", [FOR_RESEARCH, *(words if unknown else [])], [settings_table(runs)]),
        Section("Figures", [ABOUT_FIGURES], [figures_table(runs)]),
    ]
    differences = list(difference_tables(runs))
    if differences:
        sections.append(Section("Differences", [ABOUT_DIFFERENCES], differences))
    not_drawn = "" if processor else " What was pruned is not drawn, as --model named no model."
    for group in with_the_same_questions(runs):
        numbers = ", ".join(str(run.number) for run in group)
        name = f"{group[0].benchmark}, {'run' if len(group) == 1 else 'runs'} {numbers}"
        examples = make_examples(group, media, processor, model, count, seed)
        chosen = f"Drawn by chance (seed {seed}), dimensions and modalities taking turns.{not_drawn}"
        sections.append(Section(f"{name}: groups", [ABOUT_GROUPS], list(group_tables(group))))
        sections.append(Section(f"{name}: examples", [chosen], examples=examples))
    faults = list(fault_tables(runs))
    return [*sections, Section("Faults", [] if faults else ["Nothing was broken or unreadable."], faults)]


def load_processor(model: str) -> OmniVMedProcessor:
    """The processor of a model that can show what it prunes.

    Raises:
        ReportError: it cannot be loaded, or cannot show that.
    """
    try:
        processor = AutoProcessor.from_pretrained(model, trust_remote_code=True)
    except Exception as error:  # of many classes: missing, damaged, from another project, or not reachable
        raise ReportError(f"The processor of {model} cannot be loaded ({type(error).__name__}).") from None
    if not hasattr(processor, "process_clip"):
        raise ReportError(f"The processor of {model} does not say what it prunes; leave --model out.")
    return processor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folder of evaluation.run, or predictions")
    parser.add_argument("--out", type=Path, required=True, help="the page to write: NAME.html or NAME.md")
    parser.add_argument("--media", type=Path, nargs="+", default=[], help="folders that the paths of media start from")
    parser.add_argument("--model", help="folder or Hub id of the model whose pruning is drawn (default: none is)")
    parser.add_argument("--examples", type=int, default=6, help="right answers, and as many wrong ones (default 6)")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of examples (default 0)")
    arguments = parser.parse_args()
    write = WRITERS.get(arguments.out.suffix)
    try:
        if write is None:
            raise ReportError(f"--out must end in .html or .md, not {arguments.out.name!r}.")
        missing = [str(folder) for folder in arguments.media if not folder.is_dir()]
        if missing:
            raise ReportError(f"--media names no folder: {missing[0]}.")
        if arguments.examples < 0:
            raise ReportError("--examples must be 0 or more.")
        runs = [read_run(number, path) for number, path in enumerate(arguments.runs, start=1)]
        processor = load_processor(arguments.model) if arguments.model else None
        sections = make_sections(runs, arguments.media, processor, arguments.model, arguments.examples, arguments.seed)
    except ValueError as error:
        sys.exit(str(error))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    write(arguments.out, TITLE, sections)
    print(f"Report: {arguments.out}")
