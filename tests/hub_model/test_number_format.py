# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The number format follows the processor's instructions."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest
import torch

from hub_model.number_format_omniv_med import preferred_dtype

CPU_FLAGS = Path("/proc/cpuinfo")


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"amx_bf16": True, "avx512_bf16": False}, torch.bfloat16),
        ({"amx_bf16": False, "avx512_bf16": True}, torch.bfloat16),
        ({"amx_bf16": False, "avx512_bf16": False, "avx512_f": True, "avx2": True}, torch.float32),
        ({"architecture": "aarch64", "bf16": True}, torch.float32),
        ({}, torch.float32),
    ],
    ids=["AMX", "AVX512-BF16", "neither of them", "ARM", "unknown"],
)
def test_bfloat16_is_for_processors_that_multiply_in_it(capabilities, expected):
    assert preferred_dtype(capabilities) is expected


@pytest.mark.skipif(
    not CPU_FLAGS.exists() or platform.machine() != "x86_64", reason="needs Linux on x86, which lists its instructions"
)
def test_this_machine_gets_the_format_that_the_kernel_says_it_has():
    flags = set(CPU_FLAGS.read_text().split())
    has_bfloat16 = bool({"amx_bf16", "avx512_bf16"} & flags)
    assert preferred_dtype() is (torch.bfloat16 if has_bfloat16 else torch.float32)
