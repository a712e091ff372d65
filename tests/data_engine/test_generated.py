# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The generated source: files that hold what was generated, records whose answers are true, everything by its seed."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest

from data_engine import generated
from data_engine.adapters.base import MediaStore
from data_engine.generated import SamplePlan, encode, plan_samples, records_of
from data_engine.phantoms import KINDS_OF, MODALITIES, Sample, generate
from data_engine.questions import REPORT_REQUESTS, caption, matching_question, modality_adjective, report
from data_engine.records import TASKS, Record
from hub_model.media_omniv_med import load_clip


def draw(index: int, split: str = "train", seed: int = 3) -> SamplePlan:
    return SamplePlan(seed, split, index)


@pytest.fixture(scope="module")
def asked(tmp_path_factory) -> list[list[Record]]:
    """The records about each of 200 samples."""
    store = MediaStore(tmp_path_factory.mktemp("asked"))
    return [records_of(draw(index), store) for index in range(200)]


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    """150 samples of all modalities and kinds in turn."""
    return [generate(*draw(index).kind_of, np.random.default_rng([7, index])) for index in range(150)]


def test_every_modality_and_every_kind_takes_its_turn():
    kinds = Counter(draw(index).kind_of for index in range(600))
    assert set(kinds) == {(name, kind) for name in MODALITIES for kind in KINDS_OF[name]}
    images = [count for (_, kind), count in kinds.items() if kind == "image"]
    assert sum(images) == pytest.approx(600 * (1 - 1 / generated.CLIP_EVERY), abs=1)
    assert max(images) - min(images) <= 1


def test_samples_differ_between_splits_and_seeds_and_are_repeated_by_them(tmp_path):
    def words(drawn: SamplePlan) -> list[str]:
        return [record.model_dump_json() for record in records_of(drawn, MediaStore(tmp_path / str(drawn.seed)))]

    first = words(draw(1))
    data = (tmp_path / "3/media/phantoms/train/000/000001.png").read_bytes()
    assert words(draw(1)) == first
    assert (tmp_path / "3/media/phantoms/train/000/000001.png").read_bytes() == data
    words(draw(1, "test"))
    words(draw(1, seed=4))
    assert (tmp_path / "3/media/phantoms/test/000/000001.png").read_bytes() != data
    assert (tmp_path / "4/media/phantoms/train/000/000001.png").read_bytes() != data


def test_listed_holds_the_counts_of_every_split():
    counts = Counter(one.split for one in plan_samples(0, {"test": 3, "train": 5}))
    assert counts == {"train": 5, "test": 3}


def test_the_tasks_of_a_sample_differ_and_all_tasks_occur(asked):
    seen = Counter()
    for records in asked:
        tasks = [record.task for record in records]
        assert len(set(tasks)) == len(tasks) <= generated.RECORDS_PER_SAMPLE
        seen.update(tasks)
    assert set(seen) == set(TASKS)


def test_an_image_file_holds_the_sample_exactly(tmp_path):
    for modality in MODALITIES:
        sample = generate(modality, "image", np.random.default_rng(1))
        path = tmp_path / f"{modality}.png"
        path.write_bytes(encode(sample))
        assert np.array_equal(load_clip(path).frames, sample.frames)


@pytest.mark.parametrize("modality", [name for name in MODALITIES if "volume" in KINDS_OF[name]])
def test_a_volume_file_has_the_slices_in_order_and_their_spacing(tmp_path, modality):
    sample = generate(modality, "volume", np.random.default_rng(2))
    path = tmp_path / "volume.nii.gz"
    path.write_bytes(encode(sample))
    clip = load_clip(path)
    assert clip.frames.shape == sample.frames.shape
    assert clip.positions == pytest.approx(sample.positions, rel=1e-3)
    assert clip.pixel_spacing == pytest.approx(sample.pixel_spacing, rel=1e-5)
    for shown, made in zip(clip.frames[..., 0], sample.frames[..., 0], strict=True):
        if made.std() > 5 and shown.std() > 5:
            assert np.corrcoef(shown.ravel(), made.ravel())[0, 1] > 0.95


@pytest.mark.parametrize("modality", [name for name in MODALITIES if "video" in KINDS_OF[name]])
def test_a_video_file_has_the_frames_and_their_times(tmp_path, modality):
    sample = generate(modality, "video", np.random.default_rng(2))
    path = tmp_path / "video.mp4"
    path.write_bytes(encode(sample))
    clip = load_clip(path, fps=1000.0, max_frames=256)
    assert clip.kind == "video"
    assert len(clip.frames) == len(sample.frames)
    assert clip.positions == pytest.approx(sample.positions, abs=2e-2)
    assert np.abs(clip.frames.astype(float) - sample.frames).mean() < 8


def test_a_sentence_that_does_not_fit_names_something_false(samples):
    rng = np.random.default_rng(0)
    answers = Counter()
    for sample in samples:
        one = matching_question(sample.facts, sample.kind, rng)
        answers[one.answer] += 1
        sentence = re.search('"(.*)"', one.question)[1].lower()
        region = sample.facts.get("region", "")
        agrees = modality_adjective(sample.facts["modality"]).lower() in sentence
        agrees &= region.lower() in sentence or not any(name in sentence for name in ("chest", "brain", "retina"))
        if one.answer == "yes":
            assert agrees
        assert "{" not in one.question
    assert 0.35 < answers["yes"] / sum(answers.values()) < 0.65


def test_a_report_holds_every_fact_of_the_sample(samples):
    for sample in samples:
        words = report(sample.facts, sample.kind)
        for name in ("region", "finding", "count", "size", "severity", "motion", "location"):
            if name in sample.facts:
                assert sample.facts[name].lower() in words.lower(), (name, words)
        assert words.startswith("Findings: ")
        assert words.count("Impression: ") == 1
        assert words.endswith(".")
        assert ".." not in words


def test_reports_and_captions_are_both_asked_for(asked):
    written = [record for records in asked for record in records if record.task == "report generation and captioning"]
    reports = [record for record in written if record.answer.startswith("Findings: ")]
    assert 0.3 < len(reports) / len(written) < 0.7
    formats = {wording.split("{")[0].rstrip() for wording in REPORT_REQUESTS}
    assert all(any(record.question.startswith(words) for words in formats) for record in reports)


def test_captions_of_every_modality_read_as_one_sentence(samples):
    rng = np.random.default_rng(4)
    for sample in samples:
        sentence = caption(sample.facts, sample.kind, rng)
        assert sentence.endswith(".")
        assert modality_adjective(sample.facts["modality"]).lower() in sentence.lower()
