# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Attention for conversations that stand behind one another in one row: each is computed by itself.

One call over the row with a mask would also compute all that the mask throws away: with eight conversations of a
hundred tokens that was 44 % of a step on a CPU. A GPU takes short conversations padded to the longest in one call
instead, because there it is the number of calls that costs.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward

from train.dataset.conversations import SHARED

PACKED = "packed"
"""Its name in transformers' attention interface."""
LONGEST_PADDED = 1024
"""Tokens of the longest conversation up to which a GPU takes all at once; beyond, padding costs more than calls."""
ALIGNED = 16
"""Lengths that the kernels with a mask want are multiples of it."""


def visible_positions(segment_ids: torch.Tensor) -> torch.Tensor:
    """Which positions each one sees: of those up to itself the shared ones and those of its own segment.

    Args:
        segment_ids: int64 (…, length), as `encode_conversation` gives them.

    Returns:
        bool (…, length, length).
    """
    return ((segment_ids[..., None, :] == SHARED) | (segment_ids[..., :, None] == segment_ids[..., None, :])).tril()


@dataclass(frozen=True)
class PackedConversation:
    """One conversation of a row.

    Attributes:
        length: of the conversation, in tokens.
        visible: bool (length, length), which of its positions (first axis) see which (second), never a later one.
        is_causal: whether each position sees all earlier ones.
    """

    length: int
    visible: torch.Tensor
    is_causal: bool

    @cached_property
    def bias(self) -> torch.Tensor:
        """0 where a position is visible and minus infinity elsewhere, bfloat16, the same in any dtype."""
        return torch.zeros_like(self.visible, dtype=torch.bfloat16).masked_fill_(~self.visible, float("-inf"))


@dataclass(frozen=True)
class PaddedConversations:
    """All conversations of a row, each padded to the longest.

    Attributes:
        place: int64 (conversations, longest), where in the row each position is.
        real: int64 (length,), where among the padded positions those of the row are, in order.
        visible: bool (conversations, 1, longest, longest), which position sees which.
    """

    place: torch.Tensor
    real: torch.Tensor
    visible: torch.Tensor

    @classmethod
    def of(cls, segment_ids: torch.Tensor, lengths: torch.Tensor) -> PaddedConversations:
        """Takes what `conversations_of` takes."""
        longest = -(-int(lengths.max()) // ALIGNED) * ALIGNED
        offset = torch.arange(longest, device=segment_ids.device)
        padded = offset >= lengths[:, None]
        place = (lengths.cumsum(0) - lengths)[:, None] + offset.minimum(lengths[:, None] - 1)
        visible = visible_positions(segment_ids[place]) & ~padded[:, None, :]
        # Every position sees itself, as the softmax over nothing is not a number.
        visible |= torch.eye(longest, dtype=torch.bool, device=segment_ids.device)
        return cls(place, (~padded).flatten().nonzero().squeeze(1), visible[:, None])


def conversations_of(
    segment_ids: torch.Tensor, lengths: torch.Tensor
) -> list[PackedConversation] | PaddedConversations:
    """The conversations of a row, one by one; on a GPU, where all are short, padded to the longest.

    Args:
        segment_ids: int64 (length,), as `encode_conversation` gives them.
        lengths: int64 (conversations,).
    """
    if segment_ids.is_cuda and len(lengths) > 1 and int(lengths.max()) <= LONGEST_PADDED:
        return PaddedConversations.of(segment_ids, lengths)
    conversations = []
    for mine in segment_ids.split(lengths.tolist()):
        is_causal = bool((mine == SHARED).all())
        conversations.append(PackedConversation(len(mine), visible_positions(mine), is_causal))
    return conversations


def packed_attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    conversations: list[PackedConversation] | PaddedConversations | None = None,
    **kwargs,
) -> tuple[torch.Tensor, None]:
    """Scaled dot-product attention on (1, heads, length, head dim); gives (1, length, heads, head dim).

    Without `conversations` it is transformers' "sdpa".
    """
    if conversations is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    groups = query.shape[1] // key.shape[1]
    key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    if isinstance(conversations, PaddedConversations):
        return _all_at_once(query, key, value, conversations, scaling, dropout), None
    # The backward pass of PyTorch's own kernel is the slower one on CPUs: 6 % of a step more.
    alone = _matrix_products if query.device.type == "cpu" else _scaled_dot_product
    # Split at once: the backward pass of one slice after another would add up as many tensors of the whole length.
    lengths = [one.length for one in conversations]
    pieces = zip(conversations, *(states.split(lengths, dim=2) for states in (query, key, value)), strict=True)
    outputs = [alone(queries, keys, values, one, scaling, dropout) for one, queries, keys, values in pieces]
    return torch.cat(outputs, dim=2).transpose(1, 2).contiguous(), None


def _all_at_once(query, key, value, row: PaddedConversations, scaling: float, dropout: float) -> torch.Tensor:
    query, key, value = (
        states[0].index_select(1, row.place.flatten()).unflatten(1, row.place.shape).transpose(0, 1)
        for states in (query, key, value)
    )
    output = nn.functional.scaled_dot_product_attention(
        query, key, value, attn_mask=row.visible, dropout_p=dropout, scale=scaling
    )
    return output.transpose(1, 2).flatten(0, 1).index_select(0, row.real)[None]


def _scaled_dot_product(query, key, value, one: PackedConversation, scaling: float, dropout: float) -> torch.Tensor:
    mask = None if one.is_causal else one.visible
    return nn.functional.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, dropout_p=dropout, is_causal=one.is_causal, scale=scaling
    )


def _matrix_products(query, key, value, one: PackedConversation, scaling: float, dropout: float) -> torch.Tensor:
    bias = one.bias.to(query.dtype).expand(query.shape[1], -1, -1)
    scores = torch.baddbmm(bias, query[0], key[0].transpose(1, 2), alpha=scaling)
    weights = nn.functional.dropout(scores.softmax(dim=-1), dropout)
    return torch.bmm(weights, value[0])[None]


AttentionInterface.register(PACKED, packed_attention_forward)
