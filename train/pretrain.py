# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Pre-trains the vision encoder alone, supervised by the facts of generated samples, before any language is involved.

A language model on two CPU cores sees a few images a second, the encoder alone a hundred; so the encoder learns here
what there is to see (modality, plane, region, stain, lesion, side), and the three stages teach it to say so.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset
from transformers import EvalPrediction, Trainer, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from hub_model.configuration_omniv_med import OmniVMedVisionConfig
from hub_model.modeling_omniv_med import OmniVMedVisionModel
from hub_model.visual_processing_omniv_med import patchify, resize_frames, token_grid
from train.assemble import NANO_PROCESSOR
from train.data.conversations import IGNORED
from train.data.phantoms import Sample

SLICE_FACTS = ("modality", "plane", "region")
"""Facts of a clip that every single frame of it shows."""
LARGEST_STRETCH = 1.35
"""Frames are stretched by up to this factor, so that the encoder meets every token grid that real files lead to."""


def fact_vocabulary(samples: Sequence[Sample]) -> dict[str, list[str]]:
    """The values each fact takes, sorted; facts with a single value teach nothing and are left out."""
    values: dict[str, set[str]] = {}
    for index in range(len(samples)):
        for fact, value in samples[index].facts.items():
            values.setdefault(fact, set()).add(value)
    return {fact: sorted(found) for fact, found in sorted(values.items()) if len(found) > 1}


class EncoderWithHeads(nn.Module):
    """The encoder, the mean of its tokens, and one linear classifier for each fact."""

    def __init__(self, config: OmniVMedVisionConfig, vocabulary: dict[str, list[str]]):
        super().__init__()
        self.vision_model = OmniVMedVisionModel._from_config(config)
        self.heads = nn.ModuleDict({fact: nn.Linear(config.hidden_size, len(v)) for fact, v in vocabulary.items()})

    def forward(
        self, pixel_values: torch.Tensor, grid_thw: torch.Tensor, merge_sizes: torch.Tensor, labels: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Mean cross-entropy over the facts that each image has.

        Args:
            pixel_values, grid_thw, merge_sizes: as the encoder takes them, one frame a clip.
            labels: int64 (images, facts) in the order of the vocabulary, -100 where an image lacks the fact.

        Returns:
            `loss`, and `predictions` int64 (images, facts).
        """
        tokens = self.vision_model(pixel_values, grid_thw, merge_sizes).last_hidden_state
        counts = (grid_thw.prod(dim=1) // merge_sizes**2).tolist()
        pooled = torch.stack([part.mean(dim=0) for part in tokens.split(counts)])
        logits = [head(pooled).float() for head in self.heads.values()]
        losses = [
            nn.functional.cross_entropy(scores, labels[:, fact], ignore_index=IGNORED)
            for fact, scores in enumerate(logits)
            if (labels[:, fact] != IGNORED).any()
        ]
        return {"loss": torch.stack(losses).mean(), "predictions": torch.stack([s.argmax(-1) for s in logits], dim=1)}


class FrameDataset(Dataset):
    """Single frames of a pool: item i draws its sample, frame and stretch from the seed and from i alone."""

    def __init__(self, samples: Sequence[Sample], vocabulary: dict[str, list[str]], length: int, seed: int):
        self.samples, self.vocabulary, self.length, self.seed = samples, vocabulary, length, seed

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        rng = np.random.default_rng((self.seed, index))
        sample = self.samples[int(rng.integers(len(self.samples)))]
        frame = sample.frames[int(rng.integers(len(sample.frames)))][None]
        stretch = math.sqrt(LARGEST_STRETCH ** rng.uniform(-1, 1))
        patch_size, merge_size = NANO_PROCESSOR["patch_size"], NANO_PROCESSOR["merge_size"]
        tokens = NANO_PROCESSOR["max_frame_tokens"]
        rows, columns = token_grid(
            frame.shape[1] * stretch, frame.shape[2] / stretch, patch_size * merge_size, tokens, tokens
        )
        side = patch_size * merge_size
        pixels = patchify(resize_frames(frame, rows * side, columns * side), patch_size, merge_size)
        # A volume's lesion lies in some slices only, so a single slice cannot answer for it.
        facts = {name: v for name, v in sample.facts.items() if sample.kind == "image" or name in SLICE_FACTS}
        labels = [
            values.index(facts[fact]) if facts.get(fact) in values else IGNORED
            for fact, values in self.vocabulary.items()
        ]
        return {
            "pixel_values": pixels.flatten(0, 2).flatten(1),
            "grid_thw": torch.tensor([1, rows * merge_size, columns * merge_size]),
            "merge_sizes": torch.tensor(merge_size),
            "labels": torch.tensor(labels),
        }


def collate(items: Sequence[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Packs patches of all items behind one another and stacks the rest."""
    batch = {name: torch.stack([item[name] for item in items]) for name in items[0] if name != "pixel_values"}
    return batch | {"pixel_values": torch.cat([item["pixel_values"] for item in items])}


def _accuracy(vocabulary: dict[str, list[str]]):
    def compute(prediction: EvalPrediction) -> dict[str, float]:
        scores = {}
        for fact, name in enumerate(vocabulary):
            known = prediction.label_ids[:, fact] != IGNORED
            if not known.any():
                continue
            right = prediction.predictions[known, fact] == prediction.label_ids[known, fact]
            majority = Counter(prediction.label_ids[known, fact].tolist()).most_common(1)[0][1] / known.sum()
            scores |= {f"{name}_accuracy": float(right.mean()), f"{name}_majority": float(majority)}
        return scores

    return compute


def pretrain(
    config: OmniVMedVisionConfig,
    training: Sequence[Sample],
    held_out: Sequence[Sample],
    folder: Path,
    steps: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
) -> OmniVMedVisionModel:
    """Trains the encoder and returns it; an interrupted run goes on from its last checkpoint in `folder`.

    Accuracy on the held-out samples, beside that of always giving the most frequent value, goes to the log.
    """
    torch.manual_seed(seed)
    vocabulary = fact_vocabulary(training)
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=batch_size,
        per_device_eval_batch_size=64,
        learning_rate=learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=round(0.03 * steps),
        weight_decay=0.05,
        max_grad_norm=1.0,
        bf16=True,
        use_cpu=not torch.cuda.is_available(),
        seed=seed,
        data_seed=seed,
        logging_steps=50,
        save_steps=500,
        save_total_limit=2,
        eval_strategy="steps",
        eval_steps=1000,
        report_to=["tensorboard"],
        label_names=["labels"],
        remove_unused_columns=False,
        dataloader_pin_memory=False,
    )
    trainer = Trainer(
        model=EncoderWithHeads(config, vocabulary),
        args=arguments,
        train_dataset=FrameDataset(training, vocabulary, steps * batch_size, seed),
        eval_dataset=FrameDataset(held_out, vocabulary, 1024, seed + 1),
        data_collator=collate,
        compute_metrics=_accuracy(vocabulary),
    )
    checkpoint = get_last_checkpoint(str(folder)) if folder.exists() else None
    trainer.train(resume_from_checkpoint=checkpoint)
    trainer.save_metrics("eval", trainer.evaluate())
    return trainer.model.vision_model
