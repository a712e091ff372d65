# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Counts the words of conversations of built sets, and what pruning keeps there, as a size's processor sees them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from data_engine.records import DIMENSIONS
from hub_model.processing_omniv_med import OmniVMedProcessor
from train.config import StageConfig
from train.dataset.conversation_index import ConversationIndex, turns_of
from train.dataset.conversations import IGNORED, Conversation, encode_conversation
from train.dataset.prepared_media import MediaCache

MEASURED_CONVERSATIONS = 200
"""Of each dimension."""


@dataclass(frozen=True)
class Words:
    """Means over the conversations of one dimension in the sets that are measured.

    Attributes:
        text: tokens of a conversation that stand for no medium.
        scored: answer tokens among these.
        label: tokens of a frame's position label.
        kept: share of the visual tokens that pruning keeps.
        conversations: how many were read.
    """

    text: float
    scored: float
    label: float
    kept: float
    conversations: int


def read_words(folders: Sequence[Path], stage: StageConfig, processor: OmniVMedProcessor) -> dict[str, Words]:
    """Reads conversations of each dimension with a size's processor, evenly over the sets' training split."""
    data, words = stage.data, {}
    with TemporaryDirectory() as scratch:
        index = ConversationIndex(folders, "train", data.questions_per_conversation, Path(scratch))
        media = MediaCache(processor, None, 1.0)
        for place, dimension in enumerate(DIMENSIONS):
            members = np.flatnonzero(index.dimension == place)
            chosen = np.unique(np.linspace(0, len(members) - 1, MEASURED_CONVERSATIONS).round().astype(int))
            found = []
            for member in members[chosen]:
                located = index.records(int(member))
                records = [one.record for one in located]
                clips = tuple(media.prepare(one, located[0].folder) for one in records[0].media)
                turns = turns_of(records, list)
                kinds = tuple(one.type for one in records[0].media)
                encoded = encode_conversation(Conversation(turns, clips, kinds), processor, data.separate_questions)
                kept = int(encoded["input_ids"].eq(processor.image_token_id).sum())
                all_labels = sum(
                    len(processor.tokenizer(label, add_special_tokens=False).input_ids)
                    for clip in clips
                    for label, mask in zip(clip.labels, clip.keep_mask, strict=True)
                    if mask.any()  # a frame that keeps nothing has no label
                )
                frames = sum(len(clip.keep_mask) for clip in clips)
                tokens = sum(clip.keep_mask.numel() for clip in clips)
                scored = int((encoded["labels"] != IGNORED).sum())
                found.append(
                    (len(encoded["input_ids"]) - kept - all_labels, scored, all_labels / frames, kept / tokens)
                )
            text, scored, label, kept = np.mean(found, axis=0)
            words[dimension] = Words(float(text), float(scored), float(label), float(kept), len(found))
    return words
