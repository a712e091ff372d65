# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""One measured run in a process of its own: where the time goes from a file to the 32nd token, and the peak memory."""

from __future__ import annotations

import gc
import multiprocessing
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

import torch
from transformers.generation import BaseStreamer
from transformers.utils import logging

from benchmarks.end_to_end.cases import MERGE_SIZE, NEW_TOKENS, PEER, Case, Run
from benchmarks.memory import reset_peak, resident

STAGES = ("read", "prepare", "encode", "prefill", "decode")
"""File to frames; frames to patches, prompt and kept tokens; encoder and projector; the language model up to the first
token; and from there to the 32nd."""
SHARED_IMPORTS = ["torch", "transformers.modeling_utils", "transformers.generation", "PIL.Image"]


class Side(Protocol):
    """What is measured: `ours.Ours` or `peer.Peer`."""

    model: Any

    def read(self, path: Path, case: Case) -> Any: ...

    def prepare(self, read: Any) -> tuple[dict[str, Any], torch.Tensor, tuple[int, int]]: ...


class Clock(BaseStreamer):
    """Notes when each token comes; `generate` puts the prompt first."""

    def __init__(self) -> None:
        self.arrivals: list[float] = []

    def put(self, value: torch.Tensor) -> None:
        self.arrivals.append(time.perf_counter())

    def end(self) -> None:
        pass


class EncoderClock:
    """Notes when the encoder begins and when the projector, which comes after it, ends."""

    def __init__(self, backbone: Any) -> None:
        self.start = self.end = 0.0
        backbone.vision_model.register_forward_pre_hook(self._begin)
        backbone.projector.register_forward_hook(self._finish)

    def _begin(self, *call: Any) -> None:
        self.start = time.perf_counter()

    def _finish(self, *call: Any) -> None:
        self.end = time.perf_counter()


def ask(side: Side, encoder: EncoderClock, case: Case, path: Path) -> dict[str, Any]:
    """Asks once: seconds of each stage, and what was asked about."""
    start = time.perf_counter()
    frames = side.read(path, case)
    was_read = time.perf_counter()
    inputs, keep, (rows, columns) = side.prepare(frames)
    prepared = time.perf_counter()
    clock = Clock()
    side.model.generate(**inputs, do_sample=False, max_new_tokens=NEW_TOKENS, min_new_tokens=NEW_TOKENS, streamer=clock)
    first, last = clock.arrivals[1], clock.arrivals[NEW_TOKENS]
    encode = encoder.end - encoder.start
    seconds = (was_read - start, prepared - was_read, encode, first - prepared - encode, last - first)
    by_frame = keep.sum(dim=1)
    whole_frames = inputs.get("prune_stage") != "encoder"
    encoded = (torch.full_like(by_frame, keep.shape[1]) if whole_frames else by_frame) * MERGE_SIZE**2
    return {
        "seconds": dict(zip(STAGES, seconds, strict=True)),
        "first_token_s": first - start,
        "last_token_s": last - start,
        "frames": len(keep),
        "tokens_of_a_frame": [rows, columns],
        "removed": 1 - float(keep.float().mean()),
        "visual_tokens": int(keep.sum()),
        "prompt_tokens": inputs["input_ids"].shape[1],
        "encoded_patches": int(encoded.sum()),
        "encoded_pairs": int((encoded**2).sum()),
    }


def measure(run: Run, folder: Path, tiny: Case) -> dict[str, Any]:
    """Loads the side's model, asks about a tiny file of the kind, so that all is imported, and then measures.

    Returns:
        What `ask` gives, and the bytes of memory that the process held at most (`peak_bytes`), and before it read.
    """
    torch.set_num_threads(run.threads)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    # Imported by the side that needs it, so that no process holds the other one's libraries.
    side: Side
    if run.side == PEER:
        from benchmarks.end_to_end.peer import Peer

        side = Peer(run, folder)
    else:
        from benchmarks.end_to_end.ours import Ours

        side = Ours(run, folder)
    encoder = EncoderClock(side.model.model)
    ask(side, encoder, tiny, folder / tiny.file)
    gc.collect()
    reset_peak()
    before = resident("VmRSS")
    found = ask(side, encoder, run.case, folder / run.case.file)
    return {**found, "peak_bytes": resident("VmHWM"), "before_bytes": before}


def _answer(connection: Connection, work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    connection.send(work(*arguments))


class FreshProcesses:
    """Runs functions of a module, each in a process that began with torch and transformers imported."""

    def __init__(self) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(SHARED_IMPORTS)

    def call(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """What `work(*arguments)` returns there.

        Raises:
            RuntimeError: when the process ends without an answer.
        """
        receiving, sending = self._context.Pipe(duplex=False)
        process = self._context.Process(target=_answer, args=(sending, work, arguments))
        process.start()
        sending.close()
        try:
            return receiving.recv()
        except EOFError:
            process.join()
            raise RuntimeError(f"A measured process ended with code {process.exitcode}: {arguments[:1]}.") from None
        finally:
            process.join()
            receiving.close()
