# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Counts the operations of training on one conversation at full size, with the real model on fake tensors."""

from __future__ import annotations

from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from train.config import StageConfig
from train.memory.measurement import RealMasks, make_fake
from train.memory.plan import PlannedBatch, build_module, model_config

VISUAL_INPUTS = ("pixel_values", "grid_thw", "merge_sizes", "keep_mask", "frame_positions", "patch_spacing")


def step_flops(architecture: dict[str, Any], stage: StageConfig, batch: PlannedBatch) -> int:
    """Floating-point operations of the forward and the backward pass of a batch.

    Products of matrices alone count, a multiplication and an addition as two. What gradient checkpointing computes
    again counts as it runs. Attention counts every pair of positions that its matrices have, causal or not.

    Args:
        architecture: as `read_architecture` gives it.
        stage: what is trained, and whether activations are computed again.
        batch: its shapes; without frames it is text alone.
    """
    vision = model_config(architecture).vision_config
    with torch.device("meta"):
        module = build_module(architecture, stage)
    module.model.model.vision_model.set_attn_implementation("eager")  # in matrix products, which the counter knows
    inputs = batch.tensors(1, vision.num_channels * vision.patch_size**2)
    if not batch.frames:
        inputs = {name: value for name, value in inputs.items() if name not in VISUAL_INPUTS}
    with FakeTensorMode(allow_non_fake_inputs=True):
        make_fake(module)
        inputs = {
            name: torch.empty(value.shape, dtype=value.dtype) if value.is_meta else value
            for name, value in inputs.items()
        }
    with FlopCounterMode(display=False) as counter, RealMasks():
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = module(**inputs)["loss"]
        loss.backward()
    return counter.get_total_flops()
