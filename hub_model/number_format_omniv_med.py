# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The number format that a model should compute in on this machine's processor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

BFLOAT16_INSTRUCTIONS = ("amx_bf16", "avx512_bf16")
"""x86 instruction sets that multiply in bfloat16, as `torch.cpu.get_capabilities` names them. ARM's are left out: we
have not compared answers on such a processor."""


def preferred_dtype(capabilities: Mapping[str, Any] | None = None) -> torch.dtype:
    """bfloat16 where the processor has instructions for it (AMX or AVX512-BF16), float32 otherwise.

    Without these instructions bfloat16 is converted to float32 and back at every step, so it saves memory and costs
    time.

    Args:
        capabilities: the processor's, as `torch.cpu.get_capabilities` returns them; by default this machine's.
    """
    if capabilities is None:
        # Older releases of torch do not list them.
        capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    return torch.bfloat16 if any(capabilities.get(name) for name in BFLOAT16_INSTRUCTIONS) else torch.float32


__all__ = ["preferred_dtype"]
