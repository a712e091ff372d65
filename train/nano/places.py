# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Starts the places of visual tokens at the words for them: a token on the left begins as a little "left".

The language model copies what it reads long before it learns what a new direction of its input means.
"""

from __future__ import annotations

import torch
from transformers import PreTrainedTokenizerFast

from hub_model.modeling_omniv_med import OmniVMedForConditionalGeneration
from hub_model.projector_omniv_med import WAVES

ENDS = (("upper", "lower"), ("left", "right"))
"""Of the coordinates down and across: the words for where each begins and ends."""
STRENGTH = 1.5
"""Times half the difference of both words' embeddings, at an edge of the frame; up to half of a word's length."""


@torch.no_grad()
def start_places(model: OmniVMedForConditionalGeneration, tokenizer: PreTrainedTokenizerFast) -> None:
    """Sets the slowest wave of each coordinate, whose cosine falls from 1 to -1 across the frame, in place.

    Args:
        model: with `projector_context`.
        tokenizer: its own.
    """
    embeddings = model.get_input_embeddings().weight

    def meaning(word: str) -> torch.Tensor:
        spelt = [tokenizer(start + word, add_special_tokens=False).input_ids for start in ("", " ")]
        return torch.stack([embeddings[tokens].mean(dim=0) for tokens in spelt]).mean(dim=0)

    weight = model.model.projector.context.of_place.weight
    for coordinate, (first, last) in enumerate(ENDS):
        weight[:, coordinate * 2 * WAVES] = STRENGTH * (meaning(first) - meaning(last)) / 2
