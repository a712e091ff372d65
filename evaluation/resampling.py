# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Figures that are no plain means, each with an interval from drawing whole groups again and again."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from evaluation.metrics import BOOTSTRAP_SEED

RESAMPLES = 1000
"""A figure such as a kappa takes longer than a mean, for which `evaluation.metrics` draws more often."""


def with_intervals(
    figures: Mapping[str, Callable[[np.ndarray], float]], groups: Sequence[Hashable]
) -> dict[str, dict[str, Any]]:
    """Every figure with its 95 % percentile interval of the cluster bootstrap (Davison and Hinkley 1997, 3.8).

    Args:
        figures: name -> the figure of some of the answers, given by their places, int64 (answers,); NaN where it cannot
            be taken.
        groups: what each answer belongs to, such as its picture; all answers of a group are drawn together.

    Returns:
        Name -> `value` and `interval`, each None where it cannot be taken; one group alone gives no interval.
    """
    members: dict[Hashable, list[int]] = {}
    for place, group in enumerate(groups):
        members.setdefault(group, []).append(place)
    clusters = [np.array(one) for one in members.values()]
    generator = np.random.default_rng(BOOTSTRAP_SEED)
    drawn = [
        np.concatenate([clusters[place] for place in generator.integers(len(clusters), size=len(clusters))])
        for _ in range(RESAMPLES if len(clusters) > 1 else 0)
    ]
    result = {}
    for name, figure in figures.items():
        value = figure(np.arange(len(groups)))
        values = [one for one in map(figure, drawn) if not np.isnan(one)]
        interval = [float(end) for end in np.percentile(values, (2.5, 97.5))] if values else None
        result[name] = {"value": None if np.isnan(value) else value, "interval": interval}
    return result
