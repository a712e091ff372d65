# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""One stage of the three-stage recipe (OmniV-Med, arXiv 2504.14692, section 4) on transformers' Trainer.

Stage 1 aligns the projector on captions, stage 2 instructs on 2D images, stage 3 on 2D, 3D and video mixed. A stage
trains the encoder, the projector, LoRA factors of the language model and the rows of the added tokens, each with its
own learning rate; a rate of zero freezes the part.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import yaml
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import Trainer, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from hub_model.modeling_omniv_med import OmniVMedForConditionalGeneration
from hub_model.processing_omniv_med import VISUAL_OPTIONS, OmniVMedProcessor
from train.data.conversations import IGNORED, ConversationCollator, ConversationDataset, Mixture
from train.trained_tensors import (
    LORA_A,
    LORA_B,
    TRAINED_PARTS,
    load_parts,
    read_trained_tensors,
    save_trained_tensors,
)

LORA_SCALING = 2
LORA_TARGETS = r"model\.language_model\..*\.(q_proj|v_proj)"
PEFT_PREFIX = "base_model.model."
CHECKPOINT_FILE = "trainable.safetensors"
PART_OF_NAME = {
    "vision_model.": "encoder",
    "projector.": "projector",
    "lora_": "language",
    "trainable_tokens_": "embeddings",
}


@dataclass(frozen=True)
class StageConfig:
    """One YAML file in `train/configs`.

    Attributes:
        seed: of data order and weights.
        steps, batch_size: optimizer steps, and conversations in each.
        learning_rates: peak rate of "encoder", "projector", "language" and "embeddings"; 0 freezes the part.
        lora_rank: rank of the LoRA factors.
        mixture: what is drawn, see `Mixture`.
        pruning: the processor's visual options while training.
        checkpoint_steps: steps from one checkpoint to the next; what an interrupted run may lose at most.
    """

    seed: int
    steps: int
    batch_size: int
    learning_rates: dict[str, float]
    lora_rank: int
    mixture: Mixture
    pruning: dict[str, float | int | str]
    checkpoint_steps: int = 100

    @classmethod
    def read(cls, path: Path) -> StageConfig:
        """Reads a YAML file; an unknown or missing field raises TypeError, an unknown option ValueError."""
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        for name, known in (("pruning", VISUAL_OPTIONS), ("learning_rates", PART_OF_NAME.values())):
            if unknown := values[name].keys() - set(known):
                raise ValueError(f"{path}: unknown {name} {sorted(unknown)}; known are {', '.join(known)}.")
        return cls(**{**values, "mixture": Mixture(**values["mixture"])})


def part_of(name: str) -> str | None:
    """Which trained part a parameter belongs to; None for the language model's own weights."""
    return next((part for marker, part in PART_OF_NAME.items() if marker in name), None)


def with_lora(
    model: OmniVMedForConditionalGeneration, rank: int, added_tokens: list[int], start: Path | None
) -> PeftModel:
    """Wraps the language model's query and value projections in LoRA and makes the added embedding rows trainable.

    Args:
        model: changed in place.
        added_tokens: ids of the added tokens, the last rows of the embeddings.
        start: trained tensors of the stage before; None starts the factors afresh.

    Raises:
        ValueError: when the tensors were made for another architecture.
    """
    tensors = read_trained_tensors(start)[0] if start is not None else {}
    if start is not None:
        load_parts(model, tensors)
    config = LoraConfig(
        r=rank,
        lora_alpha=LORA_SCALING * rank,
        target_modules=LORA_TARGETS,
        trainable_token_indices={"embed_tokens": added_tokens},
    )
    wrapped = get_peft_model(model, config)
    factors = {
        f"{PEFT_PREFIX}{name}.default.weight": tensor
        for name, tensor in tensors.items()
        if name.endswith((LORA_A, LORA_B))
    }
    if wrapped.load_state_dict(factors, strict=False).unexpected_keys:
        raise ValueError(f"{start} holds LoRA factors of other modules than this language model has; train again.")
    return wrapped


def export_trained(model: PeftModel, path: Path) -> None:
    """Writes what was trained, under the names of the plain model, for the next stage and for assembly."""
    state = {name.removeprefix(PEFT_PREFIX): tensor for name, tensor in model.state_dict().items()}
    parts = {name: tensor for name, tensor in state.items() if name.startswith(TRAINED_PARTS)}
    lora = {
        name.removesuffix(".default.weight"): tensor
        for name, tensor in state.items()
        if name.endswith((f"{LORA_A}.default.weight", f"{LORA_B}.default.weight"))
    }
    rows = next(tensor for name, tensor in state.items() if name.endswith("trainable_tokens_delta.default"))
    save_trained_tensors(path, parts, lora, rows, LORA_SCALING)


class StageTrainer(Trainer):
    """The Trainer with a learning rate per part, a loss on scored positions only, and checkpoints of trained parts."""

    def __init__(self, *args, learning_rates: dict[str, float], **kwargs):
        self.learning_rates = learning_rates
        super().__init__(*args, **kwargs)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """AdamW with one parameter group for each trained part, no weight decay."""
        groups = [
            {"params": [p for n, p in self.model.named_parameters() if p.requires_grad and part_of(n) == part], "lr": r}
            for part, r in self.learning_rates.items()
            if r > 0
        ]
        self.optimizer = torch.optim.AdamW(groups, weight_decay=0.0)
        return self.optimizer

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """Cross-entropy of the answers.

        Only scored positions are projected onto the vocabulary: with 49,000 words and short answers that saves a
        fifth of all arithmetic and most of the memory of the logits.
        """
        labels = inputs["labels"][:, 1:]
        full = self.accelerator.unwrap_model(model).get_base_model()
        hidden = full.model(**{name: value for name, value in inputs.items() if name != "labels"}).last_hidden_state
        scored = labels != IGNORED
        logits = full.lm_head(hidden[:, :-1][scored]).float()
        loss = nn.functional.cross_entropy(logits, labels[scored])
        return (loss, {"logits": logits}) if return_outputs else loss

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        trained = {n: p.detach().contiguous() for n, p in self.model.named_parameters() if p.requires_grad}
        save_file(trained, folder / CHECKPOINT_FILE)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        self.model.load_state_dict(load_file(Path(resume_from_checkpoint) / CHECKPOINT_FILE), strict=False)


def run_stage(model: PeftModel, processor: OmniVMedProcessor, data: dict, config: StageConfig, folder: Path) -> None:
    """Trains one stage in place; an interrupted run goes on from its last checkpoint in `folder`.

    Args:
        model: with LoRA, holding the result of the stage before.
        data: `samples` and `texts`, as `ConversationDataset` takes them.
    """
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(config.learning_rates.get(part_of(name), 0.0) > 0)
    for option, value in config.pruning.items():
        setattr(processor, option, value)
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=config.steps,
        per_device_train_batch_size=config.batch_size,
        learning_rate=max(config.learning_rates.values()),
        lr_scheduler_type="cosine",
        warmup_steps=max(round(0.03 * config.steps), 1),
        max_grad_norm=1.0,
        bf16=True,
        use_cpu=not torch.cuda.is_available(),
        seed=config.seed,
        data_seed=config.seed,
        logging_steps=10,
        save_steps=config.checkpoint_steps,
        save_total_limit=2,
        report_to=["tensorboard"],
        label_names=["labels"],
        remove_unused_columns=False,
        dataloader_pin_memory=False,
    )
    length = config.steps * config.batch_size
    trainer = StageTrainer(
        model=model,
        args=arguments,
        train_dataset=ConversationDataset(
            mixture=config.mixture, processor=processor, length=length, seed=config.seed, **data
        ),
        data_collator=ConversationCollator(processor.tokenizer.pad_token_id),
        learning_rates=config.learning_rates,
    )
    checkpoint = get_last_checkpoint(str(folder)) if folder.exists() else None
    trainer.train(resume_from_checkpoint=checkpoint)
