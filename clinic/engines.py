# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""What answers a batch run, and the engine of this process: the next group is read while the model answers about one.

Other engines are `clinic.ray_engine` and `clinic.server_engine`. Here and on Ray a group is answered in as few batches
as the lengths of its prompts allow. The rounding of a batch depends on all that is in it, so groups depend on the list
of tasks alone: a run that was stopped asks whole groups again, and gives the rows of one that was not.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from clinic.archive_media import ArchiveMedia, Downloads
from clinic.model import LocalModel
from clinic.tasks import Read, Rows, Task, read, rows_of_all
from hub_model.isolated_reading_omniv_med import IsolatedReader

Item = TypeVar("Item")
Result = TypeVar("Result")
GROUP = 16
"""Tasks that are answered together. As many more are read meanwhile, each a few MB once it is pruned."""


@dataclass(frozen=True)
class Settings:
    """How tasks are worked through.

    Attributes:
        max_new_tokens: longest answer.
        readers: how many series one process reads while its model answers.
        time_limit: seconds to read one series.
        archives: the operator's YAML, where sources lie in archives.
        thumbnails: folder of pictures of what the model saw; None draws none.
    """

    max_new_tokens: int
    readers: int = 2
    time_limit: float = 600.0
    archives: Path | None = None
    thumbnails: Path | None = None

    def reader(self) -> IsolatedReader:
        """What reads files."""
        return IsolatedReader(self.time_limit, processes=self.readers)

    def downloads(self, tasks: Sequence[Task]) -> Downloads:
        """What fetches the series of tasks."""
        media = ArchiveMedia(self.archives) if self.archives else None
        return Downloads(media, [task.series.source for task in tasks])


class Engine(Protocol):
    """What answers the tasks of a run."""

    @property
    def group(self) -> int:
        """How many tasks are answered together."""

    def settings(self) -> dict[str, Any]:
        """What its answers depend on, as JSON values, the versions of model and code among them."""

    def answered(self, groups: Sequence[Sequence[Task]]) -> Iterator[tuple[Task, Rows]]:
        """Tasks with their rows, as they are answered.

        Raises:
            ValueError: what ends a run, in one sentence.
        """


def groups_left(tasks: Sequence[Task], done: Container[str], size: int | None = None) -> list[list[Task]]:
    """The groups that have rows to come, whole but for the series that failed: no batch had these in it.

    Args:
        tasks: all of a run.
        done: ids of rows that are there.
        size: tasks of a group; None takes `GROUP`.
    """
    size = size or GROUP
    groups = [tasks[start : start + size] for start in range(0, len(tasks), size)]
    left = [group for group in groups if not all(task.is_done(done) for task in group)]
    return [[task for task in group if task.failed_row_id not in done] for group in left]


def ahead(
    function: Callable[[Item], Result], items: Iterable[Item], threads: int, waiting: int
) -> Iterator[tuple[Item, Result]]:
    """Items with the results of a function, in order; threads work on the next ones while the caller uses one.

    Args:
        function, items, threads: what is done by how many threads.
        waiting: how many items are worked on, or wait for the caller.
    """
    remaining, begun = iter(items), deque[tuple[Item, Future[Result]]]()
    pool = ThreadPoolExecutor(threads)
    try:
        begun.extend((item, pool.submit(function, item)) for item in itertools.islice(remaining, waiting))
        while begun:
            item, future = begun.popleft()
            result = future.result()
            begun.extend((following, pool.submit(function, following)) for following in itertools.islice(remaining, 1))
            yield item, result
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def answered_here(
    groups: Sequence[Sequence[Task]], model: LocalModel, reader: IsolatedReader, settings: Settings
) -> Iterator[tuple[Task, Rows]]:
    """Tasks with their rows, in order; the next series are read meanwhile."""
    tasks = [task for group in groups for task in group]
    with settings.downloads(tasks) as downloads:

        def read_one(task: Task) -> Read:
            return read(task, reader, downloads, model, settings.thumbnails)

        reads = ahead(read_one, tasks, settings.readers, GROUP)
        for group in groups:
            done = [one for _, one in itertools.islice(reads, len(group))]
            yield from zip(group, rows_of_all(group, done, model, settings.max_new_tokens), strict=True)


@dataclass(frozen=True)
class LocalEngine:
    """Answers in this process, on its GPU if it has one.

    Attributes:
        model, reader, work: what answers and reads, and how.
    """

    model: LocalModel
    reader: IsolatedReader
    work: Settings

    @property
    def group(self) -> int:
        """As `Engine`."""
        return GROUP

    def settings(self) -> dict[str, Any]:
        """As `Engine`."""
        return self.model.settings()

    def answered(self, groups: Sequence[Sequence[Task]]) -> Iterator[tuple[Task, Rows]]:
        """As `Engine`, in order."""
        return answered_here(groups, self.model, self.reader, self.work)


@contextmanager
def local_engine(model: str, work: Settings) -> Iterator[LocalEngine]:
    """An engine in this process, with its reading processes while the block lasts.

    Raises:
        ModelError: a model that cannot be used.
    """
    with work.reader() as reader:
        reader.start()  # its libraries are imported while the model is loaded
        yield LocalEngine(LocalModel(model), reader, work)
