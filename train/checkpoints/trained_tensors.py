# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The tensors that training makes, apart from the language model they were trained with: one small file.

It holds the vision encoder, the projector, LoRA factors of the language model and the embeddings of the added
tokens, in float16. Names are those of the model's checkpoint; a LoRA pair stands beside the weight it adapts
(Hu et al., LoRA, arXiv 2106.09685).
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from data_engine.files import write_atomically
from hub_model.modeling_omniv_med import OmniVMedForConditionalGeneration

TRAINED_PARTS = ("model.vision_model.", "model.projector.")
ADDED_TOKEN_EMBEDDINGS = "new_embedding_rows"
"""Their name in the file, which published files already use."""
LORA_A, LORA_B = ".lora_A", ".lora_B"


def save_trained_tensors(
    path: Path,
    parts: dict[str, torch.Tensor],
    lora: dict[str, torch.Tensor],
    added_embeddings: torch.Tensor,
    scaling: float,
) -> None:
    """Writes the trained tensors.

    Args:
        parts: encoder and projector tensors by checkpoint name.
        lora: (rank, in) and (out, rank) factors, named by the adapted module and ".lora_A" or ".lora_B".
        added_embeddings: (added tokens, hidden).
        scaling: alpha over rank of the LoRA pairs.
    """
    tensors = parts | lora | {ADDED_TOKEN_EMBEDDINGS: added_embeddings}
    path.parent.mkdir(parents=True, exist_ok=True)
    half = {name: tensor.detach().to("cpu", torch.float16).contiguous() for name, tensor in tensors.items()}
    with write_atomically(path) as part:
        save_file(half, part, metadata={"lora_scaling": str(scaling)})


def read_trained_tensors(path: Path) -> tuple[dict[str, torch.Tensor], float]:
    """Reads the file into float32 tensors by name, and the LoRA scaling (1 where the file says none)."""
    with safe_open(path, framework="pt") as file:
        scaling = float((file.metadata() or {}).get("lora_scaling", 1.0))
        return {name: file.get_tensor(name).float() for name in file.keys()}, scaling  # noqa: SIM118


def load_parts(
    model: OmniVMedForConditionalGeneration, tensors: dict[str, torch.Tensor], partial: bool = False
) -> None:
    """Copies encoder, projector and the embeddings of the added tokens into a model, in place.

    Args:
        partial: a part that the file does not hold at all stays as it is, as at the start of a first stage.

    Raises:
        ValueError: when the file was made for another architecture.
    """
    state = {name: tensor for name, tensor in tensors.items() if name.startswith(TRAINED_PARTS)}
    held = tuple(part for part in TRAINED_PARTS if any(name.startswith(part) for name in state) or not partial)
    own = {name: tensor for name, tensor in model.state_dict().items() if name.startswith(held)} if held else {}
    if {name: t.shape for name, t in state.items()} != {name: t.shape for name, t in own.items()}:
        raise ValueError("The trained tensors belong to another architecture than this configuration; train again.")
    model.load_state_dict(state, strict=False)
    if ADDED_TOKEN_EMBEDDINGS in tensors or not partial:
        added = tensors[ADDED_TOKEN_EMBEDDINGS]
        embeddings = model.get_input_embeddings().weight
        with torch.no_grad():
            embeddings[len(embeddings) - len(added) :] = added


def merge_lora(model: OmniVMedForConditionalGeneration, tensors: dict[str, torch.Tensor], scaling: float) -> None:
    """Adds each LoRA product B·A·scaling to its weight, in place."""
    with torch.no_grad():
        for module in [name.removesuffix(LORA_A) for name in tensors if name.endswith(LORA_A)]:
            product = tensors[module + LORA_B] @ tensors[module + LORA_A]
            model.get_submodule(module).weight += scaling * product
