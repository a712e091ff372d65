# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Draws held-out losses with their intervals and the fitted law: against parameters, and against samples."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullFormatter

from data_engine.files import write_atomically
from train.scaling.law import Law

COLOURS = [matplotlib.colormaps["viridis"](place) for place in (0.75, 0.45, 0.05)]


@dataclass(frozen=True)
class Point:
    """A run's loss with its 95 % interval."""

    parameters: int
    samples: int
    loss: float
    low: float
    high: float


def draw(points: list[Point], law: Law, path: Path) -> None:
    """Writes a PNG of two panels: one line for each number of samples, and one for each number of parameters."""
    figure = Figure(figsize=(10, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    sizes = sorted({one.parameters for one in points})
    amounts = sorted({one.samples for one in points})
    for colour, samples in zip(COLOURS, amounts, strict=False):
        chosen = sorted((one for one in points if one.samples == samples), key=lambda one: one.parameters)
        fitted = np.geomspace(sizes[0], sizes[-1], 100)
        _line(left, [one.parameters for one in chosen], chosen, colour, f"{samples:,} samples")
        left.plot(fitted, law(fitted, samples), "--", color=colour, linewidth=1)
    for colour, parameters in zip(COLOURS, sizes, strict=False):
        chosen = sorted((one for one in points if one.parameters == parameters), key=lambda one: one.samples)
        fitted = np.geomspace(amounts[0], amounts[-1], 100)
        _line(right, [one.samples for one in chosen], chosen, colour, f"{parameters / 1e6:.2f} M parameters")
        right.plot(fitted, law(parameters, fitted), "--", color=colour, linewidth=1)
    for axes, ticks, label in (
        (left, sizes, "parameters without token embeddings, millions"),
        (right, amounts, "training samples (questions with answers), each seen once"),
    ):
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(FixedLocator(ticks))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel(label)
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    left.xaxis.set_major_formatter(lambda value, _: f"{value / 1e6:.2f}")
    right.xaxis.set_major_formatter("{x:,.0f}")
    left.set_ylabel("held-out loss of an answer's token, nats")
    figure.suptitle(
        "Points: measured, with 95 % intervals over held-out conversations. Dashed: the fitted law.", fontsize=10
    )
    with write_atomically(path) as part:
        figure.savefig(part, dpi=130, format="png")


def _line(axes: Axes, across: list[int], points: list[Point], colour: tuple[float, ...], label: str) -> None:
    losses = np.array([one.loss for one in points])
    errors = np.array([[one.loss - one.low for one in points], [one.high - one.loss for one in points]])
    axes.errorbar(across, losses, yerr=errors, fmt="o-", color=colour, capsize=3, linewidth=1.6, label=label)
