# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Clips of tokens that hypothesis makes up, for what the pruner promises of any clip."""

from __future__ import annotations

import torch
from hypothesis import strategies as st


@st.composite
def clips(draw: st.DrawFn, min_frames: int = 1) -> torch.Tensor:
    """Tokens (T, N, patches, channels, patch, patch) that drift, jump, stand still and give way to black.

    Neighbours may be alike. A frame is as square as its number of tokens allows, see `columns_of`.
    """
    frames, locations = draw(st.integers(min_frames, 9)), draw(st.sampled_from([1, 2, 3, 4, 6, 9]))
    patches, patch = draw(st.sampled_from([1, 4])), draw(st.sampled_from([1, 2, 3, 4]))
    step = draw(st.sampled_from([0.0, 0.03, 0.1, 0.5]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    start = torch.rand(1, locations, patches, 3, patch, patch, generator=generator) * 2 - 1
    likeness = draw(st.sampled_from([0.0, 0.9, 1.0]))
    start = likeness * start[:, :1] + (1 - likeness) * start
    steps = torch.randn(frames, locations, 1, 1, 1, 1, generator=generator) * step
    grain = torch.randn(frames, locations, patches, 3, patch, patch, generator=generator) * step / 4
    moving = (start + steps.cumsum(0) + grain).clamp(-1, 1)
    black = torch.rand(frames, locations, generator=generator) < draw(st.sampled_from([0.0, 0.5]))
    return torch.where(black.view(frames, locations, 1, 1, 1, 1), grain.abs().clamp(max=0.05) - 1, moving)


def columns_of(tokens: torch.Tensor) -> int:
    """Columns of a frame of N tokens: its largest divisor up to the root."""
    return max(side for side in range(1, 4) if tokens.shape[1] % side == 0 and side**2 <= tokens.shape[1])
