# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Trains OmniV-Med-Nano from nothing but seeds: generated data, encoder pre-training, then the three stages.

`python -m train.run_nano` shows its progress, can be stopped at any moment, and goes on where it stopped when it is
started again. What it made ends up in `train/nano/trained.safetensors`.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import torch
import yaml
from safetensors.torch import load_file, save_file

from hub_model.configuration_omniv_med import OmniVMedVisionConfig
from hub_model.processing_omniv_med import OmniVMedProcessor
from train.assemble import ADDED_TOKENS, HUB_MODEL, NANO_PROCESSOR, NANO_VISION, ROOT, TRAINED, fresh_nano
from train.data.pool import PoolPlan, SamplePool, build_pool
from train.data.text_replay import replay_conversations
from train.pretrain import pretrain
from train.stage import StageConfig, export_trained, run_stage, with_lora

CONFIGS = ROOT / "train" / "configs" / "nano"
RUNS = ROOT / "runs" / "nano"
STAGES = ("stage1", "stage2", "stage3")


def training_pools(settings: dict, folder: Path) -> tuple[SamplePool, SamplePool]:
    """The training samples, and held-out samples of other seeds; generated where they are missing."""
    pools = []
    for offset, name in enumerate(("training", "held_out")):
        plan = PoolPlan(
            settings["seed"] + offset,
            settings[f"{name}_images"],
            settings[f"{name}_clips"],
            tuple(settings["modalities"]),
        )
        build_pool(folder / name, plan, processes=os.cpu_count() or 1)
        pools.append(SamplePool(folder / name))
    return pools[0], pools[1]


def pretrained_encoder(settings: dict, training: SamplePool, held_out: SamplePool) -> dict[str, torch.Tensor]:
    """State of the pre-trained encoder, trained first where it is missing."""
    path = RUNS / "encoder.safetensors"
    if not path.exists():
        encoder = pretrain(
            OmniVMedVisionConfig(**NANO_VISION),
            training,
            held_out,
            RUNS / "pretrain",
            steps=settings["steps"],
            batch_size=settings["batch_size"],
            learning_rate=settings["learning_rate"],
            seed=settings["seed"],
        )
        save_file(encoder.state_dict(), path)
    return load_file(path)


def trained_stages(encoder: dict[str, torch.Tensor], samples: SamplePool) -> Path:
    """Runs the stages that are missing, each from the result of the one before; returns the last one's file."""
    finished: Path | None = None
    for name in STAGES:
        path = RUNS / f"{name}.safetensors"
        if not path.exists():
            config = StageConfig.read(CONFIGS / f"{name}.yaml")
            model, tokenizer = fresh_nano()
            template = (HUB_MODEL / "chat_template.jinja").read_text(encoding="utf-8")
            processor = OmniVMedProcessor(tokenizer, chat_template=template, **NANO_PROCESSOR)
            texts = replay_conversations(model, processor, RUNS / "text_replay.json")
            if finished is None:
                model.model.vision_model.load_state_dict(encoder)
            added_tokens = tokenizer.convert_tokens_to_ids(list(ADDED_TOKENS))
            wrapped = with_lora(model, config.lora_rank, added_tokens, finished)
            run_stage(wrapped, processor, {"samples": samples, "texts": texts}, config, RUNS / name)
            export_trained(wrapped, path)
        finished = path
    return finished


def main() -> None:
    settings = yaml.safe_load((CONFIGS / "pretrain.yaml").read_text(encoding="utf-8"))
    training, held_out = training_pools(settings, RUNS / "pools")
    encoder = pretrained_encoder(settings, training, held_out)
    result = trained_stages(encoder, training)
    TRAINED.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(result, TRAINED)
    print(f"Trained tensors are in {TRAINED.relative_to(ROOT)}; `make model` puts them into hub_model/.")


if __name__ == "__main__":
    main()
