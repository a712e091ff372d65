# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Twins of a loaded model: other settings for one request on the same weights, so that visitors never race for one.

Whether pruned tokens are encoded, and which attention runs, are fields of a model's configuration, and one model serves
all visitors. A twin has modules and a configuration of its own; its weights are the model's.
"""

from __future__ import annotations

import copy
from typing import TypeVar

from torch import nn

Module = TypeVar("Module", bound=nn.Module)


def twin(module: Module) -> Module:
    """A copy of a module and its configuration that shares every parameter and buffer; takes milliseconds."""
    shared = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    return copy.deepcopy(module, memo=shared)


def at_stage(model: Module, stage: str) -> Module:
    """The model with `vision_config.prune_stage` set to `stage`, on the same weights; the model itself where it is so.

    Args:
        model: an `OmniVMedForConditionalGeneration`, which is not changed.
        stage: "language" encodes every patch and leaves pruned tokens out of the prompt, "encoder" encodes no pruned
            patch either.

    Raises:
        ValueError: for another stage.
    """
    if stage not in ("language", "encoder"):
        raise ValueError(f"The stage is 'language' or 'encoder', not {stage!r}.")
    if model.config.vision_config.prune_stage == stage:
        return model
    other = twin(model)
    other.config.vision_config.prune_stage = stage
    other.model.vision_model.config.prune_stage = stage
    return other
