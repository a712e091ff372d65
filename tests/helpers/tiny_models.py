# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Sizes of the tiny models that tests build, and the options of the processor that fits them."""

from __future__ import annotations

PATCH_SIZE = 4
# All options, so that no test depends on a default.
PROCESSOR_OPTIONS = {
    "patch_size": PATCH_SIZE,
    "merge_size": 2,
    "min_frame_tokens": 4,
    "max_frame_tokens": 12,
    "max_frames": 64,
    "fps": 1.0,
    "prune_rule": "anchor",
    "prune_threshold": 0.1,
    "peak_threshold": None,
    "keep_ratio": None,
    "max_visual_tokens": None,
}
TINY_VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "patch_size": PATCH_SIZE,
    # Ten times the usual: with small random weights every answer would be the same, whatever the picture.
    "initializer_range": 0.2,
}
TINY_TEXT = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "initializer_range": 0.3,
}
