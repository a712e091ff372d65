# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""What any pruning rule decides about a clip, in one form, so that rules that drop and rules that merge compare."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn.functional import normalize


@dataclass(frozen=True)
class Outcome:
    """The decision of one rule for a clip of T frames with N tokens each.

    Attributes:
        keep_mask: bool (T, N), the tokens that the language model receives.
        stand_in: int64 (T, N), which kept token (frame · N + place) stands for each token; itself where kept.
        shares: float32 (T, N), how much each token adds to what its stand-in shows, for rules that merge; the shares
            of one stand-in add up to 1. None where kept tokens stay as they are.
    """

    keep_mask: torch.Tensor
    stand_in: torch.Tensor
    shares: torch.Tensor | None = None

    @property
    def kept(self) -> int:
        """Number of tokens that the language model receives."""
        return int(self.keep_mask.sum())

    def reconstruct(self, tokens: torch.Tensor) -> torch.Tensor:
        """What the language model is shown in the place of each of the tokens (T, N, …)."""
        flat, stand_in = tokens.flatten(0, 1), self.stand_in.flatten()
        if self.shares is not None:
            weighted = flat * self.shares.flatten().view(-1, *[1] * (flat.dim() - 1))
            flat = torch.zeros_like(flat).index_add_(0, stand_in, weighted)
        return flat[stand_in].view_as(tokens)


def dropped(keep_mask: torch.Tensor, features: torch.Tensor) -> Outcome:
    """The outcome of a rule that only drops tokens.

    Such rules do not say what stands for a dropped token. We are generous and take the kept token whose features are
    most alike, wherever it lies.

    Args:
        keep_mask: bool (T, N), at least one True.
        features: float (T, N, channels), what the rule itself looks at.
    """
    unit = normalize(features.flatten(0, 1).float(), dim=-1)
    kept = keep_mask.flatten().nonzero().squeeze(1)
    nearest = torch.cat([(part @ unit[kept].T).argmax(dim=1) for part in unit.split(1024)])
    stand_in = kept[nearest]
    stand_in[kept] = kept
    return Outcome(keep_mask, stand_in.view_as(keep_mask))


def merged(keep_mask: torch.Tensor, target: torch.Tensor, joins: torch.Tensor) -> Outcome:
    """The outcome of a rule that averages tokens into kept ones.

    Args:
        keep_mask: bool (T, N).
        target: int64 (T, N), the kept token that each token belongs to; itself where kept.
        joins: bool (T, N), which tokens count in the average; kept ones always do.
    """
    counted = (joins | keep_mask).float()
    sizes = torch.zeros(keep_mask.numel()).index_add_(0, target.flatten(), counted.flatten())
    return Outcome(keep_mask, target, counted / sizes[target])


def last_kept(keep_mask: torch.Tensor) -> Outcome:
    """Each removed token is shown as the last kept one at its place; the first frame must be kept."""
    frames, places = keep_mask.shape
    times = torch.where(keep_mask, torch.arange(frames)[:, None], 0).cummax(dim=0).values
    return Outcome(keep_mask, times * places + torch.arange(places))


def mask_of(chosen: torch.Tensor, frames: int, places: int) -> torch.Tensor:
    """A mask (T, N) that is True at flat indices."""
    mask = torch.zeros(frames * places, dtype=torch.bool)
    mask[chosen] = True
    return mask.view(frames, places)
