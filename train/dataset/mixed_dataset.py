# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The training set: every batch mixes 2D, 3D, video and text in given shares, and item i is always the same.

What item i holds depends on the seed and on i alone, so that a resumed run sees what it would have seen, and so does
one on several devices, which share the items of a batch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch.utils.data import Dataset

from data_engine.records import DIMENSIONS
from train.dataset.conversation_index import ConversationIndex, Located, turns_of
from train.dataset.conversations import Conversation, encode_conversation
from train.dataset.described_samples import DescribedConversations, pseudo_visual_inputs
from train.dataset.picture_variation import vary_picture
from train.dataset.prepared_media import MediaCache, prune_picture
from train.dataset.question_endings import with_endings

TEXT, DESCRIBED = "text", "described"
STRATA = (*DIMENSIONS, TEXT, DESCRIBED)
LONGEST_SEARCH = 100
"""Unreadable conversations in a row, after which a data set is held to be lost."""


class DataError(ValueError):
    """A data set that cannot be trained on as it is asked for, in one sentence."""


def strata_in_turn(shares: Sequence[float], length: int) -> np.ndarray:
    """Which stratum each item is of, uint8 (length,): any n items in a row hold n × share of each, give or take one.

    The j-th item of a stratum stands at (j + ½) / share, so the first items are the same whatever the length.
    """
    times = [(np.arange(math.ceil(length * share) + 1) + 0.5) / share if share else np.empty(0) for share in shares]
    strata = np.repeat(np.arange(len(shares), dtype=np.uint8), [len(one) for one in times])
    return strata[np.argsort(np.concatenate(times), kind="stable")][:length]


class MixedDataset(Dataset):
    """Conversations of a built set (and text without media), `length` items of them.

    Within a stratum no conversation comes again before all have come as often as the index says.

    Args:
        index: of the built set.
        in_memory: conversations that need no file: "text" without media, "described" about facts in the place of media.
        shares: of "2d", "3d", "video", "text" and "described"; they add up to 1.
        media: reads and keeps the media.
        length: number of items.
        seed: of the order, of the order of questions and of the tokens that are dropped.
        separate: questions about one medium do not see each other.
        vary_pictures: each picture is varied anew, see `vary_picture`.
        prune_pictures: share of the single pictures that is pruned by the rule "spatial", see `prune_picture`.
        question_endings: share of the questions that end in a request for a short answer, see `with_endings`.
        drop_rate: share of the visual tokens that is dropped at most.
        longest: tokens of a conversation at most; a longer one counts as unreadable.

    Raises:
        DataError: a share of something the set does not hold.
    """

    def __init__(
        self,
        index: ConversationIndex,
        in_memory: Mapping[str, Sequence[Conversation]],
        shares: Mapping[str, float],
        media: MediaCache,
        length: int,
        seed: int,
        separate: bool = False,
        vary_pictures: bool = False,
        prune_pictures: float = 0.0,
        question_endings: float = 0.0,
        drop_rate: float = 0.0,
        longest: int | None = None,
    ):
        self.index, self.in_memory, self.media = index, in_memory, media
        self.length, self.seed, self.separate, self.drop_rate, self.longest = length, seed, separate, drop_rate, longest
        self.vary_pictures, self.prune_pictures = vary_pictures, prune_pictures
        self.question_endings = question_endings
        every = np.repeat(np.arange(len(index)), index.passes)
        self.members = [every[index.dimension[every] == place] for place in range(len(DIMENSIONS))]
        self.members += [np.arange(len(in_memory.get(name, ()))) for name in (TEXT, DESCRIBED)]
        for name, members in zip(STRATA, self.members, strict=True):
            if shares.get(name, 0) > 0 and not len(members):
                raise DataError(f"The data hold no conversations of the kind {name}; set its share to 0.")
        self.permutations: dict[tuple[int, int], np.ndarray] = {}
        self.stratum = strata_in_turn([shares.get(name, 0.0) for name in STRATA], length)
        self.place = np.zeros(length, dtype=np.int64)
        for stratum in range(len(STRATA)):
            mine = self.stratum == stratum
            self.place[mine] = np.arange(np.count_nonzero(mine))

    def _permutation(self, stratum: int, epoch: int) -> np.ndarray:
        if (stratum, epoch) not in self.permutations:
            if len(self.permutations) > 2 * len(STRATA):
                self.permutations.clear()
            order = np.random.default_rng((self.seed, stratum, epoch)).permutation(self.members[stratum])
            self.permutations[stratum, epoch] = order
        return self.permutations[stratum, epoch]

    def _member(self, stratum: int, place: int) -> int:
        """The conversation that comes at a place in the endless order of a stratum."""
        epoch, rest = divmod(int(place), len(self.members[stratum]))
        return int(self._permutation(stratum, epoch)[rest])

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, item: int) -> dict[str, torch.Tensor | list[tuple[str, str]]]:
        """The encoded conversation; `unreadable` lists (record, reason) of those that were passed over on the way.

        Raises:
            DataError: when a hundred conversations in a row cannot be read.
        """
        stratum, place = int(self.stratum[item]), int(self.place[item])
        unreadable: list[tuple[str, str]] = []
        for attempt in range(LONGEST_SEARCH):
            rng = np.random.default_rng((self.seed, item, attempt))
            member = self._member(stratum, place + attempt)
            if (source := self.in_memory.get(STRATA[stratum])) is not None:
                conversation, processor = source[member], self.media.processor
                encoded = encode_conversation(conversation, processor, self.separate)
                if isinstance(source, DescribedConversations):
                    encoded = pseudo_visual_inputs(conversation, encoded, source.indices, processor.image_token_id)
                return encoded | {"unreadable": unreadable}
            located = self.index.records(member)
            try:
                return self._encode(located, rng) | {"unreadable": unreadable}
            except (ValueError, OSError) as error:  # MediaError is a ValueError
                unreadable.append((located[0].record.id, str(error)))
        raise DataError(
            f"{LONGEST_SEARCH} conversations in a row could not be read, the last because: {unreadable[-1][1]} "
            "Check the folder of the data."
        )

    def _encode(self, located: Sequence[Located], rng: np.random.Generator) -> dict[str, torch.Tensor]:
        first, records = located[0], [one.record for one in located]
        clips = tuple(self.media.prepare(medium, first.folder) for medium in first.record.media)
        if self.vary_pictures:
            clips = tuple(vary_picture(clip, rng) for clip in clips)
        if rng.random() < self.prune_pictures:
            clips = tuple(prune_picture(clip, self.media.processor.prune_threshold) for clip in clips)
        turns = turns_of(records, lambda every: [every[place] for place in rng.permutation(len(every))])
        if self.question_endings > 0:
            turns = with_endings(turns, self.question_endings, rng)
        conversation = Conversation(turns, clips, tuple(medium.type for medium in first.record.media))
        # The turns of one record may refer to each other, so they stay together.
        separate = self.separate and all(len(record.conversations) == 2 for record in records)
        encoded = encode_conversation(conversation, self.media.processor, separate, self.drop_rate, rng)
        if self.longest is not None and len(encoded["input_ids"]) > self.longest:
            raise DataError(f"{len(encoded['input_ids'])} tokens are more than {self.longest}.")
        return encoded


def natural_shares(index: ConversationIndex) -> dict[str, float]:
    """The shares of 2D, 3D and video that an index holds."""
    counts = np.bincount(index.dimension, weights=index.passes, minlength=len(DIMENSIONS))
    return dict(zip(DIMENSIONS, (counts / counts.sum()).tolist(), strict=True))
