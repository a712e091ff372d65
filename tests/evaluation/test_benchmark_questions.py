# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The benchmarks' test splits become questions of the right kind, and nothing is dropped without a word."""

from __future__ import annotations

import pytest

from data_engine.adapters import ADAPTERS
from data_engine.adapters.base import WITHHELD, MediaStore
from data_engine.generated import SamplePlan, records_of
from data_engine.records import read_records, write_jsonl
from evaluation.benchmarks import ADAPTER_OF, BENCHMARKS, PROMPTS, BenchmarkError, find_data, read_benchmark
from hub_model.media_omniv_med import load_clip
from tests.helpers.data_fixtures import WRITERS, slake_entry, write_json


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A file of generated test records."""
    folder = tmp_path_factory.mktemp("built")
    store = MediaStore(folder)
    write_jsonl(
        (r for index in range(4) for r in records_of(SamplePlan(1, "test", index), store)), folder / "test.jsonl"
    )
    return folder


def test_every_benchmark_has_an_adapter():
    assert set(ADAPTER_OF.values()) <= set(ADAPTERS)


@pytest.mark.parametrize("name", sorted(ADAPTER_OF))
def test_the_test_split_of_every_source_is_read_and_its_media_open(tmp_path, name):
    WRITERS[ADAPTER_OF[name]](tmp_path / "source")
    if name == "slake-zh":
        chinese = slake_entry(q_lang="zh", question="图中最大的器官是什么?", answer="肝脏", qid=77)
        write_json(tmp_path / "source" / "test.json", [slake_entry(qid=78), chinese])
    questions, broken = read_benchmark(name, tmp_path / "source", tmp_path / "cache", None)
    assert questions
    assert len({one.id for one in questions}) == len(questions)
    for one in questions:
        assert one.answer_type in ("open", "closed", "choice", "withheld")
        assert (one.answer_type == "withheld") == (one.answer == WITHHELD)
        assert bool(one.choices) == (one.answer_type == "choice")
        if one.answer_type == "closed":
            assert one.answer in ("yes", "no")
        load_clip(one.folder / one.media[0].path)
    assert all(row["where"] and row["reason"] for row in broken)


def test_slake_is_divided_by_language(tmp_path):
    WRITERS["slake"](tmp_path / "source")
    ids = {
        name: {one.id for one in read_benchmark(name, tmp_path / "source", tmp_path / "cache", None)[0]}
        for name in ("slake-en", "slake-zh")
    }
    assert not ids["slake-en"] & ids["slake-zh"]


def test_choices_are_taken_apart_and_put_together_again(tmp_path):
    WRITERS["m3d-vqa-closed"](tmp_path / "source")
    questions, _ = read_benchmark("m3d-vqa-closed", tmp_path / "source", tmp_path / "cache", None)
    one = questions[0]
    assert one.answer in "ABCD"
    assert len(one.choices) == 4
    assert "Choices:" not in one.question
    (content,) = (part["text"] for part in one.messages("plain")[0]["content"] if part["type"] == "text")
    assert content == f"{one.question} Choices: " + " ".join(
        f"{letter}. {choice}" for letter, choice in zip("ABCD", one.choices, strict=True)
    )
    (styled,) = (part["text"] for part in one.messages("medevalkit")[0]["content"] if part["type"] == "text")
    assert styled == f"{content} {PROMPTS['medevalkit']['choice']}"


def test_the_generated_split_is_read_from_a_folder_or_a_file(tmp_path, built):
    questions, broken = read_benchmark("generated", built, tmp_path, None)
    assert not broken
    assert [one.id for one in questions] == [record.id for record in read_records(built / "test.jsonl")]
    assert [one.id for one in read_benchmark("generated", built / "test.jsonl", tmp_path, 3)[0]] == [
        one.id for one in questions[:3]
    ]


def test_a_limit_counts_questions(tmp_path):
    WRITERS["vqa-rad"](tmp_path / "source")
    assert len(read_benchmark("vqa-rad", tmp_path / "source", tmp_path / "cache", 1)[0]) == 1


def test_what_cannot_be_read_is_said(tmp_path):
    with pytest.raises(BenchmarkError, match="choose one of"):
        read_benchmark("imagenet", tmp_path, tmp_path, None)
    with pytest.raises(BenchmarkError, match="make data-mini"):
        read_benchmark("generated", tmp_path, tmp_path, None)
    with pytest.raises(ValueError, match="SLAKE"):
        read_benchmark("slake-en", tmp_path, tmp_path, None)
    with pytest.raises(BenchmarkError, match="no folder"):
        find_data("/nowhere/at all")
    with pytest.raises(BenchmarkError, match="could not be fetched"):
        find_data("nobody/nothing-of-this-name")
    assert "generated" in BENCHMARKS
