# Copyright 2026 The OmniV-Med Authors. All rights reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""A convolutional network that adds to each patch's embedding what it sees around it, frame by frame.

A small encoder that is trained on a few thousand pictures learns more from features that photographs taught before.
This is the hybrid of Dosovitskiy et al. (arXiv 2010.11929, section 3.1), with both embeddings kept: the patch's own and
the network's. The network is EfficientNet-Lite0 (Tan and Le, arXiv 1905.11946), whose batch norms are folded into its
convolutions. It sees a frame at 16 pixels a patch, so that its map at stride 16 has one place for each patch.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

STEM_CHANNELS, HEAD_CHANNELS = 32, 1280
STAGES = ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192))
"""Blocks, kernel, stride, expansion and channels of each stage."""
LAST_STAGE = (1, 3, 1, 6, 320)
FINE_STAGES = 5
"""Stages up to stride 16, whose map has a place for each patch; the head's has one for two by two."""
FINE_CHANNELS = STAGES[FINE_STAGES - 1][-1]
PIXELS_OF_PATCH = 16
PATCHES_AT_ONCE, PATCHES_AT_ONCE_ON_CPU = 4096, 1024
"""Patches whose frames pass through the network together; bounds its activations, on a CPU to about its caches."""


class Convolution(nn.Conv2d):
    """A convolution padded as TensorFlow does ("same"): at stride 2 more at the end than at the beginning."""

    def __init__(self, channels: int, new_channels: int, kernel_size: int, stride: int = 1, groups: int = 1):
        super().__init__(channels, new_channels, kernel_size, stride, groups=groups)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        (kernel, _), (stride, _) = self.kernel_size, self.stride
        if kernel == 1:  # a matrix product of channels-last maps; PyTorch's own choice for it on one thread is slow
            channels_last = nn.functional.linear(maps.permute(0, 2, 3, 1), self.weight[:, :, 0, 0], self.bias)
            return channels_last.permute(0, 3, 1, 2)
        if stride == 1:
            return nn.functional.conv2d(maps, self.weight, self.bias, padding=kernel // 2, groups=self.groups)
        lacking = [max(-(-side // stride) * stride - stride + kernel - side, 0) for side in maps.shape[:1:-1]]
        padded = nn.functional.pad(maps, [half for side in lacking for half in (side // 2, side - side // 2)])
        return nn.functional.conv2d(padded, self.weight, self.bias, self.stride, groups=self.groups)


class InvertedBottleneck(nn.Module):
    """MobileNetV2's block (Sandler et al., arXiv 1801.04381): expand, convolve each channel, project."""

    def __init__(self, channels: int, new_channels: int, kernel_size: int, stride: int, expansion: int):
        super().__init__()
        wide = channels * expansion
        self.expand = Convolution(channels, wide, 1) if expansion > 1 else None
        self.depthwise = Convolution(wide, wide, kernel_size, stride, groups=wide)
        self.project = Convolution(wide, new_channels, 1)
        self.is_residual = stride == 1 and channels == new_channels

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        wide = maps if self.expand is None else nn.functional.relu6(self.expand(maps), inplace=True)
        projected = self.project(nn.functional.relu6(self.depthwise(wide), inplace=True))
        return maps + projected if self.is_residual else projected


class OmniVMedConvolutionalFeatures(nn.Module):
    """The network and the linear maps from its features to the width of the patches' embeddings.

    Args:
        hidden_size: width of an embedding.
    """

    def __init__(self, hidden_size: int):
        super().__init__()
        channels = STEM_CHANNELS
        self.stem = Convolution(3, channels, 3, stride=2)
        blocks = []
        for count, kernel_size, stride, expansion, new_channels in (*STAGES, LAST_STAGE):
            for place in range(count):
                blocks.append(
                    InvertedBottleneck(channels, new_channels, kernel_size, 1 if place else stride, expansion)
                )
                channels = new_channels
        self.blocks = nn.ModuleList(blocks)
        self.head = Convolution(channels, HEAD_CHANNELS, 1)
        self.from_fine = nn.Linear(FINE_CHANNELS, hidden_size, bias=False)
        self.from_head = nn.Linear(HEAD_CHANNELS, hidden_size)

    def maps(self, frames: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Features of frames (frames, 3, H, W) in [-1, 1]: (frames, 112, H/16, W/16), (frames, 1280, H/32, W/32)."""
        maps = nn.functional.relu6(self.stem(frames.contiguous(memory_format=torch.channels_last)), inplace=True)
        fine_blocks = sum(count for count, *_ in STAGES[:FINE_STAGES])
        for block in self.blocks[:fine_blocks]:
            maps = block(maps)
        fine = maps
        for block in self.blocks[fine_blocks:]:
            maps = block(maps)
        return fine, nn.functional.relu6(self.head(maps), inplace=True)

    def forward(
        self,
        pixel_values: torch.Tensor,
        grid_thw: torch.Tensor,
        merge_sizes: torch.Tensor,
        seen: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """What to add to the embedding of each patch.

        Args:
            pixel_values: float (patches, 3·patch²) in [-1, 1], all patches of all frames, merge blocks kept together.
            grid_thw: int64 (clips, 3), frames and patches per column and row.
            merge_sizes: int64 (clips,).
            seen: bool (frames of all clips,), False where a frame is left out; None takes all.

        Returns:
            (patches, hidden) in the order of `pixel_values`, zero for frames that are left out.
        """
        added = pixel_values.new_zeros(len(pixel_values), self.from_head.out_features)
        at_once = PATCHES_AT_ONCE_ON_CPU if pixel_values.device.type == "cpu" else PATCHES_AT_ONCE
        batches = _frames_of_one_size(
            grid_thw.tolist(), merge_sizes.tolist(), None if seen is None else seen.tolist(), at_once
        )
        for place, (rows, columns), merge in batches:
            order = _rows_first(rows, columns, merge, pixel_values.device)
            patches = pixel_values[place].view(-1, rows * columns, pixel_values.shape[1])
            fine, coarse = self.maps(_whole_frames(patches[:, order], rows, columns))
            fine = self.from_fine(fine.permute(0, 2, 3, 1))
            coarse = self.from_head(coarse.permute(0, 2, 3, 1))
            coarse = coarse.repeat_interleave(2, dim=1)[:, :rows].repeat_interleave(2, dim=2)[:, :, :columns]
            in_rows = (fine + coarse).flatten(1, 2)
            added[place] = in_rows[:, order.argsort()].flatten(0, 1).to(added.dtype)
        return added


def _frames_of_one_size(
    grids: list[list[int]], merge_sizes: list[int], seen: list[bool] | None, at_once: int
) -> Iterator[tuple[torch.Tensor, tuple[int, int], int]]:
    """Batches of frames of equal size that are seen, with `at_once` patches or those of one frame.

    Yields:
        Indices of their patches, patches per column and row, and the merge size.
    """
    frames: dict[tuple[int, int, int], list[int]] = {}
    frame, start = 0, 0
    for (count, rows, columns), merge in zip(grids, merge_sizes, strict=True):
        for _ in range(count):
            if seen is None or seen[frame]:
                frames.setdefault((rows, columns, merge), []).append(start)
            frame, start = frame + 1, start + rows * columns
    for (rows, columns, merge), starts in frames.items():
        for batch in torch.tensor(starts).split(max(at_once // (rows * columns), 1)):
            yield (batch[:, None] + torch.arange(rows * columns)).flatten(), (rows, columns), merge


def _rows_first(rows: int, columns: int, merge: int, device: torch.device) -> torch.Tensor:
    """int64 (patches of a frame,): where the patches of a frame, row by row, stand among its merge blocks."""
    place = torch.arange(rows * columns, device=device)
    return place.view(rows // merge, columns // merge, merge, merge).transpose(1, 2).flatten()


def _whole_frames(patches: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """Patches (frames, rows·columns, 3·patch²), row by row, as frames (frames, 3, 16·rows, 16·columns)."""
    side = round((patches.shape[-1] / 3) ** 0.5)
    split = patches.view(len(patches), rows, columns, 3, side, side)
    frames = split.permute(0, 3, 1, 4, 2, 5).reshape(len(patches), 3, rows * side, columns * side)
    if side == PIXELS_OF_PATCH:
        return frames
    size = (rows * PIXELS_OF_PATCH, columns * PIXELS_OF_PATCH)
    return nn.functional.interpolate(frames, size, mode="bilinear", antialias=side > PIXELS_OF_PATCH)
