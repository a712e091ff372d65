# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The pruning rule "anchor" on an NVIDIA GPU: groups of frames at once, in few operations and without waiting.

A GPU takes longer to start an operation on a few tokens than to finish it. So what frame after frame would ask one by
one is measured for all pairs of a group's frames at once, and what is decided from it is found by a parallel prefix
scan (Hillis and Steele, Communications of the ACM 29, 1986): each frame is a function from what was known before it to
what is known after it, and functions are composed pairwise, in as many steps as the group's size has binary digits.

The rule "spatial" has no such form. Within a frame a token may show what its neighbour shows, and that may be any kept
token left of it or above it, or of an earlier frame: a function of that would be a table over all of them.
"""

from __future__ import annotations

import math
from functools import cache
from typing import NamedTuple

import torch

from .token_differences_omniv_med import EMPTY_LEVEL, patch_means, sum_and_peak

FRAMES_IN_GROUP = 32
"""Most frames of a group. Each is compared with all others: twice as many halve the operations and double the work."""
VALUES_AT_ONCE = 2**26
"""Pixel values whose differences are in memory at once: 21 frames of 64 tokens with 2,352 values are a group."""


def is_judged_on_device(tokens: torch.Tensor) -> bool:
    """Whether tokens are judged where they are: on an NVIDIA GPU. From anywhere else the CPU takes them."""
    return tokens.is_cuda


class DeviceAnchor:
    """Judges a clip by the rule "anchor", on the device of its first frame. All it keeps of the past is one frame.

    Masks, stand-ins, errors and scores are those of the form for CPUs, to rounding. Sums are as exact as
    `torch.set_float32_matmul_precision` lets products of matrices be.

    Args:
        frame: (N, patches per token, channels, patch, patch), the first frame.
        limits: float (2, 1), those of `sum_and_peak`.
        colour_limit: how far colours of empty background may lie apart.
        blocks: how many blocks a token has.
    """

    def __init__(self, frame: torch.Tensor, limits: torch.Tensor, colour_limit: float, blocks: int):
        self.device = frame.device
        self._limits, self._colour_limit, self._blocks = limits.to(self.device), colour_limit, blocks
        # What differs in a group are its frames from each other and from the frame that is kept of the past.
        self._group = max(1, min(FRAMES_IN_GROUP, math.isqrt(VALUES_AT_ONCE // frame.numel())))
        self._frames_seen = 0
        self._pixels = frame.float()
        self._background = torch.full_like(frame[:, 0, :, 0, 0], math.nan, dtype=torch.float32)  # nothing is near
        self._every = torch.arange(len(frame), device=self.device)
        self._shown, self._background_shown = torch.zeros_like(self._every), torch.zeros_like(self._every)

    @torch.no_grad()
    def judge(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """The fields of `FrameDecision` for the next T frames (T, N, …), each (T, N)."""
        with torch.autocast(tokens.device.type, enabled=False):
            colours, empty = self._empty_background(tokens)
            groups = -(-len(tokens) // self._group)  # of equal size, but perhaps the last
            chunks = (part.chunk(groups) for part in (tokens, colours, empty))
            judged = [self._judge_group(*group) for group in zip(*chunks, strict=True)]
        keep = torch.cat([kept for kept, _ in judged])
        distances = torch.cat([distance for _, distance in judged], dim=1)
        return self._decision(keep, empty, distances)

    def _decision(
        self, keep: torch.Tensor, empty: torch.Tensor, distances: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """What `judge` returns, of all its frames; `distances` (2, T, N) are those to what was compared with."""
        count, places = keep.shape
        own = torch.arange(count * places, device=self.device).view(count, places)
        own += (self._frames_seen - count) * places
        ratios = distances / self._limits.unsqueeze(2)
        returned = (distances > self._limits.unsqueeze(2)).any(dim=0) & ~keep
        shown = torch.where(keep, own, self._shown).cummax(dim=0).values
        background = torch.where(keep & empty, own, self._background_shown).cummax(dim=0).values
        self._shown, self._background_shown = shown[-1], background[-1]
        stand_in = torch.where(returned, background, shown)
        errors = (distances[0] / self._blocks).masked_fill_(returned, math.nan).masked_fill_(keep, 0.0)
        scores = ratios.amax(dim=0)
        if self._frames_seen == count:
            scores[0].fill_(math.inf)
        return keep, stand_in, errors, scores

    def _empty_background(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """As the function of that name, but without the short cuts for which it looks at values.

        The colours of what is no empty background are nan, so that they are near to none.
        """
        count, places, patches = tokens.shape[:3]
        colours = patch_means(tokens).view(count, places, patches, -1).mean(dim=2)
        flat = []
        for frames, of_frames in zip(tokens.split(self._group**2), colours.split(self._group**2), strict=True):
            differences = frames.float() - of_frames[:, :, None, :, None, None]
            flat.append((sum_and_peak(differences.abs_().flatten(0, 1)) <= self._limits / 4).all(dim=0))
        empty = (colours.amax(dim=-1) <= EMPTY_LEVEL) & torch.cat(flat).view(count, places)
        return colours.masked_fill_(~empty.unsqueeze(2), math.nan), empty

    def _judge_group(
        self, frames: torch.Tensor, colours: torch.Tensor, empty: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Which tokens of the next K frames are kept (K, N), and `sum_and_peak` to what was compared with (2, K, N).

        In each dimension of candidates, 0 is what was kept of the past and k is frame k of the group, from 1 on.
        """
        count, places = empty.shape
        known = _known(count, self.device)
        pixels = torch.cat([self._pixels.unsqueeze(0), frames.float()])
        backgrounds = torch.cat([self._background.unsqueeze(0), colours])
        differences = (pixels[1:].unsqueeze(1) - pixels).abs_()
        distances = sum_and_peak(differences.flatten(0, 2)).view(2, count, count + 1, places)
        far = (distances > self._limits[:, :, None, None]).any(dim=0)
        if self._frames_seen == 0:
            far[0, 0].fill_(True)
        near = (colours.unsqueeze(1) - backgrounds).abs_().amax(dim=-1) <= self._colour_limit
        kept = far.unsqueeze(2) > near.unsqueeze(1)  # far and not near: (K, last kept, last background, N)
        if_kept = torch.where(empty.unsqueeze(1), known.if_background, known.if_body)
        after = torch.where(kept, if_kept.unsqueeze(1), known.as_before)
        # What is known after frame k by what was known before it, k from 1 on; after 0, the past, it is as before.
        after = torch.cat([known.as_before.expand(1, -1, -1, places), after]).flatten(1, 2)
        reach = 1
        while reach < count:  # after[k] starts from what was known before the last `reach` frames up to k
            after[reach:] = after[reach:].gather(1, after[:-reach])
            reach *= 2
        last_kept, last_background = after[:, 0] // (count + 1), after[-1, 0] % (count + 1)
        self._pixels = pixels[last_kept[-1], self._every]
        self._background = backgrounds[last_background, self._every]
        self._frames_seen += count
        compared = last_kept[:-1].unsqueeze(1).expand(2, -1, -1, -1)
        return last_kept[1:] == known.frames, distances.gather(2, compared).squeeze(2)


class _Known(NamedTuple):
    """What may be known of a place in a group of K frames, as numbers: last kept token · (K + 1) + last background.

    Attributes:
        frames: (K, 1), the group's frames as candidates, from 1 on.
        if_background, if_body: (K, 1, 1) and (K, K + 1, 1), what is known once a token of a frame is kept that is
            empty background, or is none, by the background that was known before.
        as_before: (K + 1, K + 1, 1), what was known before.
    """

    frames: torch.Tensor
    if_background: torch.Tensor
    if_body: torch.Tensor
    as_before: torch.Tensor


@cache
def _known(count: int, device: torch.device) -> _Known:
    """The numbers for a group of so many frames."""
    as_before = torch.arange((count + 1) ** 2, device=device).view(count + 1, count + 1, 1)
    if_background = as_before.squeeze(2).diagonal()[1:].clone()
    return _Known(as_before[0, 1:], if_background.view(-1, 1, 1), as_before[1:], as_before)
