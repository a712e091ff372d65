# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""What a built set holds, as numbers and as figures: modality by task, dimensions, sources and lengths."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from data_engine.records import DIMENSIONS, MODALITIES, SPLITS, TASKS, Record

LENGTH_EDGES = (1, 2, 3, 5, 8, 12, 20, 35, 60, 100, 200, 500)
"""Left edges of the bins of word counts; the last is open."""
COLOUR_OF = {"2d": "#4477aa", "3d": "#ee6677", "video": "#ccbb44"}


def count_words(text: str) -> int:
    """Words between white space; each Chinese character counts as one."""
    ideographs = sum("\u4e00" <= character <= "\u9fff" for character in text)
    return ideographs + len("".join(" " if "\u4e00" <= c <= "\u9fff" else c for c in text).split())


def summarise(records: Iterable[Record]) -> dict[str, Any]:
    """Counts of everything a reader asks about first; one pass over the records."""
    cells: Counter[tuple[str, str]] = Counter()
    fields = ("split", "dimension", "modality", "task", "source", "license", "language")
    counts: dict[str, Counter[str]] = {name: Counter() for name in fields}
    media: dict[str, set[str]] = {}
    lengths: dict[str, Counter[int]] = {"question": Counter(), "answer": Counter()}
    turns: Counter[int] = Counter()
    for record in records:
        cells[record.modality, record.task] += 1
        for name, counter in counts.items():
            counter[getattr(record, name)] += 1
        for medium in record.media:
            media.setdefault(medium.type, set()).add(medium.path)
        turns[len(record.conversations) // 2] += 1
        for turn in record.conversations:
            lengths["question" if turn.role == "user" else "answer"][_bin(count_words(turn.content))] += 1
    order = {"split": SPLITS, "dimension": DIMENSIONS, "modality": (*MODALITIES, "unknown"), "task": TASKS}
    return {
        "records": sum(cells.values()),
        **{
            name: {value: counter[value] for value in order.get(name, sorted(counter)) if counter[value]}
            for name, counter in counts.items()
        },
        "media": {kind: len(media[kind]) for kind in sorted(media)},
        "turns": {str(number): turns[number] for number in sorted(turns)},
        "modality_by_task": {
            modality: {task: cells[modality, task] for task in TASKS if cells[modality, task]}
            for modality in order["modality"]
            if counts["modality"][modality]
        },
        "words": {name: {str(edge): counter[edge] for edge in LENGTH_EDGES} for name, counter in lengths.items()},
    }


def _bin(words: int) -> int:
    return max((edge for edge in LENGTH_EDGES if edge <= words), default=LENGTH_EDGES[0])


def draw_matrix(summary: dict[str, Any], path: Path) -> None:
    """Records of every modality and task, as a heat map with its numbers."""
    modalities = list(summary["modality_by_task"])
    values = np.array([[summary["modality_by_task"][m].get(task, 0) for task in TASKS] for m in modalities])
    figure = Figure(figsize=(11, 1.9 + 0.36 * len(modalities)), layout="constrained")
    axes = figure.add_subplot()
    shown = np.ma.masked_equal(values, 0)
    image = axes.imshow(shown, cmap="YlGnBu", norm=LogNorm(1, max(values.max(), 2)), aspect="auto")
    axes.set_xticks(range(len(TASKS)), TASKS, rotation=35, ha="right")
    axes.set_yticks(range(len(modalities)), modalities)
    for (row, column), value in np.ndenumerate(values):
        dark = value and np.log(value) > 0.6 * np.log(max(values.max(), 2))
        axes.text(column, row, value or "–", ha="center", va="center", fontsize=8, color="white" if dark else "black")
    axes.set_title(f"{summary['records']:,} records by modality and task")
    figure.colorbar(image, label="records (log scale)")
    figure.savefig(path, dpi=110)


def draw_shares(summary: dict[str, Any], path: Path) -> None:
    """Dimensions as a ring; modalities and tasks as bars."""
    figure = Figure(figsize=(13, 4.6), layout="constrained")
    ring, modality, task = figure.subplots(1, 3, width_ratios=(1, 1.2, 1.3))
    dimensions = summary["dimension"]
    ring.pie(
        list(dimensions.values()),
        labels=[f"{name}\n{count:,}" for name, count in dimensions.items()],
        colors=[COLOUR_OF[name] for name in dimensions],
        autopct=lambda share: f"{share:.0f} %",
        pctdistance=0.8,
        startangle=90,
        wedgeprops={"width": 0.42, "edgecolor": "white"},
    )
    ring.set_title("Dimensions")
    for axes, name in ((modality, "modality"), (task, "task")):
        items = sorted(summary[name].items(), key=lambda item: item[1])
        bars = axes.barh([value for value, _ in items], [count for _, count in items], color="#4477aa")
        axes.bar_label(bars, fmt="{:,.0f}", padding=2, fontsize=8)
        axes.margins(x=0.14)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_xlabel("records")
        axes.set_title({"modality": "Modalities", "task": "Tasks"}[name])
    figure.savefig(path, dpi=110)


def draw_lengths(summary: dict[str, Any], path: Path) -> None:
    """Histograms of the words of questions and answers."""
    figure = Figure(figsize=(10, 3.2), layout="constrained")
    labels = [
        f"{edge}" if following == edge + 1 else f"{edge}–{following - 1}"
        for edge, following in itertools.pairwise(LENGTH_EDGES)
    ]
    labels.append(f"≥ {LENGTH_EDGES[-1]}")
    for axes, name in zip(figure.subplots(1, 2), ("question", "answer"), strict=True):
        axes.bar(labels, list(summary["words"][name].values()), color="#4477aa")
        axes.tick_params(axis="x", rotation=45)
        axes.set_xlabel(f"words in {'a question' if name == 'question' else 'an answer'}")
        axes.set_ylabel("turns")
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)


FIGURES = {"modality_by_task.png": draw_matrix, "shares.png": draw_shares, "lengths.png": draw_lengths}


def draw_figures(summary: dict[str, Any], folder: Path) -> list[Path]:
    """All figures of a summary into a folder; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, draw in FIGURES.items():
        draw(summary, folder / name)
    return [folder / name for name in FIGURES]
