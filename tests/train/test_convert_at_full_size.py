# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Models of 2B to 32B are converted in name: every tensor of the real shapes has its place, and the memory plan holds.

No weights and no memory: the models are on the meta device. Sizes are those of the published language models.
"""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
import torch
from transformers import AutoConfig, VideoLlama3Config, VideoLlama3ForConditionalGeneration

from tests.helpers.foreign_models import remote_name
from tests.helpers.paths import ROOT
from train.checkpoints.foreign_layouts import our_config, rename
from train.config import StageConfig
from train.memory.plan import ParameterCounts, PlannedBatch, build_module, plan

CONFIGS = ROOT / "train" / "configs"
QWEN3 = {"model_type": "qwen3", "head_dim": 128, "vocab_size": 151936, "num_key_value_heads": 8}
GIGABYTE = 10**9


def recipe(size: str) -> dict[str, Any]:
    return json.loads((CONFIGS / size / "model.json").read_text(encoding="utf-8"))


def text_of(size: str) -> dict[str, Any]:
    """Configuration of the language model of a published size."""
    sizes = {
        "2B": recipe("1.5b")["text_config"],
        "7B": recipe("7b")["text_config"],
        "32B": recipe("7b")["text_config"]
        | {"hidden_size": 5120, "intermediate_size": 27648, "num_hidden_layers": 64, "num_attention_heads": 40}
        | {"num_key_value_heads": 8},
        "4B, Qwen3": QWEN3
        | {"hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36, "num_attention_heads": 32}
        | {"tie_word_embeddings": True},
        "14B, Qwen3": QWEN3
        | {"hidden_size": 5120, "intermediate_size": 17408, "num_hidden_layers": 40, "num_attention_heads": 40}
        | {"tie_word_embeddings": False},
    }
    return copy.deepcopy(sizes[size])


def published(size: str, layout: str) -> tuple[dict[str, Any], dict[str, torch.Size]]:
    """Configuration, and names and shapes of all tensors, as a project publishes them."""
    text, vision = text_of(size), recipe("7b")["vision_config"]
    tied = bool(text.get("tie_word_embeddings"))
    config = VideoLlama3Config(text_config=text, vision_config=vision, tie_word_embeddings=tied)
    with torch.device("meta"):
        model = VideoLlama3ForConditionalGeneration(config)
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items() if not (tied and "lm_head" in name)}
    if layout == "transformers":
        return config.to_dict(), shapes
    family = text["model_type"]
    fields = AutoConfig.for_model(**text).to_dict() | {"model_type": f"hulumed_{family}", "image_token_index": 151665}
    fields |= {"vision_encoder_config": vision, "tie_word_embeddings": tied}
    return fields, {remote_name(name, layout): shape for name, shape in shapes.items()}


@pytest.mark.parametrize("layout", ["transformers", "videollama3", "older hulumed"])
@pytest.mark.parametrize(
    ("size", "billions"), [("2B", 1.96), ("7B", 8.04), ("32B", 33.2), ("4B, Qwen3", 4.45), ("14B, Qwen3", 15.2)]
)
def test_every_tensor_has_its_place(size, billions, layout) -> None:
    fields, shapes = published(size, layout)
    config = our_config(fields)
    names = rename(shapes, config)
    assert names.keys() == shapes.keys()
    assert sum(shape.numel() for shape in shapes.values()) == pytest.approx(billions * 1e9, rel=0.01)


@pytest.mark.parametrize(
    ("size", "stage", "changes", "strategy", "devices", "gigabytes", "fits"),
    [
        ("2B", "1.5b", (), "fsdp2", 8, 24, True),
        ("2B", "1.5b", ("lora={rank: 64}",), "ddp", 1, 24, True),
        ("7B", "7b", ("lora={rank: 64}",), "ddp", 1, 24, False),
        ("7B", "7b", ("lora={rank: 64}",), "ddp", 1, 80, True),
        ("7B", "7b", (), "fsdp2", 8, 80, True),
        ("32B", "7b", ("lora={rank: 64}",), "ddp", 1, 80, False),
        ("32B", "7b", ("lora={rank: 64}",), "fsdp2", 8, 80, True),
    ],
)
def test_the_memory_plan_holds(size, stage, changes, strategy, devices, gigabytes, fits) -> None:
    fields, shapes = published(size, "transformers")
    config = our_config(fields)
    architecture = recipe(stage) | {"text_config": config.text_config.to_dict()}
    settings = StageConfig.read(CONFIGS / stage / "stage3.yaml", changes)
    with torch.device("meta"):
        module = build_module(architecture, settings)
    counts = ParameterCounts.of(module)
    if not changes:
        assert counts.all == sum(shape.numel() for shape in shapes.values())
    found = plan(module, PlannedBatch.of(settings, architecture), settings, strategy, devices)
    assert (found.with_reserve <= gigabytes * GIGABYTE) == fits
