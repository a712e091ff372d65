# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Reads from the source what each module of the project imports.

Imports inside functions and behind `if TYPE_CHECKING` count, and so do modules named in
`importlib.import_module("…")` and in commands (`[sys.executable, "-m", "…"]`).
"""

from __future__ import annotations

import ast
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.helpers.paths import ROOT

NOT_SOURCE = {"build", "data", "dist", "models", "node_modules", "runs", "tests"}
"""Folders that hold no room: what is built, trained or downloaded, and the tests, which may import everything."""


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
    rooms = [folder for folder in folders if folder.name not in NOT_SOURCE]
    # serving/.venv, where it was made, has thousands of files.
    inner = [folder for room in rooms for folder in (room, *room.glob("[!.]*")) if folder.is_dir()]
    files = [file for folder in inner for file in (folder.glob("*.py") if folder in rooms else folder.rglob("*.py"))]
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
