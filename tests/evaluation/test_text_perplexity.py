# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Perplexity on text: what the formula says, 1 for an untouched model, more for a ruined one, and a fit text."""

from __future__ import annotations

import math
import shutil

import pytest
import torch

from evaluation.nano.text_perplexity import HELD_OUT, compare_on_text, mean_with_interval, passages_of
from hub_model.modeling_omniv_med import OmniVMedForConditionalGeneration
from train.dataset.text_replay import PROMPTS

pytestmark = pytest.mark.usefixtures("one_thread")
TEXT = "The ferry left the harbour at half past six.\n\nA kidney filters the blood.\n\nIt rained all day in the hills."


def test_a_model_against_itself_has_ratio_one(tiny) -> None:
    result = compare_on_text(str(tiny), str(tiny), TEXT)
    assert result["ratio"] == {"value": 1.0, "interval": [1.0, 1.0]}
    assert result["passages"] == 3
    assert result["within_allowed_change"]


def test_perplexity_is_that_of_the_models_own_loss(tiny, model, tokenizer) -> None:
    result = compare_on_text(str(tiny), str(tiny), TEXT)
    total, count = 0.0, 0
    for passage in passages_of(TEXT):
        ids = torch.tensor([tokenizer(passage, add_special_tokens=False).input_ids])
        with torch.no_grad():
            total += float(model(input_ids=ids, labels=ids).loss) * (ids.shape[1] - 1)
        count += ids.shape[1] - 1
    assert result["scored_tokens"] == count
    assert result["model"]["perplexity"]["value"] == pytest.approx(math.exp(total / count), rel=1e-4)


def test_a_ruined_language_model_is_seen(tiny, tmp_path) -> None:
    ruined = tmp_path / "ruined"
    shutil.copytree(tiny, ruined)
    changed = OmniVMedForConditionalGeneration.from_pretrained(tiny)
    with torch.no_grad():  # the random model is no good reader, but one that is too sure of itself reads still worse
        changed.model.language_model.norm.weight *= 3
    changed.save_pretrained(ruined)
    shutil.copy(tiny / "config.json", ruined)
    result = compare_on_text(str(ruined), str(tiny), TEXT)
    assert result["ratio"]["interval"][0] > 1.1
    assert not result["within_allowed_change"]


def test_an_interval_covers_its_value_and_has_none_for_one_passage() -> None:
    spread = mean_with_interval([[1.0, 2.0], [3.0], [2.0, 2.5, 1.5]])
    assert spread["interval"][0] < spread["value"] < spread["interval"][1]
    assert mean_with_interval([[1.0, 2.0]])["interval"] is None


def test_a_name_without_a_model_is_refused(tiny) -> None:
    with pytest.raises(ValueError, match="no model that can be loaded"):
        compare_on_text(str(tiny / "nothing"), str(tiny), TEXT)


def test_the_held_out_text_is_long_varied_and_not_trained_on() -> None:
    text = HELD_OUT.read_text(encoding="utf-8")
    assert len(text.split()) >= 3000
    assert len(passages_of(text)) == 28
    assert not any(prompt in text for prompt in PROMPTS)
