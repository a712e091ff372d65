# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Trains small models of several sizes on nested parts of a set, and measures their loss on held-out answers.

The models have the Nano's parts and tokens, but a small language model of their own, and begin with random weights:
how far pre-training has brought SmolLM2, or some of its layers, no number of samples says. A run is stage 3 of the
Nano's recipe (`train.stage`) with all weights trained, without text and described samples, which need a language model
that can write, and one pass over its part of the set, to whose end its learning rate falls.
"""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedTokenizerFast
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from data_engine.files import write_atomically
from data_engine.records import Record, read_jsonl, write_jsonl
from hub_model.configuration_omniv_med import OmniVMedConfig, OmniVMedVisionConfig
from hub_model.modeling_omniv_med import OmniVMedForConditionalGeneration
from hub_model.prompt_omniv_med import MEDIA_TOKEN
from train.checkpoints.assemble import HUB_MODEL, NANO_PROCESSOR, NANO_VISION, start_projector, write_configuration
from train.config import TRAINABLE_PARTS, ConfigError, StageConfig
from train.dataset.conversation_index import ConversationIndex
from train.dataset.conversations import IGNORED, pack
from train.dataset.mixed_dataset import MixedDataset, natural_shares
from train.dataset.prepared_media import MediaCache, to_pixel_values
from train.packed_attention import PACKED, conversations_of
from train.stage import load_model, run_stage

STAGE = Path(__file__).resolve().parents[1] / "configs/nano/stage3.yaml"
RATE_TIMES_WIDTH = 0.384
"""A matrix that is twice as wide wants half of AdamW's rate (Yang et al., arXiv 2203.03466); see `learning_rate`."""
BATCH_SIZE = 4
"""Half of the recipe's conversations in a step, so that short runs have steps enough."""
HEAD_WIDTH = 32
MEASURED = "measured.json"
HELD_OUT = "validation"


@dataclass(frozen=True)
class Size:
    """The shape of a model, whose heads are 32 wide.

    Attributes:
        name: for tables.
        language_width, language_layers: of a Llama-like language model, whose inner layers are three times as wide.
        vision_width, vision_layers: of the encoder, whose inner layers are four times as wide.
    """

    name: str
    language_width: int
    language_layers: int
    vision_width: int
    vision_layers: int


SIZES = (Size("small", 32, 2, 32, 2), Size("middle", 96, 3, 64, 3), Size("large", 192, 5, 128, 4))
CONVERSATIONS = 1600
"""Media with their questions that a whole pass has."""
SHARES = (0.25, 0.5, 1.0)


def learning_rate(size: Size) -> float:
    """The highest rate of all parts of a model, by the width of its language model.

    On a quarter of the samples the small model came to 5.7 nats at 0.002, and to 4.2 at 0.008 and at 0.016; the middle
    one to 3.8 at 0.002 and 3.4 at 0.004 (the first of each pair over 400 held-out conversations, the others over 100).
    """
    return RATE_TIMES_WIDTH / size.language_width


@dataclass(frozen=True)
class Run:
    """One model, one part of the set, one seed of weights, order and dropped tokens."""

    size: Size
    share: float
    seed: int = 0

    @property
    def name(self) -> str:
        return f"{self.size.name}-{self.share:g}-{self.seed}"


@dataclass(frozen=True)
class MeasuredRun:
    """What came of a run.

    Attributes:
        run: its model, part and seed.
        parameters: trained, without the token embeddings.
        embeddings: weights of the token embeddings, which the head shares.
        samples: questions with their answers in the part of the set.
        conversations: media with their questions there.
        steps: of the optimizer.
        cpu_seconds: of training and measuring, since the run was last begun.
        sums: summed cross-entropy of the answers' tokens in each held-out conversation, nats.
        tokens: scored tokens in each.
        stage: the configuration of the stage.
    """

    run: Run
    parameters: int
    embeddings: int
    samples: int
    conversations: int
    steps: int
    cpu_seconds: float
    sums: tuple[float, ...]
    tokens: tuple[int, ...]
    stage: dict[str, Any]

    def write(self, path: Path) -> None:
        """Writes the run, whole or not at all."""
        with write_atomically(path) as part:
            part.write_text(json.dumps(asdict(self)) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> MeasuredRun:
        """Reads what `write` has written."""
        fields = json.loads(path.read_text(encoding="utf-8"))
        run = fields["run"] | {"size": Size(**fields["run"]["size"])}
        lists = {name: tuple(fields[name]) for name in ("sums", "tokens")}
        return cls(**(fields | lists | {"run": Run(**run)}))


def parameter_counts(model: OmniVMedForConditionalGeneration) -> tuple[int, int]:
    """Parameters without and in token embeddings and head, tied ones once.

    The law counts those without (Kaplan et al., arXiv 2001.08361): in models this small a vocabulary of 49,000, of
    which the answers use a few hundred, would be most of the parameters.
    """
    ends = {id(layer.weight): layer.weight for layer in (model.get_input_embeddings(), model.lm_head)}
    inner = sum(one.numel() for one in model.parameters() if id(one) not in ends)
    return inner, sum(one.numel() for one in ends.values())


def random_model(size: Size, seed: int) -> tuple[OmniVMedForConditionalGeneration, PreTrainedTokenizerFast]:
    """A model of random weights, and the Nano's tokenizer."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(HUB_MODEL)
    width = size.language_width
    text = {
        "model_type": "llama",
        "vocab_size": len(tokenizer),
        "hidden_size": width,
        "intermediate_size": 3 * width,
        "num_hidden_layers": size.language_layers,
        "num_attention_heads": width // HEAD_WIDTH,
        "num_key_value_heads": width // HEAD_WIDTH,
        "max_position_embeddings": 8192,
        "tie_word_embeddings": True,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = NANO_VISION | {
        "hidden_size": size.vision_width,
        "intermediate_size": 4 * size.vision_width,
        "num_hidden_layers": size.vision_layers,
        "num_attention_heads": size.vision_width // HEAD_WIDTH,
    }
    torch.manual_seed(seed)
    model = OmniVMedForConditionalGeneration(
        OmniVMedConfig(
            text_config=text,
            vision_config=OmniVMedVisionConfig(**vision),
            image_token_id=tokenizer.convert_tokens_to_ids(MEDIA_TOKEN),
        )
    )
    scale = model.get_input_embeddings().weight.detach().square().mean().sqrt()
    start_projector(model.model.projector, float(scale))
    return model, tokenizer


def write_part(data: Path, folder: Path, conversations: int) -> tuple[int, int]:
    """Makes `folder` a set whose training split is a part of that of `data`; smaller parts lie within larger ones.

    Args:
        data: a set built by `data_engine.build` as JSON Lines.
        conversations: how many media, with all records about them.

    Returns:
        Numbers of records and of media.

    Raises:
        ConfigError: where there are fewer.
    """
    by_media: dict[tuple[str, ...], list[Record]] = {}
    for record in read_jsonl(data / "train.jsonl"):
        by_media.setdefault(tuple(medium.path for medium in record.media), []).append(record)
    if conversations > len(by_media):
        raise ConfigError(f"{data} holds {len(by_media)} media for training, fewer than {conversations}.")
    every = list(by_media.values())
    chosen = [every[place] for place in np.random.default_rng(0).permutation(len(every))[:conversations]]
    folder.mkdir(parents=True, exist_ok=True)
    media = folder / "media"
    if not media.is_symlink():
        media.symlink_to((data / "media").resolve())
    return write_jsonl((record for records in chosen for record in records), folder / "train.jsonl"), len(chosen)


def stage_of(run: Run, folder: Path, part: Path, cache: Path) -> StageConfig:
    """The Nano's stage 3 for a random model that is all trained."""
    base = StageConfig.read(STAGE)
    data = base.data.model_dump() | {
        "folders": (part,),
        "shares": None,
        "text_replay": None,
        "described_pool": None,
        "cache": cache,
    }
    changes = {
        "output": folder / "stage",
        "model": folder / "model",
        "start": None,
        "seed": run.seed,
        "data": data,
        "learning_rates": dict.fromkeys(TRAINABLE_PARTS, learning_rate(run.size)),
        "lora": None,
        "steps": None,
        "epochs": 1.0,
        "batch_size": BATCH_SIZE,
        "evaluation": None,
    }
    return StageConfig.model_validate(base.model_dump() | changes)


@torch.no_grad()
def summed_losses(
    model: OmniVMedForConditionalGeneration, batch: dict[str, torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Summed cross-entropy of the answers' tokens in each conversation of a batch, and how many these are.

    Args:
        batch: as `pack` makes it, media included.

    Returns:
        float32 and int64 (conversations,).
    """
    labels, segments, lengths = batch.pop("labels"), batch.pop("segment_ids"), batch.pop("lengths")
    batch["pixel_values"] = to_pixel_values(batch["pixel_values"])
    hidden = model.model(use_cache=False, conversations=conversations_of(segments[0], lengths), **batch)
    scored = labels != IGNORED
    logits = model.lm_head(hidden.last_hidden_state[scored]).float()
    losses = nn.functional.cross_entropy(logits, labels[scored], reduction="none")
    owners = torch.arange(len(lengths)).repeat_interleave(lengths)[scored[0]]
    sums = torch.zeros(len(lengths)).index_add_(0, owners, losses)
    return sums, torch.bincount(owners, minlength=len(lengths))


def held_out_losses(config: StageConfig, model_folder: Path, data: Path) -> tuple[list[float], list[int]]:
    """What `summed_losses` gives for every held-out conversation, in the same order for every model."""
    model, processor = load_model(config.model_copy(update={"model": model_folder}))
    model.eval().config.text_config._attn_implementation = PACKED
    index = ConversationIndex(
        [data], HELD_OUT, config.data.questions_per_conversation, config.output / "records", config.data.tasks
    )
    held_out = MixedDataset(
        index,
        {},
        natural_shares(index),
        length=len(index),
        seed=0,
        media=MediaCache(processor, config.data.cache, config.data.cache_gigabytes),
        separate=config.data.separate_questions,
        longest=config.data.longest,
    )
    sums: list[float] = []
    tokens: list[int] = []
    for start in range(0, len(held_out), config.batch_size):
        items = [held_out[place] for place in range(start, min(start + config.batch_size, len(held_out)))]
        for item in items:
            item.pop("unreadable")
        found, counts = summed_losses(model, pack(items))
        sums += found.tolist()
        tokens += counts.tolist()
    return sums, tokens


def measured_run(run: Run, data: Path, folder: Path, conversations: int) -> MeasuredRun:
    """Trains and measures; what was measured already is read, and what was interrupted goes on.

    Args:
        data: a built set.
        folder: of all runs.
        conversations: media of the whole pass, of which the run takes its share.

    Raises:
        ConfigError: where the run's folder holds one of another configuration.
    """
    own, part = folder / run.name, folder / f"part-{run.share:g}"
    samples, media = write_part(data, part, round(run.share * conversations))
    config = stage_of(run, own, part, folder / "media_cache")
    stage = config.model_dump(mode="json")
    if (own / MEASURED).exists():
        done = MeasuredRun.read(own / MEASURED)
        if (done.run, done.stage, done.conversations) != (run, stage, media):
            raise ConfigError(f"{own} holds a run of another configuration; choose another --runs, or remove it.")
        return done
    begun = time.process_time()
    model, tokenizer = random_model(run.size, run.seed)
    parameters, embeddings = parameter_counts(model)
    write_configuration(own / "model", model, tokenizer, NANO_PROCESSOR)
    model.save_pretrained(own / "model")
    trained = run_stage(config)
    sums, tokens = held_out_losses(config, trained, data)
    steps = -(-media // (config.batch_size * config.gradient_accumulation))
    measured = MeasuredRun(
        run=run,
        parameters=parameters,
        embeddings=embeddings,
        samples=samples,
        conversations=media,
        steps=steps,
        cpu_seconds=time.process_time() - begun,
        sums=tuple(sums),
        tokens=tuple(tokens),
        stage=stage,
    )
    measured.write(own / MEASURED)
    for left in (own / "model", trained, *config.output.glob(f"{PREFIX_CHECKPOINT_DIR}-*")):
        shutil.rmtree(left)  # gigabytes, all runs together, that nothing needs any more
    return measured
