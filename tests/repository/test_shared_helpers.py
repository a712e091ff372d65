# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""What several tests share lies in tests/helpers/: no file imports from a test module or from a conftest.

A test module that is imported runs its set-up twice, and moving one test would break another.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests.helpers.long_files import LONG_FILES
from tests.helpers.paths import ROOT

TESTS = ROOT / "tests"


def imported_modules(source: str) -> Iterator[str]:
    """The dotted name of each module, or of each name in a module, that a source imports."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield from (f"{module}.{alias.name}" for alias in node.names)


def of_test_modules(source: str) -> list[str]:
    """The imported names that are a test module or a conftest, or lie in one."""
    ours = [name for name in imported_modules(source) if name.startswith(("tests.", "."))]
    return [name for name in ours if any(part.startswith(("test_", "conftest")) for part in name.split("."))]


def test_no_file_imports_from_a_test_module() -> None:
    found = {path: of_test_modules(path.read_text(encoding="utf-8")) for path in TESTS.rglob("*.py")}
    assert {str(path.relative_to(ROOT)): names for path, names in found.items() if names} == {}


@pytest.mark.parametrize(
    "line",
    [
        "from tests.conftest import HUB_MODEL",
        "from tests.hub_model.test_volumes import nifti",
        "from tests.hub_model import test_volumes",
        "from .test_volumes import nifti",
        "from . import conftest",
        "import tests.conftest",
        "import tests.train.test_training",
    ],
)
def test_an_import_from_a_test_module_is_found(line: str) -> None:
    assert of_test_modules(line)


def test_helpers_hold_no_tests_and_no_test_module_is_a_helper() -> None:
    assert not list((TESTS / "helpers").rglob("test_*.py"))
    outside = [path for path in TESTS.rglob("*.py") if path.parent.name != "helpers"]
    assert [path for path in outside if not path.name.startswith("test_") and path.name != "conftest.py"] == []


def test_the_files_that_are_started_first_are_there():
    assert [name for name in LONG_FILES if not (TESTS / name).is_file()] == []
