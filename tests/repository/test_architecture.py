# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Which room may import which: dependencies point one way, and hub_model stands alone.

Imports are read from the source, those inside functions and behind `if TYPE_CHECKING` included, and so are modules
named in `importlib.import_module("…")` and in commands (`[sys.executable, "-m", "…"]`).
"""

from __future__ import annotations

import ast
import itertools
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT

NOT_SOURCE = {"build", "data", "dist", "models", "runs", "tests"}
"""Folders that hold no room: what is built, trained or downloaded, and the tests, which may import everything."""

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
    ("benchmarks.chat_followup", "demo.service"): "it measures what a visitor of the page waits for",
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


@dataclass(frozen=True)
class Import:
    """One import: the module that imports, what it names, where."""

    importer: str
    imported: str
    line: int

    def __str__(self) -> str:
        return f"{self.importer}:{self.line} imports {self.imported}"


def within(module: str, package: str) -> bool:
    """Whether a module is a package or lies in it."""
    return module == package or module.startswith(package + ".")


def room_of(module: str) -> str:
    return module.split(".")[0]


@cache
def source_files() -> dict[str, Path]:
    """Every module of the rooms and its file."""
    folders = [folder for folder in ROOT.iterdir() if folder.is_dir() and folder.name.isidentifier()]
    files = [file for folder in folders if folder.name not in NOT_SOURCE for file in folder.rglob("*.py")]
    return {".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file for file in files}


def is_ours(module: str) -> bool:
    """Whether a name belongs to one of the rooms, or to the tests."""
    return room_of(module) in {room_of(name) for name in source_files()} | {"tests"}


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(source_files()[module].read_text(encoding="utf-8"))


def resolve(module: str, node: ast.ImportFrom) -> str:
    """The absolute name of what stands between `from` and `import`."""
    if not node.level:
        return node.module or ""
    package = module.split(".")
    is_package = source_files()[module].name == "__init__.py"
    package = package[: len(package) - node.level + is_package]
    return ".".join([*package, node.module] if node.module else package)


def named_by_a_string(node: ast.AST) -> list[str]:
    """Modules in `import_module("…")`, `__import__("…")` and the "-m" of a command."""
    if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
        function = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        return [str(node.args[0].value)] if function in ("import_module", "__import__") else []
    if isinstance(node, ast.List | ast.Tuple):
        words = [word.value if isinstance(word, ast.Constant) else None for word in node.elts]
        follows = [after for option, after in itertools.pairwise(words) if option == "-m"]
        return [after for after in follows if isinstance(after, str)]
    return []


@cache
def imports_of(module: str) -> tuple[Import, ...]:
    """All imports of a module; `from package import name` names the submodule where there is one."""
    found = []
    for node in ast.walk(tree(module)):
        names = named_by_a_string(node)
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = resolve(module, node)
            inner = [f"{base}.{alias.name}" for alias in node.names]
            names = [name if name in source_files() else base for name in inner]
        found += [Import(module, name, getattr(node, "lineno", 0)) for name in dict.fromkeys(names)]
    return tuple(found)


def all_imports() -> Iterator[Import]:
    for module in source_files():
        yield from imports_of(module)


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
