# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Before it has learned anything, a visual token already leans to the words for where it lies."""

from __future__ import annotations

import pytest
import torch

from train.checkpoints.assemble import start_projector
from train.nano.places import start_places


@pytest.fixture
def model(make_model, tokenizer):
    made = make_model(projector_context=True)
    start_projector(made.model.projector, scale=0.1)
    start_places(made, tokenizer)
    return made.requires_grad_(False)


def embedding(model, tokenizer, word: str) -> torch.Tensor:
    spelt = [tokenizer(start + word, add_special_tokens=False).input_ids for start in ("", " ")]
    return torch.stack([model.get_input_embeddings().weight[tokens].mean(dim=0) for tokens in spelt]).mean(dim=0)


@pytest.mark.parametrize(
    "place, words",
    [
        ((0.5, 0.1), {"left"}),
        ((0.5, 0.9), {"right"}),
        ((0.1, 0.5), {"upper"}),
        ((0.9, 0.5), {"lower"}),
        ((0.2, 0.8), {"upper", "right"}),
        ((0.5, 0.5), set()),
    ],
)
def test_a_token_leans_to_the_words_for_its_place(model, tokenizer, place, words):
    hidden = torch.zeros(1, model.config.vision_config.hidden_size)
    added = model.model.projector.context(hidden, torch.tensor([0]), torch.tensor([place]))[0]
    said = set()
    for first, last in (("upper", "lower"), ("left", "right")):
        towards = embedding(model, tokenizer, first) - embedding(model, tokenizer, last)
        share = float(added @ towards / towards.square().sum())
        if abs(share) > 0.2:
            said.add(first if share > 0 else last)
    assert said == words
