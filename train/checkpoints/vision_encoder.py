# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Loads the vision encoder out of the checkpoints that have one of this kind.

SigLIP-NaViT, transformers' VideoLlama3, VideoLLaMA3's and Hulu-Med's own format, and models of this project name the
tensors of the encoder alike, behind different prefixes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from safetensors import safe_open

from hub_model.configuration_omniv_med import OmniVMedVisionConfig
from hub_model.modeling_omniv_med import OmniVMedVisionModel

PREFIXES = (
    "model.vision_model.",
    "model.vision_encoder.vision_encoder.",
    "model.vision_encoder.",
    "vision_model.",
    "",
)
"""Of a checkpoint's encoder; the first one that fits is taken."""
CONFIG_FIELDS = ("vision_config", "vision_encoder_config")
"""Where a whole model's configuration keeps the encoder's; an encoder's own has its fields at the top."""
FIRST_TENSOR = "embeddings.patch_embedding."


class CheckpointError(ValueError):
    """A checkpoint that holds no encoder of this kind, in one sentence."""


def fetch(name: str) -> Path:
    """A folder as it is, or a model of the Hub, downloaded (its safetensors and JSON files)."""
    folder = Path(name)
    return folder if folder.is_dir() else Path(snapshot_download(name, allow_patterns=["*.safetensors", "*.json"]))


def vision_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Of a model's or an encoder's configuration, what `OmniVMedVisionConfig` takes.

    Without `position_unit` and `temporal_window` it is the two-dimensional encoder.

    Raises:
        CheckpointError: where the sizes are not said.
    """
    fields = next((fields[name] for name in CONFIG_FIELDS if name in fields), fields)
    known = OmniVMedVisionConfig().to_dict().keys() - {"model_type", "architectures", "dtype", "transformers_version"}
    sizes = {"hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "patch_size"}
    if missing := sizes - fields.keys():
        raise CheckpointError(f"config.json does not say {', '.join(sorted(missing))} of the vision encoder.")
    return {name: value for name, value in fields.items() if name in known}


def read_config(folder: Path) -> dict[str, Any]:
    """The fields of a checkpoint's config.json.

    Raises:
        CheckpointError: where there is none.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise CheckpointError(f"{folder} has no config.json, so the sizes of its encoder are not known.")
    fields: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return fields


def encoder_prefix(names: Iterable[str], folder: Path) -> str:
    """How the names of the encoder's tensors begin among all of a checkpoint's.

    Raises:
        CheckpointError: where there are none.
    """
    names = list(names)
    for prefix in PREFIXES:
        if any(name.startswith(prefix + FIRST_TENSOR) for name in names):
            return prefix
    raise CheckpointError(f"The safetensors files of {folder} hold no {FIRST_TENSOR}*; name a SigLIP-like encoder.")


def encoder_tensors(folder: Path) -> dict[str, torch.Tensor]:
    """The encoder's tensors under the names of `OmniVMedVisionModel`, float32.

    Raises:
        CheckpointError: where there are none.
    """
    files = sorted(folder.glob("*.safetensors"))
    places: dict[str, Path] = {}
    for file in files:
        with safe_open(file, framework="pt") as tensors:
            places |= dict.fromkeys(tensors.keys(), file)
    prefix = encoder_prefix(places, folder)
    state = {}
    for file in files:
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - it is no dictionary
                if name.startswith(prefix):
                    state[name.removeprefix(prefix)] = tensors.get_tensor(name).float()
    return state


def load_vision_encoder(name: str) -> OmniVMedVisionModel:
    """The encoder of a folder or of a model of the Hub.

    Raises:
        CheckpointError: where it is not one of this kind.
    """
    folder = fetch(name)
    config = OmniVMedVisionConfig(**vision_fields(read_config(folder)))
    encoder = OmniVMedVisionModel._from_config(config)
    state, own = encoder_tensors(folder), encoder.state_dict()
    wrong = {n for n in own if n not in state or state[n].shape != own[n].shape}
    if wrong:
        raise CheckpointError(
            f"{folder} lacks tensors of the encoder or has other shapes: {', '.join(sorted(wrong)[:3])}."
        )
    encoder.load_state_dict({n: state[n] for n in own})
    return encoder
