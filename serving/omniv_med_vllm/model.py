# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The model in vLLM: the encoder and projector of its own code before a language model of vLLM's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn
from transformers.dynamic_module_utils import get_class_from_dynamic_module
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from vllm.config import VllmConfig
from vllm.model_executor.models.interfaces import SupportsLoRA, SupportsMultiModal, SupportsPP
from vllm.model_executor.models.module_mapping import MultiModelKeys
from vllm.model_executor.models.utils import AutoWeightsLoader, WeightsMapper, init_vllm_registered_model, maybe_prefix
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.sequence import IntermediateTensors

from . import MODALITY
from .processing import OmniVMedDummyInputsBuilder, OmniVMedMultiModalProcessor, OmniVMedProcessingInfo


def token_biases(generation: Mapping[str, Any]) -> dict[int, float]:
    """Token -> what `generate` adds to its logit at every step, by the `sequence_bias` of a generation configuration.

    Raises:
        ValueError: a bias of several tokens in a row, which depends on what was said before.
    """
    biases = {tuple(tokens): float(bias) for tokens, bias in generation.get("sequence_bias") or []}
    if any(len(tokens) > 1 for tokens in biases):
        raise ValueError("generation_config.json biases several tokens in a row; here only single ones can be biased.")
    return {token: bias for (token,), bias in biases.items()}


@MULTIMODAL_REGISTRY.register_processor(
    OmniVMedMultiModalProcessor, info=OmniVMedProcessingInfo, dummy_inputs=OmniVMedDummyInputsBuilder
)
class OmniVMedForConditionalGeneration(nn.Module, SupportsMultiModal, SupportsLoRA, SupportsPP):
    """OmniV-Med for vLLM; the same checkpoints as for transformers."""

    hf_to_vllm_mapper = WeightsMapper(
        orig_to_new_prefix={
            "model.vision_model.": "vision_model.",
            "model.projector.": "projector.",
            "model.language_model.": "language_model.model.",
            "lm_head.": "language_model.lm_head.",
        }
    )

    @classmethod
    def get_placeholder_str(cls, modality: str, i: int) -> str:
        return "<|vision_start|><|media_pad|><|vision_end|>"

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__()
        model_config = vllm_config.model_config
        self.config = config = model_config.hf_config
        text_config = config.get_text_config()
        text_config.tie_word_embeddings = config.tie_word_embeddings  # only the top level's counts

        def class_of_model(name: str) -> Any:
            return get_class_from_dynamic_module(
                f"modeling_omniv_med.{name}",
                model_config.model,
                revision=model_config.revision,
                code_revision=model_config.code_revision,
            )

        with self._mark_tower_model(vllm_config, MODALITY):
            self.vision_model = class_of_model("OmniVMedVisionModel")._from_config(
                config.vision_config, dtype=model_config.dtype
            )
            self.projector = class_of_model("OmniVMedProjector")(config).to(model_config.dtype)
        with self._mark_language_model(vllm_config):
            self.language_model = init_vllm_registered_model(
                vllm_config=vllm_config,
                hf_config=text_config,
                prefix=maybe_prefix(prefix, "language_model"),
                architectures=[MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[text_config.model_type]],
            )
        biases = token_biases(model_config.try_get_generation_config())
        self._biased, self._biases = list(biases), list(biases.values())
        self.packed_modules_mapping = getattr(self.language_model, "packed_modules_mapping", {})
        self.make_empty_intermediate_tensors = self.language_model.make_empty_intermediate_tensors

    def embed_multimodal(self, **tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The visual tokens of each clip (kept tokens, hidden), in the order of the clips.

        Args:
            tensors: those of `processing.FIELDS`, for any number of clips, of one request or of several.
        """
        if not tensors:
            return ()
        grid_thw, merge_sizes = tensors["grid_thw"], tensors["merge_sizes"]
        patches = grid_thw.prod(dim=1)
        tokens = patches // merge_sizes**2
        before_encoder = tensors["prunes_before_encoder"].bool()
        embedded: list[torch.Tensor] = [torch.empty(0)] * len(grid_thw)
        for stage, chosen in (("language", ~before_encoder), ("encoder", before_encoder)):
            if not chosen.any():
                continue
            keep_mask = tensors["keep_mask"][chosen.repeat_interleave(tokens)]
            encoded = self.vision_model(
                pixel_values=tensors["pixel_values"][chosen.repeat_interleave(patches)],
                grid_thw=grid_thw[chosen],
                merge_sizes=merge_sizes[chosen],
                keep_mask=keep_mask,
                frame_positions=tensors["frame_positions"][chosen.repeat_interleave(grid_thw[:, 0])],
                patch_spacing=tensors["patch_spacing"][chosen],
                prune_stage=stage,
            ).last_hidden_state
            kept = [int(mask.sum()) for mask in keep_mask.split(tokens[chosen].tolist())]
            projected = self.projector(encoded, grid_thw[chosen], merge_sizes[chosen], keep_mask)
            for place, clip in zip(chosen.nonzero().flatten().tolist(), projected.split(kept), strict=True):
                embedded[place] = clip
        return tuple(embedded)

    def forward(
        self,
        input_ids: torch.Tensor | None,
        positions: torch.Tensor,
        intermediate_tensors: IntermediateTensors | None = None,
        inputs_embeds: torch.Tensor | None = None,
        **kwargs: object,
    ) -> torch.Tensor | IntermediateTensors:
        if intermediate_tensors is not None:
            inputs_embeds = None
        return self.language_model.model(input_ids, positions, intermediate_tensors, inputs_embeds=inputs_embeds)

    def compute_logits(self, hidden_states: torch.Tensor) -> torch.Tensor | None:
        """The language model's, with the biases of the generation configuration, which vLLM leaves out by itself."""
        logits = self.language_model.compute_logits(hidden_states)
        if logits is not None and self._biased:
            logits[:, self._biased] += logits.new_tensor(self._biases)
        return logits

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> set[str]:
        return AutoWeightsLoader(self).load_weights(weights, mapper=self.hf_to_vllm_mapper)

    def get_mm_mapping(self) -> MultiModelKeys:
        """Which part is which; LoRA adapters change the language model."""
        return MultiModelKeys.from_string_field(
            language_model="language_model", connector="projector", tower_model="vision_model"
        )
