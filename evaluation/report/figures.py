# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The runs that a report is about, and its tables: settings, figures, groups, differences and faults.

All figures are computed from the predictions, as `evaluation.score` does by default.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_engine.answers import normalise
from data_engine.intervals import wilson_interval
from evaluation.breakdown import percent, points, span
from evaluation.compare import compare
from evaluation.metrics import bootstrap_interval
from evaluation.report.page import Bar, Cell, Table
from evaluation.run import PRUNE_STAGE
from evaluation.score import KEYS, KINDS, Predictions, Scored, mean, score_file, summarise

NAME_OF = {
    "em": "Exact match",
    **{f"bleu{order}": f"BLEU-{order}" for order in (1, 2, 3, 4)},
    "rouge1": "ROUGE-1",
    "rouge2": "ROUGE-2",
    "rougel": "ROUGE-L",
    "meteor": "METEOR",
    "precision": "Token precision",
    "recall": "Token recall",
    "f1": "Token F1",
    "closed_accuracy": "Closed accuracy",
    "choice_accuracy": "Multiple-choice accuracy",
}
ALL_RIGHT = "All right answers"
GROUPS: dict[str, Callable[[Scored], str]] = {
    "Task": lambda one: said(one.row, "task"),
    "Modality": lambda one: said(one.row, "modality"),
    "Dimension": lambda one: said(one.row, "dimension"),
    "Kind of question": lambda one: one.kind,
}
FLIPS_SHOWN = 20
NONE = "–"


class ReportError(ValueError):
    """What a report cannot be made of, and what to do about it."""


@dataclass(frozen=True)
class Run:
    """One run's answers with their scores.

    Attributes:
        number: its place on the command line, from 1.
        path: of its file of predictions.
        title: what its folder or file is called.
        source_faults: broken rows of the benchmark's own files; None where no scores.json says.
    """

    number: int
    path: Path
    title: str
    predictions: Predictions
    source_faults: list[dict[str, Any]] | None

    @property
    def name(self) -> str:
        return f"{self.number}: {self.title}"

    @property
    def scored(self) -> list[Scored]:
        return self.predictions.scored

    @property
    def settings(self) -> dict[str, Any]:
        return self.predictions.settings or {}

    @property
    def benchmark(self) -> str:
        return str(self.settings.get("benchmark") or "benchmark not said")

    @property
    def pruning(self) -> dict[str, Any]:
        """The processor's pruning options in which it differs from the model's own."""
        options = self.settings.get("pruning")
        options = options if isinstance(options, dict) else {}
        return {name: value for name, value in options.items() if name != PRUNE_STAGE}


def read_run(number: int, path: Path) -> Run:
    """A folder that `evaluation.run` wrote, or a file of predictions.

    Raises:
        ValueError: there are no predictions, or the scores.json beside them is damaged.
    """
    predictions = path / "predictions.jsonl" if path.is_dir() else path
    if not predictions.is_file():
        raise ReportError(f"{path} holds no predictions.jsonl: name the folder of a run that evaluation.run finished.")
    scores, faults = predictions.with_name("scores.json"), None
    if scores.is_file():
        try:
            faults = json.loads(scores.read_text(encoding="utf-8"))["broken_source_rows"]
        except (ValueError, KeyError, TypeError):
            raise ReportError(f"{scores} is no result of evaluation.run: run that again, or remove the file.") from None
    return Run(number, predictions, path.resolve().name.removesuffix(".jsonl"), score_file(predictions), faults)


def with_the_same_questions(runs: Iterable[Run]) -> list[list[Run]]:
    """Runs that asked the same questions of the same benchmark, side by side, in the order given.

    A run with a question without an id stands alone: its questions cannot be told from those of another.
    """
    groups: dict[Hashable, list[Run]] = {}
    for run in runs:
        questions = frozenset((one.id, one.kind, normalise(str(one.row.get("answer")))) for one in run.scored)
        named = all(one.id for one in run.scored)
        groups.setdefault((run.benchmark, questions) if named else run.number, []).append(run)
    return list(groups.values())


def said(row: Mapping[str, Any], name: str) -> str:
    """A field of a row as text."""
    return str(row.get(name) or "not said")


def settings_table(runs: Sequence[Run]) -> Table:
    """What each run was begun with."""
    names = dict.fromkeys(name for run in runs for name in run.settings)

    def value(run: Run, name: str) -> str:
        setting = run.settings.get(name, NONE)
        if setting == {}:
            return "the model's own"
        return setting if isinstance(setting, str) else json.dumps(setting, ensure_ascii=False)

    rows = [[run.name, *(value(run, name) for name in names)] for run in runs]
    return Table("Settings of the runs", ["Run", *names], rows, numbers=False)


def figures_table(runs: Sequence[Run]) -> Table:
    """Every figure of `evaluation.score` with its interval, a run a column, and what they were computed from."""
    figures = [summarise(run.predictions) for run in runs]
    rows: list[list[Cell | str]] = [[ALL_RIGHT, *(share_cell(run.scored) for run in runs)]]
    for key in (key for kind in KINDS for key in KEYS["standard"][kind]):
        if any(one[key] is not None for one in figures):
            rows.append([NAME_OF[key], *(figure_cell(one, key) for one in figures)])
    counts = {f"Questions, {kind}": f"n_{kind}" for kind in KINDS}
    counts |= {"Replies that could not be read": "n_unread", "Broken predictions": "n_broken"}
    rows += [[name, *(str(one[key]) for one in figures)] for name, key in counts.items()]
    rows.append(["Tokens of a prompt, mean", *(prompt_tokens(run.scored) for run in runs)])
    columns = ["Figure", *(f"{run.benchmark} ({run.name})" for run in runs)]
    return Table("Figures of the runs, with 95 % intervals", columns, rows)


def figure_cell(figures: Mapping[str, Any], key: str) -> Cell:
    """A figure of `evaluation.score.summarise` with its interval."""
    return Cell(NONE) if figures[key] is None else Cell(percent(figures[key]), span(figures["intervals"][key]))


def prompt_tokens(scored: Sequence[Scored]) -> str:
    tokens = mean([one.row["prompt_tokens"] for one in scored if isinstance(one.row.get("prompt_tokens"), int)])
    return NONE if tokens is None else f"{tokens:.0f}"


def right_interval(scored: Sequence[Scored]) -> tuple[float, float]:
    """95 % interval of the share of right answers, of at least one question.

    The bootstrap of `evaluation.metrics`, which draws whole media. Where all are right, or all wrong, that has no
    width; then Wilson's interval (1927) with each medium as one trial, as if questions about one always agreed.
    """
    right, media = [float(one.right) for one in scored], [one.group for one in scored]
    interval = bootstrap_interval(right, media)
    if interval is None or len(set(right)) == 1:
        count = len(set(media))
        return wilson_interval(round(count * sum(right) / len(right)), count)
    return interval


def most_frequent_answer(scored: Sequence[Scored]) -> float:
    """Share of the questions that the most frequent true answer gets right."""
    return max(Counter(normalise(str(one.row.get("answer"))) for one in scored).values()) / len(scored)


def share_cell(scored: Sequence[Scored]) -> Cell:
    """The share of right answers, drawn over the share of the most frequent true answer."""
    if not scored:
        return Cell(NONE)
    share, (low, high) = sum(one.right for one in scored) / len(scored), right_interval(scored)
    return Cell(percent(share), span((low, high)), Bar(share, low, high, most_frequent_answer(scored)))


def group_tables(runs: Sequence[Run]) -> Iterator[Table]:
    """Right answers by task, modality, dimension and kind, of runs that asked the same questions."""
    for title, group_of in GROUPS.items():
        rows = []
        for name in sorted({group_of(one) for one in runs[0].scored}):
            members = [[one for one in run.scored if group_of(one) == name] for run in runs]
            questions = members[0]
            rows.append(
                [name, str(len(questions)), percent(most_frequent_answer(questions)), *map(share_cell, members)]
            )
        columns = [title, "Questions", "Most frequent answer", *(run.name for run in runs)]
        yield Table(f"Right answers by {title.lower()}", columns, rows)


def difference_tables(runs: Sequence[Run]) -> Iterator[Table]:
    """Each later run of a benchmark less the first, on the questions that both asked."""
    first_of: dict[str, Run] = {}
    for run in runs:
        first = first_of.setdefault(run.benchmark, run)
        if run is first:
            continue
        title = f"{run.benchmark}, run {run.number} less run {first.number}"
        try:
            compared = compare(first.predictions, run.predictions)
        except ValueError as error:
            yield Table(title, ["Not compared"], [[str(error)]], numbers=False)
            continue
        yield difference_table(title, first, run, compared)
        yield from flips_tables(title, first, run, compared)


def difference_table(title: str, first: Run, run: Run, compared: Mapping[str, Any]) -> Table:
    """Both means of every figure, and their paired difference with its interval."""
    figures = {ALL_RIGHT: compared["right"]} | {NAME_OF[key]: one for key, one in compared["differences"].items()}
    rows = [
        [
            name,
            percent(one["a"]),
            percent(one["b"]),
            Cell(points(one["difference"], "+"), span(one["interval"], "+")),
            str(one["n"]),
        ]
        for name, one in figures.items()
        if one is not None
    ]
    return Table(title, ["Figure", first.name, run.name, "Difference, points", "Questions"], rows)


def flips_tables(title: str, first: Run, run: Run, compared: Mapping[str, Any]) -> Iterator[Table]:
    """How many answers became right or wrong, whether that is chance, and which ones."""
    counts = {
        "Right, then wrong": compared["n_right_to_wrong"],
        "Wrong, then right": compared["n_wrong_to_right"],
        "Asked by both": compared["n_paired"],
        "Asked by one only": compared["n_only_in_a"] + compared["n_only_in_b"],
        "Asked with another true answer": compared["n_changed"],
        "Chance of so uneven a change (McNemar's exact test, p)": f"{compared['mcnemar_p']:.3g}",
    }
    yield Table(f"{title}: how many changed", ["Questions", "Number"], [[name, str(n)] for name, n in counts.items()])
    flips = [
        [str(one[name]) for name in ("question", "answer", "prediction_a", "prediction_b", "id")]
        for direction in ("right_to_wrong", "wrong_to_right")
        for one in compared[direction]
    ]
    if flips:
        shown = f"first {FLIPS_SHOWN} of " if len(flips) > FLIPS_SHOWN else ""
        columns = ["Question", "True answer", first.name, run.name, "Id"]
        words = f"{title}: {shown}{len(flips)} changed answers"
        yield Table(words, columns, flips[:FLIPS_SHOWN], numbers=False, folded=True)


def fault_tables(runs: Sequence[Run]) -> Iterator[Table]:
    """Everything that could not be read, run by run."""
    for run in runs:
        broken = [
            [str(one.line), one.id or NONE, one.reason, f"wrong, {one.counted_as}" if one.counted_as else "not counted"]
            for one in run.predictions.broken
        ]
        unread = [
            [one.id or f"line {one.line}", said(one.row, "image"), str(one.row["error"])]
            for one in run.scored
            if one.row.get("error")
        ]
        source = [[said(one, "where"), said(one, "reason")] for one in run.source_faults or ()]
        for words, columns, rows in (
            ("broken predictions", ["Line", "Question", "Fault", "Counted as"], broken),
            ("media that the model could not be shown; counted as wrong", ["Question", "Medium", "Reason"], unread),
            ("broken rows of the benchmark, not asked", ["Where", "Reason"], source),
        ):
            if rows:
                yield Table(f"Run {run.name}: {len(rows)} {words}", columns, rows, numbers=False, folded=True)
