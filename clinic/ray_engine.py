# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The engine of a batch run on Ray: the groups are divided over workers, one for each GPU or machine.

Each worker loads the model once, reads its series itself and gives back the rows of a group, which are those of
`clinic.engines`. Ray gives the group of a worker that dies to another one. Model, code, studies and archives' settings
must lie at the same path on all machines.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from clinic import engines
from clinic.engines import Settings, answered_here
from clinic.model import LocalModel, ModelError, ModelFolder
from clinic.tasks import Rows, Task
from data_engine.executors import ray_session

IN_FLIGHT = 2
"""Groups that a worker has: the one that it answers, and the next one."""


class Worker:
    """What one process of Ray does: it answers about groups.

    Args:
        model: a folder, or an id on the Hub.
        work: how.
        expected: settings that its model must have, as the run's rows are cited with them.
        groups: all of the run; a request gives the number of one.
    """

    def __init__(
        self, model: str, work: Settings, expected: Mapping[str, Any], groups: Sequence[Sequence[Task]]
    ) -> None:
        self._work, self._groups, self._refusal = work, groups, ""
        self._reader = work.reader()
        try:
            self._model = LocalModel(model)
            self._refusal = difference(expected, self._model.settings())
        except ModelError as error:
            self._refusal = str(error)

    def __call__(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The rows of a group, or why there are none; what is raised in a worker would come with all that Ray adds."""
        number = int(request["number"])
        if self._refusal:
            return {"number": number, "rows": "", "refusal": self._refusal}
        try:
            answered = answered_here([self._groups[number]], self._model, self._reader, self._work)
            # As JSON, because tables have the same fields in every row.
            return {"number": number, "rows": json.dumps([rows for _, rows in answered]), "refusal": ""}
        except OSError as error:
            return {"number": number, "rows": "", "refusal": f"{error.filename}: {error.strerror or error}"}


def difference(expected: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """The sentence about a worker whose answers would be others, "" where they would not."""
    for name, value in expected.items():
        if found.get(name) != value:
            return (
                f"A machine of the cluster has another {name} ({found.get(name)}) than the first one ({value}); give "
                "all the same files, and processors or GPUs of one kind."
            )
    return ""


def described(model: str) -> tuple[dict[str, Any], str]:
    """The settings of a model on the machine that this runs on, and the sentence that says why there are none."""
    try:
        return ModelFolder(model).settings(), ""
    except ModelError as error:
        return {}, str(error)


@dataclass(frozen=True)
class RayEngine:
    """Answers on the workers of a cluster.

    Attributes:
        ray: the connected package.
        model, work: as `Worker`'s.
        expected: settings of the model, as a worker has them.
        workers: how many.
        resources: of each, as Ray calls them.
    """

    ray: Any
    model: str
    work: Settings
    expected: Mapping[str, Any]
    workers: int
    resources: Mapping[str, int]

    @property
    def group(self) -> int:
        """As `Engine`."""
        return engines.GROUP

    def settings(self) -> dict[str, Any]:
        """As `Engine`."""
        return dict(self.expected)

    def answered(self, groups: Sequence[Sequence[Task]]) -> Iterator[tuple[Task, Rows]]:
        """As `Engine`, group by group, in the order in which these come."""
        if not groups:
            return
        data = self.ray.data
        workers = data.ActorPoolStrategy(size=min(self.workers, len(groups)), max_tasks_in_flight_per_actor=IN_FLIGHT)
        # A block for each, because a block is what a worker is given.
        numbers = data.from_items(
            [{"number": number} for number in range(len(groups))], override_num_blocks=len(groups)
        )
        answers = numbers.map(
            Worker,
            fn_constructor_args=(self.model, self.work, self.expected, groups),
            compute=workers,
            **self.resources,
        )
        for answer in self._told(answers.iter_rows()):
            if answer["refusal"]:
                raise ModelError(answer["refusal"])
            yield from zip(groups[answer["number"]], json.loads(answer["rows"]), strict=True)

    def _told(self, answers: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Answers as they come; what ends Ray itself, in one sentence."""
        try:
            yield from answers
        except self.ray.exceptions.RayError as error:
            reason = str(error).strip().splitlines()[-1]
            raise ValueError(f"Ray has ended the run ({reason}); the same command goes on.") from None


def workers_of(nodes: Sequence[Mapping[str, Any]]) -> tuple[int, dict[str, int]]:
    """How many workers a cluster has room for, and what each takes: a GPU, or the cores of its smallest machine.

    Raises:
        ValueError: no machine of the cluster computes.
    """
    held = [node["Resources"] for node in nodes if node["Alive"]]
    if gpus := sum(int(one.get("GPU", 0)) for one in held):
        return gpus, {"num_gpus": 1}
    cores = [int(one["CPU"]) for one in held if one.get("CPU", 0) >= 1]
    if not cores:
        raise ValueError("The Ray cluster has neither processors nor GPUs; start machines with some.")
    return sum(one // min(cores) for one in cores), {"num_cpus": min(cores)}


@contextmanager
def ray_engine(model: str, work: Settings) -> Iterator[RayEngine]:
    """An engine on the cluster of the environment variable RAY_ADDRESS, or on this machine alone.

    Raises:
        ModelError: a model that cannot be used.
        ValueError: ray is not installed, or the cluster has no machine.
    """
    with ray_session(os.cpu_count() or 1) as ray:
        workers, resources = workers_of(ray.nodes())
        expected, refusal = ray.get(ray.remote(described).options(**resources).remote(model))
        if refusal:
            raise ModelError(refusal)
        yield RayEngine(ray, model, work, expected, workers, resources)
