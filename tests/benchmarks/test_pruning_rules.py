# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Other engines' pruning rules, each on an example that was worked out by hand or with its own source."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.pruning_rules import embeddings, pixels
from benchmarks.pruning_rules.outcome import Outcome, dropped, last_kept, merged


def rows(outcome: Outcome) -> str:
    """The mask as text, one group of digits a frame."""
    return "|".join("".join(str(int(one)) for one in frame) for frame in outcome.keep_mask.tolist())


def directions(*degrees: float) -> torch.Tensor:
    """Unit vectors in a plane, (len, 2)."""
    angles = torch.tensor(degrees) * math.pi / 180
    return torch.stack([angles.cos(), angles.sin()], dim=-1)


def values(*frames: list[float]) -> torch.Tensor:
    """Tokens of one grey pixel each, (T, N, 1)."""
    return torch.tensor(frames).unsqueeze(-1)


@pytest.mark.parametrize(("pruned", "mask"), [(0.25, "11|01|10"), (0.5, "11|00|10"), (0.7, "11|00|00")])
def test_evs_keeps_what_changed_most_over_the_whole_clip(pruned, mask) -> None:
    clip = torch.tensor([[[1.0, 0], [0, 1]], [[1, 0], [1, 1]], [[0, 1], [1, 1]]])
    assert rows(embeddings.evs(clip, int(6 * (1 - pruned)))) == mask


@pytest.mark.parametrize(("pruned", "mask"), [(0.5, "100|101"), (0.66, "000|101")])
def test_vidcom2_gives_frames_that_stand_out_more_tokens(pruned, mask) -> None:
    loud = 9 * torch.tensor([[[1, -1], [-1, 1], [1, 1]], [[-1, -1], [1, -1], [-1, 1]]]).float()
    clip = torch.cat([directions(0, 5, 12, 3, 20, 60).view(2, 3, 2), loud], dim=-1)
    assert rows(embeddings.vidcom2(clip, pruned)) == mask


def test_pixelprune_predicts_along_a_row() -> None:
    row = values([0, 0.04, 0.08, 0.12, 0.5])
    assert rows(pixels.pixelprune(row, 5, 0.05)) == "10101"
    assert rows(pixels.pixelprune(row, 5, 0.05, anchored=False)) == "10001"
    assert rows(pixels.pixelprune(row, 5, 0.0)) == "11111"


def test_pixelprune_predicts_from_above_where_left_and_corner_agree() -> None:
    grid = values([0.0, 0, 1, 0, 0, 1, 1, 1, 1])
    assert pixels.pixelprune(grid, 3, 0.0).keep_mask.flatten().nonzero().flatten().tolist() == [0, 2, 6]


@settings(deadline=None)
@given(st.integers(0, 10**6), st.floats(0, 0.3))
def test_anchored_pixelprune_bounds_every_pixel_by_the_threshold(seed, threshold) -> None:
    tokens = torch.rand(2, 12, 3, generator=torch.Generator().manual_seed(seed)).mul(8).round().div(8)
    outcome = pixels.pixelprune(tokens, 4, threshold)
    assert (outcome.reconstruct(tokens) - tokens).abs().max() <= threshold
    assert outcome.keep_mask.flatten()[outcome.stand_in.flatten()].all()


def test_medpruners_filter_keeps_slices_that_left_the_last_kept_one() -> None:
    slices = torch.tensor([0, 0.03, 0.06, 0.08, 0.2]).view(5, 1, 1).expand(5, 4, 2)
    assert pixels.medpruner_slices(slices).tolist() == [True, False, True, False, True]


def test_medpruner_keeps_the_mass_of_attention_and_merges_the_rest() -> None:
    received = torch.tensor([[2.5, 1.0, 0.3, 0.2]])
    keys = directions(0, 90, 40, 45).unsqueeze(0)
    outcome = embeddings.medpruner_tokens(received, keys, mass=0.8)
    assert outcome.keep_mask.tolist() == [[True, True, True, False]]
    assert outcome.stand_in.tolist() == [[0, 1, 2, 2]]
    assert outcome.shares.tolist() == [[1, 1, 0.5, 0.5]]


def test_videollama3_compares_grey_levels_with_the_frame_before() -> None:
    clip = values([0.0, 0.0], [0.0003, 0.0005], [0.0003, 0.0005])
    assert rows(pixels.videollama3(clip)) == "11|01|10"


def test_the_previous_frame_lets_slow_change_drift_away() -> None:
    clip = values([0.0], [0.08], [0.16], [0.24])
    outcome = pixels.previous_frame(clip)
    assert outcome.keep_mask.flatten().tolist() == [True, False, False, False]
    assert float((outcome.reconstruct(clip) - clip).abs().max()) == pytest.approx(0.24)


def test_fastvid_cuts_where_frames_differ_and_at_the_least_similar() -> None:
    angles = [0.0]
    for similarity in (0.95, 0.85, 0.97, 0.99):
        angles.append(angles[-1] + math.degrees(math.acos(similarity)))
    assert embeddings.fastvid_segments(directions(*angles), segments=2) == [2, 3]


def test_fastvid_shares_its_context_tokens_over_a_segment() -> None:
    generator = torch.Generator().manual_seed(0)
    clip = torch.rand(6, 196, 8, generator=generator)
    saliency = torch.rand(6, 196, generator=generator)
    outcome = embeddings.fastvid(clip, torch.ones(6, 4), saliency, kept_of_frame=19, segments=1)
    assert (outcome.keep_mask.sum(dim=1) - 12).tolist() == [0, 21, 0, 0, 0, 21]
    sums = torch.zeros(6 * 196).index_add_(0, outcome.stand_in.flatten(), outcome.shares.flatten())
    assert torch.allclose(sums[outcome.keep_mask.flatten()], torch.ones(outcome.kept))


def test_a_context_token_of_fastvid_weighs_more_than_what_joins_it() -> None:
    # Five tokens a frame: three salient, one context token, which is 0.6 of itself and 0.4 of the mean of the others.
    clip = directions(0, 30, 60, 90, 91, 92, 93).unsqueeze(0)
    saliency = torch.tensor([[9.0, 8, 7, 0, 0, 0, 0]])
    outcome = embeddings.fastvid(clip, torch.ones(1, 2), saliency, kept_of_frame=5, segments=1)
    assert outcome.kept == 5
    joined = ~outcome.keep_mask
    pick = outcome.stand_in[joined].unique()
    shown = torch.full((1, 7, 1), 5.0)
    shown.view(-1)[pick] = 10.0
    assert outcome.reconstruct(shown).flatten()[pick].tolist() == pytest.approx([8.0] * len(pick))


def test_visionzip_averages_the_rest_into_strided_targets() -> None:
    received = torch.tensor([[0.4, 0.1, 0.3, 0.05, 0.15]])
    keys = directions(0, 90, 0, 90, 90).unsqueeze(0)
    outcome = embeddings.visionzip(received, keys, dominant=2, contextual=1)
    assert rows(outcome) == "11100"
    shown = outcome.reconstruct(torch.tensor([[[9.0], [2.0], [9.0], [4.0], [6.0]]]))
    assert shown.flatten().tolist() == pytest.approx([9, 4, 9, 4, 4])


def test_divprune_takes_the_loneliest_token_first() -> None:
    outcome = embeddings.divprune(directions(0, 10, 60, 115).unsqueeze(0), kept=3)
    assert rows(outcome) == "1011"


def test_cdpruner_weighs_diversity_by_the_question() -> None:
    cosines = torch.tensor([[-0.2, -0.3, -0.1, -0.4]])
    assert rows(embeddings.cdpruner(directions(0, 10, 60, 115).unsqueeze(0), cosines, kept=2)) == "0101"


def test_uniform_sampling_cuts_the_places_to_whole_numbers() -> None:
    outcome = pixels.uniform_frames(8, 1, 4)
    assert outcome.keep_mask.flatten().nonzero().flatten().tolist() == [0, 2, 4, 7]


def test_random_tokens_keep_the_first_frame_and_the_number() -> None:
    outcome = pixels.random_tokens(5, 4, 9, torch.Generator().manual_seed(1))
    assert outcome.keep_mask[0].all()
    assert outcome.kept == 9


def test_a_dropped_token_is_shown_as_the_kept_one_most_like_it() -> None:
    keep = torch.tensor([[True, True, False]])
    assert dropped(keep, directions(0, 90, 80).unsqueeze(0)).stand_in.tolist() == [[0, 1, 1]]


def test_the_last_kept_token_at_its_place_stands_for_a_removed_one() -> None:
    keep = torch.tensor([[True, True], [False, True], [False, False]])
    assert last_kept(keep).stand_in.tolist() == [[0, 1], [0, 3], [0, 3]]


def test_only_tokens_that_join_count_in_an_average() -> None:
    keep = torch.tensor([[True, False, False]])
    outcome = merged(keep, torch.zeros(1, 3, dtype=torch.long), torch.tensor([[False, True, False]]))
    assert outcome.shares.tolist() == [[0.5, 0.5, 0.0]]
