# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""A batch run on a Ray cluster of two machines, both on loopback: the rows of this process, whoever dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import psutil
import pytest
from ray.cluster_utils import Cluster

from clinic.batch import main
from clinic.engines import Settings, groups_left, local_engine
from clinic.questions import Questions
from clinic.ray_engine import difference, ray_engine, workers_of
from clinic.studies import find_series
from clinic.tasks import Rows, Task, tasks_about
from tests.helpers.batch_runs import arguments, rows_in, table_of, without_seconds
from tests.helpers.paths import ROOT

pytestmark = pytest.mark.usefixtures("one_thread", "small_groups")
GROUP = 3
"""Tasks of a group, so that there are five groups."""


@pytest.fixture(scope="module")
def small_groups() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("clinic.engines.GROUP", GROUP)
        yield


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """Two machines with a processor each, which this process and those that it starts join."""
    machine = {"num_cpus": 1, "node_ip_address": "127.0.0.1"}
    with pytest.MonkeyPatch.context() as patch:
        # For 127.0.0.1 Ray takes the address in a network, but where it knows no clusters: on Windows and macOS.
        patch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        patch.setattr("ray._private.ray_constants.ENABLE_RAY_CLUSTER", False)
        cluster = Cluster(initialize_head=True, head_node_args={**machine, "include_dashboard": False})
        try:
            cluster.add_node(**machine)
            patch.setenv("RAY_ADDRESS", cluster.address)
            yield
        finally:
            cluster.shutdown()


@pytest.fixture(scope="module")
def here(studies: Path, questions: Path, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run in this process."""
    out = tmp_path_factory.mktemp("here")
    assert main(arguments(studies, questions, out, tiny)) == 0
    return out


def rows_by_task(answered: Iterable[tuple[Task, Rows]]) -> dict[str, Rows]:
    """The rows of each task, without the seconds."""
    return {task.failed_row_id: without_seconds(rows) for task, rows in answered}


def worker_processes() -> list[psutil.Process]:
    """The processes of the cluster that hold a model."""
    named = [(one, one.info["cmdline"]) for one in psutil.process_iter(["cmdline"])]
    return [one for one, words in named if words and words[0].startswith("ray::") and "Worker" in words[0]]


@pytest.mark.slow
def test_a_killed_run_on_ray_goes_on_and_ends_with_the_rows_of_this_process(
    cluster: None, here: Path, studies: Path, questions: Path, tiny: Path, tmp_path: Path
) -> None:
    command = arguments(studies, questions, tmp_path, tiny, "--engine", "ray")
    killed = [sys.executable, "-m", "tests.helpers.batch_process", str(GROUP), "7", "preferred", *command]
    done = subprocess.run(killed, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert len(rows_in(tmp_path)) == 7 and not (tmp_path / "answers.parquet").exists()
    assert main(command) == 0
    assert table_of(tmp_path) == table_of(here)


@pytest.mark.slow
def test_a_worker_that_dies_costs_no_rows(cluster: None, studies: Path, questions: Path, tiny: Path) -> None:
    asked = Questions.read(questions)
    tasks, _ = tasks_about(find_series(studies)[0], asked)
    work = Settings(asked.max_new_tokens)
    with local_engine(str(tiny), work) as engine:
        expected = rows_by_task(engine.answered(groups_left(tasks, ())))
    with ray_engine(str(tiny), work) as engine:
        assert engine.workers == 2
        answers = engine.answered(groups_left(tasks, ()))
        first = next(answers)
        workers = worker_processes()
        workers[0].kill()
        found = rows_by_task([first, *answers])
    assert len(workers) == 2
    assert found == expected


def test_each_gpu_has_a_worker_or_each_machine_without_any() -> None:
    def node(alive: bool = True, **resources: float) -> dict[str, object]:
        return {"Alive": alive, "Resources": resources}

    assert workers_of([node(CPU=8), node(CPU=32, GPU=2), node(CPU=32, GPU=4), node(False, GPU=8)]) == (
        6,
        {"num_gpus": 1},
    )
    assert workers_of([node(CPU=8), node(CPU=18), node(), node(False, CPU=1)]) == (3, {"num_cpus": 8})
    with pytest.raises(ValueError, match="neither processors nor GPUs"):
        workers_of([node(), node(CPU=0)])


def test_a_machine_with_other_files_or_numbers_is_told() -> None:
    settings = {"model": "a1", "code": "b2", "dtype": "float32"}
    assert difference(settings, dict(settings)) == ""
    assert difference(settings, settings | {"dtype": "bfloat16"}).startswith(
        "A machine of the cluster has another dtype (bfloat16) than the first one (float32)"
    )


@pytest.mark.slow
def test_a_model_that_cannot_be_loaded_is_told_in_one_sentence(
    cluster: None, studies: Path, questions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = tmp_path / "model"
    empty.mkdir()
    assert main(arguments(studies, questions, tmp_path / "out", empty, "--engine", "ray")) == 2
    (line,) = (one for one in capsys.readouterr().err.splitlines() if one.startswith("clinic.batch: "))
    assert "cannot be loaded" in line and not (tmp_path / "out").exists()
