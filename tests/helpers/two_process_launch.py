# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Starts the modules that run on every process (two_processes.py, sharded_process.py), as a user starts training."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.helpers.loopback import free_port
from tests.helpers.paths import ROOT
from tests.helpers.waiting import PATIENCE


def run_two(
    config: Path, module: str, arguments: Sequence[str], options: Sequence[str], **environment: str
) -> subprocess.CompletedProcess[str]:
    """Runs a module of ours in two processes on the CPU, by `accelerate launch` with a configuration and options."""
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(config), "--num_processes", "2"]
    command += ["--main_process_port", str(free_port()), *options, "-m", module, *arguments]
    hidden = {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"} | environment
    output = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True}
    return subprocess.run(command, cwd=ROOT, env=os.environ | hidden, timeout=PATIENCE, check=False, **output)


def launch_two(config: Path, module: str, arguments: Sequence[str], options: Sequence[str], **environment: str) -> None:
    """As `run_two`, and fails where a process did."""
    done = run_two(config, module, arguments, options, **environment)
    assert done.returncode == 0, done.stderr[-3000:]
