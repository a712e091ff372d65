# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Fetches the tests that transformers runs on each of its own models, so that they can run on this one too.

They are in the source distribution of transformers but not in its wheel. `make test` runs this module before pytest; it
does nothing once `.cache/` holds the tests of the installed version, which `constraints.txt` pins.
"""

from __future__ import annotations

import hashlib
import importlib
import subprocess
import sys
import tarfile
import tempfile
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

from tests.helpers.paths import ROOT

CACHE = ROOT / ".cache"
SDIST_SHA256 = {
    "5.20.2": "080871e061546d720be57f5846fce426f46b44d61574907cc7404c2cba49d180",
    "5.23.0": "19d647a4d5d903a7c644ca5cde2d86efc3dde7d8c687ae7988806ff2205efa71",
}
"""SHA-256 of the source distribution of each version that `constraints.txt` pins."""
LEFT_OUT = {"exporters.test_export": "ExportTesterMixin", "generation.test_utils": "GenerationTesterMixin"}
"""Modules that the distribution lacks although its tests import these mixins from them."""
PACKAGE = "transformers_tests"


def suite_folder(cache: Path = CACHE) -> Path:
    """Where the tests of the installed transformers lie, once fetched."""
    return cache / f"transformers-{version('transformers')}-tests"


def unpack_tests(sdist: Path, folder: Path, sha256: str) -> None:
    """Unpacks only the tests of a source distribution; the folder appears whole or not at all.

    Raises:
        RuntimeError: the file is not the one expected.
    """
    found = hashlib.sha256(sdist.read_bytes()).hexdigest()
    if found != sha256:
        raise RuntimeError(
            f"{sdist.name} has the wrong SHA-256: expected {sha256}, found {found}. Run the command again; if it "
            "happens twice, something on the way alters the download: try another network or package index."
        )
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch, tarfile.open(sdist) as archive:
        root = f"{sdist.name.removesuffix('.tar.gz')}/tests"
        tests = [member for member in archive.getmembers() if member.name.startswith(f"{root}/")]
        archive.extractall(scratch, members=tests, filter="data")
        Path(scratch, root).replace(folder)


def fetch(cache: Path = CACHE) -> Path:
    """Downloads the source distribution of the installed transformers (10 MB) with pip and keeps its tests (1 MB).

    Returns:
        The folder of the tests.

    Raises:
        RuntimeError: the version has no known SHA-256, pip failed, or the file is not the one expected.
    """
    folder, release = suite_folder(cache), version("transformers")
    if folder.is_dir():
        return folder
    if release not in SDIST_SHA256:
        raise RuntimeError(f"The SHA-256 of transformers {release}'s source distribution is missing in {__file__}.")
    cache.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += ["--no-binary", ":all:", "--dest", scratch, f"transformers=={release}"]
        if subprocess.run(command, check=False).returncode != 0:
            raise RuntimeError(
                f"pip could not download the source distribution of transformers {release} (its own message is "
                "above). It must be able to reach PyPI or a mirror; then run the command again."
            )
        unpack_tests(Path(scratch, f"transformers-{release}.tar.gz"), folder, SDIST_SHA256[release])
    return folder


def load() -> ModuleType:
    """Imports the fetched `test_modeling_common`, empty mixins standing in for the two that are left out."""
    package = ModuleType(PACKAGE)
    package.__path__ = [str(suite_folder())]
    sys.modules[PACKAGE] = package
    for module_name, mixin in LEFT_OUT.items():
        stand_in = ModuleType(f"{PACKAGE}.{module_name}")
        setattr(stand_in, mixin, type(mixin, (), {}))
        sys.modules[stand_in.__name__] = stand_in
    return importlib.import_module(f"{PACKAGE}.test_modeling_common")


if __name__ == "__main__":
    try:
        fetch()
    except RuntimeError as error:
        sys.exit(str(error))
