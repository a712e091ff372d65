# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Prepared pictures as another scan might have shown them: turned, moved, magnified, toned, noisy, compressed a little.

A set of a few hundred pictures comes many times in a run; without variation a model learns the pictures by heart.
Nothing is mirrored, because questions ask for sides.
"""

from __future__ import annotations

import io
import math
from dataclasses import replace

import numpy as np
import torch
from PIL import Image
from torch import nn

from hub_model.visual_processing_omniv_med import patchify, unpatchify
from train.dataset.prepared_media import CHANNELS, PreparedClip

LARGEST_TURN = 8.0
"""Degrees."""
LARGEST_SHIFT = 0.06
"""Share of a side."""
LARGEST_ZOOM = 1.15
LARGEST_GAIN, LARGEST_GAMMA = 0.1, 0.4
"""Brightness changes by up to this share, and is bent by a power of two up to this far."""
LARGEST_NOISE = 0.08
"""Standard deviation of the noise, as a share of the grey scale; half of the pictures get none."""

COMPRESSED_SHARE, LOWEST_QUALITY, HIGHEST_QUALITY = 0.3, 40, 95
"""How many pictures are compressed once more, as programs that pass them on do, and JPEG's quality then."""


def vary_picture(clip: PreparedClip, rng: np.random.Generator) -> PreparedClip:
    """A picture varied; a clip of several frames stays as it is. What comes into sight at the edges is black.

    Args:
        clip: of one frame; its mask does not depend on what the frame shows, since nothing stands before it.
    """
    frames, rows, columns = clip.grid
    if frames != 1:
        return clip
    merge = clip.merge_size
    patch = math.isqrt(clip.patches.shape[1] // CHANNELS)
    tokens = clip.patches.view(1, -1, merge**2, CHANNELS, patch, patch)
    picture = unpatchify(tokens, rows // merge, columns // merge).float() / 255
    height, width = picture.shape[2:]
    turn = math.radians(rng.uniform(-LARGEST_TURN, LARGEST_TURN))
    zoom = LARGEST_ZOOM ** rng.uniform(-1, 1)
    across, down = 2 * rng.uniform(-LARGEST_SHIFT, LARGEST_SHIFT, size=2)
    cosine, sine = math.cos(turn) / zoom, math.sin(turn) / zoom
    # Positions are shares of a half side, so a turn has to know the picture's proportions.
    matrix = torch.tensor([[cosine, -sine * height / width, across], [sine * width / height, cosine, down]])
    places = nn.functional.affine_grid(matrix[None].float(), list(picture.shape), align_corners=False)
    moved = nn.functional.grid_sample(picture, places, align_corners=False)
    gain, gamma = 1 + rng.uniform(-LARGEST_GAIN, LARGEST_GAIN), 2 ** rng.uniform(-LARGEST_GAMMA, LARGEST_GAMMA)
    toned = moved.clamp_(0, 1).pow_(gamma).mul_(gain)
    if (noise := max(rng.uniform(-LARGEST_NOISE, LARGEST_NOISE), 0.0)) > 0:
        toned += noise * torch.from_numpy(rng.standard_normal(picture.shape[2:], dtype=np.float32))
    levels = toned.mul_(255).round_().clamp_(0, 255).to(torch.uint8)
    if rng.random() < COMPRESSED_SHARE:
        levels = _compressed(levels, int(rng.integers(LOWEST_QUALITY, HIGHEST_QUALITY + 1)))
    return replace(
        clip,
        patches=patchify(levels, patch, merge).flatten(0, 2).flatten(1),
        patch_spacing=clip.patch_spacing / zoom,
    )


def _compressed(levels: torch.Tensor, quality: int) -> torch.Tensor:
    """A picture uint8 (1, 3, H, W) after it was written as JPEG and read again."""
    file = io.BytesIO()
    Image.fromarray(levels[0].permute(1, 2, 0).numpy()).save(file, "JPEG", quality=quality)
    return torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1)[None]
