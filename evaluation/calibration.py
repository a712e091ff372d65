# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Whether a confidence is what it says: expected error, ranking of right above wrong answers, risk and coverage.

And how the model's calibration is fitted: a logistic regression from the token probabilities of answers (see
`hub_model.answering_omniv_med`) to whether they were right.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.stats import rankdata

from evaluation.resampling import with_intervals
from hub_model.answering_omniv_med import FEATURES, AnswerCalibration, features

BINS = 10
RIDGE = 1e-2
"""Weight of the squared coefficients in the regression's loss: keeps them finite where features tell all apart."""


def expected_error(confidences: np.ndarray, right: np.ndarray) -> float:
    """Expected calibration error (Naeini et al. 2015), in bins of equally many answers.

    Bins of equal width leave most of them nearly empty where a model is seldom unsure.

    Args:
        confidences: (answers,) from 0 to 1.
        right: bool (answers,).
    """
    order = np.argsort(confidences, kind="stable")
    bins = [one for one in np.array_split(order, BINS) if len(one)]
    gaps = [abs(confidences[one].mean() - right[one].mean()) * len(one) for one in bins]
    return float(sum(gaps) / len(confidences))


def area_under_curve(confidences: np.ndarray, right: np.ndarray) -> float:
    """Chance that a right answer is surer than a wrong one, ties half (AUROC); NaN where there is only one kind."""
    positive, count = int(right.sum()), len(right)
    if positive in (0, count):
        return float("nan")
    ranks = rankdata(confidences)[right].sum()
    return float((ranks - positive * (positive + 1) / 2) / (positive * (count - positive)))


def gain_of_surest(confidences: np.ndarray, right: np.ndarray) -> float:
    """How much oftener the surer half of the answers is right than all of them, as a difference of shares."""
    half = np.argsort(-confidences, kind="stable")[: -(-len(right) // 2)]
    return float(right[half].mean() - right.mean())


FIGURES: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "expected_error": expected_error,
    "area_under_curve": area_under_curve,
    "gain_of_surest_half": gain_of_surest,
}


def figures(confidences: Sequence[float], right: Sequence[bool], groups: Sequence[Hashable]) -> dict[str, Any]:
    """Every figure with its 95 % bootstrap interval; all answers about one picture are drawn together.

    A figure that cannot be taken, because all answers are right or all are wrong, is None.
    """
    sure, true = np.asarray(confidences, dtype=float), np.asarray(right, dtype=bool)
    taken = {name: lambda places, figure=figure: figure(sure[places], true[places]) for name, figure in FIGURES.items()}
    return {"count": len(true)} | with_intervals(taken, groups)


def fit(log_probabilities: Sequence[Sequence[float]], right: Sequence[bool]) -> AnswerCalibration:
    """The regression that makes the answers seen likeliest, without a threshold.

    Args:
        log_probabilities: of each answer's tokens.
        right: whether it was right.

    Raises:
        ValueError: answers that are all right, or all wrong: they teach nothing.
    """
    true = np.asarray(right, dtype=float)
    if len(set(true.tolist())) < 2:
        raise ValueError("A calibration needs right and wrong answers; ask more questions.")
    given = np.array([features(one) for one in log_probabilities])

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        log_odds = given @ parameters[:-1] + parameters[-1]
        gap = 1 / (1 + np.exp(-log_odds)) - true
        value = np.logaddexp(0, log_odds).mean() - (true * log_odds).mean() + RIDGE * parameters[:-1] @ parameters[:-1]
        slope = np.append(given.T @ gap / len(true) + 2 * RIDGE * parameters[:-1], gap.mean())
        return float(value), slope

    found = minimize(loss, np.zeros(len(FEATURES) + 1), jac=True, method="L-BFGS-B").x
    return AnswerCalibration(tuple(map(float, found[:-1])), float(found[-1]))


def threshold_for(confidences: Sequence[float], share: float) -> float:
    """The highest threshold below which no more than a share of these answers lies."""
    ordered = np.sort(np.asarray(confidences, dtype=float))
    return float(ordered[min(int(share * len(ordered)), len(ordered) - 1)]) if len(ordered) and share > 0 else 0.0
