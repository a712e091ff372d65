# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""What is trained on: how records become conversations, what is scored, and what a batch mixes."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from data_engine.pool import PoolPlan, SamplePool, build_pool, make_sample
from data_engine.records import RecordError, read_records, write_parquet
from hub_model.media_omniv_med import Clip
from tests.helpers.training_fixtures import LAYOUT, QUESTIONS_PER_MEDIUM, write_set
from train.dataset.conversation_index import ConversationIndex
from train.dataset.conversations import IGNORED, Conversation, encode_conversation, pack
from train.dataset.mixed_dataset import STRATA, DataError, MixedDataset, strata_in_turn
from train.dataset.prepared_media import MediaCache, PreparedClip, drop_tokens, to_pixel_values
from train.dataset.text_replay import DRAWS, ESSAYS, PROMPTS, TOPICS, replay_conversations
from train.stage import collate

pytestmark = pytest.mark.usefixtures("one_thread")
TEXT = Conversation((("What is two and two?", "Four."),))
SHARES = {"2d": 0.5, "3d": 0.25, "video": 0.125, "text": 0.125}


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("built")
    write_set(folder)
    return folder


@pytest.fixture(scope="module")
def index(built, tmp_path_factory) -> ConversationIndex:
    return ConversationIndex([built], "train", QUESTIONS_PER_MEDIUM, tmp_path_factory.mktemp("scratch"))


@pytest.fixture
def media(processor) -> MediaCache:
    return MediaCache(processor, None, 1.0)


def prepared(processor, clip: Clip) -> PreparedClip:
    return PreparedClip.of(processor.process_clip(clip))


@pytest.fixture
def filmed(processor, film) -> Conversation:
    clip = Clip(film(frames=3), "video", np.arange(3.0), source_frames=3)
    turns = (("Which modality?", "ultrasound"), ("Is it moving?", "yes"))
    return Conversation(turns, (prepared(processor, clip),), ("video",))


# Encoding


@pytest.mark.parametrize("separate", [False, True])
def test_only_the_answers_and_their_end_tokens_are_scored(processor, filmed, separate) -> None:
    item = encode_conversation(filmed, processor, separate)
    scored = processor.tokenizer.decode(item["labels"][item["labels"] != IGNORED])
    assert scored == "ultrasound<|im_end|>\nyes<|im_end|>\n"


@pytest.mark.parametrize("separate", [False, True])
def test_a_training_prompt_is_the_prompt_of_inference(processor, film, filmed, separate) -> None:
    clip = Clip(film(frames=3), "video", np.arange(3.0), source_frames=3)
    item = encode_conversation(filmed, processor, separate)
    for number, (question, _) in enumerate(filmed.turns, 1):
        content = [{"type": "video", "video": clip}, {"type": "text", "text": question}]
        prompt = processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=True, return_dict=True
        )
        torch.testing.assert_close(to_pixel_values(item["pixel_values"]), prompt["pixel_values"], atol=1e-6, rtol=0)
        mine = (item["segment_ids"] == 0) | (item["segment_ids"] == number)
        seen = item["input_ids"][mine]
        assert torch.equal(seen[: prompt["input_ids"].shape[1]], prompt["input_ids"][0])
        if not separate:
            break  # later questions stand behind the first


def test_media_stand_where_the_question_puts_them(processor, filmed) -> None:
    turns = (("Compare <media> with this: <media>", "Equal."),)
    item = encode_conversation(Conversation(turns, filmed.clips * 2, ("video", "video")), processor)
    words = processor.tokenizer.decode(item["input_ids"])
    assert words.index("Compare") < words.index("<|media_pad|>") < words.index("with this:")
    assert words.count("<|media_pad|>") == int(item["keep_mask"].sum())


@pytest.mark.parametrize("padded", [False, True], ids=["one by one", "padded, as on a GPU"])
def test_packed_conversations_and_separate_questions_are_as_if_alone(
    make_model, processor, filmed, padded, monkeypatch
) -> None:
    from train import conversation_loss
    from train.conversation_loss import ConversationLoss
    from train.packed_attention import PACKED, PaddedConversations

    if padded:
        monkeypatch.setattr(conversation_loss, "conversations_of", PaddedConversations.of)
    model = make_model(temporal_window=2)
    alone = [Conversation((turn,), filmed.clips, filmed.kinds) for turn in filmed.turns]
    expected, counts = [], []
    for one in [*alone, TEXT]:
        item = encode_conversation(one, processor)
        inputs = {n: v for n, v in item.items() if n not in ("input_ids", "labels", "segment_ids", "position_ids")}
        if inputs:
            inputs["pixel_values"] = to_pixel_values(inputs["pixel_values"])
        with torch.no_grad():
            out = model(input_ids=item["input_ids"][None], labels=item["labels"][None], **inputs)
        count = int((item["labels"] != IGNORED).sum())
        expected.append(float(out.loss) * count**0.5)  # one answer, whose weight is the root of its length
        counts.append(count)
    model.config.text_config._attn_implementation = PACKED
    loss = ConversationLoss(model).eval().requires_grad_(False)
    batch = pack([encode_conversation(filmed, processor, separate=True), encode_conversation(TEXT, processor)])
    assert float(loss(**batch)["loss"]) == pytest.approx(sum(expected) / sum(counts), abs=1e-4)
    assert float(loss(**batch, num_items_in_batch=7)["loss"]) == pytest.approx(sum(expected) / 7, abs=1e-4)
    in_turn = pack([encode_conversation(filmed, processor), encode_conversation(TEXT, processor)])
    assert abs(float(loss(**in_turn)["loss"]) - sum(expected) / sum(counts)) > 1e-3  # there the second sees the first


# Dropping tokens


@settings(max_examples=50)
@given(st.integers(1, 5), st.integers(1, 9), st.floats(0.01, 0.99), st.integers(0, 2**31))
def test_dropping_keeps_a_token_of_the_first_frame_and_adds_none(frames, tokens, rate, seed) -> None:
    rng = np.random.default_rng(seed)
    mask = torch.from_numpy(rng.random((frames, tokens)) < 0.5)
    mask[0] = True
    kept = drop_tokens(mask, rate, rng)
    assert kept[0].any()
    assert not (kept & ~mask).any()


def test_the_placeholders_are_those_of_the_kept_tokens(processor, filmed) -> None:
    counts = set()
    for seed in range(5):
        item = encode_conversation(filmed, processor, True, 0.9, np.random.default_rng(seed))
        media = item["input_ids"] == processor.image_token_id
        assert int(media.sum()) == int(item["keep_mask"].sum())
        counts.add(int(media.sum()))
    assert len(counts) > 1


# Keeping media


def test_a_kept_medium_is_read_back_as_it_was_and_not_kept_beyond_the_bound(processor, built, tmp_path) -> None:
    medium = next(r.media[0] for r in read_records(built / "train.jsonl") if r.dimension == "video")
    cache = MediaCache(processor, tmp_path, 1.0)
    first = cache.prepare(medium, built)
    kept = list(tmp_path.rglob("*.safetensors"))
    assert len(kept) == 1
    again = MediaCache(processor, tmp_path, 1.0).prepare(medium, built)
    for name, value in vars(first).items():
        same = torch.equal(value, getattr(again, name)) if torch.is_tensor(value) else value == getattr(again, name)
        assert same, name
    kept[0].write_bytes(kept[0].read_bytes()[:100])
    assert torch.equal(cache.prepare(medium, built).patches, first.patches)  # half a file is not believed

    full = MediaCache(processor, tmp_path / "full", 1e-6)
    full.prepare(medium, built)
    assert not list((tmp_path / "full").rglob("*.safetensors"))


# Index


def test_records_about_one_medium_become_one_conversation(built, index) -> None:
    assert len(index) == len(LAYOUT)
    for number in range(len(index)):
        records = [one.record for one in index.records(number)]
        assert len({record.media for record in records}) == 1
        assert len(records) == QUESTIONS_PER_MEDIUM
    found = {one.record.id for number in range(len(index)) for one in index.records(number)}
    assert found == {record.id for record in read_records(built / "train.jsonl")}


def test_larger_groups_are_divided_and_tasks_are_chosen(built, tmp_path) -> None:
    assert len(ConversationIndex([built], "train", 2, tmp_path)) == 2 * len(LAYOUT)
    captions = ConversationIndex([built], "train", 3, tmp_path, ("report generation and captioning",))
    assert len(captions) == len(LAYOUT)
    assert all(len(captions.records(number)) == 1 for number in range(len(LAYOUT)))
    with pytest.raises(RecordError, match=r"diagnosis|chosen tasks"):
        ConversationIndex([built], "train", 3, tmp_path, ("diagnosis",))


def test_a_source_can_come_more_often_and_other_languages_not_at_all(built, tmp_path, media) -> None:
    once = ConversationIndex([built], "train", QUESTIONS_PER_MEDIUM, tmp_path)
    assert set(once.passes) == {1}
    source, language = once.records(0)[0].record.source, once.records(0)[0].record.language
    thrice = ConversationIndex([built], "train", QUESTIONS_PER_MEDIUM, tmp_path, passes={source: 3, "other": 7})
    assert set(thrice.passes) == {3}
    per_pass = 3 * int((thrice.dimension == 0).sum())
    drawn = MixedDataset(thrice, {}, {"2d": 1.0}, media, length=per_pass, seed=5)
    members = [drawn._member(0, place) for place in range(per_pass)]
    assert set(Counter(members).values()) == {3}
    assert len(ConversationIndex([built], "train", QUESTIONS_PER_MEDIUM, tmp_path, languages=[language])) == len(once)
    with pytest.raises(RecordError, match="languages"):
        ConversationIndex([built], "train", QUESTIONS_PER_MEDIUM, tmp_path, languages=["la"])


def test_parquet_gives_the_same_conversations(built, index, tmp_path) -> None:
    folder = tmp_path / "parquet"
    folder.mkdir()
    write_parquet(read_records(built / "train.jsonl"), folder, "train")
    other = ConversationIndex([folder], "train", QUESTIONS_PER_MEDIUM, tmp_path)
    for number in range(len(index)):
        assert [o.record for o in other.records(number)] == [o.record for o in index.records(number)]


def test_broken_lines_are_counted_and_a_folder_without_records_is_named(built, tmp_path) -> None:
    folder = tmp_path / "broken"
    folder.mkdir()
    lines = (built / "train.jsonl").read_text().splitlines()
    row = json.loads(lines[0]) | {"modality": "telepathy"}
    (folder / "train.jsonl").write_text("\n".join(["no json", json.dumps(row), *lines[1:], ""]))
    broken = ConversationIndex([folder], "train", 1, tmp_path)
    assert broken.broken == 2
    assert len(broken) == len(lines) - 1
    with pytest.raises(RecordError, match="holds neither"):
        ConversationIndex([tmp_path], "validation", 1, tmp_path)


# Mixing


@settings(max_examples=50)
@given(st.lists(st.integers(0, 5), min_size=2, max_size=4).filter(any), st.integers(1, 200))
def test_any_batch_holds_the_shares_give_or_take_one(weights, length) -> None:
    shares = [weight / sum(weights) for weight in weights]
    strata = strata_in_turn(shares, length)
    assert np.array_equal(strata, strata_in_turn(shares, 2 * length)[:length])
    for start in range(0, length, 8):
        batch = strata[start : start + 8]
        for stratum, share in enumerate(shares):
            assert abs(np.count_nonzero(batch == stratum) - share * len(batch)) <= 2


def test_a_batch_mixes_and_no_medium_comes_again_before_all_have(index, media) -> None:
    data = MixedDataset(index, {"text": [TEXT]}, SHARES, media, length=64, seed=1)
    for start in range(0, 64, 8):
        held = np.bincount(data.stratum[start : start + 8], minlength=len(STRATA))
        assert held.tolist() == [4, 2, 1, 1, 0]
    images = LAYOUT.count("image")
    drawn = [data._member(0, place) for place in range(4 * images)]
    for start in range(0, len(drawn), images):
        assert len(set(drawn[start : start + images])) == images
    assert drawn[:images] != drawn[images : 2 * images]


def test_an_item_depends_on_seed_and_index_alone(index, media) -> None:
    def dataset(seed: int, length: int) -> MixedDataset:
        return MixedDataset(index, {"text": [TEXT]}, SHARES, media, length, seed, separate=True, drop_rate=0.5)

    def same(one: dict, other: dict) -> bool:
        return one.keys() == other.keys() and all(
            torch.equal(value, other[name]) for name, value in one.items() if torch.is_tensor(value)
        )

    first, again, other = dataset(1, 40), dataset(1, 60), dataset(2, 40)
    _ = [first[item] for item in range(7)]
    assert same(first[7], again[7])
    assert not all(same(first[item], other[item]) for item in range(5))


def test_processes_that_read_ahead_give_the_same_batches(index, media) -> None:
    data = MixedDataset(index, {"text": [TEXT]}, SHARES, media, 12, 1, separate=True, drop_rate=0.5)
    alone, ahead = (DataLoader(data, 4, collate_fn=collate, num_workers=workers) for workers in (0, 1))
    for one, other in zip(alone, ahead, strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(value, other[name]) for name, value in one.items() if torch.is_tensor(value))


def test_unreadable_media_are_passed_over_and_told(built, media, tmp_path) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(built, folder)
    images = [record for record in read_records(folder / "train.jsonl") if record.dimension == "2d"]
    broken = sorted({record.media[0].path for record in images})[:3]
    for path in broken:
        (folder / path).write_bytes(b"not a picture")
    index = ConversationIndex([folder], "train", 3, tmp_path)
    data = MixedDataset(index, {}, {"2d": 1.0}, media, length=12, seed=0)
    items = [data[item] for item in range(12)]
    told = {name.rsplit("/", 1)[0] for item in items for name, _ in item["unreadable"]}
    assert told == {record.id.rsplit("/", 1)[0] for record in images if record.media[0].path in broken}
    for path in sorted({record.media[0].path for record in images}):
        (folder / path).unlink(missing_ok=True)
    with pytest.raises(DataError, match="in a row could not be read"):
        data[0]


def test_what_the_data_lack_and_what_is_too_long_is_said(index, media) -> None:
    with pytest.raises(DataError, match="text"):
        MixedDataset(index, {}, SHARES, media, 8, 0)
    with pytest.raises(DataError, match="tokens are more than 5"):
        MixedDataset(index, {}, {"2d": 1.0}, media, 8, 0, longest=5)[0]


# The pool of samples, and the language model's own answers


def test_a_pool_is_repeatable_resumes_and_refuses_another_plan(tmp_path: Path) -> None:
    plan = PoolPlan(seed=4, images=18, clips=6)
    build_pool(tmp_path, plan, processes=1)
    pool = SamplePool(tmp_path)
    assert [pool[i].kind for i in range(len(pool))].count("image") == 18
    for index in range(len(plan)):
        fresh = make_sample(plan, index)
        np.testing.assert_array_equal(pool[index].frames, fresh.frames)
        np.testing.assert_array_equal(pool[index].lesions, fresh.lesions)
        assert pool[index].facts == fresh.facts
    shard = next(tmp_path.glob("shard-?????.npz"))
    before = shard.read_bytes()
    shard.unlink()
    build_pool(tmp_path, plan, processes=1)
    assert shard.read_bytes() == before
    with pytest.raises(ValueError, match="another plan"):
        build_pool(tmp_path, PoolPlan(seed=5, images=18, clips=6), processes=1)


def test_text_replay_answers_by_the_model_itself_and_ends_with_whole_sentences(
    model, processor, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr("train.dataset.text_replay.LONGEST_PROSE", 24)  # a random model writes on to the last token
    topics = TOPICS[::10]
    monkeypatch.setattr("train.dataset.text_replay.TOPICS", topics)
    path = tmp_path / "replay.json"
    generated = replay_conversations(model, processor, path)
    asked = [one.turns[0][0] for one in generated]
    assert asked[: len(PROMPTS)] == list(PROMPTS)
    assert all(asked.count(essay.format(topic)) == DRAWS for topic in topics for essay in ESSAYS)
    assert replay_conversations(None, None, path) == generated  # read back, no model needed
