# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Asks a batch of a benchmark's questions, those about the same media at the cost of one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from transformers import LogitsProcessorList

from evaluation.benchmarks import BenchmarkQuestion
from hub_model.configuration_omniv_med import PruneStage
from hub_model.shared_media_omniv_med import generate_sharing_media

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
    prompts_of = processor.apply_chat_template(
        [question.messages(prompts) for question in questions], add_generation_prompt=True, tokenize=False
    )
    media = [(one.folder, one.media) for one in questions]
    clips = {
        (folder, held): [
            {"source": str(folder / one.path), "kind": one.type}
            | ({"spacing": one.spacing} if one.spacing is not None else {})
            for one in held
        ]
        for folder, held in media
    }
    return generate_sharing_media(
        model, processor, prompts_of, media, clips, max_new_tokens, prune_stage, logits_processor
    )
