# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Memory that was freed goes back to the system, also where something that is still used lies behind it."""

from __future__ import annotations

import platform
import sys

import numpy as np
import pytest

from benchmarks.memory import resident
from demo.service.freed_memory import return_freed_memory

BLOCK, BLOCKS = 100_000, 2000


@pytest.mark.skipif(sys.platform != "linux" or platform.libc_ver()[0] != "glibc", reason="glibc keeps freed memory")
def test_what_is_freed_in_front_of_something_used_is_returned():
    held = [np.ones(BLOCK, np.uint8) for _ in range(BLOCKS)]
    del held[:-1]
    before = resident("VmRSS")
    return_freed_memory()
    assert before - resident("VmRSS") > BLOCK * BLOCKS / 2
    assert held[0].all()


@pytest.mark.parametrize("system", ["win32", "darwin"])
def test_on_other_systems_nothing_happens(monkeypatch, system):
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr("ctypes.CDLL", lambda name: pytest.fail("asked for a library"))
    return_freed_memory()


@pytest.mark.skipif(sys.platform != "linux", reason="looked up on Linux alone")
def test_with_another_c_library_nothing_happens(monkeypatch):
    monkeypatch.setattr("ctypes.CDLL", lambda name: object())
    return_freed_memory()
