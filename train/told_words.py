# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Makes the words that tell a picture look like visual tokens to the language model.

Pre-training (`train.pretrain`) brings a visual token near the mean embedding of a fact's tokens, as loud as words are.
So must a told word be: one vector, on all of its places, in a random direction a little off. A language model that only
reads spelled words cannot tell afterwards what the mean of "contrast arriving and washing out" stands for.
"""

from __future__ import annotations

import torch
from torch import nn

LARGEST_NOISE = 1.0
"""Length of the noise that is added to a word of length 1 at most: then it points 45 degrees off."""


def as_visual_tokens(embeddings: nn.Embedding, embedded: torch.Tensor, told: torch.Tensor) -> torch.Tensor:
    """Embeddings in which each told word is one noisy vector.

    Args:
        embedded: (1, length, hidden), the embedded text.
        told: int64 (1, length), number of the told word that a token belongs to, 0 for none.

    Returns:
        (1, length, hidden); unchanged where no word is told.
    """
    weight = embeddings.weight.detach().float()
    centre = weight.mean(dim=0)
    loudness = (weight - centre).norm(dim=-1).mean()
    at = told[0] > 0
    words = told[0][at] - 1
    counts = torch.bincount(words)
    offsets = embedded[0][at].float() - centre
    directions = offsets.new_zeros(len(counts), offsets.shape[1]).index_add(0, words, offsets)
    directions = nn.functional.normalize(directions, dim=-1)[words]
    noise = nn.functional.normalize(torch.randn_like(offsets), dim=-1)
    length = LARGEST_NOISE * torch.rand_like(offsets[:, :1])
    shown = centre + loudness * nn.functional.normalize(directions + length * noise, dim=-1)
    return embedded.masked_scatter(at[None, :, None], shown.to(embedded.dtype))
