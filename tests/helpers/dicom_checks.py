# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""What others say of a DICOM file that was written here: dciodvfy of dicom3tools, and a search for the patient."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.helpers.clinical_series import MARKS

needs_dciodvfy = pytest.mark.skipif(
    shutil.which("dciodvfy") is None, reason="dciodvfy is not installed (Debian: dicom3tools)"
)


def errors_of(path: Path) -> list[str]:
    """The lines in which dciodvfy calls something in a DICOM file an error."""
    done = subprocess.run(["dciodvfy", path], capture_output=True, text=True, errors="replace")
    lines = (done.stdout + done.stderr).splitlines()
    assert lines, "dciodvfy says the kind of object, at least"
    return [line for line in lines if line.startswith("Error")]


def marks_in(data: bytes) -> list[str]:
    """Which of the patient's values stand in a file."""
    return [mark for mark in MARKS if mark.encode() in data]
