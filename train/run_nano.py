# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Trains OmniV-Med-Nano from nothing but seeds: generated data, encoder pre-training, then the three stages.

`python -m train.run_nano` shows its progress, can be stopped at any moment, and goes on where it stopped when it is
started again. What it made ends up in `train/nano/trained.safetensors`.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import yaml
from safetensors.torch import save_file

from train.assemble import ROOT, TRAINED, fresh_nano
from train.config import StageConfig
from train.data.build import BuildConfig, build
from train.data.pool import PoolPlan, SamplePool, build_pool
from train.pretrain import PretrainConfig, pretrain
from train.stage import run_stage
from train.trained_tensors import TRAINED_PARTS

CONFIGS = ROOT / "train" / "configs"
STAGES = ("stage1", "stage2", "stage3")


def training_pools(settings: dict[str, int], folder: Path) -> tuple[SamplePool, SamplePool]:
    """The samples that the encoder learns from, and held-out ones of other seeds; generated where they are missing."""
    pools = []
    for offset, name in enumerate(("training", "held_out")):
        plan = PoolPlan(settings["seed"] + offset, settings[f"{name}_images"], settings[f"{name}_clips"])
        build_pool(folder / name, plan, processes=os.cpu_count() or 1)
        pools.append(SamplePool(folder / name))
    return pools[0], pools[1]


def pretrain_encoder(path: Path) -> None:
    """Writes the pre-trained encoder and projector, unless they are there."""
    if path.exists():
        return
    settings = yaml.safe_load((CONFIGS / "nano" / "pretrain.yaml").read_text(encoding="utf-8"))
    training, held_out = training_pools(settings["pool"], path.parent / "pools")
    model, tokenizer = fresh_nano()
    pretrain(model, tokenizer, training, held_out, path.parent / "pretrain", PretrainConfig(**settings["training"]))
    part = path.with_suffix(".part")
    save_file({name: t.contiguous() for name, t in model.state_dict().items() if name.startswith(TRAINED_PARTS)}, part)
    part.replace(path)


def main() -> None:
    stages = [StageConfig.read(CONFIGS / "nano" / f"{name}.yaml") for name in STAGES]
    try:
        pretrain_encoder(stages[0].start)
        plan = BuildConfig.read(CONFIGS / "data" / "nano.yaml")
        build(plan, stages[0].data.folders[0], "local", os.cpu_count() or 1)
        for stage in stages:
            result = run_stage(stage)
    except ValueError as error:
        sys.exit(f"Error: {error}")
    except KeyboardInterrupt:
        sys.exit("Stopped; the same command goes on from here.")
    TRAINED.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(result, TRAINED)
    print(f"Trained tensors are in {TRAINED.relative_to(ROOT)}; `make model` puts them into hub_model/.")


if __name__ == "__main__":
    main()
