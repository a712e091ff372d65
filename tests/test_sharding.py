# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""FSDP2 and DeepSpeed's ZeRO train as one process does, by the configurations for accelerate, over gloo on a CPU.

    pip install --constraint constraints.txt deepspeed && pytest -m "slow or not slow" tests/test_sharding.py

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
import torch
from safetensors.torch import load_file

from tests.test_two_processes import BATCH, TOLERANCE, stage_file
from tests.training_fixtures import write_set
from tests.two_processes import STEPS
from train.assemble import ROOT
from train.config import StageConfig
from train.stage import run_stage

pytestmark = pytest.mark.usefixtures("one_thread")
ON_A_CPU = {
    "CUDA_VISIBLE_DEVICES": "",
    "DS_ACCELERATOR": "cpu",
    "ACCELERATE_TORCH_DEVICE": "cpu",
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
}
HALFWAY = STEPS // 2
LORA = {"rank": 2}
NEEDS_DEEPSPEED = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="deepspeed is not installed"),
]


def run_two_processes(strategy: str, stage: Path) -> None:
    """Trains a stage on two processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = ROOT / "train" / "configs" / "accelerate" / f"{strategy}.yaml"
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(config), "--num_processes", "2"]
    command += ["--main_process_port", str(port)] + (["--mixed_precision", "no"] if strategy == "fsdp2" else [])
    command += ["-m", "tests.sharded_process", str(stage)]
    output = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True}
    done = subprocess.run(command, cwd=ROOT, env=os.environ | ON_A_CPU, timeout=300, check=False, **output)
    assert done.returncode == 0, done.stderr[-3000:]


def log(output: Path) -> list[dict[str, Any]]:
    """What the Trainer logged of each step."""
    state = json.loads((output / f"checkpoint-{STEPS}" / "trainer_state.json").read_text(encoding="utf-8"))
    return [entry for entry in state["log_history"] if "loss" in entry]


def trained(output: Path) -> dict[str, torch.Tensor]:
    """The tensors of a stage's result."""
    results = (output / "trained.safetensors", output / "model" / "model.safetensors")
    return load_file(next(path for path in results if path.exists()))


@pytest.mark.parametrize(
    ("strategy", "lora", "wrapper"),
    [
        ("fsdp2", LORA, "FSDPConversationLoss"),
        pytest.param("fsdp2", None, "FSDPConversationLoss", marks=pytest.mark.slow),
        pytest.param("deepspeed_zero2", LORA, "DeepSpeedEngine", marks=NEEDS_DEEPSPEED),
        pytest.param("deepspeed_zero3", LORA, "DeepSpeedEngine", marks=NEEDS_DEEPSPEED),
        pytest.param("deepspeed_zero3", None, "DeepSpeedEngine", marks=NEEDS_DEEPSPEED),
    ],
)
def test_two_processes_share_a_stage_train_as_one_and_go_on_where_they_stopped(
    tiny, tmp_path, strategy, lora, wrapper
) -> None:
    data, half, whole = tmp_path / "data", tmp_path / "two", tmp_path / "one"
    write_set(data, "train", seed=0)
    run_stage(StageConfig.read(stage_file(tmp_path, "one", tiny, data, BATCH, lora)))
    stage = stage_file(tmp_path, "two", tiny, data, BATCH // 2, lora)
    stage.write_text(stage.read_text(encoding="utf-8") + f"checkpoint_every: {HALFWAY}\n", encoding="utf-8")
    run_two_processes(strategy, stage)

    wanted, found = log(whole), log(half)
    assert len(wanted) == STEPS
    for name in ("loss", "grad_norm"):
        assert [entry[name] for entry in found] == pytest.approx([entry[name] for entry in wanted], rel=TOLERANCE)
    alone, together = trained(whole), trained(half)
    assert together.keys() == alone.keys()
    for name, tensor in together.items():
        assert tensor.numpy() == pytest.approx(alone[name].numpy(), abs=1e-3), name
    optimizer = torch.load(whole / f"checkpoint-{STEPS}" / "optimizer.pt", weights_only=True)
    momentum = sum(state["exp_avg"].numel() for state in optimizer["state"].values())
    for rank in range(2):
        seen = json.loads((half / f"process.{rank}.json").read_text(encoding="utf-8"))
        assert seen["wrapper"] == wrapper
        assert seen["momentum"] == pytest.approx(momentum / 2, rel=0.05), "each process keeps its own half"

    shutil.rmtree(half / f"checkpoint-{STEPS}")
    (half / "trained.safetensors").unlink(missing_ok=True)
    shutil.rmtree(half / "model", ignore_errors=True)
    run_two_processes(strategy, stage)
    assert [entry["loss"] for entry in log(half)] == [entry["loss"] for entry in found]
    again = trained(half)
    assert all((again[name] == tensor).all() for name, tensor in together.items())
