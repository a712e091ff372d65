# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Runs one function over many tasks: on processes of this machine, or on Ray Data (one machine or a cluster)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")
ENGINES = ("local", "ray")
ROOT = Path(__file__).resolve().parents[1]


def run_tasks(
    engine: str, function: Callable[[Task], Result], tasks: Sequence[Task], processes: int
) -> Iterator[Result]:
    """Yields the results as they come, in any order; the function and the tasks must be picklable.

    Raises:
        ValueError: an engine that does not exist, or one whose package is not installed.
    """
    if engine not in ENGINES:
        raise ValueError(f"The engine is one of {', '.join(ENGINES)}, not {engine!r}.")
    return (_run_local if engine == "local" else _run_ray)(function, tasks, processes)


def _run_local(function: Callable[[Task], Result], tasks: Sequence[Task], processes: int) -> Iterator[Result]:
    # Spawned, because forking a process that has threads (torch, decord) can hang.
    pool = ProcessPoolExecutor(processes, mp_context=get_context("spawn"))
    waiting, remaining = set(), iter(tasks)
    try:
        while True:
            for task in remaining:
                waiting.add(pool.submit(function, task))
                if len(waiting) > 2 * processes:
                    break
            if not waiting:
                return
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _run_ray(function: Callable[[Task], Result], tasks: Sequence[Task], processes: int) -> Iterator[Result]:
    with ray_session(processes) as ray:

        def step(row: dict[str, Any]) -> dict[str, Any]:
            return {"result": function(row["item"])}

        for row in ray.data.from_items([{"item": task} for task in tasks]).map(step).iter_rows():
            yield row["result"]


@contextmanager
def ray_session(processes: int) -> Iterator[Any]:
    """The package ray, connected: to the cluster of RAY_ADDRESS, or to one that starts here and ends with the block.

    Args:
        processes: how many workers a cluster that starts here may have.

    Raises:
        ValueError: ray is not installed, or its cluster cannot be reached.
    """
    own = not os.environ.get("RAY_ADDRESS")
    if own:
        # Read when ray is imported: its processes then listen on loopback alone, as they always do on macOS.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    try:
        import ray
    except ImportError:
        raise ValueError("The engine ray needs the package ray: pip install 'ray[data]'.") from None
    started = not ray.is_initialized()
    if started:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported over the network
        # Workers find this repository wherever they are started. RAY_ADDRESS joins a cluster; what other programs
        # started on this machine is not joined without it.
        environment = {"env_vars": {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}}
        cluster = {"address": "local", "num_cpus": processes, "include_dashboard": False} if own else {}
        try:
            ray.init(runtime_env=environment, log_to_driver=False, configure_logging=False, **cluster)
        except ConnectionError:
            address = os.environ.get("RAY_ADDRESS")
            raise ValueError(f"There is no Ray cluster at RAY_ADDRESS ({address}) that this machine is in.") from None
    try:
        ray.data.DataContext.get_current().enable_progress_bars = False
        yield ray
    finally:
        if started:
            ray.shutdown()
