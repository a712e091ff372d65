# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""A small set in the data engine's format: real PNG, NIfTI and MP4 files with records about them."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
from PIL import Image

from data_engine.records import DIMENSION_OF, Medium, Record, Turn, write_jsonl
from data_engine.sample_media import encode_video

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (40, 40, 220)}
LAYOUT = ("image",) * 6 + ("volume",) * 3 + ("video",) * 3
QUESTIONS_PER_MEDIUM = 3


def write_set(folder: Path, split: str = "train", seed: int = 0) -> list[Record]:
    """Writes media of one colour each and three records about each, in random order; returns the records."""
    rng = np.random.default_rng(seed)
    records = []
    for number, kind in enumerate(LAYOUT):
        colour = list(COLOURS)[number % len(COLOURS)]
        path = f"media/{split}/{number}.{ {'image': 'png', 'volume': 'nii.gz', 'video': 'mp4'}[kind] }"
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        write_medium(folder / path, kind, colour, rng)
        asked = (
            ("Which colour?", colour, "modality recognition"),
            ("Is it red?", "yes" if colour == "red" else "no", "abnormality detection"),
            ("Describe it.", f"A {kind} all of {colour}.", "report generation and captioning"),
        )
        records += [
            Record(
                id=f"colours/{split}/{number}/{place}",
                dimension=DIMENSION_OF[kind],
                modality="clinical photograph",
                task=task,
                media=(Medium(type=kind, path=path),),
                conversations=(Turn(role="user", content=question), Turn(role="assistant", content=answer)),
                source="colours",
                license="Apache-2.0",
                split=split,
            )
            for place, (question, answer, task) in enumerate(asked)
        ]
    records = [records[place] for place in rng.permutation(len(records))]
    write_jsonl(records, folder / f"{split}.jsonl")
    return records


def write_medium(path: Path, kind: str, colour: str, rng: np.random.Generator) -> None:
    """One file: frames of a colour with a little noise."""
    frames = np.array(COLOURS[colour]) + rng.integers(-20, 21, (1 if kind == "image" else 6, 32, 32, 3))
    frames = frames.clip(0, 255).astype(np.uint8)
    if kind == "image":
        Image.fromarray(frames[0]).save(path)
    elif kind == "video":
        path.write_bytes(encode_video(frames, np.arange(6) / 2, {"qp": "20", "threads": "1"}))
    else:
        colours = np.ascontiguousarray(frames).view([("R", "u1"), ("G", "u1"), ("B", "u1")])[..., 0]
        nibabel.Nifti1Image(colours.transpose(2, 1, 0), np.diag([-1.0, -1.0, 4.0, 1.0])).to_filename(path)
