# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Answers with a confidence: their tokens' probabilities, calibrated, and a threshold below which they decline."""

from __future__ import annotations

import math

import pytest
import torch

from hub_model.answering_omniv_med import (
    CANNOT_TELL,
    AnswerCalibration,
    GreedyLogProbabilities,
    answer,
    end_ids,
    features,
    judge,
)

pytestmark = pytest.mark.usefixtures("one_thread")
NEVER_DECLINES = AnswerCalibration((1.0, 0.0, 0.0), 0.0)


@pytest.fixture
def messages(picture) -> list[dict]:
    content = [{"type": "image", "image": picture()}, {"type": "text", "text": "What is it?"}]
    return [{"role": "user", "content": content}]


@torch.no_grad()
def test_an_answer_is_the_greedy_one_and_its_confidence_is_the_mean_probability_of_its_tokens(
    model, processor, messages
) -> None:
    found = answer(model, processor, messages, max_new_tokens=6)
    inputs = processor.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    length = inputs["input_ids"].shape[1]
    output = model.generate(**inputs, max_new_tokens=6, do_sample=False)
    assert found.text == processor.batch_decode(output[:, length:], skip_special_tokens=True)[0].strip()
    assert found.likeliest == found.text
    assert not found.declined
    whole = {**inputs, "input_ids": output, "attention_mask": torch.ones_like(output)}
    predicted = model(**whole).logits[0, length - 1 : -1].log_softmax(dim=-1)
    chosen = predicted.gather(1, output[0, length:, None])
    assert found.confidence == pytest.approx(float(chosen.mean().exp()), rel=1e-3)


def test_tokens_behind_the_end_of_an_answer_do_not_count() -> None:
    watched = GreedyLogProbabilities()
    for logits in ([[0.0, 0.0], [9.0, 0.0]], [[5.0, 0.0], [0.0, 0.0]], [[7.0, 0.0], [0.0, 0.0]]):
        assert torch.equal(watched(None, torch.tensor(logits)), torch.tensor(logits))
    first, second = watched.of_answers(torch.tensor([[4, 2, 2], [4, 5, 6]]), ends=[2])
    assert first == pytest.approx([math.log(0.5), -math.log1p(math.exp(-5))], rel=1e-4)
    assert len(second) == 3


def test_features_are_finite_for_certain_and_impossible_tokens() -> None:
    assert all(math.isfinite(value) for value in features([0.0, 0.0]) + features([-1000.0]))
    assert features([math.log(0.5)] * 3) == pytest.approx((0.0, 0.0, math.log(3)))
    with pytest.raises(ValueError, match="one token at least"):
        features([])


@pytest.mark.parametrize("probability", [0.2, 0.5, 0.9])
def test_the_regression_turns_token_probabilities_into_the_confidence(probability) -> None:
    assert NEVER_DECLINES.confidence([math.log(probability)]) == pytest.approx(probability)
    shifted = AnswerCalibration((0.0, 0.0, 0.0), math.log(3))
    assert shifted.confidence([math.log(probability)]) == pytest.approx(0.75)


def test_below_the_threshold_the_model_declines_and_says_what_was_likeliest() -> None:
    calibration = AnswerCalibration((1.0, 0.0, 0.0), 0.0, threshold=0.6)
    unsure = judge("pneumonia", [math.log(0.5)], calibration)
    assert (unsure.text, unsure.declined, unsure.likeliest) == (CANNOT_TELL, True, "pneumonia")
    sure = judge("pneumonia", [math.log(0.7)], calibration)
    assert (sure.text, sure.declined, sure.likeliest) == ("pneumonia", False, "pneumonia")


@pytest.mark.parametrize(
    "text", ["I cannot tell the patient's age from this image.", "This is not a medical image, so I cannot answer."]
)
def test_where_the_model_itself_declines_nothing_is_likeliest(text) -> None:
    found = judge(text, [-0.1], NEVER_DECLINES)
    assert (found.text, found.declined, found.likeliest) == (text, True, None)


def test_the_calibration_stands_in_the_configuration(model, processor, messages) -> None:
    assert AnswerCalibration.of(model.config) is None
    settings = {"weights": [0.0, 0.0, 0.0], "bias": -3.0, "threshold": 0.5}
    model.config.answer_calibration = settings
    try:
        assert AnswerCalibration.of(type(model.config).from_dict(model.config.to_dict())).threshold == 0.5
        found = answer(model, processor, messages, max_new_tokens=3)
        model.config.answer_calibration = settings | {"weights": [1.0]}
        with pytest.raises(ValueError, match="needs 3 weights"):
            answer(model, processor, messages, max_new_tokens=3)
    finally:
        model.config.answer_calibration = None
    assert (found.text, found.declined) == (CANNOT_TELL, True)
    assert found.confidence == pytest.approx(1 / (1 + math.exp(3)))


def test_visual_options_reach_the_processor(model, processor, messages) -> None:
    with pytest.raises(ValueError, match="keep_ratio must lie in"):
        answer(model, processor, messages, keep_ratio=2.0)


def test_answers_end_where_generate_ends_them(model) -> None:
    assert end_ids(model) == [2]
