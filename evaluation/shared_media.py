# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Answers several questions about the same media at the cost of one: read, pruned, encoded and prefilled once.

A volume's tokens are most of its prompt and come before the question, so all questions about it share them: one pass of
the model over each distinct beginning fills the key-value cache, whose rows are then repeated for its questions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from transformers import LogitsProcessorList

from evaluation.benchmarks import BenchmarkQuestion
from hub_model.configuration_omniv_med import PruneStage
from hub_model.prompt_omniv_med import split_after_media

if TYPE_CHECKING:
    from hub_model.modeling_omniv_med import OmniVMedForConditionalGeneration
    from hub_model.processing_omniv_med import OmniVMedProcessor


def can_share(processor: OmniVMedProcessor, questions: Sequence[BenchmarkQuestion]) -> bool:
    """Whether this processor takes clips that it processed before, which other families' do not."""
    return hasattr(processor, "process_clip") and all(one.media for one in questions)


def generate_sharing(
    model: OmniVMedForConditionalGeneration,
    processor: OmniVMedProcessor,
    questions: Sequence[BenchmarkQuestion],
    prompts: str,
    max_new_tokens: int,
    prune_stage: PruneStage | None = None,
) -> list[tuple[str, int]]:
    """Greedy answers of one left-padded batch, and the tokens of each prompt: those that asking one by one gives.

    Raises:
        ValueError: media that cannot be read.
    """
    new, lengths = generate_ids_sharing(model, processor, questions, prompts, max_new_tokens, prune_stage)
    answers = processor.batch_decode(new, skip_special_tokens=True)
    return [(text.strip(), length) for text, length in zip(answers, lengths, strict=True)]


@torch.inference_mode()
def generate_ids_sharing(
    model: OmniVMedForConditionalGeneration,
    processor: OmniVMedProcessor,
    questions: Sequence[BenchmarkQuestion],
    prompts: str,
    max_new_tokens: int,
    prune_stage: PruneStage | None = None,
    logits_processor: LogitsProcessorList | None = None,
) -> tuple[torch.Tensor, list[int]]:
    """The new tokens of `generate_sharing`, int64 (questions, steps), and the tokens of each prompt.

    Args:
        logits_processor: what else sees the logits of each step.

    Raises:
        ValueError: media that cannot be read.
    """
    texts = processor.apply_chat_template(
        [question.messages(prompts) for question in questions], add_generation_prompt=True, tokenize=False
    )
    parts = [split_after_media(text) for text in texts]
    beginnings = [(text, one.folder, one.media) for (text, _), one in zip(parts, questions, strict=True)]
    distinct = list(dict.fromkeys(beginnings))
    clips = [
        {"source": str(folder / one.path), "kind": one.type}
        | ({"spacing": one.spacing} if one.spacing is not None else {})
        for _, folder, media in distinct
        for one in media
    ]
    first = processor(text=[text for text, *_ in distinct], clips=clips, return_tensors="pt").to(model.device)
    rest = processor.tokenizer(
        [text for _, text in parts],
        add_special_tokens=False,
        padding=True,
        padding_side="left",
        return_tensors="pt",
    ).to(model.device)

    positions = (first["attention_mask"].cumsum(dim=1) - 1).clamp(min=0)
    cache = model.model(**first, position_ids=positions, prune_stage=prune_stage, use_cache=True).past_key_values
    row_of_question = torch.tensor([distinct.index(one) for one in beginnings], device=model.device)
    cache.reorder_cache(row_of_question)
    ids = torch.cat([first["input_ids"][row_of_question], rest["input_ids"]], dim=1)
    mask = torch.cat([first["attention_mask"][row_of_question], rest["attention_mask"]], dim=1)
    output = model.generate(
        input_ids=ids,
        attention_mask=mask,
        past_key_values=cache,
        max_new_tokens=max_new_tokens,
        do_sample=False,
        logits_processor=logits_processor,
    )
    return output[:, ids.shape[1] :], mask.sum(dim=1).tolist()
