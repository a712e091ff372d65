# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Answers several questions about a medium at the cost of one: it is read, pruned, encoded and prefilled once.

A volume's tokens are most of its prompt and come before the question, so all questions about it share them: one pass of
the model over each distinct beginning fills the key-value cache, whose rows are then repeated for its questions. A
batch may hold several media.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers import LogitsProcessorList

from .answering_omniv_med import Answer, AnswerCalibration, GreedyLogProbabilities, end_ids, judge
from .configuration_omniv_med import PruneStage
from .prompt_omniv_med import split_after_media


@torch.inference_mode()
def generate_sharing_media(
    model: Any,
    processor: Any,
    prompts: Sequence[str],
    media: Sequence[Hashable],
    clips: Mapping[Hashable, Sequence[Any]],
    max_new_tokens: int,
    prune_stage: PruneStage | None = None,
    logits_processor: LogitsProcessorList | None = None,
) -> tuple[torch.Tensor, list[int]]:
    """Greedy answers of one left-padded batch: those that asking one by one gives.

    Args:
        model, processor: as `from_pretrained` gives them.
        prompts: as the chat template writes them, with a placeholder for each medium.
        media: what each prompt's media are called; prompts with the same name hold the same ones.
        clips: the media of each name, in reading order, as the processor takes them.
        max_new_tokens: longest answer.
        prune_stage: None takes the model's default.
        logits_processor: what else sees the logits of each step.

    Returns:
        The new tokens, int64 (prompts, steps), and the tokens of each prompt.

    Raises:
        ValueError: media that cannot be read.
    """
    parts = [split_after_media(text) for text in prompts]
    beginnings = [(text, name) for (text, _), name in zip(parts, media, strict=True)]
    distinct = list(dict.fromkeys(beginnings))
    first = processor(
        text=[text for text, _ in distinct],
        clips=[clip for _, name in distinct for clip in clips[name]],
        return_tensors="pt",
    ).to(model.device)
    rest = processor.tokenizer(
        [text for _, text in parts],
        add_special_tokens=False,
        padding=True,
        padding_side="left",
        return_tensors="pt",
    ).to(model.device)

    positions = (first["attention_mask"].cumsum(dim=1) - 1).clamp(min=0)
    cache = model.model(**first, position_ids=positions, prune_stage=prune_stage, use_cache=True).past_key_values
    row_of_prompt = torch.tensor([distinct.index(one) for one in beginnings], device=model.device)
    cache.reorder_cache(row_of_prompt)
    ids = torch.cat([first["input_ids"][row_of_prompt], rest["input_ids"]], dim=1)
    mask = torch.cat([first["attention_mask"][row_of_prompt], rest["attention_mask"]], dim=1)
    output = model.generate(
        input_ids=ids,
        attention_mask=mask,
        past_key_values=cache,
        max_new_tokens=max_new_tokens,
        do_sample=False,
        logits_processor=logits_processor,
    )
    return output[:, ids.shape[1] :], mask.sum(dim=1).tolist()


@dataclass(frozen=True)
class MediumQuestions:
    """What is asked about one medium.

    Attributes:
        processed: the medium, as `processor.process_clip` gives it.
        questions: at least one.
        thresholds: for each, the confidence below which it is declined; None takes the model's.
    """

    processed: Any
    questions: Sequence[str]
    thresholds: Sequence[float | None]

    def prompts(self, processor: Any) -> list[str]:
        """As the chat template writes them, with a placeholder for the medium."""
        medium = {"type": self.processed.clip.kind}
        conversations = [
            [{"role": "user", "content": [medium, {"type": "text", "text": words}]}] for words in self.questions
        ]
        prompts: list[str] = processor.apply_chat_template(conversations, add_generation_prompt=True, tokenize=False)
        return prompts


def longest_prompt(model: Any, processor: Any, asked: MediumQuestions, max_new_tokens: int) -> int:
    """Tokens of the longest of a medium's prompts, the medium's included.

    Raises:
        ValueError: it leaves too little room for the answer.
    """
    longest = model.config.text_config.max_position_embeddings
    words = max(len(ids) for ids in processor.tokenizer(asked.prompts(processor)).input_ids)
    length: int = asked.processed.tokens_after + words
    if length + max_new_tokens > longest:
        raise ValueError(
            f"The prompt has {length} tokens, so an answer may have {max(longest - length, 0)} at most, not "
            f"{max_new_tokens}; keep fewer frames or visual tokens."
        )
    return length


def answer_questions(
    model: Any, processor: Any, media: Sequence[MediumQuestions], max_new_tokens: int = 64
) -> list[list[Answer]]:
    """Answers the questions about several media in one batch, each as if it was asked alone.

    A batch costs memory for as many tokens as its longest prompt has, times its questions; media of similar
    `longest_prompt` waste the least.

    Args:
        model, processor: as `from_pretrained` gives them.
        media: at least one.
        max_new_tokens: longest answer.

    Returns:
        For each medium an answer to each question.

    Raises:
        ValueError: a prompt that is too long for the model, or a threshold for a model without calibration.
    """
    calibration = AnswerCalibration.of(model.config)
    thresholds = [threshold for one in media for threshold in one.thresholds]
    if calibration is None and any(threshold is not None for threshold in thresholds):
        raise ValueError("The model has no answer_calibration, so it cannot decline below a confidence; set none.")
    for one in media:
        longest_prompt(model, processor, one, max_new_tokens)
    prompts = [one.prompts(processor) for one in media]
    watched = GreedyLogProbabilities()
    new, _ = generate_sharing_media(
        model,
        processor,
        [prompt for held in prompts for prompt in held],
        [number for number, held in enumerate(prompts) for _ in held],
        {number: [one.processed] for number, one in enumerate(media)},
        max_new_tokens,
        logits_processor=LogitsProcessorList([watched]),
    )
    texts = processor.batch_decode(new, skip_special_tokens=True)
    probabilities = watched.of_answers(new, end_ids(model))
    judged = (
        judge(
            text.strip(),
            values,
            calibration if calibration is None or threshold is None else replace(calibration, threshold=threshold),
        )
        for text, values, threshold in zip(texts, probabilities, thresholds, strict=True)
    )
    return [list(itertools.islice(judged, len(held))) for held in prompts]


__all__ = ["MediumQuestions", "answer_questions", "generate_sharing_media", "longest_prompt"]
