# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""How benchmarks of speed measure: what is compared takes turns in one run, and figures are medians and quartiles."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

import torch
from transformers import LogitsProcessor

Measured = TypeVar("Measured")


def seconds(call: Callable[[], Any]) -> float:
    """How long a call takes, with the work that it leaves to an NVIDIA GPU."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start = time.perf_counter()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def take_turns(measures: Mapping[str, Callable[[], Measured]], repeats: int) -> dict[str, list[Measured]]:
    """What each measures, one after the other, in so many rounds after one that is not counted."""
    found: dict[str, list[Measured]] = {name: [] for name in measures}
    for number in range(repeats + 1):
        for name, measure in measures.items():
            measured = measure()
            if number:
                found[name].append(measured)
    return found


def seconds_in_turn(calls: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    """`seconds` of each call, as `take_turns` repeats them."""
    return take_turns({name: partial(seconds, call) for name, call in calls.items()}, repeats)


def summary(times: list[float]) -> dict[str, float]:
    """Median and quartiles of at least two times, in seconds."""
    low, middle, high = statistics.quantiles(times, n=4)
    return {"median_s": middle, "first_quartile_s": low, "third_quartile_s": high}


class Clock(LogitsProcessor):
    """Notes when the logits of each new token are there, in seconds from when it was made."""

    def __init__(self) -> None:
        self.start = time.perf_counter()
        self.times: list[float] = []

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        self.times.append(time.perf_counter() - self.start)
        return scores
