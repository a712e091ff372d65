# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Pictures varied while training: other pixels of the same anatomy, and never the other side."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hub_model.visual_processing_omniv_med import patchify, unpatchify
from train.dataset.picture_variation import LARGEST_ZOOM, vary_picture
from train.dataset.prepared_media import PreparedClip

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
