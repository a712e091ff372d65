# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The package: what it needs, what a wheel of it holds, and that it runs where nothing else of the project is."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.helpers import requirements
from tests.helpers.imports import all_imports, is_ours, room_of, source_files, within
from tests.helpers.paths import ROOT

EXTRA_OF = {
    "hub_model": None,
    "hub_model.llama_cpp_omniv_med": "llama-cpp",
    "examples.ask": None,
    "data_engine": "train",
    "train": "train",
    "train.checkpoints.assemble": None,
    "train.checkpoints.language_model": None,
    "evaluation": "evaluation",
    "clinic": "clinic",
    "demo": "demo",
    "benchmarks": "dev",
    "benchmarks.quantization": "quantization",
    "examples": "dev",
}
"""The extra with which a room, or a module of it, must run; None: without any."""

OWN_PACKAGE = "serving"
"""A room that is a package of its own, with its own pyproject.toml; it runs where its requirements.txt is installed."""

ELSEWHERE = {"lmms-eval", "loguru", "pip", "vllm", "xformers"}
"""Packages of requirements-lmms-eval.txt and of the extra gpu, and pip: whoever imports them does without. And vLLM,
which is started in the environment that `make serving` makes."""

NOT_INSTALLED = {"llama_cpp": "llama-cpp-python"}
"""Packages of extras that are not in dev, whose distribution has another name than they."""

ASSEMBLED = {"model.safetensors", ".assembled.json"}
"""What `make model` puts into hub_model; neither in the repository nor in a wheel."""


@pytest.mark.parametrize(("name", "content"), requirements.contents().items())
def test_requirements_are_those_of_the_package(name, content):
    assert (ROOT / name).read_text(encoding="utf-8") == content, "run `make requirements`"


def test_every_room_is_packaged():
    assert {room_of(module) for module in source_files()} == {*map(room_of, EXTRA_OF), OWN_PACKAGE}


def test_every_package_that_is_imported_is_declared():
    distributions = packages_distributions()
    core = requirements.project()["dependencies"]

    def declared(module: str) -> set[str]:
        if room_of(module) == OWN_PACKAGE:
            lines = (ROOT / OWN_PACKAGE / "requirements.txt").read_text(encoding="utf-8").splitlines()
            pinned = {canonicalize_name(Requirement(line).name) for line in lines if not line.startswith("#")}
            return {*pinned, "torch", "vllm"}
        extra = next(EXTRA_OF[known] for known in sorted(EXTRA_OF, key=len, reverse=True) if within(module, known))
        wanted = [*core, *(requirements.extra(extra) if extra else [])]
        return {canonicalize_name(Requirement(line).name) for line in wanted} | ELSEWHERE

    missing = []
    for found in all_imports():
        package = room_of(found.imported)
        if is_ours(package) or package in sys.stdlib_module_names:
            continue
        names = {canonicalize_name(name) for name in distributions.get(package, [NOT_INSTALLED.get(package, package)])}
        if not names & declared(found.importer):
            missing.append(str(found))
    assert missing == []


def test_a_wheel_holds_every_file_of_the_rooms(tmp_path):
    """And nothing else; setuptools copies them as it does for a wheel, which itself needs a network to be built."""
    script = "from setuptools import setup; setup()"
    command = [sys.executable, "-c", script, "--quiet", "build_py", "--build-lib", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)

    def files(root: Path) -> set[str]:
        rooms = [root / room_of(module) for module in EXTRA_OF]
        found = [
            file for room in rooms for file in room.rglob("*") if file.is_file() and "__pycache__" not in file.parts
        ]
        return {file.relative_to(root).as_posix() for file in found if file.name not in ASSEMBLED}

    assert files(tmp_path) == files(ROOT)


@pytest.mark.slow
def test_scripts_run_in_a_clean_environment(tmp_path):
    """`pip install -e '.[demo]'` with nothing else there, and the commands from another folder; needs a network."""
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=True)
    programs = environment / ("Scripts" if os.name == "nt" else "bin")
    install = [programs / "python", "-m", "pip", "install", "--quiet", "--constraint", ROOT / "constraints.txt"]
    subprocess.run([*install, "--editable", f"{ROOT}[demo]"], check=True)
    outside = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    for script in ("omniv-med-ask", "omniv-med-demo"):
        done = subprocess.run(
            [programs / script, "--help"], cwd=tmp_path, env=outside, capture_output=True, text=True, check=True
        )
        assert done.stdout.startswith("usage:")
