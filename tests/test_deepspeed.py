# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""DeepSpeed's ZeRO-2 and ZeRO-3 train as one process does, with the configurations for accelerate, over gloo on a CPU.

    pip install --constraint constraints.txt deepspeed && pytest -m slow tests/test_deepspeed.py

NCCL and GPUs are not touched here, and bfloat16 is off, so that losses can be compared closely.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from tests.test_two_processes import BATCH, TOLERANCE, stage_file
from tests.training_fixtures import write_set
from tests.two_processes import STEPS
from train.assemble import ROOT
from train.config import StageConfig
from train.stage import run_stage

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="deepspeed is not installed"),
    pytest.mark.usefixtures("one_thread"),
]
ON_A_CPU = {
    "CUDA_VISIBLE_DEVICES": "",
    "DS_ACCELERATOR": "cpu",
    "ACCELERATE_TORCH_DEVICE": "cpu",
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
}
HALFWAY = STEPS // 2


def run_two_processes(strategy: str, stage: Path) -> None:
    """Trains a stage on two processes under ZeRO."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = ROOT / "train" / "configs" / "accelerate" / f"{strategy}.yaml"
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(config)]
    command += ["--num_processes", "2", "--main_process_port", str(port), "-m", "tests.deepspeed_process", str(stage)]
    output = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True}
    done = subprocess.run(command, cwd=ROOT, env=os.environ | ON_A_CPU, timeout=300, check=False, **output)
    assert done.returncode == 0, done.stderr[-3000:]


def log(output: Path, steps: int) -> list[dict[str, Any]]:
    """What the Trainer logged of each step."""
    state = json.loads((output / f"checkpoint-{steps}" / "trainer_state.json").read_text(encoding="utf-8"))
    return [entry for entry in state["log_history"] if "loss" in entry]


def trained(output: Path) -> dict[str, Any]:
    """The tensors of a stage's result."""
    results = (output / "trained.safetensors", output / "model" / "model.safetensors")
    return load_file(next(path for path in results if path.exists()))


@pytest.mark.parametrize(
    ("strategy", "lora"),
    [("deepspeed_zero2", {"rank": 2}), ("deepspeed_zero3", {"rank": 2}), ("deepspeed_zero3", None)],
)
def test_zero_trains_as_one_process_does_and_goes_on_where_it_stopped(tiny, tmp_path, strategy, lora) -> None:
    data = tmp_path / "data"
    write_set(data, "train", seed=0)
    alone = StageConfig.read(stage_file(tmp_path, "one", tiny, data, BATCH, lora), [f"checkpoint_every={HALFWAY}"])
    run_stage(alone)
    stage = stage_file(tmp_path, "two", tiny, data, BATCH // 2, lora)
    stage.write_text(stage.read_text(encoding="utf-8") + f"checkpoint_every: {HALFWAY}\n", encoding="utf-8")
    output = tmp_path / "two"
    run_two_processes(strategy, stage)

    wanted, found = log(alone.output, STEPS), log(output, STEPS)
    assert len(wanted) == STEPS
    for name in ("loss", "grad_norm"):
        assert [entry[name] for entry in found] == pytest.approx([entry[name] for entry in wanted], rel=TOLERANCE)
    cut = sorted(
        path.name for path in (output / f"checkpoint-{STEPS}" / f"global_step{STEPS}").glob("*optim_states.pt")
    )
    assert len(cut) == 2, "each process keeps its own half of the optimizer's state"
    together, one = trained(output), trained(alone.output)
    assert together.keys() == one.keys()
    for name, tensor in together.items():
        assert tensor.numpy() == pytest.approx(one[name].numpy(), abs=1e-3), name

    shutil.rmtree(output / f"checkpoint-{STEPS}")
    for path in (output / "trained.safetensors", output / "model"):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    run_two_processes(strategy, stage)
    assert [entry["loss"] for entry in log(output, STEPS)] == [entry["loss"] for entry in found]
    again = trained(output)
    assert all((again[name] == tensor).all() for name, tensor in together.items())
