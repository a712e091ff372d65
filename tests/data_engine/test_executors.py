# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Both engines run every task once and pass a worker's error on."""

from __future__ import annotations

import math
import operator

import pytest

from data_engine.executors import run_tasks


@pytest.mark.parametrize("engine", ["local", "ray"])
def test_every_task_is_run_once(engine):
    assert sorted(run_tasks(engine, math.factorial, list(range(12)), 2)) == [math.factorial(n) for n in range(12)]


def test_an_error_in_a_worker_stops_the_run_and_is_the_one_seen():
    with pytest.raises(ValueError, match=r"nonnegative|not defined"):
        list(run_tasks("local", math.factorial, [1, -1, 2], 2))


def test_an_unknown_engine_is_refused():
    with pytest.raises(ValueError, match="local, ray"):
        run_tasks("spark", operator.neg, [1], 1)
