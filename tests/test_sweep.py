# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The pruning sweep: same questions everywhere, fewer tokens with every step, paired with the unpruned run."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from evaluation.benchmarks import read_benchmark
from evaluation.sweep import RULES, draw, measure, pruning_of
from train.data.adapters.base import MediaStore
from train.data.generated import CLIP_EVERY, Drawn, records_of
from train.data.records import write_jsonl

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def questions(tmp_path_factory):
    """Questions about three generated volumes and videos."""
    folder = tmp_path_factory.mktemp("built")
    store = MediaStore(folder)
    records = [record for clip in range(3) for record in records_of(Drawn(1, "test", clip * CLIP_EVERY), store)]
    write_jsonl(records, folder / "test.jsonl")
    return read_benchmark("generated", folder, folder, None)[0]


@pytest.mark.parametrize("stage", ["language", "encoder"])
def test_every_setting_answers_the_same_questions_with_fewer_tokens(tiny, questions, tmp_path, stage):
    rows = measure(str(tiny), questions, [50, 80], stage, 2, tmp_path)
    assert [row["setting"] for row in rows] == ["unpruned", *(f"{rule}-{p}" for rule in RULES for p in (50, 80))]
    assert {row["questions"] for row in rows} == {len(questions)}
    assert rows[0]["difference_to_unpruned"] == 0
    tokens = {row["setting"]: row["prompt_tokens"] for row in rows}
    for rule in RULES:
        assert tokens["unpruned"] > tokens[f"{rule}-50"] > tokens[f"{rule}-80"]
    assert all(row["seconds_to_first_token"] > 0 and row["timed_clips"] == 2 for row in rows)
    json.dumps(rows)
    draw(rows, tmp_path / "sweep.png")
    assert Image.open(tmp_path / "sweep.png").width > 1000


def test_a_sweep_that_was_stopped_asks_nothing_twice(tiny, questions, tmp_path):
    measure(str(tiny), questions, [80], "language", 1, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.glob("*.jsonl")}
    measure(str(tiny), questions, [80], "language", 1, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.jsonl")} == before


def test_removal_becomes_a_budget_that_alone_decides():
    assert pruning_of("anchor", 0, "encoder") == {"prune_rule": "none", "prune_stage": "encoder"}
    options = pruning_of("previous", 60, "language")
    assert (options["prune_rule"], options["prune_threshold"], options["keep_ratio"]) == ("previous", 0.0, 0.4)
