# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""What pruning saves of a model's work on one clip, estimated from the model's configuration alone.

Counted are the multiplications and additions of the matrix products (two per weight and token, and the two products of
attention, over all pairs), which is how torch.utils.flop_counter counts and nearly all there is. The question's tokens
and the output head are left out: they are the same with and without pruning.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Cost:
    """The work for one clip.

    Attributes:
        encoder: floating-point operations of the vision encoder and the projector.
        language: floating-point operations of the language model's prefill.
        cache: bytes of its key-value cache.
    """

    encoder: int
    language: int
    cache: int

    @property
    def compute(self) -> int:
        """Floating-point operations until the first word."""
        return self.encoder + self.language


def language_flops(config: Any, tokens: int) -> int:
    """Operations of the prefill of `tokens` tokens; `config` is that of a decoder with gated feed-forward layers."""
    heads, hidden = config.num_attention_heads, config.hidden_size
    head = getattr(config, "head_dim", None) or hidden // heads
    key_value_heads = getattr(config, "num_key_value_heads", None) or heads
    attention_weights = 2 * hidden * heads * head + 2 * hidden * key_value_heads * head
    weights = attention_weights + 3 * hidden * config.intermediate_size
    return config.num_hidden_layers * (2 * weights * tokens + 4 * tokens**2 * heads * head)


def cache_bytes(config: Any, tokens: int, bytes_per_value: int) -> int:
    """Bytes of the keys and values of `tokens` tokens in all layers."""
    heads = config.num_attention_heads
    head = getattr(config, "head_dim", None) or config.hidden_size // heads
    key_value_heads = getattr(config, "num_key_value_heads", None) or heads
    return 2 * config.num_hidden_layers * key_value_heads * head * bytes_per_value * tokens


def encoder_flops(config: Any, patches_per_frame: list[int]) -> int:
    """Operations of the vision encoder for frames with so many encoded patches each."""
    side, hidden, stem = config.patch_size, config.hidden_size, config.stem_channels
    if stem == 0:
        embedding = 2 * config.num_channels * side**2 * hidden
    else:
        area = ((side + 1) // 2) ** 2
        embedding = 2 * area * stem * (25 * config.num_channels + 9 * stem + hidden)
    layer = 8 * hidden**2 + 4 * hidden * config.intermediate_size
    patches = sum(patches_per_frame)
    size = config.temporal_window
    windows = [sum(patches_per_frame[start : start + size]) for start in range(0, len(patches_per_frame), size)]
    pairs = sum(window**2 for window in windows)
    return patches * embedding + config.num_hidden_layers * (patches * layer + 4 * pairs * hidden)


def projector_flops(config: Any, tokens: int) -> int:
    """Operations of the projector for so many visual tokens."""
    hidden = config.text_config.hidden_size
    return 2 * tokens * hidden * (config.vision_config.hidden_size + hidden)


def estimate(config: Any, processed: Any, stage: str, dtype: torch.dtype) -> tuple[Cost, Cost]:
    """What one `ProcessedClip` costs a model without pruning, and with it.

    Args:
        config: the model's `OmniVMedConfig`.
        processed: the clip as pruned.
        stage: "language" or "encoder", where pruning takes place.
        dtype: of the key-value cache.
    """
    area = processed.tokens.shape[2]
    kept = processed.pruned.keep_mask.sum(dim=1).tolist()
    every_patch = [processed.pruned.keep_mask.shape[1] * area] * len(kept)
    encoded = every_patch if stage == "language" else [count * area for count in kept]

    def cost(patches: list[int], visual_tokens: int, tokens: int) -> Cost:
        return Cost(
            encoder_flops(config.vision_config, patches) + projector_flops(config, visual_tokens),
            language_flops(config.text_config, tokens),
            cache_bytes(config.text_config, tokens, dtype.itemsize),
        )

    before, after = processed.tokens_before, processed.tokens_after
    return cost(every_patch, before, before), cost(encoded, sum(kept), after)
