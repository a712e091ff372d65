# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The vLLM plugin of OmniV-Med.

vLLM calls `register` in each of its processes. Neither the processor nor the encoder is written again here: both come
with the model, as everywhere (`--trust-remote-code`). What is here says how vLLM's requests reach them.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vllm.config import ModelConfig

ARCHITECTURE = "OmniVMedForConditionalGeneration"
"""What the model's config.json calls itself."""
CONNECTOR = "omniv_med"
"""Name of `media.IsolatedMediaConnector` among vLLM's connectors."""
MODALITY = "vision_chunk"
"""vLLM's name for pictures and videos that are one kind of media, in reading order. Kinds of their own would lose the
order between them, because one placeholder of the prompt stands for either."""


class ModelSettings:
    """What vLLM must know before it serves this model; other models of the same process are left alone."""

    @staticmethod
    def verify_and_update_model_config(model_config: ModelConfig) -> None:
        """Called by vLLM once it knows the model."""
        model_config.hf_config.use_unified_vision_chunk = True
        # vLLM's own connector decodes in the server's process, and fetches any address that a request names.
        os.environ["VLLM_MEDIA_CONNECTOR"] = CONNECTOR

    @staticmethod
    def verify_and_update_config(vllm_config: object) -> None:
        """Nothing beside the model's own."""


def register() -> None:
    """Makes the model known to vLLM; may be called more than once."""
    from vllm import ModelRegistry
    from vllm.model_executor.models.config import MODELS_CONFIG_MAP
    from vllm.multimodal.media import MEDIA_CONNECTOR_REGISTRY

    from .media import IsolatedMediaConnector

    # By name: importing the model would choose a device before vLLM does.
    ModelRegistry.register_model(ARCHITECTURE, "omniv_med_vllm.model:OmniVMedForConditionalGeneration")
    MODELS_CONFIG_MAP[ARCHITECTURE] = ModelSettings
    MEDIA_CONNECTOR_REGISTRY.register(CONNECTOR)(IsolatedMediaConnector)
