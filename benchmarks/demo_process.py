# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Starts the demo in a process of its own, for benchmarks that visit it."""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

PATIENCE = 600.0
"""Seconds that an answer of the demo may take."""


@contextmanager
def running_demo(model: str) -> Iterator[tuple[str, int]]:
    """The demo on loopback: its address, ending with "/", and the number of its process.

    Args:
        model: folder or Hub id.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder, open(Path(folder) / "log.txt", "w") as log:
        command = [sys.executable, "-m", "demo", "--host", "127.0.0.1", "--port", str(port), "--model", model]
        server = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            address = f"http://127.0.0.1:{port}/"
            wait_for(address, server)
            yield address, server.pid
        finally:
            server.kill()  # clients' open connections would hold up an orderly end
            server.wait()


def wait_for(address: str, server: subprocess.Popen[bytes]) -> None:
    """Returns when the demo answers."""
    while True:
        try:
            httpx.get(address, timeout=PATIENCE).raise_for_status()
            return
        except httpx.TransportError:
            if server.poll() is not None:
                sys.exit("The demo did not start; `python -m demo` says why.")
            time.sleep(0.5)
