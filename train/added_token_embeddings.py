# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Trains the embedding rows of the added tokens while the other rows stay frozen and uncopied.

PEFT's trainable tokens make a new embedding matrix in every forward pass, and a gradient of its size where the head
shares it; with 49,000 words that is 113 MB each, on a CPU longer than a layer.
"""

from __future__ import annotations

import torch
from torch import nn

from hub_model.modeling_omniv_med import OmniVMedForConditionalGeneration

NEW_ROWS_PARAMETER = "new_rows"


class EmbeddingWithNewRows(nn.Embedding):
    """An embedding whose last rows are a parameter of their own; gives the number format of the others."""

    @classmethod
    def of(cls, embedding: nn.Embedding, count: int) -> EmbeddingWithNewRows:
        """Turns an embedding into one, in place."""
        embedding.__class__ = cls
        embedding.new_rows = nn.Parameter(embedding.weight.detach()[-count:].clone())
        return embedding

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        embedded = super().forward(input)
        new = input - (self.num_embeddings - len(self.new_rows))
        rows = self.new_rows[new.clamp(min=0)].to(embedded.dtype)
        return torch.where((new >= 0).unsqueeze(-1), rows, embedded)


class HeadWithNewRows(nn.Linear):
    """A language model's head that shares the rows of its embedding, the new ones too."""

    @classmethod
    def of(cls, head: nn.Linear, embedding: EmbeddingWithNewRows) -> HeadWithNewRows:
        """Turns a head into one, in place."""
        head.__class__ = cls
        head.new_rows = embedding.new_rows
        return head

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        old = nn.functional.linear(input, self.weight[: -len(self.new_rows)])
        return torch.cat([old, nn.functional.linear(input, self.new_rows)], dim=-1)


def split_off_new_rows(model: OmniVMedForConditionalGeneration, count: int) -> None:
    """Makes the last `count` rows of the embeddings a parameter of their own, in place, in the head too if it is tied.

    An untied head keeps its rows: the added tokens are read and never written.
    """
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    tied = head.weight is embedding.weight
    EmbeddingWithNewRows.of(embedding, count)
    if tied:
        HeadWithNewRows.of(head, embedding)
