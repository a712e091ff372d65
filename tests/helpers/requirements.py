# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Writes requirements*.txt from pyproject.toml, where every dependency is declared once: `make requirements`.

A Hugging Face Space installs requirements.txt before it has any other file of the project: this one must stand alone.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from typing import Any

from tests.helpers.paths import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

WRITTEN = "# Written by `make requirements` from pyproject.toml; change it there.\n"
FILES = {
    "requirements.txt": "# What the demo, the examples and a Hugging Face Space need.\n",
    "requirements-dev.txt": "# What training, evaluation and the tests need on top of requirements.txt.\n",
    "requirements-gpu.txt": "# Optional attention backends for NVIDIA GPUs; install after requirements.txt.\n",
}


def project() -> dict[str, Any]:
    """The table [project] of pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def extra(name: str) -> list[str]:
    """The requirements of an extra, those of the extras that it names included."""
    wanted: list[str] = []
    for requirement in project()["optional-dependencies"][name]:
        others = re.fullmatch(r"omniv-med\[(.+)\]", requirement)
        wanted += [line for other in others[1].split(",") for line in extra(other)] if others else [requirement]
    return list(dict.fromkeys(wanted))


def lines(requirements: Iterable[str]) -> str:
    return "".join(f"{requirement}\n" for requirement in requirements)


def contents() -> dict[str, str]:
    """Each file's name and what must stand in it."""
    space = [*project()["dependencies"], *extra("demo")]
    further = sorted((line for line in extra("dev") if line not in space), key=str.lower)
    bodies = [lines(space), lines(["-r requirements.txt", *further]), lines(extra("gpu"))]
    return {name: FILES[name] + WRITTEN + body for name, body in zip(FILES, bodies, strict=True)}


if __name__ == "__main__":
    for name, content in contents().items():
        (ROOT / name).write_text(content, encoding="utf-8")
