# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Every pruning rule that the benchmark compares: at its own default, and at a given number of kept tokens.

Rules with a threshold meet the number by bisection, from below; MedPruner and uniform sampling move by whole frames.
Left out: VideoLlama3's mask at a given number, which is the previous-frame rule with another threshold, and CDPruner,
which needs an encoder that shares its space with the question.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch

from benchmarks.pruning_rules import embeddings, pixels
from benchmarks.pruning_rules.encoder import EncoderView
from benchmarks.pruning_rules.outcome import Outcome, dropped
from hub_model.token_pruning_omniv_med import PruneRule, prune_tokens
from hub_model.visual_processing_omniv_med import patchify, token_grid, unpatchify

THRESHOLD = 0.1
LEAST_THRESHOLD, LARGEST_THRESHOLD = 1e-4, 2.0
BISECTIONS = 10
EVS_SHARE, VIDCOM2_SHARE, FASTVID_SHARE = 0.7, 0.75, 0.9
"""Shares that these remove by default: EVS in SGLang's Nemotron, VidCom2 and FastVID in their authors' code."""
VISIONZIP_DOMINANT, VISIONZIP_CONTEXTUAL = 191 / 576, 30 / 576
VISIONZIP_CONTEXT = VISIONZIP_CONTEXTUAL / (VISIONZIP_DOMINANT + VISIONZIP_CONTEXTUAL)


class Shown(Protocol):
    """What a rule makes of a clip."""

    @property
    def kept(self) -> int: ...

    def reconstruct(self, tokens: torch.Tensor) -> torch.Tensor: ...


@dataclass(frozen=True)
class Subject:
    """A clip that rules prune.

    Attributes:
        tokens: float32 (T, N, patches, channels, patch, patch) in [-1, 1].
        grid: rows and columns of a frame.
        noise: of the pixels, see `estimate_noise`.
        view: what the encoder makes of it.
        seed: of random removal.
    """

    tokens: torch.Tensor
    grid: tuple[int, int]
    noise: float
    view: EncoderView
    seed: int

    @property
    def frames(self) -> int:
        return self.tokens.shape[0]

    @property
    def places(self) -> int:
        return self.tokens.shape[1]

    def kept_at(self, removed: float) -> int:
        """How many tokens are kept where a share is removed."""
        return max(int(self.frames * self.places * (1 - removed)), 1)


@dataclass(frozen=True)
class Rule:
    """One row of the table; None where a rule has no default, or cannot meet a number."""

    name: str
    at_default: Callable[[Subject], Shown] | None
    at_number: Callable[[Subject, int], Shown] | None


def ours(subject: Subject, rule: PruneRule, kept: int | None = None) -> Outcome:
    """The pruner of this project at its default threshold, or under a budget."""
    pruned = prune_tokens(subject.tokens, rule, THRESHOLD, None, kept, subject.noise, subject.grid[1])
    return Outcome(pruned.keep_mask, pruned.stand_in)


def bisected(prune: Callable[[float], Outcome], kept: int, low: float, high: float) -> Outcome:
    """The most that a rule keeps, but no more than `kept`, over thresholds between two, the larger keeping less."""
    best = prune(high)
    for _ in range(BISECTIONS):
        middle = math.sqrt(low * high)
        tried = prune(middle)
        if tried.kept <= kept:
            high, best = middle, tried
        else:
            low = middle
    return best


def pixelprune(subject: Subject, threshold: float) -> Outcome:
    return pixels.pixelprune(subject.tokens / 2 + 0.5, subject.grid[1], threshold)


def medpruner(subject: Subject, slices: float = 0.05, mass: float = embeddings.MEDPRUNER_MASS) -> Outcome:
    """Both stages of MedPruner. A dropped slice keeps its first token; the rest is shown as the last kept slice."""
    kept_slices = pixels.medpruner_slices(subject.tokens, slices)
    within = embeddings.medpruner_tokens(subject.view.received, subject.view.keys, mass)
    assert within.shares is not None
    last = torch.where(kept_slices, torch.arange(subject.frames), 0).cummax(dim=0).values
    keep, stand_in = within.keep_mask & kept_slices[:, None], within.stand_in[last]
    shares = within.shares * kept_slices[:, None]
    first = (~kept_slices).nonzero().squeeze(1)
    keep[first, 0], shares[first, 0], stand_in[first, 0] = True, 1.0, first * subject.places
    return Outcome(keep, stand_in, shares)


def visionzip(subject: Subject, kept: int) -> Outcome:
    """VisionZip with as large a share of contextual tokens as by default."""
    in_frame = max(kept // subject.frames, 2)
    contextual = max(round(in_frame * VISIONZIP_CONTEXT), 1)
    return embeddings.visionzip(subject.view.received, subject.view.keys, in_frame - contextual, contextual)


def fastvid(subject: Subject, kept: int) -> Outcome:
    """FastVID; the mean of a frame's embeddings and received attention stand for the pooling head it has."""
    view = subject.view
    return embeddings.fastvid(
        view.embeddings, view.embeddings.mean(dim=1), view.received, max(kept // subject.frames, 1)
    )


def random_tokens(subject: Subject, kept: int) -> Outcome:
    """As many tokens drawn at random; of a clip the first frame stays, in a picture the most alike stand for others."""
    generator = torch.Generator().manual_seed(subject.seed)
    if subject.frames > 1:
        return pixels.random_tokens(subject.frames, subject.places, max(kept, subject.places), generator)
    keep = torch.zeros(1, subject.places, dtype=torch.bool)
    keep[0, torch.randperm(subject.places, generator=generator)[:kept]] = True
    return dropped(keep, subject.tokens.flatten(2))


@dataclass(frozen=True)
class SmallerPicture:
    """The whole picture in fewer tokens: what a budget did before pictures were pruned.

    Attributes:
        grid: rows and columns of tokens of the full picture.
        smaller: of the small one.
    """

    grid: tuple[int, int]
    smaller: tuple[int, int]

    @property
    def kept(self) -> int:
        return math.prod(self.smaller)

    def reconstruct(self, tokens: torch.Tensor) -> torch.Tensor:
        """The small picture, enlarged again."""
        merge, patch = round(tokens.shape[2] ** 0.5), tokens.shape[-1]
        frames = unpatchify(tokens, *self.grid)
        size = [side * merge * patch for side in self.smaller]
        small = torch.nn.functional.interpolate(frames, size, mode="bilinear", antialias=True)
        return patchify(torch.nn.functional.interpolate(small, frames.shape[2:], mode="bilinear"), patch, merge)


def smaller_picture(subject: Subject, kept: int) -> SmallerPicture:
    return SmallerPicture(subject.grid, token_grid(*subject.grid, 1, 1, kept))


OURS_ANCHOR = Rule("ours, anchor", lambda s: ours(s, "anchor"), lambda s, kept: ours(s, "anchor", kept))
OURS_SPATIAL = Rule("ours, spatial", lambda s: ours(s, "spatial"), lambda s, kept: ours(s, "spatial", kept))
PREVIOUS = Rule(
    "previous frame",
    lambda s: pixels.previous_frame(s.tokens),
    lambda s, kept: bisected(
        lambda threshold: pixels.previous_frame(s.tokens, threshold), kept, LEAST_THRESHOLD, LARGEST_THRESHOLD
    ),
)
VIDEOLLAMA3 = Rule("VideoLlama3's mask", lambda s: pixels.videollama3(s.tokens), None)
EVS = Rule(
    "EVS",
    lambda s: embeddings.evs(s.view.embeddings, s.kept_at(EVS_SHARE)),
    lambda s, kept: embeddings.evs(s.view.embeddings, kept),
)
VIDCOM2 = Rule(
    "VidCom2",
    lambda s: embeddings.vidcom2(s.view.embeddings, VIDCOM2_SHARE, exact=False),
    lambda s, kept: embeddings.vidcom2(s.view.embeddings, 1 - kept / (s.frames * s.places)),
)
PIXELPRUNE = Rule(
    "PixelPrune",
    lambda s: pixelprune(s, 0.0),
    lambda s, kept: bisected(lambda threshold: pixelprune(s, threshold), kept, LEAST_THRESHOLD, 1.0),
)
MEDPRUNER = Rule(
    "MedPruner",
    medpruner,
    lambda s, kept: bisected(lambda threshold: medpruner(s, threshold), kept, LEAST_THRESHOLD, LARGEST_THRESHOLD),
)
MEDPRUNER_OF_PICTURES = Rule(
    "MedPruner",
    medpruner,
    lambda s, kept: bisected(lambda left: medpruner(s, mass=1 - left), kept, LEAST_THRESHOLD, 1.0),
)
FASTVID = Rule("FastVID", lambda s: fastvid(s, s.kept_at(FASTVID_SHARE)), fastvid)
VISIONZIP = Rule(
    "VisionZip",
    lambda s: visionzip(s, s.kept_at(1 - VISIONZIP_DOMINANT - VISIONZIP_CONTEXTUAL)),
    visionzip,
)
DIVPRUNE = Rule("DivPrune", None, lambda s, kept: embeddings.divprune(s.view.embeddings, kept))
UNIFORM = Rule(
    "uniform frames", None, lambda s, kept: pixels.uniform_frames(s.frames, s.places, max(kept // s.places, 1))
)
RANDOM = Rule("random", None, random_tokens)
SMALLER = Rule("smaller picture", None, smaller_picture)

OF_CLIPS = (
    OURS_ANCHOR, OURS_SPATIAL, PREVIOUS, VIDEOLLAMA3, EVS, VIDCOM2, PIXELPRUNE, MEDPRUNER, FASTVID, VISIONZIP, UNIFORM,
    RANDOM,
)  # fmt: skip
OF_PICTURES = (OURS_SPATIAL, VIDCOM2, PIXELPRUNE, MEDPRUNER_OF_PICTURES, VISIONZIP, DIVPRUNE, SMALLER, RANDOM)
"""DivPrune's chosen tokens grow with the square of a clip's, so it prunes pictures only."""
