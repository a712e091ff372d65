# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The rule "anchor" on an NVIDIA GPU is the one on a CPU: the same code, run here on a CPU, decides the same.

How fast it is can only a GPU show (`test_gpu.py`, `benchmarks/encoder.py`); how many operations it starts is seen here.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.pruning_clips import packaged_clips
from hub_model import device_pruning_omniv_med as device_form
from hub_model import token_pruning_omniv_med as pruning
from hub_model.media_omniv_med import load_clip
from hub_model.pruning_noise_omniv_med import estimate_noise, noise_frames, noise_of_pairs
from hub_model.token_pruning_omniv_med import LARGEST_DISTANCE, FrameDecision, PrunedTokens, StreamingPruner
from hub_model.visual_processing_omniv_med import patchify, resize_frames
from tests.helpers.token_clips import clips

pytestmark = pytest.mark.usefixtures("one_thread")

ROUNDING = 1e-5
"""Sums in another order differ by less, relative to a threshold."""

thresholds = st.floats(0.0, 0.6)
peaks = st.none() | st.sampled_from([LARGEST_DISTANCE, math.inf]) | st.floats(0.0, 0.8)
noises = st.sampled_from([None, 0.0, 0.02, 0.2])
groups = st.sampled_from([1, 2, 3, 4, 8, 16])
modest = settings(max_examples=60)


@contextmanager
def as_on_a_gpu(frames_in_group: int = device_form.FRAMES_IN_GROUP) -> Iterator[None]:
    """Tokens in a CPU's memory are judged as those in a GPU's would be."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pruning, "is_judged_on_device", lambda tokens: True)
        patch.setattr(device_form, "FRAMES_IN_GROUP", frames_in_group)
        yield


def none_lies_on_the_threshold(scores: torch.Tensor) -> bool:
    """Rounding could tip a token that does."""
    return bool(((scores - 1).abs() > ROUNDING).all())


def assert_same(found: PrunedTokens | FrameDecision, expected: PrunedTokens | FrameDecision) -> None:
    assert torch.equal(found.keep_mask, expected.keep_mask)
    assert torch.equal(found.stand_in, expected.stand_in)
    torch.testing.assert_close(found.errors, expected.errors, rtol=ROUNDING, atol=ROUNDING, equal_nan=True)
    torch.testing.assert_close(found.scores, expected.scores, rtol=ROUNDING, atol=ROUNDING)


@modest
@given(clips(), thresholds, peaks, noises, groups)
def test_a_clip_is_judged_as_on_a_cpu(tokens, threshold, peak, noise, frames_in_group):
    expected = pruning.prune_tokens(tokens, "anchor", threshold, peak, noise=noise)
    assume(none_lies_on_the_threshold(expected.scores))
    with as_on_a_gpu(frames_in_group):
        found = pruning.prune_tokens(tokens, "anchor", threshold, peak, noise=noise)
    assert_same(found, expected)
    assert found.threshold == expected.threshold


@pytest.mark.parametrize("frames_in_group", [8, 16])
@pytest.mark.parametrize("name", packaged_clips())
def test_a_real_clip_is_judged_as_on_a_cpu(name, frames_in_group):
    frames = load_clip(packaged_clips()[name], max_frames=20).frames
    tokens = patchify(resize_frames(frames, 112, 112), 14, 2)
    budget = len(tokens) * tokens.shape[1] // 3
    for options in ({}, {"threshold": 0.03}, {"peak_threshold": LARGEST_DISTANCE}, {"max_tokens": budget}):
        options["noise"] = estimate_noise(tokens)
        expected = pruning.prune_tokens(tokens, **options)
        with as_on_a_gpu(frames_in_group):
            found = pruning.prune_tokens(tokens, **options)
        assert 0 < expected.keep_mask.float().mean() < 1
        assert_same(found, expected)
        assert found.threshold == expected.threshold


@modest
@given(clips(min_frames=2), thresholds, peaks, groups, st.data())
def test_a_stream_in_parts_is_judged_as_on_a_cpu(tokens, threshold, peak, frames_in_group, data):
    expected = StreamingPruner("anchor", threshold, peak).judge(tokens)
    assume(none_lies_on_the_threshold(expected.scores))
    cut = data.draw(st.integers(1, len(tokens) - 1))
    with as_on_a_gpu(frames_in_group):
        stream = StreamingPruner("anchor", threshold, peak)
        steps = [stream.step(frame) for frame in tokens[:cut]]
        rest = stream.judge(tokens[cut:])
    parts = zip(*(tuple(part.unsqueeze(0) for part in step) for step in steps), strict=True)
    assert_same(FrameDecision(*(torch.cat([*part, end]) for part, end in zip(parts, rest, strict=True))), expected)
    assert stream.frames_seen == len(tokens)


@modest
@given(clips(), thresholds, groups, st.data())
def test_a_budget_is_met_by_about_the_same_threshold(tokens, threshold, frames_in_group, data):
    budget = data.draw(st.integers(tokens.shape[1], tokens.shape[0] * tokens.shape[1]))
    expected = pruning.prune_tokens(tokens, "anchor", threshold, max_tokens=budget)
    with as_on_a_gpu(frames_in_group):
        found = pruning.prune_tokens(tokens, "anchor", threshold, max_tokens=budget)
    assert found.keep_mask.sum() <= budget
    # Bisection ends where a token lies all but on the threshold, which rounding may tip.
    assert found.threshold == pytest.approx(expected.threshold, abs=1e-3)
    assert found.worst_error <= found.threshold + ROUNDING


def test_frames_too_large_for_a_group_come_one_by_one(monkeypatch):
    tokens = torch.rand(9, 4, 1, 3, 4, 4, generator=torch.Generator().manual_seed(0)).round(decimals=1)
    expected = pruning.prune_tokens(tokens, threshold=0.3)
    monkeypatch.setattr(device_form, "VALUES_AT_ONCE", 1)
    with as_on_a_gpu():
        assert_same(pruning.prune_tokens(tokens, threshold=0.3), expected)


def test_the_decision_on_half_precision_is_in_float():
    tokens = (torch.rand(9, 4, 1, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1).bfloat16()
    expected = pruning.prune_tokens(tokens, threshold=0.5)
    with as_on_a_gpu(), torch.autocast("cpu", torch.bfloat16):
        assert_same(pruning.prune_tokens(tokens, threshold=0.5), expected)


def test_only_the_rule_that_has_a_form_for_gpus_is_judged_there():
    assert not device_form.is_judged_on_device(torch.zeros(1))
    assert [name for name, rule in pruning._RULES.items() if rule.device_form] == ["anchor"]


def test_the_noise_of_all_frames_at_once_is_that_of_one_after_the_other():
    tokens = torch.rand(20, 4, 4, 3, 4, 4, generator=torch.Generator().manual_seed(0)) / 50
    chosen = noise_frames(20)
    assert noise_of_pairs([(tokens[chosen], tokens[[t - 1 for t in chosen]])]) == estimate_noise(tokens) > 0


class CountedOperations(TorchDispatchMode):
    """Counts operations by name; views are none, as they compute nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, operation, types, arguments=(), options=None) -> Any:
        if not operation.is_view:
            self.counts[operation.overloadpacket.__name__] += 1
        return operation(*arguments, **(options or {}))


def operations_of(frames: int, places: int) -> Counter[str]:
    tokens = torch.rand(frames, places, 1, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1
    judge: Callable[[torch.Tensor], FrameDecision] = StreamingPruner("anchor", 0.3).judge
    with as_on_a_gpu():
        judge(tokens)  # what is computed once for all clips
        judge = StreamingPruner("anchor", 0.3).judge
        with CountedOperations() as counted:
            judge(tokens)
    return counted.counts


def test_operations_are_as_many_for_any_tokens_and_grow_by_groups_not_by_frames():
    few, more = operations_of(64, places=4), operations_of(128, places=4)
    assert operations_of(64, places=9) == few
    assert few.total() <= 110
    assert more.total() - few.total() <= 2 * 35


def test_nothing_waits_for_the_device_while_frames_are_judged():
    assert not operations_of(20, places=4).keys() & {"_local_scalar_dense", "nonzero", "masked_select", "equal"}
