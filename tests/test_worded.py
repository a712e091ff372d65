# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Pictures told in words: what stands where, that answers follow from the words, and that no picture is needed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hub_model.processing_omniv_med import MEDIA_TOKEN
from train.data.conversations import IGNORED, Conversation, encode_conversation, pack
from train.data.phantoms import KINDS_OF, MODALITIES, generate
from train.data.pool import PoolPlan, build_pool
from train.data.worded import (
    CLIPS_AGAIN,
    LONGEST,
    TURNS,
    WordedConversations,
    places_of_words,
    word_of,
    worded_conversation,
)
from train.told_words import FADING, as_visual_tokens, centre_and_loudness, word_directions

FACTS = {
    "modality": "CT",
    "plane": "axial",
    "region": "chest",
    "lesion": "yes",
    "finding": "nodule",
    "size": "12 mm",
    "measured": "the nodule",
}


@pytest.fixture(scope="module")
def pool(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pool")
    build_pool(folder, PoolPlan(seed=3, images=6, clips=2, modalities=("CT", "ultrasound")), processes=1)
    return folder


@given(st.integers(0, 2**32 - 1))
def test_all_facts_are_told_and_yes_and_no_follow_from_them(seed) -> None:
    conversation = worded_conversation(FACTS, "image", np.random.default_rng(seed))
    words = conversation.clips[0].words
    assert set(words) == {"CT", "axial", "chest", "abnormal", "nodule", "12"}
    assert len(words) <= LONGEST
    assert 0 < len(conversation.turns) <= TURNS
    for question, answer in conversation.turns:
        if question.startswith("Is the imaging modality "):
            assert (answer == "yes") == question.endswith(" CT?")
        if question == "What is the greatest diameter of the nodule?":
            assert answer == "12 mm"


def test_true_and_false_statements_about_one_picture_mostly_come_together() -> None:
    together = 0
    for seed in range(40):
        answers = [answer for _, answer in worded_conversation(FACTS, "image", np.random.default_rng(seed)).turns]
        together += {"yes", "no"} <= set(answers)
    assert together > 20


@settings(max_examples=14, deadline=None)
@given(st.sampled_from(MODALITIES), st.integers(0, 100))
def test_every_kind_of_sample_can_be_told(modality, seed) -> None:
    for kind in KINDS_OF[modality]:
        rng = np.random.default_rng(seed)
        told = worded_conversation(generate(modality, kind, rng).facts, kind, rng)
        assert modality in told.clips[0].words


def test_words_stand_where_the_visual_tokens_would_and_answers_alone_are_scored(processor) -> None:
    conversation = worded_conversation(FACTS, "image", np.random.default_rng(0))
    item = encode_conversation(conversation, processor, separate=True)
    text = processor.tokenizer.decode(item["input_ids"])
    words = " ".join(conversation.clips[0].words)
    assert text.startswith(f"<|im_start|>user\n<|vision_start|> {words}<|vision_end|>")
    assert MEDIA_TOKEN not in text
    assert "pixel_values" not in item
    scored = processor.tokenizer.decode(item["labels"][item["labels"] != IGNORED])
    assert [part.strip() for part in scored.split("<|im_end|>")[:-1]] == [answer for _, answer in conversation.turns]


def test_a_pool_is_told_without_its_pixels_and_always_alike(pool) -> None:
    told, again, other = WordedConversations(pool, 1), WordedConversations(pool, 1), WordedConversations(pool, 2)
    assert len(told) == 6 + 2 * CLIPS_AGAIN
    assert [told[i] for i in range(16)] == [again[i] for i in range(16)]
    assert told[0] != other[0]


def test_a_lesion_is_told_as_more_than_yes_and_a_size_without_its_unit() -> None:
    assert (word_of("lesion", "no"), word_of("size", "7 mm"), word_of("region", "knee")) == ("normal", "7", "knee")


def test_each_told_word_has_a_number_of_its_own_in_a_packed_row(pool, processor) -> None:
    def item(conversation):
        encoded = encode_conversation(conversation, processor, separate=True)
        return encoded | {"told": places_of_words(conversation, encoded["input_ids"], processor.tokenizer)}

    conversations = [worded_conversation(FACTS, "image", np.random.default_rng(seed)) for seed in (0, 1)]
    spoken = encode_conversation(Conversation((("Hello", "Good day."),)), processor)
    row = pack([item(conversations[0]), spoken, item(conversations[1])])
    words = [word for one in conversations for word in one.clips[0].words]
    assert row["told"].shape == row["input_ids"].shape
    for number, word in enumerate(words, start=1):
        assert processor.tokenizer.decode(row["input_ids"][row["told"] == number]) == f" {word}"
    assert "told" not in pack([spoken])


def test_a_told_word_is_one_vector_as_loud_as_words_are_and_near_the_tokens_that_spell_it() -> None:
    torch.manual_seed(0)
    embeddings = torch.nn.Embedding(500, 64)
    ids, told = torch.tensor([[3, 10, 11, 12, 4, 20]]), torch.tensor([[0, 1, 1, 2, 0, 0]])
    embedded = embeddings(ids)
    shown = as_visual_tokens(embeddings, embedded, told)
    centre, loudness = centre_and_loudness(embeddings.weight)
    assert torch.equal(shown[told == 0], embedded[told == 0])
    assert torch.allclose((shown - centre)[told > 0].norm(dim=-1), loudness.expand(3), rtol=1e-4)
    word = (embedded[0, 1] - centre) + FADING * (embedded[0, 2] - centre)
    angles = torch.nn.functional.cosine_similarity((shown - centre)[0, 1:4], word[None])
    assert angles[:2].min() > 0.6 > angles[2]


def test_numbers_of_the_same_digits_look_different() -> None:
    torch.manual_seed(0)
    one, two = torch.randn(2, 64)
    directions = word_directions(torch.stack([one, two, two, one]), torch.tensor([0, 0, 1, 1]))
    assert torch.allclose(directions.norm(dim=-1), torch.ones(2))
    assert float(directions[0] @ directions[1]) < 0.95
