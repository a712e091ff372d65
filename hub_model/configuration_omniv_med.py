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
"""Configuration of OmniV-Med: a vision encoder for images, volumes and videos in front of any causal language model."""

from typing import Any, Literal, get_args

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PretrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES

POSITION_UNITS = ("patch", "physical")
PruneStage = Literal["language", "encoder"]
PRUNE_STAGES: tuple[PruneStage, ...] = get_args(PruneStage)


def check_prune_stage(stage: str) -> None:
    """Raises `ValueError` unless `stage` is one of `PRUNE_STAGES`."""
    if stage not in PRUNE_STAGES:
        raise ValueError(f"prune_stage must be one of {PRUNE_STAGES}, not {stage!r}.")


@strict
class OmniVMedVisionConfig(PretrainedConfig):
    """Configuration of the vision encoder.

    Args:
        hidden_size, intermediate_size, num_hidden_layers, num_attention_heads: size of the transformer; the head
            dimension `hidden_size / num_attention_heads` must be a multiple of 4 (two rotary axes, sine and cosine).
        num_channels: channels of a frame; CT puts one HU window into each of three.
        patch_size: side of a square patch in pixels.
        stem_channels: channels of the convolutional stem inside each patch; 0 embeds a patch by one linear map, as
            SigLIP does, so that its weights load.
        convolutional_features: whether an EfficientNet-Lite0 adds to each patch's embedding what it sees around it; see
            `convolutional_features_omniv_med`.
        rope_parameters: `rope_theta` of the rotary embedding (default 10000).
        position_unit: "patch" counts patches and frames; "physical" measures millimetres over `reference_length`
            (seconds along a video), so that a scan reads the same at any spacing.
        reference_length: millimetres per rotary position when `position_unit` is "physical".
        temporal_window: how many consecutive frames attend to each other; 1 is per-slice attention.
        prune_stage: "language" encodes every patch and leaves pruned tokens out of the prompt (the paper);
            "encoder" does not encode them either. The default of every call: `forward` and `generate` take another.
        max_patches_per_step: patches that pass through the encoder at once (one window at least); bounds activation
            memory. None takes 2048 on a CPU, whose caches larger steps leave, and 16384 elsewhere.
    """

    model_type = "omniv_med_vision"
    base_config_key = "vision_config"
    default_rope_type = "axial"

    hidden_size: int = 1152
    intermediate_size: int = 4304
    num_hidden_layers: int = 27
    num_attention_heads: int = 16
    num_channels: int = 3
    patch_size: int = 14
    stem_channels: int = 0
    convolutional_features: bool = False
    hidden_act: str = "gelu_pytorch_tanh"
    layer_norm_eps: float = 1e-6
    attention_dropout: float | int = 0.0
    initializer_range: float = 0.02
    rope_parameters: dict[str, Any] | None = None
    position_unit: str = "patch"
    reference_length: float = 30.0
    temporal_window: int = 1
    prune_stage: str = "language"
    max_patches_per_step: int | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        if self.position_unit not in POSITION_UNITS:
            raise ValueError(f"position_unit must be one of {POSITION_UNITS}, not {self.position_unit!r}.")
        check_prune_stage(self.prune_stage)
        if self.convolutional_features and self.num_channels != 3:
            raise ValueError(f"convolutional_features needs 3 num_channels, not {self.num_channels}.")
        if self.hidden_size % (4 * self.num_attention_heads):
            raise ValueError("hidden_size / num_attention_heads must be a multiple of 4 for the rotary embedding.")
        if self.temporal_window < 1:
            raise ValueError(f"temporal_window counts frames and must be at least 1, not {self.temporal_window}.")
        if self.reference_length <= 0:
            raise ValueError(f"reference_length is in millimetres and must be positive, not {self.reference_length}.")
        if self.max_patches_per_step is not None and self.max_patches_per_step < 1:
            raise ValueError(f"max_patches_per_step must be at least 1 or None, not {self.max_patches_per_step}.")


@strict
class OmniVMedConfig(PretrainedConfig):
    """Configuration of the whole model: `vision_config`, any causal language model's `text_config`, the media token.

    Args:
        text_config: configuration (or its dict, with `model_type`) of a causal language model that has `embed_tokens`.
        vision_config: an `OmniVMedVisionConfig` or its dict.
        image_token_id: id of the one placeholder token that stands for every kind of visual token.
        projector_context: whether each projected token also gets its place in the frame and what the frame looks like,
            see `projector_omniv_med`.
        tie_word_embeddings: whether the output head shares the input embeddings; taken over from `text_config`.
        answer_calibration: `weights`, `bias` and `threshold` that turn the probabilities of an answer's tokens into the
            probability that it is right, see `answering_omniv_med`; None where nothing was fitted.
    """

    model_type = "omniv_med"
    sub_configs = {"text_config": AutoConfig, "vision_config": OmniVMedVisionConfig}  # noqa: RUF012
    keys_to_ignore_at_inference = ["past_key_values"]  # noqa: RUF012

    text_config: dict[str, Any] | PretrainedConfig | None = None
    vision_config: dict[str, Any] | PretrainedConfig | None = None
    image_token_id: int = 151655
    projector_context: bool = False
    tie_word_embeddings: bool = False
    answer_calibration: dict[str, Any] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        if self.vision_config is None:
            self.vision_config = OmniVMedVisionConfig()
        elif isinstance(self.vision_config, dict):
            self.vision_config = OmniVMedVisionConfig(**self.vision_config)
        if self.text_config is None or isinstance(self.text_config, dict):
            self.text_config = AutoConfig.for_model(**{"model_type": "qwen2", **(self.text_config or {})})
        self.tie_word_embeddings = self.tie_word_embeddings or bool(self.text_config.tie_word_embeddings)
        super().__post_init__(**kwargs)


# `transformers serve` recognises a multimodal model by this table alone.
MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES.setdefault("omniv_med", "OmniVMedForConditionalGeneration")

__all__ = ["OmniVMedConfig", "OmniVMedVisionConfig"]
