# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Real pictures with labels as the samples that pre-training takes: what they show, and where lesions lie.

`images.jsonl` (and `not_medical.jsonl`) has a line a picture: file, modality, anatomy, finding, boxes, grades, split;
`slake/` is SLAKE as published, whose `detection.json` boxes organs and diseases. Only the boxes of diseases count.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data_engine.adapters.slake import FILES, MODALITY_OF
from data_engine.phantoms import LESION_GRID, Sample
from data_engine.phantoms.geometry import quadrant

NOT_MEDICAL = "no medical picture"
"""In the place of a modality."""
HEALTHY = {"normal", "no finding", "no mass", "no diabetic retinopathy", "negative for intraepithelial malignancy"}
"""Findings that say that there is none."""
GRADES = {"retinopathy_grade": "diabetic retinopathy", "macular_edema_risk": "macular oedema"}
REGION_OF = {
    "Lung": "chest", "Chest_lung": "chest", "Chest_heart": "chest", "Chest_mediastinal": "chest", "Abdomen": "abdomen",
    "Pelvic Cavity": "pelvis", "Brain": "brain", "Brain_Tissue": "brain", "Brain_Face": "head", "Neck": "neck",
}  # fmt: skip
DISEASES = {
    "Brain Edema", "Brain Non-enhancing Tumor", "Brain Enhancing Tumor", "Liver Cancer", "Cardiomegaly", "Atelectasis",
    "Pneumonia", "Nodule", "Mass", "Effusion", "Lung Cancer", "Pneumothorax", "Infiltrate",
}  # fmt: skip
"""Of SLAKE's boxes; the others are organs."""


@dataclass(frozen=True)
class LabelledPicture:
    """A picture's file, the facts about it, and its lesions' boxes.

    Attributes:
        boxes: left, top, right, bottom as shares of the picture; None where it is not known whether there is a lesion.
    """

    path: Path
    facts: Mapping[str, str]
    boxes: tuple[tuple[float, float, float, float], ...] | None

    def sample(self) -> Sample:
        """The picture read, in RGB."""
        with Image.open(self.path) as picture:
            frames = np.asarray(picture.convert("RGB"))[None]
        lesions = None if self.boxes is None else cover(self.boxes)[None]
        return Sample(frames, "image", np.zeros(1), (0.0, 0.0), dict(self.facts), lesions)


def cover(boxes: Sequence[Sequence[float]]) -> np.ndarray:
    """How much of each cell of a picture boxes cover, uint8 (LESION_GRID, LESION_GRID), 255 for all of it."""
    edges = np.arange(LESION_GRID)
    covered = np.zeros((LESION_GRID, LESION_GRID))
    for left, top, right, bottom in boxes:
        across, down = (
            np.clip(np.minimum(edges + 1, high * LESION_GRID) - np.maximum(edges, low * LESION_GRID), 0, 1)
            for low, high in ((left, right), (top, bottom))
        )
        covered = np.maximum(covered, down[:, None] * across)
    return np.round(255 * covered).astype(np.uint8)


class LabelledPictures(Sequence[Sample]):
    """The pictures of one split; each is read when it is asked for.

    Args:
        folder: of `images.jsonl`, and `slake/` where it is there.
        split: "train" or "validation".

    Raises:
        ValueError: a folder without labelled pictures.
    """

    def __init__(self, folder: Path, split: str):
        self.pictures = [*_listed(folder, split), *_of_slake(folder / "slake", split)]
        if not self.pictures:
            raise ValueError(f"{folder} holds no labelled pictures of the split {split}: images.jsonl lists them.")

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> Sample:
        return self.pictures[index].sample()

    def facts(self) -> Iterator[dict[str, str]]:
        """Of each picture, without reading it."""
        return (dict(picture.facts) for picture in self.pictures)


def _listed(folder: Path, split: str) -> Iterator[LabelledPicture]:
    for name in ("images.jsonl", "not_medical.jsonl"):
        if not (folder / name).is_file():
            continue
        for line in (folder / name).read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            if row["split"] == split:
                yield LabelledPicture(folder / row["file"], facts_of(row), boxes_of(row))


def facts_of(row: Mapping[str, Any]) -> dict[str, str]:
    """The facts of a line of `images.jsonl`; what the line does not say is missing."""
    if not row["modality"]:
        return {"modality": NOT_MEDICAL}
    facts = {"modality": row["modality"], "region": row["anatomy"]}
    finding = row.get("finding", "")
    if finding:
        facts["finding"] = finding
        facts["lesion"] = "no" if finding.lower() in HEALTHY else "yes"
    for name, graded in GRADES.items():
        if name in row:
            facts[graded] = str(row[name])
    if "view" in row:
        facts["view"] = row["view"]
    if "red_cells" in row:
        facts["white cells"] = str(min(row["white_cells"], 3))
    boxes = row.get("boxes") or ()
    if len(boxes) == 1 and finding:
        left, top, right, bottom = boxes[0]
        facts |= quadrant((top + bottom) / 2 - 0.5, (left + right) / 2 - 0.5)
    return facts


def boxes_of(row: Mapping[str, Any]) -> tuple | None:
    """The boxes of lesions; none for a picture that shows none; None where boxes are of something else or not known."""
    finding = row.get("finding", "")
    if not row["modality"] or finding.lower() in HEALTHY:
        return ()
    return tuple(map(tuple, row["boxes"])) if finding and row.get("boxes") else None


def _of_slake(folder: Path, split: str) -> Iterator[LabelledPicture]:
    file = next((folder / name for name in FILES[split] if (folder / name).is_file()), None)
    if file is None:
        return
    rows = {row["img_name"]: row for row in json.loads(file.read_text(encoding="utf-8")) if row["q_lang"] == "en"}
    for name, row in sorted(rows.items()):
        path = folder / "imgs" / name
        with Image.open(path) as picture:
            width, height = picture.size
        boxes = json.loads((path.parent / "detection.json").read_text(encoding="utf-8"))
        lesions = [(named, box) for one in boxes for named, box in one.items() if named in DISEASES]
        facts = {"modality": MODALITY_OF[row["modality"].upper()], "region": REGION_OF[row["location"]]}
        facts["lesion"] = "yes" if lesions else "no"
        if lesions:
            facts["finding"] = max(lesions, key=lambda one: one[1][2] * one[1][3])[0].lower()
        scaled = tuple((x / width, y / height, (x + w) / width, (y + h) / height) for _, (x, y, w, h) in lesions)
        yield LabelledPicture(path, facts, scaled)
