# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The bias on the first word of "This is not a medical image.": fitted, written, and followed by `generate`."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import GenerationConfig

from evaluation.nano.first_word import (
    FILE,
    TAKEN_WRONGLY,
    FirstWordMargin,
    fit_bias,
    read_bias,
    write_bias,
)

margins = st.lists(st.floats(-30, 5), min_size=1, max_size=200)


@given(not_medical=margins, answerable=margins)
def test_no_more_than_a_few_answerable_questions_change(not_medical, answerable):
    replies = ["not medical"] * len(not_medical) + ["answer"] * len(answerable)
    bias = fit_bias([*not_medical, *answerable], replies)
    assert bias >= 0
    changed = sum(-bias < margin <= 0 for margin in answerable)
    assert changed <= TAKEN_WRONGLY * len(answerable)


def test_where_the_two_lie_apart_the_bias_lies_in_the_middle():
    bias = fit_bias([-1.0, -2.0, 3.0, -9.0, -8.5], ["not medical"] * 3 + ["answer"] * 2)
    assert bias == pytest.approx((2.0 + 8.5) / 2)


def test_a_model_that_takes_answerable_questions_so_already_gets_none():
    assert fit_bias([3.0, 4.0, 1.0], ["not medical", "not medical", "answer"]) == 0


def test_a_split_without_either_kind_is_refused():
    with pytest.raises(ValueError, match="needs answerable questions, and pictures that are not medical"):
        fit_bias([1.0], ["answer"])


def test_the_margin_is_that_of_the_first_step_and_changes_nothing():
    near = FirstWordMargin(2)
    first = torch.tensor([[0.0, 4.0, 1.0], [0.0, 1.0, 3.5]])
    assert near(torch.zeros(2, 1, dtype=torch.long), first) is first
    near(torch.zeros(2, 2, dtype=torch.long), torch.zeros(2, 3))
    assert near.margins == [-3.0, 2.5]


def test_what_is_written_is_what_transformers_follows(tmp_path):
    (tmp_path / FILE).write_text(json.dumps({"eos_token_id": 2}))
    write_bias(tmp_path, 7, 1.23456)
    write_bias(tmp_path, 7, 2.5)
    assert read_bias(tmp_path) == [[[7], 2.5]]
    config = GenerationConfig.from_pretrained(tmp_path)
    assert config.sequence_bias == [[[7], 2.5]]
    assert config.eos_token_id == 2
