# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Pseudo-visual tokens: embeddings that stand in for an image whose facts are known, without any pixels.

Pre-training (`train.nano.pretrain`) aligns visual tokens with the text embeddings of what an image shows, several facts
per token. The language model must then read such mixtures, which it cannot learn from text alone. So it trains on
pseudo-visual tokens (`train.dataset.described_samples`): random, noisy mixtures of the embeddings of an image's facts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

QUALIFYING_FACTS = ("measured", "counted", "graded")
"""Facts that only say what a number refers to; questions use them, and none asks for them."""
LESION_TEXT = {"yes": "abnormal", "no": "normal"}
"""The text of a present or absent lesion: "yes" alone would answer any question."""
TOKEN_DECAY = 0.6
"""Weight of each token of a text against the one before it: with equal weights, "12" and "21" would look the same."""
MEAN_REMOVED = 0.8
"""Share of a fact's mean direction that is subtracted from each of its values: else numbers, or left and right, look
nearly alike."""
MAX_FOCUS = 12.0
"""Largest power of a token's random mixture weights: at 1 the token mixes all facts, at 12 it shows mostly one."""
MAX_NOISE = 0.7
"""Largest length of the noise that is added to a direction of length 1; it turns the direction by up to 35 degrees."""
SWAPPED_SHARE = 0.12
"""Share of the tokens that show the facts of another image: encoders err too, and the other tokens outvote them."""
NO_FACT = -1
"""Padding where an image has fewer facts than others."""


def text_of_fact(fact: str, value: str) -> str:
    """The text whose embedding represents a fact of an image."""
    if fact == "lesion":
        return LESION_TEXT[value]
    return value.removesuffix(" mm")


def value_directions(offsets: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Directions of values from the centre of the embeddings.

    Args:
        offsets: (tokens, hidden), the embeddings of all tokens less the centre, value after value.
        values: int64 (tokens,), index of the value that each token belongs to, from 0 on.

    Returns:
        (values, hidden), of length 1.
    """
    counts = torch.bincount(values)
    place = torch.arange(len(values), device=values.device) - (counts.cumsum(0) - counts)[values]
    weighted = offsets * TOKEN_DECAY ** place[:, None]
    return nn.functional.normalize(offsets.new_zeros(len(counts), offsets.shape[1]).index_add(0, values, weighted))


def fact_indices(vocabulary: Mapping[str, Sequence[str]]) -> dict[tuple[str, str], int]:
    """The index of each (fact, value) among the directions of a vocabulary."""
    pairs = [(fact, value) for fact, values in vocabulary.items() for value in values]
    return {pair: index for index, pair in enumerate(pairs)}


class FactEmbeddings(nn.Module):
    """The direction of every value that a fact can take, among the language model's input embeddings.

    Attributes:
        directions: (values, hidden) in the order of `fact_indices`, of length 1, from the centre of the embeddings.
        centre: (hidden,), mean of all embeddings.
        embedding_norm: their mean distance from it, a scalar.
    """

    directions: torch.Tensor
    centre: torch.Tensor
    embedding_norm: torch.Tensor

    def __init__(
        self,
        embeddings: nn.Embedding,
        tokenizer: PreTrainedTokenizerBase,
        vocabulary: Mapping[str, Sequence[str]],
    ):
        super().__init__()
        weight = embeddings.weight.detach().float()
        centre = weight.mean(dim=0)
        directions = []
        for fact, values in vocabulary.items():
            ids = [
                torch.tensor(tokenizer(" " + text_of_fact(fact, value), add_special_tokens=False).input_ids)
                for value in values
            ]
            indices = torch.arange(len(ids)).repeat_interleave(torch.tensor([len(one) for one in ids]))
            of_fact = value_directions(weight[torch.cat(ids)] - centre, indices.to(weight.device))
            directions.append(nn.functional.normalize(of_fact - MEAN_REMOVED * of_fact.mean(dim=0)))
        self.register_buffer("directions", torch.cat(directions), persistent=False)
        self.register_buffer("centre", centre, persistent=False)
        self.register_buffer("embedding_norm", (weight - centre).norm(dim=-1).mean(), persistent=False)

    def forward(self, facts: torch.Tensor) -> torch.Tensor:
        """Draws pseudo-visual tokens: randomly weighted, noisy mixtures of facts; a few show those of another token.

        Args:
            facts: int64 (tokens, facts of an image at most), indices of the facts, `NO_FACT` where there are fewer.

        Returns:
            float32 (tokens, hidden), at the distance from the centre that embeddings have on average.
        """
        swapped = torch.rand(len(facts), 1, device=facts.device) < SWAPPED_SHARE
        facts = torch.where(swapped, facts[torch.randperm(len(facts), device=facts.device)], facts)
        focus = 1 + (MAX_FOCUS - 1) * torch.rand(len(facts), 1, device=facts.device)
        weights = torch.rand(facts.shape, device=facts.device).masked_fill(facts == NO_FACT, 0)
        weights = (weights / weights.amax(dim=1, keepdim=True)) ** focus
        mixed = nn.functional.normalize(
            torch.einsum("tf,tfh->th", weights, self.directions[facts.clamp(min=0)]), dim=-1
        )
        noise = nn.functional.normalize(torch.randn_like(mixed), dim=-1)
        length = MAX_NOISE * torch.rand_like(mixed[:, :1])
        return self.centre + self.embedding_norm * nn.functional.normalize(mixed + length * noise, dim=-1)
