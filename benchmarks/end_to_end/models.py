# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Writes one model with random weights twice: as transformers' VideoLlama3 and as ours."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import PreTrainedTokenizerFast
from transformers.models.video_llama_3.configuration_video_llama_3 import VideoLlama3Config
from transformers.models.video_llama_3.modeling_video_llama_3 import VideoLlama3ForConditionalGeneration

from benchmarks.end_to_end.cases import HUB_MODEL, PATCH_SIZE, PEER, PRUNED, Widths, weights_folder
from hub_model.configuration_omniv_med import OmniVMedConfig
from hub_model.modeling_omniv_med import OmniVMedForConditionalGeneration
from hub_model.prompt_omniv_med import MEDIA_TOKEN

LONGEST_PROMPT = 32768


def write_models(folder: Path, widths: Widths, dtypes: list[str]) -> int:
    """Writes both models in each number format, where `weights_folder` says; returns how many weights one has."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(HUB_MODEL)
    placeholder = tokenizer.convert_tokens_to_ids(MEDIA_TOKEN)
    layers = {"num_hidden_layers": widths.layers}
    text = {
        "model_type": "qwen2",
        "vocab_size": len(tokenizer),
        "max_position_embeddings": LONGEST_PROMPT,
        "tie_word_embeddings": True,
        **layers,
        **widths.text,
    }
    vision = {"patch_size": PATCH_SIZE, **layers, **widths.vision}
    common = {"text_config": text, "image_token_id": placeholder, "tie_word_embeddings": True}
    torch.manual_seed(0)
    theirs = VideoLlama3ForConditionalGeneration(
        VideoLlama3Config(
            **common, video_token_id=placeholder, vision_config={"model_type": "video_llama_3_vision", **vision}
        )
    )
    ours = OmniVMedForConditionalGeneration(OmniVMedConfig(**common, vision_config=vision))
    ours.load_state_dict(theirs.state_dict())
    for dtype in dtypes:
        for side, model in ((PEER, theirs), (PRUNED, ours)):
            model.to(getattr(torch, dtype)).save_pretrained(weights_folder(folder, side, dtype))
    return sum(weight.numel() for weight in ours.parameters())
