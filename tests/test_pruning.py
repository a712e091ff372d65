# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""What the pruner promises of any clip, and the two cases that its rule and its guard exist for."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hub_model.token_pruning_omniv_med import prune_tokens, reconstruct, split_blocks

pytestmark = pytest.mark.usefixtures("one_thread")

ROUNDING = 1e-6


@st.composite
def clips(draw: st.DrawFn, min_frames: int = 1) -> torch.Tensor:
    """Tokens (T, N, patches, channels, patch, patch) that drift, jump and stand still."""
    frames, locations = draw(st.integers(min_frames, 9)), draw(st.integers(1, 5))
    patches, patch = draw(st.sampled_from([1, 4])), draw(st.sampled_from([1, 2, 3, 4]))
    step = draw(st.sampled_from([0.0, 0.03, 0.1, 0.5]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    start = torch.rand(1, locations, patches, 3, patch, patch, generator=generator) * 2 - 1
    steps = torch.randn(frames, locations, 1, 1, 1, 1, generator=generator) * step
    grain = torch.randn(frames, locations, patches, 3, patch, patch, generator=generator) * step / 4
    return (start + steps.cumsum(0) + grain).clamp(-1, 1)


thresholds = st.floats(0.0, 0.6)
peaks = st.none() | st.floats(0.0, 0.8)
rules = st.sampled_from(["anchor", "previous"])
modest = settings(deadline=None, max_examples=40)


@modest
@given(clips(), rules, thresholds, peaks)
def test_the_first_frame_is_all_kept(tokens, rule, threshold, peak):
    assert prune_tokens(tokens, rule, threshold, peak).keep_mask[0].all()


@modest
@given(clips(), thresholds, peaks)
def test_every_removed_token_is_within_the_threshold_of_its_stand_in(tokens, threshold, peak):
    pruned = prune_tokens(tokens, "anchor", threshold, peak)
    distance = (tokens - reconstruct(tokens, pruned)).abs().flatten(2).mean(-1)
    assert (distance <= threshold + ROUNDING).all()
    assert torch.allclose(distance, pruned.errors, atol=ROUNDING)
    assert pruned.worst_error <= threshold + ROUNDING


@modest
@given(clips(), thresholds, st.floats(0.0, 0.8))
def test_no_block_of_a_removed_token_is_further_from_its_stand_in_than_the_peak_threshold(tokens, threshold, peak):
    pruned = prune_tokens(tokens, "anchor", threshold, peak)
    patch = tokens.shape[-1]
    difference = (tokens - reconstruct(tokens, pruned)).abs()
    blocks = split_blocks(difference, patch // 2 if patch % 2 == 0 else patch).mean(-1)
    assert (blocks <= peak + ROUNDING).all()


@modest
@given(clips(), rules, thresholds, peaks)
def test_a_stand_in_is_the_last_kept_token_at_the_same_place(tokens, rule, threshold, peak):
    pruned = prune_tokens(tokens, rule, threshold, peak)
    for location in range(tokens.shape[1]):
        last = 0
        for t, kept in enumerate(pruned.keep_mask[:, location].tolist()):
            last = t if kept else last
            assert pruned.stand_in[t, location] == last


@modest
@given(clips(), rules, thresholds, peaks)
def test_a_reconstruction_equals_the_original_where_it_is_kept(tokens, rule, threshold, peak):
    pruned = prune_tokens(tokens, rule, threshold, peak)
    assert torch.equal(reconstruct(tokens, pruned)[pruned.keep_mask], tokens[pruned.keep_mask])
    assert (pruned.errors[pruned.keep_mask] == 0).all()


@modest
@given(clips(), st.sampled_from(["anchor", "previous", "none"]), thresholds, peaks)
def test_one_frame_keeps_all(tokens, rule, threshold, peak):
    assert prune_tokens(tokens[:1], rule, threshold, peak).keep_mask.all()


@modest
@given(clips(), rules, thresholds, peaks)
def test_frames_that_repeat_keep_only_the_first(tokens, rule, threshold, peak):
    still = tokens[:1].expand(5, *tokens.shape[1:])
    pruned = prune_tokens(still, rule, threshold, peak)
    assert int(pruned.keep_mask.sum()) == tokens.shape[1]
    assert torch.equal(reconstruct(still, pruned), still)


@modest
@given(clips(), rules, thresholds, peaks)
def test_a_place_is_judged_by_itself(tokens, rule, threshold, peak):
    together = prune_tokens(tokens, rule, threshold, peak).keep_mask
    for location in range(tokens.shape[1]):
        alone = prune_tokens(tokens[:, location : location + 1], rule, threshold, peak).keep_mask
        assert torch.equal(alone[:, 0], together[:, location])


@modest
@given(clips(min_frames=2), rules, thresholds, peaks, st.data())
def test_a_prefix_of_the_frames_gives_the_prefix_of_the_mask(tokens, rule, threshold, peak, data):
    length = data.draw(st.integers(1, len(tokens)))
    whole, part = prune_tokens(tokens, rule, threshold, peak), prune_tokens(tokens[:length], rule, threshold, peak)
    assert torch.equal(part.keep_mask, whole.keep_mask[:length])
    assert torch.equal(part.stand_in, whole.stand_in[:length])
    assert torch.equal(part.scores, whole.scores[:length])


@modest
@given(clips(), rules, thresholds, peaks)
def test_a_score_above_one_is_kept_and_one_below_is_not(tokens, rule, threshold, peak):
    pruned = prune_tokens(tokens, rule, threshold, peak)
    assert not pruned.scores.isnan().any()
    clear = (pruned.scores - 1).abs() > 1e-5
    assert torch.equal((pruned.scores > 1)[clear], pruned.keep_mask[clear])


@modest
@given(clips(), rules, thresholds, peaks, st.data())
def test_a_budget_is_never_exceeded_and_only_raises_the_threshold(tokens, rule, threshold, peak, data):
    frames, locations = tokens.shape[:2]
    budget = data.draw(st.integers(locations, frames * locations))
    pruned = prune_tokens(tokens, rule, threshold, peak, max_tokens=budget)
    assert locations <= int(pruned.keep_mask.sum()) <= budget
    assert pruned.keep_mask[0].all()
    assert pruned.threshold >= threshold
    if rule == "anchor":
        assert pruned.worst_error <= pruned.threshold + ROUNDING


def test_a_budget_that_the_threshold_meets_changes_nothing():
    tokens = torch.rand(6, 4, 1, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1
    free = prune_tokens(tokens, threshold=0.5)
    bound = prune_tokens(tokens, threshold=0.5, max_tokens=int(free.keep_mask.sum()))
    assert bound.threshold == 0.5
    assert torch.equal(bound.keep_mask, free.keep_mask)


def test_a_budget_is_used_up_where_tokens_differ_enough_to_be_ranked():
    # 9 of 10 frames repeat the first, each with its own constant added: every threshold separates some of them.
    tokens = torch.zeros(10, 1, 1, 3, 4, 4) + torch.tensor([0.0, *(0.9**k for k in range(9))]).view(-1, 1, 1, 1, 1, 1)
    for budget in range(2, 10):
        assert budget - 1 <= int(prune_tokens(tokens, threshold=0.0, max_tokens=budget).keep_mask.sum()) <= budget


def test_the_budget_of_black_beside_white_is_met():
    tokens = (torch.arange(8) % 2 * 2.0 - 1).view(-1, 1, 1, 1, 1, 1).expand(8, 3, 4, 3, 4, 4)
    pruned = prune_tokens(tokens, threshold=0.1, peak_threshold=0.2, max_tokens=3)
    assert int(pruned.keep_mask.sum()) == 3


def test_slow_change_drifts_away_under_the_published_rule_but_not_under_the_anchor():
    # The reason for the default: each step is below the threshold, all of them together are the whole range.
    ramp = torch.linspace(-1, 1, 41).view(-1, 1, 1, 1, 1, 1).expand(41, 2, 4, 3, 4, 4)
    previous, anchor = prune_tokens(ramp, "previous", 0.1), prune_tokens(ramp, "anchor", 0.1)
    assert int(previous.keep_mask.sum()) == 2
    assert previous.worst_error == pytest.approx(2.0, abs=1e-5)
    assert anchor.worst_error <= 0.1 + ROUNDING
    assert 10 < int(anchor.keep_mask[:, 0].sum()) < 41


def test_the_peak_guard_keeps_a_small_bright_block_that_the_mean_misses():
    tokens = torch.full((2, 2, 4, 3, 14, 14), -1.0)
    tokens[1, 0, 2, :, :7, :7] = -0.4  # 1/16 of the token: its mean moves by 0.0375
    assert not prune_tokens(tokens, threshold=0.1).keep_mask[1].any()
    assert prune_tokens(tokens, threshold=0.1, peak_threshold=0.3).keep_mask[1].tolist() == [True, False]


def test_blocks_are_the_quarters_of_each_patch():
    tokens = torch.arange(2 * 3 * 4 * 4.0).reshape(1, 1, 2, 3, 4, 4)
    blocks = split_blocks(tokens, 2)
    assert blocks.shape == (1, 1, 8, 12)
    assert torch.equal(blocks[0, 0, 5], tokens[0, 0, 1, :, :2, 2:].flatten())


def test_no_pruning_keeps_all():
    tokens = torch.zeros(3, 2, 1, 3, 4, 4)
    pruned = prune_tokens(tokens, "none")
    assert pruned.keep_mask.all()
    assert pruned.worst_error == 0
    assert torch.equal(reconstruct(tokens, pruned), tokens)


def test_an_unknown_rule_is_named():
    with pytest.raises(ValueError, match="'nearest'"):
        prune_tokens(torch.zeros(1, 1, 1, 3, 2, 2), "nearest")


@pytest.mark.parametrize(("rule", "budget"), [("anchor", 3), ("previous", 0), ("none", 11)])
def test_a_budget_that_no_threshold_meets_is_an_error(rule, budget):
    with pytest.raises(ValueError, match=str(budget)):
        prune_tokens(torch.zeros(3, 4, 1, 3, 2, 2), rule, max_tokens=budget)
