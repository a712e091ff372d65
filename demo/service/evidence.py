# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Which parts of the media an answer depends on: each is covered in turn, and the answer's probability asked again.

Occlusion (Zeiler and Fergus, ECCV 2014), here of groups of visual tokens: what the encoder gives for a group becomes
the mean of its medium's, and the fall of the answer's log-probability is the group's weight. It is covered before the
projector, which may tell every token what its frame looks like. Attention says where a model looked, not
what it made of it (Jain and Wallace, NAACL 2019), and ours pointed at air. `benchmarks.evidence` measures how often the
strongest group lies on the finding.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt
import torch
from transformers import BatchFeature

from hub_model.token_differences_omniv_med import EMPTY_LEVEL

if TYPE_CHECKING:
    from hub_model.configuration_omniv_med import PruneStage
    from hub_model.modeling_omniv_med import OmniVMedForConditionalGeneration
    from hub_model.processing_omniv_med import ProcessedClip

SIDE = 2
"""Rows and columns of tokens in a group."""
MOST_GROUPS = 32
"""Groups that are covered; in longer clips, a group holds the same place of several frames."""
MOST_AT_ONCE = 16
LARGEST_CACHE = 1 << 28
"""Groups that go through the model together, and the bytes of their keys and values."""


@dataclass(frozen=True)
class Group:
    """Kept tokens that are covered together.

    Attributes:
        medium: counts the media of the conversation from 0.
        places: of the tokens, as frame · tokens per frame + place in the frame.
    """

    medium: int
    places: tuple[int, ...]


@dataclass(frozen=True)
class Evidence:
    """How much the answer depends on each group.

    Attributes:
        groups: everything in the media but empty background.
        falls: float32 (groups,), how much the answer's log-probability falls when the group is covered.
        frame: of the strongest group's frames the one that the answer depends on most.
    """

    groups: tuple[Group, ...]
    falls: npt.NDArray[np.float32]
    frame: int

    @cached_property
    def strongest(self) -> Group:
        """The group that the answer depends on most."""
        return self.groups[int(self.falls.argmax())]

    def on_tokens(self, medium: int, processed: ProcessedClip) -> npt.NDArray[np.float32]:
        """What every token of a medium has of the falls: float32 (frames, rows, columns).

        A removed token has that of its stand-in; background, and what the answer is surer without, have none.
        """
        keep = processed.pruned.keep_mask
        of_kept = np.zeros(keep.numel(), dtype=np.float32)
        for group, fall in zip(self.groups, self.falls, strict=True):
            if group.medium == medium:
                of_kept[list(group.places)] = max(float(fall), 0.0)
        return of_kept[processed.pruned.stand_in.cpu().numpy()].reshape(len(keep), *processed.grid)


def groups_of(media: Sequence[ProcessedClip], most: int = MOST_GROUPS) -> list[Group]:
    """The kept tokens of media in groups: `SIDE` × `SIDE` neighbours, in so many frames that there are `most` or fewer.

    Empty background, by the pruner's measure of what is dark, belongs to no group.
    """
    frames = 1
    while True:
        groups = [group for index, processed in enumerate(media) for group in _groups(index, processed, frames)]
        if len(groups) <= most or frames >= max(len(processed.tokens) for processed in media):
            return groups
        frames += 1


def _groups(index: int, processed: ProcessedClip, frames: int) -> Iterator[Group]:
    """The groups of one medium, in the order of their first tokens."""
    rows, columns = processed.grid
    brightest = processed.tokens.float().mean(dim=(2, 4, 5)).amax(dim=-1)
    usable = (processed.pruned.keep_mask.to(brightest.device) & (brightest > EMPTY_LEVEL)).cpu().numpy()
    found: dict[tuple[int, int, int], list[int]] = {}
    for frame, place in np.argwhere(usable).tolist():
        row, column = divmod(place, columns)
        found.setdefault((frame // frames, row // SIDE, column // SIDE), []).append(frame * rows * columns + place)
    for places in found.values():
        yield Group(index, tuple(places))


@torch.inference_mode()
def occlusion_evidence(
    model: OmniVMedForConditionalGeneration,
    inputs: BatchFeature,
    media: Sequence[ProcessedClip],
    answer_ids: Sequence[int],
    stage: PruneStage | None = None,
) -> Evidence:
    """Covers the groups of a conversation's media one by one.

    Args:
        model: answers other visitors meanwhile; it is not changed.
        inputs: the processor's inputs for one conversation with media in it, up to the answer.
        media: the clips that the inputs were made of, in their order.
        answer_ids: the answer's token ids.
        stage: the model's argument `prune_stage`.

    Raises:
        ValueError: without an answer or a medium, for several conversations, and where all media are background.
    """
    if not answer_ids:
        raise ValueError("There is no answer yet; ask about a file first.")
    if not media or "pixel_values" not in inputs or len(inputs["input_ids"]) != 1:
        raise ValueError("Evidence is shown for one conversation about a file; load one and ask about it.")
    groups = groups_of(media)
    if not groups:
        raise ValueError("The file shows nothing but empty background, so there is nothing to look at.")
    asked = _Asked(model, inputs, media, answer_ids, stage)
    falls = asked.falls(groups)
    best = groups[int(falls.argmax())]
    tokens = media[best.medium].pruned.keep_mask.shape[1]
    in_frames: dict[int, list[int]] = {}
    for place in best.places:
        in_frames.setdefault(place // tokens, []).append(place)
    parts = [Group(best.medium, tuple(places)) for places in in_frames.values()]
    strongest = int(asked.falls(parts).argmax()) if len(parts) > 1 else 0
    return Evidence(tuple(groups), falls, list(in_frames)[strongest])


class _Asked:
    """A question with its answer, encoded once; asks for the answer's probability with some tokens covered."""

    def __init__(
        self,
        model: OmniVMedForConditionalGeneration,
        inputs: BatchFeature,
        media: Sequence[ProcessedClip],
        answer_ids: Sequence[int],
        stage: PruneStage | None,
    ) -> None:
        tensors = {name: tensor.to(model.device) for name, tensor in inputs.items()}
        prompt = tensors.pop("input_ids")
        tensors.pop("attention_mask", None)  # one conversation has no padding
        encoded = model.get_image_features(**tensors, prune_stage=stage, return_dict=True)
        features = cast("tuple[torch.Tensor, ...]", encoded.pooler_output)  # a tensor for each medium
        self._projector = model.model.projector
        self._encoded = cast(torch.Tensor, encoded.last_hidden_state).split([len(part) for part in features])
        self._grids = list(zip(tensors["grid_thw"].split(1), tensors["merge_sizes"].split(1), strict=True))
        self._kept = [processed.pruned.keep_mask.flatten().to(prompt.device) for processed in media]
        self._language, self._head = model.model.language_model, model.lm_head
        self._answer = torch.tensor([answer_ids], device=prompt.device)
        ids = torch.cat([prompt, self._answer[:, :-1]], dim=1)
        is_visual = prompt[0] == model.config.image_token_id  # an answer may hold this token too, which shows nothing
        self._embeddings = self._language.get_input_embeddings()(ids).clone()
        self._embeddings[0, : prompt.shape[1]][is_visual] = torch.cat(features).to(self._embeddings.dtype)
        self._positions = _positions(is_visual.nonzero().squeeze(1).tolist(), media)
        self._cache: Any = None
        self._whole, self._cache = self._log_probability(self._embeddings, None)

    def falls(self, groups: Sequence[Group]) -> npt.NDArray[np.float32]:
        """How much covering each group lowers the answer's log-probability: float32 (groups,)."""
        falls = np.zeros(len(groups), np.float32)
        first = [min(self._positions[group.medium][place] for place in group.places) for group in groups]
        order = np.argsort(first, kind="stable").tolist()
        config = self._language.config
        bytes_each = self._embeddings.shape[1] * config.num_hidden_layers * config.hidden_size * 4
        at_once = max(min(LARGEST_CACHE // bytes_each, MOST_AT_ONCE), 1)
        for start in range(0, len(order), at_once):
            chosen = order[start : start + at_once]
            embeddings = self._embeddings.repeat(len(chosen), 1, 1)
            for row, index in enumerate(chosen):
                positions = list(self._positions[groups[index].medium].values())
                embeddings[row, positions] = self._projected_without(groups[index]).to(embeddings.dtype)
            # What comes before the first token that changes is the same for all.
            changed = (embeddings != self._embeddings).any(dim=2).any(dim=0).nonzero()
            shared = int(changed[0]) if len(changed) else first[chosen[0]]
            cache = copy.deepcopy(self._cache)
            cache.crop(shared - self._embeddings.shape[1])
            cache.batch_repeat_interleave(len(chosen))
            found, _ = self._log_probability(embeddings[:, shared:], cache)
            falls[chosen] = (self._whole - found).cpu().numpy()
        return falls

    def _projected_without(self, group: Group) -> torch.Tensor:
        """The visual tokens of a group's medium (kept tokens, hidden), with the group covered."""
        places = list(self._positions[group.medium])
        encoded = self._encoded[group.medium].clone()
        encoded[[places.index(place) for place in group.places]] = encoded.mean(dim=0)
        return self._projector(encoded, *self._grids[group.medium], self._kept[group.medium])

    def _log_probability(self, embeddings: torch.Tensor, cache: Any) -> tuple[torch.Tensor, Any]:
        """The answer's log-probability in each row, float32 (rows,), and all keys and values up to there."""
        outputs = self._language(inputs_embeds=embeddings, past_key_values=cache, use_cache=True)
        length = self._answer.shape[1]
        logits = self._head(outputs.last_hidden_state[:, -length:]).float()
        wanted = self._answer.expand(len(embeddings), -1).unsqueeze(-1)
        chosen = logits.log_softmax(dim=-1).gather(2, wanted).squeeze(-1)
        return chosen.sum(dim=1), outputs.past_key_values


def _positions(visual: Sequence[int], media: Sequence[ProcessedClip]) -> list[dict[int, int]]:
    """For each medium, where in the prompt each of its kept tokens stands."""
    found, start = [], 0
    for processed in media:
        kept = processed.pruned.keep_mask.flatten().nonzero().squeeze(1).tolist()
        found.append(dict(zip(kept, visual[start : start + len(kept)], strict=True)))
        start += len(kept)
    return found
