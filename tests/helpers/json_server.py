# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""What the HTTP servers of tests have in common: answers in JSON, and a thread that serves while a test runs."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class JsonHandler(BaseHTTPRequestHandler):
    """One request whose answer is JSON."""

    protocol_version = "HTTP/1.1"

    def body(self) -> bytes:
        """What the request carries."""
        return self.rfile.read(int(self.headers["Content-Length"]))

    def reply(self, content: Any, status: int = 200) -> None:
        """Sends the whole answer."""
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Keeps standard error quiet."""


@contextmanager
def in_background(server: ThreadingHTTPServer) -> Iterator[str]:
    """The address of a server that answers while the block lasts, up to the port."""
    with server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
