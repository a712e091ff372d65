# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The vLLM server with our plugin beside `generate`: requests a second, time to the first token, peak memory.

    python -m benchmarks.serving --json benchmarks/results/serving.json
    python -m benchmarks.serving --json benchmarks/results/serving_soak.json --soak 600

Needs `make serving`. One server answers 1, 8 and 16 clients at once, about pictures and about CT volumes of 64
slices, pruned as by default, before the encoder, and not at all. The peers are `generate` in this project's
environment, one by one and in static batches, about the same files with the same options: same weights, number format
and number of new tokens, greedy. They take turns; a side computes alone, for the server is stopped while a peer
answers, and a peer waits while the server does. In a turn, clients (or the peer) begin new requests for so many
seconds and wait for the last answer. No file is sent twice in the same bytes, so neither the cache of media nor that
of prefixes answers for the model.

Memory is resident memory of the server and all of its processes, or of the peer's process; pages that processes share
count for each, and at the end it is told once how much it is without that. With --soak nothing is timed; see
benchmarks/serving_soak.py.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import httpx
from transformers.utils import logging

from benchmarks.memory import proportional_mib, watched_memory
from benchmarks.report import write_json
from benchmarks.serving_clients import Asking, Workload, ask_again_and_again, workloads_in
from benchmarks.serving_figures import (
    IN_BATCHES,
    ONE_BY_ONE,
    SERVER,
    UNPRUNED,
    Cell,
    Reply,
    Turn,
    goals,
    goals_table,
    ratios,
    rows_of,
    table,
)
from benchmarks.serving_peers import Peer, running_peer
from benchmarks.serving_soak import soak
from benchmarks.vllm_process import CACHE_GIGABYTES, metric, running_vllm, suspended

DEFAULT_MODEL = Path(__file__).resolve().parents[1] / "hub_model"
NEW_TOKENS = 16
FILES = 8
"""Different files of each workload; the peer's batches hold as many."""
INTERVAL = 0.5
"""Seconds between two looks at the memory."""
CACHE_HITS = {"prefix_tokens": "vllm:prefix_cache_hits_total", "media": "vllm:mm_cache_hits_total"}


class Sides:
    """The server and its peers, which take turns.

    Args:
        address, process: of the server.
        peer: `generate`, in a process of its own.
    """

    def __init__(self, address: str, process: int, peer: Peer) -> None:
        self._address, self._process, self._peer = address, process, peer
        self._asking = Asking(NEW_TOKENS)

    def server(self, workload: Workload, clients: int, seconds: float) -> Turn:
        """So many clients ask the server at once."""
        replies: list[Reply] = []

        def ask(client: httpx.Client, number: int) -> None:
            replies.append(self._asking.reply(client, workload, number))

        with watched_memory(self._process, INTERVAL) as samples:
            taken = ask_again_and_again(self._address, clients, seconds, ask)
        return Turn(replies, taken, max(samples))

    def peer(self, workload: Workload, batch: int, seconds: float) -> Turn:
        """`generate` answers batches of so many, while the server is stopped."""
        with suspended(self._process), watched_memory(self._peer.process, INTERVAL) as samples:
            replies, taken = self._peer.answer_for(workload, batch, seconds)
        return Turn(replies, taken, max(samples))


def compare(
    sides: Sides, workloads: Sequence[Workload], clients: Sequence[int], rounds: int, seconds: float
) -> dict[Cell, list[Turn]]:
    """The turns of every cell: rounds that go there and back, after one request to either side about each workload."""
    ways: dict[Cell, Callable[[float], Turn]] = {}
    for workload in workloads:
        ways[Cell(workload.name, ONE_BY_ONE, 1)] = partial(sides.peer, workload, 1)
        ways[Cell(workload.name, IN_BATCHES, FILES)] = partial(sides.peer, workload, FILES)
        for count in clients:
            ways[Cell(workload.name, SERVER, count)] = partial(sides.server, workload, count)
        sides.peer(workload, 1, 0)
        sides.server(workload, 1, 0)
    turns: dict[Cell, list[Turn]] = {cell: [] for cell in ways}
    order = list(ways)
    for _ in range(rounds):
        for cell in order:
            turns[cell].append(ways[cell](seconds))
        order.reverse()
    return turns


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The figures of the whole run."""
    workloads = workloads_in(folder, FILES)
    with (
        running_vllm(options.model, options.dtype) as (address, process),
        running_peer(options.model, options.dtype, NEW_TOKENS) as peer,
    ):
        turns = compare(Sides(address, process, peer), workloads, options.clients, options.rounds, options.seconds)
        hits = {name: metric(address, counter) for name, counter in CACHE_HITS.items()}
        proportional = {"server": proportional_mib(process), "peer": proportional_mib(peer.process)}
    rows = rows_of(turns)
    found = ratios(rows)
    return {
        "dtype": options.dtype,
        "new_tokens": NEW_TOKENS,
        "rounds": options.rounds,
        "seconds_a_turn": options.seconds,
        "media_cache_gb": CACHE_GIGABYTES,
        "cache_hits": hits,
        "proportional_mib_at_the_end": proportional,
        "ratios": found,
        "goals": goals(found),
        "rows": rows,
    }


def soaked(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The figures of many clients over a long time."""
    workloads = [workload for workload in workloads_in(folder, FILES) if workload.name != UNPRUNED]
    with running_vllm(options.model, options.dtype) as (address, process):
        found = soak(address, process, workloads, NEW_TOKENS, options.soak)
    return {"dtype": options.dtype, "new_tokens": NEW_TOKENS, "media_cache_gb": CACHE_GIGABYTES, **found}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, prints and writes the figures; a soak fails if a request was lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True, help="where the figures go")
    parser.add_argument("--model", default=str(DEFAULT_MODEL), help="folder (default: %(default)s)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of both sides")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 16], help="of the server, at once")
    parser.add_argument("--rounds", type=int, default=2, help="turns of each side (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=6, help="of a turn, before its last answers (default: 6)")
    parser.add_argument("--soak", type=float, metavar="SECONDS", help="let 16 clients ask for so long instead")
    options = parser.parse_args(arguments)
    logging.set_verbosity_error()
    with tempfile.TemporaryDirectory() as folder:
        results = soaked(options, Path(folder)) if options.soak else measure(options, Path(folder))
    write_json(options.json, "serving", results)
    if options.soak:
        print(json.dumps(results, indent=1))
        if results["lost"] or results["still_running"]:
            sys.exit("Requests were lost, or still run.")
    else:
        print(table(results["rows"]), goals_table(results["goals"]), sep="\n\n")


if __name__ == "__main__":
    main()
