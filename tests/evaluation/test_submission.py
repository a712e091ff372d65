# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Questions whose answers are withheld are asked and handed in, and count in no figure."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from evaluation.benchmarks import BenchmarkQuestion, read_benchmark
from evaluation.score import score_file, summarise
from evaluation.submission import write_submission
from tests.helpers.benchmark_fixtures import write_medvidbench, write_medxpertqa


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("medvidbench")
    write_medvidbench(folder)
    return folder


@pytest.fixture(scope="module")
def questions(source: Path, tmp_path_factory: pytest.TempPathFactory) -> list[BenchmarkQuestion]:
    return read_benchmark("medvidbench", source, tmp_path_factory.mktemp("cache"), None)[0]


def write_predictions(questions: list[BenchmarkQuestion], path: Path) -> Path:
    rows = [one.row() | {"prediction": f"said {place}"} for place, one in enumerate(questions)]
    path.write_text("".join(json.dumps(row) + "\n" for row in [{"settings": {}}, *rows]), encoding="utf-8")
    return path


def test_withheld_answers_are_asked_about_and_not_scored(questions, tmp_path):
    assert [one.answer_type for one in questions] == ["withheld", "withheld", "open"]
    assert questions[0].messages("medevalkit")[0]["content"][-1]["text"] == "When is cutting?"
    found = summarise(score_file(write_predictions(questions, tmp_path / "predictions.jsonl")))
    assert (found["n_withheld"], found["n_open"], found["n_broken"]) == (2, 1, 0)
    only = summarise(score_file(write_predictions(questions[:1], tmp_path / "withheld.jsonl")))
    assert (only["n_withheld"], only["em"]) == (1, None)


def test_the_owners_get_every_entry_in_its_order_under_their_ids(questions, source, tmp_path):
    predictions = write_predictions(questions, tmp_path / "predictions.jsonl")
    path = write_submission("medvidbench", source, predictions, tmp_path)
    entries = json.loads(path.read_text(encoding="utf-8"))
    assert entries[:3] == [
        {"id": "v1&&0&&60&&1.0", "qa_type": "tal", "prediction": "said 0"},
        {"id": "v1&&0&&60&&1.0", "qa_type": "region_caption_gpt", "prediction": "said 1"},
        {"id": "v2&&3&&9&&0.5", "qa_type": "skill_assessment", "prediction": "said 2"},
    ]
    assert len(entries) == len(json.loads((source / "cleaned_test_data_11_04.json").read_text(encoding="utf-8")))
    assert {one["prediction"] for one in entries[3:]} == {""}, "what could not be asked"


def test_any_number_of_choices_is_asked_with_its_letters(tmp_path):
    write_medxpertqa(tmp_path / "source")
    [one], _ = read_benchmark("medxpertqa-mm", tmp_path / "source", tmp_path / "cache", None)
    assert (one.answer_type, one.answer) == ("choice", "B")
    assert one.choices == ("S. aureus", "E. coli", "C. difficile", "B. fragilis", "none")
    assert one.messages("plain")[0]["content"][-1]["text"] == (
        "Which germ does the X-ray suggest? Choices: A. S. aureus B. E. coli C. C. difficile D. B. fragilis E. none"
    )
    assert len(one.messages("plain")[0]["content"]) == 3, "two pictures and the words"
