# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Small random models of Qwen2.5-VL and Qwen3-VL, and what their processors give.

The processors of these models need torchvision for videos, so their outputs are written here: patches in the order and
normalisation of `Qwen2VLVideoProcessor`, prompts as `replace_video_token` of each writes them.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from transformers import (
    BatchFeature,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from hub_model.qwen_vl_pruning_omniv_med import VISION_END, VISION_START
from tests.helpers.foreign_models import foreign_tokenizer

PATCH, MERGE, TOGETHER = 4, 2, 2
TEXT = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 1024,
    "initializer_range": 0.3,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]},
}
VISION = {
    "depth": 3,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_heads": 2,
    "patch_size": PATCH,
    "spatial_merge_size": MERGE,
    "temporal_patch_size": TOGETHER,
    "out_hidden_size": 32,
    "initializer_range": 0.3,
}
MODELS = ("Qwen2.5-VL", "Qwen3-VL")
VIDEO_PROCESSOR = SimpleNamespace(
    image_mean=OPENAI_CLIP_MEAN,
    image_std=OPENAI_CLIP_STD,
    patch_size=PATCH,
    merge_size=MERGE,
    temporal_patch_size=TOGETHER,
)
"""The options that say how patches were made."""


class QwenProcessor:
    """What our pruner and our example ask of a processor of these models.

    Attributes:
        name: "Qwen2.5-VL" or "Qwen3-VL", which write videos differently.
    """

    def __init__(self, name: str):
        self.name = name
        self.tokenizer = foreign_tokenizer("<|image_pad|>")
        self.tokenizer.padding_side = "left"
        self.image_token_id = self.tokenizer.convert_tokens_to_ids("<|image_pad|>")
        self.video_token_id = self.tokenizer.convert_tokens_to_ids("<|video_pad|>")
        self.video_processor = VIDEO_PROCESSOR

    def apply_chat_template(self, messages: list[dict[str, Any]], **options: Any) -> str:
        text = ""
        for part in messages[0]["content"]:
            text += part["text"] if part["type"] == "text" else f"<|{part['type']}_pad|>"
        return f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"

    def __call__(
        self, text: list[str], images: Any = (), videos: Any = (), video_metadata: Any = None, **options: Any
    ) -> BatchFeature:
        """Prompts with one placeholder for each picture (H, W, 3) and each video (T, H, W, 3), in reading order."""
        found: dict[str, Any] = {}
        texts = list(text)
        for kind, media in (("image", images), ("video", videos)):
            patches, grids = [], []
            for number, medium in enumerate(media):
                some, grid = cut(np.stack([medium] * TOGETHER) if kind == "image" else medium)
                patches.append(some)
                grids.append(grid)
                metadata = None if video_metadata is None else video_metadata[number]
                written = self.write(kind, grid, metadata)
                row = next(row for row, one in enumerate(texts) if f"<|{kind}_pad|>" in one)
                texts[row] = texts[row].replace(f"<|{kind}_pad|>", written, 1)
            texts = [one.replace(f"<{kind}>", f"<|{kind}_pad|>") for one in texts]
            if grids:
                found["pixel_values" if kind == "image" else "pixel_values_videos"] = torch.cat(patches)
                found[f"{kind}_grid_thw"] = torch.tensor(grids)
        encoded = self.tokenizer(texts, padding=True, return_tensors="pt")
        found |= {name: encoded[name] for name in ("input_ids", "attention_mask")}
        types = torch.zeros_like(found["input_ids"])
        types[found["input_ids"] == self.image_token_id] = 1
        types[found["input_ids"] == self.video_token_id] = 2
        if len(videos) and self.name == "Qwen2.5-VL":
            found["second_per_grid_ts"] = torch.tensor([1.0] * len(videos))
        return BatchFeature(found | {"mm_token_type_ids": types})

    def write(self, kind: str, grid: list[int], metadata: Any) -> str:
        """The text of one medium, its placeholders written as "<image>" and "<video>" yet."""
        pads = f"<{kind}>" * (grid[1] * grid[2] // MERGE**2)
        if kind == "image" or self.name == "Qwen2.5-VL":
            return VISION_START + pads * grid[0] + VISION_END
        rate = 2.0 if metadata is None else metadata.fps
        times = [(TOGETHER * step + 0.5) / rate for step in range(grid[0])]
        return "".join(f"<{time:.1f} seconds>{VISION_START}{pads}{VISION_END}" for time in times)

    def batch_decode(self, ids: torch.Tensor, **options: Any) -> list[str]:
        return self.tokenizer.batch_decode(ids, **options)


def qwen_model(processor: QwenProcessor) -> Any:
    """transformers' own class, random and small, for a processor's tokenizer."""
    tokenizer = processor.tokenizer
    marks = tokenizer.convert_tokens_to_ids([VISION_START, VISION_END])
    ids = {"image_token_id": processor.image_token_id, "video_token_id": processor.video_token_id}
    ids |= {"vision_start_token_id": marks[0], "vision_end_token_id": marks[1]}
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    text = TEXT | ends | {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    torch.manual_seed(5)
    if processor.name == "Qwen2.5-VL":
        vision = VISION | {"window_size": 16, "fullatt_block_indexes": [1], "tokens_per_second": 2}
        return Qwen2_5_VLForConditionalGeneration(
            Qwen2_5_VLConfig(text_config=text, vision_config=vision, **ids)
        ).eval()
    vision = VISION | {"deepstack_visual_indexes": [0, 1], "num_position_embeddings": 64}
    return Qwen3VLForConditionalGeneration(Qwen3VLConfig(text_config=text, vision_config=vision, **ids)).eval()


def cut(frames: np.ndarray) -> tuple[torch.Tensor, list[int]]:
    """Patches of frames (T, H, W, 3) as `Qwen2VLVideoProcessor` gives them, and their grid."""
    mean, deviation = (np.array(one, np.float32) for one in (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD))
    values = torch.from_numpy((frames.astype(np.float32) / 255 - mean) / deviation).permute(0, 3, 1, 2)
    times, rows, columns = len(frames) // TOGETHER, frames.shape[1] // PATCH, frames.shape[2] // PATCH
    split = values.reshape(times, TOGETHER, 3, rows // MERGE, MERGE, PATCH, columns // MERGE, MERGE, PATCH)
    patches = split.permute(0, 3, 6, 4, 7, 2, 1, 5, 8).reshape(times * rows * columns, -1)
    return patches, [times, rows, columns]
