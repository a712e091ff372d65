# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Going on with the Nano on real pictures: what it begins with, and how what was learned twice is joined."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import nn
from transformers import AutoModelForImageTextToText

from data_engine.records import DIMENSIONS
from hub_model.convolutional_features_omniv_med import OmniVMedConvolutionalFeatures
from tests.helpers.training_fixtures import write_set
from train.checkpoints.assemble import CONVOLUTIONAL, TRAINED
from train.checkpoints.trained_tensors import LORA_A, LORA_B, merge_lora, read_trained_tensors, save_trained_tensors
from train.config import StageConfig
from train.nano import real_pictures
from train.nano import run as run_nano
from train.nano.imagenet import EPSILON, load_imagenet_weights, weights_file
from train.nano.pretrain import PretrainConfig
from train.nano.real_pictures import LARGEST_RANK, SETTINGS, STAGES, join, keep_encoder, of_smaller_rank
from train.nano.run import CONFIGS, read_settings
from train.trainable_parts import freeze_convolutional_features

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL_ENCODER = {
    "pool": {"seed": 1, "training_images": 3, "training_clips": 1, "held_out_images": 2, "held_out_clips": 1},
    "training": read_settings(SETTINGS)["training"] | {"steps": 1, "projector_steps": 1, "batch_size": 2},
}


@torch.no_grad()
def test_imagenet_weights_compute_what_convolutions_and_batch_norms_did_and_add_nothing_yet() -> None:
    features = OmniVMedConvolutionalFeatures(8)
    load_imagenet_weights(features)
    state = torch.load(weights_file(), weights_only=True)
    pixels = torch.rand(1, 3, 32, 32) * 2 - 1
    convolved = nn.functional.conv2d(nn.functional.pad(pixels, (0, 1, 0, 1)), state["_conv_stem.weight"], stride=2)
    norm = [state[f"_bn0.{name}"] for name in ("running_mean", "running_var", "weight", "bias")]
    expected = nn.functional.batch_norm(convolved, *norm, eps=EPSILON)
    torch.testing.assert_close(features.stem(pixels), expected, rtol=1e-4, atol=1e-4)
    added = features(torch.rand(4, 3 * 14 * 14), torch.tensor([[1, 2, 2]]), torch.tensor([2]))
    assert added.count_nonzero() == 0


@pytest.mark.parametrize("part", [1.0, 0.25])
def test_factors_of_two_trainings_joined_change_the_weights_as_one_after_the_other(tmp_path, part) -> None:
    torch.manual_seed(0)
    encoder = "model.vision_model.x"

    def factors(name: str, rank: int) -> dict[str, torch.Tensor]:
        return {f"{name}.lora_A": torch.randn(rank, 6), f"{name}.lora_B": torch.randn(4, rank)}

    before, after, joined = (tmp_path / f"{name}.safetensors" for name in ("before", "after", "joined"))
    save_trained_tensors(before, {encoder: torch.zeros(2)}, factors("q", 3), torch.zeros(1, 2), 1.94)
    save_trained_tensors(after, {encoder: torch.ones(2)}, factors("q", 2) | factors("up", 2), torch.ones(1, 2), 2.0)
    join(before, after, joined, part)

    in_turn, at_once = (nn.ModuleDict({name: nn.Linear(6, 4, bias=False) for name in ("q", "up")}) for _ in range(2))
    at_once.load_state_dict(in_turn.state_dict())
    for path, share in ((before, 1.0), (after, part)):
        tensors, scaling = read_trained_tensors(path)
        merge_lora(in_turn, tensors, share * scaling)
    tensors, scaling = read_trained_tensors(joined)
    merge_lora(at_once, tensors, scaling)
    for name, weight in in_turn.state_dict().items():
        torch.testing.assert_close(at_once.state_dict()[name], weight, rtol=1e-2, atol=2e-2)
    assert tensors[encoder].tolist() == [part, part], "of the encoder's way, too, only this part is taken"
    assert tensors["new_embedding_rows"].tolist() == [[part, part]]


def test_factors_of_too_large_a_rank_become_the_nearest_ones_of_a_smaller() -> None:
    torch.manual_seed(1)
    first, second = torch.randn(6, 9), torch.randn(7, 6)
    assert all(map(torch.equal, of_smaller_rank(first, second, 6), (first, second)))
    small_first, small_second = of_smaller_rank(first, second, 4)
    assert small_first.shape == (4, 9) and small_second.shape == (7, 4)
    left, values, right = torch.linalg.svd(second @ first, full_matrices=False)
    torch.testing.assert_close(small_second @ small_first, left[:, :4] * values[:4] @ right[:4])


def test_a_third_round_does_not_make_the_file_larger(tmp_path) -> None:
    torch.manual_seed(2)
    name = "model.language_model.layers.0.mlp.up_proj"
    paths = [tmp_path / f"{number}.safetensors" for number in range(3)]
    for path, rank in zip(paths, (LARGEST_RANK, 16, 0), strict=True):
        if rank:
            factors = {f"{name}.lora_A": torch.randn(rank, 64), f"{name}.lora_B": torch.randn(48, rank)}
            save_trained_tensors(path, {}, factors, torch.ones(1, 2), 1.0)
    join(*paths)
    assert len(read_trained_tensors(paths[2])[0][f"{name}.lora_A"]) == LARGEST_RANK


@pytest.mark.parametrize("name", STAGES)
def test_the_settings_can_be_read_and_belong_together(name) -> None:
    PretrainConfig(**read_settings(SETTINGS)["training"])
    stage = StageConfig.read(CONFIGS / "nano" / f"{name}.yaml")
    assert stage.start.parent == stage.output.parent == stage.model.parent
    assert set(stage.data.shares or {}) <= {*DIMENSIONS, "text", "described"}


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A working directory with the recipe's settings, made small, labelled pictures and a built set."""
    shutil.copytree(CONFIGS, tmp_path / "configs")
    for name, changes in (
        (SETTINGS, SMALL_ENCODER),
        (STAGES[0], {"steps": 1, "batch_size": 2, "data": {"folders": ["data/real"]}, "lora": {"rank": 2}}),
    ):
        path = tmp_path / "configs" / "nano" / f"{name}.yaml"
        path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")
    lines = []
    for split in ("train", "validation"):
        for number, finding in enumerate(("polyp", "normal")):
            name = f"{split}-{number}.png"
            Image.fromarray(np.full((40, 40, 3), 90 * number, np.uint8)).save(tmp_path / name)
            lines.append(
                {"file": name, "modality": "endoscopy", "anatomy": "colon", "finding": finding, "split": split}
            )
    (tmp_path / "images.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    write_set(tmp_path / "data" / "real")
    monkeypatch.chdir(tmp_path)
    for module in (real_pictures, run_nano):
        monkeypatch.setattr(module, "CONFIGS", tmp_path / "configs")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["real_pictures", "--real", "."])
    return tmp_path


@pytest.mark.slow
def test_from_the_nano_to_new_tensors_and_again_only_what_is_missing(folder, capsys) -> None:
    real_pictures.main()
    path = folder / "runs" / "nano" / "real" / "trained.safetensors"
    tensors, scaling = read_trained_tensors(path)
    before, _ = read_trained_tensors(TRAINED)
    assert scaling == 1
    assert any(name.startswith(CONVOLUTIONAL) for name in tensors)
    queries = "model.language_model.layers.0.self_attn.q_proj.lora_A"
    assert len(tensors[queries]) == min(len(before[queries]) + 2, LARGEST_RANK), "old and new factors are one"

    started = AutoModelForImageTextToText.from_pretrained(folder / "runs/nano/real/model", trust_remote_code=True)
    added = started.model.vision_model.convolutional_features
    kept = before[f"{CONVOLUTIONAL}from_head.weight"]
    assert torch.equal(added.from_head.weight, kept.float()), "it begins as the Nano that is there"

    path.unlink()
    capsys.readouterr()
    real_pictures.main()
    assert "is finished" in capsys.readouterr().out
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in read_trained_tensors(path)[0].items())


def test_a_kept_encoder_is_the_starts_without_its_factors(tmp_path) -> None:
    path = tmp_path / "encoder.safetensors"
    keep_encoder(path, TRAINED)
    before, _ = read_trained_tensors(TRAINED)
    kept, _ = read_trained_tensors(path)
    assert all(torch.equal(tensor, before[name]) for name, tensor in kept.items())
    assert set(before) - set(kept) == {name for name in before if name.endswith((LORA_A, LORA_B))}
    path.write_bytes(b"of an earlier run")
    keep_encoder(path, TRAINED)
    assert path.read_bytes() == b"of an earlier run"


def test_frozen_the_convolutional_network_leaves_the_maps_that_lead_from_it_trainable() -> None:
    class Encoder(nn.Module):
        def __init__(self, features: OmniVMedConvolutionalFeatures | None):
            super().__init__()
            self.convolutional_features = features

    encoder = Encoder(OmniVMedConvolutionalFeatures(8))
    freeze_convolutional_features(encoder)
    moving = {name for name, parameter in encoder.named_parameters() if parameter.requires_grad}
    maps = {"from_fine.weight", "from_head.weight", "from_head.bias"}
    assert moving == {f"convolutional_features.{name}" for name in maps}

    encoder.requires_grad_(False)
    freeze_convolutional_features(encoder)
    assert not any(parameter.requires_grad for parameter in encoder.parameters()), "what was frozen stays so"
    freeze_convolutional_features(Encoder(None))
