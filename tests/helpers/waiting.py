# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Waits for what another process does, however slow or busy the machine is."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable

PATIENCE = 900.0
"""Seconds after which a test gives up: far more than the slowest machine needs, so that only a hang reaches it."""


def wait_until(condition: Callable[[], object], process: subprocess.Popen | None = None) -> None:
    """Returns when a condition holds; fails when the process that should bring it about has ended before."""
    end = time.monotonic() + PATIENCE
    while not condition():
        if process is not None and process.poll() is not None and not condition():
            raise AssertionError(f"The process ended with exit status {process.returncode} before that.")
        assert time.monotonic() < end, f"It did not come about in {PATIENCE:.0f} seconds."
        time.sleep(0.02)
