# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Starts the real vLLM server with our plugin, from the environment of `make serving`, to measure and to test it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import psutil

from benchmarks.server_process import PATIENCE, free_port, wait_for

ENVIRONMENT = Path(__file__).resolve().parents[1] / "serving" / ".venv"
NAME = "omniv-med"
"""What the server calls the model."""
CACHE_GIGABYTES = 0.5
"""Of vLLM's cache of media. Its default, 4, would fill with files that are sent once only, and memory would tell how
long a benchmark ran."""
SETTINGS = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CPU_KVCACHE_SPACE": "2",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
}
GRACE = 60
"""Seconds that the server may take to end."""


@contextmanager
def running_vllm(model: str, dtype: str, *more: str) -> Iterator[tuple[str, int]]:
    """The server on loopback: its address, ending with "/", and the number of its process.

    Args:
        model: folder.
        dtype: the number format, as vLLM calls it.
        more: further arguments of its command line.
    """
    python, port = ENVIRONMENT / "bin" / "python", free_port()
    if not (ENVIRONMENT / ".installed").exists():
        sys.exit(f"{ENVIRONMENT} has no vLLM; run `make serving` first.")
    command = [str(python), "-m", "vllm.entrypoints.openai.api_server", "--model", model, "--served-model-name", NAME]
    command += ["--trust-remote-code", "--trust-request-mm-kwargs", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--max-model-len", "4096", "--dtype", dtype, "--enforce-eager"]
    command += ["--mm-processor-cache-gb", str(CACHE_GIGABYTES), *more]
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log.txt"
        with log.open("w") as output:
            server = subprocess.Popen(command, env={**os.environ, **SETTINGS}, stdout=output, stderr=output)
        try:
            address = f"http://127.0.0.1:{port}/"
            wait_for(
                f"{address}health", server, f"The server did not start; this command says why: {' '.join(command)}"
            )
            yield address, server.pid
        finally:
            end(server)


def end(server: subprocess.Popen[bytes]) -> None:
    """Ends the server and every process that it started."""
    processes = []
    if server.poll() is None:
        parent = psutil.Process(server.pid)
        processes = [parent, *parent.children(recursive=True)]
    server.terminate()
    _, left = psutil.wait_procs(processes, GRACE)
    for process in left:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    server.wait()


@contextmanager
def suspended(process: int) -> Iterator[None]:
    """Stops a process and those that it started while the block runs, so that they compute nothing."""
    parent = psutil.Process(process)
    stopped = [parent, *parent.children(recursive=True)]
    for each in stopped:
        each.suspend()
    try:
        yield
    finally:
        for each in stopped:
            with suppress(psutil.NoSuchProcess):
                each.resume()


def metric(address: str, name: str) -> float:
    """One of the server's own counters or gauges, summed over its labels; 0 for one that it does not have."""
    return metric_in(httpx.get(f"{address}metrics", timeout=PATIENCE).raise_for_status().text, name)


def metric_in(text: str, name: str) -> float:
    """The same, out of what the server tells Prometheus."""
    return sum(float(value) for value in re.findall(rf"^{re.escape(name)}(?:\{{.*\}})? (\S+)$", text, re.MULTILINE))
