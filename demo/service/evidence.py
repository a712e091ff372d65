# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Where a model's attention lay when it chose the words of an answer. A hint, not an explanation.

The attention weights are averaged over heads and layers. They say where the model looked, not what it made of it: a
token can have a high weight for other reasons (Jain and Wallace, "Attention is not Explanation", NAACL 2019).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import BatchFeature, PreTrainedModel

if TYPE_CHECKING:
    from hub_model.configuration_omniv_med import PruneStage
    from hub_model.modeling_omniv_med import OmniVMedForConditionalGeneration
    from hub_model.processing_omniv_med import ProcessedClip


LARGEST_ATTENTION = 1 << 28
"""Bytes of attention weights in memory at once; longer answers go through the model in several pieces."""


@dataclass(frozen=True)
class Evidence:
    """The attention of an answer's words on the visual tokens of a conversation.

    Attributes:
        words: the words of the answer, without spaces.
        weights: float32 (words, kept visual tokens of all media), the mean attention of a word's tokens; the rest of
            its attention lay on text.
    """

    words: tuple[str, ...]
    weights: npt.NDArray[np.float32]

    def on_tokens(self, chosen: Sequence[int], media: Sequence[ProcessedClip]) -> list[npt.NDArray[np.float32]]:
        """Mean attention of chosen words on every token of every medium; a removed token has that of its stand-in.

        Args:
            chosen: indices of words; an empty sequence means all words.
            media: the clips that the inputs were made of, in their order.

        Returns:
            For each medium float32 (frames, rows, columns), on one scale for the whole conversation.
        """
        rows = list(chosen) or list(range(len(self.words)))
        mean = self.weights[rows].mean(axis=0)
        maps, start = [], 0
        for processed in media:
            keep = processed.pruned.keep_mask.cpu().numpy()
            of_kept = np.zeros(keep.shape, dtype=np.float32)
            end = start + int(keep.sum())
            of_kept[keep] = mean[start:end]
            spread = of_kept.ravel()[processed.pruned.stand_in.cpu().numpy()]
            maps.append(spread.reshape(len(keep), *processed.grid))
            start = end
        return maps


def group_words(tokenizer: Any, token_ids: Sequence[int]) -> list[tuple[str, list[int]]]:
    """Splits an answer into words at its spaces.

    Returns:
        For each word its text and the places of its tokens in `token_ids`; tokens without text (the end of the
        answer) belong to no word.
    """
    groups: list[list[int]] = []
    text = ""
    for place, token in enumerate(token_ids):
        if token in tokenizer.all_special_ids:
            continue
        before, text = text, tokenizer.decode(token_ids[: place + 1], skip_special_tokens=True)
        added = text[len(before) :]
        if added.isspace():
            continue
        # A token that adds nothing completes a letter whose first bytes are in the token before it.
        if not groups or added[:1].isspace() or (added and before[-1:].isspace()):
            groups.append([])
        groups[-1].append(place)
    return [(tokenizer.decode([token_ids[place] for place in group]).strip(), group) for group in groups]


@torch.inference_mode()
def attention_evidence(
    model: OmniVMedForConditionalGeneration,
    tokenizer: Any,
    inputs: BatchFeature,
    answer_ids: Sequence[int],
    stage: PruneStage | None = None,
) -> Evidence:
    """Runs the prompt and the answer through the model once more and reads its attention.

    The attention that chose a token is that of the position before it.

    Args:
        model: answers other visitors meanwhile; it is not changed.
        tokenizer: the processor's.
        inputs: the processor's inputs for one conversation with media in it, up to the answer.
        answer_ids: the answer's token ids.
        stage: the model's argument `prune_stage`.

    Raises:
        ValueError: without an answer, without a medium, or for several conversations.
    """
    words = group_words(tokenizer, answer_ids)
    if not words:
        raise ValueError("There is no answer yet; ask about a file first.")
    if "pixel_values" not in inputs or len(inputs["input_ids"]) != 1:
        raise ValueError("Evidence is shown for one conversation about a file; load one and ask about it.")
    tensors = {name: tensor.to(model.device) for name, tensor in inputs.items()}
    prompt = tensors.pop("input_ids")
    tensors.pop("attention_mask", None)  # one conversation has no padding
    placeholders = (prompt[0, :-1] == model.config.image_token_id).nonzero().squeeze(1)

    before = model(input_ids=prompt[:, :-1], prune_stage=stage, use_cache=True, logits_to_keep=1, **tensors)
    cache = before.past_key_values
    answer = torch.tensor([answer_ids], device=prompt.device)
    choosing = torch.cat([prompt[:, -1:], answer[:, :-1]], dim=1)  # the positions whose outputs are the answer
    language = _with_eager_attention(model.model.language_model)
    text = model.config.get_text_config()
    row_bytes = text.num_hidden_layers * text.num_attention_heads * (prompt.shape[1] + choosing.shape[1]) * 4
    rows = []
    for piece in torch.split(choosing, max(LARGEST_ATTENTION // row_bytes, 1), dim=1):
        outputs = language(
            inputs_embeds=language.get_input_embeddings()(piece),
            past_key_values=cache,
            use_cache=True,
            output_attentions=True,
        )
        cache = outputs.past_key_values
        layers = [weights[0, :, :, placeholders].float().mean(dim=0) for weights in outputs.attentions]
        rows.append(torch.stack(layers).mean(dim=0))
    of_tokens = torch.cat(rows).cpu().numpy()
    return Evidence(tuple(word for word, _ in words), np.stack([of_tokens[places].mean(axis=0) for _, places in words]))


def _with_eager_attention(module: PreTrainedModel) -> PreTrainedModel:
    """A copy of a model, on the same weights, whose attention returns its weights; takes milliseconds.

    Only the backend "eager" returns them. The model itself keeps its configuration, on which other requests rely.
    """
    weights = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    other = copy.deepcopy(module, memo=weights)
    other.set_attn_implementation("eager")
    return other
