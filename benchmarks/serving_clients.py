# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The files that the serving benchmark sends, and the clients that send them and read the streams of answers.

vLLM's caches go by the bytes of a file. So that they do not answer for the model, every request sends bytes that no
request sent before: the same picture with another comment, the same compressed volume with another time in its header.
"""

from __future__ import annotations

import base64
import itertools
import json
import shutil
import struct
import threading
import time
import zlib
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from benchmarks.generated_studies import write_picture, write_volume
from benchmarks.server_process import PATIENCE
from benchmarks.serving_figures import PICTURES, PRUNED, PRUNED_EARLY, UNPRUNED, Reply
from benchmarks.vllm_process import NAME

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "media" / "xray.png"
QUESTION = "Which imaging modality is this?"
PIXELS = 512
"""A side of a generated picture."""
PNG_BEGINNING = 33
"""Bytes of a PNG file up to the end of its header, after which a comment may stand."""
PARTS = {"image": "image_url", "volume": "video_url"}
"""A kind of medium -> the part of a message that brings it."""
GZIP = b"\x1f\x8b"


@dataclass(frozen=True)
class Workload:
    """What both sides are asked about, again and again in the same order.

    Attributes:
        name: in the table.
        kind: of its media, as the processor calls it.
        files: all different.
        options: of the processor, and the model's `prune_stage`.
    """

    name: str
    kind: str
    files: tuple[Path, ...]
    options: dict[str, Any] = field(default_factory=dict)


def workloads_in(folder: Path, count: int) -> list[Workload]:
    """Writes the example's radiograph, generated ones and generated CT volumes, so many of each kind."""
    pictures = [folder / f"{number:02d}.png" for number in range(count)]
    volumes = [folder / f"{number:02d}.nii.gz" for number in range(count)]
    shutil.copy(EXAMPLE, pictures[0])
    for number, path in enumerate(pictures[1:], 1):
        write_picture(path, number, PIXELS)
    for number, path in enumerate(volumes):
        write_volume(path, number)
    return [
        Workload(PICTURES, "image", tuple(pictures)),
        Workload(PRUNED, "volume", tuple(volumes)),
        Workload(PRUNED_EARLY, "volume", tuple(volumes), {"prune_stage": "encoder"}),
        Workload(UNPRUNED, "volume", tuple(volumes), {"prune_rule": "none"}),
    ]


def relabelled(content: bytes, label: int) -> bytes:
    """The same pixels or voxels in other bytes.

    Args:
        content: a PNG or gzip file.
        label: what tells its bytes from those of the same content under another label.
    """
    number = label.to_bytes(4, "little")
    if content.startswith(GZIP):
        return content[:4] + number + content[8:]  # when the file was written
    chunk = b"tEXtComment\0" + str(label).encode()
    comment = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return content[:PNG_BEGINNING] + comment + content[PNG_BEGINNING:]


def message(part: str, url: str, new_tokens: int, options: dict[str, Any]) -> dict[str, Any]:
    """A request with one file, for a greedy answer of exactly so many tokens, as a stream that counts them."""
    content = [{"type": part, part: {"url": url}}, {"type": "text", "text": QUESTION}]
    return {
        "model": NAME,
        "messages": [{"role": "user", "content": content}],
        "temperature": 0,
        "max_tokens": new_tokens,
        "min_tokens": new_tokens,
        "stream": True,
        "stream_options": {"include_usage": True, "continuous_usage_stats": True},
        "mm_processor_kwargs": options,
    }


def data_uri(content: bytes) -> str:
    """A file as requests bring it."""
    return f"data:application/octet-stream;base64,{base64.b64encode(content).decode()}"


class RefusedError(Exception):
    """The server answered with an error: `status`, and its reason."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(f"{status}: {reason[:300]}")
        self.status = status


def streamed(client: httpx.Client, request: dict[str, Any]) -> Generator[tuple[str, int, int], None, None]:
    """What comes of a request, piece by piece: its text, the new tokens so far, and those of the prompt.

    Raises:
        RefusedError: the server refuses the request.
        RuntimeError: the stream ends with an error.
    """
    with client.stream("POST", "v1/chat/completions", json=request) as response:
        if response.is_error:
            response.read()
            raise RefusedError(response.status_code, response.text)
        for line in response.iter_lines():
            if not line.startswith("data: {"):
                continue
            piece = json.loads(line.removeprefix("data: "))
            if "error" in piece:
                raise RuntimeError(str(piece["error"])[:300])
            text = "".join(choice["delta"].get("content") or "" for choice in piece["choices"])
            yield text, piece["usage"]["completion_tokens"], piece["usage"]["prompt_tokens"]


@dataclass
class Asking:
    """Asks the server about files; every request has a label of its own."""

    new_tokens: int
    _labels: Iterator[int] = field(default_factory=itertools.count)

    def request(self, workload: Workload, number: int) -> dict[str, Any]:
        """The request about a workload's file of this number, counted round and round."""
        content = relabelled(workload.files[number % len(workload.files)].read_bytes(), next(self._labels))
        return message(PARTS[workload.kind], data_uri(content), self.new_tokens, workload.options)

    def reply(self, client: httpx.Client, workload: Workload, number: int) -> Reply:
        """Asks, and reads the answer to its end.

        Raises:
            RefusedError, RuntimeError: as `streamed`, or the answer does not have its number of tokens.
        """
        request = self.request(workload, number)
        start, first, text, given, prompt = time.perf_counter(), 0.0, "", 0, 0
        for piece, given, prompt in streamed(client, request):  # noqa: B007 - the last ones are those of the answer
            first = first or (time.perf_counter() - start if given else 0.0)
            text += piece
        if given != self.new_tokens:
            raise RuntimeError(f"The answer has {given} tokens in place of {self.new_tokens}.")
        return Reply(number % len(workload.files), first, time.perf_counter() - start, text.strip(), prompt)


def ask_again_and_again(address: str, clients: int, seconds: float, ask: Callable[[httpx.Client, int], None]) -> float:
    """Lets clients ask at once until the time is over; each asks at least once and waits for its last answer.

    Args:
        address: of the server.
        clients: how many.
        seconds: how long they begin new requests.
        ask: sends the request of a number, counted over all clients.

    Returns:
        Seconds from the first request to the last answer.

    Raises:
        Exception: the first one that `ask` raised.
    """
    numbers, failed = itertools.count(), list[Exception]()
    connections = [httpx.Client(base_url=address, timeout=PATIENCE) for _ in range(clients)]
    start = time.perf_counter()

    def work(client: httpx.Client) -> None:
        asked = 0
        while not failed and (not asked or time.perf_counter() - start < seconds):
            try:
                ask(client, next(numbers))
            except Exception as error:  # told to the caller, in whose thread it can end the benchmark
                failed.append(error)
            asked += 1

    workers = [threading.Thread(target=work, args=(client,)) for client in connections]
    for thread in workers:
        thread.start()
    for thread in workers:
        thread.join()
    taken = time.perf_counter() - start
    for client in connections:
        client.close()
    if failed:
        raise failed[0]
    return taken
