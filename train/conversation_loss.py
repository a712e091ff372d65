# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The loss of the answers, computed on scored positions only and a piece at a time.

An answer of n tokens weighs √n (square averaging, InternVL 2.5, arXiv 2412.05271, "Loss Reweighting"): by tokens,
reports would leave a "yes" a twentieth of the gradient, and by answers a report would weigh no more than it.

With a vocabulary of 49,000 to 152,000 tokens, the logits of a long sequence are by far the largest tensor of a step,
and most positions (visual tokens, questions) have no label.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from hub_model.modeling_omniv_med import OmniVMedForConditionalGeneration
from train.dataset.conversations import IGNORED
from train.dataset.prepared_media import to_pixel_values
from train.packed_attention import PACKED, conversations_of
from train.pseudo_visual_tokens import FactEmbeddings

POSITIONS_AT_ONCE = 1024


def answer_weights(scored: torch.Tensor) -> torch.Tensor:
    """The weight of every scored position: 1/√n in an answer of n tokens.

    Args:
        scored: bool (length,); answers are runs of True, as a question stands before each.

    Returns:
        float32 (scored positions,).
    """
    begins = scored & ~nn.functional.pad(scored[:-1], (1, 0))
    answer = begins.cumsum(dim=0)[scored] - 1
    return torch.bincount(answer)[answer].float().rsqrt()


def summed_cross_entropy(
    head: nn.Module,
    hidden: torch.Tensor,
    labels: torch.Tensor,
    weights: torch.Tensor,
    positions_at_once: int = POSITIONS_AT_ONCE,
) -> torch.Tensor:
    """Weighted sum of the cross-entropies of (n, hidden) states with labels (n,); few logits exist at a time.

    Where there are more, each piece's logits are computed again in the backward pass.
    """

    def of(states: torch.Tensor, wanted: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        return (weights * nn.functional.cross_entropy(head(states).float(), wanted, reduction="none")).sum()

    if len(labels) <= positions_at_once:
        return of(hidden, labels, weights)
    pieces = zip(*(states.split(positions_at_once) for states in (hidden, labels, weights)), strict=True)
    return torch.stack([checkpoint(of, *piece, use_reentrant=False) for piece in pieces]).sum()


class ConversationLoss(nn.Module):
    """The model and its loss in one module, so that wrappers for several devices see the whole forward pass.

    Args:
        fact_embeddings: draws pseudo-visual tokens, where the data hold described samples.
    """

    accepts_loss_kwargs = True

    def __init__(self, model: OmniVMedForConditionalGeneration, fact_embeddings: FactEmbeddings | None = None):
        super().__init__()
        self.model, self.fact_embeddings = model, fact_embeddings

    @property
    def _no_split_modules(self) -> set[str]:
        """The layers that wrappers take as one: the encoder's and those of whatever language model there is."""
        return self.model._no_split_modules

    @property
    def config(self):
        """The model's configuration, which some engines read sizes from."""
        return self.model.config

    def forward(
        self,
        input_ids: torch.Tensor,
        labels: torch.Tensor,
        segment_ids: torch.Tensor,
        lengths: torch.Tensor,
        num_items_in_batch: torch.Tensor | int | None = None,
        pixel_values: torch.Tensor | None = None,
        pseudo_visual_facts: torch.Tensor | None = None,
        pseudo_visual_mask: torch.Tensor | None = None,
        **inputs: torch.Tensor,
    ) -> dict[str, torch.Tensor]:
        """Takes a batch as `pack` makes it.

        Args:
            labels: int64 (1, length), of each position's next token.
            segment_ids, lengths: which positions see which, see `conversations_of`.
            pseudo_visual_facts, pseudo_visual_mask: which tokens are pseudo-visual and show which facts, see `pack`.
            num_items_in_batch: labels of the whole step, over all passes and devices; None divides by this batch's.

        Returns:
            `loss`, a scalar.
        """
        if pixel_values is not None:
            inputs["pixel_values"] = to_pixel_values(pixel_values)
        if pseudo_visual_facts is not None:
            embedded = self.model.get_input_embeddings()(input_ids)
            inputs["inputs_embeds"] = embedded.masked_scatter(
                pseudo_visual_mask[..., None], self.fact_embeddings(pseudo_visual_facts).to(embedded.dtype)
            )
        if self.model.config.text_config._attn_implementation == PACKED:
            inputs["conversations"] = conversations_of(segment_ids[0], lengths)
        hidden = self.model.model(input_ids=input_ids, use_cache=False, **inputs).last_hidden_state
        scored = labels != IGNORED
        loss = summed_cross_entropy(self.model.lm_head, hidden[scored], labels[scored], answer_weights(scored[0]))
        if pixel_values is None and self.training:
            loss = loss + self._untouched_encoder(hidden)
        return {"loss": loss / (scored.sum().clamp(min=1) if num_items_in_batch is None else num_items_in_batch)}

    def _untouched_encoder(self, hidden: torch.Tensor) -> torch.Tensor:
        """Zero, by way of encoder and projector: on several devices all must take part in every step."""
        vision = self.model.config.vision_config
        patch = hidden.new_zeros(1, vision.num_channels * vision.patch_size**2, dtype=torch.float32)
        ones = torch.ones(1, dtype=torch.int64, device=hidden.device)
        tokens = self.model.model.get_image_features(patch, ones.expand(1, 3), ones, return_dict=True).pooler_output
        return 0.0 * tokens[0].sum().float()
