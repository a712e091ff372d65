# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""A seeded pool of generated samples on disk, so that training reads instead of generating the same phantoms again.

Sample i of a pool depends on the seed and on i alone. The pool is written in shards by several processes, can be
stopped at any moment and goes on where it stopped.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, overload

import numpy as np
from tqdm import tqdm

from data_engine.files import write_atomically
from data_engine.phantoms import KINDS_OF, LESION_GRID, MODALITIES, Sample, generate
from hub_model.media_omniv_med import Clip

SHARD_SIZE = 250
FORMAT = 3
"""Of the shards and of what the generators draw, which a plan does not say: another number refuses older pools."""
SHARDS = "shard-?????.npz"
NO_MAP = np.zeros((0, LESION_GRID, LESION_GRID), np.uint8)


@dataclass(frozen=True)
class PoolPlan:
    """What a pool holds.

    Attributes:
        seed: of all samples.
        images, clips: number of single images, and of volumes and videos; modalities take turns in each.
        modalities: those that the pool holds.
    """

    seed: int
    images: int
    clips: int
    modalities: tuple[str, ...] = MODALITIES

    def kind_of(self, index: int) -> tuple[str, str]:
        """Modality and kind of sample `index`; images come first."""
        if index < self.images:
            return self.modalities[index % len(self.modalities)], "image"
        moving = [(name, kind) for name in self.modalities for kind in KINDS_OF[name] if kind != "image"]
        return moving[(index - self.images) % len(moving)]

    def __len__(self) -> int:
        return self.images + self.clips


def make_sample(plan: PoolPlan, index: int) -> Sample:
    """Sample `index` of a plan, generated afresh."""
    modality, kind = plan.kind_of(index)
    return generate(modality, kind, np.random.default_rng((plan.seed, index)))


def _shard_path(folder: Path, shard: int) -> Path:
    return folder / f"shard-{shard:05d}.npz"


def _write_shard(arguments: tuple[Path, PoolPlan, int]) -> None:
    folder, plan, shard = arguments
    indices = range(shard * SHARD_SIZE, min((shard + 1) * SHARD_SIZE, len(plan)))
    samples = [make_sample(plan, index) for index in indices]
    described = [
        {
            "shape": sample.frames.shape,
            "kind": sample.kind,
            "positions": sample.positions.tolist(),
            "pixel_spacing": sample.pixel_spacing,
            "facts": sample.facts,
            "shows_lesions": sample.lesions is not None,
        }
        for sample in samples
    ]
    path = _shard_path(folder, shard)
    pixels = np.concatenate([sample.frames.reshape(-1) for sample in samples])
    lesions = np.concatenate([NO_MAP, *(sample.lesions for sample in samples if sample.lesions is not None)])
    with write_atomically(path) as part, part.open("wb") as file:
        np.savez(file, pixels=pixels, lesions=lesions, described=np.array(json.dumps(described)))


def build_pool(folder: Path, plan: PoolPlan, processes: int) -> None:
    """Writes the shards that are missing, with a progress bar.

    Raises:
        ValueError: when the folder holds a pool of another plan, or of an older format.
    """
    folder.mkdir(parents=True, exist_ok=True)
    described, record = json.dumps({"format": FORMAT, **vars(plan)}), folder / "plan.json"
    if record.exists() and record.read_text(encoding="utf-8") != described:
        raise ValueError(f"{folder} holds a pool of another plan or format; remove it or choose another folder.")
    record.write_text(described, encoding="utf-8")
    shards = [shard for shard in range(-(-len(plan) // SHARD_SIZE)) if not _shard_path(folder, shard).exists()]
    if not shards:
        return
    with get_context("spawn").Pool(processes) as workers:
        work = workers.imap_unordered(_write_shard, [(folder, plan, shard) for shard in shards])
        for _ in tqdm(work, total=len(shards), desc=f"Generating {len(plan)} samples", unit="shard"):
            pass


def _descriptions(shard: np.lib.npyio.NpzFile) -> list[dict[str, Any]]:
    return json.loads(str(shard["described"]))


def facts_and_kinds(folder: Path) -> list[tuple[dict[str, str], str]]:
    """What is true of each sample of a finished pool, and its kind; the pixels are not read."""
    found = []
    for path in sorted(folder.glob(SHARDS)):
        with np.load(path) as shard:
            found += [(one["facts"], one["kind"]) for one in _descriptions(shard)]
    return found


class SamplePool(Sequence[Sample]):
    """The samples of a finished pool, pixels and lesion maps kept in memory."""

    def __init__(self, folder: Path):
        self.pixels: list[np.ndarray] = []
        self.lesions: list[np.ndarray] = []
        self.described: list[tuple[int, int, int, dict[str, Any]]] = []
        for shard, path in enumerate(sorted(folder.glob(SHARDS))):
            with np.load(path) as data:
                self.pixels.append(data["pixels"])
                self.lesions.append(data["lesions"])
                pixel, map_of_frame = 0, 0
                for description in _descriptions(data):
                    self.described.append((shard, pixel, map_of_frame, description))
                    pixel += int(np.prod(description["shape"]))
                    map_of_frame += description["shape"][0] if description["shows_lesions"] else 0

    def __len__(self) -> int:
        return len(self.described)

    @overload
    def __getitem__(self, index: int) -> Sample: ...

    @overload
    def __getitem__(self, index: slice) -> list[Sample]: ...

    def __getitem__(self, index: int | slice) -> Sample | list[Sample]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        shard, pixel, map_of_frame, description = self.described[index]
        shape = description["shape"]
        lesions = self.lesions[shard][map_of_frame : map_of_frame + shape[0]]
        return Sample(
            frames=self.pixels[shard][pixel : pixel + int(np.prod(shape))].reshape(shape),
            kind=description["kind"],
            positions=np.array(description["positions"]),
            pixel_spacing=tuple(description["pixel_spacing"]),
            facts=description["facts"],
            lesions=lesions if description["shows_lesions"] else None,
        )


def to_clip(sample: Sample) -> Clip:
    """A sample as the processor takes it."""
    return Clip(
        frames=sample.frames,
        kind=sample.kind,
        positions=sample.positions,
        pixel_spacing=sample.pixel_spacing,
        source_frames=len(sample.frames),
    )
