# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""How transformers' own tests are taken out of its source distribution."""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path

import pytest

from tests.helpers.transformers_suite import fetch, suite_folder, unpack_tests


@pytest.fixture
def sdist(tmp_path: Path) -> Path:
    """A source distribution with a test, and a source file that is not one."""
    path = tmp_path / "transformers-1.0.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name in ("tests/test_it.py", "src/tests/other.py"):
            archive.addfile(tarfile.TarInfo(f"transformers-1.0/{name}"), io.BytesIO())
    return path


def test_only_the_tests_are_unpacked_and_nothing_else_is_left(sdist, tmp_path):
    cache = tmp_path / "cache"
    cache.mkdir()
    unpack_tests(sdist, cache / "suite", hashlib.sha256(sdist.read_bytes()).hexdigest())
    assert [str(path.relative_to(cache)) for path in sorted(cache.rglob("*"))] == ["suite", "suite/test_it.py"]


def test_an_altered_distribution_is_refused_and_leaves_nothing(sdist, tmp_path):
    with pytest.raises(RuntimeError, match="wrong SHA-256"):
        unpack_tests(sdist, tmp_path / "suite", 64 * "0")
    assert list(tmp_path.iterdir()) == [sdist]


def test_what_was_fetched_is_not_fetched_again(tmp_path, monkeypatch):
    suite_folder(tmp_path).mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert fetch(tmp_path) == suite_folder(tmp_path)


def test_a_failed_download_says_what_to_do_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(RuntimeError, match="PyPI or a mirror"):
        fetch(tmp_path)
    assert list(tmp_path.iterdir()) == []
