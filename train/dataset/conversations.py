# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Training conversations as the model takes them: only the answers are scored, and several are packed into one row.

Several questions about one medium share its tokens. Either they stand in turn, as in a chat, or each sees the medium
and itself alone, so that no answer can be copied from the one before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from torch import nn

from data_engine.records import MEDIA_PLACEHOLDER
from hub_model.processing_omniv_med import OmniVMedProcessor
from hub_model.prompt_omniv_med import fill_placeholders, split_after_media
from train.dataset.prepared_media import drop_tokens
from train.pseudo_visual_tokens import NO_FACT

IGNORED = -100
SHARED = 0
"""Segment of a conversation that all of its questions see."""


class ClipTokens(Protocol):
    """What stands for a medium in a conversation."""

    @property
    def keep_mask(self) -> torch.Tensor:
        """Bool (T, N), the tokens that are not pruned."""

    def placeholder_text(self, keep_mask: torch.Tensor) -> str:
        """What the prompt says in the medium's place, where these tokens are kept."""

    def visual_inputs(self, keep_mask: torch.Tensor) -> dict[str, torch.Tensor]:
        """What the encoder gets of it, by the names of the model's inputs."""


@dataclass(frozen=True)
class Conversation:
    """Questions and answers, and the media they are about.

    Attributes:
        turns: (question, answer); `<media>` in a question says where a medium stands, without any all stand first.
        clips: the media in order.
        kinds: "image", "volume" or "video" of each.
    """

    turns: tuple[tuple[str, str], ...]
    clips: tuple[ClipTokens, ...] = ()
    kinds: tuple[str, ...] = ()


@dataclass
class _Tokens:
    """Token ids, labels (ids of the answers, else -100), positions and segments of one conversation, as they grow."""

    input_ids: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    position_ids: list[int] = field(default_factory=list)
    segment_ids: list[int] = field(default_factory=list)

    def add(self, ids: list[int], scored: bool, start: int, segment: int) -> None:
        """Appends tokens of one segment, whose first has the position `start`."""
        self.input_ids += ids
        self.labels += ids if scored else [IGNORED] * len(ids)
        self.position_ids += range(start, start + len(ids))
        self.segment_ids += [segment] * len(ids)


def encode_conversation(
    conversation: Conversation,
    processor: OmniVMedProcessor,
    separate: bool = False,
    drop_rate: float = 0.0,
    rng: np.random.Generator | None = None,
) -> dict[str, torch.Tensor]:
    """Tokenises one conversation, so that a training prompt is the prompt of inference.

    Args:
        separate: every question sees the media and itself, as if it were asked alone; else it sees those before.
        drop_rate, rng: share of the visual tokens to drop at most, see `drop_tokens`.

    Returns:
        `input_ids`, `labels`, `position_ids` and `segment_ids` int64 (length,), and the visual inputs of the media.
        `labels` are -100 on all but the answers and their end tokens; `segment_ids` are 0 on what all later tokens see,
        and n on what only the n-th question sees.
    """
    masks = [drop_tokens(clip.keep_mask, drop_rate, rng) for clip in conversation.clips]
    placeholders = [clip.placeholder_text(mask) for clip, mask in zip(conversation.clips, masks, strict=True)]
    tokens = _Tokens()

    def tokenise(text: str) -> list[int]:
        return processor.tokenizer(text, add_special_tokens=False).input_ids

    if separate and conversation.clips:
        for number, turn in enumerate(conversation.turns, 1):
            asked, answer = next(_rendered([turn], conversation.kinds, processor))
            beginning, question = split_after_media(asked)
            if number == 1:
                (filled,) = fill_placeholders([beginning], placeholders)
                shared = tokenise(filled)
                tokens.add(shared, False, 0, SHARED)
            tokens.add(tokenise(question), False, len(shared), number)
            tokens.add(tokenise(answer), True, tokens.position_ids[-1] + 1, number)
    else:
        turns = list(_rendered(conversation.turns, conversation.kinds, processor))
        asked = fill_placeholders([question for question, _ in turns], placeholders)
        for question, (_, answer) in zip(asked, turns, strict=True):
            tokens.add(tokenise(question), False, len(tokens.input_ids), SHARED)
            tokens.add(tokenise(answer), True, len(tokens.input_ids), SHARED)

    visual = [clip.visual_inputs(mask) for clip, mask in zip(conversation.clips, masks, strict=True)]
    joined = {name: torch.cat([one[name] for one in visual]) for name in visual[0]} if visual else {}
    return {name: torch.tensor(values) for name, values in vars(tokens).items()} | joined


def _rendered(
    turns: Sequence[tuple[str, str]], kinds: Sequence[str], processor: OmniVMedProcessor
) -> Iterator[tuple[str, str]]:
    """What the chat template writes for each question (up to where the answer begins) and for each answer."""
    messages: list[dict] = []
    rendered, upcoming = "", iter(kinds)
    for number, (question, answer) in enumerate(turns):
        pieces = question.split(MEDIA_PLACEHOLDER)
        content = [{"type": "text", "text": pieces[0].strip()}] if pieces[0].strip() else []
        for piece in pieces[1:]:
            content.append({"type": next(upcoming)})
            content += [{"type": "text", "text": piece.strip()}] if piece.strip() else []
        if number == 0 and len(pieces) == 1:
            content = [*({"type": kind} for kind in upcoming), *content]
        messages.append({"role": "user", "content": content})
        asked = processor.apply_chat_template(messages, add_generation_prompt=True)
        messages.append({"role": "assistant", "content": answer})
        answered = processor.apply_chat_template(messages)
        yield asked[len(rendered) :], answered[len(asked) :]
        rendered = answered


def pack(items: Sequence[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """One batch of several encoded conversations: all behind one another in one row, and so are their media.

    Returns:
        `input_ids`, `position_ids`, `segment_ids` and `labels` int64 (1, length), the last with the label of each
        position's next token; `lengths` int64 (conversations,); the visual inputs where there are media; for described
        samples `pseudo_visual_mask` bool (1, length) and `pseudo_visual_facts` int64 (tokens, facts), see
        `pseudo_visual_inputs`.
    """
    row = {
        name: torch.cat([item[name] for item in items])[None] for name in ("input_ids", "position_ids", "segment_ids")
    }
    labels = [nn.functional.pad(item["labels"][1:], (0, 1), value=IGNORED) for item in items]
    visual = [item for item in items if "pixel_values" in item]
    names = visual[0].keys() - row.keys() - {"labels"} if visual else ()
    if any("pseudo_visual_facts" in item for item in items):
        places = [
            item.get("pseudo_visual_mask", torch.zeros_like(item["input_ids"], dtype=torch.bool)) for item in items
        ]
        row["pseudo_visual_mask"] = torch.cat(places)[None]
        facts = [item["pseudo_visual_facts"] for item in items if "pseudo_visual_facts" in item]
        most = max(one.shape[1] for one in facts)
        padded = [nn.functional.pad(one, (0, most - one.shape[1]), value=NO_FACT) for one in facts]
        row["pseudo_visual_facts"] = torch.cat(padded)
    return row | {
        "labels": torch.cat(labels)[None],
        "lengths": torch.tensor([len(item["input_ids"]) for item in items]),
        **{name: torch.cat([item[name] for item in visual]) for name in sorted(names)},
    }
