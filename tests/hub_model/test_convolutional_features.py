# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Convolutional features beside the patches' own embeddings: each patch gets what lies at its place in its frame."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hub_model.configuration_omniv_med import OmniVMedVisionConfig
from hub_model.convolutional_features_omniv_med import FINE_CHANNELS, HEAD_CHANNELS, OmniVMedConvolutionalFeatures
from hub_model.modeling_omniv_med import OmniVMedVisionModel
from hub_model.visual_processing_omniv_med import patchify

pytestmark = pytest.mark.usefixtures("one_thread")
HIDDEN = 8
MERGE = torch.tensor([2])


@pytest.fixture(scope="module")
def features() -> OmniVMedConvolutionalFeatures:
    torch.manual_seed(0)
    return OmniVMedConvolutionalFeatures(HIDDEN).eval()


def as_patches(frames: torch.Tensor, patch_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Frames (T, 3, H, W) as the encoder takes them, with their grid."""
    pixels = patchify(frames, patch_size, 2).flatten(0, 2).flatten(1)
    return pixels, torch.tensor([[len(frames), frames.shape[2] // patch_size, frames.shape[3] // patch_size]])


@torch.no_grad()
def test_each_patch_gets_the_fine_and_the_coarse_map_at_its_place(features) -> None:
    frames = torch.rand(2, 3, 64, 96) * 2 - 1
    fine, coarse = features.maps(frames)
    assert fine.shape == (2, FINE_CHANNELS, 4, 6)
    assert coarse.shape == (2, HEAD_CHANNELS, 2, 3)
    expected = features.from_fine(fine.permute(0, 2, 3, 1))
    coarse = features.from_head(coarse.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    expected = expected.permute(0, 3, 1, 2) + nn.functional.interpolate(coarse, scale_factor=2)
    found = features(*as_patches(frames, 16), MERGE)
    torch.testing.assert_close(found, patchify(expected, 1, 2).flatten(0, 2).flatten(1))


@torch.no_grad()
@pytest.mark.parametrize("patch_size", [14, 16, 20])
def test_frames_are_shown_at_sixteen_pixels_a_patch(features, patch_size) -> None:
    frames = torch.full((1, 3, 4 * patch_size, 2 * patch_size), 0.25)
    same = torch.full((1, 3, 64, 32), 0.25)
    found = features(*as_patches(frames, patch_size), MERGE)
    torch.testing.assert_close(found, features(*as_patches(same, 16), MERGE), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_clip_gets_the_same_alone_and_among_clips_of_other_sizes(features) -> None:
    small, large = torch.rand(3, 3, 32, 32), torch.rand(1, 3, 64, 32)
    (a, grid_a), (b, grid_b) = as_patches(small, 16), as_patches(large, 16)
    together = features(torch.cat([a, b, a]), torch.cat([grid_a, grid_b, grid_a]), MERGE.expand(3))
    alone = [features(pixels, grid, MERGE) for pixels, grid in ((a, grid_a), (b, grid_b), (a, grid_a))]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_frame_of_one_patch_works(features) -> None:
    assert features(torch.zeros(1, 3 * 14 * 14), torch.ones(1, 3, dtype=torch.int64), torch.tensor([1])).shape == (1, 8)


@pytest.fixture(scope="module")
def encoder() -> OmniVMedVisionModel:
    torch.manual_seed(0)
    config = OmniVMedVisionConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        convolutional_features=True,
        initializer_range=0.2,  # through so many layers the usual 0.02 would leave nothing
    )
    return OmniVMedVisionModel(config).eval()


@torch.no_grad()
def test_the_encoder_adds_them_and_is_the_plain_one_where_they_are_zero(encoder) -> None:
    pixels, grid = as_patches(torch.rand(1, 3, 56, 56) * 2 - 1, 14)
    plain_config = OmniVMedVisionConfig(**(encoder.config.to_dict() | {"convolutional_features": False}))
    plain = OmniVMedVisionModel(plain_config).eval()
    plain.load_state_dict(encoder.state_dict(), strict=False)
    without = plain(pixels, grid, MERGE).last_hidden_state
    assert not torch.allclose(encoder(pixels, grid, MERGE).last_hidden_state, without)
    zeroed = OmniVMedVisionModel(encoder.config).eval()
    zeroed.load_state_dict(encoder.state_dict())
    for layer in (zeroed.convolutional_features.from_fine, zeroed.convolutional_features.from_head):
        nn.init.zeros_(layer.weight)
    nn.init.zeros_(zeroed.convolutional_features.from_head.bias)
    torch.testing.assert_close(zeroed(pixels, grid, MERGE).last_hidden_state, without)


@torch.no_grad()
def test_what_is_pruned_before_the_encoder_does_not_change_what_a_kept_frame_sees(encoder) -> None:
    frames = torch.rand(2, 3, 56, 56) * 2 - 1
    pixels, grid = as_patches(frames, 14)
    keep = torch.tensor([True] * 4 + [False] * 4)
    pruned = encoder(pixels, grid, MERGE, keep_mask=keep, prune_stage="encoder").last_hidden_state
    alone = encoder(*as_patches(frames[:1], 14), MERGE).last_hidden_state
    torch.testing.assert_close(pruned, alone, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_frames_that_are_pruned_whole_before_the_encoder_cost_the_network_nothing(features) -> None:
    small, large = torch.rand(3, 3, 32, 32), torch.rand(2, 3, 64, 32)
    (a, grid_a), (b, grid_b) = as_patches(small, 16), as_patches(large, 16)
    pixels, grids, merges = torch.cat([a, b]), torch.cat([grid_a, grid_b]), MERGE.expand(2)
    seen = torch.tensor([True, False, True, False, True])
    shown = []
    handle = features.stem.register_forward_pre_hook(lambda module, inputs: shown.append(len(inputs[0])))
    found = features(pixels, grids, merges, seen)
    handle.remove()
    assert sum(shown) == 3
    of_patch = seen.repeat_interleave(torch.tensor([4, 4, 4, 8, 8]))
    assert not found[~of_patch].any()
    torch.testing.assert_close(found[of_patch], features(pixels, grids, merges)[of_patch], rtol=1e-4, atol=1e-5)


def test_gradients_reach_the_network(encoder) -> None:
    pixels, grid = as_patches(torch.rand(1, 3, 28, 28) * 2 - 1, 14)
    encoder(pixels, grid, MERGE).last_hidden_state.square().sum().backward()
    assert encoder.convolutional_features.stem.weight.grad.abs().sum() > 0
    encoder.zero_grad()


def test_grey_pictures_of_one_channel_are_refused() -> None:
    with pytest.raises(ValueError, match="convolutional_features needs 3 num_channels, not 1"):
        OmniVMedVisionConfig(num_channels=1, convolutional_features=True)
