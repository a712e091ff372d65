# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Pruning rules that look at visual embeddings, each written from its published description.

All take the embeddings of a clip, float (T, N, channels), and return an `Outcome`. Where a rule is given a number of
tokens it keeps exactly as many.
"""

from __future__ import annotations

import itertools
import math

import torch
from torch.nn.functional import normalize, softmax

from benchmarks.pruning_rules.outcome import Outcome, dropped, mask_of, merged

ALWAYS = 255.0
"""How different the first frame counts in EVS: more than any other can be."""
VIDCOM2_WIDTHS = (1 / 8, 1 / 4, 1 / 2, 1, 2)
VIDCOM2_TEMPERATURE = 0.01
MEDPRUNER_MASS, MEDPRUNER_TARGETS = 0.9, 0.05
FASTVID_SEGMENTS, FASTVID_SIMILARITY, FASTVID_CONTEXT, FASTVID_STRIDE, FASTVID_WEIGHT = 8, 0.9, 0.4, 4, 0.6
FASTVID_NEIGHBOURS = 4


def evs(embeddings: torch.Tensor, kept: int) -> Outcome:
    """Efficient video sampling, as vLLM and SGLang have it.

    The tokens that differ most, by one minus the cosine, from the same place in the frame before, over the whole clip;
    the first frame always.
    """
    unit = normalize(embeddings, dim=-1)
    changes = torch.full(embeddings.shape[:2], ALWAYS)
    changes[1:] = 1 - (unit[1:] * unit[:-1]).sum(dim=-1)
    order = changes.flatten().argsort(descending=True, stable=True)
    return dropped(mask_of(order[: max(kept, embeddings.shape[1])], *embeddings.shape[:2]), embeddings)


def vidcom2(embeddings: torch.Tensor, pruned_share: float, exact: bool = True) -> Outcome:
    """VidCom2 (vLLM; xuyang-liu16/VidCom2): frames that stand out keep more, and of each what is least typical.

    Args:
        embeddings: after the merger.
        pruned_share: share of all tokens to remove.
        exact: hold the total as vLLM does; without, each frame keeps what its own budget says, as the authors do.
    """
    frames, places, channels = embeddings.shape
    flat = embeddings.flatten(0, 1)
    quiet = flat.var(dim=0, unbiased=False).argsort(stable=True)[: channels // 2]
    unit = normalize(embeddings[..., quiet], dim=-1)
    video = _kernel(unit, unit.mean(dim=(0, 1)))
    scores = video + _kernel(unit, unit.mean(dim=1, keepdim=True))
    weight = softmax(-video.mean(dim=1) / VIDCOM2_TEMPERATURE, dim=0)
    share = ((1 - pruned_share) * (1 + weight - weight.mean())).clamp(max=1)
    budgets = (places * share).round().long().clamp(min=1)
    ranks = scores.argsort(dim=1, stable=True).argsort(dim=1)
    keep = ranks < budgets[:, None]
    if exact:
        missing = max(frames, int(frames * places * (1 - pruned_share))) - int(keep.sum())
        candidates = scores.masked_fill(keep if missing > 0 else ~keep, math.inf if missing > 0 else -math.inf)
        order = candidates.flatten().argsort(descending=missing < 0, stable=True)[: abs(missing)]
        keep.view(-1)[order] = missing > 0
    return dropped(keep, embeddings)


def _kernel(unit: torch.Tensor, centre: torch.Tensor) -> torch.Tensor:
    """Sum of Gaussian kernels of several widths between tokens (T, N, C) and a centre: (T, N)."""
    squared = (unit - centre).square().sum(dim=-1)
    return torch.stack([torch.exp(-squared / (2 * width)) for width in VIDCOM2_WIDTHS]).sum(dim=0)


def medpruner_tokens(
    received: torch.Tensor,
    keys: torch.Tensor,
    mass: float = MEDPRUNER_MASS,
    targets: float = MEDPRUNER_TARGETS,
) -> Outcome:
    """MedPruner's token stage (Saint-lsy/MedPruner), slice by slice.

    The fewest tokens whose softmax of received attention adds up to `mass`; of the others, some evenly strided ones
    take in the rest by the likeness of their keys. As published, what joins is added to a target, not averaged; we
    judge the rule by the average, which shows the same in the scale of a token.

    Args:
        received: float (T, N), attention that a token receives from all queries, mean over heads.
        keys: float (T, N, channels), head-averaged keys of the same layer.
    """
    frames, places = received.shape
    keep = torch.zeros(frames, places, dtype=torch.bool)
    target = torch.arange(frames * places).view(frames, places).clone()
    for time in range(frames):
        share = softmax(received[time], dim=0)
        order = share.argsort(descending=True, stable=True)
        dominant = order[: int((share[order].cumsum(dim=0) < mass - 1e-6).sum()) + 1]
        keep[time, dominant] = True
        chosen = _strided((~keep[time]).nonzero().squeeze(1), max(1, int(targets * places)))
        _join(keep[time], target[time], keys[time], chosen, time * places)
    return merged(keep, target, torch.ones_like(keep))


def visionzip(received: torch.Tensor, keys: torch.Tensor, dominant: int, contextual: int) -> Outcome:
    """VisionZip (dvlab-research/VisionZip): per frame the most attended tokens, and a few averages of the rest.

    Its encoder has a class token, whose attention it takes; ours has none, so received attention stands for it.

    Args:
        received: float (T, N), attention that a token receives.
        keys: float (T, N, channels).
        dominant, contextual: tokens of a frame that stay, and that take in the others.
    """
    frames, places = received.shape
    keep = torch.zeros(frames, places, dtype=torch.bool)
    target = torch.arange(frames * places).view(frames, places).clone()
    for time in range(frames):
        keep[time, received[time].argsort(descending=True, stable=True)[:dominant]] = True
        chosen = _strided((~keep[time]).nonzero().squeeze(1), contextual)
        _join(keep[time], target[time], keys[time], chosen, time * places)
    return merged(keep, target, torch.ones_like(keep))


def _strided(rest: torch.Tensor, count: int) -> torch.Tensor:
    """`count` of the places, evenly strided from the first."""
    return rest[:: max(len(rest) // count, 1)][:count] if len(rest) else rest


def _join(keep: torch.Tensor, target: torch.Tensor, keys: torch.Tensor, chosen: torch.Tensor, start: int) -> None:
    """Has every other removed token of one frame join the chosen one with the most similar key, in place."""
    rest = ~keep
    rest[chosen] = False
    if len(chosen) and rest.any():
        unit = normalize(keys.float(), dim=-1)
        target[rest] = start + chosen[(unit[rest] @ unit[chosen].T).argmax(dim=1)]
    keep[chosen] = True


def divprune(embeddings: torch.Tensor, kept: int) -> Outcome:
    """DivPrune (vbdi/divprune): the tokens that lie furthest apart, by one minus the cosine.

    First the token whose nearest neighbour is furthest away, then always the one furthest from all chosen ones.
    """
    unit = normalize(embeddings.flatten(0, 1).double(), dim=-1)
    nearest = torch.cat(
        [
            (1 - part @ unit.T)
            .index_put((torch.arange(len(part)), start + torch.arange(len(part))), torch.tensor(math.inf).double())
            .amin(dim=1)
            for start, part in zip(range(0, len(unit), 1024), unit.split(1024), strict=True)
        ]
    )
    chosen = [int(nearest.argmax())]
    distance = 1 - unit @ unit[chosen[0]]
    while len(chosen) < kept:
        distance[chosen[-1]] = -math.inf
        chosen.append(int(distance.argmax()))
        distance = torch.minimum(distance, 1 - unit @ unit[chosen[-1]])
    return dropped(mask_of(torch.tensor(chosen), *embeddings.shape[:2]), embeddings)


def cdpruner(embeddings: torch.Tensor, text_cosines: torch.Tensor, kept: int) -> Outcome:
    """CDPruner (Theia-4869/CDPruner): diverse tokens that fit the question, by a greedy determinantal point process.

    Args:
        embeddings: float (T, N, channels).
        text_cosines: float (T, N), mean cosine of a token with the question's; the rule negates it, as CLIP's
            attention runs the other way there.
        kept: number of tokens.
    """
    negated = -text_cosines.flatten().double()
    relevance = (negated - negated.min() + 1e-6) / (negated.max() - negated.min())
    unit = normalize(embeddings.flatten(0, 1).double(), dim=-1)
    gains = relevance.square()
    factors = torch.zeros(kept, len(unit), dtype=torch.float64)
    chosen: list[int] = []
    for step in range(kept):
        best = int(gains.argmax())
        row = relevance[best] * relevance * (unit @ unit[best])
        factor = (row - factors[:step, best] @ factors[:step]) / gains[best].sqrt()
        factors[step] = factor
        gains = gains - factor.square()
        gains[best] = -math.inf
        chosen.append(best)
    return dropped(mask_of(torch.tensor(chosen), *embeddings.shape[:2]), embeddings)


def fastvid_segments(frame_features: torch.Tensor, segments: int = FASTVID_SEGMENTS) -> list[int]:
    """Lengths of FastVID's segments: cut at the least similar neighbours, and wherever they are below 0.9.

    Args:
        frame_features: float (T, channels), of the encoder's pooling head.
    """
    unit = normalize(frame_features, dim=-1)
    similarity = (unit[1:] * unit[:-1]).sum(dim=-1)
    lowest = similarity.argsort(stable=True)[: segments - 1].tolist()
    cuts = sorted({*lowest, *(similarity < FASTVID_SIMILARITY).nonzero().squeeze(1).tolist()})
    edges = [0, *(cut + 1 for cut in cuts), len(unit)]
    return [end - start for start, end in itertools.pairwise(edges)]


def fastvid(
    embeddings: torch.Tensor,
    frame_features: torch.Tensor,
    saliency: torch.Tensor,
    kept_of_frame: int,
    segments: int = FASTVID_SEGMENTS,
) -> Outcome:
    """FastVID (LunarShen/FastVID): per frame the most salient tokens, per segment a few context tokens of averages.

    Args:
        embeddings: float (T, N, channels), projected and pooled.
        frame_features: float (T, channels).
        saliency: float (T, N), attention of the pooling head.
        kept_of_frame: tokens a frame keeps on average; 40 % of them are shared as context.
        segments: at least as many segments.
    """
    frames, places = saliency.shape
    context = int(kept_of_frame * FASTVID_CONTEXT)
    keep = torch.zeros(frames, places, dtype=torch.bool)
    order = saliency.argsort(dim=1, descending=True, stable=True)[:, : kept_of_frame - context]
    keep.scatter_(1, order, True)
    salient = keep.clone()
    target = torch.arange(frames * places).view(frames, places).clone()
    start = 0
    for length in fastvid_segments(frame_features, segments):
        anchors = list(range(start + length - 1, start - 1, -FASTVID_STRIDE))[::-1]
        each = context * length // len(anchors)
        picks: list[torch.Tensor] = [_density_peaks(embeddings[a], each, salient[a]) + a * places for a in anchors]
        centres = torch.cat(picks)
        keep.view(-1)[centres] = True
        segment = torch.zeros_like(keep)
        segment[start : start + length] = ~keep[start : start + length]
        rest = segment.flatten().nonzero().squeeze(1)
        unit = normalize(embeddings.flatten(0, 1).float(), dim=-1)
        if len(centres) and len(rest):
            target.view(-1)[rest] = centres[(unit[rest] @ unit[centres].T).argmax(dim=1)]
        start += length
    counts = torch.bincount(target.flatten()[~keep.flatten()], minlength=frames * places)
    own = torch.where(counts > 0, torch.maximum(torch.tensor(FASTVID_WEIGHT), 1 / (counts + 1)), torch.tensor(1.0))
    others = (1 - own) / counts.clamp(min=1)
    shares = torch.where(keep, own.view_as(keep), others[target])
    return Outcome(keep, target, shares)


def _density_peaks(tokens: torch.Tensor, count: int, taken: torch.Tensor) -> torch.Tensor:
    """Places of the tokens (N, C) that are dense and far from denser ones, as FastVID picks context tokens."""
    distance = torch.cdist(tokens.float(), tokens.float()) / math.sqrt(tokens.shape[-1])
    nearest = distance.topk(min(FASTVID_NEIGHBOURS, len(tokens)), largest=False).values
    density = torch.exp(-nearest.square().mean(dim=-1))
    denser = density[None, :] > density[:, None]
    apart = distance.masked_fill(~denser, math.inf).amin(dim=1)
    apart = torch.where(apart.isinf(), distance.amax(), apart)
    return (density * apart).masked_fill(taken, -math.inf).argsort(descending=True, stable=True)[:count]
