# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Memory of other processes: what counts, and how a run's samples are told."""

from __future__ import annotations

import os
import sys

import pytest

from benchmarks.memory import proportional_mib, resident_mib, stages, watched_memory


def test_memory_is_that_of_a_process_and_its_children():
    assert resident_mib(os.getpid()) > 1
    assert resident_mib(2**22 + 1) == 0, "a process that has ended has none"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells whose a shared page is")
def test_shared_pages_are_divided_among_their_processes():
    assert 1 < proportional_mib(os.getpid()) < resident_mib(os.getpid())


def test_memory_is_looked_at_before_during_and_after_a_block():
    with watched_memory(os.getpid(), interval=3600) as samples:
        assert len(samples) == 1
    assert len(samples) == 2, "the interval was longer than the block"


def test_a_run_is_told_in_five_spans_or_as_many_as_there_are_samples():
    assert stages([1, 1, 2, 2, 3, 3, 4, 4, 5, 5]) == [1, 2, 3, 4, 5]
    assert stages([7.4]) == [7]
