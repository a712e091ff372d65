# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""What the pruner promises of any clip, and the cases that its rules and its guard exist for."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hub_model.pruning_noise_omniv_med import estimate_noise
from hub_model.token_differences_omniv_med import block_means
from hub_model.token_pruning_omniv_med import (
    GUARD_RATIO,
    LARGEST_DISTANCE,
    NOISE_DISTANCE,
    PRUNE_RULES,
    RULE_WORDS,
    PrunedTokens,
    StreamingPruner,
    check_rule,
    prune_tokens,
    reconstruct,
)
from tests.helpers.token_clips import clips, columns_of

pytestmark = pytest.mark.usefixtures("one_thread")

ROUNDING = 1e-6


def prune(tokens: torch.Tensor, *options, **more) -> PrunedTokens:
    return prune_tokens(tokens, *options, columns=columns_of(tokens), **more)


thresholds = st.floats(0.0, 0.6)
peaks = st.none() | st.sampled_from([LARGEST_DISTANCE, math.inf]) | st.floats(0.0, 0.8)

# Where a rule joins the invariants: `RULES` holds all that remove something by themselves; the other three say which
# of them keep the bound on the error, judge each place by itself, and show the last kept token at a place.
RULES = [rule for rule in PRUNE_RULES if rule != "none"]
BOUNDED = ["anchor", "spatial"]
AT_ONE_PLACE = ["anchor", "previous"]
LAST_KEPT = ["anchor", "previous"]
rules, bounded, at_one_place, last_kept = map(st.sampled_from, (RULES, BOUNDED, AT_ONE_PLACE, LAST_KEPT))
modest = settings(max_examples=40)


@modest
@given(clips(), at_one_place, thresholds, peaks)
def test_the_first_frame_is_all_kept(tokens, rule, threshold, peak):
    assert prune(tokens, rule, threshold, peak).keep_mask[0].all()


@modest
@given(clips(), thresholds, peaks)
def test_the_first_token_is_kept_where_neighbours_stand_for_each_other(tokens, threshold, peak):
    assert prune(tokens, "spatial", threshold, peak).keep_mask[0, 0]


@modest
@given(clips(), bounded, thresholds, peaks)
def test_every_removed_token_is_within_the_threshold_of_its_stand_in(tokens, rule, threshold, peak):
    pruned = prune(tokens, rule, threshold, peak)
    distance = (tokens - reconstruct(tokens, pruned)).abs().flatten(2).mean(-1)
    assert (distance <= threshold + ROUNDING).all()
    assert torch.allclose(distance, pruned.errors, atol=ROUNDING)
    assert pruned.worst_error <= threshold + ROUNDING


@modest
@given(clips(), bounded, thresholds, st.floats(0.0, 0.8))
def test_no_block_of_a_removed_token_is_further_from_its_stand_in_than_the_peak_threshold(
    tokens, rule, threshold, peak
):
    pruned = prune(tokens, rule, threshold, peak)
    for difference in (tokens - reconstruct(tokens, pruned)).abs():
        assert (block_means(difference) <= peak + ROUNDING).all()


@modest
@given(clips(), rules, thresholds, peaks)
def test_a_stand_in_is_a_kept_token_that_came_before(tokens, rule, threshold, peak):
    pruned = prune(tokens, rule, threshold, peak)
    own = torch.arange(pruned.keep_mask.numel()).view_as(pruned.keep_mask)
    assert pruned.keep_mask.flatten()[pruned.stand_in.flatten()].all()
    assert torch.equal(pruned.stand_in[pruned.keep_mask], own[pruned.keep_mask])
    times, places = pruned.stand_in // tokens.shape[1], pruned.stand_in % tokens.shape[1]
    assert (times <= torch.arange(len(tokens))[:, None]).all()
    if rule in AT_ONE_PLACE:
        assert (places == torch.arange(tokens.shape[1])).all()


@modest
@given(clips(), last_kept, thresholds, peaks)
def test_a_stand_in_is_the_last_kept_token_at_the_same_place_or_its_kept_background(tokens, rule, threshold, peak):
    pruned = prune(tokens, rule, threshold, peak)
    for location in range(tokens.shape[1]):
        last = 0
        for t, kept in enumerate(pruned.keep_mask[:, location].tolist()):
            last = t if kept else last
            stand_in = int(pruned.stand_in[t, location]) // tokens.shape[1]
            if stand_in != last:
                assert rule == "anchor"
                assert tokens[stand_in, location].mean() < -0.75


@modest
@given(clips(), rules, thresholds, peaks, st.sampled_from([None, 0.0, 0.02, 0.2]))
def test_a_stream_of_frames_equals_the_whole_clip(tokens, rule, threshold, peak, noise):
    whole = prune(tokens, rule, threshold, peak, noise=noise)
    stream = StreamingPruner(rule, threshold, peak, noise, columns_of(tokens))
    for t, frame in enumerate(tokens):
        decision = stream.step(frame)
        assert torch.equal(decision.keep_mask, whole.keep_mask[t])
        assert torch.equal(decision.stand_in, whole.stand_in[t])
        assert torch.equal(decision.scores, whole.scores[t])
        known = ~decision.errors.isnan()
        assert torch.equal(decision.errors[known], whole.errors[t][known])


@modest
@given(clips(min_frames=2), rules, thresholds, peaks, st.data())
def test_a_clip_judged_in_two_parts_equals_the_whole(tokens, rule, threshold, peak, data):
    cut = data.draw(st.integers(1, len(tokens) - 1))
    whole = StreamingPruner(rule, threshold, peak, columns=columns_of(tokens)).judge(tokens)
    stream = StreamingPruner(rule, threshold, peak, columns=columns_of(tokens))
    for part in zip(stream.judge(tokens[:cut]), stream.judge(tokens[cut:]), whole, strict=True):
        first, second, expected = part
        assert torch.equal(torch.cat([first, second]).nan_to_num(-1.0), expected.nan_to_num(-1.0))


@modest
@given(clips(), bounded, thresholds, peaks, st.floats(0.0, 0.3))
def test_noise_only_raises_the_threshold_and_the_bound_holds_for_the_raised_one(tokens, rule, threshold, peak, noise):
    pruned = prune(tokens, rule, threshold, peak, noise=noise)
    assert pruned.threshold >= max(threshold, NOISE_DISTANCE * noise)
    assert pruned.worst_error <= pruned.threshold + ROUNDING


@modest
@given(clips(), rules, thresholds, peaks)
def test_a_reconstruction_equals_the_original_where_it_is_kept(tokens, rule, threshold, peak):
    pruned = prune(tokens, rule, threshold, peak)
    assert torch.equal(reconstruct(tokens, pruned)[pruned.keep_mask], tokens[pruned.keep_mask])
    assert (pruned.errors[pruned.keep_mask] == 0).all()


@modest
@given(clips(), st.sampled_from([*AT_ONE_PLACE, "none"]), thresholds, peaks)
def test_one_frame_keeps_all(tokens, rule, threshold, peak):
    assert prune_tokens(tokens[:1], rule, threshold, peak).keep_mask.all()


@modest
@given(clips(), rules, thresholds, peaks)
def test_frames_that_repeat_keep_only_the_first(tokens, rule, threshold, peak):
    still = tokens[:1].expand(5, *tokens.shape[1:])
    pruned = prune(still, rule, threshold, peak)
    assert not pruned.keep_mask[1:].any()
    shown = reconstruct(still, pruned)
    assert torch.equal(shown, shown[:1].expand_as(shown))
    if rule in AT_ONE_PLACE:
        assert torch.equal(shown, still)


@modest
@given(clips(), at_one_place, thresholds, peaks)
def test_a_place_is_judged_by_itself(tokens, rule, threshold, peak):
    together = prune_tokens(tokens, rule, threshold, peak).keep_mask
    for location in range(tokens.shape[1]):
        alone = prune_tokens(tokens[:, location : location + 1], rule, threshold, peak).keep_mask
        assert torch.equal(alone[:, 0], together[:, location])


@modest
@given(clips(min_frames=2), rules, thresholds, peaks, st.data())
def test_a_prefix_of_the_frames_gives_the_prefix_of_the_mask(tokens, rule, threshold, peak, data):
    length = data.draw(st.integers(1, len(tokens)))
    whole, part = prune(tokens, rule, threshold, peak), prune(tokens[:length], rule, threshold, peak)
    assert torch.equal(part.keep_mask, whole.keep_mask[:length])
    assert torch.equal(part.stand_in, whole.stand_in[:length])
    assert torch.equal(part.scores, whole.scores[:length])


@modest
@given(clips(), rules, thresholds, peaks)
def test_a_score_above_one_is_kept_and_one_below_is_not(tokens, rule, threshold, peak):
    pruned = prune(tokens, rule, threshold, peak)
    assert not pruned.scores.isnan().any()
    clear = (pruned.scores - 1).abs() > 1e-5
    returned = ~pruned.keep_mask & clear & (pruned.scores > 1)
    assert rule == "anchor" or not returned.any()
    assert (tokens[returned].flatten(1).mean(1) < -0.75).all()  # only background that was kept before
    assert torch.equal((pruned.scores > 1)[clear & ~returned], pruned.keep_mask[clear & ~returned])


@modest
@given(clips(), rules, thresholds, peaks, st.data())
def test_a_budget_is_never_exceeded_and_only_raises_the_threshold(tokens, rule, threshold, peak, data):
    frames, locations = tokens.shape[:2]
    least = locations if rule in AT_ONE_PLACE else 1
    budget = data.draw(st.integers(least, frames * locations))
    pruned = prune(tokens, rule, threshold, peak, max_tokens=budget)
    assert least <= int(pruned.keep_mask.sum()) <= budget
    assert pruned.threshold >= threshold
    if rule in BOUNDED:
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
    assert not prune_tokens(tokens, threshold=0.1, peak_threshold=LARGEST_DISTANCE).keep_mask[1].any()
    assert prune_tokens(tokens, threshold=0.1, peak_threshold=0.3).keep_mask[1].tolist() == [True, False]


@pytest.mark.parametrize("rule", ["anchor", "spatial"])
@pytest.mark.parametrize("noise", [None, 0.004, 0.02])
def test_one_control_governs_threshold_and_guard(rule, noise):
    tokens = noisy_still(0.01) + torch.linspace(0, 1, 12).view(-1, 1, 1, 1, 1, 1)
    for threshold in (0.05, 0.1, 0.3):
        alone = prune_tokens(tokens, rule, threshold, noise=noise, columns=2)
        both = prune_tokens(tokens, rule, threshold, GUARD_RATIO * threshold, noise=noise, columns=2)
        assert torch.equal(alone.keep_mask, both.keep_mask)


def test_the_guard_at_the_default_threshold_is_the_one_that_was_measured():
    assert StreamingPruner("anchor", 0.1).peak_threshold == pytest.approx(0.3)
    assert StreamingPruner("anchor", 0.1, noise=0.0).peak_threshold == pytest.approx(0.2)
    assert StreamingPruner("anchor", 0.02, noise=0.1).peak_threshold == pytest.approx(2 * NOISE_DISTANCE * 0.1)


def grey(*rows: list[float]) -> torch.Tensor:
    """One frame of a row-by-row grid of even tokens, (1, N, 1, 3, 2, 2)."""
    return torch.tensor(rows).flatten().view(1, -1, 1, 1, 1, 1).expand(-1, -1, -1, 3, 2, 2)


def test_along_a_ramp_each_token_is_compared_with_the_kept_one_so_errors_do_not_add_up():
    pruned = prune_tokens(grey([0.0, 0.04, 0.08, 0.12, 0.5]), "spatial", 0.05, columns=5)
    assert pruned.keep_mask.tolist() == [[True, False, True, False, True]]
    assert pruned.stand_in.tolist() == [[0, 0, 2, 2, 4]]
    assert pruned.errors[0].tolist() == pytest.approx([0, 0.04, 0, 0.04, 0], abs=1e-6)


def test_of_left_above_and_between_the_nearest_stands_for_a_token():
    # left of the last token shows 0.5, above 0.3, between 0.4
    for last, stand_in in ((0.49, 2), (0.32, 1), (0.41, 0)):
        pruned = prune_tokens(grey([0.4, 0.3], [0.5, last]), "spatial", 0.05, columns=2)
        assert pruned.stand_in.tolist() == [[0, 1, 2, stand_in]]


def test_a_neighbour_may_show_what_an_earlier_frame_kept():
    tokens = torch.cat([grey([0.0, 0.6]), grey([0.02, 0.0])])
    pruned = prune_tokens(tokens, "spatial", 0.05, columns=2)
    assert pruned.keep_mask.tolist() == [[True, True], [False, False]]
    assert pruned.stand_in.tolist() == [[0, 1], [0, 0]]
    # and what a place shows is what the next frame is compared with
    again = prune_tokens(torch.cat([tokens, grey([0.02, 0.04]), grey([0.02, 0.6])]), "spatial", 0.05, columns=2)
    assert again.stand_in[2:].tolist() == [[0, 0], [0, 7]]


def test_a_small_lesion_in_an_even_picture_is_guarded_against_its_neighbours():
    tokens = torch.zeros(1, 9, 4, 3, 14, 14)
    tokens[0, 4, 2, :, :7, :7] = 0.4  # its mean differs by 0.025
    unguarded = prune_tokens(tokens, "spatial", 0.1, LARGEST_DISTANCE, columns=3)
    assert int(unguarded.keep_mask.sum()) == 1
    guarded = prune_tokens(tokens, "spatial", 0.1, columns=3)
    assert guarded.keep_mask[0].nonzero().flatten().tolist() == [0, 4]


def test_empty_background_of_a_clip_is_kept_once_wherever_it_lies():
    corner, body = -1.0, 0.5
    first = grey([corner, body, corner], [body, body, body], [corner, body, corner])
    later = grey([corner, corner, corner], [body, corner, body], [body, body, body])
    pruned = prune_tokens(torch.cat([first, later, first]), "spatial", 0.1, columns=3)
    assert pruned.keep_mask[0].nonzero().flatten().tolist() == [0, 1, 3]  # one corner, and body beside and below it
    assert not pruned.keep_mask[1:].any()
    assert (pruned.stand_in[1][later[0, :, 0, 0, 0, 0] < 0] == 0).all()
    assert pruned.worst_error == 0


@modest
@given(clips(), thresholds)
def test_rounds_give_what_going_token_by_token_does(tokens, threshold):
    tokens = tokens.clamp(min=-0.7)  # no empty background, which has a rule of its own
    columns = columns_of(tokens)
    shown, keep = {}, []
    distance = lambda one, other: float((one - other).abs().mean())  # noqa: E731
    near = lambda one, other: distance(one, other) <= threshold  # noqa: E731
    for t, frame in enumerate(tokens):
        for place, token in enumerate(frame):
            if t and near(token, shown[place]):
                keep.append(False)
                continue
            row, column = divmod(place, columns)
            sides = ((row, column - 1), (row - 1, column), (row - 1, column - 1))
            others = [shown[r * columns + c] for r, c in sides if r >= 0 and c >= 0]
            best = min(others, key=lambda other: distance(token, other), default=None)
            keep.append(best is None or not near(token, best))
            shown[place] = token if keep[-1] else best
    pruned = prune_tokens(tokens, "spatial", threshold, LARGEST_DISTANCE, columns=columns)
    assert pruned.keep_mask.flatten().tolist() == keep


@modest
@given(clips(), thresholds)
def test_the_anchor_gives_what_going_token_by_token_does(tokens, threshold):
    tokens = tokens.clamp(min=-0.7)  # no empty background, which has a rule of its own
    places = tokens.shape[1]
    kept = list(range(places))  # the last kept token of each place
    keep, stand_in = [], []
    every = tokens.flatten(0, 1)
    for number, token in enumerate(every):
        place = number % places
        keep.append(number < places or float((token - every[kept[place]]).abs().mean()) > threshold)
        if keep[-1]:
            kept[place] = number
        stand_in.append(kept[place])
    pruned = prune_tokens(tokens, "anchor", threshold, LARGEST_DISTANCE)
    assert pruned.keep_mask.flatten().tolist() == keep
    assert pruned.stand_in.flatten().tolist() == stand_in


@modest
@given(clips(), rules, thresholds, peaks)
def test_how_tokens_lie_in_memory_changes_nothing(tokens, rule, threshold, peak):
    last_is_first = tokens.movedim(-1, 0).contiguous().movedim(0, -1)
    channels_last = tokens.movedim(3, -1).contiguous().movedim(-1, 3)
    expected = prune(tokens, rule, threshold, peak)
    for laid_out in (last_is_first, channels_last):
        pruned = prune(laid_out, rule, threshold, peak)
        assert torch.equal(pruned.keep_mask, expected.keep_mask)
        assert torch.equal(pruned.stand_in, expected.stand_in)


@modest
@given(clips(), rules, thresholds, peaks)
def test_the_tokens_themselves_stay_as_they_are(tokens, rule, threshold, peak):
    before = tokens.clone()
    prune(tokens, rule, threshold, peak)
    assert torch.equal(tokens, before)


def noisy_still(sigma: float, frames: int = 12, seed: int = 0) -> torch.Tensor:
    """A still gradient picture of 4 tokens under Gaussian noise, (frames, 4, 4, 3, 14, 14); channels are equal."""
    generator = torch.Generator().manual_seed(seed)
    still = torch.linspace(-0.5, 0.5, 4 * 4 * 14 * 14).view(1, 4, 4, 1, 14, 14)
    return (still + sigma * torch.randn(frames, 4, 4, 1, 14, 14, generator=generator)).expand(-1, -1, -1, 3, -1, -1)


@pytest.mark.parametrize("sigma", [0.01, 0.05, 0.15])
def test_the_noise_of_a_still_picture_is_estimated_within_a_tenth(sigma):
    assert estimate_noise(noisy_still(sigma)) == pytest.approx(sigma, rel=0.1)


@pytest.mark.parametrize("sigma", [0.0, 0.02])
def test_neither_texture_that_stands_still_nor_smooth_motion_is_taken_for_noise(sigma):
    noise = noisy_still(sigma)
    texture = torch.randn(1, 4, 4, 1, 14, 14, generator=torch.Generator().manual_seed(5)).expand(1, -1, -1, 3, -1, -1)
    motion = torch.linspace(-1, 1, len(noise)).view(-1, 1, 1, 1, 1, 1)
    assert estimate_noise(noise + 0.3 * texture) <= 1.1 * sigma + 1e-3
    assert estimate_noise(noise + motion) <= 1.1 * sigma + 1e-3


def test_empty_pixels_do_not_hide_the_noise_of_the_others():
    tokens = noisy_still(0.05).clone()
    tokens[:, :3] = -1.0
    assert estimate_noise(tokens) == pytest.approx(0.05, rel=0.1)


def test_a_single_frame_has_no_noise_to_scale_with():
    assert estimate_noise(noisy_still(0.1, frames=1)) == 0.0


def test_frames_that_have_nothing_in_common_are_not_taken_for_noise():
    tokens = torch.rand(6, 4, 4, 3, 14, 14, generator=torch.Generator().manual_seed(2)) * 2 - 1
    assert prune_tokens(tokens, threshold=0.1, peak_threshold=0.3, noise=estimate_noise(tokens)).keep_mask.all()


def test_a_still_noisy_picture_repeats_once_the_threshold_knows_the_noise():
    tokens = noisy_still(0.15)
    assert prune_tokens(tokens, threshold=0.1, peak_threshold=0.3).keep_mask.float().mean() > 0.9
    scaled = prune_tokens(tokens, threshold=0.1, peak_threshold=0.3, noise=estimate_noise(tokens))
    assert int(scaled.keep_mask.sum()) == 4


def test_the_peak_guard_is_sharper_in_a_quiet_clip():
    tokens = torch.full((2, 1, 4, 3, 14, 14), -0.5)
    tokens[1, 0, 2, :, :7, :7] += 0.25
    for noise, kept in ((None, False), (0.0, True), (0.02, False)):
        assert bool(prune_tokens(tokens, threshold=0.1, peak_threshold=0.3, noise=noise).keep_mask[1, 0]) == kept


def test_a_finding_above_the_noise_is_still_kept():
    tokens = noisy_still(0.15).clone()
    tokens[6, 2] += 0.8
    scaled = prune_tokens(tokens, threshold=0.1, peak_threshold=0.3, noise=estimate_noise(tokens))
    assert scaled.keep_mask[6].tolist() == [False, False, True, False]


def body_that_comes_and_goes(level: float) -> torch.Tensor:
    """One token: `level`, body, `level`, body, …, 8 frames, with a little grain."""
    grain = torch.rand(8, 1, 4, 3, 14, 14, generator=torch.Generator().manual_seed(1)) * 0.02
    body = (torch.arange(8) % 2).view(-1, 1, 1, 1, 1, 1)
    return torch.where(body == 1, 0.3, level) + grain


def test_empty_background_is_kept_once_at_each_place():
    pruned = prune_tokens(body_that_comes_and_goes(-1.0), threshold=0.1, peak_threshold=0.3)
    assert pruned.keep_mask[:, 0].tolist() == [True, True] + [False] * 6
    assert pruned.stand_in[:, 0].tolist() == [0, 1] * 4
    assert pruned.worst_error <= 0.1


def test_only_dark_and_even_tokens_are_background():
    grey = prune_tokens(body_that_comes_and_goes(-0.5), threshold=0.1, peak_threshold=0.3)
    assert grey.keep_mask.all()
    dim_structure = body_that_comes_and_goes(-1.0)
    dim_structure[::2, :, :2] += 0.3  # two of four patches a little brighter
    assert prune_tokens(dim_structure, threshold=0.1, peak_threshold=0.3).keep_mask.all()


def test_the_published_rule_is_one_threshold_and_nothing_else():
    tokens = body_that_comes_and_goes(-1.0)
    plain = prune_tokens(tokens, "previous", 0.1)
    assert plain.keep_mask.all()
    assert plain.threshold == 0.1
    guarded = prune_tokens(tokens, "previous", 0.1, peak_threshold=0.0, noise=0.5)
    assert torch.equal(guarded.keep_mask, plain.keep_mask)
    assert guarded.threshold == 0.1


def test_a_stream_needs_a_rule_that_prunes():
    with pytest.raises(ValueError, match="'none'"):
        StreamingPruner("none", 0.1)


@pytest.mark.parametrize(("columns", "words"), [(None, "how many columns"), (3, "no whole number of rows")])
def test_neighbours_are_known_only_by_the_columns_of_a_frame(columns, words):
    with pytest.raises(ValueError, match=words):
        prune_tokens(torch.zeros(2, 4, 1, 3, 2, 2), "spatial", columns=columns)


def test_blocks_are_the_quarters_of_each_patch():
    tokens = torch.arange(2 * 3 * 4 * 4.0).reshape(1, 2, 3, 4, 4)
    blocks = block_means(tokens)
    assert blocks.shape == (1, 2, 4)
    assert torch.allclose(blocks[0, 1, 1], tokens[0, 1, :, :2, 2:].mean())


def test_a_patch_of_odd_width_is_one_block():
    tokens = torch.arange(2 * 3 * 5 * 5.0).reshape(1, 2, 3, 5, 5)
    assert torch.allclose(block_means(tokens), tokens.mean((2, 3, 4)).unsqueeze(2))


def test_no_pruning_keeps_all():
    tokens = torch.zeros(3, 2, 1, 3, 4, 4)
    pruned = prune_tokens(tokens, "none")
    assert pruned.keep_mask.all()
    assert pruned.worst_error == 0
    assert torch.equal(reconstruct(tokens, pruned), tokens)


def test_an_unknown_rule_is_named():
    with pytest.raises(ValueError, match=r"one of anchor, .*, not 'nearest'"):
        prune_tokens(torch.zeros(1, 1, 1, 3, 2, 2), "nearest")
    for rule in PRUNE_RULES:
        assert check_rule(rule) == rule


def test_every_rule_has_words_for_those_who_choose_one():
    assert list(RULE_WORDS) == list(PRUNE_RULES)
    assert len(set(RULE_WORDS.values())) == len(PRUNE_RULES)


@pytest.mark.parametrize(("rule", "budget"), [("anchor", 3), ("spatial", 0), ("previous", 0), ("none", 11)])
def test_a_budget_that_no_threshold_meets_is_an_error(rule, budget):
    with pytest.raises(ValueError, match=str(budget)):
        prune_tokens(torch.zeros(3, 4, 1, 3, 2, 2), rule, max_tokens=budget, columns=2)
