# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""That the benchmarks measure what they say: intervals, memory, taking turns."""

from __future__ import annotations

import pytest
import torch

from benchmarks import encoder as encoder_benchmark
from benchmarks.report import share_with_interval
from benchmarks.timing import seconds_in_turn
from data_engine.intervals import wilson_interval
from hub_model.token_pruning_omniv_med import prune_tokens

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_share_has_the_interval_of_wilson():
    low, high = wilson_interval(81, 263)
    assert share_with_interval(81, 263) == {"share": 81 / 263, "low": low, "high": high, "n": 263}


def test_peak_memory_is_what_lives_at_one_time():
    def call() -> torch.Tensor:
        first = torch.ones(1000, 1000) * 2
        del first
        return torch.ones(1500, 1000) * 2

    assert encoder_benchmark.peak_memory(call) == pytest.approx(2 * 1500 * 1000 * 4, rel=0.01)


def test_calls_take_turns_and_the_first_round_is_not_counted():
    order = []
    times = seconds_in_turn({name: lambda name=name: order.append(name) for name in "ab"}, repeats=2)
    assert order == list("ababab")
    assert [len(elapsed) for elapsed in times.values()] == [2, 2]


def test_the_pair_of_encoders_computes_the_same_on_real_slices():
    ours, theirs = encoder_benchmark.build_pair()
    tokens = encoder_benchmark.slices(3, 8)
    inputs = encoder_benchmark.encoder_inputs(tokens, 8)
    assert prune_tokens(tokens, **encoder_benchmark.PRUNING).keep_mask.float().mean() < 1
    with torch.no_grad():
        difference = ours(**inputs).last_hidden_state - theirs(**inputs).last_hidden_state
    assert difference.abs().max() < 1e-4
