# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""FSDP2 and DeepSpeed's ZeRO train as one process does, by the configurations for accelerate, over gloo on a CPU.

    pip install --constraint constraints.txt deepspeed && pytest -m "slow or not slow" tests/train/test_sharding.py

NCCL and GPUs are not touched here, and bfloat16 is off where losses are compared.
"""

from __future__ import annotations

import importlib.util
import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText

from tests.helpers.paths import ROOT
from tests.helpers.stage_files import BATCH, STEPS, TOLERANCE, stage_file
from tests.helpers.training_fixtures import write_set
from tests.helpers.two_process_launch import launch_two
from train.config import StageConfig
from train.stage import CHECKPOINT_FILE, run_stage

pytestmark = pytest.mark.usefixtures("one_thread")
CONFIGS = ROOT / "train" / "configs"
HALFWAY = STEPS // 2
LORA = {"rank": 2}
RESUMED_TIMES = 20
NEEDS_DEEPSPEED = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="deepspeed is not installed"),
]


def run_two_processes(strategy: str, stage: Path, *options: str) -> None:
    """Trains a stage on two processes, with further options for `accelerate launch`."""
    config = CONFIGS / "accelerate" / f"{strategy}.yaml"
    on_a_cpu = {"DS_ACCELERATOR": "cpu", "ACCELERATE_TORCH_DEVICE": "cpu"}
    launch_two(config, "tests.helpers.sharded_process", [str(stage)], options, **on_a_cpu)


def forget_the_second_half(output: Path) -> None:
    """Leaves of a trained stage the checkpoint of half its steps, as when it was killed after it."""
    shutil.rmtree(output / f"checkpoint-{STEPS}")
    (output / "trained.safetensors").unlink(missing_ok=True)
    shutil.rmtree(output / "model", ignore_errors=True)


def log(output: Path) -> list[dict[str, Any]]:
    """What the Trainer logged of each step."""
    last = max(output.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    state = json.loads((last / "trainer_state.json").read_text(encoding="utf-8"))
    return [entry for entry in state["log_history"] if "loss" in entry]


def trained(output: Path) -> dict[str, torch.Tensor]:
    """The tensors of a stage's result."""
    results = (output / "trained.safetensors", output / "model" / "model.safetensors")
    return load_file(next(path for path in results if path.exists()))


@pytest.mark.parametrize(
    ("strategy", "lora", "wrapper"),
    [
        pytest.param("fsdp2", LORA, "FSDPConversationLoss", marks=pytest.mark.slow),
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
    exactly = ("--mixed_precision", "no") if strategy == "fsdp2" else ()  # DeepSpeed asks the stage
    run_two_processes(strategy, stage, *exactly)

    wanted, found = log(whole), log(half)
    assert len(wanted) == STEPS
    checkpoint_of_one = load_file(whole / f"checkpoint-{STEPS}" / CHECKPOINT_FILE)
    shapes_of_one = {name: tensor.shape for name, tensor in checkpoint_of_one.items()}
    for name in ("loss", "grad_norm"):
        assert [entry[name] for entry in found] == pytest.approx([entry[name] for entry in wanted], rel=TOLERANCE)
    alone, together = trained(whole), trained(half)
    assert together.keys() == alone.keys()
    for name, tensor in together.items():
        assert tensor.numpy() == pytest.approx(alone[name].numpy(), abs=1e-3), name
    for step in (HALFWAY, STEPS):
        saved = load_file(half / f"checkpoint-{step}" / CHECKPOINT_FILE)
        assert {name: tensor.shape for name, tensor in saved.items()} == shapes_of_one, (
            "the first process saved it whole"
        )
    optimizer = torch.load(whole / f"checkpoint-{STEPS}" / "optimizer.pt", weights_only=True)
    momentum = sum(state["exp_avg"].numel() for state in optimizer["state"].values())
    for rank in range(2):
        seen = json.loads((half / f"process.{rank}.json").read_text(encoding="utf-8"))
        assert seen["wrapper"] == wrapper
        assert seen["momentum"] == pytest.approx(momentum / 2, rel=0.05), "each process keeps its own half"

    forget_the_second_half(half)
    run_two_processes(strategy, stage, *exactly)
    assert [entry["loss"] for entry in log(half)] == [entry["loss"] for entry in found]
    again = trained(half)
    assert all((again[name] == tensor).all() for name, tensor in together.items())


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["fsdp2", pytest.param("deepspeed_zero2", marks=NEEDS_DEEPSPEED)])
def test_a_stage_goes_on_from_its_checkpoint_every_time(tiny, tmp_path, strategy) -> None:
    # Once in many runs a checkpoint was lost, because every process wrote its own over the first one's.
    data, output = tmp_path / "data", tmp_path / "two"
    write_set(data, "train", seed=0)
    stage = stage_file(tmp_path, "two", tiny, data, BATCH // 2, LORA)
    stage.write_text(stage.read_text(encoding="utf-8") + f"checkpoint_every: {HALFWAY}\n", encoding="utf-8")
    exactly = ("--mixed_precision", "no") if strategy == "fsdp2" else ()
    run_two_processes(strategy, stage, *exactly)
    wanted = [entry["loss"] for entry in log(output)]
    assert len(wanted) == STEPS
    for resumed in range(RESUMED_TIMES):
        forget_the_second_half(output)
        run_two_processes(strategy, stage, *exactly)
        assert [entry["loss"] for entry in log(output)] == wanted, f"resumed {resumed} times before"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("strategy", "size"),
    [
        ("fsdp2", "1.5b"),
        pytest.param("deepspeed_zero2", "1.5b", marks=NEEDS_DEEPSPEED),
        pytest.param("deepspeed_zero3", "7b", marks=NEEDS_DEEPSPEED),
    ],
)
def test_the_stages_of_the_large_models_follow_each_other_on_a_tiny_one(tiny, tmp_path, strategy, size) -> None:
    data, replay, model = tmp_path / "data", tmp_path / "replay.json", tiny
    for seed, split in enumerate(("train", "validation")):
        write_set(data, split, seed=seed)
    replay.write_text(json.dumps([["What is 2 + 2?", "The answer is 4."]]), encoding="utf-8")
    for number in (1, 2, 3):
        fields = yaml.safe_load((CONFIGS / size / f"stage{number}.yaml").read_text(encoding="utf-8"))
        output = tmp_path / f"stage{number}"
        fields["data"] |= {"folders": [str(data)], "cache": str(tmp_path / "cache"), "workers": 1}
        if "text_replay" in fields["data"]:
            fields["data"]["text_replay"] = str(replay)
        if "start" in fields:
            fields["start"] = str(tmp_path / f"stage{number - 1}" / "trained.safetensors")
        del fields["epochs"]
        small = {"steps": 2, "gradient_accumulation": 2, "checkpoint_every": 1, "log_every": 1}
        small["evaluation"] = {"records": 4, "every": 1}
        stage = tmp_path / f"stage{number}.yaml"
        stage.write_text(
            yaml.safe_dump(fields | small | {"output": str(output), "model": str(model)}), encoding="utf-8"
        )
        run_two_processes(strategy, stage)
        assert [math.isfinite(entry["loss"]) for entry in log(output)] == [True, True]
        model = output / "model" if (output / "model").exists() else model
    trained_model = AutoModelForImageTextToText.from_pretrained(model, trust_remote_code=True)
    assert all(tensor.isfinite().all() for tensor in trained_model.state_dict().values())
