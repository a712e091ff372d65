# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Requests for a short answer: they follow some questions, never change an answer, and agree with it."""

import numpy as np
import pytest

from train.dataset.question_endings import SHORTLY, YES_OR_NO, with_endings

CHOICES = "What does this image show?\nA. polyp\nB. ulcer"


def draw(question: str, answer: str, share: float, times: int = 200) -> list[str]:
    """The question as it is asked so many times."""
    rng = np.random.default_rng(0)
    turns = with_endings(((question, answer),) * times, share, rng)
    assert {said for _, said in turns} == {answer}
    return [asked for asked, _ in turns]


def test_about_the_asked_share_of_the_questions_gets_a_request():
    asked = draw("Which organ is it?", "liver", 0.25)
    assert 30 <= sum(one != "Which organ is it?" for one in asked) <= 70
    assert draw("Which organ is it?", "liver", 0.0) == ["Which organ is it?"] * 200


def test_yes_or_no_is_asked_for_only_where_that_is_the_answer():
    closed, opened = draw("Is there a mass?", "no", 1.0), draw("Which organ is it?", "north pole", 1.0)
    assert any(one.endswith(YES_OR_NO) for one in closed) and any(one.endswith(SHORTLY) for one in closed)
    assert all(one.endswith(SHORTLY) for one in opened)


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        (CHOICES, "A"),
        ("Describe the image.", "An axial CT slice of the abdomen without a lesion."),
    ],
)
def test_choices_and_long_answers_are_asked_as_before(question, answer):
    assert set(draw(question, answer, 1.0, 20)) == {question}


@pytest.mark.parametrize(
    "answer", ["This is not a medical image.", "I cannot tell the patient's age from this image: the record says it."]
)
def test_what_cannot_be_told_cannot_be_told_shortly_either(answer):
    assert all(one != "How old is the patient?" for one in draw("How old is the patient?", answer, 1.0, 20))


def test_the_placeholder_of_a_medium_is_no_line_of_the_question():
    assert draw("<media>\nWhich organ is it?", "liver", 1.0, 1)[0].startswith("<media>\nWhich organ is it?")
