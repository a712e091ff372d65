# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Every question for a half, a quadrant or a grade is found by its id and measured by what it asks for."""

import pytest

from evaluation.nano.places_and_grades import asks_for_place_or_grade, grades, places
from evaluation.score import Scored

RETINOPATHY = "grade-the-diabetic-retinopathy"


def answered(question: str, answer: str, said: str) -> Scored:
    """An answer to the question of an id, whose picture is its own."""
    row = {"answer": answer, "prediction": said}
    return Scored(1, question, row, "open", question, {"em": float(answer == said)})


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("kvasir-seg/test/0007/place-side", True),
        ("busi/test/0007/place-quadrant", True),
        ("idrid/test/0007/grade-the-risk-of-macular-oedema", True),
        ("kvasir-seg/test/0007/quadrant-upper-left", False),  # whether there is one: yes or no
        ("idrid/test/0007/diagnosis", False),
        ("vqa-rad/test/17", False),
    ],
)
def test_the_id_says_what_is_asked_for(question, expected):
    assert asks_for_place_or_grade(question) is expected


def test_places_are_counted_by_source_beside_the_blind_answers():
    ids = ["busi/test/1/place-side", "busi/test/2/place-height", "arcade/test/1/place-side"]
    truth = ["left", "upper", "right"]
    seeing = [answered(*one, said) for *one, said in zip(ids, truth, ["left", "lower", "right"], strict=True)]
    seeing.append(answered(f"idrid/test/1/{RETINOPATHY}", "grade 2", "grade 2"))
    blind = [answered(one.id, one.row["answer"], "right") for one in seeing]
    found = places(seeing, blind)
    assert {source: (one["accuracy"], one["blind"], one["count"]) for source, one in found.items()} == {
        "arcade": (1.0, 1.0, 1),
        "busi": (0.5, 0.0, 2),
    }


def test_grades_that_all_agree_have_a_kappa_of_one_and_places_have_none():
    rows = [answered(f"idrid/test/{grade}/{RETINOPATHY}", f"grade {grade}", f"grade {grade}") for grade in range(5)]
    rows.append(answered("busi/test/1/place-side", "left", "left"))
    found = grades(rows)
    assert set(found) == {"the diabetic retinopathy"}
    assert found["the diabetic retinopathy"]["value"] == pytest.approx(1.0)
    assert found["the diabetic retinopathy"]["count"] == 5
