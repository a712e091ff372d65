# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Trains the embeddings of the added tokens while all others stay frozen and uncopied.

PEFT's trainable tokens make a new embedding matrix in every forward pass, and a gradient of its size where the head
shares it; with 49,000 tokens that is 113 MB each, on a CPU longer than a layer.
"""

from __future__ import annotations

import torch
from torch import nn

from hub_model.modeling_omniv_med import OmniVMedForConditionalGeneration

ADDED_EMBEDDINGS_PARAMETER = "added_embeddings"


class EmbeddingWithAddedTokens(nn.Embedding):
    """An embedding whose last rows, for the added tokens, are a parameter of their own; keeps the others' dtype."""

    @classmethod
    def of(cls, embedding: nn.Embedding, count: int) -> EmbeddingWithAddedTokens:
        """Turns an embedding into one, in place."""
        embedding.__class__ = cls
        embedding.added_embeddings = nn.Parameter(embedding.weight.detach()[-count:].clone())
        return embedding

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        embedded = super().forward(input)
        added = input - (self.num_embeddings - len(self.added_embeddings))
        own = self.added_embeddings[added.clamp(min=0)].to(embedded.dtype)
        return torch.where((added >= 0).unsqueeze(-1), own, embedded)


class HeadWithAddedTokens(nn.Linear):
    """A language model's head that shares the weights of its embedding, those of the added tokens too."""

    @classmethod
    def of(cls, head: nn.Linear, embedding: EmbeddingWithAddedTokens) -> HeadWithAddedTokens:
        """Turns a head into one, in place."""
        head.__class__ = cls
        head.added_embeddings = embedding.added_embeddings
        return head

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        old = nn.functional.linear(input, self.weight[: -len(self.added_embeddings)])
        return torch.cat([old, nn.functional.linear(input, self.added_embeddings)], dim=-1)


def separate_added_token_embeddings(model: OmniVMedForConditionalGeneration, count: int) -> None:
    """Makes the last `count` embeddings a parameter of their own, in place, and in the head too if it is tied.

    An untied head stays as it is: the added tokens are read and never written.
    """
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    tied = head.weight is embedding.weight
    EmbeddingWithAddedTokens.of(embedding, count)
    if tied:
        HeadWithAddedTokens.of(head, embedding)
