# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Media as training takes them: read, sized and pruned once, then kept on disk as grey levels.

Reading a volume takes far longer than the step that learns from it, and several conversations show the same one. The
pruner decides on the processor's exact values; what is kept afterwards are whole grey levels, a quarter of the size.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch.utils.data import get_worker_info

from data_engine.files import write_atomically
from data_engine.records import Medium
from hub_model.media_omniv_med import Clip
from hub_model.processing_omniv_med import VISUAL_OPTIONS, OmniVMedProcessor, ProcessedClip
from hub_model.prompt_omniv_med import media_text
from hub_model.pruning_noise_omniv_med import estimate_noise
from hub_model.token_pruning_omniv_med import prune_tokens
from hub_model.visual_processing_omniv_med import PIXEL_MEAN, PIXEL_STD
from train.checkpoints.assemble import SIZING_OPTIONS

CHANNELS = 3


@dataclass(frozen=True)
class PreparedClip:
    """One clip before its tokens are dropped at random and its placeholders are written.

    Attributes:
        patches: uint8 (patches, channels·patch²), all tokens of all frames in the encoder's order.
        keep_mask: bool (T, N), what the pruner keeps.
        labels: position label of each frame, "" where it carries none.
        grid: frames, and patches per column and row.
        merge_size: side of a merged token in patches.
        frame_positions: float32 (T,), millimetres or seconds.
        patch_spacing: millimetres per patch, 0 if unknown.
    """

    patches: torch.Tensor
    keep_mask: torch.Tensor
    labels: tuple[str, ...]
    grid: tuple[int, int, int]
    merge_size: int
    frame_positions: torch.Tensor
    patch_spacing: float

    @classmethod
    def of(cls, processed: ProcessedClip) -> PreparedClip:
        """From the processor's result."""
        levels = (processed.tokens * PIXEL_STD + PIXEL_MEAN) * 255
        frames, (rows, columns), merge_size = len(processed.tokens), processed.grid, processed.merge_size
        return cls(
            patches=levels.round_().clamp_(0, 255).to(torch.uint8).flatten(0, 2).flatten(1),
            keep_mask=processed.pruned.keep_mask,
            labels=processed.labels,
            grid=(frames, rows * merge_size, columns * merge_size),
            merge_size=merge_size,
            frame_positions=torch.as_tensor(processed.clip.positions).float(),
            patch_spacing=processed.patch_spacing,
        )

    def placeholder_text(self, keep_mask: torch.Tensor) -> str:
        """The prompt text with the tokens of a mask (T, N), see `media_text`."""
        return media_text(self.labels, keep_mask)

    def visual_inputs(self, keep_mask: torch.Tensor) -> dict[str, torch.Tensor]:
        """The model's visual inputs with the tokens of a mask (T, N); `pixel_values` are grey levels yet."""
        return {
            "pixel_values": self.patches,
            "grid_thw": torch.tensor([self.grid]),
            "merge_sizes": torch.tensor([self.merge_size]),
            "keep_mask": keep_mask.flatten(),
            "frame_positions": self.frame_positions,
            "patch_spacing": torch.tensor([self.patch_spacing]),
        }


def to_pixel_values(levels: torch.Tensor) -> torch.Tensor:
    """Grey levels 0 to 255 as float32 in [-1, 1], on the device they are on."""
    return (levels.float() / 255 - PIXEL_MEAN) / PIXEL_STD


def drop_tokens(keep_mask: torch.Tensor, highest_rate: float, rng: np.random.Generator) -> torch.Tensor:
    """Drops kept tokens at random, so that the model meets every degree of pruning; one of the first frame stays.

    Args:
        keep_mask: bool (T, N).
        highest_rate: the share to drop is drawn evenly from 0 to this.

    Returns:
        bool (T, N).
    """
    if highest_rate <= 0:
        return keep_mask
    rate = rng.uniform(0, highest_rate)
    kept = keep_mask & torch.from_numpy(rng.random(keep_mask.shape) >= rate)
    if not kept[0].any():
        first = keep_mask[0].nonzero().squeeze(1)
        kept[0, first[int(rng.integers(len(first)))]] = True
    return kept


def prune_picture(clip: PreparedClip, threshold: float) -> PreparedClip:
    """A picture pruned by the rule "spatial"; a clip of several frames stays as it was pruned.

    Args:
        threshold: see `prune_tokens`.
    """
    if clip.grid[0] != 1:
        return clip
    patch = math.isqrt(clip.patches.shape[1] // CHANNELS)
    tokens = to_pixel_values(clip.patches).view(1, -1, clip.merge_size**2, CHANNELS, patch, patch)
    columns = clip.grid[2] // clip.merge_size
    pruned = prune_tokens(tokens, "spatial", threshold, noise=estimate_noise(tokens), columns=columns)
    return replace(clip, keep_mask=pruned.keep_mask)


class MediaCache:
    """Prepares media, and keeps what it prepared in a folder of bounded size.

    Args:
        processor: its options at the time of a call count.
        folder: where prepared media are kept; None keeps nothing.
        gigabytes: when the folder holds so much, no more is added.
    """

    def __init__(self, processor: OmniVMedProcessor, folder: Path | None, gigabytes: float):
        self.processor, self.folder = processor, folder
        self.bytes_left = 0.0
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            used = sum(entry.stat().st_size for entry in folder.rglob("*.safetensors"))
            # Every process of a run writes on its own; together they may fill the folder.
            processes = int(os.environ.get("WORLD_SIZE", "1"))
            self.bytes_left = (gigabytes * 1e9 - used) / processes

    def prepare(self, medium: Medium, folder: Path) -> PreparedClip:
        """One medium of a record in `folder`.

        Raises:
            MediaError: for a file that cannot be read.
        """
        path = folder / medium.path
        kept = self._place(medium, path)
        if kept is not None and (clip := _read(kept)) is not None:
            return clip
        source: Clip = self.processor.load(path, kind=medium.type, spacing=medium.spacing)
        clip = PreparedClip.of(self.processor.process_clip(source))
        size = clip.patches.numel()
        if kept is not None and size <= self.bytes_left:
            worker = get_worker_info()
            self.bytes_left -= size * (worker.num_workers if worker else 1)
            _write(clip, kept)
        return clip

    def _place(self, medium: Medium, path: Path) -> Path | None:
        """The file of a medium with today's options; None where nothing is kept or the medium is not there."""
        if self.folder is None or not path.is_file():
            return None
        facts = path.stat()
        options = [getattr(self.processor, name) for name in (*SIZING_OPTIONS, *VISUAL_OPTIONS)]
        key = [str(path.resolve()), facts.st_size, facts.st_mtime_ns, medium.type, medium.spacing, options]
        name = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:32]
        return self.folder / name[:2] / f"{name[2:]}.safetensors"


def _write(clip: PreparedClip, path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    tensors = {
        "patches": clip.patches.contiguous(),
        "keep_mask": clip.keep_mask.contiguous(),
        "positions": clip.frame_positions,
    }
    facts = {"labels": clip.labels, "grid": clip.grid, "merge_size": clip.merge_size, "spacing": clip.patch_spacing}
    with write_atomically(path) as part:
        save_file(tensors, part, metadata={"facts": json.dumps(facts)})


def _read(path: Path) -> PreparedClip | None:
    """None where it is not there, or not whole."""
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads(file.metadata()["facts"])
            return PreparedClip(
                file.get_tensor("patches"),
                file.get_tensor("keep_mask"),
                tuple(facts["labels"]),
                tuple(facts["grid"]),
                facts["merge_size"],
                file.get_tensor("positions"),
                facts["spacing"],
            )
    except (OSError, SafetensorError):
        return None
