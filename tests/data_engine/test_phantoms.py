# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Phantoms: reproducible, well formed and physically sane; the questions about them: true and balanced."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from data_engine.phantoms import KINDS_OF, MODALITIES, anatomy, ct, generate, geometry, mri
from data_engine.questions import OPEN_WORDINGS, SIDE_OF, article, caption, questions

PAIRS = [(modality, kind) for modality in MODALITIES for kind in KINDS_OF[modality]]
IMAGES_EACH = 45


@pytest.fixture(scope="module")
def images():
    """IMAGES_EACH images of every modality."""
    return [
        generate(modality, "image", np.random.default_rng([7, i]))
        for modality in MODALITIES
        for i in range(IMAGES_EACH)
    ]


@pytest.mark.parametrize(("modality", "kind"), PAIRS)
def test_same_seed_gives_the_same_bytes_and_another_seed_others(modality, kind):
    first, again, other = (generate(modality, kind, np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert first.facts == again.facts
    assert first.pixel_spacing == again.pixel_spacing
    assert first.frames.tobytes() == again.frames.tobytes()
    assert first.positions.tobytes() == again.positions.tobytes()
    assert first.frames.tobytes() != other.frames.tobytes()


@pytest.mark.parametrize(("modality", "kind"), PAIRS)
@pytest.mark.parametrize("seed", range(4))
def test_samples_are_well_formed(modality, kind, seed):
    sample = generate(modality, kind, np.random.default_rng([11, seed]))
    assert sample.frames.dtype == np.uint8
    assert sample.frames.shape[1:] == (geometry.SIZE, geometry.SIZE, 3)
    assert sample.kind == kind
    assert sample.facts["modality"] == modality
    assert all(isinstance(value, str) and value for value in sample.facts.values())
    assert sample.positions.dtype == np.float64
    assert sample.positions.shape == (len(sample.frames),)
    assert sample.frames.std() > 1, "the picture is blank"
    if kind == "image":
        assert len(sample.frames) == 1
        assert sample.positions[0] == 0
    else:
        assert 8 <= len(sample.frames) <= 16
        assert (np.diff(sample.positions) > 0).all()
    known = modality in ("CT", "MRI", "OCT", "PET", "mammography")
    assert all(value > 0 for value in sample.pixel_spacing) == known


def test_unknown_modality_and_kind_are_refused():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="Unknown modality"):
        generate("thermometer", "image", rng)
    with pytest.raises(ValueError, match="image"):
        generate("X-ray", "video", rng)


@pytest.mark.parametrize(("modality", "kind"), [pair for pair in PAIRS if pair[1] != "image"])
def test_neighbouring_frames_are_more_alike_than_distant_ones(modality, kind):
    near, far = 0.0, 0.0
    for seed in range(6):
        frames = generate(modality, kind, np.random.default_rng([5, seed])).frames.astype(np.float32)
        near += np.abs(np.diff(frames, axis=0)).mean()
        far += np.abs(frames[len(frames) // 2 :] - frames[: len(frames) - len(frames) // 2]).mean()
    assert near < far


def test_ct_windows_show_air_black_and_bone_white():
    tissue = ct.hounsfield(np.random.default_rng(0), enhanced=False)
    frame = ct.window_ct(np.array([tissue["air"], tissue["fat"], tissue["liver"], tissue["cortex"]]))
    assert (frame[0] <= 30).all()
    assert (frame[3, 1:] == 255).all()
    assert frame[3, 0] > 180
    assert (np.diff(frame[:, 1].astype(int)) >= 0).all()


def test_whole_body_ct_has_bone_soft_tissue_and_air():
    region = anatomy.REGIONS["abdomen"]
    rng = np.random.default_rng(1)
    grid = geometry.patient_grid((96, 96), (420, 420), (0, 0, 0), np.zeros(1))
    scene = geometry.Scene(*grid, -1000.0, 3.0)
    region.paint(scene, ct.hounsfield(rng, enhanced=True), rng)
    assert (scene.values < -900).mean() > 0.2
    assert (scene.values > 300).mean() > 0.01
    assert ((scene.values > 20) & (scene.values < 250)).mean() > 0.1


def test_patient_grid_is_radiological():
    x, y, z = geometry.patient_grid((10, 10), (100, 100), (0, 0, 0), np.zeros(1), "axial")
    assert x[0, 5, 9] > 0 > x[0, 5, 0], "the patient's left is on the image right"
    assert y[0, 0, 5] < 0 < y[0, 9, 5], "anterior is up"
    x, y, z = geometry.patient_grid((10, 10), (100, 100), (0, 0, 0), np.zeros(1), "sagittal")
    assert z[0, 0, 5] > 0 > z[0, 9, 5], "superior is up"
    assert y[0, 5, 0] < 0 < y[0, 5, 9], "anterior is left"


def test_brain_maps_lie_where_the_atlas_puts_them():
    t1, grey, white, distance = mri.brain_maps()
    assert t1.shape == grey.shape == white.shape
    i, j, k = np.array([118, 144, 102])
    assert t1[i, j, k] > 100, "deep in a hemisphere"
    assert distance[tuple(np.array([118, 144, 102]) // 2 + 16)] < 0
    assert distance.max() > 10


def test_liver_lies_on_the_image_left_and_heart_on_the_right():
    rng = np.random.default_rng(2)
    grid = geometry.patient_grid((96, 96), (420, 420), (0, 0, 25), np.zeros(1))
    scene = geometry.Scene(*grid, 0.0, 3.0)
    names = ct.hounsfield(rng, enhanced=False)
    anatomy.REGIONS["abdomen"].paint(scene, dict.fromkeys(names, 0.0) | {"liver": 1.0}, rng)
    assert scene.values[:, :, :48].sum() > 3 * scene.values[:, :, 48:].sum()


def test_lesions_are_balanced_and_every_modality_shows_both(images):
    for modality in MODALITIES:
        count = Counter(s.facts["lesion"] for s in images if s.facts["modality"] == modality and "lesion" in s.facts)
        assert min(count["yes"], count["no"]) > 0.2 * sum(count.values()), (modality, count)


def test_a_side_or_a_finding_is_only_given_where_there_is_one(images):
    for sample in images:
        if sample.facts["modality"] not in SIDE_OF and "side" in sample.facts:
            assert sample.facts["lesion"] == "yes"
        if "finding" in sample.facts:
            assert sample.facts["lesion"] == "yes"


def test_a_fundus_disc_lies_on_the_side_of_its_eye():
    right = []
    for seed in range(30):
        sample = generate("fundus photography", "image", np.random.default_rng([13, seed]))
        if sample.facts["lesion"] == "no":
            green = sample.frames[0, 10:-10, 10:-10, 1].astype(float)
            bright = np.argwhere(green > np.percentile(green, 99.5))[:, 1].mean()
            right.append((bright > green.shape[1] / 2) == (sample.facts["side"] == "right"))
    assert np.mean(right) > 0.8


def test_every_question_has_an_answer_that_the_facts_support(images):
    rng = np.random.default_rng(0)
    for sample in images:
        asked = questions(sample.facts, sample.kind, rng)
        assert asked
        for item in asked:
            assert item.question.endswith(("?", "."))
            assert "{" not in item.question
            assert item.answer in {"yes", "no", *sample.facts.values()}


def test_yes_and_no_are_balanced_over_seeded_draws(images):
    rng = np.random.default_rng(1)
    answers = {"closed": Counter(), "abnormality detection": Counter()}
    for sample in images:
        for item in questions(sample.facts, sample.kind, rng):
            if item.answer in ("yes", "no"):
                answers["abnormality detection" if item.task == "abnormality detection" else "closed"][item.answer] += 1
    for task, count in answers.items():
        assert sum(count.values()) >= 300
        assert 0.42 < count["yes"] / sum(count.values()) < 0.58, (task, count)


def test_closed_modality_questions_are_true():
    rng = np.random.default_rng(2)
    for _ in range(200):
        for item in questions({"modality": "ultrasound"}, "image", rng):
            if item.answer in ("yes", "no"):
                assert ("ultrasound" in item.question) == (item.answer == "yes")


def test_wordings_vary_and_hold_the_one_that_others_rely_on():
    assert "Which imaging modality is this?" in OPEN_WORDINGS["modality"][1]
    assert all(len(set(wordings)) >= 6 for _, wordings in OPEN_WORDINGS.values())
    assert [article(w) for w in ("MRI", "CT", "X-ray", "ultrasound", "OCT")] == [
        "an MRI", "a CT", "an X-ray", "an ultrasound", "an OCT",
    ]  # fmt: skip


def test_captions_are_one_sentence_that_names_the_modality(images):
    rng = np.random.default_rng(3)
    for sample in images:
        sentence = caption(sample.facts, sample.kind, rng)
        assert sentence[0].isupper()
        assert sentence.endswith(".")
        assert sentence.count(".") == 1
        assert sample.facts["modality"].removesuffix(" photography").lower() in sentence.lower()
