# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Which room may import which: dependencies point one way, and hub_model stands alone."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest

from tests.helpers.imports import Import, all_imports, imports_of, is_ours, room_of, source_files, tree, within
from tests.helpers.paths import ROOT

BELOW_THE_TOOLS = {"train", "data_engine", "hub_model"}
MAY_IMPORT = {
    "hub_model": set(),
    "data_engine": {"hub_model"},
    "train": {"data_engine", "hub_model"},
    "evaluation": BELOW_THE_TOOLS,
    "benchmarks": BELOW_THE_TOOLS,
    "examples": BELOW_THE_TOOLS,
    "demo": BELOW_THE_TOOLS,
    "clinic": BELOW_THE_TOOLS,
    "serving": BELOW_THE_TOOLS,
}
"""What the modules of a room may import beside their own room."""

SIDEWAYS = {
    ("benchmarks.batch_runs", "clinic"): "it measures what it takes to ask about many studies",
    ("benchmarks.chat_followup", "demo.service"): "it measures what a visitor of the page waits for",
    ("benchmarks.evidence", "demo.service"): "it measures what the page's button shows",
    ("benchmarks.evidence", "evaluation"): "its intervals are drawn by patient, as everywhere",
    ("benchmarks.demo_process", "demo"): "it starts the page that benchmarks visit",
    ("benchmarks.start", "examples.ask"): "it measures how long the command takes",
    ("benchmarks.pruning", "evaluation"): "its intervals are drawn by patient, as everywhere",
    ("demo.service.studies", "clinic"): "visitors choose studies of the archives that batch runs read",
    (
        "evaluation.nano.documents",
        "demo.service",
    ): "the documents call a test split what the page calls it",
    ("examples.finetune", "evaluation"): "it shows the model's answers before and after, scored as everywhere",
}
"""The few arrows between rooms of the same height: (module or folder, what it may import), and why."""

FORBIDDEN = {
    "data_engine": ["torch", "transformers", "hub_model.modeling_omniv_med", "hub_model.processing_omniv_med"],
    "demo.service": ["gradio", "demo.panels", "demo.api"],
    "evaluation": ["train.dataset"],  # data comes from data_engine
    "benchmarks": ["train.dataset"],
}
"""What nothing in a room or folder may import, however many modules lie between."""

OF_THE_MODEL = {"PIL", "SimpleITK", "huggingface_hub", "numpy", "pydicom", "torch", "transformers"}
"""Packages without which the model cannot be loaded; every other one is optional to it."""


def chain_to(start: str, forbidden: str) -> list[Import]:
    """The imports that lead from a module to a forbidden one, or none."""
    ways: dict[str, list[Import]] = {start: []}
    waiting = [start]
    while waiting:
        module = waiting.pop()
        for found in imports_of(module):
            way = [*ways[module], found]
            if within(found.imported, forbidden):
                return way
            # Importing a.b.c runs a.b's and a's __init__ too.
            parts = found.imported.split(".")
            for reached in (".".join(parts[:length]) for length in range(1, len(parts) + 1)):
                if reached in source_files() and reached not in ways:
                    ways[reached] = way
                    waiting.append(reached)
    return []


def test_every_room_has_its_rule():
    rooms = {room_of(module) for module in source_files()}
    assert rooms <= MAY_IMPORT.keys(), "say in MAY_IMPORT what the new room may import"


def test_the_rules_have_no_circle():
    for room, below in MAY_IMPORT.items():
        assert all(room not in MAY_IMPORT[other] for other in below)


def test_dependencies_point_one_way():
    def allowed(found: Import) -> bool:
        here, there = room_of(found.importer), room_of(found.imported)
        sideways = any(
            within(found.importer, importer) and within(found.imported, imported) for importer, imported in SIDEWAYS
        )
        return here == there or there in MAY_IMPORT[here] or sideways

    assert [str(found) for found in all_imports() if is_ours(found.imported) and not allowed(found)] == []


@pytest.mark.parametrize(("importer", "imported"), SIDEWAYS)
def test_every_sideways_arrow_is_needed(importer, imported):
    assert any(within(found.importer, importer) and within(found.imported, imported) for found in all_imports())


def test_every_module_that_is_named_exists():
    """Also those in commands, which no interpreter looks at before they run."""
    packages = {module.rpartition(".")[0] for module in source_files()}
    known = source_files().keys() | packages
    assert [str(found) for found in all_imports() if is_ours(found.imported) and found.imported not in known] == []


def test_nobody_imports_a_page_or_a_program():
    """The panels are seen, and a `__main__` is run; what others need of them belongs in a module beside them."""

    def is_entry(found: Import) -> bool:
        inside = room_of(found.importer) == "demo"
        return found.imported.endswith(".__main__") or (within(found.imported, "demo.panels") and not inside)

    assert [str(found) for found in all_imports() if is_ours(found.imported) and is_entry(found)] == []


def test_tests_share_helpers_not_tests():
    """A test module that another imports cannot be moved or split on its own; tests/helpers/ has what both need."""
    files = (ROOT / "tests").rglob("*.py")
    trees = {file: ast.parse(file.read_text(encoding="utf-8")) for file in files}
    imports = [(file, node) for file in trees for node in ast.walk(trees[file]) if isinstance(node, ast.ImportFrom)]
    shared = [
        f"{file.relative_to(ROOT)}:{node.lineno} imports {node.module}"
        for file, node in imports
        if any(part.startswith("test_") for part in (node.module or "").split("."))
    ]
    assert shared == []


@pytest.mark.parametrize(
    ("package", "forbidden"), [(package, name) for package, names in FORBIDDEN.items() for name in names]
)
def test_no_way_leads_to(package, forbidden):
    modules = [module for module in source_files() if within(module, package)]
    assert modules
    chains = [chain_to(module, forbidden) for module in modules]
    assert [" → ".join(map(str, chain)) for chain in chains if chain] == []


def test_data_engine_runs_without_torch():
    """Every module of it, imported for real: what other packages import is seen too."""
    modules = [module for module in source_files() if within(module, "data_engine")]
    script = "import importlib, sys\nfor name in sys.argv[1:]: importlib.import_module(name)\n"
    script += "print(*sorted({name.split('.')[0] for name in sys.modules} & {'torch', 'transformers', 'train'}))"
    done = subprocess.run([sys.executable, "-c", script, *modules], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


HUB_MODEL = sorted(module for module in source_files() if within(module, "hub_model"))


@pytest.mark.parametrize("module", HUB_MODEL)
def test_hub_model_is_flat(module):
    """transformers copies the files that relative imports name, from one folder, and no other."""
    file = source_files()[module]
    assert file.parent == ROOT / "hub_model"
    assert file.name.endswith("_omniv_med.py")
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.ImportFrom) and node.level:
            assert node.level == 1 and node.module, f"line {node.lineno}: write `from .module_omniv_med import name`"
            assert f"hub_model.{node.module}" in source_files()


@pytest.mark.parametrize("module", HUB_MODEL)
def test_hub_model_imports_nothing_for_types_alone(module):
    """transformers scans the source: it wants the file of a relative import even under TYPE_CHECKING."""
    assert "TYPE_CHECKING" not in {node.id for node in ast.walk(tree(module)) if isinstance(node, ast.Name)}


@pytest.mark.parametrize("module", HUB_MODEL)
def test_hub_model_does_without_optional_packages(module):
    """transformers refuses a model whose files import what is not installed, unless a `try` surrounds the import."""
    guarded = {
        child
        for node in ast.walk(tree(module))
        if isinstance(node, ast.Try)
        for line in node.body
        for child in ast.walk(line)
    }
    needed = sys.stdlib_module_names | OF_THE_MODEL
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            packages = {room_of(alias.name) for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            packages = {room_of(node.module or "")}
        else:
            continue
        assert packages <= needed or node in guarded, f"line {node.lineno}: surround it with try and except ImportError"
