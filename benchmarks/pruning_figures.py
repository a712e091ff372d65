# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Figures of the comparison of pruning rules: survival against removed tokens, and examples of what each rule loses."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from benchmarks.pruning_findings import SURVIVING_CONTRAST

OURS = "ours"
EXAMPLES_OF_RULE = 8
COLOURS = matplotlib.color_sequences["tab10"][1:] + matplotlib.color_sequences["Dark2"][3:]
OUR_COLOURS = ("#0f766e", "#2dd4bf", "#134e4a", "#5eead4")
MARKERS = "osv^Dp<>hX*"


@dataclass(frozen=True)
class Example:
    """One finding, its frame cut out around it.

    Attributes:
        true, shown: uint8 (h, w, 3), as it is and as a rule shows it.
        outline: bool (h, w), where the finding lies.
        share: of its contrast that is left.
    """

    true: np.ndarray
    shown: np.ndarray
    outline: np.ndarray
    share: float


def colours_of(rules: Sequence[str]) -> dict[str, Any]:
    """The colour of each rule's line: greens for ours, of other hues for the rest; they repeat after the last."""
    ours = [rule for rule in rules if rule.startswith(OURS)]
    others = [rule for rule in rules if not rule.startswith(OURS)]
    colours = dict(zip(ours, cycle(OUR_COLOURS), strict=False))
    return colours | dict(zip(others, cycle(COLOURS), strict=False))


def draw_survival(results: list[dict[str, Any]], kinds: dict[str, str], path: Path) -> None:
    """Writes a PNG with a panel for each kind of finding: survival against removed tokens, one line a rule.

    Args:
        results: of `benchmarks.pruning.summary`.
        kinds: names of the kinds, in order; those without results are left out.
        path: the PNG file to write.
    """
    kinds = {kind: words for kind, words in kinds.items() if any(item["kind"] == kind for item in results)}
    rules = list(dict.fromkeys(item["rule"] for item in results))
    colours = colours_of(rules)
    figure = Figure(figsize=(4.6 * len(kinds) + 2.2, 4.4), layout="constrained")
    panels = figure.subplots(1, len(kinds), squeeze=False, sharey=True)[0]
    handles: dict[str, Any] = {}
    for panel, (kind, words) in zip(panels, kinds.items(), strict=True):
        number = next(item["survival"]["n"] for item in results if item["kind"] == kind)
        for order, rule in enumerate(rules):
            found = [item for item in results if item["kind"] == kind and item["rule"] == rule]
            style = {"color": colours[rule], "marker": MARKERS[order % len(MARKERS)]}
            wide = rule.startswith(OURS)
            line = sorted(
                (item["removed"], item["survival"]["share"]) for item in found if item["setting"] != "default"
            )
            if line:
                handles[rule] = panel.plot(
                    *zip(*line, strict=True),
                    **style,
                    linewidth=2.4 if wide else 1.1,
                    markersize=6 if wide else 4.5,
                    zorder=3 if wide else 2,
                    label=rule,
                )[0]
            for item in found:
                if item["setting"] == "default":
                    point = (item["removed"], item["survival"]["share"])
                    mark = panel.plot(
                        *point, **style, markerfacecolor="white", markersize=8, linestyle="", zorder=4, label=rule
                    )[0]
                    handles.setdefault(rule, mark)
        panel.set_title(f"{words} (n = {number})", fontsize=10)
        panel.set_xlabel("share of the tokens removed")
        panel.xaxis.set_major_formatter("{x:.0%}")
        panel.yaxis.set_major_formatter("{x:.0%}")
        panel.set_ylim(-0.03, 1.03)
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("findings that keep half of their contrast")
    figure.legend(
        [handles[rule] for rule in rules],
        rules,
        loc="outside right upper",
        fontsize=9,
        title="white: the rule's\nown default",
        title_fontsize=8.5,
    )
    figure.savefig(path, dpi=130, format="png")


def draw_examples(by_rule: dict[str, list[Example]], title: str, seed: int, path: Path) -> None:
    """Writes a PNG with a row for each rule: findings that it lost, drawn at random, as they are and as it shows them.

    Args:
        by_rule: examples of every finding for each rule.
        title: over all.
        seed: which of the lost findings are drawn.
        path: the PNG file to write.
    """
    side, gap, words = 0.75, 0.05, 1.75
    pair = 2 * side + gap
    width, height = words + EXAMPLES_OF_RULE * (pair + 3 * gap), 0.75 + len(by_rule) * (side + 0.28)
    figure = Figure(figsize=(width, height))

    def box(left: float, top: float) -> tuple[float, float, float, float]:
        return left / width, 1 - (top + side) / height, side / width, side / height

    figure.text(0.1 / width, 1 - 0.22 / height, title, fontsize=10, weight="bold", va="center")
    figure.text(
        0.1 / width,
        1 - 0.45 / height,
        "Left of each pair: as it is, outlined. Right: as the rule shows it. The number: share of the contrast left.",
        fontsize=8.5,
        va="center",
    )
    for row, (rule, every) in enumerate(by_rule.items()):
        top = 0.68 + row * (side + 0.28)
        lost = [example for example in every if example.share < SURVIVING_CONTRAST]
        caption = f"{rule}\nlost {len(lost)} of {len(every)}"
        figure.text(0.1 / width, 1 - (top + side / 2) / height, caption, fontsize=9, va="center")
        chosen = random.Random(seed).sample(lost, min(EXAMPLES_OF_RULE, len(lost)))
        for column, example in enumerate(chosen):
            left = words + column * (pair + 3 * gap)
            low, high = float(example.true.min()), max(float(example.true.max()), float(example.true.min()) + 1)
            for offset, pixels in ((0.0, example.true), (side + gap, example.shown)):
                axes = figure.add_axes(box(left + offset, top))
                scaled = np.clip((pixels.astype(float) - low) / (high - low), 0, 1)
                axes.imshow(scaled, interpolation="nearest", aspect="auto")
                if offset == 0.0:
                    padded = np.pad(example.outline.astype(float), 1)[1:-1, 1:-1]
                    if 0 < padded.mean() < 1:
                        axes.contour(padded, levels=[0.5], colors="#f59e0b", linewidths=0.8)
                axes.set_axis_off()
            middle = (left + side + gap / 2) / width
            figure.text(middle, 1 - (top + side + 0.09) / height, f"{example.share:.0%}", fontsize=7, ha="center")
    figure.savefig(path, dpi=130, format="png")
