# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Who works through the tasks of a batch run: this process, several that `accelerate launch` started, or Ray's workers.

Whoever it is, a task is answered alone, so the rows are the same.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

from clinic.archive_media import ArchiveMedia, Downloads
from clinic.model import LocalModel, Model
from clinic.tasks import Task, read, rows_of
from data_engine.executors import ray_running
from data_engine.ledger import Ledger
from hub_model.isolated_reading_omniv_med import IsolatedReader

Item = TypeVar("Item")
Result = TypeVar("Result")
Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Settings:
    """How tasks are worked through.

    Attributes:
        max_new_tokens: longest answer.
        readers: how many series one process reads while its model answers.
        time_limit: seconds to read one series.
        archives: the operator's YAML, where sources lie in archives.
    """

    max_new_tokens: int
    readers: int = 2
    time_limit: float = 600.0
    archives: Path | None = None

    def reader(self) -> IsolatedReader:
        """What reads files."""
        return IsolatedReader(self.time_limit, processes=self.readers)

    def downloads(self, tasks: Sequence[Task]) -> Downloads:
        """What fetches the series of tasks."""
        media = ArchiveMedia(self.archives) if self.archives else None
        return Downloads(media, [task.series.source for task in tasks])


def ahead(function: Callable[[Item], Result], items: Iterable[Item], threads: int) -> Iterator[tuple[Item, Result]]:
    """Items with the results of a function, in order; threads work on the next ones while the caller uses one."""
    remaining, waiting = iter(items), deque[tuple[Item, Future[Result]]]()
    pool = ThreadPoolExecutor(threads)
    try:
        waiting.extend((item, pool.submit(function, item)) for item in itertools.islice(remaining, threads + 1))
        while waiting:
            item, future = waiting.popleft()
            result = future.result()
            waiting.extend(
                (following, pool.submit(function, following)) for following in itertools.islice(remaining, 1)
            )
            yield item, result
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def answered_here(
    tasks: Sequence[Task], model: Model, reader: IsolatedReader, settings: Settings
) -> Iterator[tuple[Task, Rows]]:
    """Tasks with their rows, in order; the next series are read meanwhile."""
    with settings.downloads(tasks) as downloads:
        for task, done in ahead(lambda task: read(task, reader, downloads, model), tasks, settings.readers):
            yield task, rows_of(task, done, model, settings.max_new_tokens)


class Worker:
    """A model and a reader on one of Ray's workers, which keeps both for all its tasks."""

    def __init__(self, model: str, settings: Settings) -> None:
        torch.set_num_threads(max(int(os.environ.get("OMP_NUM_THREADS", "1")), 1))
        self._model, self._settings, self._reader = LocalModel(model), settings, settings.reader()

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """The rows of one task as JSON."""
        task: Task = row["item"]
        with self._settings.downloads([task]) as downloads:
            done = read(task, self._reader, downloads, self._model)
        rows = rows_of(task, done, self._model, self._settings.max_new_tokens)
        return {"number": row["number"], "rows": json.dumps(rows)}


def answered_by_ray(tasks: Sequence[Task], model: str, settings: Settings, workers: int) -> Iterator[tuple[Task, Rows]]:
    """Tasks with their rows, as Ray's workers finish them: on this machine, or on the cluster of RAY_ADDRESS.

    Workers read the paths of the tasks, and the folder of the model, themselves.

    Raises:
        ValueError: ray is not installed.
    """
    with ray_running(workers) as ray:
        items = [{"number": number, "item": task} for number, task in enumerate(tasks)]
        given = {"fn_constructor_args": (model, settings), "concurrency": workers}
        gpus = {"num_gpus": 1} if torch.cuda.is_available() else {"num_cpus": 1}
        # Blocks of one task each, so that no worker waits while another one has several.
        data = ray.data.from_items(items, override_num_blocks=len(items)).map(Worker, **given, **gpus)
        for row in data.iter_rows():
            yield tasks[row["number"]], json.loads(row["rows"])


def share_of(tasks: Sequence[Task], process: int, processes: int) -> list[Task]:
    """What one of several processes does. It depends on each task alone, so that all see it alike."""

    def owner(task: Task) -> int:
        return int.from_bytes(hashlib.sha256(task.series.key.encode()).digest()[:8], "big") % processes

    return [task for task in tasks if owner(task) == process]


def collect_parts(parts: Iterable[Path], ledger: Ledger, settings: Mapping[str, Any]) -> None:
    """Moves what several processes wrote into the ledger of the run.

    Raises:
        LedgerError: a part was written with other settings, or is damaged.
    """
    for path in parts:
        with Ledger(path, settings) as part:
            for row in part.rows.values():
                if row["id"] not in ledger.rows:
                    ledger.append(row)
        path.unlink()
