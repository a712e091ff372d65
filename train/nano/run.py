# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Trains OmniV-Med-Nano from nothing but seeds: first the language model and the encoder apart, then three stages.

On two CPU cores it takes a little over two hours; where there is a GPU, `train/configs/nano/gpu.yaml` asks for more.

`python -m train.nano.run` shows its progress, can be stopped at any moment, and goes on where it stopped when it is
started again. What it made ends up in `train/nano/trained.safetensors`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from data_engine.build import BuildConfig, build
from data_engine.commands import resumable_command
from data_engine.files import read_yaml
from data_engine.pool import PoolPlan, SamplePool, build_pool
from train.checkpoints.assemble import ROOT, TRAINED, fresh_nano
from train.checkpoints.trained_tensors import (
    ADDED_TOKEN_EMBEDDINGS,
    TRAINED_PARTS,
    read_trained_tensors,
    save_trained_tensors,
)
from train.config import StageConfig
from train.nano.pretrain import PretrainConfig, pretrain
from train.stage import run_stage

CONFIGS = ROOT / "train" / "configs"
DATA_CONFIGS = ROOT / "data_engine" / "configs"
STAGES = ("language", "stage1", "stage2", "stage3")
POOLS = ("training", "held_out")
MERGED_SHARE = 0.97
"""How much of what the language model learned is added to its weights (WiSE-FT, arXiv 2109.01903).

Trained on two cores, all of it raised perplexity on plain text 1.104 times, this share 1.09 times, within the 10 % that
are allowed."""


def read_settings(name: str) -> dict[str, Any]:
    """One of the Nano's own YAML files."""
    return read_yaml(CONFIGS / "nano" / f"{name}.yaml")


def build_pools(settings: dict[str, int], folder: Path) -> None:
    """Generates the samples that the encoder learns from, and held-out ones of other seeds, where they are missing."""
    for offset, name in enumerate(POOLS):
        plan = PoolPlan(settings["seed"] + offset, settings[f"{name}_images"], settings[f"{name}_clips"])
        build_pool(folder / name, plan, processes=os.cpu_count() or 1)


def pretrain_encoder(path: Path, pools: Path, settings: dict[str, Any], language: Path) -> None:
    """Writes the pre-trained encoder and projector beside what the language stage learned, unless they are there.

    Args:
        language: trained tensors of the language stage, whose LoRA factors and added token embeddings are taken over.
    """
    if path.exists():
        return
    model, tokenizer = fresh_nano()
    training, held_out = (SamplePool(pools / name) for name in POOLS)
    pretrain(model, tokenizer, training, held_out, path.parent / "pretrain", PretrainConfig(**settings))
    learned, scaling = read_trained_tensors(language)
    added = learned.pop(ADDED_TOKEN_EMBEDDINGS)
    parts = {name: tensor for name, tensor in model.state_dict().items() if name.startswith(TRAINED_PARTS)}
    factors = {name: tensor for name, tensor in learned.items() if not name.startswith(TRAINED_PARTS)}
    save_trained_tensors(path, parts, factors, added, scaling)


def save_share(trained: Path, path: Path) -> None:
    """Writes trained tensors with `MERGED_SHARE` of the language model's factors."""
    tensors, scaling = read_trained_tensors(trained)
    added = tensors.pop(ADDED_TOKEN_EMBEDDINGS)
    save_trained_tensors(path, tensors, {}, added, MERGED_SHARE * scaling)


def main() -> None:
    on_gpu = read_settings("gpu") if torch.cuda.is_available() else {}
    language, *stages = [StageConfig.read(CONFIGS / "nano" / f"{name}.yaml", on_gpu.get(name, ())) for name in STAGES]
    settings = {part: own | on_gpu.get(part, {}) for part, own in read_settings("pretrain").items()}
    with resumable_command("Error: "):
        pools = language.data.described_pool.parent
        build_pools(settings["pool"], pools)
        (folder,) = language.data.folders
        build(BuildConfig.read(DATA_CONFIGS / f"{folder.name}.yaml"), folder, "local", os.cpu_count() or 1)
        pretrain_encoder(stages[0].start, pools, settings["training"], run_stage(language))
        for stage in stages:
            result = run_stage(stage)
    save_share(result, TRAINED)
    print(f"Trained tensors are in {TRAINED.relative_to(ROOT)}; `make model` puts them into hub_model/.")


if __name__ == "__main__":
    main()
