# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Starts a server in a process of its own, on loopback, and waits until it answers."""

from __future__ import annotations

import socket
import subprocess
import sys
import time

import httpx

PATIENCE = 600.0
"""Seconds that an answer of a server may take."""


def free_port() -> int:
    """A port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def wait_for(address: str, server: subprocess.Popen[bytes], reason: str) -> None:
    """Returns when a server answers; ends the program with `reason` when its process has ended before."""
    while True:
        try:
            httpx.get(address, timeout=PATIENCE).raise_for_status()
            return
        except httpx.TransportError:
            if server.poll() is not None:
                sys.exit(reason)
            time.sleep(0.5)
