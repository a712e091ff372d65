# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""How much of a model's work on one clip pruning saves, estimated from the model's configuration alone.

We count the multiplications and additions of the matrix products, as torch.utils.flop_counter does: two per weight and
token, and the two products of attention over all pairs. They are nearly all there is. The question's tokens and the
output head are left out, because they cost the same with and without pruning.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, cast

import torch

from hub_model.convolutional_features_omniv_med import (
    FINE_CHANNELS,
    HEAD_CHANNELS,
    LAST_STAGE,
    PIXELS_OF_PATCH,
    STAGES,
    STEM_CHANNELS,
)
from hub_model.projector_omniv_med import OF_PLACE

if TYPE_CHECKING:
    from hub_model.configuration_omniv_med import OmniVMedConfig, OmniVMedVisionConfig, PruneStage
    from hub_model.processing_omniv_med import ProcessedClip


class DecoderConfig(Protocol):
    """What a language model's configuration says of its size; `head_dim` and `num_key_value_heads` are optional."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int


@dataclass(frozen=True)
class Cost:
    """The work for one clip.

    Attributes:
        encoder: floating-point operations of the vision encoder and the projector.
        language: floating-point operations of the language model's prefill.
        cache: bytes of the key-value cache.
    """

    encoder: int
    language: int
    cache: int

    @property
    def compute(self) -> int:
        """Floating-point operations until the first word."""
        return self.encoder + self.language


def _head_sizes(config: DecoderConfig) -> tuple[int, int]:
    """Width of an attention head, and how many heads have keys and values of their own."""
    heads = config.num_attention_heads
    head_dim: int = getattr(config, "head_dim", None) or config.hidden_size // heads
    key_value_heads: int = getattr(config, "num_key_value_heads", None) or heads
    return head_dim, key_value_heads


def language_flops(config: DecoderConfig, tokens: int) -> int:
    """Operations for the prefill of `tokens` tokens by a decoder with gated feed-forward layers."""
    heads, hidden = config.num_attention_heads, config.hidden_size
    head_dim, key_value_heads = _head_sizes(config)
    attention_weights = 2 * hidden * heads * head_dim + 2 * hidden * key_value_heads * head_dim
    weights = attention_weights + 3 * hidden * config.intermediate_size
    return config.num_hidden_layers * (2 * weights * tokens + 4 * tokens * tokens * heads * head_dim)


def cache_bytes(config: DecoderConfig, tokens: int, bytes_per_value: int) -> int:
    """Bytes of the keys and values of `tokens` tokens in all layers of a decoder."""
    head_dim, key_value_heads = _head_sizes(config)
    return 2 * config.num_hidden_layers * key_value_heads * head_dim * bytes_per_value * tokens


def encoder_flops(config: OmniVMedVisionConfig, patches_per_frame: list[int]) -> int:
    """Operations of the vision encoder, given how many patches of each frame it encodes."""
    side, hidden, stem = config.patch_size, config.hidden_size, config.stem_channels
    if stem == 0:
        embedding = 2 * config.num_channels * side**2 * hidden
    else:
        area = ((side + 1) // 2) * ((side + 1) // 2)
        embedding = 2 * area * stem * (25 * config.num_channels + 9 * stem + hidden)
    layer = 8 * hidden**2 + 4 * hidden * config.intermediate_size
    patches = sum(patches_per_frame)
    size = config.temporal_window
    windows = [sum(patches_per_frame[start : start + size]) for start in range(0, len(patches_per_frame), size)]
    pairs = sum(window**2 for window in windows)
    return patches * embedding + config.num_hidden_layers * (patches * layer + 4 * pairs * hidden)


def convolutional_flops(config: OmniVMedVisionConfig, patches: int) -> int:
    """Operations of the encoder's convolutional features; 0 without them.

    Args:
        patches: all those of each frame of which any is encoded, for they see whole frames.
    """
    if not config.convolutional_features:
        return 0
    area = PIXELS_OF_PATCH**2 / 4  # places of a patch in the maps
    of_patch, channels = 2 * area * 27 * STEM_CHANNELS, STEM_CHANNELS
    for count, kernel_size, first_stride, expansion, new_channels in (*STAGES, LAST_STAGE):
        for place in range(count):
            wide = channels * expansion
            of_patch += 2 * area * channels * wide if expansion > 1 else 0
            area /= 1 if place else first_stride**2
            of_patch += 2 * area * wide * (kernel_size**2 + new_channels)
            channels = new_channels
    of_patch += 2 * area * HEAD_CHANNELS * (channels + config.hidden_size) + 2 * FINE_CHANNELS * config.hidden_size
    return round(patches * of_patch)


def projector_flops(config: OmniVMedConfig, tokens: int, frames: int) -> int:
    """Operations of the projector for `tokens` visual tokens, which lie in so many frames."""
    vision, language = cast("OmniVMedVisionConfig", config.vision_config), cast(DecoderConfig, config.text_config)
    of_token, of_frame = vision.hidden_size + language.hidden_size, 0
    if config.projector_context:
        of_token, of_frame = of_token + OF_PLACE, 2 * vision.hidden_size
    return 2 * language.hidden_size * (tokens * of_token + frames * of_frame)


def estimate(
    config: OmniVMedConfig, processed: ProcessedClip, stage: PruneStage, dtype: torch.dtype
) -> tuple[Cost, Cost]:
    """What a clip costs the model, first without pruning and then with it.

    Args:
        config: the model's.
        processed: the pruned clip.
        stage: the model's argument `prune_stage`.
        dtype: the key-value cache's.
    """
    # The configuration completes its parts when it is made; its annotations do not say so.
    vision, language = cast("OmniVMedVisionConfig", config.vision_config), cast(DecoderConfig, config.text_config)
    area = processed.tokens.shape[2]
    kept = processed.pruned.keep_mask.sum(dim=1).tolist()
    every = [processed.pruned.keep_mask.shape[1]] * len(kept)
    every_patch = [count * area for count in every]
    encoded = every_patch if stage == "language" else [count * area for count in kept]

    def cost(patches: list[int], tokens_of_frames: list[int], tokens: int) -> Cost:
        seen = sum(whole for whole, count in zip(every_patch, patches, strict=True) if count)
        return Cost(
            encoder_flops(vision, patches)
            + convolutional_flops(vision, seen)
            + projector_flops(config, sum(tokens_of_frames), sum(map(bool, tokens_of_frames))),
            language_flops(language, tokens),
            cache_bytes(language, tokens, dtype.itemsize),
        )

    before, after = processed.tokens_before, processed.tokens_after
    return cost(every_patch, every, before), cost(encoded, kept, after)
