# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Questions about media are answered together as each is alone, with its confidence and its own threshold."""

from __future__ import annotations

import pytest
import torch

from hub_model.answering_omniv_med import CANNOT_TELL, answer
from hub_model.shared_media_omniv_med import MediumQuestions, answer_questions

pytestmark = pytest.mark.usefixtures("one_thread")
QUESTIONS = ["What is it?", "Which organ does this picture show, and from where?"]


@torch.no_grad()
def test_questions_about_several_media_are_answered_as_each_is_alone(model, processor, film, picture) -> None:
    media = [("video", film(), QUESTIONS), ("image", picture(), QUESTIONS[1:]), ("video", film(1, 7), QUESTIONS)]
    asked = [
        MediumQuestions(processor.process_clip(processor.load(source, kind=kind)), questions, [None] * len(questions))
        for kind, source, questions in media
    ]
    together = answer_questions(model, processor, asked, max_new_tokens=4)
    for (kind, source, questions), answers in zip(media, together, strict=True):
        for words, shared in zip(questions, answers, strict=True):
            content = [{"type": kind, kind: source}, {"type": "text", "text": words}]
            alone = answer(model, processor, [{"role": "user", "content": content}], max_new_tokens=4)
            assert (shared.text, shared.likeliest) == (alone.text, alone.likeliest)
            assert shared.confidence == pytest.approx(alone.confidence, rel=1e-3)


def test_a_question_may_have_a_threshold_of_its_own(model, processor, picture, monkeypatch) -> None:
    calibration = {"weights": [1.0, 0.0, 0.0], "bias": 0.0, "threshold": 0.0}
    monkeypatch.setattr(model.config, "answer_calibration", calibration, raising=False)
    asked = MediumQuestions(processor.process_clip(processor.load(picture())), QUESTIONS[:1] * 2, [None, 1.0])
    ((never, always),) = answer_questions(model, processor, [asked], max_new_tokens=4)
    assert not never.declined
    assert (always.text, always.declined, always.likeliest) == (CANNOT_TELL, True, never.text)


def test_what_cannot_be_asked_is_told(model, processor, picture) -> None:
    processed = processor.process_clip(processor.load(picture()))
    with pytest.raises(ValueError, match="no answer_calibration"):
        answer_questions(model, processor, [MediumQuestions(processed, QUESTIONS, [None, 0.5])])
    with pytest.raises(ValueError, match=r"an answer may have \d+ at most, not 5000; keep fewer frames"):
        answer_questions(model, processor, [MediumQuestions(processed, QUESTIONS, [None, None])], max_new_tokens=5000)
