# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The floor under a run: its arithmetic and its bytes, over what this machine reaches with nothing else to do."""

from __future__ import annotations

from typing import Any

import torch

from benchmarks.end_to_end.cases import NEW_TOKENS, PATCH_SIZE, Widths
from benchmarks.timing import seconds

MATRIX_SIDE, MEGABYTES, TRIES = 2048, 256, 5


def rates(dtype: str, threads: int) -> dict[str, float]:
    """The best of some tries: operations a second of a matrix product, and bytes a second read from memory."""
    torch.set_num_threads(threads)
    matrix = torch.randn(MATRIX_SIDE, MATRIX_SIDE, dtype=getattr(torch, dtype))
    memory = torch.ones(MEGABYTES * 2**20 // 4)
    product = min(seconds(lambda: matrix @ matrix) for _ in range(TRIES + 1))
    reading = min(seconds(memory.sum) for _ in range(TRIES + 1))
    return {"operations_per_s": 2 * MATRIX_SIDE**3 / product, "bytes_per_s": memory.nbytes / reading}


def encoder_operations(run: dict[str, Any], widths: Widths) -> float:
    """Of all patches that a run encodes, frames apart, and of projecting what is kept."""
    width, inner = widths.vision["hidden_size"], widths.vision["intermediate_size"]
    of_a_patch = 2 * 3 * PATCH_SIZE**2 * width + widths.layers * (8 * width**2 + 4 * width * inner)
    attention = widths.layers * 4 * width * run["encoded_pairs"]
    text = widths.text["hidden_size"]
    return run["encoded_patches"] * of_a_patch + attention + run["visual_tokens"] * 2 * (width + text) * text


def text_weights(widths: Widths) -> int:
    """Weights of the language model's layers, its small vectors left out."""
    text = widths.text
    width, heads = text["hidden_size"], text["num_attention_heads"]
    attention = 2 * width**2 * (1 + text["num_key_value_heads"] / heads)
    return round(widths.layers * (attention + 3 * width * text["intermediate_size"]))


def prompt_operations(prompt_tokens: int, widths: Widths, vocabulary: int) -> float:
    """Of the language model's pass through a prompt: each token sees those before it, and the last one is scored."""
    width = widths.text["hidden_size"]
    attention = widths.layers * 2 * width * prompt_tokens**2
    return 2 * text_weights(widths) * prompt_tokens + attention + 2 * vocabulary * width


def step_bytes(prompt_tokens: int, widths: Widths, vocabulary: int, item: int) -> float:
    """Read from memory for one more token: the weights, and keys and values of the prompt."""
    text = widths.text
    width = text["hidden_size"]
    cached = 2 * width * text["num_key_value_heads"] / text["num_attention_heads"] * widths.layers * prompt_tokens
    return item * (text_weights(widths) + vocabulary * width + cached)


def floor(run: dict[str, Any], widths: Widths, vocabulary: int, dtype: str, rate: dict[str, float]) -> dict[str, float]:
    """Seconds to the first and the 32nd token below which no code can come that computes the same at these rates.

    Args:
        run: of `measuring.ask`; only its counts are read.
        rate: of `rates`.
    """
    item = getattr(torch, dtype).itemsize
    operations = encoder_operations(run, widths) + prompt_operations(run["prompt_tokens"], widths, vocabulary)
    first = operations / rate["operations_per_s"]
    step = step_bytes(run["prompt_tokens"], widths, vocabulary, item) / rate["bytes_per_s"]
    return {"operations": operations, "first_token_s": first, "last_token_s": first + (NEW_TOKENS - 1) * step}
