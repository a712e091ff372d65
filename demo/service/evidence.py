# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Where a model's attention lay when it chose the words of an answer. A hint, not an explanation.

Attention is averaged over heads and layers, as it stands. It says where the model looked, not what it made of it: high
weights can lie on a token for other reasons (Jain and Wallace, "Attention is not Explanation", NAACL 2019).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from demo.service.stage import at_stage, twin

LARGEST_ATTENTION = 1 << 28
"""Bytes of attention weights that are held at once; longer answers go through the model in several pieces."""


@dataclass(frozen=True)
class Evidence:
    """The attention of an answer's words on the visual tokens of a conversation.

    Attributes:
        words: the answer, word by word, spaces left out.
        weights: float32 (words, kept visual tokens of all media), mean attention of a word's tokens; the rest of the
            attention of a word lay on text.
    """

    words: tuple[str, ...]
    weights: np.ndarray

    def on_tokens(self, chosen: Sequence[int], media: Sequence[Any]) -> list[np.ndarray]:
        """Mean attention of chosen words on every token of every medium; a removed token has its stand-in's.

        Args:
            chosen: indices of words; none of them means all.
            media: the `ProcessedClip`s that the inputs were made of, in their order.

        Returns:
            For each medium float32 (frames, rows, columns), all weights of one conversation on one scale.
        """
        rows = list(chosen) or list(range(len(self.words)))
        mean = self.weights[rows].mean(axis=0)
        maps, start = [], 0
        for processed in media:
            keep = processed.pruned.keep_mask.cpu().numpy()
            of_kept = np.zeros(keep.shape, dtype=np.float32)
            end = start + int(keep.sum())
            of_kept[keep] = mean[start:end]
            spread = np.take_along_axis(of_kept, processed.pruned.stand_in.cpu().numpy(), axis=0)
            maps.append(spread.reshape(len(keep), *processed.grid))
            start = end
        return maps


def group_words(tokenizer: Any, token_ids: Sequence[int]) -> list[tuple[str, list[int]]]:
    """Splits an answer into words at its spaces.

    Returns:
        For each word its text and the places of its tokens in `token_ids`; tokens without a text (the end of the
        answer) belong to none.
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
        # A token that adds nothing completes a letter whose first bytes were in the token before.
        if not groups or added[:1].isspace() or (added and before[-1:].isspace()):
            groups.append([])
        groups[-1].append(place)
    return [(tokenizer.decode([token_ids[place] for place in group]).strip(), group) for group in groups]


@torch.inference_mode()
def attention_evidence(
    model: Any, tokenizer: Any, inputs: Any, answer_ids: Sequence[int], stage: str = "language"
) -> Evidence:
    """Runs the prompt and the answer through the model once more and reads its attention.

    Only the language model's twin runs with the backend "eager", which gives weights; the model itself, that answers
    other visitors meanwhile, is not changed. A token's attention is that of the position that chose it, the one before.

    Args:
        model: an `OmniVMedForConditionalGeneration`.
        tokenizer: the processor's.
        inputs: the processor's `BatchFeature` of one conversation with media in it, up to the answer.
        answer_ids: the answer's token ids.
        stage: where pruning takes place, as for `demo.service.stage.at_stage`.

    Raises:
        ValueError: where there is no answer, no medium, or more than one conversation.
    """
    words = group_words(tokenizer, answer_ids)
    if not words:
        raise ValueError("There is no answer yet whose words could be looked at.")
    if "pixel_values" not in inputs or len(inputs["input_ids"]) != 1:
        raise ValueError("Evidence is shown for one conversation about a file; load one and ask about it.")
    model = at_stage(model, stage)
    inputs = {name: tensor.to(model.device) for name, tensor in inputs.items()}
    prompt = inputs.pop("input_ids")
    inputs.pop("attention_mask", None)  # one conversation has no padding
    placeholders = (prompt[0, :-1] == model.config.image_token_id).nonzero().squeeze(1)

    cache = model(input_ids=prompt[:, :-1], use_cache=True, logits_to_keep=1, **inputs).past_key_values
    answer = torch.tensor([answer_ids], device=prompt.device)
    choosing = torch.cat([prompt[:, -1:], answer[:, :-1]], dim=1)  # the positions whose output the answer's tokens were
    language = twin(model.model.language_model)
    language.set_attn_implementation("eager")
    text = model.config.text_config
    row_bytes = text.num_hidden_layers * text.num_attention_heads * (prompt.shape[1] + choosing.shape[1]) * 4
    rows = []
    for piece in choosing.split(max(LARGEST_ATTENTION // row_bytes, 1), dim=1):
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
