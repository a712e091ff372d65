# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Conversations about pictures that are told in words, so that the language model learns the questions before it sees.

The encoder is pre-trained so that a picture reads like a few words (`train.nano.pretrain`). What is then left to learn,
to compare those words with a question and to answer in the form that is asked for, needs no pictures: here tokens that
say the words (`train.pseudo_visual_tokens`) stand where the visual tokens will. Seen on the Nano's language model:
after 1,900 yes/no questions about modalities and regions in words it answered 97 % of them rightly, after 7,200 about
pictures alone it still guessed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from data_engine.pool import facts_and_kinds
from data_engine.questions import captioned, match, questions
from hub_model.prompt_omniv_med import MEDIA_TOKEN
from train.dataset.conversations import Conversation
from train.pseudo_visual_tokens import NAMES_OF_FACTS, word_numbers, word_of

TOKENS = {16: 0.6, 64: 0.3, 256: 0.1}
"""How many a told picture has and how often: as an image, and as short and long volumes."""
SPELLED = 0.5
"""Share of the pictures that are told in letters: so the language model learns to compare in fewer steps."""
TURNS = 8
CLIPS_AGAIN = 5
"""How often a volume or video of the pool comes for every time an image does: they alone show motion, and are few."""


def fact_vocabulary(facts: Iterable[dict[str, str]]) -> dict[str, list[str]]:
    """The values each fact takes, sorted, but for those that only name what a number is about."""
    values: dict[str, set[str]] = {}
    for one in facts:
        for fact, value in one.items():
            values.setdefault(fact, set()).add(value)
    return {fact: sorted(found) for fact, found in sorted(values.items()) if fact not in NAMES_OF_FACTS}


@dataclass(frozen=True)
class WordedClip:
    """Facts in the place of a clip; `encode_conversation` takes it like a `PreparedClip`.

    Attributes:
        words: (fact, value) each.
        tokens: that tell them; 0 where they stand there in letters.
    """

    words: tuple[tuple[str, str], ...]
    tokens: int

    @property
    def keep_mask(self) -> torch.Tensor:
        """All True (1, tokens): no token is pruned, as each may say what is asked for."""
        return torch.ones(1, self.tokens, dtype=torch.bool)

    def placeholder_text(self, keep_mask: torch.Tensor) -> str:
        """The prompt text: the tokens of a picture, or the words."""
        return self.tokens * MEDIA_TOKEN or " " + " ".join(word_of(*word) for word in self.words)

    def visual_inputs(self, keep_mask: torch.Tensor) -> dict[str, torch.Tensor]:
        """None: there is nothing to encode."""
        return {}


def worded_conversation(facts: dict[str, str], kind: str, rng: np.random.Generator) -> Conversation:
    """A sample's facts, in random order, and questions about them."""
    told = [(fact, value) for fact, value in facts.items() if fact not in NAMES_OF_FACTS]
    tokens = 0 if rng.random() < SPELLED else int(rng.choice(list(TOKENS), p=list(TOKENS.values())))
    clip = WordedClip(tuple(told[int(place)] for place in rng.permutation(len(told))), tokens)
    # Twice, because most questions that are answered by yes or no then come in a true and in a false form.
    drawn = [*questions(facts, kind, rng), *questions(facts, kind, rng)]
    drawn += [match(facts, kind, rng), match(facts, kind, rng), captioned(facts, kind, rng)]
    shuffled = [drawn[int(place)] for place in rng.permutation(len(drawn))]
    turns = tuple({one.question: one.answer for one in shuffled}.items())[:TURNS]
    return Conversation(turns, (clip,), (kind,))


class WordedConversations(Sequence[Conversation]):
    """One conversation for each image of a pool (`data_engine.pool`) and several for each clip; no pixels are read.

    Conversation i depends on the pool, the seed and i alone.

    Attributes:
        vocabulary: the values each fact takes in the pool.
        numbers: of their words, as `train.pseudo_visual_tokens.WordVectors` has them.
    """

    def __init__(self, pool: Path, seed: int):
        self.seed = seed
        told = facts_and_kinds(pool)
        self.vocabulary = fact_vocabulary(facts for facts, _ in told)
        self.numbers = word_numbers(self.vocabulary)
        self.told = told + (CLIPS_AGAIN - 1) * [one for one in told if one[1] != "image"]

    def __len__(self) -> int:
        return len(self.told)

    def __getitem__(self, index: int) -> Conversation:
        return worded_conversation(*self.told[index], np.random.default_rng((self.seed, index)))


def told_inputs(
    conversation: Conversation, encoded: dict[str, torch.Tensor], numbers: Mapping[tuple[str, str], int], media: int
) -> dict[str, torch.Tensor]:
    """An encoded conversation with what its tokens of the picture say, in place of media that the encoder would need.

    One that spells the words stays as it is.

    Args:
        numbers: of the words.
        media: id of the media token.

    Returns:
        `told_at` bool (length,), where the picture's tokens are; `told` int64 (tokens, words), what each may say;
        `input_ids` with another id there, so that nobody looks for media; and the rest as it is.
    """
    if not conversation.clips[0].tokens:
        return encoded
    words = torch.tensor([numbers[word] for word in conversation.clips[0].words])
    places = encoded["input_ids"] == media
    return encoded | {
        "told_at": places,
        "told": words.expand(int(places.sum()), -1),
        "input_ids": encoded["input_ids"].masked_fill(places, 0),
    }
