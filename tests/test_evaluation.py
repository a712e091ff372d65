# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The evaluation on generated samples: what counts as right, its intervals, and that the questions are held out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from evaluation.generated_split import HELD_OUT_SEED, Answered, accuracy, answer, held_out, report, wilson_interval
from train.data.questions import Question

CONFIGS = Path(__file__).resolve().parents[1] / "train" / "configs" / "nano"


def answered(prediction: str, truth: str = "CT", modality: str = "CT") -> Answered:
    return Answered(modality, "image", Question("modality recognition", "Which?", truth), prediction)


@pytest.mark.parametrize("prediction", ["CT", "ct", " CT. ", "Ct\n"])
def test_case_space_and_a_full_stop_do_not_make_an_answer_wrong(prediction: str) -> None:
    assert answered(prediction).right


@pytest.mark.parametrize("prediction", ["", "MRI", "CT scan", "not CT"])
def test_anything_else_is_wrong(prediction: str) -> None:
    assert not answered(prediction).right


def test_the_wilson_interval_gives_the_published_example() -> None:
    """Newcombe 1998, Statistics in Medicine 17:857, table I, method 3: 81 of 263 and 0 of 20."""
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson_interval(0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)


def test_a_report_names_counts_and_the_most_frequent_answer() -> None:
    rows = [answered("CT"), answered("CT"), answered("MRI"), answered("MRI", "MRI", "MRI")]
    result = report(rows)
    assert result["all"]["accuracy"] == 0.75
    assert result["all"]["most_frequent_answer"] == 0.75
    assert result["modality"]["CT"]["count"] == 3
    assert sum(group["count"] for group in result["task"].values()) == 4
    assert accuracy(rows)["interval"][0] < 0.75 < accuracy(rows)["interval"][1]


def test_the_questions_are_repeatable_and_of_a_seed_that_no_training_uses() -> None:
    first, again = held_out(16), held_out(16)
    assert [question for _, question in first] == [question for _, question in again]
    np.testing.assert_array_equal(first[3][0].frames, again[3][0].frames)
    seeds = {yaml.safe_load(path.read_text(encoding="utf-8"))["seed"] for path in CONFIGS.glob("*.yaml")}
    assert HELD_OUT_SEED not in seeds | {seed + 1 for seed in seeds}


def test_every_question_gets_the_answer_it_would_get_alone(model, processor) -> None:
    drawn = held_out(3)
    together = [one.prediction for one in answer(model, processor, drawn, batch_size=3)]
    assert together == [one.prediction for one in answer(model, processor, drawn, batch_size=1)]
