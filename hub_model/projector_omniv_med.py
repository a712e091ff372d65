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
"""Projects visual tokens to the width of the language model, and tells it where each lies in its frame.

The encoder's rotary positions show it how far apart two tokens are, never where in the frame they lie, and to the
language model they are a row of tokens, out of which pruning takes some. Without a place of its own no token says
whether it is left or right.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import nn

from .configuration_omniv_med import OmniVMedConfig, OmniVMedVisionConfig
from .patch_positions_omniv_med import locate_tokens

WAVES = 4
"""Sines and cosines of a coordinate: of half a turn across the frame, one turn, two, four."""
OF_PLACE = 2 * 2 * WAVES
"""Features of a place: of both coordinates, sine and cosine of each wave."""


class OmniVMedProjector(nn.Module):
    """Two-layer GELU projector from vision to language width, with `config.projector_context` one of tokens in frames.

    Args:
        config: gives both widths.
    """

    def __init__(self, config: OmniVMedConfig):
        super().__init__()
        vision, hidden_size = cast(OmniVMedVisionConfig, config.vision_config), config.get_text_config().hidden_size
        self.readout = nn.Sequential(
            nn.Linear(vision.hidden_size, hidden_size), nn.GELU(), nn.Linear(hidden_size, hidden_size)
        )
        self.context = OmniVMedFrameContext(vision.hidden_size, hidden_size) if config.projector_context else None

    def forward(
        self,
        hidden_states: torch.Tensor,
        grid_thw: torch.Tensor,
        merge_sizes: torch.Tensor,
        keep_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Projects the tokens (kept tokens, vision hidden) of any number of clips: (kept tokens, language hidden).

        Args:
            hidden_states: the encoder's `last_hidden_state`.
            grid_thw, merge_sizes, keep_mask: those of the encoder's call.
        """
        projected = self.readout(hidden_states)
        if self.context is None:
            return projected
        return projected + self.context(hidden_states, *locate_tokens(grid_thw, merge_sizes, keep_mask))


class OmniVMedFrameContext(nn.Module):
    """What is added to each projected token: its place in the frame, and what the frame looks like as a whole.

    The place is given by Fourier features (Tancik et al., arXiv 2006.10739) of the token's middle; the whole by the
    mean and the highest value of each of the encoder's features over the tokens that the frame keeps. No other frame
    counts, so that a clip gives the same in one piece or several.
    """

    def __init__(self, vision_hidden_size: int, hidden_size: int):
        super().__init__()
        self.of_place = nn.Linear(OF_PLACE, hidden_size, bias=False)
        self.of_frame = nn.Linear(2 * vision_hidden_size, hidden_size, bias=False)

    def forward(self, hidden_states: torch.Tensor, frame: torch.Tensor, middle: torch.Tensor) -> torch.Tensor:
        """What to add to the tokens: (kept tokens, language hidden).

        Args:
            hidden_states: (kept tokens, vision hidden).
            frame, middle: see `locate_tokens`.
        """
        angles = math.pi * middle.unsqueeze(-1) * 2.0 ** torch.arange(WAVES, device=middle.device)
        place = torch.cat([angles.cos(), angles.sin()], dim=-1).flatten(1)
        _, position, counts = frame.unique_consecutive(return_inverse=True, return_counts=True)
        wide, into = hidden_states.float(), position.unsqueeze(1).expand_as(hidden_states)
        nothing = wide.new_zeros(len(counts), wide.shape[1])
        mean, highest = (nothing.scatter_reduce(0, into, wide, how, include_self=False) for how in ("mean", "amax"))
        # Adam moves all weights alike: undivided, its first steps would move so many features' sum too far.
        whole = torch.cat([mean, highest], dim=-1) / math.sqrt(2 * wide.shape[1])
        width = self.of_place.weight.dtype
        return self.of_place(place.to(width)) + self.of_frame(whole.to(width))[position]
