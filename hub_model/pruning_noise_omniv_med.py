# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""How noisy a clip is, so that the pruner does not take noise for change."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch

LARGEST_NOISE = 0.15
"""What varies by more than this, 7.5 % of the display range, is taken for a change however random it looks."""
NOISE_FRAMES = 8
"""Frames, evenly spread over a clip, from which its noise is estimated."""


def estimate_noise(tokens: torch.Tensor) -> float:
    """Standard deviation of the pixel noise of a clip, robust against what it shows.

    The smaller of two estimates, as fine texture looks like noise within a frame but stands still, and motion looks
    like noise between frames but is smooth within one: the median absolute diagonal detail of 2×2 pixels (Donoho and
    Johnstone, Biometrika 81, 1994, section 4.2) and the median absolute difference of neighbouring frames. Where
    nothing differs at all, pixels are saturated or empty, and are left out.

    Args:
        tokens: float (T, N, patches per token, channels, patch, patch), pixel values in [-1, 1].

    Returns:
        The standard deviation in pixel values, at most `LARGEST_NOISE`; 0 for a single frame, which is never pruned.
    """
    chosen = noise_frames(len(tokens))
    if tokens.is_cuda and chosen:  # all at once: there an operation on one frame takes as long
        return noise_of_pairs([(tokens[chosen], tokens[[t - 1 for t in chosen]])])
    return noise_of_pairs((tokens[t], tokens[t - 1]) for t in chosen)


def noise_frames(count: int) -> list[int]:
    """The frames of a clip of so many that are compared with the one before each; none of a single frame."""
    return torch.linspace(1, count - 1, min(NOISE_FRAMES, count - 1)).round().long().tolist()


def noise_of_pairs(pairs: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> float:
    """As `estimate_noise`, of a clip that is not in memory: frames (N, …) by `noise_frames`, and the one before each.

    Both should be as exact as they were made: rounding hides small differences, and the noise seems larger then.
    """
    within, between = [], []
    for frame, before in pairs:
        frame, before, side = frame.float(), before.float(), frame.shape[-1] // 2 * 2
        vertical = frame[..., 0:side:2, :side] - frame[..., 1:side:2, :side]
        within.append((vertical[..., 0::2] - vertical[..., 1::2]).abs_())
        between.append((frame - before).abs_())
    if not within:
        return 0.0
    limit = _robust_deviation(within, terms=4, limit=LARGEST_NOISE)
    return _robust_deviation(between, terms=2, limit=limit)


def _robust_deviation(sizes: list[torch.Tensor], terms: int, limit: float) -> float:
    """Standard deviation of each of the `terms` pixels whose Gaussian sums have these absolute values; at most `limit`.

    By the median, zeros left out. Where more than half lie beyond the limit the median does too, and is not sought.
    """
    scale = 0.6745 * math.sqrt(terms)
    if _count_above(limit * scale, sizes) > _count_above(0.0, sizes) / 2:
        return limit
    nonzero = torch.cat([part.masked_select(part != 0) for part in sizes])
    return min(float(nonzero.median()) / scale, limit) if len(nonzero) else 0.0


def _count_above(level: float, sizes: list[torch.Tensor]) -> int:
    """How many values lie above a level; in float, as torch compares and adds truth values several times as slowly."""
    return sum(int(torch.gt(part, level, out=torch.empty_like(part)).sum()) for part in sizes)
