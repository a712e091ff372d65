# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Whether a stage fits its devices, before any is rented.

    python -m train.memory.plan --config train/configs/1.5b/stage3.yaml --devices 8 --device-memory 24GB

For each strategy a table says what one device holds at the worst moment of a step: weights, gradients, optimizer
states, what is gathered from or sent to other devices, and activations; then whether it fits, and what to change.
Weights are counted on the real model on the meta device, activations by the formula below, for a batch in which every
conversation is as long as the stage allows. `--measure` runs the same step on fake tensors beside it
(`train.memory.measurement`), which needs no memory and about a minute.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from data_engine.tables import markdown_table
from hub_model.configuration_omniv_med import OmniVMedConfig, OmniVMedVisionConfig
from hub_model.modeling_omniv_med import OmniVMedForConditionalGeneration
from train.config import ConfigError, StageConfig
from train.conversation_loss import POSITIONS_AT_ONCE, ConversationLoss
from train.dataset.conversations import IGNORED, SHARED
from train.packed_attention import PACKED
from train.trainable_parts import keep_frozen_weights_in_bfloat16, prepare_trainable_parts

ROOT = Path(__file__).resolve().parents[2]
STRATEGIES = ("ddp", "fsdp2", "zero2", "zero3")
UNITS = {"GB": 10**9, "GIB": 2**30, "MB": 10**6, "MIB": 2**20}
ARCHITECTURE = "model.json"

ADDED_TOKENS = 3
TEXT_TOKENS = 256
SCORED_TOKENS = 128
"""Of a conversation: labels, questions and answers together, and what of them is scored."""
QUESTIONS = 3
PATCHES_PER_STEP = 16384
"""Patches that the encoder takes at once on a GPU, see `max_patches_per_step`."""

RESERVED_BYTES, RESERVED_SHARE = 1_500_000_000, 0.05
"""Assumed and not computed: CUDA context, NCCL and kernel workspaces; and what the allocator loses to fragments."""


@dataclass(frozen=True)
class PlannedBatch:
    """The largest batch of a stage on one device.

    Attributes:
        conversations, length: how many, and tokens in each.
        visual: kept visual tokens in each.
        scored: tokens with a label in each.
        frames, frame_tokens: of the medium in each; before pruning.
        merge: patches along a side of a token.
        separate: questions do not see each other, so attention takes a mask.
    """

    conversations: int
    length: int
    visual: int
    scored: int
    frames: int
    frame_tokens: int
    merge: int
    separate: bool

    @property
    def positions(self) -> int:
        """Tokens of the packed row."""
        return self.conversations * self.length

    @property
    def patches(self) -> int:
        """Patches of all media."""
        return self.conversations * self.frames * self.frame_tokens * self.merge**2

    @classmethod
    def of(cls, stage: StageConfig, architecture: dict[str, Any]) -> PlannedBatch:
        """The largest media and conversations that the stage lets in; one image each where there are only images."""
        options = {"max_visual_tokens": None} | architecture["processor"] | stage.pruning
        shares = stage.data.shares  # without any, the data decide, and may hold volumes
        images_only = shares is not None and not any(shares.get(kind, 0) for kind in ("3d", "video"))
        frames = 1 if images_only else options["max_frames"]
        frame_tokens = options["max_frame_tokens"]
        if not images_only:
            frame_tokens = options.get("clip_frame_tokens") or frame_tokens
        visual = min(frames * frame_tokens, options["max_visual_tokens"] or sys.maxsize)
        length = min(stage.data.longest, visual + TEXT_TOKENS)
        return cls(
            conversations=stage.batch_size,
            length=length,
            visual=min(visual, max(length - TEXT_TOKENS, 1)),
            scored=min(SCORED_TOKENS, length - 1),
            frames=frames,
            frame_tokens=frame_tokens,
            merge=options["merge_size"],
            separate=stage.data.separate_questions,
        )

    def tensors(self, image_token_id: int, patch_values: int) -> dict[str, torch.Tensor]:
        """The batch as `train.dataset.conversations.pack` makes it, with the pixels on the meta device."""
        rows = math.isqrt(self.frame_tokens)
        count = self.conversations
        ids = torch.zeros(self.length, dtype=torch.long)
        ids[: self.visual] = image_token_id
        labels = torch.full((self.length,), IGNORED)
        labels[-self.scored - 1 : -1] = 0
        segment_ids = torch.full((self.length,), SHARED)
        if self.separate:
            text = self.length - self.visual
            segment_ids[self.visual :] = 1 + torch.arange(text) * QUESTIONS // text
        keep = torch.zeros(self.frames * rows * (self.frame_tokens // rows), dtype=torch.bool)
        keep[: self.visual] = True
        grid = [self.frames, self.merge * rows, self.merge * (self.frame_tokens // rows)]
        return {
            "input_ids": ids.repeat(count)[None],
            "labels": labels.repeat(count)[None],
            "segment_ids": segment_ids.repeat(count)[None],
            "position_ids": torch.arange(self.length).repeat(count)[None],
            "lengths": torch.full((count,), self.length),
            "pixel_values": torch.empty(self.patches, patch_values, dtype=torch.uint8, device="meta"),
            "grid_thw": torch.tensor([grid] * count),
            "merge_sizes": torch.full((count,), self.merge),
            "keep_mask": keep.repeat(count),
            "frame_positions": torch.arange(self.frames).float().repeat(count),
            "patch_spacing": torch.zeros(count),
        }


def model_config(architecture: dict[str, Any]) -> OmniVMedConfig:
    """The model's configuration, its encoder stepping as on a GPU."""
    vision = OmniVMedVisionConfig(**architecture["vision_config"] | {"max_patches_per_step": PATCHES_PER_STEP})
    return OmniVMedConfig(text_config=architecture["text_config"], vision_config=vision, image_token_id=1)


def build_module(architecture: dict[str, Any], stage: StageConfig) -> ConversationLoss:
    """The stage's model as `train.stage` prepares it for training in bfloat16, on the current device, untrained."""
    model = OmniVMedForConditionalGeneration(model_config(architecture))
    model.config.text_config._attn_implementation = PACKED if stage.attention == "sdpa" else stage.attention
    prepare_trainable_parts(model, stage.model_copy(update={"start": None}), ADDED_TOKENS)
    if not stage.trains_language_model_in_full:
        keep_frozen_weights_in_bfloat16(model)
    if stage.gradient_checkpointing:
        model.gradient_checkpointing_enable()
    return ConversationLoss(model).train()


@dataclass(frozen=True)
class ParameterCounts:
    """Numbers of parameters of a stage's model, tied ones once.

    Attributes:
        all, trained: of the model.
        frozen_bytes: bytes of those that are not trained.
        cast: trained weights of linear layers, of which autocast makes copies.
        root, root_trained: outside of the layers that are sharded by themselves.
        language_layer, encoder_layer: of the largest layer, and what of it is trained.
        vocabulary: of the embedding matrix; 0 where it is frozen.
        tied: whether the head shares it.
    """

    all: int
    trained: int
    frozen_bytes: int
    cast: int
    root: int
    root_trained: int
    language_layer: tuple[int, int]
    encoder_layer: tuple[int, int]
    vocabulary: int
    tied: bool

    @classmethod
    def of(cls, module: ConversationLoss) -> ParameterCounts:
        parameters = list(module.parameters())
        layers = [layer for layer in module.modules() if type(layer).__name__ in module._no_split_modules]
        sizes = [(type(layer).__name__.startswith("OmniVMed"), _sizes(layer)) for layer in layers]
        inside = {id(parameter) for layer in layers for parameter in layer.parameters()}
        root = [parameter for parameter in parameters if id(parameter) not in inside]
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        linear = {id(m.weight) for m in module.modules() if isinstance(m, nn.Linear) and m.weight.requires_grad}
        embedding, head = module.model.get_input_embeddings().weight, module.model.lm_head.weight
        return cls(
            all=_count(parameters),
            trained=_count(trained),
            frozen_bytes=sum(p.numel() * p.itemsize for p in parameters if not p.requires_grad),
            cast=_count(parameter for parameter in trained if id(parameter) in linear),
            root=_count(root),
            root_trained=_count(parameter for parameter in root if parameter.requires_grad),
            language_layer=max(size for is_encoder, size in sizes if not is_encoder),
            encoder_layer=max(size for is_encoder, size in sizes if is_encoder),
            vocabulary=embedding.numel() if embedding.requires_grad else 0,
            tied=embedding is head,
        )


def _count(parameters: Iterable[nn.Parameter]) -> int:
    return sum(parameter.numel() for parameter in parameters)


def _sizes(layer: nn.Module) -> tuple[int, int]:
    """Numbers of all parameters and of the trained ones."""
    return _count(layer.parameters()), _count(one for one in layer.parameters() if one.requires_grad)


@dataclass(frozen=True)
class Activations:
    """Bytes of one device that a step's tensors need, by when they are needed.

    The numbers of bytes per token and width are those of the modules' own tensors: bfloat16 products (2 bytes), norms
    and rotations in float32 (4 bytes). Where a layer is computed again, its input alone is kept.

    Attributes:
        media: pixels, as grey levels and as numbers, and the merged tokens that are kept.
        encoder_kept, language_kept: from the forward to the backward pass.
        encoder_layer, language_layer: while one layer is computed forwards and backwards.
        projector: kept of projector and embeddings.
        masks: which positions see which, and that as numbers where questions are separate.
        logits: of the positions scored at once, with their gradients.
    """

    media: int
    encoder_kept: int
    encoder_layer: int
    projector: int
    language_kept: int
    language_layer: int
    masks: int
    logits: int

    @classmethod
    def of(cls, module: ConversationLoss, batch: PlannedBatch, stage: StageConfig, strategy: str) -> Activations:
        config = module.model.config
        vision, text = config.vision_config, config.text_config
        recomputed = stage.gradient_checkpointing
        width, inner = vision.hidden_size, vision.intermediate_size
        patch_values = vision.num_channels * vision.patch_size**2
        encoder_trained = any(parameter.requires_grad for parameter in module.model.model.vision_model.parameters())
        at_once = min(batch.patches, PATCHES_PER_STEP)
        visual = batch.conversations * batch.visual
        media = batch.patches * patch_values * (7 if encoder_trained else 5) + visual * width * 8
        kept_of_layer = 2 * width if recomputed else 4 * inner + 18 * width
        encoder_kept = encoder_layer = 0
        if encoder_trained:
            encoder_kept = vision.num_hidden_layers * batch.patches * kept_of_layer
            encoder_layer = at_once * ((4 * inner if recomputed else inner) + (24 if recomputed else 6) * width)
            encoder_layer += visual * width * 4  # the gradient of the merged tokens
        else:
            encoder_layer = at_once * (4 * inner + 16 * width)

        hidden, inner = text.hidden_size, text.intermediate_size
        shared = text.num_key_value_heads * hidden // text.num_attention_heads
        # Under autocast the residual stream has the float32 of the weights, unless these are frozen and halved; FSDP2
        # and DeepSpeed hand each layer its input in bfloat16.
        is_wide = strategy == "ddp" and stage.trains_language_model_in_full
        stream, norms = (4, 34) if is_wide else (2, 20)
        of_layer = 8 * inner + norms * hidden + 4 * shared
        language_kept = text.num_hidden_layers * batch.positions * (stream * hidden if recomputed else of_layer)
        backward = 4 * inner + 4 * hidden
        return cls(
            media=media,
            encoder_kept=encoder_kept,
            encoder_layer=encoder_layer,
            projector=visual * (2 * width + 4 * hidden) + batch.positions * hidden * 2,
            language_kept=language_kept,
            language_layer=batch.positions * (backward + (of_layer if recomputed else 0)),
            masks=(batch.conversations + (2 if batch.separate else 0)) * batch.length**2,
            logits=min(batch.conversations * batch.scored, POSITIONS_AT_ONCE) * text.vocab_size * 12,
        )


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes of one device at the worst moment of a step."""

    strategy: str
    weights: int
    gradients: int
    optimizer: int
    gathered: int
    activations: int
    worst_moment: str

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.gathered + self.activations

    @property
    def with_reserve(self) -> int:
        """The total with what is assumed for context, libraries and fragments."""
        return int(self.total * (1 + RESERVED_SHARE)) + RESERVED_BYTES


def plan(module: ConversationLoss, batch: PlannedBatch, stage: StageConfig, strategy: str, devices: int) -> MemoryPlan:
    """What one of the devices needs.

    Gradients are taken to lie there all the time, as they do while several passes are accumulated.
    """
    counts = ParameterCounts.of(module)
    needs = Activations.of(module, batch, stage, strategy)
    share = 1 if strategy == "ddp" else devices
    weights, gradients, optimizer = _persistent(counts, strategy, share)
    copies = 4 if strategy == "ddp" else 2
    vocabulary_gradient = counts.vocabulary * copies
    kept = needs.media + needs.encoder_kept + needs.projector + needs.language_kept + needs.masks
    casts = 2 * counts.cast if strategy == "ddp" else 0
    casts_kept = 0 if stage.gradient_checkpointing else casts
    # Of a tied matrix the gradients of head and embedding are held apart until both are known, then added.
    ends = (3 if counts.tied else 2) * vocabulary_gradient
    if strategy == "fsdp2":
        ends = max(ends, 2 * counts.root_trained)
    fixed, language, encoder = _gathered(counts, strategy)
    moments = {
        "loss": (fixed, kept + needs.logits + casts + vocabulary_gradient),
        "backward pass of the language model": (
            fixed + language,
            kept + needs.language_layer + vocabulary_gradient + casts_kept,
        ),
        "backward pass of the encoder": (
            fixed + encoder,
            needs.media + needs.encoder_kept + needs.encoder_layer + vocabulary_gradient + casts_kept,
        ),
        "gradients of the embeddings": (fixed, ends),
        # DeepSpeed turns its share of the gradients into float32 for the step.
        "optimizer step": (fixed, 4 * counts.trained // share if strategy.startswith("zero") else 0),
    }
    worst = max(moments, key=lambda name: sum(moments[name]))
    gathered, activations = moments[worst]
    return MemoryPlan(strategy, weights, gradients, optimizer, gathered, activations, worst)


def _persistent(counts: ParameterCounts, strategy: str, share: int) -> tuple[int, int, int]:
    """Bytes of weights, gradients and optimizer states: AdamW on float32, or on DeepSpeed's float32 copy of bf16."""
    if strategy in ("ddp", "fsdp2"):
        weights = 4 * counts.trained + counts.frozen_bytes
        return weights // share, 4 * counts.trained // share, 8 * counts.trained // share
    weights = 2 * counts.all // (share if strategy == "zero3" else 1)
    return weights, 2 * counts.trained // share, 12 * counts.trained // share


def _gathered(counts: ParameterCounts, strategy: str) -> tuple[int, int, int]:
    """Bytes of buffers for other devices: all the time, and while a language or an encoder layer is at work."""
    if strategy == "ddp":
        return 4 * counts.trained, 0, 0  # DistributedDataParallel's buckets hold every gradient once more
    if strategy == "fsdp2":
        # The layer at work, the next one on its way, and the gradients of one before they are reduced; in bfloat16.
        layers = [4 * size + 2 * trained for size, trained in (counts.language_layer, counts.encoder_layer)]
        return 2 * counts.root, *layers
    settings = json.loads((ROOT / f"train/configs/accelerate/deepspeed_{strategy}.json").read_text(encoding="utf-8"))
    settings = settings["zero_optimization"]
    buckets = 2 * 2 * settings["reduce_bucket_size"]  # bfloat16, one filling while one is sent
    if strategy == "zero2":
        return buckets + 2 * settings["allgather_bucket_size"], 0, 0
    live = settings["stage3_max_live_parameters"] + settings["stage3_prefetch_bucket_size"]
    return buckets + 2 * min(live, counts.all), 0, 0


def advice(stage: StageConfig, batch: PlannedBatch, strategy: str) -> list[str]:
    """What would make a stage fit that does not, most helpful first."""
    changes = []
    if not stage.gradient_checkpointing:
        changes.append("gradient_checkpointing: true")
    if strategy == "ddp":
        changes.append("--strategy fsdp2 (train/configs/accelerate/fsdp2.yaml)")
    elif strategy == "zero2":
        changes.append("--strategy zero3 or fsdp2")
    if batch.conversations > 1:
        changes.append(f"batch_size: {batch.conversations // 2} with twice the gradient_accumulation")
    if stage.trains_language_model_in_full:
        changes.append("lora: {rank: 64}")
    changes.append(f"data.longest: {stage.data.longest // 2}, or a smaller pruning.max_frames")
    return changes


def read_architecture(config: Path) -> dict[str, Any]:
    """The model's shapes from the file beside a stage's configuration.

    Raises:
        ConfigError: where there is none.
    """
    path = config.parent / ARCHITECTURE
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise ConfigError(f"{path} is missing; it gives text_config, vision_config and processor.") from None


def memory_size(text: str) -> int:
    """Bytes of "24GB" (10⁹ each) or "80GiB" (2³⁰ each)."""
    match = re.fullmatch(r"\s*([\d.]+)\s*([A-Za-z]+)\s*", text)
    if match is None or match[2].upper() not in UNITS:
        raise argparse.ArgumentTypeError(f"write memory as 24GB or 24GiB, not {text!r}")
    return int(float(match[1]) * UNITS[match[2].upper()])


def plan_stage(
    config: Path, strategies: Sequence[str], devices: int, device_memory: int, measure: bool
) -> list[dict[str, Any]]:
    """Plans one stage under each strategy; see `main` for the fields."""
    stage, architecture = StageConfig.read(config), read_architecture(config)
    batch = PlannedBatch.of(stage, architecture)
    with torch.device("meta"):
        module = build_module(architecture, stage)
    rows = []
    for strategy in strategies:
        found = plan(module, batch, stage, strategy, devices)
        fits = found.with_reserve <= device_memory
        row = {
            "config": str(config),
            "devices": devices,
            "device_memory": device_memory,
            **asdict(found),
            "total": found.total,
            "with_reserve": found.with_reserve,
            "fits": fits,
            "change": [] if fits else advice(stage, batch, strategy),
            "batch": asdict(batch),
            "parameters": asdict(ParameterCounts.of(module)),
        }
        if measure and strategy in ("ddp", "fsdp2"):
            row["measured"] = _measured(architecture, stage, batch, strategy, devices)
        rows.append(row)
    return rows


def _measured(
    architecture: dict[str, Any], stage: StageConfig, batch: PlannedBatch, strategy: str, devices: int
) -> dict[str, Any]:
    from train.memory.measurement import measure_step  # PyTorch's testing tools, which planning alone does not need

    tensors = batch.tensors(1, model_config(architecture).vision_config.patch_size ** 2 * 3)
    return asdict(measure_step(lambda: build_module(architecture, stage), tensors, devices, strategy == "fsdp2"))


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The plan as Markdown, in GB of 10⁹ bytes."""
    names = ("weights", "gradients", "optimizer", "gathered", "activations", "total", "with_reserve")
    measured = any("measured" in row for row in rows)
    header = ["stage", "strategy", *names, *(["measured"] if measured else []), "fits", "worst moment"]
    lines = []
    for row in rows:
        config = Path(row["config"])
        line = [f"{config.parent.name} {config.stem}", row["strategy"], *(f"{row[name] / 1e9:.1f}" for name in names)]
        if measured:
            line.append(f"{row['measured']['total'] / 1e9:.1f}" if "measured" in row else "–")
        lines.append([*line, "yes" if row["fits"] else "no", row["worst_moment"]])
    return markdown_table(header, lines)


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Writes the plans; those of other stages, devices or strategies that the file holds already stay in it."""
    key = ("config", "strategy", "devices", "device_memory")
    old = json.loads(path.read_text(encoding="utf-8"))["plans"] if path.exists() else []
    new = {tuple(row[name] for name in key) for row in rows}
    kept = [row for row in old if tuple(row[name] for name in key) not in new]
    report = {"command": "python -m train.memory.plan", "torch": torch.__version__, "plans": [*kept, *rows]}
    path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, nargs="+", required=True, help="YAML files of stages")
    parser.add_argument("--devices", type=int, default=8, help="devices that share a step (default 8)")
    parser.add_argument("--device-memory", type=memory_size, required=True, help="of each, such as 24GB or 80GiB")
    parser.add_argument("--strategy", nargs="+", choices=STRATEGIES, default=STRATEGIES, help="default: all")
    parser.add_argument("--measure", action="store_true", help="also run ddp and fsdp2 on fake tensors (minutes)")
    parser.add_argument("--json", type=Path, help="where the plans are written, beside those it holds already")
    arguments = parser.parse_args()
    if arguments.devices < 1:
        parser.error("--devices must be at least 1")
    rows = []
    try:
        for config in arguments.config:
            rows += plan_stage(
                config, arguments.strategy, arguments.devices, arguments.device_memory, arguments.measure
            )
    except ValueError as error:
        sys.exit(f"Error: {error}")
    print(table(rows))
    for row in rows:
        if not row["fits"]:
            print(f"\n{row['config']} with {row['strategy']} does not fit. Any of: " + "; ".join(row["change"]))
    if arguments.json:
        write_rows(arguments.json, rows)


if __name__ == "__main__":
    main()
