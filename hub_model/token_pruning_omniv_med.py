# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Medical-aware token pruning: which visual tokens of a clip repeat what was already seen at the same place.

Decided on pixels, before the model runs. A token is compared with the last *kept* token at its place, so what the
language model receives is never further from the truth than the threshold. Comparing with the previous frame (the
rule of OmniV-Med, arXiv 2504.14692, section 3.3, and of VideoLLaMA3) lets slow change drift away unseen; it stays
selectable as the baseline.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

PRUNE_RULES = ("anchor", "previous", "none")
BUDGET_SEARCH_STEPS = 24
LARGEST_DISTANCE = 2.0  # between two pixel values in [-1, 1]


@dataclass(frozen=True)
class PrunedTokens:
    """What the pruner decided for one clip of T frames with N tokens each.

    Attributes:
        keep_mask: bool (T, N), True where the token is kept; the first frame always is.
        stand_in: int64 (T, N), the frame whose kept token stands for this one (itself where kept).
        errors: float32 (T, N), mean absolute difference to the stand-in, in pixel values of [-1, 1].
        scores: float32 (T, N), the difference the rule looked at, over its threshold: above 1 was kept. With a
            peak threshold it is the larger of the two ratios. The first frame scores infinity.
        threshold: the threshold used, found by search where a budget was given.
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


def split_blocks(tokens: torch.Tensor, block: int) -> torch.Tensor:
    """Splits the patches of each token into square blocks, the units of the peak guard.

    Args:
        tokens: float (T, N, patches per token, channels, patch, patch) pixel values.
        block: side of a block in pixels; must divide the patch.

    Returns:
        float (T, N, blocks, channels·block²), the pixels of each block.
    """
    frames, locations, patches, channels, patch, _ = tokens.shape
    side = patch // block
    split = tokens.reshape(frames, locations, patches, channels, side, block, side, block)
    return split.permute(0, 1, 2, 4, 6, 3, 5, 7).reshape(frames, locations, patches * side * side, -1)


def _scan(
    blocks: torch.Tensor, rule: str, threshold: float, peak_threshold: float | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """One pass over the frames with one frame of state, vectorised over locations; see `PrunedTokens` for shapes."""
    frames, locations = blocks.shape[:2]
    keep_mask = torch.ones(frames, locations, dtype=torch.bool, device=blocks.device)
    stand_in = torch.zeros(frames, locations, dtype=torch.long, device=blocks.device)
    errors = torch.zeros(frames, locations, device=blocks.device)
    scores = torch.full((frames, locations), float("inf"), device=blocks.device)
    anchor = blocks[0].clone()
    for t in range(1, frames):
        to_anchor = (blocks[t] - anchor).abs().mean(dim=-1)
        compared = to_anchor if rule == "anchor" else (blocks[t] - blocks[t - 1]).abs().mean(dim=-1)
        difference = compared.mean(dim=-1)
        score = difference / max(threshold, 1e-12)
        keep = difference > threshold
        if peak_threshold is not None:
            peak = compared.amax(dim=-1)
            score = torch.maximum(score, peak / max(peak_threshold, 1e-12))
            keep = keep | (peak > peak_threshold)
        keep_mask[t], scores[t] = keep, score
        stand_in[t] = torch.where(keep, t, stand_in[t - 1])
        errors[t] = to_anchor.mean(dim=-1).masked_fill(keep, 0.0)
        anchor = torch.where(keep[:, None, None], blocks[t], anchor)
    return keep_mask, stand_in, errors, scores


def prune_tokens(
    tokens: torch.Tensor,
    rule: str = "anchor",
    threshold: float = 0.1,
    peak_threshold: float | None = None,
    max_tokens: int | None = None,
) -> PrunedTokens:
    """Decides which tokens of one clip to keep.

    Args:
        tokens: float (T, N, patches per token, channels, patch, patch), pixel values in [-1, 1].
        rule: "anchor" compares with the last kept token at the same place, "previous" with the frame before,
            "none" keeps everything.
        threshold: largest mean absolute difference of a removed token, in pixel values of [-1, 1] (0.1 is 5 % of
            the display range).
        peak_threshold: a token also stays when one block (half a patch wide) differs by more than this in its
            mean, so that a small lesion is not averaged away; None switches the guard off.
        max_tokens: budget in tokens. Where the thresholds keep more, both are raised by the same amount, the
            smallest that bisection finds to meet it. The first frame alone may not exceed it.

    Returns:
        `PrunedTokens`; the worst error never exceeds its threshold under the rule "anchor".

    Raises:
        ValueError: for an unknown rule, or a budget that the rule cannot meet.
    """
    if rule not in PRUNE_RULES:
        raise ValueError(f"prune_rule must be one of {PRUNE_RULES}, not {rule!r}.")
    frames, locations = tokens.shape[:2]
    if max_tokens is not None and max_tokens < locations:
        raise ValueError(f"A budget of {max_tokens} tokens is below the {locations} tokens of the first frame.")
    if rule == "none":
        if max_tokens is not None and frames * locations > max_tokens:
            raise ValueError(f"Nothing is pruned by 'none', and {frames * locations} tokens exceed {max_tokens}.")
        keep_mask = torch.ones(frames, locations, dtype=torch.bool, device=tokens.device)
        stand_in = torch.arange(frames, device=tokens.device)[:, None].expand(frames, locations)
        zeros = torch.zeros(frames, locations, device=tokens.device)
        return PrunedTokens(keep_mask, stand_in, zeros, torch.full_like(zeros, float("inf")), 0.0)

    patch = tokens.shape[-1]
    blocks = split_blocks(tokens.float(), patch // 2 if patch % 2 == 0 else patch)
    result = _scan(blocks, rule, threshold, peak_threshold)
    if max_tokens is None or int(result[0].sum()) <= max_tokens:
        return PrunedTokens(*result, threshold=threshold)

    # Between no raise and the largest possible difference, where only the first frame stays: the budget is met there.
    too_low, enough = 0.0, 1.0
    for step in range(BUDGET_SEARCH_STEPS + 1):
        raise_by = enough if step == 0 else (too_low + enough) / 2
        raised = threshold + raise_by * LARGEST_DISTANCE
        raised_peak = None if peak_threshold is None else peak_threshold + raise_by * LARGEST_DISTANCE
        attempt = _scan(blocks, rule, raised, raised_peak)
        if int(attempt[0].sum()) <= max_tokens:
            enough, result, found = raise_by, attempt, raised
        else:
            too_low = raise_by
    return PrunedTokens(*result, threshold=found)


def reconstruct(tokens: torch.Tensor, pruned: PrunedTokens) -> torch.Tensor:
    """What the language model receives: each removed token (T, N, …) replaced by its stand-in at the same place."""
    locations = torch.arange(tokens.shape[1], device=tokens.device)
    return tokens[pruned.stand_in, locations]
