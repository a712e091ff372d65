# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Where the patches of clips lie: the position and the token of any of them, computed when asked.

So the encoder, which goes through a clip in steps, holds these for one step's patches and not for those of every frame.
"""

import torch

from .configuration_omniv_med import OmniVMedVisionConfig


def locate_frames(grid_thw: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Which clip each frame belongs to, and how many frames of it stand before: int64 (frames of all clips,) each."""
    frames = grid_thw[:, 0]
    clip = torch.repeat_interleave(frames)
    return clip, torch.arange(len(clip), device=clip.device) - (frames.cumsum(0) - frames)[clip]


def locate_tokens(
    grid_thw: torch.Tensor, merge_sizes: torch.Tensor, keep_mask: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Where the merged tokens of clips lie.

    Args:
        grid_thw: int64 (clips, 3), frames and patches per column and row.
        merge_sizes: int64 (clips,).
        keep_mask: bool (merged tokens,), False where a token is left out; None keeps all.

    Returns:
        The frame of each kept token, counted over all clips: int64 (kept tokens,), rising; and its middle, down and
        across, as shares of the frame's sides: float32 (kept tokens, 2).
    """
    clip_of_frame, _ = locate_frames(grid_thw)
    rows, columns = (grid_thw[:, 1:] // merge_sizes[:, None])[clip_of_frame].unbind(dim=1)
    frame = torch.repeat_interleave(rows * columns)
    place = torch.arange(len(frame), device=frame.device)
    if keep_mask is not None:
        frame, place = frame[keep_mask], place[keep_mask]
    place = place - ((rows * columns).cumsum(0) - rows * columns)[frame]
    down, across = place // columns[frame] + 0.5, place % columns[frame] + 0.5
    return frame, torch.stack([down / rows[frame], across / columns[frame]], dim=-1)


class ClipPatches:
    """The patches of clips in the order of `pixel_values`: frames, merge blocks, patches inside.

    Args:
        grid_thw: int64 (clips, 3), frames and patches per column and row.
        merge_sizes: int64 (clips,).
        frame_positions: float (frames of all clips,), millimetres or seconds; None counts frames.
        patch_spacing: float (clips,), millimetres per patch, 0 where unknown.
    """

    def __init__(
        self,
        grid_thw: torch.Tensor,
        merge_sizes: torch.Tensor,
        config: OmniVMedVisionConfig,
        frame_positions: torch.Tensor | None = None,
        patch_spacing: torch.Tensor | None = None,
    ):
        self.clip_of_frame, frame = locate_frames(grid_thw)
        self.columns, self.merge_sizes = grid_thw[:, 2], merge_sizes
        self.per_frame = (grid_thw[:, 1] * grid_thw[:, 2])[self.clip_of_frame]
        self.patch_ends = self.per_frame.cumsum(0)
        self.tokens_per_frame = self.per_frame // merge_sizes[self.clip_of_frame] ** 2
        self.token_starts = self.tokens_per_frame.cumsum(0) - self.tokens_per_frame
        self.scale = torch.ones(len(grid_thw), device=frame.device)
        depth = frame.float()
        if config.position_unit == "physical":
            known = torch.zeros(len(grid_thw), dtype=torch.bool, device=frame.device)
            if patch_spacing is not None:
                spacing = patch_spacing.to(frame.device)
                known = spacing > 0
                self.scale = torch.where(known, spacing.double() / config.reference_length, 1.0).float()
            if frame_positions is not None:
                depth = frame_positions.to(frame.device).float()
                depth = torch.where(known[self.clip_of_frame], depth / config.reference_length, depth)
        window_start = torch.arange(len(frame), device=frame.device) - frame % config.temporal_window
        self.depth = depth - depth[window_start]

    def _frame_and_place(self, patches: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The frame of each patch, and how many patches of it stand before."""
        frame = torch.searchsorted(self.patch_ends, patches, right=True)
        return frame, patches - (self.patch_ends - self.per_frame)[frame]

    def positions(self, patches: torch.Tensor) -> torch.Tensor:
        """Rotary positions (z, y, x) of patches (…,): float32 (…, 3).

        With `position_unit="physical"` y and x are millimetres (where `patch_spacing` is known) and z is millimetres
        or, for clips without a spacing such as videos, seconds. z counts from the first frame of its temporal window,
        which changes no attention (rotary embeddings see differences only) and keeps single frames exactly
        two-dimensional.
        """
        frame, place = self._frame_and_place(patches)
        clip = self.clip_of_frame[frame]
        merge = self.merge_sizes[clip]
        block, inside = place // merge**2, place % merge**2
        blocks_in_row = self.columns[clip] // merge
        rows = block // blocks_in_row * merge + inside // merge
        columns = block % blocks_in_row * merge + inside % merge
        plane = torch.stack([rows, columns], dim=-1).float() * self.scale[clip].unsqueeze(-1)
        return torch.cat([self.depth[frame].unsqueeze(-1), plane], dim=-1)

    def tokens(self, patches: torch.Tensor) -> torch.Tensor:
        """The merged token that each of the patches (…,) belongs to: int64 (…,)."""
        frame, place = self._frame_and_place(patches)
        return self.token_starts[frame] + place // self.merge_sizes[self.clip_of_frame[frame]] ** 2
