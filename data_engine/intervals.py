# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The interval of a counted share. `evaluation` and `benchmarks` both give one, and neither imports the other."""

from __future__ import annotations

from scipy.stats import binomtest


def wilson_interval(right: int, count: int) -> tuple[float, float]:
    """95 % interval of a share of independent trials (Wilson 1927)."""
    interval = binomtest(right, count).proportion_ci(confidence_level=0.95, method="wilson")
    return float(interval.low), float(interval.high)
