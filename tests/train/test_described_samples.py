# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Described samples: where pseudo-visual tokens stand, that answers follow from the facts, that no pixels are read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data_engine.phantoms import KINDS_OF, MODALITIES, generate
from data_engine.pool import PoolPlan, build_pool
from hub_model.prompt_omniv_med import MEDIA_TOKEN
from train.dataset.conversations import IGNORED, Conversation, encode_conversation, pack
from train.dataset.described_samples import (
    CLIP_REPEATS,
    MAX_TURNS,
    TOKEN_COUNTS,
    DescribedClip,
    DescribedConversations,
    described_conversation,
    fact_vocabulary,
    pseudo_visual_inputs,
)
from train.pseudo_visual_tokens import (
    NO_FACT,
    SWAPPED_SHARE,
    FactEmbeddings,
    fact_indices,
    text_of_fact,
    value_directions,
)

FACTS = {
    "modality": "CT",
    "plane": "axial",
    "region": "chest",
    "lesion": "yes",
    "finding": "nodule",
    "size": "12 mm",
    "measured": "the nodule",
}
VOCABULARY = fact_vocabulary([FACTS, {"modality": "OCT", "lesion": "no"}])
INDICES = fact_indices(VOCABULARY)


@pytest.fixture(scope="module")
def pool(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pool")
    build_pool(folder, PoolPlan(seed=3, images=6, clips=2, modalities=("CT", "ultrasound")), processes=1)
    return folder


def described(facts: dict[str, str], tokens: int) -> Conversation:
    """The facts in their order, as so many pseudo-visual tokens, or as text."""
    words = tuple((name, value) for name, value in facts.items() if name != "measured")
    turns = described_conversation(facts, "image", np.random.default_rng(0)).turns
    return Conversation(turns, (DescribedClip(words, tokens),), ("image",))


@given(st.integers(0, 2**32 - 1))
def test_all_facts_are_described_and_yes_and_no_follow_from_them(seed) -> None:
    conversation = described_conversation(FACTS, "image", np.random.default_rng(seed))
    assert dict(conversation.clips[0].facts) == {name: FACTS[name] for name in FACTS if name != "measured"}
    assert 0 < len(conversation.turns) <= MAX_TURNS
    for question, answer in conversation.turns:
        if question.startswith("Is the imaging modality "):
            assert (answer == "yes") == question.endswith(" CT?")
        if question == "What is the greatest diameter of the nodule?":
            assert answer == "12 mm"


def test_true_and_false_statements_about_one_picture_mostly_come_together() -> None:
    together = 0
    for seed in range(40):
        answers = [answer for _, answer in described_conversation(FACTS, "image", np.random.default_rng(seed)).turns]
        together += {"yes", "no"} <= set(answers)
    assert together > 20


@settings(max_examples=14)
@given(st.sampled_from(MODALITIES), st.integers(0, 100))
def test_every_kind_of_sample_can_be_described(modality, seed) -> None:
    for kind in KINDS_OF[modality]:
        rng = np.random.default_rng(seed)
        told = described_conversation(generate(modality, kind, rng).facts, kind, rng)
        assert ("modality", modality) in told.clips[0].facts


@pytest.mark.parametrize("tokens", [0, *TOKEN_COUNTS])
def test_pseudo_visual_tokens_stand_where_an_image_s_would_and_answers_alone_are_scored(processor, tokens) -> None:
    conversation = described(FACTS, tokens)
    item = encode_conversation(conversation, processor, separate=True)
    shown = tokens * MEDIA_TOKEN or " CT axial chest abnormal nodule 12"
    text = processor.tokenizer.decode(item["input_ids"])
    assert f"<|im_start|>user\n<|vision_start|>{shown}<|vision_end|>" in text
    assert "pixel_values" not in item
    scored = processor.tokenizer.decode(item["labels"][item["labels"] != IGNORED])
    assert [part.strip() for part in scored.split("<|im_end|>")[:-1]] == [answer for _, answer in conversation.turns]


def test_half_of_the_samples_are_described_as_text_and_the_rest_by_as_many_tokens_as_images_and_volumes_have() -> None:
    tokens = [described_conversation(FACTS, "image", np.random.default_rng(i)).clips[0].tokens for i in range(400)]
    assert 150 < tokens.count(0) < 250
    for count, share in TOKEN_COUNTS.items():
        assert tokens.count(count) == pytest.approx(200 * share, abs=30)


def test_a_pool_is_described_without_its_pixels_and_always_alike(pool) -> None:
    one, again, other = (DescribedConversations(pool, seed) for seed in (1, 1, 2))
    assert len(one) == 6 + 2 * CLIP_REPEATS
    assert [one[i] for i in range(16)] == [again[i] for i in range(16)]
    assert one[0] != other[0]


def test_a_lesion_is_described_as_more_than_yes_and_a_size_without_its_unit() -> None:
    facts = {"lesion": "no", "size": "7 mm", "region": "knee"}
    assert [text_of_fact(fact, value) for fact, value in facts.items()] == ["normal", "7", "knee"]


def test_a_packed_row_says_which_tokens_show_which_facts_and_holds_no_media(processor) -> None:
    def item(facts, tokens=16):
        conversation = described(facts, tokens)
        encoded = encode_conversation(conversation, processor, separate=True)
        return pseudo_visual_inputs(conversation, encoded, INDICES, processor.image_token_id)

    spoken = encode_conversation(Conversation((("Hello", "Good day."),)), processor)
    few = {"modality": "OCT", "lesion": "no"}
    items = [item(FACTS), spoken, item(few)]
    row = pack(items)
    assert row["pseudo_visual_mask"].shape == row["input_ids"].shape
    assert row["pseudo_visual_facts"].shape == (2 * 16, len(FACTS) - 1) == (int(row["pseudo_visual_mask"].sum()), 6)
    assert not row["pseudo_visual_mask"][0, len(items[0]["input_ids"]) :][: len(spoken["input_ids"])].any()
    for said, facts in zip(row["pseudo_visual_facts"].split(16), (FACTS, few), strict=True):
        words = [INDICES[name, value] for name, value in facts.items() if name != "measured"]
        assert (said == torch.tensor(words + [NO_FACT] * (6 - len(words)))).all()
    assert processor.image_token_id not in row["input_ids"]
    assert not {"pseudo_visual_facts", "pseudo_visual_mask"} & pack([spoken, item(FACTS, tokens=0)]).keys()


def test_values_of_a_fact_point_apart_even_where_their_spelling_is_nearly_the_same(tokenizer) -> None:
    torch.manual_seed(0)
    embeddings = torch.nn.Embedding(len(tokenizer), 64)
    with torch.no_grad():
        embeddings.weight += 2 * torch.randn(64)
    vocabulary = {"count": ["1", "2", "3"], "modality": ["OCT"]}
    embedded = FactEmbeddings(embeddings, tokenizer, vocabulary)
    assert torch.allclose(embedded.directions.norm(dim=-1), torch.ones(4))
    spelled = [embeddings(torch.tensor(tokenizer(f" {n}").input_ids)) - embedded.centre for n in vocabulary["count"]]
    plain = value_directions(torch.cat(spelled), torch.tensor([0, 1, 2]).repeat_interleave(len(spelled[0])))
    for first, second in ((0, 1), (0, 2), (1, 2)):
        assert embedded.directions[first] @ embedded.directions[second] < plain[first] @ plain[second]
        assert embedded.directions[first] @ plain[first] > embedded.directions[first] @ plain[second]


def test_pseudo_visual_tokens_have_the_norm_of_embeddings_and_mix_the_facts_of_their_image_alone(tokenizer) -> None:
    torch.manual_seed(0)
    embeddings = torch.nn.Embedding(len(tokenizer), 512)
    embedded = FactEmbeddings(embeddings, tokenizer, VOCABULARY)
    facts = torch.tensor([[0, 2, NO_FACT]]).expand(400, -1)
    tokens = embedded(facts) - embedded.centre
    assert torch.allclose(tokens.norm(dim=-1), embedded.embedding_norm.expand(400), rtol=1e-4)
    said = torch.nn.functional.normalize(tokens, dim=-1) @ embedded.directions.T
    assert said[:, [0, 2]].amax(dim=1).min() > 0.4, "each token shows at least one of the facts"
    assert (said[:, 0] > 0.6).any()
    assert (said[:, 2] > 0.6).any()
    assert float(said[:, 3].abs().mean()) < 0.1
    assert not torch.equal(embedded(facts), embedded(facts)), "the mixtures are drawn anew"


def test_a_few_tokens_show_the_facts_of_another_image(tokenizer) -> None:
    torch.manual_seed(0)
    embedded = FactEmbeddings(torch.nn.Embedding(len(tokenizer), 512), tokenizer, VOCABULARY)
    facts = torch.tensor([[0], [2]]).repeat_interleave(1000, dim=0)
    said = (embedded(facts) - embedded.centre) @ embedded.directions.T
    share = (said[:, 0] > said[:, 2])[1000:].float().mean()
    assert SWAPPED_SHARE / 4 < share < SWAPPED_SHARE, "the other image's token is drawn in half of the cases"


def test_numbers_of_the_same_digits_look_different() -> None:
    torch.manual_seed(0)
    one, two = torch.randn(2, 64)
    directions = value_directions(torch.stack([one, two, two, one]), torch.tensor([0, 0, 1, 1]))
    assert torch.allclose(directions.norm(dim=-1), torch.ones(2))
    assert float(directions[0] @ directions[1]) < 0.95


@settings(max_examples=20)
@given(st.lists(st.fixed_dictionaries({"modality": st.sampled_from(MODALITIES), "counted": st.just("nuclei")})))
def test_the_vocabulary_holds_every_value_once_and_no_names_of_what_was_counted(facts) -> None:
    vocabulary = fact_vocabulary(facts)
    assert vocabulary == ({"modality": sorted({one["modality"] for one in facts})} if facts else {})
    assert list(fact_indices(vocabulary).values()) == list(range(sum(map(len, vocabulary.values()))))
