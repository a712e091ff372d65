# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Questions that share their media get the answers that each gets alone, with the media read once."""

from __future__ import annotations

import pytest
import torch

from data_engine.adapters.base import MediaStore
from data_engine.generated import CLIP_EVERY, SamplePlan, records_of
from data_engine.records import write_jsonl
from evaluation.benchmarks import read_benchmark
from evaluation.run import load
from evaluation.shared_media import generate_sharing

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def questions(tmp_path_factory):
    """Questions about two images, a volume and a video, three each."""
    folder = tmp_path_factory.mktemp("built")
    store = MediaStore(folder)
    drawn = [SamplePlan(1, "test", index) for index in (0, 1, 2, 3 * CLIP_EVERY)]
    write_jsonl((record for one in drawn for record in records_of(one, store)), folder / "test.jsonl")
    asked = read_benchmark("generated", folder, folder, None)[0]
    assert {one.dimension for one in asked} >= {"2d", "3d"}
    return asked


@pytest.mark.parametrize("stage", ["language", "encoder"])
@pytest.mark.parametrize("keep_ratio", [None, 0.4])
def test_shared_answers_are_those_of_each_question_alone(tiny, questions, stage, keep_ratio):
    model, processor = load(str(tiny), {"keep_ratio": keep_ratio}, "cpu")
    together = generate_sharing(model, processor, questions, "plain", 6, stage)
    for one, (text, length) in zip(questions, together, strict=True):
        inputs = processor.apply_chat_template(
            one.messages("plain"),
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            processor_kwargs={"return_tensors": "pt"},
        )
        output = model.generate(**inputs, prune_stage=stage, max_new_tokens=6, do_sample=False)
        alone = processor.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)[0].strip()
        assert (text, length) == (alone, inputs["input_ids"].shape[1])
    assert len({text for text, _ in together}) > 1, "a model that always says the same shows nothing"


def test_every_medium_is_read_once(tiny, questions, monkeypatch):
    model, processor = load(str(tiny), {}, "cpu")
    read, whole = [], type(processor).load
    monkeypatch.setattr(
        type(processor),
        "load",
        lambda self, source, **options: read.append(source) or whole(self, source, **options),
    )
    generate_sharing(model, processor, questions, "plain", 2)
    assert sorted(read) == sorted({str(one.folder / one.media[0].path) for one in questions})


def test_the_computation_may_be_narrower_than_the_weights(tiny, questions):
    model, processor = load(str(tiny), {}, "cpu", "bfloat16")
    assert {tensor.dtype for tensor in model.parameters()} == {torch.bfloat16}
    assert all(text for text, _ in generate_sharing(model, processor, questions, "plain", 6))
