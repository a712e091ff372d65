# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""HTTP with one server that may be broken or hostile: bounded in bytes and time, and never led to another server."""

from __future__ import annotations

import http.client
import time
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests
import urllib3

MOST_REDIRECTS = 3
PIECE = 1 << 16
"""Bytes that are taken from a socket at once."""


class RefusedError(Exception):
    """An answer that is not taken, and not asked for again; the message is the end of a sentence about the server."""


class GuardedSession(requests.Session):
    """A session of requests that reads each answer whole, within limits.

    Settings of the environment (proxies, certificates, .netrc) are not used: what is sent, the caller says.

    Args:
        verify: whether certificates are checked against those of certifi, or a file with the ones to trust.
        request_seconds: how long one answer may take.

    Attributes:
        bytes_left: how many bytes the server may still send, in all answers together; set it before each task.
    """

    def __init__(self, verify: bool | str = True, request_seconds: float = 600.0) -> None:
        super().__init__()
        self.trust_env = False
        self.verify = verify
        self.request_seconds = request_seconds
        self.bytes_left = 0
        self.headers["Accept-Encoding"] = "identity"  # a compressed answer may be a thousand times as large

    def request(self, method: str, url: str, *args: Any, **kwargs: Any) -> requests.Response:  # type: ignore[override]
        """As in requests; the answer's content has been read.

        Raises:
            RefusedError: an answer beyond the limits, or a redirect to another server.
            requests.ConnectionError: also where the answer is cut short.
        """
        end = time.monotonic() + self.request_seconds
        for _ in range(MOST_REDIRECTS + 1):
            response = super().request(method, url, *args, **{**kwargs, "stream": True, "allow_redirects": False})
            if not response.is_redirect:
                with response:
                    # What requests itself sets after reading an answer; it has no other way to bound the reading.
                    response._content, response._content_consumed = self._read(response, end), True
                return response
            target = urljoin(url, response.headers["location"])
            response.close()
            if _server_of(target) != _server_of(url):
                raise RefusedError("redirects to another server, which is not followed; give its final address")
            if method.upper() != "GET":
                raise RefusedError("redirects what is sent to it; give its final address")
            url = target
        raise RefusedError("redirects again and again; check its address")

    def _read(self, response: requests.Response, end: float) -> bytes:
        """The body, as it comes over the wire."""
        if response.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise RefusedError("sends compressed answers though it was asked not to")
        length = response.headers.get("Content-Length", "")
        announced = int(length) if length.isdecimal() else None
        body = bytearray()
        try:
            if (announced or 0) > self.bytes_left:
                raise RefusedError("sends more bytes than the limit allows")
            while piece := response.raw.read1(PIECE, decode_content=False):
                body += piece
                if len(body) > self.bytes_left:
                    raise RefusedError("sends more bytes than the limit allows")
                if time.monotonic() > end:
                    raise RefusedError(f"takes longer than {self.request_seconds:g} s for one answer")
        except (urllib3.exceptions.HTTPError, http.client.HTTPException, OSError):
            raise requests.ConnectionError("The answer was cut short.") from None
        if announced is not None and len(body) < announced:
            raise requests.ConnectionError("The answer was cut short.")
        self.bytes_left -= len(body)
        return bytes(body)


def _server_of(url: str) -> tuple[str, str, int | None]:
    """What must stay the same in a redirect: protocol, host and port."""
    parts = urlsplit(url)
    usual = {"http": 80, "https": 443}.get(parts.scheme)
    return parts.scheme, (parts.hostname or "").lower(), parts.port or usual
