# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""What pruning rules look at that know more than pixels: embeddings, keys and received attention of a model's encoder.

Reads only the encoder and the projector of a model folder, not its language model.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import safe_open

from hub_model.configuration_omniv_med import OmniVMedConfig
from hub_model.modeling_omniv_med import OmniVMedVisionModel
from hub_model.processing_omniv_med import ProcessedClip
from hub_model.projector_omniv_med import OmniVMedProjector

WEIGHTS = "model.safetensors"
PARTS = {"vision_model": "model.vision_model.", "projector": "model.projector."}


class EncoderView(NamedTuple):
    """One clip of T frames with N tokens each.

    Attributes:
        embeddings: float32 (T, N, language hidden), projected.
        received: float32 (T, N), attention that a token receives in the last layer from all queries of its window,
            mean over heads and patches.
        keys: float32 (T, N, head dim) of the same layer, mean over heads and patches.
    """

    embeddings: torch.Tensor
    received: torch.Tensor
    keys: torch.Tensor


class ClipEncoder:
    """A model's encoder and projector.

    Raises:
        FileNotFoundError: when the folder holds no weights.
    """

    def __init__(self, folder: Path):
        if not (folder / WEIGHTS).is_file():
            raise FileNotFoundError(f"{folder / WEIGHTS} is missing; assemble the model with 'make model'.")
        config = OmniVMedConfig.from_pretrained(folder)
        self.vision_model = OmniVMedVisionModel._from_config(config.vision_config, attn_implementation="eager").eval()
        self.projector = OmniVMedProjector(config).eval()
        with safe_open(folder / WEIGHTS, "pt") as weights:
            for part, prefix in PARTS.items():
                names = [name for name in weights.keys() if name.startswith(prefix)]  # noqa: SIM118 - no dictionary
                state = {name.removeprefix(prefix): weights.get_tensor(name).float() for name in names}
                getattr(self, part).load_state_dict(state)

    @torch.inference_mode()
    def view(self, processed: ProcessedClip, tokens: torch.Tensor) -> EncoderView:
        """Encodes tokens (T, N, …) that have the grid and the places of a processed clip, window by window."""
        merge = processed.merge_size
        positions = torch.as_tensor(processed.clip.positions).float()
        found: dict[str, list[torch.Tensor]] = {"embeddings": [], "received": [], "keys": []}
        last = self.vision_model.encoder.layers[-1].self_attn

        def of_tokens(values: torch.Tensor) -> torch.Tensor:
            """Means over the patches of each token: (windows, length, …) to (tokens, …)."""
            return values.flatten(0, 1).unflatten(0, (-1, merge**2)).mean(dim=1)

        hooks = [
            last.register_forward_hook(
                lambda module, given, output: found["received"].append(of_tokens(output[1].mean(dim=1).sum(dim=1)))
            ),
            last.k_proj.register_forward_hook(
                lambda module, given, output: found["keys"].append(
                    of_tokens(output.unflatten(-1, (-1, last.head_dim)).mean(dim=-2))
                )
            ),
        ]
        span = self.vision_model.config.temporal_window
        for part, places in zip(tokens.split(span), positions.split(span), strict=True):
            grid_thw = torch.tensor([[len(part), *(side * merge for side in processed.grid)]])
            merge_sizes = torch.tensor([merge])
            encoded = self.vision_model(
                pixel_values=part.flatten(0, 2).flatten(1),
                grid_thw=grid_thw,
                merge_sizes=merge_sizes,
                frame_positions=places,
                patch_spacing=torch.tensor([processed.patch_spacing]),
                output_attentions=True,
            )
            found["embeddings"].append(self.projector(encoded.last_hidden_state, grid_thw, merge_sizes))
        for hook in hooks:
            hook.remove()
        shape = tokens.shape[:2]
        return EncoderView(*(torch.cat(found[name]).unflatten(0, shape) for name in EncoderView._fields))
