# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The studies and questions that tests of batch runs ask about; each module has a copy of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.helpers.batch_runs import write_questions
from tests.helpers.study_files import write_studies


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_studies(tmp_path_factory.mktemp("studies"))


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_questions(tmp_path_factory.mktemp("questions"))


@pytest.fixture(scope="module")
def in_float32() -> Iterator[None]:
    """Whatever the processor: in bfloat16 what a random model answers depends on what is computed beside it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("clinic.model.preferred_dtype", lambda: torch.float32)
        yield
