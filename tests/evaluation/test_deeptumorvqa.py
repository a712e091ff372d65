# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""DeepTumorVQA's own rule: numbers by their relative error, yes or no, other words exactly, choices by letter."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from evaluation.deeptumorvqa import FREE_METRICS, free_scores, is_choice_right
from evaluation.score import score_file, summarise


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("210 cm3", [1, 1, 1, 1, 1]),
        ("It is about 189.0 cm3, not 300.", [0.9, 0, 1, 1, 1]),
        ("<think>500</think> 273", [0.7, 0, 0, 0, 1]),
        ("4000", [0, 0, 0, 0, 0]),
        ("large", [0, 0, 0, 0, 0]),
    ],
)
def test_a_number_has_one_minus_its_relative_error_and_hits(reply, expected):
    found = free_scores(reply, "210 cm3")
    assert [found[name] for name in FREE_METRICS] == pytest.approx(expected)


def test_of_zero_only_zero_is_right():
    assert free_scores("0 lesions", "0")["free_score"] == 1
    assert free_scores("1", "0") == dict.fromkeys(FREE_METRICS, 0.0)


@pytest.mark.parametrize(
    ("reply", "answer", "right"),
    [
        ("No, there is none.", "no", True),
        ("Yes.", "no", False),
        ("pancreatic head.", "Pancreatic Head", True),
        ("the pancreatic head", "Pancreatic Head", False),
    ],
)
def test_other_answers_are_right_or_wrong(reply, answer, right):
    assert free_scores(reply, answer) == {"free_score": float(right)}


@pytest.mark.parametrize(
    ("reply", "right"),
    [
        ("B. no", True),
        ("option B", True),
        ("<think>A</think>B", True),
        ("A or B", False),
        ("Answer: B", False),  # the rule reads the A of "Answer"
        ("none", False),
    ],
)
def test_a_choice_is_the_first_letter_that_stands_there(reply, right):
    assert is_choice_right(reply, "B") is right


def test_free_answers_are_averaged_together_and_hits_over_numbers_alone(tmp_path: Path):
    rows = [
        {"answer": "100 mm", "answer_type": "open", "prediction": "80"},
        {"answer": "no", "answer_type": "closed", "prediction": "No."},
        {"answer": "liver", "answer_type": "open", "prediction": "spleen"},
        {"answer": "C", "answer_type": "choice", "choices": ["a", "b", "c", "d"], "prediction": "C"},
    ]
    path = tmp_path / "predictions.jsonl"
    path.write_text("".join(json.dumps({"id": str(n), "question": "?", **row}) + "\n" for n, row in enumerate(rows)))
    found = summarise(score_file(path, "deeptumorvqa"), "deeptumorvqa")
    assert found["free_score"] == pytest.approx((0.8 + 1 + 0) / 3)
    assert (found["within_10_percent"], found["within_20_percent"], found["choice_accuracy"]) == (0, 1, 1)
    assert (found["n_open"], found["n_closed"], found["n_choice"], found["n_broken"]) == (3, 0, 1, 0)
