# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Conversations about pictures that are told in words, so that the language model learns the questions before it sees.

The encoder is pre-trained so that a picture reads like a few words (`train.pretrain`). What is then left to learn, to
compare those words with a question and to answer in the form that is asked for, needs no pictures: here the words
themselves stand where the visual tokens will, each as the single, noisy vector that a visual token is
(`train.told_words`). Seen on the Nano's language model: after 1,900 yes/no questions about
modalities and regions in words it answered 97 % of them rightly, after 7,200 about pictures alone it still guessed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedTokenizerFast

from train.assemble import ADDED_TOKENS
from train.data.conversations import Conversation
from train.data.pool import facts_and_kinds
from train.data.questions import captioned, match, questions

NAMES_OF_FACTS = ("measured", "counted", "graded")
"""Facts that say what a number is about; they are asked with, never asked for."""
WORD_OF_LESION = {"yes": "abnormal", "no": "normal"}
"""What a picture with or without a lesion should read like: "yes" alone would answer any question."""
LONGEST = 16
"""Words at most, as an image has visual tokens."""
TURNS = 8
CLIPS_AGAIN = 5
"""How often a volume or video of the pool comes for every time an image does: they alone show motion, and are few."""


def word_of(fact: str, value: str) -> str:
    """The word or words that a picture with this fact should read like."""
    if fact == "lesion":
        return WORD_OF_LESION[value]
    return value.removesuffix(" mm")


@dataclass(frozen=True)
class WordedClip:
    """Words in the place of a clip; `encode_conversation` takes it like a `PreparedClip`."""

    words: tuple[str, ...]

    @property
    def keep_mask(self) -> torch.Tensor:
        """All True (1, words): no word is pruned, as each may be what is asked for."""
        return torch.ones(1, len(self.words), dtype=torch.bool)

    def placeholder_text(self, keep_mask: torch.Tensor) -> str:
        """The prompt text: the words themselves."""
        return " " + " ".join(self.words)

    def visual_inputs(self, keep_mask: torch.Tensor) -> dict[str, torch.Tensor]:
        """None: there is nothing to encode."""
        return {}


def worded_conversation(facts: dict[str, str], kind: str, rng: np.random.Generator) -> Conversation:
    """A sample's facts in words, in random order and some of them repeated, and questions about them."""
    told = [word_of(fact, value) for fact, value in facts.items() if fact not in NAMES_OF_FACTS]
    again = [told[int(place)] for place in rng.integers(len(told), size=int(rng.integers(LONGEST)))]
    words = (told + again)[: max(LONGEST, len(told))]
    words = tuple(words[int(place)] for place in rng.permutation(len(words)))
    # Twice, because most questions that are answered by yes or no then come in a true and in a false form.
    drawn = [*questions(facts, kind, rng), *questions(facts, kind, rng)]
    drawn += [match(facts, kind, rng), match(facts, kind, rng), captioned(facts, kind, rng)]
    shuffled = [drawn[int(place)] for place in rng.permutation(len(drawn))]
    turns = tuple({one.question: one.answer for one in shuffled}.items())[:TURNS]
    return Conversation(turns, (WordedClip(words),), (kind,))


class WordedConversations(Sequence[Conversation]):
    """One conversation for each image of a pool (`train.data.pool`) and several for each clip; no pixels are read.

    Conversation i depends on the pool, the seed and i alone.
    """

    def __init__(self, pool: Path, seed: int):
        self.seed = seed
        told = facts_and_kinds(pool)
        self.told = told + (CLIPS_AGAIN - 1) * [one for one in told if one[1] != "image"]

    def __len__(self) -> int:
        return len(self.told)

    def __getitem__(self, index: int) -> Conversation:
        return worded_conversation(*self.told[index], np.random.default_rng((self.seed, index)))


def places_of_words(
    conversation: Conversation, input_ids: torch.Tensor, tokenizer: PreTrainedTokenizerFast
) -> torch.Tensor:
    """Which of an encoded conversation's tokens tell the picture: 1 on those of its first word, 2 of its second, …

    Args:
        input_ids: int64 (length,).

    Returns:
        int64 (length,), 0 on all other tokens.
    """
    words = conversation.clips[0].words
    lengths = torch.tensor([len(tokenizer(" " + word, add_special_tokens=False).input_ids) for word in words])
    begin = int((input_ids == tokenizer.convert_tokens_to_ids(ADDED_TOKENS[0])).nonzero()[0]) + 1
    places = torch.zeros_like(input_ids)
    places[begin : begin + int(lengths.sum())] = torch.arange(1, len(words) + 1).repeat_interleave(lengths)
    return places
