# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Tiny seeded encoders, random patches for them, and what the encoder means: each window by itself."""

from __future__ import annotations

from typing import Any

import torch

from hub_model.configuration_omniv_med import OmniVMedVisionConfig
from hub_model.modeling_omniv_med import (
    OmniVMedVisionModel,
)
from hub_model.patch_positions_omniv_med import ClipPatches

PATCH = 4
VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "patch_size": PATCH,
    "initializer_range": 0.2,
}
MEDIA_TOKEN_ID, VIDEO_TOKEN_ID = 5, 6
TEXT = {
    "model_type": "qwen2",
    "vocab_size": 60,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.2,
}
MIXED_GRIDS = ((1, 4, 6), (1, 2, 2), (1, 6, 4), (1, 4, 6))
RAGGED_GRIDS = ((30, 8, 8), (1, 4, 6), (7, 2, 2))
Inputs = dict[str, torch.Tensor]


def clips(*grids: tuple[int, int, int], merge: int | list[int] = 2, seed: int = 0) -> Inputs:
    """Random patches of clips with these grids (frames, rows, columns)."""
    grid_thw = torch.tensor(grids)
    pixels = torch.randn(int(grid_thw.prod(1).sum()), 3 * PATCH**2, generator=torch.Generator().manual_seed(seed))
    merges = torch.tensor([merge] * len(grids) if isinstance(merge, int) else merge)
    return {"pixel_values": pixels, "grid_thw": grid_thw, "merge_sizes": merges}


def token_count(inputs: Inputs) -> int:
    return int((inputs["grid_thw"].prod(1) // inputs["merge_sizes"] ** 2).sum())


def random_keep_mask(inputs: Inputs, share: float = 0.5, seed: int = 1) -> torch.Tensor:
    return torch.rand(token_count(inputs), generator=torch.Generator().manual_seed(seed)) < share


def randomise(model: torch.nn.Module) -> None:
    """Moves every parameter, biases and norms too, so that none can be mixed up unseen."""
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)


def encoder(**changes: Any) -> OmniVMedVisionModel:
    """A tiny seeded encoder; equal sizes have equal weights, whatever else changes."""
    torch.manual_seed(0)
    model = OmniVMedVisionModel._from_config(OmniVMedVisionConfig(**(VISION | changes)))
    randomise(model)
    return model.eval()


@torch.no_grad()
def encode(model: OmniVMedVisionModel, inputs: Inputs, **more: torch.Tensor) -> torch.Tensor:
    return model(**inputs, **more).last_hidden_state


@torch.no_grad()
def encode_windows_one_by_one(
    model: OmniVMedVisionModel, inputs: Inputs, keep_mask: torch.Tensor | None = None
) -> torch.Tensor:
    """The specification: each window by itself, z counted through the whole clip, pruned patches taken out."""
    window, tokens, patch_start, token_start = model.config.temporal_window, [], 0, 0
    for (frames, rows, columns), merge in zip(inputs["grid_thw"].tolist(), inputs["merge_sizes"].tolist(), strict=True):
        for first in range(0, frames, window):
            count = min(window, frames - first)
            patches = inputs["pixel_values"][patch_start : patch_start + count * rows * columns]
            z, y, x = torch.meshgrid(
                torch.arange(first, first + count), torch.arange(rows), torch.arange(columns), indexing="ij"
            )
            positions = torch.stack([z, y, x], dim=-1).reshape(count, rows // merge, merge, columns // merge, merge, 3)
            positions = positions.transpose(2, 3).reshape(-1, 3)
            per_window = len(patches) // merge**2
            if keep_mask is not None:
                kept = keep_mask[token_start : token_start + per_window].repeat_interleave(merge**2)
                patches, positions = patches[kept], positions[kept]
            if len(patches):
                hidden = model.encoder(model.embeddings(patches)[None], model.rotary_pos_emb(positions[None]))
                tokens.append(model.post_layernorm(hidden[0]).view(-1, merge**2, hidden.shape[-1]).mean(1))
            patch_start += count * rows * columns
            token_start += per_window
    return torch.cat(tokens)


def patch_positions(grid_thw: torch.Tensor, *arguments: Any) -> torch.Tensor:
    """The positions of all patches; arguments as of `ClipPatches`."""
    return ClipPatches(grid_thw, *arguments).positions(torch.arange(int(grid_thw.prod(dim=1).sum())))
