# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Both engines run every task once and pass a worker's error on."""

from __future__ import annotations

import math
import operator
import subprocess
import sys

import pytest

from data_engine.executors import run_tasks
from tests.helpers.paths import ROOT


@pytest.mark.parametrize("engine", ["local", "ray"])
def test_every_task_is_run_once(engine):
    assert sorted(run_tasks(engine, math.factorial, list(range(12)), 2)) == [math.factorial(n) for n in range(12)]


def test_an_error_in_a_worker_stops_the_run_and_is_the_one_seen():
    with pytest.raises(ValueError, match=r"nonnegative|not defined"):
        list(run_tasks("local", math.factorial, [1, -1, 2], 2))


def test_an_unknown_engine_is_refused():
    with pytest.raises(ValueError, match="local, ray"):
        run_tasks("spark", operator.neg, [1], 1)


LISTENING = """
import psutil
from data_engine.executors import ray_session
with ray_session(1):
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    sockets = [one for process in processes for one in process.net_connections("inet")]
    listening = {one.laddr.ip for one in sockets if one.status == psutil.CONN_LISTEN}
    print("listening on", *(ip.removeprefix("::ffff:") for ip in listening))
"""


@pytest.mark.slow
def test_a_ray_cluster_that_starts_here_listens_on_loopback_alone(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    done = subprocess.run([sys.executable, "-c", LISTENING], cwd=ROOT, capture_output=True, text=True)
    (addresses,) = (line for line in done.stdout.splitlines() if line.startswith("listening on"))
    assert set(addresses.split()[2:]) <= {"127.0.0.1", "::1"} and len(addresses.split()) > 2, done.stderr
