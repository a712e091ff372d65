# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Going on with the Nano on real pictures: what it begins with, and how what was learned twice is joined."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from data_engine.records import DIMENSIONS
from hub_model.convolutional_features_omniv_med import OmniVMedConvolutionalFeatures
from train.checkpoints.trained_tensors import merge_lora, read_trained_tensors, save_trained_tensors
from train.config import StageConfig
from train.nano.imagenet import EPSILON, load_imagenet_weights, weights_file
from train.nano.pretrain import PretrainConfig
from train.nano.real_pictures import SETTINGS, STAGE, join
from train.nano.run import CONFIGS, read_settings

pytestmark = pytest.mark.usefixtures("one_thread")


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


def test_factors_of_two_trainings_joined_change_the_weights_as_one_after_the_other(tmp_path) -> None:
    torch.manual_seed(0)
    encoder = "model.vision_model.x"

    def factors(name: str, rank: int) -> dict[str, torch.Tensor]:
        return {f"{name}.lora_A": torch.randn(rank, 6), f"{name}.lora_B": torch.randn(4, rank)}

    before, after, joined = (tmp_path / f"{name}.safetensors" for name in ("before", "after", "joined"))
    save_trained_tensors(before, {encoder: torch.zeros(2)}, factors("q", 3), torch.zeros(1, 2), 1.94)
    save_trained_tensors(after, {encoder: torch.ones(2)}, factors("q", 2) | factors("up", 2), torch.ones(1, 2), 2.0)
    join(before, after, joined)

    in_turn, at_once = (nn.ModuleDict({name: nn.Linear(6, 4, bias=False) for name in ("q", "up")}) for _ in range(2))
    at_once.load_state_dict(in_turn.state_dict())
    for path in (before, after):
        merge_lora(in_turn, *read_trained_tensors(path))
    tensors, scaling = read_trained_tensors(joined)
    merge_lora(at_once, tensors, scaling)
    for name, weight in in_turn.state_dict().items():
        torch.testing.assert_close(at_once.state_dict()[name], weight, rtol=1e-2, atol=2e-2)
    assert tensors[encoder].tolist() == [1, 1], "the encoder is the later one"
    assert tensors["new_embedding_rows"].tolist() == [[1, 1]]


def test_the_settings_can_be_read_and_belong_together() -> None:
    PretrainConfig(**read_settings(SETTINGS))
    stage = StageConfig.read(CONFIGS / "nano" / f"{STAGE}.yaml")
    assert stage.start.parent == stage.output.parent == stage.model.parent
    assert set(stage.data.shares or {}) <= {*DIMENSIONS, "text", "described"}
