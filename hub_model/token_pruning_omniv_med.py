# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Medical-aware token pruning: which visual tokens of a clip repeat what was already seen.

Decided on pixels, before the model runs. A token is compared with the last *kept* token at its place, so what the
language model receives is never further from the truth than the threshold. The rule "spatial" also compares it with
what is shown left of it and above it in the same frame, which is a kept token too, so the same bound holds. Comparing
with the previous frame (the rule of OmniV-Med, arXiv 2504.14692, section 3.3, and of VideoLLaMA3) lets slow change
drift away unseen; it stays selectable as the baseline.

This runs on the CPU. What goes from frame to frame are a few numbers a token, and for so little NumPy takes a fraction
of torch's time. Where the pixels are on an NVIDIA GPU, the rule "anchor" stays there (`device_pruning_omniv_med.py`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple, cast, get_args

import numpy as np
import torch

from .device_pruning_omniv_med import VALUES_AT_ONCE, DeviceAnchor, is_judged_on_device
from .token_differences_omniv_med import (
    EMPTY_LEVEL,
    TOKENS_AT_ONCE,
    Indices,
    Neighbourhood,
    Numbers,
    ShownPixels,
    Truths,
    block_weights,
    empty_background,
    patch_means,
)

PruneRule = Literal["anchor", "spatial", "previous", "none"]
PRUNE_RULES: tuple[PruneRule, ...] = get_args(PruneRule)
RULE_WORDS: dict[PruneRule, str] = {
    "anchor": "last kept token (ours)",
    "spatial": "last kept token or a neighbour",
    "previous": "previous frame (as published)",
    "none": "keep all",
}
"""What each rule compares a token with, for people who choose one."""
BUDGET_SEARCH_STEPS = 16
LARGEST_DISTANCE = 2.0
"""The largest difference of two pixel values in [-1, 1]; as a peak threshold it switches the guard off."""
GUARD_RATIO = 3.0
"""The peak threshold over the threshold, where only the latter is given: one control governs both."""

NOISE_DISTANCE = 2 / math.sqrt(math.pi)
"""Mean absolute difference of two pixels that show the same under Gaussian noise of standard deviation 1."""
NOISE_MARGIN, PEAK_NOISE_MARGIN = 1.25, 2.0
"""How far above that the mean of a token, and of a block with a sixteenth of its pixels, may lie by chance."""
QUIET_NOISE, QUIET_PEAK = 0.012, 2 / 3
"""Below this noise (1.5 of 255 grey levels) the peak guard sharpens in proportion, down to this share of itself.

On real clips: an echocardiogram with noise 0.007 loses 8 % of small lesions at a guard of 0.3 and 3 % at 0.2, while at
0.2 an MR scan with noise 0.013 keeps a sixth more tokens for hardly any more lesions (`benchmarks/pruning.py`)."""
FRAMES_AT_ONCE = 256
"""Frames of a whole clip that are judged at once."""
ROUNDING = 1e-6
"""What sums in another order may differ by, relative and of pixel values."""


def check_rule(rule: object) -> PruneRule:
    """Returns the rule that came from outside.

    Raises:
        ValueError: where there is no such rule, with those that there are.
    """
    if rule not in PRUNE_RULES:
        raise ValueError(f"The pruning rule is one of {', '.join(PRUNE_RULES)}, not {rule!r}.")
    return rule


@dataclass(frozen=True)
class PrunedTokens:
    """What the pruner decided for one clip of T frames with N tokens each.

    Attributes:
        keep_mask: bool (T, N), True where the token is kept; the first frame always is, under the rule "spatial" the
            first token.
        stand_in: int64 (T, N), the kept token that stands for this one, as frame · N + place; itself where kept.
        errors: float32 (T, N), mean absolute difference to the stand-in, in pixel values of [-1, 1].
        scores: float32 (T, N), the difference to the token the rule compares with, over the threshold; with a peak
            threshold, the larger of the two ratios. Above 1 was kept, unless it is empty background that had been
            kept before. What is kept of the first frame scores infinity.
        threshold: the threshold used, raised to the clip's noise or to meet a budget.
    """

    keep_mask: torch.Tensor
    stand_in: torch.Tensor
    errors: torch.Tensor
    scores: torch.Tensor
    threshold: float

    @property
    def worst_error(self) -> float:
        """Largest mean absolute difference between a removed token and its stand-in."""
        return float(self.errors.max())


class FrameDecision(NamedTuple):
    """What the pruner decided for one frame of N tokens; fields as in `PrunedTokens`.

    `errors` are nan where the stand-in is not the token that was compared with: a stream has no longer seen it.
    """

    keep_mask: torch.Tensor
    stand_in: torch.Tensor
    errors: torch.Tensor
    scores: torch.Tensor


class _Found(NamedTuple):
    """What is being filled in for T frames of N tokens.

    Attributes:
        own: int64 (T, N), the tokens' own indices.
        distances: float32 (2, T, N), `sum_and_peak` of the differences to what was compared with.
        keep: bool (T, N).
        returned_to: int64 (T, N), the background that stands in, −1 where none does.
    """

    own: Indices
    distances: Numbers
    keep: Truths
    returned_to: Indices


class StreamingPruner:
    """Judges a clip frame by frame. All it keeps of the past is one frame: the last kept token at each place.

    (The rule "anchor" adds one colour a place: that of the empty background that was kept there. The rule "spatial"
    keeps instead what is shown at each place, a kept token of this place or of another, and one token of background.)
    Each rule is a method `_judge_by_…`, and a row of the table `_RULES`.

    Args:
        rule: one that removes something, so any of `PRUNE_RULES` but "none".
        threshold, peak_threshold, noise, columns: as in `prune_tokens`.

    Attributes:
        threshold, peak_threshold: those in use, scaled with the noise; the latter infinite where there is no guard.
    """

    def __init__(
        self,
        rule: PruneRule,
        threshold: float,
        peak_threshold: float | None = None,
        noise: float | None = None,
        columns: int | None = None,
    ):
        if rule not in _RULES:
            raise ValueError(f"A stream is pruned by one of the rules {', '.join(_RULES)}, not {rule!r}.")
        self._rule, self.columns = _RULES[rule], columns
        if self._rule.within_frame and (columns is None or columns < 1):
            raise ValueError(f"The rule {rule!r} needs to know how many columns of tokens a frame has.")
        self.threshold = threshold
        self.peak_threshold = GUARD_RATIO * threshold if peak_threshold is None else peak_threshold
        if not self._rule.guarded:
            self.peak_threshold = math.inf
        elif noise is not None:
            self.threshold = max(threshold, NOISE_MARGIN * NOISE_DISTANCE * noise)
            sharpened = self.peak_threshold * min(max(noise / QUIET_NOISE, QUIET_PEAK), 1.0)
            self.peak_threshold = max(sharpened, PEAK_NOISE_MARGIN * NOISE_DISTANCE * noise)
        self.frames_seen = 0
        # From the first frame on: the flat index of the token that was compared with last, and for a rule within the
        # frame the places' neighbours, the means of the patches that are shown, and how far these may differ.
        self._shown: Indices
        self._neighbourhood: Neighbourhood
        self._means: Numbers
        self._mean_limit: float
        self._on_device: DeviceAnchor | None = None

    def raise_thresholds(self, amount: float) -> None:
        """Raises the threshold, and the guard's in proportion, before the first frame, to prune more."""
        self.threshold += amount
        self.peak_threshold += GUARD_RATIO * amount

    def step(self, tokens: torch.Tensor) -> FrameDecision:
        """Judges the next frame.

        Args:
            tokens: float (N, patches per token, channels, patch, patch), one frame's pixel values in [-1, 1].
        """
        return FrameDecision(*(part[0] for part in self.judge(tokens.unsqueeze(0))))

    def judge(self, tokens: torch.Tensor) -> FrameDecision:
        """Judges the next T frames (T, N, …) as `step` would one after the other; all fields are (T, N).

        Only what a frame needs of the one before runs frame by frame: at a few tokens a frame, small operations take
        longer than the comparison itself.
        """
        if self.frames_seen == 0:
            self._start(tokens[0])
        if self._on_device:
            self.frames_seen += len(tokens)
            judged = self._on_device.judge(tokens.to(self._on_device.device))
            return FrameDecision(*(part.to(tokens.device) for part in judged))
        count, places = tokens.shape[:2]
        own = np.arange(count * places, dtype=np.int64).reshape(count, places) + self.frames_seen * places
        distances = np.empty((2, count, places), np.float32)
        found = _Found(own, distances, np.empty((count, places), np.bool_), np.full_like(own, -1))
        # Autograd would add a tenth to so many small operations, and autocast would round.
        with torch.inference_mode(), torch.autocast("cpu", enabled=False):
            shown, unknown = self._rule.judge(self, tokens.detach().cpu(), found)
        return self._decision(found, shown, unknown, tokens.device)

    def _decision(self, found: _Found, shown: Indices, unknown: Truths, device: torch.device) -> FrameDecision:
        """What was `found`, in the terms of those who asked; `shown` and `unknown` are what a rule returns."""
        keep = torch.from_numpy(found.keep)
        first = torch.from_numpy(found.own < found.own.shape[1])  # of the whole clip
        distances, limits = torch.from_numpy(found.distances), torch.from_numpy(self._limits)
        scores = (distances / limits.unsqueeze(2)).amax(dim=0).masked_fill_(first & keep, float("inf"))
        stand_in = torch.from_numpy(np.where(found.returned_to >= 0, found.returned_to, shown))
        errors = (distances[0] / self._blocks).masked_fill_(torch.from_numpy(unknown), float("nan"))
        errors.masked_fill_(keep, 0.0)
        return FrameDecision(*(part.to(device) for part in (keep, stand_in, errors, scores)))

    def _judge_by_kept(self, tokens: torch.Tensor, found: _Found) -> tuple[Indices, Truths]:
        """The rule "anchor": the last kept token at a place stands in, or empty background that was kept there."""
        colours, empty = self._empty_background(tokens, patch_means(tokens))
        for t, frame, _, kept, returned, itself in self._compare_each(tokens, found):
            self._return_to_background(colours[t], empty[t], kept, returned, itself)
            self._pixels.show(frame, kept.nonzero()[0])
        return self._last_kept(found), found.returned_to >= 0

    def _judge_by_neighbours(self, tokens: torch.Tensor, found: _Found) -> tuple[Indices, Truths]:
        """The rule "spatial": what is shown at a place or beside it stands in, or the one token of background."""
        patches = patch_means(tokens)
        _, empty = self._empty_background(tokens, patches)
        by_frame = patches.view(*tokens.shape[:2], -1)
        worth_a_look = self._neighbourhood.alike(by_frame, 2 * self._mean_limit)
        means, levels = by_frame.numpy(), by_frame.mean(dim=-1).numpy()
        shown = np.empty_like(found.own)
        for t, frame, distance, kept, returned, itself in self._compare_each(tokens, found):
            empty_kept = kept & empty[t]
            self._return_to_one_background(frame, empty_kept, distance, kept, returned)
            places = kept.nonzero()[0]
            if len(places):
                self._pixels.show(frame, places)
                self._shown[places], self._means[places] = itself[places], means[t, places]
                empty_kept &= kept
                self._show_neighbours(worth_a_look[t], levels[t], empty_kept, distance, kept, returned)
            shown[t] = self._shown[:-1]
        return shown, np.zeros_like(found.keep)

    def _judge_by_frame_before(self, tokens: torch.Tensor, found: _Found) -> tuple[Indices, Truths]:
        """The rule "previous": the last kept token at a place stands in, but the frame before was compared with."""
        for _, frame, *_ in self._compare_each(tokens, found):
            self._pixels.show_all(frame)
        shown = self._last_kept(found)
        return shown, shown != found.own - tokens.shape[1]

    def _compare_each(
        self, tokens: torch.Tensor, found: _Found
    ) -> Iterator[tuple[int, torch.Tensor, Numbers, Truths, Indices, Indices]]:
        """Yields of each frame, once compared with what a rule has left to compare with: number, pixels, `found`."""
        for t, frame in enumerate(tokens):
            frame = frame.float()
            distance, kept = found.distances[:, t], found.keep[t]
            distance[:] = self._pixels.differences(frame)
            of_sum, of_peak = distance > self._limits
            np.logical_or(of_sum, of_peak, out=kept)
            if self.frames_seen == 0:
                kept.fill(True)
            yield t, frame, distance, kept, found.returned_to[t], found.own[t]
            self.frames_seen += 1

    def _last_kept(self, found: _Found) -> Indices:
        """The last kept token at each place (T, N)."""
        shown: Indices = np.maximum.accumulate(np.where(found.keep, found.own, self._shown), axis=0)
        self._shown = shown[-1]
        return shown

    def _start(self, tokens: torch.Tensor) -> None:
        """Takes the shapes from the first frame."""
        places, patches, channels, patch, _ = tokens.shape
        self._blocks = patches * len(block_weights(channels, patch, torch.device("cpu")))
        # Those of `sum_and_peak`, (2, 1). An infinite one keeps nothing more; by 0 nothing could be divided.
        limits = np.array([[self.threshold], [self.peak_threshold]], np.float32)
        self._limits: Numbers = np.maximum(limits, np.float32(1e-12))
        self._colour_limit = self._limits.min() / 2
        self._limits[0] *= self._blocks
        if self._rule.device_form and is_judged_on_device(tokens):
            limits_there = torch.from_numpy(self._limits)
            self._on_device = self._rule.device_form(tokens, limits_there, float(self._colour_limit), self._blocks)
            return
        self._pixels = ShownPixels(tokens.detach(), int(self._rule.within_frame))
        self._shown = np.arange(places, dtype=np.int64)
        self._background_shown = self._shown.copy()
        self._background = np.full((places, channels), np.nan, np.float32)  # nothing is near to nan
        if self._rule.within_frame:
            self._neighbourhood = Neighbourhood(places, cast(int, self.columns))
            # One place more shows the empty background that was kept last. Before that, and where there is no
            # neighbour, the means are infinite, so that nothing is near.
            self._shown = np.append(self._shown, 0)
            self._means = np.full((places + 2, patches * channels), np.inf, np.float32)
            self._mean_limit = float(self._limits[0, 0]) / self._blocks * (1 + ROUNDING) + ROUNDING
            self._background_level = math.inf  # the mean of all its pixels
            self._usable = np.append(np.ones(places + 1, np.bool_), False)

    def _empty_background(self, tokens: torch.Tensor, patches: torch.Tensor) -> tuple[Numbers, Truths]:
        """The function of the same name, within a quarter of the thresholds."""
        colours, empty = empty_background(tokens, patches, torch.from_numpy(self._limits / 4), self._blocks)
        return colours.numpy(), empty.numpy()

    def _return_to_background(
        self, colours: Numbers, empty: Truths, keep: Truths, returned_to: Indices, itself: Indices
    ) -> None:
        """Takes empty background that had been kept at its place before out of `keep`, all (N,) but `colours` (N, C).

        Fills in the token that stands for it in `returned_to`. Two tokens within a quarter of the thresholds of their
        own colours, which are within half of each other, are within the whole thresholds. Where no such background is
        known yet, the token is noted as one.
        """
        kept = keep & empty
        if not kept.any():
            return
        known = kept & (np.abs(colours - self._background).max(axis=-1) <= self._colour_limit)
        new = kept ^ known
        np.copyto(returned_to, self._background_shown, where=known)
        keep ^= known
        np.copyto(self._background, colours, where=new[:, None])
        np.copyto(self._background_shown, itself, where=new)

    def _return_to_one_background(
        self, frame: torch.Tensor, empty_kept: Truths, distances: Numbers, keep: Truths, returned_to: Indices
    ) -> None:
        """As `_return_to_background`, but one token of background stands for all of the clip, wherever they lie.

        Fills in the `distances` (2, N) to it.
        """
        places = empty_kept.nonzero()[0]
        if not len(places) or self._background_level == math.inf:
            return
        found = self._pixels.differences_of(frame, places, self._neighbourhood.background)
        near = np.logical_and(*(found <= self._limits))
        places = places[near]
        distances[:, places] = found[:, near]
        returned_to[places] = self._shown[-1]
        keep[places] = False

    def _show_neighbours(
        self,
        worth_a_look: Truths,
        levels: Numbers,
        empty_kept: Truths,
        distances: Numbers,
        keep: Truths,
        returned_to: Indices,
    ) -> None:
        """Takes tokens that a neighbour's shown token, or the background, stands for out of `keep`.

        Fills in their `distances` (2, N) to it. What is shown is always a kept token, so errors do not add up.

        A neighbour is within the threshold of what it shows. So what is within it too is within twice as much of the
        neighbour: all others are not `worth_a_look`, unless the background stands for them. That can only be where
        their `levels`, the means of all their pixels, are no further above its own.
        """
        any_empty = bool(empty_kept.any())
        darkest = EMPTY_LEVEL if any_empty else self._background_level
        if darkest < math.inf:
            worth_a_look = worth_a_look | (levels <= darkest + self._mean_limit)
        # A place that has returned to the background is not compared with: it still remembers the body.
        np.less(returned_to, 0, out=self._usable[:-2])
        for places in self._neighbourhood.in_rounds(keep & worth_a_look):
            self._show_nearest(places, distances, keep)
            if any_empty:
                background = places[(keep & empty_kept)[places]]
                if len(background):
                    self._show(self._neighbourhood.background, background[:1])
                    self._background_level = float(levels[background[0]])
                    self._show_nearest(background[1:], distances, keep)  # of the same round, but no neighbours

    def _show_nearest(self, places: Indices, distances: Numbers, keep: Truths) -> None:
        """Has places, none beside another, show what the nearest of their neighbours does, if it is near enough."""
        neighbours = self._neighbourhood.of[places]
        # Means of patches differ by no more than their pixels do: what differs too much in these need not be read.
        rough = np.abs(self._means[places][:, None] - self._means[neighbours]).sum(axis=-1)
        limit = self._mean_limit * self._means.shape[1]
        which, side = ((rough <= limit) & self._usable[neighbours]).nonzero()
        if not len(which):
            return
        pairs = self._pixels.differences_between(places[which], neighbours[which, side])
        found = np.empty((2, *neighbours.shape), np.float32)
        ratios = np.full(neighbours.shape, np.inf, np.float32)
        found[:, which, side], ratios[which, side] = pairs, (pairs / self._limits).max(axis=0)
        side = ratios.argmin(axis=1)
        near = (ratios.min(axis=1) <= 1).nonzero()[0]
        places, side = places[near], side[near]
        distances[:, places] = found[:, near, side]
        self._show(places, neighbours[near, side])
        keep[places] = False

    def _show(self, places: Indices, others: Indices) -> None:
        """From now on what is shown at other places is shown, and compared with, at these places too."""
        if len(places):
            self._pixels.copy(places, others)
            self._means[places], self._shown[places] = self._means[others], self._shown[others]


class _Rule(NamedTuple):
    """All that one rule decides.

    Attributes:
        judge: fills in `found` for the next frames; returns the stand-ins (T, N) where no background does, and where
            (T, N) the errors are unknown while streaming, as the stand-in is not the token that was compared with.
        within_frame: tokens of one frame stand for each other: it needs the columns, and may prune the first frame.
        guarded: block means are compared too, and both thresholds follow the noise.
        device_form: judges instead, where tokens are judged on their own device.
    """

    judge: Callable[[StreamingPruner, torch.Tensor, _Found], tuple[Indices, Truths]]
    within_frame: bool = False
    guarded: bool = True
    device_form: type[DeviceAnchor] | None = None


_RULES: dict[str, _Rule] = {
    "anchor": _Rule(StreamingPruner._judge_by_kept, device_form=DeviceAnchor),
    "spatial": _Rule(StreamingPruner._judge_by_neighbours, within_frame=True),
    "previous": _Rule(StreamingPruner._judge_by_frame_before, guarded=False),  # as published: one threshold
}
"""The rules that remove something; "none" keeps all."""


def _scan(tokens: torch.Tensor, pruner: StreamingPruner) -> PrunedTokens:
    """One pass over a whole clip, some frames at a time, so that a long one needs no large tensors in between."""
    parts = [pruner.judge(part) for part in tokens.split(FRAMES_AT_ONCE)]
    keep_mask, stand_in, errors, scores = (torch.cat(fields) for fields in zip(*parts, strict=True))
    every = tokens.flatten(0, 1)
    own = errors.flatten().isnan().nonzero().squeeze(1)
    others = stand_in.flatten()[own]
    at_once = max(1, VALUES_AT_ONCE // every[:1].numel()) if is_judged_on_device(tokens) else TOKENS_AT_ONCE
    for part, other in zip(own.split(at_once), others.split(at_once), strict=True):
        difference = every.index_select(0, part).float().sub_(every.index_select(0, other))
        errors.view(-1)[part] = difference.abs_().flatten(1).mean(dim=-1)
    return PrunedTokens(keep_mask, stand_in, errors, scores, pruner.threshold)


def prune_tokens(
    tokens: torch.Tensor,
    rule: PruneRule = "anchor",
    threshold: float = 0.1,
    peak_threshold: float | None = None,
    max_tokens: int | None = None,
    noise: float | None = None,
    columns: int | None = None,
) -> PrunedTokens:
    """Decides which tokens of one clip to keep.

    Args:
        tokens: float (T, N, patches per token, channels, patch, patch), pixel values in [-1, 1].
        rule: "anchor" compares with the last kept token at the same place, and keeps empty background once a place,
            however often the body comes and goes; "spatial" does the same, and also removes what is within both
            thresholds of the token that is shown left of it, above it or between, and keeps empty background once;
            "previous" compares with the frame before, by `threshold` alone (the published rule); "none" keeps all.
        threshold: largest mean absolute difference of a removed token, in pixel values of [-1, 1] (0.1 is 5 % of
            the display range, or 12.75 grey levels of 255).
        peak_threshold: the guard: a token also stays when one block (half a patch wide) differs by more than this in
            its mean, so that a small lesion is not averaged away. None takes `GUARD_RATIO` times the threshold, so
            that one control governs both; `LARGEST_DISTANCE` switches the guard off.
        max_tokens: budget in tokens. Where the thresholds keep more, both are raised, the guard's `GUARD_RATIO` times
            as much, by the least that bisection finds to meet it. The first frame alone may not exceed it, but under
            the rule "spatial", which keeps no more than one token if it must.
        noise: standard deviation of the pixel noise (`estimate_noise`). Thresholds that noise alone would exceed are
            raised just above it, as otherwise nothing repeats, and in a quiet clip the peak threshold is lowered by up
            to a third. None takes the thresholds as they are.
        columns: tokens in a row of a frame, which the rule "spatial" needs.

    Returns:
        `PrunedTokens`; the worst error never exceeds its threshold under the rules "anchor" and "spatial".

    Raises:
        ValueError: for an unknown rule, a budget that the rule cannot meet, or "spatial" without `columns`.
    """
    check_rule(rule)
    frames, locations = tokens.shape[:2]
    least = 1 if rule in _RULES and _RULES[rule].within_frame else locations
    if max_tokens is not None and max_tokens < least:
        raise ValueError(f"{rule!r} keeps {least} tokens of the first frame, more than the budget of {max_tokens}.")
    if rule == "none":
        if max_tokens is not None and frames * locations > max_tokens:
            raise ValueError(f"Nothing is pruned by 'none', and {frames * locations} tokens exceed {max_tokens}.")
        keep_mask = torch.ones(frames, locations, dtype=torch.bool, device=tokens.device)
        stand_in = torch.arange(frames * locations, device=tokens.device).view(frames, locations)
        zeros = torch.zeros(frames, locations, device=tokens.device)
        return PrunedTokens(keep_mask, stand_in, zeros, torch.full_like(zeros, float("inf")), 0.0)

    def attempt(raise_by: float) -> PrunedTokens:
        pruner = StreamingPruner(rule, threshold, peak_threshold, noise, columns)
        pruner.raise_thresholds(raise_by)
        return _scan(tokens, pruner)

    result = attempt(0.0)
    if max_tokens is None or int(result.keep_mask.sum()) <= max_tokens:
        return result
    # Between no raise and the largest possible difference, where the least stays that can: the budget is met there.
    too_low, enough = 0.0, LARGEST_DISTANCE
    result = attempt(enough)
    for _ in range(BUDGET_SEARCH_STEPS):
        raise_by = (too_low + enough) / 2
        tried = attempt(raise_by)
        if int(tried.keep_mask.sum()) <= max_tokens:
            enough, result = raise_by, tried
        else:
            too_low = raise_by
    return result


def reconstruct(tokens: torch.Tensor, pruned: PrunedTokens) -> torch.Tensor:
    """What the language model receives: each removed token (T, N, …) replaced by its stand-in."""
    return tokens.flatten(0, 1)[pruned.stand_in]
