# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Frames to patches and back: sizes, resizing, the order of patches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers.models.video_llama_3.image_processing_pil_video_llama_3 import VideoLlama3ImageProcessorPil

from hub_model.media_omniv_med import window_ct
from hub_model.visual_processing_omniv_med import (
    frames_to_tokens,
    patchify,
    resize_frames,
    to_uint8,
    token_grid,
    unpatchify,
)

modest = settings(max_examples=60)
sides = st.integers(1, 4)


@modest
@given(st.integers(1, 3), sides, sides, st.integers(1, 3), st.integers(1, 5))
def test_patches_go_back_to_the_frames_they_came_from(count, rows, columns, merge, patch):
    frames = torch.randn(count, 3, rows * merge * patch, columns * merge * patch)
    tokens = patchify(frames, patch, merge)
    assert tokens.shape == (count, rows * columns, merge**2, 3, patch, patch)
    assert torch.equal(unpatchify(tokens, rows, columns), frames)


@pytest.mark.parametrize("merge", [1, 2])
def test_patches_lie_in_the_order_of_video_llama_3(merge):
    image = np.random.default_rng(0).integers(0, 256, (84, 56, 3), dtype=np.uint8)
    theirs = VideoLlama3ImageProcessorPil(patch_size=14, merge_size=merge)(image, return_tensors="pt", do_resize=False)
    tokens = patchify(resize_frames(image[None], 84, 56), 14, merge)
    assert theirs["image_grid_thw"].tolist() == [[1, 6, 4]]
    assert torch.allclose(tokens.flatten(0, 2).flatten(1), theirs["pixel_values"], atol=1e-6)


def test_a_token_is_a_square_of_the_frame():
    frames = torch.arange(16.0 * 16).view(1, 1, 16, 16)
    token = patchify(frames, 4, 2)[0, 3]  # the second of the second row
    assert torch.equal(token[1, 0], frames[0, 0, 8:12, 12:16])  # its upper right patch


@settings(max_examples=100)
@given(st.floats(1, 5000), st.floats(1, 5000), st.sampled_from([8, 28]), st.integers(1, 64), st.integers(0, 1000))
def test_a_token_grid_stays_within_its_bounds_and_keeps_the_shape(height, width, token_size, least, more):
    most = least + more
    rows, columns = token_grid(height, width, token_size, least, most)
    assert rows >= 1
    assert columns >= 1
    assert rows * columns <= most
    wanted = min(max(height * width / token_size**2, least), most)
    # Off by less than one row and one column from the shape that it stands for, unless a side is at its end.
    scale = (wanted / (height * width)) ** 0.5
    assert rows == 1 or columns == 1 or (abs(rows - height * scale) <= 1.5 and abs(columns - width * scale) <= 1.5)


@pytest.mark.parametrize(
    ("shape", "bounds", "grid"),
    [
        ((224, 224), (16, 1024), (8, 8)),
        ((512, 256), (16, 16), (6, 2)),
        ((28, 28), (16, 16), (4, 4)),
        ((1, 5000), (1, 9), (1, 9)),
        ((4000, 3000), (1, 1), (1, 1)),
    ],
)
def test_token_grids_of_common_frames(shape, bounds, grid):
    rows, columns = token_grid(*shape, 28, *bounds)
    assert rows * columns <= bounds[1]
    if shape != (512, 256):
        assert (rows, columns) == grid
    else:
        assert (rows, columns) in {(6, 2), (5, 3)}


@modest
@given(st.integers(0, 255), sides, sides, st.integers(1, 40), st.integers(1, 40))
def test_a_frame_of_one_grey_stays_that_grey_at_any_size(value, height, width, new_height, new_width):
    resized = resize_frames(np.full((1, height, width, 3), value, dtype=np.uint8), new_height, new_width)
    assert resized.shape == (1, 3, new_height, new_width)
    assert torch.allclose(resized, torch.tensor(value / 127.5 - 1), atol=1e-5)


def test_many_frames_are_resized_as_each_alone():
    frames = np.random.default_rng(0).integers(0, 256, (37, 10, 12, 3), dtype=np.uint8)
    together = resize_frames(frames, 8, 16)
    assert torch.equal(together, torch.cat([resize_frames(frame[None], 8, 16) for frame in frames]))


def test_resizing_stays_in_range_and_leaves_the_input_alone():
    frames = (np.indices((20, 20)).sum(0) % 2 * 255).astype(np.uint8)[None, ..., None].repeat(3, axis=-1)
    before = frames.copy()
    resized = resize_frames(frames, 9, 33)
    assert resized.abs().max() <= 1
    assert np.array_equal(frames, before)


@pytest.mark.filterwarnings("error")
def test_frames_that_may_not_be_written_to_or_lie_backwards_are_read():
    frames = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    locked = frames.copy()
    locked.flags.writeable = False  # as Pillow gives them
    assert torch.equal(resize_frames(locked, 8, 8), resize_frames(frames, 8, 8))
    assert torch.equal(resize_frames(frames[::-1, :, ::-1], 8, 8), resize_frames(frames, 8, 8).flip(0, 3))


def test_every_grey_comes_back_from_its_normalised_value():
    frames = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, axis=-1)
    assert np.array_equal(to_uint8(resize_frames(frames, 16, 16)), frames)


# Resizing beside its references

SIZES = [(233, 197, 224, 196), (512, 512, 448, 448), (20, 24, 9, 33), (7, 5, 56, 84), (3, 40, 40, 1), (1, 1, 5, 7)]


@pytest.mark.parametrize("resample", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", SIZES)
def test_resizing_is_that_of_torch_with_antialiasing(size, resample):
    """In double precision, as torch computes the places of the pixels in single precision otherwise: hence the two."""
    height, width, new_height, new_width = size
    frames = np.random.default_rng(0).integers(0, 256, (3, height, width, 3), dtype=np.uint8)
    found = resize_frames(frames, new_height, new_width, resample)
    for precision, tolerance in ((torch.float64, 1e-6), (torch.float32, 1e-4)):
        planar = torch.from_numpy(frames).permute(0, 3, 1, 2).to(precision)
        expected = torch.nn.functional.interpolate(planar, size[2:], mode=resample, antialias=True) / 127.5 - 1
        assert (found - expected.clamp(-1, 1)).abs().max() < tolerance


def test_resizing_is_that_of_pillow_but_for_its_rounding():
    picture = np.random.default_rng(0).integers(0, 256, (90, 70, 3), dtype=np.uint8)
    theirs = np.asarray(Image.fromarray(picture).resize((56, 84), Image.Resampling.BILINEAR))
    assert np.abs(to_uint8(resize_frames(picture[None], 84, 56))[0].astype(int) - theirs).max() <= 1


@pytest.mark.parametrize("channels", ["grey", "colour", "windows"])
def test_tokens_are_the_patches_of_the_resized_frames(channels):
    """Also of more frames than are worked on at a time, and of grey ones, which hold one channel three times."""
    generator = np.random.default_rng(0)
    colours = generator.integers(0, 256, (40, 120, 150, 3), dtype=np.uint8)
    planar = np.moveaxis(np.ascontiguousarray(np.moveaxis(colours, -1, 0)), 0, -1)
    frames = {"colour": colours, "windows": planar, "grey": np.broadcast_to(colours[..., :1], colours.shape)}[channels]
    expected = patchify(resize_frames(np.array(frames, order="C"), 84, 112), 14, 2)
    assert torch.equal(frames_to_tokens(frames, 3, 4, 14, 2), expected)
    assert torch.equal(patchify(resize_frames(frames, 84, 112), 14, 2), expected)


def test_windows_of_ct_are_resized_each_by_itself():
    """They clip, so what is resized first and windowed then is another picture."""
    hounsfield = np.zeros((1, 8, 8), np.int16)
    hounsfield[0, :, ::2] = 1000
    after = resize_frames(window_ct(hounsfield), 4, 4)
    before = torch.from_numpy(hounsfield)[None].float()
    before = torch.nn.functional.interpolate(before, (4, 4), mode="bilinear", antialias=True)
    early = window_ct(before[0].numpy()).astype(np.float32) / 127.5 - 1
    assert np.abs(after.numpy()[0, 2] - early[0, ..., 2]).max() > 0.5
