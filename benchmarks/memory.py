# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""How much memory this process holds, and held at most, by Linux's counters."""

from __future__ import annotations

from pathlib import Path


def resident(field: str) -> int:
    """Bytes of this process's memory: now ("VmRSS"), or at most since the mark was reset ("VmHWM")."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


def reset_peak() -> None:
    """The mark of `resident("VmHWM")` begins anew."""
    Path("/proc/self/clear_refs").write_text("5")
