# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""How well given grades agree with true ones, beyond chance, where a miss by two steps is worse than one by one."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from sklearn.metrics import cohen_kappa_score

from evaluation.resampling import with_intervals


def weighted_kappa(
    true: Sequence[str], given: Sequence[str], grades: Sequence[str], groups: Sequence[Hashable]
) -> dict[str, Any]:
    """Cohen's kappa with quadratic weights (Cohen 1968), and its 95 % bootstrap interval over groups.

    Args:
        true: the grade of each question, one of `grades`.
        given: the answer; one that is no grade counts as the grade farthest from the true one.
        grades: from the lowest to the highest.
        groups: what each question belongs to, such as its picture.

    Returns:
        `value` and `interval`, each None where it cannot be taken, because only one grade occurs; `count`.
    """
    number = {grade: place for place, grade in enumerate(grades)}
    highest = len(grades) - 1
    wanted = np.array([number[grade] for grade in true])
    said = np.array(
        [
            number.get(answer, 0 if number[grade] > highest / 2 else highest)
            for grade, answer in zip(true, given, strict=True)
        ]
    )

    def kappa(places: np.ndarray) -> float:
        if len({*wanted[places].tolist(), *said[places].tolist()}) < 2:
            return float("nan")
        return float(cohen_kappa_score(wanted[places], said[places], labels=range(len(grades)), weights="quadratic"))

    return with_intervals({"kappa": kappa}, groups)["kappa"] | {"count": len(true)}
