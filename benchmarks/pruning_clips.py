# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The clips that pruning rules are compared on: those that come with packages, or a folder of one's own.

A folder has `volumes.jsonl`, `images.jsonl` or both, one JSON object a line, with paths relative to the folder:

- a volume: `file`, and where its lesions are outlined `lesions`, a mask with the same voxels; `modality` if known;
- a picture: `file`, `boxes` around findings (left, top, right, bottom as shares of the picture), and, where known,
  `source` and `group` (the patient).
"""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import nilearn
import numpy as np
from pydicom.data import get_testdata_file
from transformers import PreTrainedTokenizerFast

from hub_model.processing_omniv_med import OmniVMedProcessor, ProcessedClip

HUB_MODEL = Path(__file__).resolve().parents[1] / "hub_model"
VOLUMES, IMAGES = "volumes.jsonl", "images.jsonl"
ALL_FRAMES_A_SECOND = 100.0
MASK_LEVEL = 127
"""Grey level from which a voxel of a mask counts as lesion, as the reader scales masks to 0 and 255."""


@dataclass(frozen=True)
class Case:
    """One clip with what is known of it.

    Attributes:
        name: for the figures.
        group: the patient or picture, whose findings are not independent.
        processed: the clip, unpruned.
        mask: bool (T, h, w), outlined lesions, or None.
        boxes: around findings of a picture.
    """

    name: str
    group: str
    processed: ProcessedClip
    mask: np.ndarray | None = None
    boxes: tuple[list[float], ...] = ()


def build_processor(frame_tokens: int, max_frames: int) -> OmniVMedProcessor:
    """A processor that gives every frame about `frame_tokens` tokens and prunes nothing."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(HUB_MODEL)
    return OmniVMedProcessor(
        tokenizer,
        min_frame_tokens=frame_tokens,
        max_frame_tokens=frame_tokens,
        max_frames=max_frames,
        fps=ALL_FRAMES_A_SECOND,
        prune_rule="none",
    )


def packaged_clips() -> dict[str, str]:
    """Names and paths of the real clips that come with packages."""
    mni152 = "datasets/data/mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"
    return {
        "MNI152 T1 average (nilearn)": str(Path(nilearn.__file__).parent / mni152),
        "MR head, one person (nibabel)": str(Path(nibabel.__file__).parent / "tests/data/example4d.nii.gz"),
        "echocardiogram (pydicom)": get_testdata_file("examples_ybr_color.dcm", download=False),
    }


def packaged_cases(processor: OmniVMedProcessor) -> Iterator[Case]:
    for name, path in packaged_clips().items():
        yield Case(name, name, processor.process_clip(processor.load(path)))


def cases_of(folder: Path, processor: OmniVMedProcessor, limit: int, seed: int) -> Iterator[Case]:
    """The volumes of a folder, then its boxed pictures: at most `limit` volumes, and pictures of each source.

    Raises:
        ValueError: for a folder without either list, or a line that is not as the module describes.
    """
    if not (folder / VOLUMES).is_file() and not (folder / IMAGES).is_file():
        raise ValueError(f"{folder} has neither {VOLUMES} nor {IMAGES}; see the help of benchmarks.pruning.")
    for line in _lines(folder / VOLUMES)[:limit]:
        options = {"modality": line["modality"]} if line.get("modality") == "CT" else {}
        processed = processor.process_clip(processor.load(str(folder / line["file"]), kind="volume", **options))
        mask = None
        if line.get("lesions"):
            frames = processor.load(str(folder / line["lesions"]), kind="volume").frames
            if frames.shape[:3] != processed.clip.frames.shape[:3]:
                raise ValueError(f"{line['lesions']} has other voxels than {line['file']}.")
            mask = frames[..., 0] > MASK_LEVEL
        yield Case(Path(line["file"]).name, line.get("group", line["file"]), processed, mask)
    by_source: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for line in _lines(folder / IMAGES):
        if line.get("boxes"):
            by_source[line.get("source", "")].append(line)
    for _, lines in sorted(by_source.items()):
        chosen = random.Random(seed).sample(lines, min(limit, len(lines)))
        for line in chosen:
            processed = processor.process_clip(processor.load(str(folder / line["file"]), kind="image"))
            yield Case(line["file"], line.get("group", line["file"]), processed, boxes=tuple(line["boxes"]))


def _lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSON Lines file, none where there is no file.

    Raises:
        ValueError: for a line without `file`.
    """
    if not path.is_file():
        return []
    found = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    for number, line in enumerate(found, start=1):
        if not isinstance(line, dict) or "file" not in line:
            raise ValueError(f"Line {number} of {path} has no 'file'.")
    return found
