# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Starts the demo in a process of its own, for benchmarks that visit it."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.server_process import free_port, wait_for


@contextmanager
def running_demo(model: str) -> Iterator[tuple[str, int]]:
    """The demo on loopback: its address, ending with "/", and the number of its process.

    Args:
        model: folder or Hub id.
    """
    port = free_port()
    with tempfile.TemporaryDirectory() as folder, open(Path(folder) / "log.txt", "w") as log:
        command = [sys.executable, "-m", "demo", "--host", "127.0.0.1", "--port", str(port), "--model", model]
        server = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            address = f"http://127.0.0.1:{port}/"
            wait_for(address, server, "The demo did not start; `python -m demo` says why.")
            yield address, server.pid
        finally:
            server.kill()  # clients' open connections would hold up an orderly end
            server.wait()
