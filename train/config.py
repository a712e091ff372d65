# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""What one stage of the recipe trains, on what, and how: one YAML file in `train/configs`.

Paths are relative to the folder the command is run in, as a rule the repository's root.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from data_engine.files import YamlError, read_yaml
from data_engine.records import Strict, Task
from hub_model.configuration_omniv_med import PruneStage
from hub_model.processing_omniv_med import VISUAL_OPTIONS
from hub_model.token_pruning_omniv_med import check_rule
from train.dataset.mixed_dataset import DESCRIBED, STRATA, TEXT

TRAINABLE_PARTS = ("encoder", "projector", "language", "embeddings")
LINEAR_LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
NANO = "nano"


class ConfigError(ValueError):
    """A configuration that cannot be followed, in one sentence that says what to change."""


class DataConfig(Strict):
    """What is trained on.

    Attributes:
        folders: sets built by `data_engine.build`.
        shares: of "2d", "3d", "video", "text" and "described" in every batch; they add up to 1. None takes those of the
            sets.
        tasks: records of other tasks are left out; None takes all.
        languages: records in other languages are left out; None takes all.
        passes: source -> how often conversations with a record of it come while others come once.
        questions_per_conversation: records about the same media that are joined at most, which saves encoding these.
        separate_questions: joined questions do not see each other, as if each was asked alone.
        vary_pictures: pictures are turned, moved, magnified, toned and noisy a little, anew each time
            (`picture_variation`).
        prune_pictures: share of the conversations whose pictures are pruned by the rule "spatial", whatever the rule of
            volumes and videos, so that the model knows both.
        question_endings: share of the questions with a short answer that end in a request for one (`question_endings`).
        text_replay: where the language model's own answers are kept, which "text" replays; written if missing.
        described_pool: pool of generated samples (`data_engine.pool`), whose facts replace images in "described".
        cache: folder that keeps media once they are read and pruned; None reads them again every time.
        cache_gigabytes: how much it may hold.
        longest: tokens of a conversation at most; longer ones are skipped and counted.
        workers: processes that read ahead, on every device; 0 reads between steps.
    """

    folders: tuple[Path, ...] = Field(min_length=1)
    shares: dict[str, float] | None = None
    tasks: tuple[Task, ...] | None = None
    languages: tuple[str, ...] | None = None
    passes: dict[str, Annotated[int, Field(ge=1, le=100)]] = Field(default_factory=dict)
    questions_per_conversation: int = Field(default=3, ge=1)
    separate_questions: bool = True
    vary_pictures: bool = False
    prune_pictures: float = Field(default=0.0, ge=0, le=1)
    question_endings: float = Field(default=0.0, ge=0, le=1)
    text_replay: Path | None = None
    described_pool: Path | None = None
    cache: Path | None = None
    cache_gigabytes: float = Field(default=20.0, gt=0)
    longest: int = Field(default=4096, ge=1)
    workers: int = Field(default=0, ge=0)

    @field_validator("shares")
    @classmethod
    def _add_up(cls, shares: dict[str, float] | None) -> dict[str, float] | None:
        if shares is None:
            return None
        if unknown := shares.keys() - set(STRATA):
            raise ValueError(f"unknown share {sorted(unknown)}; known are {', '.join(STRATA)}")
        if min(shares.values(), default=0) < 0 or abs(sum(shares.values()) - 1) > 1e-6:
            raise ValueError("shares must be at least 0 and add up to 1")
        return shares

    @model_validator(mode="after")
    def _knows_where_text_is(self) -> DataConfig:
        if (self.shares or {}).get(TEXT, 0) > 0 and self.text_replay is None:
            raise ValueError("a share of text needs text_replay, the file that keeps the language model's answers")
        if (self.shares or {}).get(DESCRIBED, 0) > 0 and self.described_pool is None:
            raise ValueError("a share of described needs described_pool, the folder of a pool of generated samples")
        return self


class LoraSettings(Strict):
    """Low-rank factors in the place of the language model's own weights (Hu et al., arXiv 2106.09685).

    Attributes:
        rank: of the factors.
        targets: names of the linear layers that get them.
    """

    rank: int = Field(ge=1)
    targets: tuple[str, ...] = LINEAR_LAYERS


class EvaluationConfig(Strict):
    """The loss on the validation split while training.

    Attributes:
        records: conversations it is taken over, always the same ones.
        every: steps from one evaluation to the next.
    """

    records: int = Field(ge=1)
    every: int = Field(ge=1)


class StageConfig(Strict):
    """One stage.

    Attributes:
        output: folder of the run: checkpoints, logs, figure, and in the end `trained.safetensors`, or the folder
            `model` where the language model was trained in full.
        model: a folder that `from_pretrained` loads, or "nano", which is SmolLM2 with a fresh encoder and projector.
        start: trained tensors to begin with, of the stage before or of pre-training; None begins with the model.
        seed: of the order of the data and of fresh weights.
        learning_rates: highest rate of "encoder", "projector", "language" and "embeddings"; 0 freezes the part.
        freeze_convolutional_features: the convolutional network beside the patches stays as it is, but for the maps
            that lead from it to their embeddings.
        lora: None trains the language model in full, if its rate is above 0.
        steps: optimizer steps.
        epochs: in place of steps, how often as many conversations as there are have been drawn.
        batch_size: conversations on one device in one pass; they are packed behind one another, so nothing is padded.
        gradient_accumulation: passes in one step.
        drop_visual_tokens: share of the visual tokens that is dropped at random at most; readies for pruning.
        pruning: the processor's visual options while training.
        prune_stage: "encoder" leaves pruned tokens out of the encoder too, "language" only out of the prompt.
        warmup: share of the steps in which the rates rise; then they fall as a cosine does.
        clip_gradients: largest norm of all gradients together.
        gradient_checkpointing: computes activations again in the backward pass instead of keeping them.
        bf16: computes in bfloat16; None does where the device is made for it.
        attention: backend of the language model, "sdpa", "eager" or "flash_attention_2".
        evaluation: None evaluates never.
        checkpoint_every, log_every: steps from one to the next.
    """

    output: Path
    model: Path | Literal["nano"]
    data: DataConfig
    learning_rates: dict[str, float]
    start: Path | None = None
    seed: int = 0
    freeze_convolutional_features: bool = False
    lora: LoraSettings | None = None
    steps: int | None = Field(default=None, ge=1)
    epochs: float | None = Field(default=None, gt=0)
    batch_size: int = Field(default=8, ge=1)
    gradient_accumulation: int = Field(default=1, ge=1)
    drop_visual_tokens: float = Field(default=0.0, ge=0, lt=1)
    pruning: dict[str, float | int | str | None] = Field(default_factory=dict)
    prune_stage: PruneStage = "language"
    warmup: float = Field(default=0.03, ge=0, lt=1)
    clip_gradients: float = Field(default=1.0, gt=0)
    gradient_checkpointing: bool = False
    bf16: bool | None = None
    attention: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"
    evaluation: EvaluationConfig | None = None
    checkpoint_every: int = Field(default=100, ge=1)
    log_every: int = Field(default=10, ge=1)

    @field_validator("learning_rates")
    @classmethod
    def _names_all_parts(cls, rates: dict[str, float]) -> dict[str, float]:
        if rates.keys() != set(TRAINABLE_PARTS):
            raise ValueError(f"learning_rates needs one number each for {', '.join(TRAINABLE_PARTS)}")
        if min(rates.values()) < 0 or max(rates.values()) == 0:
            raise ValueError("learning rates must be at least 0, and one of them above it, or nothing is trained")
        return rates

    @field_validator("pruning")
    @classmethod
    def _knows_the_options(cls, pruning: dict[str, Any]) -> dict[str, Any]:
        if unknown := pruning.keys() - set(VISUAL_OPTIONS):
            raise ValueError(f"unknown pruning {sorted(unknown)}; known are {', '.join(VISUAL_OPTIONS)}")
        if "prune_rule" in pruning:
            check_rule(pruning["prune_rule"])
        return pruning

    @model_validator(mode="after")
    def _fits_together(self) -> StageConfig:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("give either steps or epochs")
        if self.attention == "flash_attention_2" and self.data.separate_questions:
            raise ValueError("flash_attention_2 cannot keep questions apart; set data.separate_questions: false")
        return self

    @property
    def trains_language_model_in_full(self) -> bool:
        """Whether the language model's own weights move."""
        return self.lora is None and self.learning_rates["language"] > 0

    @classmethod
    def read(cls, path: Path, changes: Sequence[str] = ()) -> StageConfig:
        """Reads a YAML file.

        Args:
            changes: "name=value" or "name.name=value", values in YAML, that go before the file.

        Raises:
            ConfigError: a file that is not there, or holds or lacks what it should not.
        """
        try:
            fields = read_yaml(path)
            for change in changes:
                name, equals, value = change.partition("=")
                if not equals:
                    raise ConfigError(f"A change is written name=value, not {change!r}.")
                *parents, last = name.split(".")
                place = fields
                for parent in parents:
                    place = place.setdefault(parent, {})
                place[last] = yaml.safe_load(value)
            return cls.model_validate(fields)
        except YamlError as error:
            raise ConfigError(str(error)) from None
        except yaml.YAMLError:
            raise ConfigError(f"The value of the change {change!r} is not YAML.") from None
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "configuration"
            if first["type"] == "extra_forbidden":
                known = ", ".join(sorted(_fields_of(cls, first["loc"][:-1])))
                raise ConfigError(f"{path}: the field {where} is not known; known are {known}.") from None
            raise ConfigError(f"{path}: {where}: {first['msg'].removeprefix('Value error, ')}.") from None


def _fields_of(model: type[BaseModel], place: tuple[int | str, ...]) -> set[str]:
    """The names that a nested part of the configuration may hold."""
    nested: dict[int | str, type[BaseModel]] = {
        "data": DataConfig,
        "lora": LoraSettings,
        "evaluation": EvaluationConfig,
    }
    return set((nested[place[0]] if place and place[0] in nested else model).model_fields)
