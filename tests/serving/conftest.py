# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""What the tests of the vLLM plugin share. They run in the environment of `make serving`, the only one with vLLM."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.served_media import files_to_send


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, bytes]]:
    """Name -> the part of a message that the file goes into, and its content."""
    return files_to_send(tmp_path_factory.mktemp("made"))


@pytest.fixture(scope="session")
def paths(files: dict[str, tuple[str, bytes]], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same files on the disk; their names tell nothing."""
    folder = tmp_path_factory.mktemp("files")
    for name, (_, content) in files.items():
        (folder / name).write_bytes(content)
    return {name: folder / name for name in files}
