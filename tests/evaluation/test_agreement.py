# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Agreement of grades: what kappa says of perfect, chance and near answers, and of answers that are no grade."""

from __future__ import annotations

import pytest

from evaluation.agreement import weighted_kappa

GRADES = ("none", "mild", "severe")


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch) -> None:
    """What is tested does not depend on how often groups are drawn, and each drawing takes milliseconds."""
    monkeypatch.setattr("evaluation.resampling.RESAMPLES", 50)


def kappa(true: list[str], given: list[str]) -> dict:
    return weighted_kappa(true, given, GRADES, groups=range(len(true)))


def test_perfect_answers_agree_wholly_and_one_answer_for_all_by_chance_alone() -> None:
    true = ["none", "mild", "severe", "none"]
    assert kappa(true, true)["value"] == pytest.approx(1)
    assert kappa(true, ["mild"] * 4)["value"] == pytest.approx(0)


def test_a_miss_by_two_steps_is_worse_than_one_by_one_step() -> None:
    true = ["none", "mild", "severe", "none"]
    near, far = kappa(true, ["mild", "mild", "severe", "none"]), kappa(true, ["severe", "mild", "severe", "none"])
    assert far["value"] < near["value"] < 1


def test_an_answer_that_is_no_grade_counts_as_the_farthest_one() -> None:
    true = ["none", "mild", "severe", "none"]
    assert kappa(true, ["a dog", "mild", "severe", "none"]) == kappa(true, ["severe", "mild", "severe", "none"])


def test_the_interval_holds_the_value_and_one_grade_alone_has_neither() -> None:
    found = kappa(["none", "mild", "severe"] * 8, ["none", "mild", "mild"] * 8)
    assert found["interval"][0] <= found["value"] <= found["interval"][1]
    assert found["count"] == 24
    assert kappa(["none"] * 3, ["none"] * 3) == {"value": None, "interval": None, "count": 3}
