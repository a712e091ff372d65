# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Which parts of the model a stage trains, and what is kept of them: for the next stage, and for assembly."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer

from hub_model.modeling_omniv_med import OmniVMedForConditionalGeneration, OmniVMedVisionModel
from train.added_token_embeddings import ADDED_EMBEDDINGS_PARAMETER, separate_added_token_embeddings
from train.checkpoints.trained_tensors import (
    LORA_A,
    LORA_B,
    TRAINED_PARTS,
    load_parts,
    read_trained_tensors,
    save_trained_tensors,
)
from train.config import LoraSettings, StageConfig

LORA_SCALING = 2
"""Alpha over rank."""
ADAPTER = ".default.weight"
PART_OF_NAME = {
    "vision_model.": "encoder",
    "projector.": "projector",
    ADDED_EMBEDDINGS_PARAMETER: "embeddings",
    "embed_tokens.": "embeddings",
    "lm_head.": "embeddings",
    "language_model.": "language",
}
"""The first marker that a parameter's name holds says its part."""


def part_of(name: str) -> str:
    """Which part a parameter belongs to."""
    return next(part for marker, part in PART_OF_NAME.items() if marker in name)


def prepare_trainable_parts(model: OmniVMedForConditionalGeneration, config: StageConfig, added_tokens: int) -> None:
    """Loads the start, adds LoRA factors, and freezes what the stage does not train, in place.

    Where the language model's own weights stay frozen, the embeddings of the added tokens are trained apart from them.

    Args:
        added_tokens: how many of the last embeddings belong to added tokens.

    Raises:
        ValueError: when the start was made for another architecture or other factors.
    """
    tensors, scaling = read_trained_tensors(config.start) if config.start is not None else ({}, LORA_SCALING)
    load_parts(model, tensors, partial=True)
    factors = {name: tensor for name, tensor in tensors.items() if name.endswith((LORA_A, LORA_B))}
    if config.trains_language_model_in_full:
        if factors:
            raise ValueError(f"{config.start} holds LoRA factors; for a full training, assemble it.")
    else:
        if config.lora is not None:
            add_lora(model, config.lora)
            load_factors(model, factors, scaling, config)
        elif factors:
            raise ValueError(f"{config.start} holds LoRA factors; this stage needs `lora` too, of the same rank.")
        if added_tokens:
            separate_added_token_embeddings(model, added_tokens)
    for name, parameter in model.named_parameters():
        own_weight = (
            part_of(name) in ("language", "embeddings")
            and "lora_" not in name
            and ADDED_EMBEDDINGS_PARAMETER not in name
        )
        moves = config.trains_language_model_in_full or not own_weight
        parameter.requires_grad_(moves and config.learning_rates[part_of(name)] > 0)
    if config.freeze_convolutional_features:
        freeze_convolutional_features(model.model.vision_model)


def freeze_convolutional_features(vision_model: OmniVMedVisionModel) -> None:
    """Freezes the convolutional network beside the patches, where there is one, but for what leads from it to them."""
    if (features := vision_model.convolutional_features) is not None:
        for name, parameter in features.named_parameters():
            if not name.startswith(("from_fine.", "from_head.")):
                parameter.requires_grad_(False)


def add_lora(model: OmniVMedForConditionalGeneration, lora: LoraSettings) -> None:
    """Adds fresh factors to the language model's layers, in place; they change nothing yet."""
    targets = rf"model\.language_model\..*\.({'|'.join(lora.targets)})"
    settings = LoraConfig(r=lora.rank, lora_alpha=LORA_SCALING * lora.rank, target_modules=targets)
    inject_adapter_in_model(settings, model)
    for module in model.modules():
        if isinstance(module, LoraLayer):
            # PEFT turns the input into the factors' float32, which autocast would turn back for every factor.
            module.cast_input_dtype_enabled = False


def load_factors(
    model: OmniVMedForConditionalGeneration, factors: Mapping[str, torch.Tensor], scaling: float, config: StageConfig
) -> None:
    """Copies the factors of the stage before into the model's, in place; without any they stay fresh.

    Raises:
        ValueError: when they are of other layers, another rank or another scaling.
    """
    if not factors:
        return
    own = {name.removesuffix(ADAPTER): p for name, p in model.named_parameters() if "lora_" in name}
    shapes = {name: tuple(tensor.shape) for name, tensor in factors.items()}
    if shapes != {name: tuple(parameter.shape) for name, parameter in own.items()} or scaling != LORA_SCALING:
        raise ValueError(
            f"{config.start} holds LoRA factors of other layers or another rank than this stage's `lora` "
            f"(rank {config.lora.rank}, {', '.join(config.lora.targets)}); write those of the stage before."
        )
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(factors[name])


def keep_frozen_weights_in_bfloat16(model: OmniVMedForConditionalGeneration) -> None:
    """Turns what is frozen of the language model into bfloat16, in place, so that it computes in it throughout.

    Autocast would round each weight and each layer's input anew in every pass. Seen on a CPU with five of the Nano's
    thirty layers: 1.12 instead of 1.29 s a step of the last stage.
    """
    for parameter in [*model.model.language_model.parameters(), *model.lm_head.parameters()]:
        if not parameter.requires_grad:
            parameter.data = parameter.data.bfloat16()


def export_trained(state: Mapping[str, torch.Tensor], path: Path) -> None:
    """Writes what was trained beside a frozen language model, for the next stage and for assembly.

    Args:
        state: of the whole model.
    """
    parts = {name: tensor for name, tensor in state.items() if name.startswith(TRAINED_PARTS)}
    lora = {
        name.removesuffix(ADAPTER): tensor
        for name, tensor in state.items()
        if name.endswith((LORA_A + ADAPTER, LORA_B + ADAPTER))
    }
    added = [tensor for name, tensor in state.items() if name.endswith(ADDED_EMBEDDINGS_PARAMETER)]
    rows = added[0] if added else state["lm_head.weight"][:0]  # a converted model has no added tokens
    save_trained_tensors(path, parts, lora, rows, LORA_SCALING)
