# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Conversations about images that are only described, so that the language model learns the questions before it sees.

Encoder pre-training makes an image read like a few words (`train.nano.pretrain`). Comparing these with a question and
answering in the form that is asked for needs no pixels: here pseudo-visual tokens (`train.pseudo_visual_tokens`), or
the plain text of the facts, stand where visual tokens will. Measured on the Nano's language model: after 1,900 yes/no
questions about described modalities and regions it answered 97 % correctly; after 7,200 about images alone it guessed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from data_engine.pool import facts_and_kinds
from data_engine.questions import caption_question, matching_question, questions
from hub_model.prompt_omniv_med import MEDIA_TOKEN
from train.dataset.conversations import Conversation
from train.pseudo_visual_tokens import QUALIFYING_FACTS, fact_indices, text_of_fact

TOKEN_COUNTS = {16: 0.6, 64: 0.3, 256: 0.1}
"""Number of pseudo-visual tokens -> its share of the samples: as many as images, short and long volumes have."""
TEXT_SHARE = 0.5
"""Share of the samples that are described in plain text, which teaches the language model to compare in fewer steps."""
MAX_TURNS = 8
CLIP_REPEATS = 5
"""Draws of each volume or video of the pool for every draw of an image: only they show motion, and they are few."""


def fact_vocabulary(facts: Iterable[dict[str, str]]) -> dict[str, list[str]]:
    """The values each fact takes, sorted, without the facts that only qualify a number."""
    values: dict[str, set[str]] = {}
    for one in facts:
        for fact, value in one.items():
            values.setdefault(fact, set()).add(value)
    return {fact: sorted(found) for fact, found in sorted(values.items()) if fact not in QUALIFYING_FACTS}


@dataclass(frozen=True)
class DescribedClip:
    """Facts in the place of a clip; `encode_conversation` takes it like a `PreparedClip`.

    Attributes:
        facts: (fact, value) each.
        tokens: number of pseudo-visual tokens; 0 where the facts stand in the prompt as text.
    """

    facts: tuple[tuple[str, str], ...]
    tokens: int

    @property
    def keep_mask(self) -> torch.Tensor:
        """All True (1, tokens): no token is pruned, as each may hold the fact that is asked for."""
        return torch.ones(1, self.tokens, dtype=torch.bool)

    def placeholder_text(self, keep_mask: torch.Tensor) -> str:
        """The prompt text: media tokens, or the facts as text."""
        return self.tokens * MEDIA_TOKEN or " " + " ".join(text_of_fact(*fact) for fact in self.facts)

    def visual_inputs(self, keep_mask: torch.Tensor) -> dict[str, torch.Tensor]:
        """None: there is nothing to encode."""
        return {}


def described_conversation(facts: dict[str, str], kind: str, rng: np.random.Generator) -> Conversation:
    """A sample's facts, in random order, and questions about them."""
    described = [(fact, value) for fact, value in facts.items() if fact not in QUALIFYING_FACTS]
    tokens = 0 if rng.random() < TEXT_SHARE else int(rng.choice(list(TOKEN_COUNTS), p=list(TOKEN_COUNTS.values())))
    clip = DescribedClip(tuple(described[int(place)] for place in rng.permutation(len(described))), tokens)
    # Twice, because most questions that are answered by yes or no then come in a true and in a false form.
    drawn = [*questions(facts, kind, rng), *questions(facts, kind, rng)]
    drawn += [
        matching_question(facts, kind, rng),
        matching_question(facts, kind, rng),
        caption_question(facts, kind, rng),
    ]
    shuffled = [drawn[int(place)] for place in rng.permutation(len(drawn))]
    turns = tuple({one.question: one.answer for one in shuffled}.items())[:MAX_TURNS]
    return Conversation(turns, (clip,), (kind,))


class DescribedConversations(Sequence[Conversation]):
    """One conversation for each image of a pool (`data_engine.pool`) and several for each clip; no pixels are read.

    Conversation i depends on the pool, the seed and i alone.

    Attributes:
        vocabulary: the values each fact takes in the pool.
        indices: of the facts among the directions of `train.pseudo_visual_tokens.FactEmbeddings`.
    """

    def __init__(self, pool: Path, seed: int):
        self.seed = seed
        samples = facts_and_kinds(pool)
        self.vocabulary = fact_vocabulary(facts for facts, _ in samples)
        self.indices = fact_indices(self.vocabulary)
        self.samples = samples + (CLIP_REPEATS - 1) * [one for one in samples if one[1] != "image"]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Conversation:
        return described_conversation(*self.samples[index], np.random.default_rng((self.seed, index)))


def pseudo_visual_inputs(
    conversation: Conversation, encoded: dict[str, torch.Tensor], indices: Mapping[tuple[str, str], int], media: int
) -> dict[str, torch.Tensor]:
    """An encoded conversation with the facts of its pseudo-visual tokens, instead of media for the encoder.

    A conversation without such tokens, whose facts stand in the prompt as text, is returned as it is.

    Args:
        indices: of the facts, see `fact_indices`.
        media: id of the media token.

    Returns:
        `pseudo_visual_mask` bool (length,), where the pseudo-visual tokens stand; `pseudo_visual_facts` int64
        (tokens, facts), what each may show; `input_ids` without media tokens; and the rest unchanged.
    """
    clip = conversation.clips[0]
    if not isinstance(clip, DescribedClip) or not clip.tokens:
        return encoded
    facts = torch.tensor([indices[fact] for fact in clip.facts])
    mask = encoded["input_ids"] == media
    return encoded | {
        "pseudo_visual_mask": mask,
        "pseudo_visual_facts": facts.expand(int(mask.sum()), -1),
        "input_ids": encoded["input_ids"].masked_fill(mask, 0),
    }
