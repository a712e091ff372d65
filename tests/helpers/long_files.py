# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Which test files are started first, so that no process is left alone with a long one at the end.

pytest-xdist gives whole files to its processes. Of its own it starts with those of the most tests, so a file with a few
long ones came last, while the other processes had nothing to do.
"""

from __future__ import annotations

from collections import Counter

import pytest

from tests.helpers.paths import ROOT

LONG_FILES = (
    "data_engine/test_build.py",
    "demo/test_demo_api.py",
    "train/test_training.py",
    "train/test_two_processes.py",
    "evaluation/test_evaluation_run.py",
    "repository/test_documents.py",
    "hub_model/test_transformers_suite.py",
    "data_engine/test_executors.py",
    "train/test_convert.py",
)
"""Files that take long: first those that were seen to hold up a run, then those with trainings or processes."""


def put_long_files_first(items: list[pytest.Item]) -> None:
    """Sorts tests in place: the long files, then the others by their number of tests; within a file nothing moves."""
    place = {ROOT / "tests" / name: number for number, name in enumerate(LONG_FILES)}
    tests = Counter(item.path for item in items)
    items.sort(key=lambda item: (place.get(item.path, len(place)), -tests[item.path]))
