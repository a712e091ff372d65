# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Which runs there are, and what they say together: losses, the fitted law, and how far it can be trusted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data_engine.tables import markdown_table
from hub_model.modeling_omniv_med import OmniVMedForConditionalGeneration
from train.memory.plan import model_config, read_architecture
from train.scaling import runs
from train.scaling.law import FittedLaw, draws, interval, leave_one_out, mean_losses
from train.scaling.runs import MeasuredRun, Run, parameter_counts

MORE_SEEDS = (1, 2)
REDRAWS = 400
CONFIGS = Path(__file__).resolve().parents[1] / "configs"
FULL_SIZES = ("1.5b", "7b")
FULL_SAMPLES = 252_000
"""Records of the paper's set."""
EXTRAPOLATED = (
    "arithmetic, not evidence: the models of the runs are hundreds of times smaller or more, "
    "and saw generated pictures alone"
)


def planned_runs() -> list[Run]:
    """The nine runs of the fit, the cheapest first, and the middle size on the smallest part with other seeds."""
    nine = [Run(size, share) for share in runs.SHARES for size in runs.SIZES]
    again = nine[len(runs.SIZES) // 2]
    return [*nine, *(Run(again.size, again.share, seed) for seed in MORE_SEEDS)]


def full_parameters(size: str) -> int:
    """Parameters of the model that `train/configs` describes, without token embeddings and head."""
    with torch.device("meta"):
        model = OmniVMedForConditionalGeneration(model_config(read_architecture(CONFIGS / size / "stage3.yaml")))
    return parameter_counts(model)[0]


def summary(measured: Sequence[MeasuredRun], redraws: int) -> dict[str, Any]:
    """Losses with intervals, the law with intervals, how well it predicts, and how much a seed changes.

    Args:
        measured: the runs of `planned_runs`.
        redraws: how often the held-out conversations are drawn anew.
    """
    nine = [one for one in measured if one.run.seed == 0]
    parameters = np.array([one.parameters for one in nine], float)
    samples = np.array([one.samples for one in nine], float)
    tokens = np.array(nine[0].tokens)
    if any(one.tokens != nine[0].tokens for one in measured):
        raise ValueError("The runs were measured on different answers; remove their folders and begin again.")
    sums = np.array([one.sums for one in measured])
    losses = mean_losses(sums, tokens)
    drawn = np.array([mean_losses(sums, tokens, one) for one in draws(len(tokens), redraws)])
    rows = []
    for place, one in enumerate(measured):
        low, high = interval(drawn[:, place])
        row = asdict(one)
        for name in ("sums", "tokens", "stage", "run"):
            del row[name]
        about = {"size": one.run.size.name, "share": one.run.share, "seed": one.run.seed}
        rows.append({**about, **row, "loss": float(losses[place]), "low": low, "high": high})
    is_nine = np.array([one.run.seed == 0 for one in measured])
    fitted = FittedLaw.of(parameters, samples, sums[is_nine], tokens, redraws)
    errors = leave_one_out(parameters, samples, losses[is_nine])
    again = rows[-1]["size"], rows[-1]["share"]
    of_seeds = [row["loss"] for row in rows if (row["size"], row["share"]) == again]
    predictions = []
    for size in FULL_SIZES:
        count = full_parameters(size)
        loss, low, high = fitted.predict(count, FULL_SAMPLES)
        about = {"model": size, "parameters": count, "samples": FULL_SAMPLES}
        predictions.append({**about, "loss": loss, "low": low, "high": high, "worth": EXTRAPOLATED})
    return {
        "shapes": [asdict(size) | {"learning_rate": runs.learning_rate(size)} for size in runs.SIZES],
        "held_out": {"split": runs.HELD_OUT, "conversations": len(tokens), "answer_tokens": int(tokens.sum())},
        "runs": rows,
        "law": {
            "form": "floor + of_parameters / N^alpha + of_samples / D^beta",
            "redraws": redraws,
            "constants": asdict(fitted.law),
            "intervals": fitted.intervals(),
            "error": fitted.error,
        },
        "leave_one_out": [
            {"size": one.run.size.name, "share": one.run.share, "error": float(error)}
            for one, error in zip(nine, errors, strict=True)
        ],
        "seeds": {"losses": of_seeds, "spread": float(np.std(of_seeds, ddof=1) / np.mean(of_seeds))},
        "extrapolated": predictions,
    }


def table_of_runs(report: dict[str, Any]) -> str:
    """The runs as Markdown."""
    missed = {(one["size"], one["share"]): one["error"] for one in report["leave_one_out"]}
    header = ["parameters", "samples", "steps", "seed", "loss", "95 %", "predicted from the other eight"]
    rows = [
        [
            f"{row['parameters'] / 1e6:.2f} M",
            f"{row['samples']:,}",
            str(row["steps"]),
            str(row["seed"]),
            f"{row['loss']:.3f}",
            f"{row['low']:.3f}–{row['high']:.3f}",
            "" if row["seed"] else f"{missed[row['size'], row['share']]:+.1%}",
        ]
        for row in report["runs"]
    ]
    return markdown_table(header, rows)


def table_of_law(report: dict[str, Any]) -> str:
    """The law's constants as Markdown."""
    law = report["law"]
    rows = [
        [name, f"{value:.3g}", "{:.3g}–{:.3g}".format(*law["intervals"][name])]
        for name, value in law["constants"].items()
    ]
    return markdown_table(["constant", "fitted", "95 %"], rows)
