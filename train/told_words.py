# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""What a word looks like as a visual token: one vector, near the embeddings of the tokens that spell the word.

Pre-training (`train.pretrain`) brings visual tokens to the words of what is seen. The language model must then know
what such a vector stands for; one that only ever read spelled words cannot tell "contrast arriving and washing out"
from its mean. So words that tell a picture (`train.data.worded`) are shown to it as such vectors, with some noise.
"""

from __future__ import annotations

import torch
from torch import nn

FADING = 0.6
"""Weight of each token of a word against the one before it: without it, "12" and "21" would look the same."""
LARGEST_NOISE = 1.0
"""Length of the noise that is added to a word of length 1 at most: then it points 45 degrees off."""


def centre_and_loudness(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean (hidden,) of embeddings (vocabulary, hidden), and their mean distance from it."""
    weight = weight.detach().float()
    centre = weight.mean(dim=0)
    return centre, (weight - centre).norm(dim=-1).mean()


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


def as_visual_tokens(embeddings: nn.Embedding, embedded: torch.Tensor, told: torch.Tensor) -> torch.Tensor:
    """Embeddings in which every token of a told word is the word's vector with noise of its own.

    Args:
        embedded: (1, length, hidden), the embedded text.
        told: int64 (1, length), number of the told word that a token belongs to, from 1 on, 0 for none.

    Returns:
        (1, length, hidden), the other tokens unchanged.
    """
    centre, loudness = centre_and_loudness(embeddings.weight)
    at = told[0] > 0
    words = told[0][at] - 1
    offsets = embedded[0][at].float() - centre
    directions = word_directions(offsets, words)[words]
    noise = nn.functional.normalize(torch.randn_like(offsets), dim=-1)
    length = LARGEST_NOISE * torch.rand_like(offsets[:, :1])
    shown = centre + loudness * nn.functional.normalize(directions + length * noise, dim=-1)
    return embedded.masked_scatter(at[None, :, None], shown.to(embedded.dtype))
