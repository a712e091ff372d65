# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Pre-trains encoder and projector on the facts of generated samples, without running the language model.

A language model on two CPU cores sees a few images a second, the encoder alone more than a hundred; so the encoder
learns here what there is to see: facts (modality, plane, region, stain, lesion, side, …), by one classifier each, and
where lesions lie, by one more for every patch. The projector is aligned with the language model's input embeddings: a
clip's tokens are scored against the embedding of every possible value, so that afterwards an image reads to the
language model much like a few words. Multiple-instance pooling by
log-sum-exp (Pinheiro and Collobert, arXiv 1411.6228) lets each token express another fact.
At the end the projector alone trains on, until its tokens express little else.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset
from transformers import EvalPrediction, PreTrainedTokenizerFast, Trainer, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from data_engine.phantoms import Sample
from data_engine.phantoms.sample import box_area
from hub_model.modeling_omniv_med import OmniVMedForConditionalGeneration, OmniVMedVisionModel
from hub_model.projector_omniv_med import OmniVMedProjector
from hub_model.visual_processing_omniv_med import patchify, resize_frames, token_grid
from train.checkpoints.assemble import NANO_PROCESSOR
from train.dataset.conversations import IGNORED
from train.dataset.described_samples import fact_vocabulary
from train.nano.muon import MuonWithAdamW
from train.pseudo_visual_tokens import FactEmbeddings
from train.stage import bfloat16_is_fast
from train.trainable_parts import freeze_convolutional_features

LARGEST_STRETCH = 1.35
"""Frames are stretched by up to this factor, so that the encoder meets every token grid that real files lead to."""
LARGEST_GAIN, LARGEST_GAMMA = 0.15, 0.5
"""Contrast and brightness are changed by up to this share of the display range, and bent by a power of two this far."""
AUGMENTED_SHARE = 0.25
"""Share of the clips that are blurred, and that get noise, and margins: each alone, by its own draw."""
SMALLEST_DETAIL, LARGEST_NOISE, SMALLEST_SHARE = 0.4, 0.06, 0.7
"""Resolution that blurring leaves; standard deviation of the noise in pixel values; share of a side within margins."""
SPACING_SHARE = 0.6
"""Share of the samples with millimetres that show them: exported pictures have lost theirs."""
LARGEST_DROP = 0.9
"""In half of the clips, up to this share of the tokens behind the first frame is dropped, as pruning will."""
SIMILARITY_SCALE = 20.0
"""Scale of cosine similarities before the softmax over answers."""
LESION_LOSS_WEIGHT = 10.0
"""Weight of the lesion head's loss: most patches are easily recognised as healthy, so its mean is small."""
UNEXPLAINED_WEIGHT = 2.0
"""Weight of the part of tokens that no true fact explains; from the first step on it kept the encoder from learning."""
RIDGE = 0.05
"""Added to the squared lengths, 1, of the directions, so that two nearly equal ones do not explain their difference."""
HELD_OUT = 1536
"""Samples that accuracy is measured on."""
UNKNOWN = -1.0
"""Share of a patch that lesions cover, where the sample does not say it."""
STRUCTURE = "structure"
"""The name among the facts under which organs and findings stand that are outlined: facts of tokens, not of a clip."""


class EncoderWithHeads(nn.Module):
    """Encoder and projector with their training heads.

    On the encoder, one linear classifier per fact, one that predicts how much of each patch lesions cover, and one that
    names what a token shows; on the projector, the embeddings of the facts.

    Args:
        model: whose vision encoder and projector are trained, in place; its language model gives the embeddings.
        vocabulary: the values of each fact; those of `STRUCTURE` are facts of single tokens.
    """

    def __init__(
        self,
        model: OmniVMedForConditionalGeneration,
        tokenizer: PreTrainedTokenizerFast,
        vocabulary: dict[str, list[str]],
    ):
        super().__init__()
        self.vision_model: OmniVMedVisionModel = model.model.vision_model
        self.projector: OmniVMedProjector = model.model.projector
        self.sizes = [len(values) for values in vocabulary.values()]
        self.fact_heads = nn.Linear(2 * self.vision_model.config.hidden_size, sum(self.sizes))
        self.lesion_head = nn.Linear(self.vision_model.config.hidden_size, NANO_PROCESSOR["merge_size"] ** 2)
        self.fact_embeddings = FactEmbeddings(model.get_input_embeddings(), tokenizer, vocabulary)
        names = list(vocabulary)
        self.structure_columns = slice(0, 0)
        if STRUCTURE in vocabulary:
            first = sum(self.sizes[: names.index(STRUCTURE)])
            self.structure_columns = slice(first, first + len(vocabulary[STRUCTURE]))
            self.structure_head = nn.Linear(self.vision_model.config.hidden_size, len(vocabulary[STRUCTURE]))
        self.projector_only = False

    def train_only_projector(self) -> None:
        """From now on only the projector trains, and its tokens are to express nothing but true facts."""
        self.requires_grad_(False)
        self.projector.requires_grad_(True)
        self.projector_only = True

    def forward(
        self,
        labels: torch.Tensor,
        keep_mask: torch.Tensor,
        lesions: torch.Tensor,
        structures: torch.Tensor,
        **visual: torch.Tensor,
    ) -> dict[str, torch.Tensor]:
        """Mean cross-entropy over all known facts, of classifiers and projector, and the losses of single tokens.

        Args:
            labels: int64 (clips, facts) in the order of the vocabulary, -100 where a clip lacks the fact.
            lesions: float (tokens, patches of a token), share that lesions cover, `UNKNOWN` where a sample lacks it.
            structures: int64 (tokens,), what is outlined there, -100 where nothing is.
            keep_mask, visual: as the encoder takes them.

        Returns:
            `loss`; and in evaluation mode `predictions` int64 (clips, 2, facts): classifiers, projector; and `pointed`
            int64 (clips,): 1 where the patch most like a lesion is one, 0 where it is not, -100 where no lesion is in
            sight (the pointing game, Zhang et al., arXiv 1608.00507); and `named` int64 (tokens,): whether a token's
            nearest structure is the one outlined there, -100 where nothing is.
        """
        # Dropped tokens are not encoded, so that no other token learns to rely on them.
        encoded = self.vision_model(keep_mask=keep_mask, prune_stage="encoder", **visual)
        tokens = encoded.last_hidden_state.float()
        grid, merge = visual["grid_thw"], visual["merge_sizes"]
        clip = torch.repeat_interleave(grid.prod(dim=1) // merge**2)
        counts = torch.zeros(len(grid), dtype=torch.int64, device=clip.device).index_add(0, clip, keep_mask.long())
        pooled = [torch.segment_reduce(tokens, how, lengths=counts) for how in ("mean", "max")]
        classified = self.fact_heads(torch.cat(pooled, dim=-1)).float()
        offsets = self.projector(tokens, grid, merge, keep_mask).float() - self.fact_embeddings.centre
        directions = nn.functional.normalize(offsets, dim=-1)
        similarities = SIMILARITY_SCALE * directions @ self.fact_embeddings.directions.T
        read = torch.segment_reduce(similarities.float().exp(), "sum", lengths=counts).log()
        # Visual tokens keep the norm of text embeddings.
        norm_loss = (offsets.norm(dim=-1) / self.fact_embeddings.embedding_norm - 1).square().mean()
        known = (labels != IGNORED).sum().clamp(min=1)
        facts = [part for logits in (classified, read) for part in logits.split(self.sizes, dim=1)]
        losses = [
            nn.functional.cross_entropy(part, wanted, ignore_index=IGNORED, reduction="sum") / known
            for part, wanted in zip(facts, 2 * labels.unbind(dim=1), strict=True)
        ]
        found, covered = self.lesion_head(tokens).float(), lesions[keep_mask]
        loss = torch.stack(losses).sum() + norm_loss + LESION_LOSS_WEIGHT * _lesion_loss(found, covered)
        outlined, shown = structures[keep_mask], similarities[:, self.structure_columns]
        if (outlined != IGNORED).any():
            loss = loss + sum(
                nn.functional.cross_entropy(logits.float(), outlined, ignore_index=IGNORED)
                for logits in (shown, self.structure_head(tokens))
            )
        if self.projector_only:
            loss = loss + UNEXPLAINED_WEIGHT * self._unexplained_share(directions, labels, counts)
        if self.training:
            return {"loss": loss}
        predictions = torch.stack([part.argmax(dim=-1) for part in facts], dim=1).unflatten(1, (2, -1))
        pointed = _pointing_game(found, covered, counts.tolist())
        named = outlined
        if shown.shape[1]:
            named = torch.where(outlined == IGNORED, IGNORED, (shown.argmax(dim=-1) == outlined).long())
        return {"loss": loss, "predictions": predictions, "pointed": pointed, "named": named}

    def _unexplained_share(self, directions: torch.Tensor, labels: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
        """Mean share of tokens (their squared length, 1) that no mixture of their clip's true facts explains.

        The encoder's own training leaves three quarters of each token to what no text embedding expresses.

        Args:
            directions: (tokens, hidden), of length 1.
            labels: int64 (clips, facts).
            counts: int64 (clips,), tokens of each.
        """
        first = torch.tensor([0, *self.sizes[:-1]], device=labels.device).cumsum(0)
        true = self.fact_embeddings.directions[(labels + first).clamp(min=0)] * (labels != IGNORED)[..., None]
        clip = torch.arange(len(counts), device=counts.device).repeat_interleave(counts)
        gram = true @ true.transpose(1, 2)
        inverse = torch.linalg.inv(gram + RIDGE * torch.eye(gram.shape[1], device=gram.device))
        along = torch.einsum("tfh,th->tf", true[clip], directions)
        return 1 - torch.einsum("tf,tfg,tg->t", along, inverse[clip], along).mean()


def _lesion_loss(found: torch.Tensor, covered: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of what was found in patches whose cover is known; the root lets small lesions count."""
    known = covered != UNKNOWN
    losses = nn.functional.binary_cross_entropy_with_logits(found, covered.clamp(min=0).sqrt(), reduction="none")
    return (losses * known).sum() / known.sum().clamp(min=1)


def _pointing_game(found: torch.Tensor, covered: torch.Tensor, counts: list[int]) -> torch.Tensor:
    """int64 (clips,): whether a lesion lies where a clip looks most like one, -100 where it shows none."""
    hits = [
        int(there.flatten()[likely.argmax()] > 0) if (there > 0).any() else IGNORED
        for likely, there in zip(found.split(counts), covered.split(counts), strict=True)
    ]
    return torch.tensor(hits, device=found.device)


class SampleDataset(Dataset):
    """Images, volumes and videos of a pool: item i draws sample, stretch and looks from the seed and from i alone.

    Args:
        clips: share of volumes and videos; the rest are images.
        sizing: the processor's options that say how many tokens a frame has.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        vocabulary: dict[str, list[str]],
        length: int,
        seed: int,
        clips: float,
        sizing: Mapping[str, float] = NANO_PROCESSOR,
    ):
        self.samples, self.length, self.seed, self.clips, self.sizing = samples, length, seed, clips, sizing
        self.numbers = {fact: {value: i for i, value in enumerate(values)} for fact, values in vocabulary.items()}
        self.structures = self.numbers.get(STRUCTURE, {})
        kinds = [samples[index].kind for index in range(len(samples))]
        self.members = {moving: [i for i, kind in enumerate(kinds) if (kind != "image") == moving] for moving in (0, 1)}

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        rng = np.random.default_rng((self.seed, index))
        members = self.members[bool(self.members[1]) and bool(rng.random() < self.clips)]
        sample = self.samples[members[int(rng.integers(len(members)))]]
        chosen = shown_frames(sample)
        frames, positions = sample.frames[chosen], sample.positions[chosen]
        rows_mm, columns_mm = sample.pixel_spacing if rng.random() < SPACING_SHARE else (0.0, 0.0)
        stretch = math.sqrt(LARGEST_STRETCH ** rng.uniform(-1, 1) * (rows_mm / columns_mm if columns_mm else 1.0))
        patch_size, merge_size = self.sizing["patch_size"], self.sizing["merge_size"]
        tokens = self.sizing["max_frame_tokens"]
        if sample.kind != "image":
            tokens = self.sizing.get("clip_frame_tokens") or tokens
        height, width = frames.shape[1:3]
        side = patch_size * merge_size
        rows, columns = token_grid(height * stretch, width / stretch, side, tokens, tokens)
        share = rng.uniform(SMALLEST_SHARE, 1) if rng.random() < AUGMENTED_SHARE else 1.0
        height_shown, width_shown = round(rows * side * share), round(columns * side * share)
        top = int(rng.integers(rows * side - height_shown + 1))
        left = int(rng.integers(columns * side - width_shown + 1))
        margins = (left, columns * side - width_shown - left, top, rows * side - height_shown - top)
        picture = nn.functional.pad(vary(frames, height_shown, width_shown, rng), margins, value=-1.0)
        pixels = patchify(picture, patch_size, merge_size)
        covered = torch.full((len(frames) * rows * columns, merge_size**2), UNKNOWN)
        if sample.lesions is not None:
            maps = torch.from_numpy(sample.lesions[chosen]).float()[:, None] / 255
            maps = nn.functional.pad(nn.functional.interpolate(maps, (height_shown, width_shown)), margins)
            patches = nn.functional.avg_pool2d(maps, patch_size).view(-1, rows, merge_size, columns, merge_size)
            covered = patches.transpose(2, 3).reshape(len(covered), -1)
        across = ((np.arange(columns) + 0.5) * side - left) / width_shown
        down = ((np.arange(rows) + 0.5) * side - top) / height_shown
        structures = np.full((rows, columns), IGNORED)
        # Smaller boxes come last, so that they lie over the larger ones that hold them.
        for name, box in sorted(sample.structures, key=lambda one: -box_area(one[1])):
            inside = (down >= box[1]) & (down < box[3]), (across >= box[0]) & (across < box[2])
            structures[np.ix_(*inside)] = self.structures.get(name, IGNORED)
        keep_mask = torch.ones(len(frames), rows * columns, dtype=torch.bool)
        if rng.random() < 0.5:
            drawn = rng.random((len(frames) - 1, rows * columns)) >= rng.uniform(0, LARGEST_DROP)
            keep_mask[1:] = torch.from_numpy(drawn)
        spacing = 0.0
        if sample.kind != "video" and rows_mm > 0:
            spacing = math.sqrt(height * rows_mm * width * columns_mm / (rows * columns)) / merge_size / share
        return {
            "pixel_values": pixels.flatten(0, 2).flatten(1),
            "grid_thw": torch.tensor([[len(frames), rows * merge_size, columns * merge_size]]),
            "merge_sizes": torch.tensor([merge_size]),
            "keep_mask": keep_mask.flatten(),
            "frame_positions": torch.from_numpy(positions).float(),
            "patch_spacing": torch.tensor([spacing]),
            "lesions": covered,
            "structures": torch.from_numpy(structures.flatten()).repeat(len(frames)),
            "labels": torch.tensor([[n.get(sample.facts.get(fact), IGNORED) for fact, n in self.numbers.items()]]),
        }


def vary(frames: np.ndarray, height: int, width: int, rng: np.random.Generator) -> torch.Tensor:
    """Frames as another machine or export might have shown them: other tones, sharpness and noise.

    Args:
        frames: uint8 (T, H, W, 3).
        height, width: of the result, in pixels.

    Returns:
        float32 (T, 3, height, width) in [-1, 1].
    """
    if rng.random() < AUGMENTED_SHARE:
        detail = rng.uniform(SMALLEST_DETAIL, 1)
        coarse = resize_frames(frames, math.ceil(height * detail), math.ceil(width * detail))
        picture = nn.functional.interpolate(coarse, (height, width), mode="bilinear")
    else:
        picture = resize_frames(frames, height, width)
    share_of_range = picture.add_(1).div_(2).clamp_(0, 1)
    picture = share_of_range.pow_(2 ** rng.uniform(-LARGEST_GAMMA, LARGEST_GAMMA)).mul_(2).sub_(1)
    gain, offset = 1 + rng.uniform(-LARGEST_GAIN, LARGEST_GAIN), rng.uniform(-LARGEST_GAIN, LARGEST_GAIN)
    picture = picture.mul_(gain).add_(offset)
    if rng.random() < AUGMENTED_SHARE:
        noise = rng.standard_normal(picture.shape, dtype=np.float32) * rng.uniform(0, LARGEST_NOISE)
        picture = picture.add_(torch.from_numpy(noise))
    return picture.clamp_(-1, 1)


def shown_frames(sample: Sample) -> np.ndarray:
    """Indices of the frames that the processor would take: all of a volume, a video at the Nano's rate."""
    if sample.kind != "video":
        return np.arange(len(sample.frames))
    wanted = np.arange(sample.positions[0], sample.positions[-1] + 1e-6, 1 / NANO_PROCESSOR["fps"])
    return np.unique(np.abs(sample.positions[None] - wanted[:, None]).argmin(axis=1))


def collate(items: Sequence[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Packs all items behind one another."""
    return {name: torch.cat([item[name] for item in items]) for name in items[0]}


class PretrainingTrainer(Trainer):
    """The Trainer with Muon on the matrices of encoder layers and projector, AdamW on the rest."""

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        if self.optimizer is None:
            learner = model or self.model
            inner = [*learner.vision_model.encoder.parameters(), *learner.projector.parameters()]
            matrices = {id(p): p for p in inner if p.ndim == 2 and p.requires_grad}
            others = [p for p in learner.parameters() if p.requires_grad and id(p) not in matrices]
            self.optimizer = MuonWithAdamW(matrices.values(), others, self.args.learning_rate, self.args.weight_decay)
        return self.optimizer


def _accuracy(vocabulary: dict[str, list[str]]):
    def compute(prediction: EvalPrediction) -> dict[str, float]:
        predictions, pointed, named = prediction.predictions
        scores = {}
        if (named != IGNORED).any():
            scores["structure_named"] = float(named[named != IGNORED].mean())
        if (pointed != IGNORED).any():
            scores["pointing_game"] = float(pointed[pointed != IGNORED].mean())
        for fact, name in enumerate(vocabulary):
            known = prediction.label_ids[:, fact] != IGNORED
            if not known.any():
                continue
            labels = prediction.label_ids[known, fact]
            for way, predicted in zip(("classified", "read"), predictions[known, :, fact].T, strict=True):
                scores[f"{name}_{way}"] = float((predicted == labels).mean())
            scores[f"{name}_majority"] = Counter(labels.tolist()).most_common(1)[0][1] / len(labels)
        return scores

    return compute


@dataclass(frozen=True)
class PretrainConfig:
    """What `train/configs/nano/pretrain.yaml` says about the training itself.

    Attributes:
        seed: of weights and of what is drawn.
        steps: optimizer steps of encoder and projector.
        projector_steps: of the projector alone, after them; 0 leaves them out.
        batch_size: samples in a step.
        workers: processes that make the samples ready.
        learning_rate: AdamW's peak rate (see `MuonWithAdamW`), cosine, 3 % warm-up.
        clips: share of volumes and videos among the samples.
        checkpoint_every: steps from one checkpoint to the next.
    """

    seed: int
    steps: int
    projector_steps: int
    batch_size: int
    workers: int
    learning_rate: float
    clips: float
    checkpoint_every: int = 250


def pretrain(
    model: OmniVMedForConditionalGeneration,
    tokenizer: PreTrainedTokenizerFast,
    training: Sequence[Sample],
    held_out: Sequence[Sample],
    folder: Path,
    config: PretrainConfig,
    sizing: Mapping[str, float] = NANO_PROCESSOR,
) -> None:
    """Trains encoder and projector of `model` in place; an interrupted run goes on from its checkpoint in `folder`.

    Accuracy on the held-out samples, beside that of always giving the most frequent value, goes to the log. The
    weights of convolutional features stay as they are, but for what leads from them to the embeddings: until that has
    learned to read them, its gradients would spoil what photographs taught (Kumar et al., arXiv 2202.10054).
    """
    torch.manual_seed(config.seed)
    vocabulary = fact_vocabulary(sample.facts for sample in training)
    if structures := sorted({name for sample in training for name, _ in sample.structures}):
        vocabulary[STRUCTURE] = structures
    vision_config = model.model.vision_model.config
    attention = vision_config._attn_implementation
    if not torch.cuda.is_available():
        model.model.vision_model.set_attn_implementation("eager")  # its backward pass is the faster one on CPUs
    learner = EncoderWithHeads(model, tokenizer, vocabulary)
    freeze_convolutional_features(learner.vision_model)
    for part, steps, seed in (
        ("encoder", config.steps, config.seed),
        ("projector", config.projector_steps, config.seed + 2),
    ):
        if not steps:
            continue
        if part == "projector":
            learner.train_only_projector()
        trainer = PretrainingTrainer(
            model=learner,
            args=_arguments(folder / part, steps, config),
            train_dataset=SampleDataset(training, vocabulary, steps * config.batch_size, seed, config.clips, sizing),
            eval_dataset=SampleDataset(
                held_out, vocabulary, min(HELD_OUT, len(held_out)), config.seed + 1, config.clips, sizing
            ),
            data_collator=collate,
            compute_metrics=_accuracy(vocabulary),
        )
        checkpoint = get_last_checkpoint(str(folder / part)) if (folder / part).exists() else None
        trainer.train(resume_from_checkpoint=checkpoint)
        trainer.save_metrics("eval", trainer.evaluate())
    model.model.vision_model.set_attn_implementation(attention)


def _arguments(folder: Path, steps: int, config: PretrainConfig) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=config.batch_size,
        per_device_eval_batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=round(0.03 * steps),
        weight_decay=0.05,
        max_grad_norm=1.0,
        bf16=bfloat16_is_fast(),
        use_cpu=not torch.cuda.is_available(),
        seed=config.seed,
        data_seed=config.seed,
        dataloader_num_workers=config.workers,
        logging_steps=50,
        save_steps=config.checkpoint_every,
        save_total_limit=2,
        eval_strategy="steps",
        eval_steps=1000,
        report_to=["tensorboard"],
        label_names=["labels"],
        remove_unused_columns=False,
        dataloader_pin_memory=False,
    )
