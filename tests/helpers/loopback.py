# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Free ports, and servers that answer, on this machine alone."""

from __future__ import annotations

import socket
import urllib.request

from tests.helpers.waiting import PATIENCE


def free_port() -> int:
    """A port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def answers(address: str) -> bool:
    """Whether an HTTP server answers there."""
    try:
        urllib.request.urlopen(address, timeout=PATIENCE).close()
    except OSError:
        return False
    return True
