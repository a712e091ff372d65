# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The generated source of OmniV-Med-Instruct: phantoms written as the files hospitals have, with records about them.

Images become PNG, volumes NIfTI (CT in HU), videos MP4. Everything about sample i depends on the seed, the split and i
alone, so a build can be stopped, resumed and repeated bit for bit.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import nibabel
import numpy as np
from PIL import Image

from data_engine.phantoms import KINDS_OF, MODALITIES, Sample, generate
from data_engine.questions import Question, caption_question, matching_question, questions
from data_engine.records import DIMENSION_OF, SPLITS, Record, Split
from data_engine.sample_media import encode_video, hounsfield_units

if TYPE_CHECKING:
    from data_engine.adapters.base import MediaStore

NAME, LICENSE = "phantoms", "Apache-2.0"
CLIP_EVERY = 4
"""Of so many samples one is a volume or a video."""
RECORDS_PER_SAMPLE = 3
ENDING = {"image": "png", "volume": "nii.gz", "video": "mp4"}


@dataclass(frozen=True)
class SamplePlan:
    """Which sample of a split is to be generated; the sample itself depends on these three numbers alone."""

    seed: int
    split: Split
    index: int

    @property
    def kind_of(self) -> tuple[str, str]:
        """Modality and kind: modalities take turns among the images, and so do all kinds of volumes and videos."""
        moving = [(name, kind) for name in MODALITIES for kind in KINDS_OF[name] if kind != "image"]
        group, place = divmod(self.index, CLIP_EVERY)
        if place == 0:
            return moving[group % len(moving)]
        return MODALITIES[(group * (CLIP_EVERY - 1) + place - 1) % len(MODALITIES)], "image"

    def random(self, purpose: int) -> np.random.Generator:
        """Random numbers of this sample; pictures (0) and words (1) have streams of their own."""
        return np.random.default_rng((self.seed, SPLITS.index(self.split), self.index, purpose))


def plan_samples(seed: int, counts: Mapping[Split, int]) -> Iterator[SamplePlan]:
    """The samples of all splits."""
    for split in SPLITS:
        for index in range(counts.get(split, 0)):
            yield SamplePlan(seed, split, index)


def records_of(plan: SamplePlan, store: MediaStore) -> list[Record]:
    """Makes one sample, writes its file, and says what can be learned from it: a few records of different tasks."""
    modality, kind = plan.kind_of
    sample = generate(modality, kind, plan.random(0))
    number = f"{plan.index:06d}"
    path = store.write(encode(sample), f"{NAME}/{plan.split}/{number[:3]}/{number}.{ENDING[kind]}")
    chosen = choose(sample, plan.random(1))
    # A volume's file says its spacing; a PNG or MP4 cannot.
    spacing = sample.pixel_spacing if kind != "volume" and all(sample.pixel_spacing) else None
    return [
        Record.model_validate(
            {
                "id": f"{NAME}/{plan.split}/{number}/{place}",
                "dimension": DIMENSION_OF[kind],
                "modality": modality,
                "task": one.task,
                "media": [{"type": kind, "path": path, "spacing": spacing}],
                "conversations": [
                    {"role": "user", "content": one.question},
                    {"role": "assistant", "content": one.answer},
                ],
                "source": NAME,
                "license": LICENSE,
                "split": plan.split,
            }
        )
        for place, one in enumerate(chosen)
    ]


def choose(sample: Sample, rng: np.random.Generator) -> list[Question]:
    """One question each of a few tasks, drawn evenly among those that this sample can ask about."""
    by_task: dict[str, list[Question]] = {}
    for one in questions(sample.facts, sample.kind, rng):
        by_task.setdefault(one.task, []).append(one)
    for one in (caption_question(sample.facts, sample.kind, rng), matching_question(sample.facts, sample.kind, rng)):
        by_task[one.task] = [one]
    tasks = sorted(by_task)
    drawn = rng.permutation(len(tasks))[:RECORDS_PER_SAMPLE]
    return [by_task[tasks[i]][int(rng.integers(len(by_task[tasks[i]])))] for i in drawn]


def encode(sample: Sample) -> bytes:
    """The file of a sample: PNG, NIfTI or MP4."""
    return {"image": _png, "volume": _nifti, "video": _mp4}[sample.kind](sample)


def _png(sample: Sample) -> bytes:
    buffer = io.BytesIO()
    frame = sample.frames[0]
    grey = (frame == frame[..., :1]).all()
    Image.fromarray(frame[..., 0] if grey else frame).save(buffer, "PNG")
    return buffer.getvalue()


def _nifti(sample: Sample) -> bytes:
    """Slices in order, with the orientation of axial ones whatever their plane, so that readers show them as made."""
    if sample.facts["modality"] == "CT":
        values = hounsfield_units(sample.frames)
    elif (sample.frames == sample.frames[..., :1]).all():
        values = sample.frames[..., 0]
    else:
        values = np.ascontiguousarray(sample.frames).view([("R", "u1"), ("G", "u1"), ("B", "u1")])[..., 0]
    rows, columns = sample.pixel_spacing
    step = float(sample.positions[1] - sample.positions[0])
    # NIfTI counts to the right and to the front; columns and rows go to the left and to the back.
    image = nibabel.Nifti1Image(values.transpose(2, 1, 0), np.diag([-columns, -rows, step, 1.0]))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "volume.nii.gz"
        image.to_filename(path)
        return path.read_bytes()


def _mp4(sample: Sample) -> bytes:
    # A constant quantiser and one thread: with x264's rate control the bytes differ from run to run.
    return encode_video(sample.frames, sample.positions, {"qp": "20", "threads": "1"})
