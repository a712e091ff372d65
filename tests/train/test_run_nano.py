# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The one command that trains the Nano, with its own language model, from an empty folder, at a few steps a part."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from train.checkpoints.trained_tensors import ADDED_TOKEN_EMBEDDINGS, LORA_B, TRAINED_PARTS, read_trained_tensors
from train.nano import run as run_nano

SMALL = {
    "pretrain": {
        "pool": {"training_images": 28, "training_clips": 12, "held_out_images": 14, "held_out_clips": 12},
        "training": {"steps": 2, "projector_steps": 1, "batch_size": 4},
    },
    "language": {"steps": 2, "batch_size": 2},
    **{name: {"steps": 1, "batch_size": 2, "evaluation": None} for name in ("stage1", "stage2", "stage3")},
}


@pytest.fixture
def empty_folder(tmp_path, monkeypatch) -> Path:
    """A working directory with nothing but the Nano's configuration, made small, and replayed text."""
    shutil.copytree(run_nano.CONFIGS, tmp_path / "configs")
    for name, changes in SMALL.items():
        path = tmp_path / "configs" / "nano" / f"{name}.yaml"
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
        for field, value in changes.items():
            settings[field] = settings[field] | value if name == "pretrain" else value
        path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    path = tmp_path / "data_configs" / "mini.yaml"
    path.parent.mkdir()
    settings = yaml.safe_load((run_nano.DATA_CONFIGS / "mini.yaml").read_text(encoding="utf-8"))
    path.write_text(
        yaml.safe_dump(settings | {"generated": {"train": 56, "validation": 28, "test": 28}}), encoding="utf-8"
    )
    replay = tmp_path / "runs" / "nano" / "text_replay.json"
    replay.parent.mkdir(parents=True)
    replay.write_text(json.dumps([["What is 2 + 2?", "The answer is 4."]]), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run_nano, "CONFIGS", tmp_path / "configs")
    monkeypatch.setattr(run_nano, "DATA_CONFIGS", tmp_path / "data_configs")
    monkeypatch.setattr(run_nano, "ROOT", tmp_path)
    monkeypatch.setattr(run_nano, "TRAINED", tmp_path / "train" / "nano" / "trained.safetensors")
    monkeypatch.setattr("train.nano.pretrain.HELD_OUT", 8)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    return tmp_path


@pytest.mark.slow
def test_from_an_empty_folder_to_trained_tensors_and_again_only_what_is_missing(empty_folder, capsys) -> None:
    run_nano.main()
    tensors, scaling = read_trained_tensors(run_nano.TRAINED)
    whole = read_trained_tensors(empty_folder / "runs" / "nano" / "stage3" / "trained.safetensors")[1]
    assert scaling == pytest.approx(run_nano.MERGED_SHARE * whole)
    assert ADDED_TOKEN_EMBEDDINGS in tensors
    assert all(any(name.startswith(part) for name in tensors) for part in TRAINED_PARTS)
    assert any(tensor.any() for name, tensor in tensors.items() if name.endswith(LORA_B)), "the language model learned"

    before = {path: path.stat().st_mtime_ns for path in (empty_folder / "runs").rglob("*.safetensors")}
    (empty_folder / "runs" / "nano" / "stage3" / "trained.safetensors").unlink()
    capsys.readouterr()
    run_nano.main()
    assert capsys.readouterr().out.count("is finished") == 3
    again = read_trained_tensors(run_nano.TRAINED)[0]
    assert all(torch.equal(again[name], tensor) for name, tensor in tensors.items())
    changed = {path for path, time in before.items() if path.stat().st_mtime_ns != time}
    assert {path.parent.name for path in changed if path.name == "trained.safetensors"} == {"stage3"}
