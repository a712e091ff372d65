# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The figures of open answers, computed by hand, and the intervals around their means."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.metrics import (
    OPEN_METRICS,
    bleu,
    bootstrap_interval,
    exact_match,
    meteor,
    open_scores,
    rouge,
    token_overlap,
    tokens,
)

words = st.lists(st.sampled_from(["left", "lung", "lungs", "the", "a", "2.5", "cm", "左", "肺", "."]), max_size=8)
texts = words.map(" ".join) | st.text(max_size=30)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("The left lung.", ["left", "lung"]),
        ("T1-weighted, 2.5 cm", ["t1", "weighted", "2.5", "cm"]),
        ("左肺CT图像。", ["左", "肺", "ct", "图", "像"]),
        ("vitamin A", ["vitamin", "a"]),
        ("café", ["café"]),
        (" ... ", []),
    ],
)
def test_tokens(text: str, parts: list[str]) -> None:
    assert tokens(text) == parts


@pytest.mark.parametrize(
    ("prediction", "answer", "match"),
    [("The Left Lung.", "left lung", 1), ("lung", "left lung", 0), ("hepatitis A", "hepatitis", 0), ("", "left", 0)],
)
def test_exact_match(prediction: str, answer: str, match: int) -> None:
    assert exact_match(prediction, answer) == match


@pytest.mark.parametrize(
    ("prediction", "answer", "precision", "recall", "f1"),
    [
        ("left left lung", "left lung lobe", 2 / 3, 2 / 3, 2 / 3),
        ("left", "left lung", 1, 1 / 2, 2 / 3),
        ("左下肺", "左肺", 2 / 3, 1, 4 / 5),
        ("right", "left", 0, 0, 0),
        ("", "left", 0, 0, 0),
    ],
)
def test_repeated_tokens_count_as_often_as_both_hold_them(
    prediction: str, answer: str, precision: float, recall: float, f1: float
) -> None:
    assert token_overlap(prediction, answer) == pytest.approx((precision, recall, f1))


@pytest.mark.parametrize(
    ("prediction", "answer", "order", "value"),
    [
        ("left lower lung", "left lung", 1, 2 / 3),
        # No pair matches: half of one of the two pairs.
        ("left lower lung", "left lung", 2, math.sqrt(2 / 3 * 1 / 4)),
        # Nor does the triple: a quarter of one. There is no fourth order.
        ("left lower lung", "left lung", 3, (2 / 3 * 1 / 4 * 1 / 4) ** (1 / 3)),
        ("left lower lung", "left lung", 4, (2 / 3 * 1 / 4 * 1 / 4) ** (1 / 3)),
        # Shorter than the answer: the brevity penalty, and no order above the first.
        ("left", "left lung", 4, math.exp(1 - 2)),
        ("ct", "CT", 4, 1),
        ("left left left", "left", 1, 1 / 3),
        ("right", "left lung", 4, 0),
        ("", "left lung", 1, 0),
    ],
)
def test_bleu_of_short_answers(prediction: str, answer: str, order: int, value: float) -> None:
    assert bleu(prediction, answer, order) == pytest.approx(value)


@pytest.mark.parametrize(
    ("prediction", "answer", "values"),
    [
        ("left lower lung", "left lung", (4 / 5, 0, 4 / 5)),
        ("lung left", "left lung", (1, 0, 1 / 2)),
        ("左下肺", "左肺", (4 / 5, 0, 4 / 5)),
        ("ct", "ct", (1, 0, 1)),
        ("", "left lung", (0, 0, 0)),
    ],
)
def test_rouge(prediction: str, answer: str, values: tuple[float, float, float]) -> None:
    assert rouge(prediction, answer) == pytest.approx(values)


@pytest.mark.parametrize(
    ("prediction", "answer", "value"),
    [
        ("left lung", "left lung", 1 - 0.5 * (1 / 2) ** 3),
        ("left lungs", "left lung", 1 - 0.5 * (1 / 2) ** 3),
        ("lung left", "left lung", 1 - 0.5),
        ("left", "left lung", (1 - 0.5) * 0.5 / (0.9 * 1 + 0.1 * 0.5)),
        ("ct", "ct", 0.5),
        ("tumour", "neoplasm", 0),
        ("", "left lung", 0),
    ],
)
def test_meteor_by_words_and_stems(prediction: str, answer: str, value: float) -> None:
    assert meteor(prediction, answer) == pytest.approx(value)


@given(texts, texts)
def test_every_figure_is_a_share(prediction: str, answer: str) -> None:
    scores = open_scores(prediction, answer)
    assert tuple(scores) == OPEN_METRICS
    assert all(-1e-9 <= value <= 1 + 1e-9 for value in scores.values())


@given(texts.filter(lambda text: len(tokens(text)) > 1))
def test_the_right_answer_has_full_marks(answer: str) -> None:
    scores = open_scores(answer, answer)
    assert scores.pop("meteor") == pytest.approx(1 - 0.5 / len(tokens(answer)) ** 3)
    assert scores == pytest.approx(dict.fromkeys(scores, 1))


@given(texts, texts)
def test_precision_is_the_recall_of_the_other_direction(prediction: str, answer: str) -> None:
    precision, recall, f1 = token_overlap(prediction, answer)
    assert token_overlap(answer, prediction) == pytest.approx((recall, precision, f1))


@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 5)), min_size=2, max_size=40), st.randoms())
def test_an_interval_holds_the_mean_and_does_not_depend_on_order(rows: list[tuple[int, int]], random) -> None:
    values, groups = [value / 8 for value, _ in rows], [group for _, group in rows]
    interval = bootstrap_interval(values, groups)
    if len(set(groups)) < 2:
        assert interval is None
        return
    low, high = interval
    assert min(values) - 1e-9 <= low <= np.mean(values) + 1e-9
    assert np.mean(values) - 1e-9 <= high <= max(values) + 1e-9
    random.shuffle(rows)
    assert bootstrap_interval([value / 8 for value, _ in rows], [group for _, group in rows]) == (low, high)


def test_an_interval_is_as_wide_as_the_normal_approximation() -> None:
    values = [1.0] * 160 + [0.0] * 240
    low, high = bootstrap_interval(values, range(400))
    half = 1.96 * math.sqrt(0.4 * 0.6 / 400)
    assert (low, high) == pytest.approx((0.4 - half, 0.4 + half), abs=0.005)


def test_questions_of_one_image_widen_the_interval_like_fewer_questions() -> None:
    """Ten questions of an image, all right or all wrong together, say no more than one."""
    right = [1.0] * 16 + [0.0] * 24
    alone = bootstrap_interval(right, range(40))
    repeated = bootstrap_interval([value for value in right for _ in range(10)], [i // 10 for i in range(400)])
    assert repeated == pytest.approx(alone)
