# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""How much memory a benchmark takes: of this process, and of another one and those that it started."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import median

import numpy as np
import psutil

STAGES = 5
"""Equal spans of a run whose memory is compared."""


def resident(field: str) -> int:
    """Bytes of this process's memory: now ("VmRSS"), or at most since the mark was reset ("VmHWM")."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


def reset_peak() -> None:
    """The mark of `resident("VmHWM")` begins anew."""
    Path("/proc/self/clear_refs").write_text("5")


def resident_mib(process: int) -> float:
    """Resident memory of a process and of those that it started, in MiB; those that have just ended take none.

    Pages that several of them share, as those of libraries, count for each.
    """
    total = 0
    with suppress(psutil.NoSuchProcess):
        parent = psutil.Process(process)
        for each in (parent, *parent.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                total += each.memory_info().rss
    return total / 2**20


def proportional_mib(process: int) -> float:
    """The same, but of a page that several processes share each has its part. Linux alone tells; it is slow to ask."""
    parent = psutil.Process(process)
    return sum(each.memory_full_info().pss for each in (parent, *parent.children(recursive=True))) / 2**20


@contextmanager
def watched_memory(process: int, interval: float) -> Iterator[list[float]]:
    """Samples `resident_mib` while the block runs: at its start, then every `interval` seconds, and at its end."""
    samples, done = [resident_mib(process)], threading.Event()

    def watch() -> None:
        while not done.wait(interval):
            samples.append(resident_mib(process))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield samples
    finally:
        done.set()
        watcher.join()
        samples.append(resident_mib(process))


def stages(samples: Sequence[float]) -> list[int]:
    """The median of each of `STAGES` equal spans of a run; fewer where there are fewer samples."""
    return [round(median(part)) for part in np.array_split(samples, STAGES) if len(part)]
