# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""What the pruner compares: the pixels that are shown at each place, tokens beside each other, and empty background.

Tokens are compared by blocks half a patch wide: the sum and the maximum of the blocks' mean differences say how far
apart two of them are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray

TOKENS_AT_ONCE = 32
"""Tokens that are copied for a comparison at once: few, as copies that leave a processor's cache cost the most."""

EMPTY_LEVEL = -0.75
"""Brightest channel mean of empty background: air is at −0.8 in the widest CT window, black is −1."""

Numbers = NDArray[np.float32]
Truths = NDArray[np.bool_]
Indices = NDArray[np.int64]


def block_means(tokens: torch.Tensor) -> torch.Tensor:
    """Means of the square blocks half a patch wide, the units of the peak guard; an odd patch is one block.

    Args:
        tokens: float32 (N, patches per token, channels, patch, patch).

    Returns:
        float32 (N, patches per token, blocks per patch), as exact as `torch.set_float32_matmul_precision` lets products
        of matrices be: one takes a third to a quarter of the time of `avg_pool3d`.
    """
    places, patches, channels, patch, _ = tokens.shape
    weights = block_weights(channels, patch, tokens.device)
    means = torch.mm(weights, tokens.reshape(places * patches, weights.shape[1]).T)
    return means.view(len(weights), places, patches).permute(1, 2, 0)


@cache
def block_weights(channels: int, patch: int, device: torch.device) -> torch.Tensor:
    """What each pixel of a patch adds to the mean of each of its blocks, (blocks per patch, channels · patch²)."""
    side = patch // 2 if patch % 2 == 0 else patch
    along = torch.eye(patch // side, device=device).repeat_interleave(side, dim=1)
    return torch.kron(along, along).repeat(1, channels) / (channels * side**2)


def sum_and_peak(differences: torch.Tensor) -> torch.Tensor:
    """Sum and maximum of the block means of each of the tokens (N, …) of absolute differences: (2, N).

    Over the number of blocks the sum is the token's mean, which torch takes twice as long for.
    """
    blocks = block_means(differences)
    return torch.stack([blocks.sum(dim=(1, 2)), blocks.amax(dim=(1, 2))])


def patch_means(tokens: torch.Tensor) -> torch.Tensor:
    """Mean colours of the patches of tokens (T, N, …): float32 (T · N, patches per token, channels)."""
    return tokens.flatten(0, 1).mean(dim=(-2, -1), dtype=torch.float32)


def empty_background(
    tokens: torch.Tensor, patches: torch.Tensor, limits: torch.Tensor, blocks: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Colours (T, N, channels) of tokens, and which of these are empty background (T, N): dark and flat.

    `patches` are the means of their patches (T · N, patches per token, channels). Flat is what differs from its own
    colour by no more than the limits (2, 1) of `sum_and_peak`, for so many blocks.
    """
    every = tokens.flatten(0, 1)
    colours = patches.mean(dim=1)
    brightest = colours.amax(dim=-1)
    # The pixels of a patch differ from the colour by no less than their mean does: uneven patches are not flat.
    unevenness = (patches - colours.unsqueeze(1)).abs_().mean(dim=(-2, -1))
    empty = (brightest <= EMPTY_LEVEL) & (unevenness * blocks <= limits[0])
    # The blocks' means lie above -1 by no more than their sum does, so what is all but black is surely flat.
    surely = (brightest + 1) * (2 * blocks) <= limits.amin()
    for unsure in (empty & ~surely).nonzero().squeeze(1).split(TOKENS_AT_ONCE):
        colour = colours.index_select(0, unsure)[:, None, :, None, None]
        differences = every.index_select(0, unsure).float().sub_(colour).abs_()
        empty.index_copy_(0, unsure, (sum_and_peak(differences) <= limits).all(dim=0))
    return colours.view(*tokens.shape[:2], -1), empty.view(tokens.shape[:2])


class Neighbourhood:
    """Which tokens of a frame lie left of each, above it and between; row after row, `columns` in a row.

    Attributes:
        background: int64 (1,), the place that follows all others; it counts as a neighbour of each.
        of: int64 (places, 4), the neighbours; the one after the background where there is none.
    """

    def __init__(self, places: int, columns: int):
        if places % columns:
            raise ValueError(f"{places} tokens are no whole number of rows of {columns} columns.")
        every = np.arange(places)
        row, column = every // columns, every % columns
        left = np.where(column > 0, every - 1, places + 1)
        above = np.where(row > 0, every - columns, places + 1)
        between = np.where((row > 0) & (column > 0), every - columns - 1, places + 1)
        self.background = np.array([places])
        self.of = np.stack([left, above, between, np.full_like(every, places)], axis=1)

    def alike(self, means: torch.Tensor, limit: float) -> Truths:
        """Which tokens (T, N) differ by no more than a limit from a neighbour, in their means (T, N, any)."""
        padded = torch.nn.functional.pad(means, (0, 0, 0, 2), value=math.inf)
        sides = (means - padded[:, torch.from_numpy(self.of[:, side])] for side in range(3))
        near = [difference.abs_().mean(dim=-1) <= limit for difference in sides]
        return torch.stack(near).any(dim=0).numpy()

    def in_rounds(self, chosen: Truths) -> Iterator[Indices]:
        """Yields the places of a mask (N,), each as soon as those of its neighbours have had their turn.

        A whole frame goes by anti-diagonals; of a few places most come in the first round.
        """
        waiting = np.append(chosen, [False, False])
        while len(remaining := waiting.nonzero()[0]):
            places = remaining[~waiting[self.of[remaining, :3]].any(axis=1)]
            yield places
            waiting[places] = False


class ShownPixels:
    """The pixels that are shown at each place, and how far others are from these.

    Every difference is `sum_and_peak` of absolute ones, float32 (2, number of tokens).

    Args:
        frame: (N, …), shown first.
        more_places: how many places follow those of the frame, 0 or 1; what is shown there means nothing yet.
    """

    def __init__(self, frame: torch.Tensor, more_places: int):
        self._shown = torch.cat([frame, frame[:more_places]]).to("cpu", torch.float32).contiguous()
        self._rows = self._shown.numpy()
        self._at_places = self._shown[: len(frame)]
        # Reused, so that it stays in the processor's cache; and what the shapes alone decide is done once.
        self._difference = torch.empty(frame.shape)
        places, patches, channels, patch, _ = frame.shape
        self._weights = block_weights(channels, patch, self._shown.device)
        self._columns = self._difference.view(places * patches, -1).T
        self._blocks = torch.empty(len(self._weights), places * patches)
        self._by_token = self._blocks.view(-1, places, patches).permute(1, 2, 0)
        found = torch.empty(2, places)
        (self._sum, self._peak), self._found = found, found.numpy()

    def differences(self, frame: torch.Tensor) -> Numbers:
        """Of the tokens of a frame (N, …) from what is shown at their places, until the next call."""
        torch.sub(frame, self._at_places, out=self._difference).abs_()
        torch.mm(self._weights, self._columns, out=self._blocks)
        torch.sum(self._by_token, dim=(1, 2), out=self._sum)
        torch.amax(self._by_token, dim=(1, 2), out=self._peak)
        return self._found

    def differences_of(self, frame: torch.Tensor, places: Indices, shown_at: Indices) -> Numbers:
        """Of the tokens of a frame (N, …) at these places from what is shown at one other place, (1,)."""
        return self._measured(frame.numpy()[places] - self._rows[shown_at])

    def differences_between(self, places: Indices, others: Indices) -> Numbers:
        """Of what is shown at these places from what is shown at as many others."""
        return self._measured(self._rows[places] - self._rows[others])

    def show(self, frame: torch.Tensor, places: Indices) -> None:
        """Shows the tokens of a frame (N, …) at these of its places."""
        self._rows[places] = frame.numpy()[places]

    def show_all(self, frame: torch.Tensor) -> None:
        """Shows a frame (N, …) itself, at all places."""
        self._at_places = frame

    def copy(self, places: Indices, others: Indices) -> None:
        """Shows at these places what is shown at as many others."""
        self._rows[places] = self._rows[others]

    def _measured(self, differences: Numbers) -> Numbers:
        return sum_and_peak(torch.from_numpy(np.abs(differences, out=differences))).numpy()
