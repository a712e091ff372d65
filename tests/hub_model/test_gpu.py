# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""What only an NVIDIA GPU can show: its attention kernels, and that the pruner decides there as on a CPU."""

from __future__ import annotations

import pytest
import torch
from transformers.utils import is_flash_attn_2_available

from hub_model.configuration_omniv_med import OmniVMedVisionConfig
from hub_model.modeling_omniv_med import OmniVMedVisionModel
from hub_model.pruning_noise_omniv_med import estimate_noise
from hub_model.token_pruning_omniv_med import StreamingPruner, prune_tokens
from hub_model.vision_layers_omniv_med import memory_efficient_attention

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]

PATCH = 14


def moving_tokens() -> torch.Tensor:
    """Tokens (T, N, 4, 3, 14, 14) that drift slowly under a little noise."""
    generator = torch.Generator().manual_seed(0)
    start = torch.rand(1, 16, 4, 3, PATCH, PATCH, generator=generator) * 2 - 1
    drift = torch.randn(20, 16, 1, 1, 1, 1, generator=generator).mul(0.05).cumsum(0)
    return (start + drift + torch.randn(20, 16, 4, 3, PATCH, PATCH, generator=generator) * 0.01).clamp(-1, 1)


@pytest.mark.parametrize("backend", ["xformers", "flash_attention_2"])
@pytest.mark.parametrize("share_kept", [1.0, 0.4], ids=["equal windows", "ragged windows"])
@torch.no_grad()
def test_other_kernels_equal_sdpa_within_half_precision(backend, share_kept):
    if not (memory_efficient_attention if backend == "xformers" else is_flash_attn_2_available()):
        pytest.skip(f"{backend} is not installed")
    torch.manual_seed(0)
    config = OmniVMedVisionConfig(
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=2,
        num_attention_heads=4,
        temporal_window=2,
        prune_stage="encoder",
    )
    model = OmniVMedVisionModel._from_config(config, attn_implementation="sdpa").to("cuda", torch.bfloat16).eval()
    tokens = moving_tokens()
    keep_mask = torch.rand(tokens.shape[:2], generator=torch.Generator().manual_seed(1)) < share_kept
    inputs = {
        "pixel_values": tokens.flatten(0, 2).flatten(1),
        "grid_thw": torch.tensor([[20, 8, 8]]),
        "merge_sizes": torch.tensor([2]),
        "keep_mask": keep_mask.flatten(),
    }
    inputs = {name: value.cuda() for name, value in inputs.items()}
    expected = model(**inputs).last_hidden_state
    model.set_attn_implementation(backend)
    torch.testing.assert_close(model(**inputs).last_hidden_state, expected, atol=0.05, rtol=0.05)


def test_the_pruner_decides_on_a_gpu_as_on_a_cpu():
    tokens = moving_tokens()
    here = prune_tokens(tokens, threshold=0.1, peak_threshold=0.3, noise=estimate_noise(tokens))
    there = prune_tokens(tokens.cuda(), threshold=0.1, peak_threshold=0.3, noise=estimate_noise(tokens.cuda()))
    assert 0 < here.keep_mask.float().mean() < 1
    assert (there.keep_mask.cpu() == here.keep_mask).float().mean() > 0.99  # rounding may tip one on the threshold
    assert there.worst_error <= there.threshold + 1e-6


@pytest.mark.parametrize("frames_at_once", [1, 3, 20])
def test_a_stream_is_decided_on_a_gpu_as_on_a_cpu_in_parts_of_any_length(frames_at_once):
    tokens = moving_tokens()
    here, there = StreamingPruner("anchor", 0.1).judge(tokens), StreamingPruner("anchor", 0.1)
    parts = [there.judge(part) for part in tokens.cuda().split(frames_at_once)]
    assert all(field.is_cuda for part in parts for field in part)
    keep_mask = torch.cat([part.keep_mask for part in parts]).cpu()
    assert (keep_mask == here.keep_mask).float().mean() > 0.99


def test_the_pruner_does_not_wait_for_the_gpu_while_it_judges():
    tokens = moving_tokens().cuda()
    pruner = StreamingPruner("anchor", 0.1)
    pruner.judge(tokens)  # the thresholds go to the GPU
    torch.cuda.set_sync_debug_mode("error")
    try:
        decision = pruner.judge(tokens)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert decision.keep_mask.is_cuda
