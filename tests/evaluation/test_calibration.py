# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Figures of a confidence, on answers whose figures can be told beforehand, and the regression that is fitted."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from evaluation.calibration import (
    area_under_curve,
    expected_error,
    figures,
    fit,
    gain_of_surest,
    threshold_for,
)


def test_a_confidence_that_is_as_often_right_as_it_says_has_no_expected_error() -> None:
    confidences = np.repeat([0.25, 0.75], 40)
    right = np.concatenate([np.arange(40) % 4 == 0, np.arange(40) % 4 != 0])
    assert expected_error(confidences, right) == pytest.approx(0, abs=1e-9)


def test_a_confidence_that_is_always_too_high_errs_by_the_difference() -> None:
    assert expected_error(np.full(20, 0.9), np.arange(20) % 2 == 0) == pytest.approx(0.4)


@given(st.lists(st.tuples(st.sampled_from([0.1, 0.4, 0.5, 0.9]), st.booleans()), min_size=2, max_size=40))
def test_the_area_under_the_curve_is_that_of_scikit_learn(answers) -> None:
    confidences, right = np.array([one for one, _ in answers]), np.array([one for _, one in answers])
    found = area_under_curve(confidences, right)
    if right.all() or not right.any():
        assert math.isnan(found)
    else:
        assert found == pytest.approx(roc_auc_score(right, confidences))


def test_the_surer_half_is_compared_with_all() -> None:
    assert gain_of_surest(np.array([0.9, 0.8, 0.2, 0.1]), np.array([True, True, False, False])) == 0.5


def test_figures_have_intervals_over_pictures_and_are_none_where_there_are_none() -> None:
    confidences, right = [0.9, 0.8, 0.3, 0.2] * 5, [True, True, True, False] * 5
    found = figures(confidences, right, [f"picture {place // 2}" for place in range(20)])
    assert found["count"] == 20
    low, high = found["area_under_curve"]["interval"]
    assert low <= found["area_under_curve"]["value"] <= high
    assert figures([0.9, 0.8], [True, True], ["a", "a"])["area_under_curve"] == {"value": None, "interval": None}


def test_the_fitted_confidence_is_as_often_right_as_it_says() -> None:
    rng = np.random.default_rng(0)
    probabilities = rng.uniform(0.3, 1.0, 3000)
    right = rng.random(3000) < probabilities**2  # the tokens' own probabilities say too much
    log_probabilities = [[math.log(one), math.log(one)] for one in probabilities]
    calibrated = fit(log_probabilities, right.tolist())
    confidences = np.array([calibrated.confidence(one) for one in log_probabilities])
    assert expected_error(probabilities, right) > 0.1
    assert expected_error(confidences, right) < 0.03
    assert np.corrcoef(confidences, probabilities)[0, 1] > 0.9


def test_nothing_can_be_fitted_to_answers_that_are_all_right() -> None:
    with pytest.raises(ValueError, match="right and wrong answers"):
        fit([[-0.1], [-0.2]], [True, True])


@given(st.lists(st.floats(0.01, 0.99), min_size=1, max_size=50), st.floats(0, 0.5))
def test_no_more_than_the_share_lies_below_the_threshold(confidences, share) -> None:
    threshold = threshold_for(confidences, share)
    assert sum(one < threshold for one in confidences) <= share * len(confidences)
