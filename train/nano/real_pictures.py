# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Goes on training OmniV-Med-Nano on real pictures: first its encoder on their labels, then all of it on questions.

    python -m data_engine.build --config data_engine/configs/real.yaml --out data/real
    python -m train.nano.real_pictures --real ../real

Begins with the committed tensors and ends in new ones, `runs/nano/real/trained.safetensors`; with `--keep-encoder`
without the first step, from the encoder that there is. It can be stopped at any moment and goes on where it stopped.
With `--stage places` the questions are for places alone, and `runs/nano/places/trained.safetensors` is what `--start`
goes on from. The encoder gets EfficientNet-Lite0's features beside its own embeddings, which start at zero, and frames
of 64 tokens; the projector tells places, which start at the words for them.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast

from data_engine.commands import resumable_command
from data_engine.pool import SamplePool
from hub_model.modeling_omniv_med import OmniVMedForConditionalGeneration
from train.checkpoints.assemble import (
    NANO_OF_REAL_PICTURES,
    TRAINED,
    fresh_nano,
    parts_held,
    write_configuration,
)
from train.checkpoints.trained_tensors import (
    ADDED_TOKEN_EMBEDDINGS,
    LORA_A,
    LORA_B,
    TRAINED_PARTS,
    merge_lora,
    read_trained_tensors,
    save_trained_tensors,
)
from train.config import StageConfig
from train.nano.imagenet import load_imagenet_weights
from train.nano.labelled_pictures import LabelledPictures
from train.nano.places import start_places
from train.nano.pretrain import PretrainConfig, pretrain
from train.nano.run import CONFIGS, POOLS, build_pools, read_settings
from train.stage import run_stage

SETTINGS = "real_encoder"
STAGES = ("real", "places")
"""All questions about real pictures, and before them, where a Nano does not know places yet, those for a place."""
LARGEST_RANK = 40
"""Of the factors that the committed tensors hold for one matrix of the language model: 39 MB in all."""


def begin(start: Path) -> tuple[OmniVMedForConditionalGeneration, PreTrainedTokenizerFast]:
    """The Nano of trained tensors, with the convolutional features and projector context that they may lack.

    Args:
        start: trained tensors, whose LoRA factors are added to the language model's weights.
    """
    tensors, scaling = read_trained_tensors(start)
    model, tokenizer = fresh_nano(projector_context=True, convolutional_features=True)
    held = parts_held(tensors)
    if not held["convolutional_features"]:
        load_imagenet_weights(model.model.vision_model.convolutional_features)
    model.load_state_dict({n: t for n, t in tensors.items() if n.startswith(TRAINED_PARTS)}, strict=False)
    with torch.no_grad():
        model.get_input_embeddings().weight[-len(tensors[ADDED_TOKEN_EMBEDDINGS]) :] = tensors[ADDED_TOKEN_EMBEDDINGS]
    merge_lora(model, tensors, scaling)
    if not held["projector_context"]:
        start_places(model, tokenizer)
    return model, tokenizer


def write_model(folder: Path, start: Path) -> None:
    """Writes the folder that the stage begins with, unless it is there."""
    if (folder / "model.safetensors").exists():
        return
    model, tokenizer = begin(start)
    write_configuration(folder, model, tokenizer, NANO_OF_REAL_PICTURES)
    model.save_pretrained(folder)


def keep_encoder(path: Path, start: Path) -> None:
    """Writes the encoder and the projector of the start, unless there are some, where the first step writes its own."""
    if not path.exists():
        save_encoder(path, begin(start)[0], start)


def save_encoder(path: Path, model: OmniVMedForConditionalGeneration, start: Path) -> None:
    """Writes a model's encoder and projector beside the embeddings of the added tokens that the start has."""
    parts = {name: tensor for name, tensor in model.state_dict().items() if name.startswith(TRAINED_PARTS)}
    save_trained_tensors(path, parts, {}, read_trained_tensors(start)[0][ADDED_TOKEN_EMBEDDINGS], 1.0)


def pretrain_encoder(path: Path, start: Path, real: Path, settings: dict[str, Any]) -> None:
    """Writes encoder and projector as labels taught them, unless they are there.

    Generated samples stand among the real pictures: without them the encoder forgot what it had learned of them.
    """
    if path.exists():
        return
    config = PretrainConfig(**settings["training"])
    pools = path.parent / "pools"
    build_pools(settings["pool"], pools)
    model, tokenizer = begin(start)
    training, held_out = (
        [*LabelledPictures(real, split), *SamplePool(pools / pool)]
        for split, pool in zip(("train", "validation"), POOLS, strict=True)
    )
    pretrain(model, tokenizer, training, held_out, path.parent / "encoder", config, NANO_OF_REAL_PICTURES)
    save_encoder(path, model, start)


def join(start: Path, trained: Path, path: Path, part: float = 1.0) -> None:
    """Writes the tensors of a stage with the factors of its start and its own as one, added to the same weights.

    Two products are one of factors set side by side, BA + DC = [B D][A; C]; each scaling goes into its second factor.
    So that round after round the file grows no larger, `LARGEST_RANK` bounds what is kept.

    Args:
        part: of the way from the start's weights to the stage's, from 0 to 1 (Wortsman et al., arXiv 2109.01903).
    """
    (before, old), (after, new) = read_trained_tensors(start), read_trained_tensors(trained)
    factors: dict[str, torch.Tensor] = {}
    for tensors, scaling in ((before, old), (after, part * new)):
        for name in (name for name in tensors if name.endswith((LORA_A, LORA_B))):
            one = tensors[name].float() * (scaling if name.endswith(LORA_B) else 1)
            axis = 1 if name.endswith(LORA_B) else 0
            factors[name] = torch.cat([factors[name], one], dim=axis) if name in factors else one
    for name in [name for name in factors if name.endswith(LORA_A)]:
        other = name.removesuffix(LORA_A) + LORA_B
        factors[name], factors[other] = of_smaller_rank(factors[name], factors[other], LARGEST_RANK)
    parts = {
        name: torch.lerp(before.get(name, tensor), tensor, part)
        for name, tensor in after.items()
        if name.startswith(TRAINED_PARTS)
    }
    added = torch.lerp(before[ADDED_TOKEN_EMBEDDINGS], after[ADDED_TOKEN_EMBEDDINGS], part)
    save_trained_tensors(path, parts, factors, added, 1.0)


def of_smaller_rank(first: torch.Tensor, second: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The factors of the matrix of at most `rank` that is nearest to a product (Eckart and Young).

    Args:
        first: (r, inputs), LoRA's A.
        second: (outputs, r), LoRA's B.

    Returns:
        The same where r is not above `rank`, else (rank, inputs) and (outputs, rank).
    """
    if len(first) <= rank:
        return first, second
    (rows, row_mix), (columns, column_mix) = torch.linalg.qr(second), torch.linalg.qr(first.T)
    left, values, right = torch.linalg.svd(row_mix @ column_mix.T)
    root = values[:rank].sqrt()
    return root[:, None] * (right[:rank] @ columns.T), (rows @ left[:, :rank]) * root


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--real", type=Path, required=True, help="folder of images.jsonl and slake/")
    parser.add_argument(
        "--start", type=Path, default=TRAINED, help="trained tensors to begin with (default: the Nano's)"
    )
    parser.add_argument("--stage", choices=STAGES, default=STAGES[0], help="the questions (default: all)")
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="NAME=VALUE", help="fields of train/configs/nano/STAGE.yaml"
    )
    parser.add_argument(
        "--part", type=float, default=1.0, help="how much of the way to what was learned is taken, 0 to 1 (default 1)"
    )
    parser.add_argument(
        "--keep-encoder", action="store_true", help="train the encoder with all the rest only, not on labels first"
    )
    arguments = parser.parse_args()
    if not 0 <= arguments.part <= 1:
        parser.error("--part lies between 0 and 1.")
    stage = StageConfig.read(CONFIGS / "nano" / f"{arguments.stage}.yaml", arguments.set)
    folder = stage.start.parent
    with resumable_command("Error: "):
        if arguments.keep_encoder:
            keep_encoder(stage.start, arguments.start)
        else:
            pretrain_encoder(stage.start, arguments.start, arguments.real, read_settings(SETTINGS))
        write_model(stage.model, arguments.start)
        result = run_stage(stage)
    join(arguments.start, result, folder / "trained.safetensors", arguments.part)
    print(f"Trained tensors are in {folder / 'trained.safetensors'}.")


if __name__ == "__main__":
    main()
