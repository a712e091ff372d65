# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Pictures varied while training: other pixels of the same anatomy, and never the other side."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hub_model.pruning_noise_omniv_med import estimate_noise
from hub_model.token_pruning_omniv_med import prune_tokens
from hub_model.visual_processing_omniv_med import patchify, unpatchify
from train.dataset.picture_variation import LARGEST_NOISE, LARGEST_ZOOM, vary_picture
from train.dataset.prepared_media import PreparedClip, prune_picture

PATCH, MERGE = 14, 2


def clip_of(picture: torch.Tensor, spacing: float = 1.0) -> PreparedClip:
    """A clip of frames (T, 3, H, W), uint8."""
    frames, _, height, width = picture.shape
    tokens = patchify(picture, PATCH, MERGE)
    return PreparedClip(
        patches=tokens.flatten(0, 2).flatten(1),
        keep_mask=torch.ones(tokens.shape[:2], dtype=torch.bool),
        labels=("",) * frames,
        grid=(frames, height // PATCH, width // PATCH),
        merge_size=MERGE,
        frame_positions=torch.arange(frames, dtype=torch.float32),
        patch_spacing=spacing,
    )


def pixels(clip: PreparedClip) -> torch.Tensor:
    frames, rows, columns = clip.grid
    tokens = clip.patches.view(frames, -1, MERGE**2, 3, PATCH, PATCH)
    return unpatchify(tokens, rows // MERGE, columns // MERGE)


def spot(height: int, width: int, top: float, left: float) -> torch.Tensor:
    """A dark picture with a bright disc whose centre lies at these shares of its sides."""
    down, across = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    inside = (down - top * height).square() + (across - left * width).square() < (0.1 * min(height, width)) ** 2
    return (40 + 200 * inside).to(torch.uint8).expand(1, 3, height, width).contiguous()


@given(
    rows=st.integers(2, 8), columns=st.integers(2, 8), right=st.booleans(), low=st.booleans(), seed=st.integers(0, 999)
)
@settings(max_examples=40, deadline=None)
def test_what_lies_on_one_side_stays_there(rows, columns, right, low, seed):
    side = PATCH * MERGE
    top, left = (0.7 if low else 0.3), (0.7 if right else 0.3)
    picture = spot(rows * side, columns * side, top, left)
    varied = pixels(vary_picture(clip_of(picture), np.random.default_rng(seed)))[0, 0].float()
    bright = (varied > 0.6 * varied.max()).nonzero().float().mean(dim=0)
    assert (bright[0] > rows * side / 2) == low
    assert (bright[1] > columns * side / 2) == right


def test_the_same_draw_gives_the_same_picture_and_another_draw_another():
    clip = clip_of(spot(112, 168, 0.4, 0.6))
    one, same, other = (vary_picture(clip, np.random.default_rng(seed)).patches for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_the_shape_stays_and_millimetres_follow_the_magnification():
    clip = clip_of(spot(112, 168, 0.4, 0.6), spacing=2.0)
    varied = vary_picture(clip, np.random.default_rng(3))
    assert varied.grid == clip.grid
    assert varied.patches.shape == clip.patches.shape
    assert varied.patches.dtype == torch.uint8
    assert varied.patch_spacing != 2.0
    assert 2.0 / LARGEST_ZOOM <= varied.patch_spacing <= 2.0 * LARGEST_ZOOM


def test_a_clip_of_several_frames_stays_as_it_is():
    clip = clip_of(spot(56, 56, 0.3, 0.3).expand(4, 3, 56, 56).contiguous())
    assert vary_picture(clip, np.random.default_rng(0)) is clip


def test_half_of_the_pictures_get_noise_the_same_in_all_channels():
    grey = clip_of(torch.full((1, 3, 112, 112), 128, dtype=torch.uint8))
    centres = [pixels(vary_picture(grey, np.random.default_rng(seed)))[0, :, 28:84, 28:84] for seed in range(100)]
    assert all(torch.equal(centre[0], channel) for centre in centres for channel in centre)
    noise = np.array([centre[0].float().std() / 255 for centre in centres])
    assert 30 < np.count_nonzero(noise > 0.002) < 70
    assert noise.max() <= 1.1 * LARGEST_NOISE


def test_a_picture_is_pruned_as_the_processor_would_with_the_rule_spatial():
    picture = spot(112, 168, 0.4, 0.6)
    pruned = prune_picture(clip_of(picture), threshold=0.1)
    tokens = patchify(picture.float() / 127.5 - 1, PATCH, MERGE)
    expected = prune_tokens(tokens, "spatial", 0.1, noise=estimate_noise(tokens), columns=6).keep_mask
    assert torch.equal(pruned.keep_mask, expected)
    assert 0 < pruned.keep_mask.sum() < expected.numel() / 2, "the empty background is kept once"
    clip = clip_of(picture.expand(4, 3, 112, 168).contiguous())
    assert prune_picture(clip, threshold=0.1) is clip
