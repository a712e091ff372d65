# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""One stage of the three-stage recipe (OmniV-Med, arXiv 2504.14692, section 4) on transformers' Trainer.

Stage 1 aligns the projector on captions, stage 2 instructs on 2D images, stage 3 on 2D, 3D and video mixed. What a
stage does is all in its configuration; see `train.config.StageConfig`.
"""

from __future__ import annotations

import json
import logging
import math
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env
from safetensors.torch import load_file, save_file
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
from transformers import PreTrainedTokenizerFast, Trainer, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_callback import ExportableState, TrainerCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from hub_model.configuration_omniv_med import OmniVMedConfig
from hub_model.modeling_omniv_med import OmniVMedForConditionalGeneration
from hub_model.number_format_omniv_med import preferred_dtype
from hub_model.processing_omniv_med import OmniVMedProcessor
from hub_model.prompt_omniv_med import MEDIA_TOKEN
from train.checkpoints.assemble import (
    ADDED_TOKENS,
    HUB_MODEL,
    NANO_PROCESSOR,
    fresh_nano,
    processor_options,
    write_configuration,
)
from train.config import NANO, TRAINABLE_PARTS, ConfigError, StageConfig
from train.conversation_loss import ConversationLoss
from train.dataset.conversation_index import ConversationIndex
from train.dataset.conversations import Conversation, pack
from train.dataset.described_samples import DescribedConversations
from train.dataset.mixed_dataset import DESCRIBED, TEXT, MixedDataset, natural_shares
from train.dataset.prepared_media import MediaCache
from train.dataset.text_replay import replay_conversations
from train.loss_figure import draw_loss
from train.packed_attention import PACKED
from train.pseudo_visual_tokens import FactEmbeddings
from train.trainable_parts import export_trained, keep_frozen_weights_in_bfloat16, part_of, prepare_trainable_parts

logger = logging.getLogger(__name__)

TRAINED_FILE, MODEL_FOLDER, FIGURE, CONFIG_FILE = "trained.safetensors", "model", "loss.png", "stage.json"
CHECKPOINT_FILE = "trainable.safetensors"
CHANGES_NOTHING = {
    "checkpoint_every": True,
    "log_every": True,
    "evaluation": True,
    "data": {"cache", "cache_gigabytes", "workers"},
}
"""Fields that may differ when a run goes on: what is trained does not depend on them."""
UNREADABLE_LOGGED = 20
"""Unreadable records whose reasons a run logs; it only counts the others."""


@dataclass
class Stage:
    """All that a stage needs to run: model, processor, data, and the embeddings of described facts."""

    model: OmniVMedForConditionalGeneration
    processor: OmniVMedProcessor
    training: MixedDataset
    validation: MixedDataset | None
    steps: int
    fact_embeddings: FactEmbeddings | None = None


def load_model(config: StageConfig) -> tuple[OmniVMedForConditionalGeneration, OmniVMedProcessor]:
    """The model a stage begins with, float32, and its processor."""
    if config.model == NANO:
        model, tokenizer = fresh_nano(prune_stage=config.prune_stage)
        template = (HUB_MODEL / "chat_template.jinja").read_text(encoding="utf-8")
        processor = OmniVMedProcessor(tokenizer, chat_template=template, **NANO_PROCESSOR)
    else:
        if not (Path(config.model) / "config.json").is_file():
            raise ConfigError(
                f"{config.model} is no folder of a model; make one with python -m train.checkpoints.assemble."
            )
        settings = OmniVMedConfig.from_pretrained(config.model)
        settings.vision_config.prune_stage = config.prune_stage  # before there is a model, and saved with it
        model = OmniVMedForConditionalGeneration.from_pretrained(config.model, config=settings, dtype=torch.float32)
        # Without this the tokenizer asks on the terminal whether it may read the folder's configuration.
        processor = OmniVMedProcessor.from_pretrained(config.model, trust_remote_code=True)
    model.config.text_config._attn_implementation = config.attention
    for option, value in config.pruning.items():
        setattr(processor, option, value)
    return model, processor


def added_tokens(tokenizer: PreTrainedTokenizerFast, vocabulary: int) -> int:
    """How many of the last embeddings belong to the added tokens; some models know a few of these already.

    None do in a converted model, whose placeholder stands among tokens that it was trained with.
    """
    known = tokenizer.get_vocab()
    if MEDIA_TOKEN not in known:
        raise ConfigError(f"The model's tokenizer lacks {MEDIA_TOKEN}; assemble or convert the model again.")
    ids = {known[token] for token in ADDED_TOKENS if token in known}
    count = 0
    while vocabulary - 1 - count in ids:
        count += 1
    return count


def process_state() -> PartialState:
    """This process among those that share a step; without a GPU, accelerate must be told so to see the others."""
    return PartialState(cpu=not torch.cuda.is_available())


def processes() -> int:
    """How many devices share a step."""
    return process_state().num_processes


def build_stage(config: StageConfig) -> Stage:
    """Loads model and data.

    Raises:
        ValueError: for anything that does not fit together, in one sentence.
    """
    data = config.data
    with process_state().main_process_first():
        model, processor = load_model(config)
        # The replayed answers are those of the language model before any training, so they come before the start.
        in_memory: dict[str, Sequence[Conversation]] = {}
        shares, fact_embeddings = data.shares or {}, None
        if shares.get(TEXT, 0) > 0:
            in_memory[TEXT] = replay_conversations(model.eval(), processor, data.text_replay)
        if shares.get(DESCRIBED, 0) > 0:
            described = DescribedConversations(data.described_pool, config.seed)
            in_memory[DESCRIBED] = described
            fact_embeddings = FactEmbeddings(model.get_input_embeddings(), processor.tokenizer, described.vocabulary)
        scratch = config.output / "records"
        questions = data.questions_per_conversation
        index = ConversationIndex(data.folders, "train", questions, scratch, data.tasks, data.languages, data.passes)
        held_out = None
        if config.evaluation is not None:
            held_out = ConversationIndex(data.folders, "validation", questions, scratch, data.tasks, data.languages)
    if config.attention == "sdpa":  # not before the replay: it generates from padded rows, which "packed" does not mask
        model.config.text_config._attn_implementation = PACKED
    prepare_trainable_parts(
        model, config, added_tokens(processor.tokenizer, model.get_input_embeddings().num_embeddings)
    )
    if config.gradient_checkpointing:
        model.gradient_checkpointing_enable()

    step_items = config.batch_size * config.gradient_accumulation * processes()
    steps = config.steps or math.ceil(config.epochs * int(index.passes.sum()) / step_items)
    media = MediaCache(processor, data.cache, data.cache_gigabytes)
    common = {"media": media, "longest": data.longest, "separate": data.separate_questions}
    training = MixedDataset(
        index,
        in_memory,
        data.shares or natural_shares(index),
        length=steps * step_items,
        seed=config.seed,
        drop_rate=config.drop_visual_tokens,
        vary_pictures=data.vary_pictures,
        question_endings=data.question_endings,
        prune_pictures=data.prune_pictures,
        **common,
    )
    validation = None
    if held_out is not None:
        records = min(config.evaluation.records, len(held_out))
        validation = MixedDataset(held_out, {}, natural_shares(held_out), length=records, seed=0, **common)
    return Stage(model, processor, training, validation, steps, fact_embeddings)


class UnreadableRecords(TrainerCallback, ExportableState):
    """Counts the records that were passed over, from the first step of the run on, whatever interrupted it."""

    def __init__(self, count: int = 0):
        self.count = count

    def add(self, records: list[tuple[str, str]]) -> None:
        """Counts records, and logs the first of them."""
        for name, reason in records:
            self.count += 1
            if self.count <= UNREADABLE_LOGGED:
                logger.warning("Skipped record %s: %s", name, reason)

    def state(self) -> dict[str, Any]:
        return {"args": {"count": self.count}, "attributes": {}}


def collate(items: list[dict[str, Any]]) -> dict[str, Any]:
    """A batch that also says which records were passed over on the way to it."""
    unreadable = [record for item in items for record in item.pop("unreadable")]
    return pack(items) | {"unreadable": unreadable}


class StageTrainer(Trainer):
    """The Trainer with a learning rate per part, checkpoints of trained parts, and its speed in the log."""

    def __init__(self, *args, config: StageConfig, **kwargs):
        self.stage_config = config
        super().__init__(*args, **kwargs)
        self.add_callback(UnreadableRecords())
        self.conversations_seen, self.tokens_seen, self.last_log = 0, 0, time.monotonic()

    @property
    def unreadable(self) -> UnreadableRecords:
        """The count, which the Trainer makes anew when it goes on from a checkpoint."""
        return next(one for one in self.callback_handler.callbacks if isinstance(one, UnreadableRecords))

    def _get_learning_rate(self) -> float:
        return max(self.lr_scheduler.get_last_lr())

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """AdamW with one parameter group for each trained part, no weight decay."""
        if self.optimizer is None:
            named = [(n, p) for n, p in (model or self.model).named_parameters() if p.requires_grad]
            rates = self.stage_config.learning_rates
            groups = [
                {"params": [p for n, p in named if part_of(n) == part], "lr": rates[part]} for part in TRAINABLE_PARTS
            ]
            self.optimizer = torch.optim.AdamW(
                [group for group in groups if group["params"]], weight_decay=0.0, fused=True
            )
        return self.optimizer

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """The model's own loss, exact over all passes and devices of a step."""
        self.unreadable.add(inputs.pop("unreadable", []))
        if model.training:
            self.conversations_seen += self.args.per_device_train_batch_size * self.args.world_size
            self.tokens_seen += inputs["input_ids"].numel() * self.args.world_size
        return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds the speed since the last time and the number of records that were passed over."""
        if "loss" in logs:
            seconds = max(time.monotonic() - self.last_log, 1e-9)
            logs["conversations_per_second"] = self.conversations_seen / seconds
            logs["tokens_per_second"] = self.tokens_seen / seconds
            logs["unreadable_records"] = self.unreadable.count
        super().log(logs, start_time)
        self.conversations_seen, self.tokens_seen, self.last_log = 0, 0, time.monotonic()

    def _save_checkpoint(self, model, trial) -> None:
        super()._save_checkpoint(model, trial)
        if self.is_world_process_zero() and self.state.global_step < self.state.max_steps:  # the last comes at the end
            draw_loss(self.state.log_history, Path(self.args.output_dir) / FIGURE)

    def _save(self, output_dir: str | None = None, state_dict: Mapping[str, torch.Tensor] | None = None) -> None:
        """Writes the trained tensors, on the first process alone: under FSDP2 the others are handed an empty state."""
        if not self.args.should_save:
            return
        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        trained = self._trained_names()
        state = state_dict if state_dict is not None else dict(self.model.named_parameters())
        save_file({n: t.detach().contiguous() for n, t in state.items() if n in trained}, folder / CHECKPOINT_FILE)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        path = Path(resume_from_checkpoint) / CHECKPOINT_FILE
        state = load_file(path)
        if missing := self._trained_names() - state.keys():
            raise ConfigError(
                f"{path} lacks {len(missing)} of the trained tensors, such as {min(missing)}, so the run cannot go on "
                f"from it. Remove {path.parent}; the run then goes on from the checkpoint before it."
            )
        load_trained(model or self.model, state)

    def _trained_names(self) -> set[str]:
        return {name for name, parameter in self.model.named_parameters() if parameter.requires_grad}


def load_trained(model: nn.Module, state: dict[str, torch.Tensor]) -> None:
    """Copies whole tensors into a model, which may be wrapped or sharded, in place; all processes take part."""
    set_model_state_dict(model, state, options=StateDictOptions(full_state_dict=True, strict=False))


def is_fsdp_asked() -> bool:
    """Whether `accelerate launch` was told to shard the model."""
    return parse_flag_from_env("ACCELERATE_USE_FSDP")


def bfloat16_is_fast() -> bool:
    """Whether the device has instructions for bfloat16."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return preferred_dtype() is torch.bfloat16


def build_trainer(stage: Stage, config: StageConfig) -> StageTrainer:
    """The Trainer of a stage."""
    bf16 = bfloat16_is_fast() if config.bf16 is None else config.bf16
    if bf16 and not config.trains_language_model_in_full:
        keep_frozen_weights_in_bfloat16(stage.model)
    if not torch.cuda.is_available():
        stage.model.model.vision_model.set_attn_implementation("eager")  # its backward pass is the faster one on CPUs
    evaluation = config.evaluation
    arguments = TrainingArguments(
        output_dir=str(config.output),
        max_steps=stage.steps,
        per_device_train_batch_size=config.batch_size,
        per_device_eval_batch_size=config.batch_size,
        gradient_accumulation_steps=config.gradient_accumulation,
        learning_rate=max(config.learning_rates.values()),
        lr_scheduler_type="cosine",
        warmup_steps=round(config.warmup * stage.steps),
        max_grad_norm=config.clip_gradients,
        bf16=bf16,
        use_cpu=not torch.cuda.is_available(),
        seed=config.seed,
        data_seed=config.seed,
        train_sampling_strategy="sequential",
        dataloader_num_workers=config.data.workers,
        dataloader_pin_memory=torch.cuda.is_available(),
        logging_steps=config.log_every,
        logging_first_step=True,
        save_steps=config.checkpoint_every,
        save_total_limit=2,
        eval_strategy="no" if evaluation is None else "steps",
        eval_steps=None if evaluation is None else evaluation.every,
        prediction_loss_only=True,
        report_to=["tensorboard"],
        label_names=["labels"],
        remove_unused_columns=False,
        restore_callback_states_from_checkpoint=True,
        # FSDP2 would otherwise keep whole gradients, in bfloat16, until the last pass of a step: 16 GB for 8 · 10⁹
        # weights, and sums of rounded numbers.
        accelerator_config={"gradient_accumulation_kwargs": {"sync_each_batch": True}} if is_fsdp_asked() else None,
        ddp_find_unused_parameters=False,  # text alone passes by the encoder too, see ConversationLoss
    )
    return StageTrainer(
        model=ConversationLoss(stage.model, stage.fact_embeddings),
        args=arguments,
        train_dataset=stage.training,
        eval_dataset=stage.validation,
        data_collator=collate,
        config=config,
    )


def last_whole_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that was written to its end: a killed run leaves the last one without its state."""
    found = []
    for checkpoint in folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*"):
        try:
            state = json.loads((checkpoint / TRAINER_STATE_NAME).read_text(encoding="utf-8"))
            found.append((state["global_step"], checkpoint))
        except (OSError, ValueError):
            continue
    return max(found, default=(0, None))[1]


def remember(config: StageConfig) -> None:
    """Keeps the configuration beside the run.

    Raises:
        ConfigError: where the folder holds a run of another one, which must not be gone on with.
    """
    path = config.output / CONFIG_FILE
    if path.exists():
        kept = StageConfig.model_validate_json(path.read_text(encoding="utf-8"))
        if kept.model_dump(exclude=CHANGES_NOTHING) != config.model_dump(exclude=CHANGES_NOTHING):
            raise ConfigError(
                f"{config.output} holds a run of another configuration; choose another `output`, or remove that folder."
            )
    config.output.mkdir(parents=True, exist_ok=True)
    path.write_text(config.model_dump_json(indent=1), encoding="utf-8")


def finished(config: StageConfig) -> Path | None:
    """What a stage left when it was done: a file of trained tensors, or a folder with a model."""
    left = [config.output / TRAINED_FILE, config.output / MODEL_FOLDER / "model.safetensors"]
    return next((one if one.name == TRAINED_FILE else one.parent for one in left if one.exists()), None)


def run_stage(config: StageConfig) -> Path:
    """Trains one stage; an interrupted run goes on from its last checkpoint, and a finished one is left alone.

    Returns:
        The file of trained tensors, or the folder of the model where the language model was trained in full.

    Raises:
        ValueError: for anything that cannot be done as it is asked for, in one sentence.
    """
    with process_state().main_process_first():
        remember(config)
    if (result := finished(config)) is not None:
        print(f"{config.output} is finished; its result is {result}.")
        return result
    torch.manual_seed(config.seed)
    stage = build_stage(config)
    trainer = build_trainer(stage, config)
    checkpoint = last_whole_checkpoint(config.output)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if stage.validation is not None:
        trainer.evaluate()
    result = write_result(trainer, stage, config)
    if trainer.is_world_process_zero():
        draw_loss(trainer.state.log_history, config.output / FIGURE)
        broken = stage.training.index.broken
        print(
            f"{config.output}: {stage.steps} steps, {trainer.unreadable.count} conversations with unreadable media and "
            f"{broken} broken lines skipped; trained: {result}, losses: {config.output / FIGURE}."
        )
    return result


def write_result(trainer: StageTrainer, stage: Stage, config: StageConfig) -> Path:
    """Writes what was trained, see `run_stage`; all processes take part."""
    state = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    in_full = config.trains_language_model_in_full
    result = config.output / (MODEL_FOLDER if in_full else TRAINED_FILE)
    if not trainer.is_world_process_zero():
        return result
    state = {name.removeprefix("model."): tensor for name, tensor in state.items()}
    if not in_full:
        export_trained(state, result)
        return result
    # Gathered from shards, tied weights no longer share their memory, and would be written twice.
    state = {name: tensor for name, tensor in state.items() if name not in stage.model.all_tied_weights_keys}
    part = result.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    processor = stage.processor
    template = processor.chat_template
    write_configuration(part, stage.model, processor.tokenizer, processor_options(processor), template)
    stage.model.save_pretrained(part, state_dict=state)
    part.replace(result)
    return result
