# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Turns frames into the encoder's patches and back: frame size, resizing, normalisation, patch order."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal, get_args

import numpy as np
import torch

Resample = Literal["bilinear", "bicubic"]
RESAMPLES: tuple[Resample, ...] = get_args(Resample)
"""How frames are resized, by Pillow's names."""
CUBIC_SHARPNESS = -0.5
"""The free parameter of cubic convolution (Keys, IEEE TASSP 29, 1981, equation 15), as in Pillow."""
PIXEL_MEAN = 0.5
PIXEL_STD = 0.5
"""Frames of 0…255 become [-1, 1], as SigLIP was trained."""
PIECE = 2**18
"""Pixels that are resized at a time: 1 MB of float32, so that what is made of them fits into a core's own cache."""
BAND = 28
"""Rows of a resizing matrix that are multiplied at a time."""


def token_grid(height: float, width: float, token_size: int, min_tokens: int, max_tokens: int) -> tuple[int, int]:
    """Rows and columns of merged tokens that keep a frame's shape and stay within a number of tokens.

    Args:
        height, width: size of the frame; only their ratio counts where the bounds decide.
        token_size: side of a merged token in pixels.
        min_tokens, max_tokens: bounds of rows × columns; smaller frames are enlarged to the lower one.

    Returns:
        (rows, columns), both at least 1, whose product never exceeds `max_tokens`.
    """
    wanted = min(max(height * width / token_size**2, min_tokens), max_tokens)
    scale = math.sqrt(wanted / (height * width))
    rows = min(max(round(height * scale), 1), max_tokens)
    columns = min(max(round(width * scale), 1), max_tokens)
    while rows * columns > max_tokens:
        if rows / columns > height / width:
            rows -= 1
        else:
            columns -= 1
    return max(rows, 1), max(columns, 1)


def frames_to_tokens(
    frames: np.ndarray,
    rows: int,
    columns: int,
    patch_size: int,
    merge_size: int,
    resample: Resample = "bilinear",
) -> torch.Tensor:
    """Resizes uint8 frames (T, H, W, 3) and cuts them: float32 (T, rows·columns, merge², 3, patch, patch) in [-1, 1].

    The same as `patchify` of `resize_frames`, without the resized frames ever being whole in memory.
    """
    side = patch_size * merge_size
    tokens = _empty(len(frames), rows * columns, merge_size**2, 3, patch_size, patch_size)
    for place, resized in _resize_in_pieces(frames, rows * side, columns * side, resample):
        tokens[place] = patchify(resized, patch_size, merge_size)  # one channel of a grey clip fills all three
    return tokens


def resize_frames(frames: np.ndarray, height: int, width: int, resample: Resample = "bilinear") -> torch.Tensor:
    """Resizes uint8 frames (T, H, W, 3) with antialiasing; returns float32 (T, 3, height, width) in [-1, 1].

    The weights are those of torch's `interpolate(mode=resample, antialias=True)`, from which results differ by
    rounding. They stay in floating point, because rounding to whole grey levels hides how quiet a clip is, by which
    the pruner sharpens its guard (tried on the echocardiogram of benchmarks.pruning: 91 instead of 97 % of the lesions
    survive).
    """
    resized = _empty(len(frames), 3, height, width)
    for place, part in _resize_in_pieces(frames, height, width, resample):
        resized[place] = part
    return resized


def _empty(*shape: int) -> torch.Tensor:
    """An empty float32 tensor out of NumPy, which asks Linux for large pages: filling it takes half the time."""
    return torch.from_numpy(np.empty(shape, np.float32))


def _resize_in_pieces(
    frames: np.ndarray, height: int, width: int, resample: Resample
) -> Iterator[tuple[slice, torch.Tensor]]:
    """Yields which frames, and them resized: (n, 3, height, width), or (n, 1, height, width) of grey frames.

    A few frames at a time, because what stays in the processor's cache is worked on several times as fast. Resizing is
    linear, so of three equal channels one is enough; CT has three windows in them, which clip and so do not commute
    with it.
    """
    if frames.strides[-1] == 0:  # how a `Clip` holds grey frames
        frames = frames[..., :1]
    count, old_height, old_width, channels = frames.shape
    same = (old_height, old_width) == (height, width)
    down, across = ([], []) if same else (_bands(old_height, height, resample), _bands(old_width, width, resample))
    step = max(PIECE // (old_height * old_width * channels), 1)
    for start in range(0, count, step):
        place = slice(start, min(start + step, count))
        planes = np.empty((place.stop - start, channels, old_height, old_width), np.float32)
        np.multiply(frames[place].transpose(0, 3, 1, 2), np.float32(1 / (255 * PIXEL_STD)), out=planes)
        planes -= np.float32(PIXEL_MEAN / PIXEL_STD)
        part = torch.from_numpy(planes)
        if not same:
            part = part.flatten(0, 1)
            shorter = part.new_empty(len(part), height, old_width)
            for to, of, weights in down:
                shorter[:, to] = torch.bmm(weights.expand(len(part), -1, -1), part[:, of])
            part = part.new_empty(len(part), height, width)
            for to, of, weights in across:
                part[:, :, to] = torch.bmm(shorter[:, :, of], weights.T.expand(len(part), -1, -1))
            part = part.clamp_(-1, 1).unflatten(0, (-1, channels))
        yield place, part


def _bands(size: int, new_size: int, resample: Resample) -> list[tuple[slice, slice, torch.Tensor]]:
    """The matrix that resizes one axis, in bands of rows: which of the new pixels, of which old ones, by what weights.

    The weights are a triangle, or a cubic, around the place of each new pixel, as wide as a new pixel where that is
    larger than an old one, and add up to 1 (torch's `upsample_bilinear2d_aa`, Pillow's BILINEAR and BICUBIC). They are
    zero far from a band, so a band has few old pixels, and small dense products take less time than sums of a few terms
    each.
    """
    scale = max(size / new_size, 1.0)
    kernel, reach = (_triangle, scale) if resample == "bilinear" else (_cubic, 2 * scale)
    centres = (np.arange(new_size) + 0.5) * size / new_size - 0.5
    bands = []
    for start in range(0, new_size, BAND):
        to = slice(start, min(start + BAND, new_size))
        first = max(math.ceil(centres[to.start] - reach), 0)
        of = slice(first, min(math.floor(centres[to.stop - 1] + reach), size - 1) + 1)
        weights = kernel(np.abs(np.arange(of.start, of.stop) - centres[to, None]) / scale)
        weights /= weights.sum(axis=1, keepdims=True)
        bands.append((to, of, torch.from_numpy(weights.astype(np.float32))))
    return bands


def _triangle(distances: np.ndarray) -> np.ndarray:
    """Weights of linear interpolation at distances in pixels."""
    return (1 - distances).clip(0)


def _cubic(distances: np.ndarray) -> np.ndarray:
    """Weights of cubic convolution at distances in pixels."""
    near = ((CUBIC_SHARPNESS + 2) * distances - (CUBIC_SHARPNESS + 3)) * distances**2 + 1
    far = (((distances - 5) * distances + 8) * distances - 4) * CUBIC_SHARPNESS
    return np.where(distances < 1, near, np.where(distances < 2, far, 0.0))


def patchify(frames: torch.Tensor, patch_size: int, merge_size: int) -> torch.Tensor:
    """Cuts frames (T, C, H, W), sides multiples of patch·merge, into tokens (T, N, merge², C, patch, patch)."""
    count, channels, height, width = frames.shape
    rows, columns = height // (patch_size * merge_size), width // (patch_size * merge_size)
    split = frames.reshape(count, channels, rows, merge_size, patch_size, columns, merge_size, patch_size)
    return split.permute(0, 2, 5, 3, 6, 1, 4, 7).reshape(
        count, rows * columns, merge_size**2, channels, patch_size, patch_size
    )


def unpatchify(tokens: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """Inverse of `patchify` for a grid of `rows` × `columns` tokens; returns (T, C, H, W)."""
    count, _, area, channels, patch_size, _ = tokens.shape
    merge_size = math.isqrt(area)
    split = tokens.reshape(count, rows, columns, merge_size, merge_size, channels, patch_size, patch_size)
    return split.permute(0, 5, 1, 3, 6, 2, 4, 7).reshape(
        count, channels, rows * merge_size * patch_size, columns * merge_size * patch_size
    )


def to_uint8(frames: torch.Tensor) -> np.ndarray:
    """Normalised frames (T, C, H, W) in [-1, 1] back to uint8 (T, H, W, C) for display."""
    restored = ((frames * PIXEL_STD + PIXEL_MEAN) * 255).round().clamp(0, 255).to(torch.uint8)
    return restored.permute(0, 2, 3, 1).numpy()
