# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""An HTTP server on loopback that answers as a test tells it to, however rudely, and remembers what it was asked."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.helpers.json_server import in_background

Answer = Callable[[BaseHTTPRequestHandler, int], None]
"""Answers a request, given its handler and how many came before."""


@dataclass
class HostileServer:
    """Where it is, and the paths and authorizations that it was asked with."""

    address: str = ""
    paths: list[str] = field(default_factory=list)
    authorizations: list[str | None] = field(default_factory=list)


@contextmanager
def serving(answer: Answer) -> Iterator[HostileServer]:
    """A server that gives this answer to everything."""
    asked = HostileServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            number = len(asked.paths)
            asked.paths.append(self.path)
            asked.authorizations.append(self.headers["Authorization"])
            self.close_connection = True
            with suppress(OSError):  # the client had enough of it
                answer(self, number)

        do_POST = do_GET

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    with in_background(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as address:
        asked.address = f"{address}/dicom-web"
        yield asked


def send(handler: BaseHTTPRequestHandler, status: int = 200, body: bytes = b"", **headers: str) -> None:
    """One whole answer; underscores in names of headers are hyphens."""
    handler.send_response(status)
    lines = {"Content_Type": "application/dicom+json", "Content_Length": str(len(body)), "Connection": "close"}
    for name, value in {**lines, **headers}.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(body)


def study(number: int) -> dict[str, Any]:
    """A study in DICOM JSON (PS3.18 F.2)."""
    return {"0020000D": {"vr": "UI", "Value": [f"1.2.3.{number}"]}}


def send_studies(handler: BaseHTTPRequestHandler, *numbers: int) -> None:
    """A page of a listing."""
    send(handler, body=json.dumps([study(number) for number in numbers]).encode())
