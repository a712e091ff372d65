# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""What words look like as visual tokens: vectors near the embeddings of the tokens that spell them, mixed and noisy.

Pre-training (`train.nano.pretrain`) brings visual tokens to the words of what is seen, several words to each token. The
language model must then know what such a vector stands for; one that only ever read spelled words cannot tell what
stands in a mixture. So words that tell a picture (`train.dataset.described_samples`) are shown to it as such vectors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

NAMES_OF_FACTS = ("measured", "counted", "graded")
"""Facts that say what a number is about; they are asked with, never asked for."""
WORD_OF_LESION = {"yes": "abnormal", "no": "normal"}
"""What a picture with or without a lesion should read like: "yes" alone would answer any question."""
FADING = 0.6
"""Weight of each token of a word against the one before it: without it, "12" and "21" would look the same."""
CONTRAST = 0.8
"""How much of what all values of a fact share is taken off each: else numbers, or left and right, look nearly alike."""
LARGEST_FOCUS = 12.0
"""Power of the random weights of a token's words at most: at 1 it says all of them, at 12 mostly one."""
LARGEST_NOISE = 0.7
"""Length of the noise that is added to a token of length 1 at most: then it points 35 degrees off."""
WRONG = 0.12
"""Share of the tokens that say what another picture would: encoders err too, and the other tokens outvote them."""
NO_WORD = -1


def word_of(fact: str, value: str) -> str:
    """The word or words that a picture with this fact should read like."""
    if fact == "lesion":
        return WORD_OF_LESION[value]
    return value.removesuffix(" mm")


def word_directions(offsets: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
    """Where words point from the centre of the embeddings.

    Args:
        offsets: (tokens, hidden), the embeddings of all tokens less the centre, word after word.
        words: int64 (tokens,), number of the word that each token belongs to, from 0 on.

    Returns:
        (words, hidden), of length 1.
    """
    counts = torch.bincount(words)
    place = torch.arange(len(words), device=words.device) - (counts.cumsum(0) - counts)[words]
    weighted = offsets * FADING ** place[:, None]
    return nn.functional.normalize(offsets.new_zeros(len(counts), offsets.shape[1]).index_add(0, words, weighted))


def word_numbers(vocabulary: Mapping[str, Sequence[str]]) -> dict[tuple[str, str], int]:
    """The place of each (fact, value) among the vectors of a vocabulary's words."""
    pairs = [(fact, value) for fact, values in vocabulary.items() for value in values]
    return {pair: number for number, pair in enumerate(pairs)}


class WordVectors(nn.Module):
    """The vector of every value that a fact can take, among the language model's input embeddings.

    Attributes:
        vectors: (words, hidden) in the order of `word_numbers`, of length 1, from the centre of the embeddings.
        centre: (hidden,), mean of all embeddings.
        loudness: their mean distance from it, a scalar.
    """

    def __init__(
        self,
        embeddings: nn.Embedding,
        tokenizer: PreTrainedTokenizerBase,
        vocabulary: Mapping[str, Sequence[str]],
    ):
        super().__init__()
        weight = embeddings.weight.detach().float()
        centre = weight.mean(dim=0)
        vectors = []
        for fact, values in vocabulary.items():
            ids = [
                torch.tensor(tokenizer(" " + word_of(fact, value), add_special_tokens=False).input_ids)
                for value in values
            ]
            numbers = torch.arange(len(ids)).repeat_interleave(torch.tensor([len(one) for one in ids]))
            directions = word_directions(weight[torch.cat(ids)] - centre, numbers.to(weight.device))
            vectors.append(nn.functional.normalize(directions - CONTRAST * directions.mean(dim=0)))
        self.register_buffer("vectors", torch.cat(vectors), persistent=False)
        self.register_buffer("centre", centre, persistent=False)
        self.register_buffer("loudness", (weight - centre).norm(dim=-1).mean(), persistent=False)

    def forward(self, told: torch.Tensor) -> torch.Tensor:
        """Visual tokens that say words, by random weights and with some noise; a few say those of another token.

        Args:
            told: int64 (tokens, words of a picture at most), numbers of the words, `NO_WORD` where there are fewer.

        Returns:
            float32 (tokens, hidden), as loud as words are.
        """
        wrong = torch.rand(len(told), 1, device=told.device) < WRONG
        told = torch.where(wrong, told[torch.randperm(len(told), device=told.device)], told)
        focus = 1 + (LARGEST_FOCUS - 1) * torch.rand(len(told), 1, device=told.device)
        weights = torch.rand(told.shape, device=told.device).masked_fill(told == NO_WORD, 0)
        weights = (weights / weights.amax(dim=1, keepdim=True)) ** focus
        said = nn.functional.normalize(torch.einsum("tw,twh->th", weights, self.vectors[told.clamp(min=0)]), dim=-1)
        noise = nn.functional.normalize(torch.randn_like(said), dim=-1)
        length = LARGEST_NOISE * torch.rand_like(said[:, :1])
        return self.centre + self.loudness * nn.functional.normalize(said + length * noise, dim=-1)
