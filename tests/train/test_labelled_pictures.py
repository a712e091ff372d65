# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Labelled real pictures as samples: facts from labels, grades and boxes, of the split that was asked for."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_engine.not_medical import KINDS
from train.checkpoints.assemble import NANO_OF_REAL_PICTURES
from train.dataset.described_samples import fact_vocabulary
from train.nano.labelled_pictures import (
    DRAWN_COUNT,
    NOT_MEDICAL,
    PASSES,
    DrawnPicture,
    LabelledPictures,
    boxes_of,
    cover,
    facts_of,
)
from train.nano.pretrain import SampleDataset

POLYP = {"modality": "endoscopy", "anatomy": "colon", "finding": "polyp", "boxes": [[0.0, 0.0, 0.5, 0.25]]}
RETINA = {"modality": "fundus photography", "anatomy": "retina", "finding": "no diabetic retinopathy"}
BLOOD = {"modality": "microscopy", "anatomy": "blood smear", "finding": "", "red_cells": 19, "white_cells": 1}


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("real")

    def draw(name: str) -> str:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((60, 80), 90, np.uint8)).save(folder / name)
        return name

    lines = [POLYP | {"split": "train"}, RETINA | {"split": "train"}, POLYP | {"split": "test"}]
    listed = [line | {"file": draw(f"images/{number}.png")} for number, line in enumerate(lines)]
    (folder / "images.jsonl").write_text("\n".join(map(json.dumps, listed)), encoding="utf-8")
    shirt = {"file": draw("images/shirt.png"), "modality": "", "anatomy": "", "finding": "", "split": "train"}
    (folder / "not_medical.jsonl").write_text(json.dumps(shirt), encoding="utf-8")
    draw("photographs/animals/owl.png")
    (folder / "photographs/about.yaml").write_text(
        "source: ours\nlicense: CC0-1.0\nclasses: {animals: {finding: animal, split: train}}", encoding="utf-8"
    )
    draw("slake/imgs/xmlab1/source.png")
    (folder / "slake/imgs/xmlab1/detection.json").write_text(
        json.dumps([{"Liver": [0, 0, 10, 10]}, {"Lung Cancer": [40, 30, 40, 30]}]), encoding="utf-8"
    )
    entry = {"img_name": "xmlab1/source.png", "q_lang": "en", "modality": "CT", "location": "Lung"}
    entry |= {"content_type": "Plane", "question": "What is the scanning plane?", "answer": "Transverse Plane"}
    largest = {"content_type": "Size", "question": "What is the largest organ in the picture?", "answer": "Lung"}
    rows = [entry, entry | largest, entry | {"q_lang": "zh", "answer": "Coronal Plane"}]
    (folder / "slake/train.json").write_text(json.dumps(rows), encoding="utf-8")
    draw("vqa-rad/images/head.png")
    asked = {"image_name": "head.png", "image_organ": "HEAD", "question_type": "PLANE", "question": "Which plane?"}
    asked |= {"qid": 1, "answer": "axial", "answer_type": "OPEN", "phrase_type": "freeform"}
    for name, entries in (("trainset", [asked]), ("testset", [])):
        (folder / f"vqa-rad/{name}.json").write_text(json.dumps(entries), encoding="utf-8")
    return folder


def test_a_split_holds_its_own_pictures_those_of_benchmarks_several_times(real) -> None:
    training = LabelledPictures(real, "train")
    expected = Counter({"endoscopy": 1, "fundus photography": 1, "CT": PASSES["slake"], None: PASSES["vqa-rad"]})
    expected[NOT_MEDICAL] = 1 + DRAWN_COUNT
    assert Counter(facts.get("modality") for facts in training.facts()) == expected
    with pytest.raises(ValueError, match="no labelled pictures of the split validation"):
        LabelledPictures(real, "validation")


def test_pictures_that_are_not_medical_are_of_other_kinds_than_the_tests(real) -> None:
    pictures = [one for one in LabelledPictures(real, "train").pictures if one.facts.get("modality") == NOT_MEDICAL]
    assert not any("shirt" in str(getattr(one, "path", "")) for one in pictures), "clothing is a kind of the test"
    assert {one.kind for one in pictures if isinstance(one, DrawnPicture)} == KINDS["train"].keys()
    drawn, again = (pictures[-1].sample().frames for _ in range(2))
    assert (drawn == again).all()


def test_answers_of_benchmarks_become_facts(real) -> None:
    facts = list(LabelledPictures(real, "train").facts())
    assert {"region": "head", "plane": "axial"} in facts
    slake = next(one for one in facts if one.get("modality") == "CT")
    assert slake == {
        "modality": "CT",
        "region": "chest",
        "lesion": "yes",
        "finding": "lung cancer",
        "plane": "axial",
        "largest organ": "lung",
    }


def test_a_picture_is_in_colour_and_its_lesions_lie_where_the_boxes_are(real) -> None:
    polyp, retina, lung = (LabelledPictures(real, "train")[place] for place in range(3))
    assert polyp.frames.shape == (1, 60, 80, 3)
    assert (polyp.lesions[0, :4, :8] == 255).all()
    assert polyp.lesions.sum() == 255 * 32
    assert retina.lesions.sum() == 0
    assert (lung.lesions[0, 8:, 8:] == 255).all(), "SLAKE's boxes: left, top, width, height in pixels"
    assert lung.lesions[0, :2, :2].sum() == 0, "an organ is no lesion"
    assert dict(lung.structures) == {"liver": (0, 0, 10 / 80, 10 / 60), "lung cancer": (0.5, 0.5, 1, 1)}


def test_cells_that_a_box_covers_in_part_say_so() -> None:
    covered = cover([(0.0, 0.0, 1 / 32, 1.0)])
    assert (covered[:, 0] == 128).all()
    assert covered[:, 1:].sum() == 0


def test_labels_become_facts() -> None:
    assert facts_of(POLYP)["location"] == "upper left"
    assert facts_of(RETINA | {"retinopathy_grade": 0}) == {
        "modality": "fundus photography",
        "region": "retina",
        "finding": "no diabetic retinopathy",
        "lesion": "no",
        "diabetic retinopathy": "0",
    }
    assert facts_of(BLOOD) == {"modality": "microscopy", "region": "blood smear", "white cells": "1"}


def test_boxes_of_cells_are_no_lesions_and_a_finding_without_boxes_lies_nobody_knows_where() -> None:
    assert boxes_of(BLOOD | {"boxes": [[0.1, 0.1, 0.2, 0.2]]}) is None
    assert boxes_of({"modality": "mammography", "anatomy": "breast", "finding": "malignant mass"}) is None
    assert boxes_of(RETINA) == ()


def test_pre_training_shows_them_with_sixty_four_tokens(real) -> None:
    training = LabelledPictures(real, "train")
    dataset = SampleDataset(training, fact_vocabulary(training.facts()), 4, 0, 0.0, NANO_OF_REAL_PICTURES)
    for index in range(4):
        _, rows, columns = dataset[index]["grid_thw"][0].tolist()
        assert 48 <= rows * columns // 4 <= 64
