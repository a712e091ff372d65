# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""MedEvalKit's figures, computed by hand from its rules, its faults included."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.medevalkit import (
    OPEN_METRICS,
    ToolError,
    bleu,
    is_choice_right,
    is_closed_right,
    open_scores,
    overlap,
    parse,
    rotate,
    rouge,
)

CHOICES = ["Liver", "Spleen", "Left kidney"]


@pytest.mark.parametrize(
    ("reply", "scored"),
    [
        ("Left Lung", "left lung"),
        (" left lung\n", " left lung\n"),
        ("The answer is left lung", " left lung"),
        ("**Answer**: left lung", " left lung"),
        ("**Answer** left lung", " left lung"),
        ("*Answer*: left lung", " left lung"),
        ("**Answer:** left lung", " left lung"),
        ("Answer: left. Answer: right", " right"),
        ("答案:左肺", "左肺"),
        ("答案\uff1a左肺", "答案\uff1a左肺"),
        ("Final answer left lung", " left lung"),
        ("Final answer is left lung", " left lung"),
        # In order: "answer is" is tried before "answer:", and again on what that left.
        ("answer: left, answer is right", " right"),
        ("answer is left, answer: right", " right"),
        ("final answer: left, final answer right", " right"),
        (r"So \boxed{Left {Lung}}", "left {lung}"),
        (r"\boxed{a} or \boxed{ b }", "b"),
        ("a boxed region", "None"),
        ("<answer>left</answer> and <answer>lung</answer>", "left lung"),
        ("<answer>left", "<answer>left"),
    ],
)
def test_the_part_of_a_reply_that_is_scored(reply: str, scored: str) -> None:
    assert parse(reply) == scored


def test_an_announced_answer_is_no_exact_match_because_its_space_stays() -> None:
    assert open_scores("Left lung", "left lung")["em"] == 1
    assert open_scores("The answer is left lung", "left lung")["em"] == 0
    assert open_scores("left lung.", "left lung")["em"] == 0
    assert open_scores("A boxed region, <answer>left lung</answer>", "left lung")["em"] == 1


@pytest.mark.parametrize(
    ("reply", "answer", "values"),
    [
        ("the left lung", "left lung", (2 / 3, math.sqrt(2 / 3 * 1 / 2), 0, 0)),
        # The space that stays is an empty token.
        (" left lung", "left lung", (2 / 3, math.sqrt(2 / 3 * 1 / 2), 0, 0)),
        ("left lung.", "left lung", (2 / 3, math.sqrt(2 / 3 * 1 / 2), 0, 0)),
        ("left lung", "left lung", (1, 1, 0, 0)),
        ("left", "left lung", (math.exp(-1), 0, 0, 0)),
        ("a b c d e", "a b c d f", (0.8, math.sqrt(0.8 * 3 / 4), (0.8 * 3 / 4 * 2 / 3) ** (1 / 3), 0.2 ** (1 / 4))),
        ("right", "left", (0, 0, 0, 0)),
    ],
)  # fmt: skip
def test_bleu_is_not_smoothed(reply: str, answer: str, values: tuple[float, ...]) -> None:
    assert [bleu(reply, answer, order) for order in (1, 2, 3, 4)] == pytest.approx(values, abs=1e-9)


def test_rouge_adds_a_hundred_millionth_to_the_divisor() -> None:
    assert rouge("left lung", "left lung") == pytest.approx((2 / (2 + 1e-8),) * 3, abs=1e-12)
    assert rouge("the left lung", "left lung") == pytest.approx((4 / 5, 2 / 3, 4 / 5), abs=1e-6)


def test_precision_recall_and_f1_are_of_sets() -> None:
    assert overlap("left left lung", "left lung lobe") == pytest.approx((1, 2 / 3, 4 / 5))
    assert overlap("left.", "left") == (0, 0, 0)


def test_its_columns_are_rotated() -> None:
    assert rotate(precision=1.0, recall=2 / 3, f1=4 / 5) == {"precision": 4 / 5, "recall": 1.0, "f1": 2 / 3}


@pytest.mark.parametrize("reply", ["", " ", "\n", "...", "The answer is", "<answer> </answer>. Answer: "])
def test_it_stops_at_replies_without_tokens(reply: str) -> None:
    """Its F1 returns one number there and its caller reads three, unless ROUGE has failed before."""
    with pytest.raises(ToolError):
        open_scores(reply, "left lung")


def test_it_stops_at_texts_too_long_for_the_recursion_of_its_rouge() -> None:
    with pytest.raises(ToolError, match="ROUGE"):
        rouge("word " * 1500, "text " * 1500)


@pytest.mark.parametrize(
    ("reply", "answer", "right"),
    [
        ("yes", "yes", True),
        ("Yes, there is.", "Yes", True),
        ("y.e\ns", "yes", True),
        ("no", "yes", False),
        ("yes and no", "yes", False),
        # "no" stands in "nodule": with "yes" both are there, alone it is a no.
        ("yes, a nodule", "yes", False),
        ("a nodule", "no", True),
        ("", "no", False),
        ("Left.", "left", True),
        ("the left", "left", False),
        ("The answer is left", "left", False),
        ("The answer is yes", "yes", True),
        ("是", "是", True),
    ],
)
def test_closed_questions(reply: str, answer: str, right: bool) -> None:
    assert is_closed_right(reply, answer) is right


def test_its_slake_task_compares_a_capital_yes_like_any_other_answer() -> None:
    assert is_closed_right("Yes, there is.", "Yes") and is_closed_right("Yes.", "Yes", only_lower_case=True)
    assert not is_closed_right("Yes, there is.", "Yes", only_lower_case=True)
    assert is_closed_right("Yes, there is.", "yes", only_lower_case=True)


@pytest.mark.parametrize(
    ("reply", "answer", "right"),
    [
        ("B", "B", True),
        ("b. spleen", "B", True),
        ("B\n\nIt lies on the left.", "B", True),
        ("It lies on the left.\n\nB. Spleen", "B", True),
        ("The answer is B.", "B", True),
        ("Organ:B", "B", True),
        # The space that stays after a colon makes it no letter.
        ("Organ: B", "B", False),
        ("spleen", "B", True),
        ("B", "Spleen", True),
        ("Spleen", "spleen", True),
        ("A", "B", False),
        # Not a letter to it: the most similar choice counts, and the first where all are alike.
        ("the spleen", "B", True),
        ("(B)", "B", False),
        ("", "A", True),
        ("", "B", False),
    ],
)
def test_multiple_choice(reply: str, answer: str, right: bool) -> None:
    assert is_choice_right(reply, answer, CHOICES) is right


def test_multiple_choice_needs_choices() -> None:
    with pytest.raises(ToolError, match="no choices"):
        is_choice_right("B", "B", [])


@given(st.lists(st.sampled_from(["left", "lung", ".", "答案:", "answer is", " ", "左"]), max_size=8).map(" ".join))
def test_a_reply_has_shares_or_stops_the_tool(reply: str) -> None:
    try:
        scores = open_scores(reply, "left lung")
    except ToolError:
        assert not parse(reply).split() or not parse(reply).replace(".", "").strip(" ")
    else:
        assert tuple(scores) == OPEN_METRICS
        assert all(0 <= value <= 1 for value in scores.values())
