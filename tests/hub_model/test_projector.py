# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The projector's context: each token says where in its frame it lies and what the frame looks like, and no more."""

from __future__ import annotations

import pytest
import torch

from hub_model.configuration_omniv_med import OmniVMedConfig, OmniVMedVisionConfig
from hub_model.patch_positions_omniv_med import locate_tokens
from hub_model.projector_omniv_med import OmniVMedProjector
from tests.helpers.encoders import (
    MIXED_GRIDS,
    RAGGED_GRIDS,
    TEXT,
    VISION,
    clips,
    random_keep_mask,
    randomise,
    token_count,
)


def projector(context: bool = True) -> OmniVMedProjector:
    torch.manual_seed(0)
    config = OmniVMedConfig(text_config=TEXT, vision_config=OmniVMedVisionConfig(**VISION), projector_context=context)
    made = OmniVMedProjector(config)
    randomise(made)
    return made.requires_grad_(False)


def tokens_of(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, VISION["hidden_size"], generator=torch.Generator().manual_seed(seed))


def one_by_one(grid_thw: torch.Tensor, merge_sizes: torch.Tensor) -> tuple[list[int], list[list[float]]]:
    """The specification of `locate_tokens`, token by token."""
    frames, middles, frame = [], [], 0
    for (count, height, width), merge in zip(grid_thw.tolist(), merge_sizes.tolist(), strict=True):
        rows, columns = height // merge, width // merge
        for _ in range(count):
            for row in range(rows):
                for column in range(columns):
                    frames.append(frame)
                    middles.append([(row + 0.5) / rows, (column + 0.5) / columns])
            frame += 1
    return frames, middles


@pytest.mark.parametrize("grids", [MIXED_GRIDS, RAGGED_GRIDS])
def test_tokens_lie_row_by_row_in_their_frame(grids):
    media = clips(*grids, merge=[2] * (len(grids) - 1) + [1])
    frame, middle = locate_tokens(media["grid_thw"], media["merge_sizes"])
    frames, middles = one_by_one(media["grid_thw"], media["merge_sizes"])
    assert frame.tolist() == frames
    torch.testing.assert_close(middle, torch.tensor(middles))


def test_pruning_moves_no_token():
    media = clips(*RAGGED_GRIDS)
    kept = random_keep_mask(media)
    for every, left in zip(
        locate_tokens(media["grid_thw"], media["merge_sizes"]),
        locate_tokens(media["grid_thw"], media["merge_sizes"], kept),
        strict=True,
    ):
        assert torch.equal(every[kept], left)


def test_equal_tokens_at_two_places_are_told_apart_by_the_context_alone():
    media = clips((1, 4, 8))
    alike = tokens_of(1).expand(token_count(media), -1)
    grids = media["grid_thw"], media["merge_sizes"]
    with_context, without = projector()(alike, *grids), projector(context=False)(alike, *grids)
    assert len(without.unique(dim=0)) == 1
    assert len(with_context.unique(dim=0)) == token_count(media)


def test_a_place_means_the_same_in_frames_of_any_size():
    small, large = clips((1, 2, 2)), clips((1, 6, 6))  # the middle of one token, and of the middle one of nine
    of_place = projector().context.of_place
    made = projector()
    made.context.of_frame.weight.zero_()
    token = tokens_of(1)
    in_small = made(token, small["grid_thw"], small["merge_sizes"])
    in_large = made(token.expand(9, -1), large["grid_thw"], large["merge_sizes"])
    torch.testing.assert_close(in_large[4], in_small[0])
    assert of_place.weight.abs().sum() > 0
    assert not torch.allclose(in_large[3], in_small[0], atol=1e-3)


def test_a_token_knows_the_mean_and_the_highest_of_its_own_frame():
    media = clips((3, 4, 4), (1, 4, 6))
    tokens = tokens_of(token_count(media))
    made = projector()
    made.context.of_place.weight.zero_()
    added = made(tokens, media["grid_thw"], media["merge_sizes"]) - made.readout(tokens)
    for frame, change in zip(tokens.split([4, 4, 4, 6]), added.split([4, 4, 4, 6]), strict=True):
        whole = torch.cat([frame.mean(dim=0), frame.amax(dim=0)]) / (2 * VISION["hidden_size"]) ** 0.5
        torch.testing.assert_close(
            change, (made.context.of_frame.weight @ whole).expand_as(change), atol=1e-4, rtol=1e-4
        )


def test_clips_together_give_what_each_gives_alone_though_frames_lost_all_tokens():
    media = clips(*RAGGED_GRIDS)
    kept = random_keep_mask(media)
    kept[:48] = False  # three whole frames
    tokens, made = tokens_of(int(kept.sum())), projector()
    together = made(tokens, media["grid_thw"], media["merge_sizes"], kept)
    counts = (media["grid_thw"].prod(1) // media["merge_sizes"] ** 2).tolist()
    masks = kept.split(counts)
    alone = [
        made(part, media["grid_thw"][place, None], media["merge_sizes"][place, None], mask)
        for place, (part, mask) in enumerate(zip(tokens.split([int(m.sum()) for m in masks]), masks, strict=True))
    ]
    torch.testing.assert_close(together, torch.cat(alone))


def test_an_untrained_context_adds_nothing():
    from train.checkpoints.assemble import start_projector

    made = projector()
    start_projector(made, scale=0.1)
    media = clips(*MIXED_GRIDS)
    tokens = tokens_of(token_count(media))
    assert torch.equal(made(tokens, media["grid_thw"], media["merge_sizes"]), made.readout(tokens))


def test_gradients_are_finite_where_a_frame_lost_all_tokens():
    media = clips((2, 4, 4))
    kept = torch.tensor([False] * 4 + [True] * 4)
    tokens = tokens_of(4).requires_grad_()
    projector()(tokens, media["grid_thw"], media["merge_sizes"], kept).square().sum().backward()
    assert tokens.grad.isfinite().all()
    assert tokens.grad.abs().sum() > 0
