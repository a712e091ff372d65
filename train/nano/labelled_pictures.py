# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Real pictures with labels as the samples that pre-training takes: what they show, and where lesions and organs lie.

`images.jsonl` has a line a picture: file, modality, anatomy, finding, boxes, grades, split. `slake/` is SLAKE as
published: its `detection.json` boxes organs and diseases, and some of its answers are facts, such as the plane.
`vqa-rad/` is VQA-RAD as published, which names the region. Pictures that are not medical come from `photographs/` and
are drawn; `not_medical.jsonl` is not read, because its kinds are those of the test.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data_engine.adapters import get_adapter
from data_engine.adapters.base import seeded
from data_engine.adapters.class_folders import ABOUT
from data_engine.adapters.not_medical import on_ground, photograph_rows
from data_engine.adapters.slake import FILES, MODALITY_OF
from data_engine.not_medical import KINDS
from data_engine.phantoms import LESION_GRID, Sample
from data_engine.phantoms.geometry import quadrant
from data_engine.phantoms.sample import Box, box_area

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
    "brain edema", "brain non-enhancing tumor", "brain enhancing tumor", "liver cancer", "cardiomegaly", "atelectasis",
    "pneumonia", "nodule", "mass", "effusion", "lung cancer", "pneumothorax", "infiltrate",
}  # fmt: skip
"""Of SLAKE's boxes; the others are organs."""
PLANES = {"transverse": "axial", "axial": "axial", "coronal": "coronal", "sagittal": "sagittal"}
WEIGHTINGS = ("t1", "t2")
REGION_OF_ORGAN = {"CHEST": "chest", "ABD": "abdomen", "HEAD": "head"}
"""VQA-RAD's `image_organ`."""
PASSES = {"slake": 4, "vqa-rad": 3}
"""How often each picture of these stands in the training split: they are few, and their questions the most varied."""
DRAWN_COUNT = 300
"""Pictures that are drawn for a split."""
LONGEST_SIDE = 320
"""Pixels that a photograph is reduced to."""


@dataclass(frozen=True)
class LabelledPicture:
    """A picture's file, the facts about it, and its lesions' boxes.

    Attributes:
        boxes: of lesions; None where it is not known whether there is one.
        structures: name and box of each organ and disease that is outlined.
    """

    path: Path
    facts: Mapping[str, str]
    boxes: tuple[Box, ...] | None
    structures: tuple[tuple[str, Box], ...] = ()

    def sample(self) -> Sample:
        """The picture read, in RGB."""
        with Image.open(self.path) as picture:
            picture.draft("RGB", (LONGEST_SIDE, LONGEST_SIDE))
            picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)
            frames = np.asarray(on_ground(picture.convert("RGBA"), seeded(self.path.name)))[None]
        lesions = None if self.boxes is None else cover(self.boxes)[None]
        return Sample(frames, "image", np.zeros(1), (0.0, 0.0), dict(self.facts), lesions, self.structures)


@dataclass(frozen=True)
class DrawnPicture:
    """A picture of nothing medical, drawn by a seed that depends on kind, split and number."""

    kind: str
    split: str
    number: int

    @property
    def facts(self) -> dict[str, str]:
        """That it is not medical."""
        return {"modality": NOT_MEDICAL}

    def sample(self) -> Sample:
        """The picture, drawn."""
        drawn = KINDS[self.split][self.kind](seeded(f"{self.split} {self.kind} {self.number}"))
        frames = np.asarray(drawn.convert("RGB"))[None]
        return Sample(frames, "image", np.zeros(1), (0.0, 0.0), self.facts, cover(())[None])


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
        times = PASSES if split == "train" else dict.fromkeys(PASSES, 1)
        self.pictures: list[LabelledPicture | DrawnPicture] = [
            *_listed(folder, split),
            *(times["slake"] * list(_of_slake(folder / "slake", split))),
            *(times["vqa-rad"] * list(_of_vqa_rad(folder / "vqa-rad", split))),
        ]
        if not self.pictures:
            raise ValueError(f"{folder} holds no labelled pictures of the split {split}: images.jsonl lists them.")
        self.pictures += _photographs(folder / "photographs", split)
        kinds = list(KINDS[split])
        self.pictures += [DrawnPicture(kinds[i % len(kinds)], split, i) for i in range(DRAWN_COUNT)]

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> Sample:
        return self.pictures[index].sample()

    def facts(self) -> Iterator[dict[str, str]]:
        """Of each picture, without reading it."""
        return (dict(picture.facts) for picture in self.pictures)


def _listed(folder: Path, split: str) -> Iterator[LabelledPicture]:
    listed = folder / "images.jsonl"
    for line in listed.read_text(encoding="utf-8").splitlines() if listed.is_file() else ():
        row = json.loads(line)
        if row["split"] == split:
            yield LabelledPicture(folder / row["file"], facts_of(row), boxes_of(row))


def _photographs(folder: Path, split: str) -> Iterator[LabelledPicture]:
    """Class folders of pictures that are not medical, where there are any."""
    for row in photograph_rows(folder) if (folder / ABOUT).is_file() else ():
        if row.values["split"] == split:
            yield LabelledPicture(folder / row.values["entry"]["file"], {"modality": NOT_MEDICAL}, ())


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
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in json.loads(file.read_text(encoding="utf-8")):
        if row["q_lang"] == "en":
            rows.setdefault(row["img_name"], []).append(row)
    for name, own in sorted(rows.items()):
        path = folder / "imgs" / name
        with Image.open(path) as picture:
            width, height = picture.size
        boxes = json.loads((path.parent / "detection.json").read_text(encoding="utf-8"))
        structures = tuple(
            (named.lower(), (x / width, y / height, (x + w) / width, (y + h) / height))
            for one in boxes
            for named, (x, y, w, h) in one.items()
        )
        lesions = [(named, box) for named, box in structures if named in DISEASES]
        facts = {"modality": MODALITY_OF[own[0]["modality"].upper()], "region": REGION_OF[own[0]["location"]]}
        facts |= {"lesion": "yes" if lesions else "no", **_facts_of_answers(own)}
        if lesions:
            facts["finding"] = max(lesions, key=lambda one: box_area(one[1]))[0]
        yield LabelledPicture(path, facts, tuple(box for _, box in lesions), structures)


def _facts_of_answers(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Plane, weighting and largest organ, where questions about a picture of SLAKE ask for them."""
    facts = {}
    for row in rows:
        answer = row["answer"].lower().strip()
        if row["content_type"] == "Plane" and (plane := PLANES.get(answer.split(" ")[0])):
            facts["plane"] = plane
        elif row["content_type"] == "Modality" and answer in WEIGHTINGS:
            facts["weighting"] = answer.upper()
        elif row["content_type"] == "Size" and "largest organ" in row["question"]:
            facts["largest organ"] = answer
    return facts


def _of_vqa_rad(folder: Path, split: str) -> Iterator[LabelledPicture]:
    """The pictures with their region, and their plane where a question of the split asks for it."""
    if not folder.is_dir():
        return
    facts: dict[Path, dict[str, str]] = {}
    for row in get_adapter("vqa-rad").rows(folder):
        if row.values.get("split") != split:
            continue
        entry = row.values["entry"]
        own = facts.setdefault(folder / row.values["pictures"] / entry["image_name"], {})
        own["region"] = REGION_OF_ORGAN[entry["image_organ"]]
        if entry["question_type"] == "PLANE" and (plane := PLANES.get(str(entry["answer"]).lower().strip())):
            own["plane"] = plane
    for path, own in sorted(facts.items()):
        yield LabelledPicture(path, own, None)
