# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""What was computed for a conversation and is used again in its next turn: encoded media and the key-value cache."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import DynamicCache
from transformers.cache_utils import CacheLayerMixin

from demo.service.pruning_settings import PruningSettings

_numbers = itertools.count(1)


@dataclass(frozen=True)
class EncodedMedium:
    """A medium as the language model takes it.

    Attributes:
        text: its text in the prompt, position labels and placeholders.
        features: (kept tokens, hidden), the projected visual tokens.
        tokens, tokens_unpruned: how many tokens it takes in the prompt, and would take without pruning.
        number: stands for its visual tokens in `ConversationCache.sequence`; no two media share one.
    """

    text: str
    features: torch.Tensor
    tokens: int
    tokens_unpruned: int
    number: int = field(default_factory=lambda: next(_numbers))


@dataclass
class ConversationCache:
    """What was computed for a conversation.

    Attributes:
        keys_and_values: the language model's key-value cache.
        sequence: int64 (length,), the tokens that it holds; those of a medium are minus the medium's number.
        encoded: the media, by their key and the pruning settings.
    """

    keys_and_values: DynamicCache
    sequence: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    encoded: dict[tuple[str, PruningSettings], EncodedMedium] = field(default_factory=dict)

    @classmethod
    def empty(cls, text_config: Any) -> ConversationCache:
        """A cache for the language model of that configuration."""
        return cls(DynamicCache(config=text_config))

    @property
    def bytes(self) -> int:
        """The size of all tensors."""
        layers = [layer for layer in self.keys_and_values.layers if isinstance(layer, CacheLayerMixin)]
        tensors = [tensor for layer in layers for tensor in (layer.keys, layer.values) if tensor is not None]
        return sum(tensor.nbytes for tensor in (*tensors, *(item.features for item in self.encoded.values())))

    @property
    def is_consistent(self) -> bool:
        """Whether `sequence` describes `keys_and_values`; it does not after a failure in the middle of a step."""
        return len(self.sequence) == self.keys_and_values.get_seq_length()

    def keep_shared(self, sequence: npt.NDArray[np.int64]) -> int:
        """Cuts the cache down to the beginning that it shares with `sequence`; returns that length."""
        length = min(len(self.sequence), len(sequence))
        differs = np.flatnonzero(self.sequence[:length] != sequence[:length])
        shared = int(differs[0]) if len(differs) else length
        try:
            self.keys_and_values.crop(shared - len(self.sequence))
        except RuntimeError:  # a language model with sliding windows cannot go back beyond them
            self.keys_and_values.reset()
            shared = 0
        self.sequence = self.sequence[:shared]
        return shared
