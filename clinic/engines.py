# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Works through the tasks of a batch run: fetches and reads the next series while the model answers about one."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from clinic.archive_media import ArchiveMedia, Downloads
from clinic.model import LocalModel
from clinic.tasks import Task, read, rows_of
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
    tasks: Sequence[Task], model: LocalModel, reader: IsolatedReader, settings: Settings
) -> Iterator[tuple[Task, Rows]]:
    """Tasks with their rows, in order; the next series are read meanwhile."""
    with settings.downloads(tasks) as downloads:
        for task, done in ahead(lambda task: read(task, reader, downloads, model), tasks, settings.readers):
            yield task, rows_of(task, done, model, settings.max_new_tokens)
