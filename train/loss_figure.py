# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Draws the losses of a run from the Trainer's log."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from data_engine.files import write_atomically

SMOOTHED_OVER = 10
"""Log entries that the thick curve averages."""


def draw_loss(history: Sequence[dict[str, Any]], path: Path) -> None:
    """Writes a PNG: training and validation loss above, the highest learning rate and the size of the gradients below.

    Args:
        history: `TrainerState.log_history`.
    """
    training = [entry for entry in history if "loss" in entry]
    validation = [entry for entry in history if "eval_loss" in entry]
    if not training:
        return
    steps = [entry["step"] for entry in training]
    losses = np.array([entry["loss"] for entry in training])
    figure = Figure(figsize=(8, 5.5), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    above.plot(steps, losses, color="tab:blue", alpha=0.3, linewidth=1)
    if len(losses) >= SMOOTHED_OVER:
        smooth = np.convolve(losses, np.ones(SMOOTHED_OVER) / SMOOTHED_OVER, mode="valid")
        above.plot(steps[SMOOTHED_OVER - 1 :], smooth, color="tab:blue", linewidth=2, label="training, smoothed")
    else:
        above.lines[0].set(alpha=1, label="training")
    if validation:
        places = [entry["step"] for entry in validation]
        above.plot(places, [entry["eval_loss"] for entry in validation], "o-", color="tab:orange", label="validation")
    above.set_ylabel("cross-entropy of answer tokens")
    above.set_ylim(bottom=0)
    above.grid(alpha=0.3)
    above.legend(frameon=False)
    below.plot(steps, [entry["learning_rate"] for entry in training], color="tab:green")
    below.set_ylabel("learning rate", color="tab:green")
    below.set_ylim(bottom=0)
    below.set_xlabel("step")
    norms = below.twinx()
    norms.plot(steps, [entry.get("grad_norm", np.nan) for entry in training], color="tab:gray", linewidth=1)
    norms.set_ylabel("gradient norm", color="tab:gray")
    norms.set_ylim(bottom=0)
    with write_atomically(path) as part:
        figure.savefig(part, dpi=120, format="png")
