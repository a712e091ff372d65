# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The vLLM plugin's contract, in its own environment, where `make serving` has made that."""

from __future__ import annotations

import subprocess

import pytest

from tests.helpers.paths import ROOT

ENVIRONMENT = ROOT / "serving" / ".venv"


@pytest.mark.skipif(not (ENVIRONMENT / ".installed").exists(), reason="needs `make serving`")
def test_the_plugin_gives_vllm_what_the_processor_gives():
    tests = "tests/serving/test_contract.py"
    command = [ENVIRONMENT / "bin" / "python", "-m", "pytest", "--quiet", "--confcutdir", "tests/serving", tests]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-5000:]
