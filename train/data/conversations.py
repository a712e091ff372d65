# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Training conversations: a clip (or none) with questions and answers, encoded with only the answers scored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import Dataset

from hub_model.media_omniv_med import Clip
from hub_model.processing_omniv_med import MEDIA_TOKEN, OmniVMedProcessor
from train.data.phantoms import Sample
from train.data.pool import to_clip
from train.data.questions import caption, caption_request, questions

IGNORED = -100
QUESTIONS_PER_CONVERSATION = 3


@dataclass(frozen=True)
class Conversation:
    """Turns of (question, answer); the clip, if any, stands before the first question."""

    turns: tuple[tuple[str, str], ...]
    clip: Clip | None = None


@dataclass(frozen=True)
class Mixture:
    """Shares of what is drawn; they add up to 1.

    Attributes:
        image, clip, text: shares of single images, of volumes and videos, and of text without media.
        captions: among conversations with media, the share that asks for a caption instead of questions.
    """

    image: float
    clip: float
    text: float
    captions: float


def caption_conversation(sample: Sample, rng: np.random.Generator) -> Conversation:
    """Asks for a description of the sample."""
    request = caption_request(sample.kind, rng)
    return Conversation(((request, caption(sample.facts, sample.kind, rng)),), to_clip(sample))


def question_conversation(sample: Sample, rng: np.random.Generator) -> Conversation:
    """Asks up to three questions about the sample, one after the other."""
    asked = questions(sample.facts, sample.kind, rng)[:QUESTIONS_PER_CONVERSATION]
    return Conversation(tuple((one.question, one.answer) for one in asked), to_clip(sample))


class ConversationDataset(Dataset):
    """Conversations drawn from a pool: item i depends on the seed and on i alone, so a resumed run sees the same."""

    def __init__(
        self,
        samples: Sequence[Sample],
        texts: Sequence[Conversation],
        mixture: Mixture,
        processor: OmniVMedProcessor,
        length: int,
        seed: int,
    ):
        kinds = [samples[index].kind for index in range(len(samples))]
        self.images = [index for index, kind in enumerate(kinds) if kind == "image"]
        self.clips = [index for index, kind in enumerate(kinds) if kind != "image"]
        self.samples, self.texts, self.mixture = samples, texts, mixture
        self.processor, self.length, self.seed = processor, length, seed

    def __len__(self) -> int:
        return self.length

    def conversation(self, index: int) -> Conversation:
        """The conversation of item `index`."""
        rng = np.random.default_rng((self.seed, index))
        draw = rng.random()
        if draw < self.mixture.text:
            return self.texts[int(rng.integers(len(self.texts)))]
        members = self.clips if draw < self.mixture.text + self.mixture.clip else self.images
        sample = self.samples[members[int(rng.integers(len(members)))]]
        make = caption_conversation if rng.random() < self.mixture.captions else question_conversation
        return make(sample, rng)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return encode_conversation(self.conversation(index), self.processor)


def encode_conversation(conversation: Conversation, processor: OmniVMedProcessor) -> dict[str, torch.Tensor]:
    """Tokenises one conversation.

    Returns:
        `input_ids` and `labels` int64 (length,), -100 on all but the answers and their end tokens, and the visual
        inputs where there is a clip.
    """
    visual, placeholders = {}, ""
    if conversation.clip is not None:
        processed = processor.process_clip(conversation.clip)
        visual, placeholders = processor.visual_inputs([processed]), processor.placeholder_text(processed)
    messages: list[dict] = []
    rendered, input_ids, labels = "", [], []
    for number, (question, answer) in enumerate(conversation.turns):
        media = [{"type": conversation.clip.kind}] if conversation.clip is not None and number == 0 else []
        messages.append({"role": "user", "content": [*media, {"type": "text", "text": question}]})
        asked = processor.apply_chat_template(messages, add_generation_prompt=True)
        messages.append({"role": "assistant", "content": answer})
        answered = processor.apply_chat_template(messages)
        for piece, scored in ((asked[len(rendered) :], False), (answered[len(asked) :], True)):
            ids = processor.tokenizer(piece.replace(MEDIA_TOKEN, placeholders), add_special_tokens=False).input_ids
            input_ids += ids
            labels += ids if scored else [IGNORED] * len(ids)
        rendered = answered
    return {"input_ids": torch.tensor(input_ids), "labels": torch.tensor(labels), **visual}


class ConversationCollator:
    """Pads text to the right and packs the media of all conversations behind one another."""

    def __init__(self, pad_token_id: int):
        self.pad_token_id = pad_token_id

    def __call__(self, items: Sequence[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        def pad(name: str, value: int) -> torch.Tensor:
            return torch.nn.utils.rnn.pad_sequence([item[name] for item in items], True, value)

        lengths = torch.tensor([len(item["input_ids"]) for item in items])
        input_ids = pad("input_ids", self.pad_token_id)
        batch = {
            "input_ids": input_ids,
            "attention_mask": (torch.arange(input_ids.shape[1]) < lengths[:, None]).long(),
            "labels": pad("labels", IGNORED),
        }
        visual = [item for item in items if "pixel_values" in item]
        names = visual[0].keys() - {"input_ids", "labels"} if visual else ()
        return batch | {name: torch.cat([item[name] for item in visual]) for name in sorted(names)}
