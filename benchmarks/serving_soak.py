# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Many clients of the vLLM server, some with bad files, some that hang up: is an answer lost, does memory grow?

Of ten requests in a row eight ask about a picture or a volume, one brings a file that nobody can read, or an address,
and one hangs up after the first tokens of a long answer. A request is lost if an answer does not come whole, or a bad
file gets anything but status 400. Each file is asked about alone first; an answer under load that differs from that one
is counted, not failed: which requests share a batch changes how sums are rounded, and so a token now and then.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import httpx

from benchmarks.memory import stages, watched_memory
from benchmarks.server_process import PATIENCE
from benchmarks.serving_clients import (
    PARTS,
    Asking,
    RefusedError,
    Workload,
    ask_again_and_again,
    data_uri,
    message,
    streamed,
)
from benchmarks.vllm_process import metric

CLIENTS = 16
ASKS, BAD_FILE, HANGS_UP = "asks", "bad file", "hangs up"
ROLES = {3: BAD_FILE, 7: HANGS_UP}
"""Which of ten requests in a row do not simply ask."""
LONG = 64
"""Tokens of an answer that is not waited for."""
RUNNING = "vllm:num_requests_running"


def role_of(number: int) -> str:
    """What the request of a number does."""
    return ROLES.get(number % 10, ASKS)


def bad_request(number: int, volume: bytes, new_tokens: int) -> dict[str, Any]:
    """A request that must be refused: no picture, half a volume, no base64, or an address, in turn."""
    part, url = (
        (PARTS["image"], data_uri(b"no picture at all")),
        (PARTS["volume"], data_uri(volume[: len(volume) // 2])),
        (PARTS["image"], "data:image/png;base64,%%%"),
        (PARTS["volume"], "http://127.0.0.1:9/volume.nii.gz"),
    )[number // 10 % 4]
    return message(part, url, new_tokens, {})


@dataclass
class Tally:
    """What became of the requests of all clients.

    Attributes:
        done: a role -> how many of its requests ended as they should.
        lost: what came instead, for each other request.
        differ: answers that are not the one given alone.
    """

    done: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    differ: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, role: str, ask: Callable[[], str], expected: str = "") -> None:
        """Sends a request, and notes what comes.

        Args:
            role: what kind of request it is.
            ask: sends it, and returns the answer, or "" where it hung up.
            expected: the answer given alone.
        """
        try:
            text, problem = ask(), "it was answered" if role == BAD_FILE else ""
        except RefusedError as refused:
            text, problem = "", "" if role == BAD_FILE and refused.status == httpx.codes.BAD_REQUEST else str(refused)
        except Exception as error:  # whatever it is, there is no answer
            text, problem = "", f"{type(error).__name__}: {error}"[:300]
        with self._lock:
            if problem:
                self.lost.append(f"{role}: {problem}")
                return
            self.done[role] += 1
            if role == ASKS and text != expected:
                self.differ.append(f"{text!r} in place of {expected!r}")


def soak(address: str, process: int, workloads: Sequence[Workload], new_tokens: int, seconds: float) -> dict[str, Any]:
    """Asks about each file alone, then lets all clients ask for so many seconds; the figures.

    Args:
        address, process: of the server.
        workloads: what is asked about; both in turn.
        new_tokens: of each answer that is waited for.
        seconds: how long clients begin new requests.
    """
    asking, long_answers, tally = Asking(new_tokens), Asking(LONG), Tally()
    files = [(workload, number) for workload in workloads for number in range(len(workload.files))]
    volume = next(workload for workload in workloads if workload.kind == "volume").files[0].read_bytes()
    with httpx.Client(base_url=address, timeout=PATIENCE) as client:
        alone = [asking.reply(client, *file).text for file in files]

    def hang_up(client: httpx.Client, workload: Workload, number: int) -> str:
        with closing(streamed(client, long_answers.request(workload, number))) as pieces:
            while next(pieces)[1] == 0:
                pass
        return ""

    def ask(client: httpx.Client, number: int) -> None:
        # Every tenth number is a bad file: counted by tens too, so that each role meets every file.
        place = (number + number // 10) % len(files)
        role, (workload, file) = role_of(number), files[place]
        ways: dict[str, Callable[[], str]] = {
            ASKS: lambda: asking.reply(client, workload, file).text,
            BAD_FILE: lambda: "".join(text for text, _, _ in streamed(client, bad_request(number, volume, new_tokens))),
            HANGS_UP: lambda: hang_up(client, workload, file),
        }
        tally.note(role, ways[role], alone[place])

    with watched_memory(process, 1) as samples:
        taken = ask_again_and_again(address, CLIENTS, seconds, ask)
    end = time.monotonic() + PATIENCE
    while (left := metric(address, RUNNING)) and time.monotonic() < end:
        time.sleep(1)  # what hung up last is being ended
    return {
        "clients": CLIENTS,
        "seconds": taken,
        "done": dict(tally.done),
        "lost": tally.lost,
        "differ": len(tally.differ),
        "different_answers": tally.differ[:20],
        "still_running": left,
        "memory_start_mib": round(samples[0]),
        "memory_end_mib": round(samples[-1]),
        "memory_mib": stages(samples),
    }
