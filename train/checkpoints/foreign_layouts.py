# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""What other projects call the tensors and the sizes of a model of this kind, and what we call them.

transformers' VideoLlama3, and the code that comes with VideoLLaMA3's and Hulu-Med's own checkpoints, share the encoder
and the projector with us and put them before Qwen2 or Qwen3. They differ in prefixes and in where the configuration
keeps what. Nothing here reads weights: names and shapes are enough to know whether a checkpoint fits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from transformers import AutoConfig, PretrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

from hub_model.configuration_omniv_med import OmniVMedConfig
from hub_model.modeling_omniv_med import OmniVMedForConditionalGeneration
from train.checkpoints.vision_encoder import CheckpointError, vision_fields

PREFIXES = (
    ("model.vision_model.", "model.vision_model."),
    ("model.vision_encoder.vision_encoder.", "model.vision_model."),
    ("model.vision_encoder.", "model.vision_model."),
    ("model.projector.", "model.projector."),
    ("model.mm_projector.", "model.projector."),
    ("model.language_model.", "model.language_model."),
    ("lm_head.", "lm_head."),
    ("model.", "model.language_model."),
)
"""Theirs and ours; the first that fits a name is taken."""
COMPUTED = ("rotary_emb.inv_freq", "rotary_pos_emb.inv_freq", "position_ids")
"""Endings of tensors that some versions saved and every model computes by itself."""
HEAD, EMBEDDING = "lm_head.weight", "model.language_model.embed_tokens.weight"
ROPE_SCALING = "rope_scaling"
ROPE_FIELDS = ("rope_theta", ROPE_SCALING)
"""Of a language model's configuration as older versions of transformers wrote it."""
OF_THE_WHOLE = {"model_type", "architectures", "auto_map", "transformers_version", "dtype", "torch_dtype"}
LISTED = 8
"""Names that an error lists of each kind."""

Shapes = Mapping[str, Sequence[int]]


def our_config(fields: Mapping[str, Any]) -> OmniVMedConfig:
    """The configuration of the model that a checkpoint's configuration describes.

    Args:
        fields: its config.json.

    Returns:
        Attention in single frames, positions in patches: what the weights were trained with. `image_token_id` is -1
        where the checkpoint does not say it.

    Raises:
        CheckpointError: where it describes another kind of model.
    """
    kind = str(fields.get("model_type", ""))
    if kind == "omniv_med":
        raise CheckpointError("The source is a model of this project already; load it with from_pretrained.")
    image_token_id = fields.get("image_token_id", fields.get("image_token_index", -1))
    config = OmniVMedConfig(
        text_config=_text_config(fields, kind).to_dict(),
        vision_config=vision_fields(fields),
        image_token_id=-1 if image_token_id is None else int(image_token_id),
        tie_word_embeddings=bool(fields.get("tie_word_embeddings", False)),
    )
    config.text_config.tie_word_embeddings = config.tie_word_embeddings
    return config


def _text_config(fields: Mapping[str, Any], kind: str) -> PretrainedConfig:
    """The language model's part, which VideoLLaMA3's and Hulu-Med's own code keeps at the top."""
    if "text_config" in fields and "vision_config" in fields and kind == "video_llama_3":
        text = dict(fields["text_config"])
        return AutoConfig.for_model(text.pop("model_type", "qwen2"), **text)
    family = kind.rpartition("_")[2]
    if "vision_encoder_config" not in fields or family not in CONFIG_MAPPING_NAMES:
        raise CheckpointError(
            f"The source is of type {kind!r}; we read video_llama_3, and checkpoints with a vision_encoder_config "
            "whose type ends in that of the language model, such as videollama3_qwen2, hulumed_qwen2 and "
            "hulumed_qwen3. For Qwen-VL models see hub_model/qwen_vl_pruning_omniv_med.py."
        )
    known = {*AutoConfig.for_model(family).to_dict(), *ROPE_FIELDS} - OF_THE_WHOLE
    given = {name: value for name, value in fields.items() if name in known}
    if given.get(ROPE_SCALING) is None:  # transformers warns of the name, whatever it holds
        given.pop(ROPE_SCALING, None)
    return AutoConfig.for_model(family, **given)


def our_name(theirs: str) -> str | None:
    """What we call a tensor; None where no part of the model is called so."""
    for prefix, ours in PREFIXES:
        if theirs.startswith(prefix):
            return ours + theirs.removeprefix(prefix)
    return None


def expected_shapes(config: OmniVMedConfig) -> dict[str, tuple[int, ...]]:
    """Our names and shapes of all tensors; of tied ones, the embedding's."""
    with torch.device("meta"):
        model = OmniVMedForConditionalGeneration(config)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    if config.tie_word_embeddings:
        del shapes[HEAD]
    return shapes


def rename(theirs: Shapes, config: OmniVMedConfig) -> dict[str, str]:
    """Which of the checkpoint's tensors becomes which of ours: their names to our names.

    A head that the checkpoint holds beside the embedding it is tied to is left out, and so is what is computed.

    Raises:
        CheckpointError: listing what is unknown, missing, there twice, or of another shape.
    """
    expected = expected_shapes(config)
    names: dict[str, str] = {}
    unknown, twice, misshapen = [], [], []
    taken: set[str] = set()
    for name, shape in theirs.items():
        ours = our_name(name)
        if name.endswith(COMPUTED) or (ours == HEAD and config.tie_word_embeddings):
            continue
        if ours is None or ours not in expected:
            unknown.append(name)
        elif tuple(shape) != expected[ours]:
            misshapen.append(f"{name} {tuple(shape)}, not {expected[ours]}")
            taken.add(ours)
        elif ours in taken:
            twice.append(name)
        else:
            names[name] = ours
            taken.add(ours)
    found = {"unknown": unknown, "missing": sorted(expected.keys() - taken), "of another shape": misshapen}
    problems = [
        f"{len(which)} {what} ({_list(which)})" for what, which in (found | {"there twice": twice}).items() if which
    ]
    if problems:
        raise CheckpointError(f"The tensors of the source do not make up the model: {'; '.join(problems)}.")
    return names


def _list(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:LISTED]) + (", …" if len(names) > LISTED else "")
