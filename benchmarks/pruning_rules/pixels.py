# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Pruning rules that look at pixels, each written from its published description.

All take tokens float (T, N, …) with pixel values in [-1, 1] and return an `Outcome`.
"""

from __future__ import annotations

import torch

from benchmarks.pruning_rules.outcome import Outcome, last_kept

GREY_LEVELS = 255.0


def previous_frame(tokens: torch.Tensor, threshold: float = 0.1) -> Outcome:
    """Drops what differs little from the frame before (the OmniV-Med paper, arXiv 2504.14692, and Hulu-Med)."""
    return last_kept(_differs_from_previous(tokens) > threshold)


def videollama3(tokens: torch.Tensor, threshold: float = 0.1) -> Outcome:
    """The mask of transformers' VideoLlama3: as `previous_frame`, but the threshold counts grey levels of 255.

    A frame with nothing left keeps its first token.
    """
    keep = GREY_LEVELS * _differs_from_previous(tokens) > threshold
    keep[:, 0] |= ~keep.any(dim=1)
    return last_kept(keep)


def _differs_from_previous(tokens: torch.Tensor) -> torch.Tensor:
    """Mean absolute difference (T, N) to the frame before, infinite in the first one."""
    difference = (tokens[1:] - tokens[:-1]).abs().flatten(2).mean(dim=-1)
    first = torch.full((1, tokens.shape[1]), float("inf"))
    return torch.cat([first, difference])


def pixelprune(tokens: torch.Tensor, columns: int, threshold: float, anchored: bool = True) -> Outcome:
    """PixelPrune (OPPO-Mente-Lab/PixelPrune): within each frame, drops what a neighbour predicts.

    The predictor is the neighbour above where left and upper-left are the same and upper-left and above are not, else
    the left one. A token is dropped when no pixel differs from the prediction by more than the threshold.

    Args:
        tokens: pixel values in [0, 1], (T, N, …); a frame's N tokens row after row.
        columns: tokens in a row.
        threshold: largest absolute difference of a pixel; 0 drops exact copies only, as its default does.
        anchored: compare with what the neighbours are shown as, so that errors do not add up; without, with the
            neighbours' own pixels.
    """
    frames, places = tokens.shape[:2]
    flat = tokens.flatten(2)
    shown = torch.arange(frames * places).view(frames, places)
    keep = torch.ones(frames, places, dtype=torch.bool)
    for place in range(1, places):
        row, column = divmod(place, columns)
        left, above, corner = place - 1, place - columns, place - columns - 1

        def look(neighbour: int) -> torch.Tensor:
            return flat.flatten(0, 1)[shown[:, neighbour]] if anchored else flat[:, neighbour]

        if row == 0 or column == 0:
            predictor = torch.full((frames,), left if row == 0 else above)
        else:
            near = (look(corner) - look(left)).abs().amax(dim=-1) <= threshold
            far = (look(corner) - look(above)).abs().amax(dim=-1) > threshold
            predictor = torch.where(near & far, above, left)
        neighbour = shown[torch.arange(frames), predictor]
        predicted = flat.flatten(0, 1)[neighbour] if anchored else flat[torch.arange(frames), predictor]
        drop = (flat[:, place] - predicted).abs().amax(dim=-1) <= threshold
        keep[:, place] = ~drop
        shown[:, place] = torch.where(drop, neighbour, shown[:, place])
    return Outcome(keep, shown)


def medpruner_slices(tokens: torch.Tensor, threshold: float = 0.05) -> torch.Tensor:
    """MedPruner's slice filter (Saint-lsy/MedPruner): bool (T,), the slices that are kept.

    A slice is kept when it differs from the last kept one by more than the threshold in the mean over all its pixels.
    """
    keep = torch.ones(len(tokens), dtype=torch.bool)
    anchor = tokens[0]
    for time in range(1, len(tokens)):
        keep[time] = (tokens[time] - anchor).abs().mean() > threshold
        if keep[time]:
            anchor = tokens[time]
    return keep


def uniform_frames(frames: int, places: int, kept_frames: int) -> Outcome:
    """Evenly spaced frames (linspace from the first to the last, cut to whole numbers), all of their tokens."""
    chosen = torch.linspace(0, frames - 1, kept_frames, dtype=torch.float64).long()
    keep = torch.zeros(frames, places, dtype=torch.bool)
    keep[chosen] = True
    nearest = chosen[(torch.arange(frames)[:, None] - chosen).abs().argmin(dim=1)]
    return Outcome(keep, nearest[:, None] * places + torch.arange(places))


def random_tokens(frames: int, places: int, kept: int, generator: torch.Generator) -> Outcome:
    """The first frame, and tokens drawn at random from the rest: `kept` in all."""
    keep = torch.zeros(frames * places, dtype=torch.bool)
    keep[:places] = True
    keep[places + torch.randperm((frames - 1) * places, generator=generator)[: kept - places]] = True
    return last_kept(keep.view(frames, places))
