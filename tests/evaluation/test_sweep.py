# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The pruning sweep: same questions everywhere, fewer tokens with every step, paired with the unpruned run."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from data_engine.adapters.base import MediaStore
from data_engine.generated import CLIP_EVERY, SamplePlan, records_of
from data_engine.records import REPORTS, write_jsonl
from evaluation.benchmarks import read_benchmark
from evaluation.nano.sweep import (
    ASKABLE,
    ASKED,
    UNPRUNED,
    about_clips,
    curves_of,
    markdown,
    measure,
    pruning_of,
    settings_of,
    verdict,
    write,
)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def questions(tmp_path_factory):
    """Questions about three generated volumes and videos, and an image, which does not count."""
    folder = tmp_path_factory.mktemp("built")
    store = MediaStore(folder)
    drawn = [SamplePlan(1, "test", clip * CLIP_EVERY) for clip in range(3)] + [SamplePlan(1, "test", 1)]
    write_jsonl((record for one in drawn for record in records_of(one, store)), folder / "test.jsonl")
    return read_benchmark("generated", folder, folder, None)[0]


@pytest.fixture(scope="module")
def swept(tiny, questions, tmp_path_factory):
    """The rows of a sweep, and its folder."""
    folder = tmp_path_factory.mktemp("sweep")
    return measure(str(tiny), about_clips(questions), [50, 80], 2, folder), folder


def test_images_and_sentences_are_not_asked(questions):
    asked = about_clips(questions)
    assert asked
    assert {one.dimension for one in asked} <= {"3d", "video"}
    assert REPORTS not in {one.task for one in asked}


def test_every_setting_answers_the_same_questions_with_fewer_tokens(swept, questions):
    rows, _ = swept
    names = [f"{curve.rule}-{curve.stage}-{removed}" for curve in curves_of(ASKED) for removed in (50, 80)]
    assert [row["setting"] for row in rows] == [UNPRUNED, *names]
    assert {row["questions"] for row in rows} == {len(about_clips(questions))}
    assert rows[0]["difference_to_unpruned"] == 0
    tokens = {row["setting"]: row["prompt_tokens"] for row in rows}
    for curve in curves_of(ASKED):
        assert tokens[UNPRUNED] > tokens[f"{curve.rule}-{curve.stage}-50"] > tokens[f"{curve.rule}-{curve.stage}-80"]
    assert all(row["seconds_to_first_token"] > 0 and row["timed_clips"] == 2 for row in rows)


def test_the_stage_reaches_the_encoder(swept):
    """Tokens removed before the encoder are out of sight for those that stay, so other answers are possible."""
    _, folder = swept
    settings = [
        json.loads((folder / f"anchor-{stage}-80.jsonl").open().readline()) for stage in ("language", "encoder")
    ]
    assert [one["settings"]["pruning"]["prune_stage"] for one in settings] == ["language", "encoder"]


def test_figures_table_and_picture_are_written(swept, tmp_path):
    rows, _ = swept
    write(rows, {"model": "tiny"}, tmp_path)
    assert json.loads((tmp_path / "sweep.json").read_text())["rows"] == json.loads(json.dumps(rows))
    table = (tmp_path / "sweep.md").read_text(encoding="utf-8")
    assert table == markdown(rows)
    assert sum(line.startswith("| ") for line in table.splitlines()) == len(rows) + 2
    assert Image.open(tmp_path / "sweep.png").width > 1000


def test_a_sweep_that_was_stopped_asks_nothing_twice(swept, tiny, questions):
    _, folder = swept
    before = {path.name: path.read_bytes() for path in folder.glob("*.jsonl")}
    measure(str(tiny), about_clips(questions), [50, 80], 1, folder)
    assert {path.name: path.read_bytes() for path in folder.glob("*.jsonl")} == before


def test_removal_becomes_a_budget_that_alone_decides():
    settings = settings_of([60])
    assert pruning_of(*settings[UNPRUNED]) == {"prune_rule": "none", "keep_ratio": None, "prune_stage": "language"}
    assert pruning_of(*settings["previous-language-60"]) == {
        "prune_rule": "previous",
        "prune_threshold": 0.0,
        "keep_ratio": 0.4,
        "prune_stage": "language",
    }


def test_every_rule_that_removes_something_can_be_asked(swept, tmp_path):
    assert {"anchor", "spatial", "previous"} <= set(ASKABLE)
    settings = settings_of([60], ["spatial"])
    assert list(settings) == [UNPRUNED, "spatial-language-60", "spatial-encoder-60"]
    assert pruning_of(*settings["spatial-encoder-60"])["prune_rule"] == "spatial"
    rows = [row | {"rule": row["rule"] and "spatial"} for row in swept[0] if row["rule"] != "previous"]
    write(rows, {"model": "tiny"}, tmp_path)
    assert "last kept token or a neighbour, before the encoder" in (tmp_path / "sweep.md").read_text(encoding="utf-8")


def test_by_default_ours_is_asked_before_both_models_and_the_published_rule_as_published():
    asked = [(curve.rule, curve.stage) for curve in curves_of(ASKED)]
    assert asked == [("anchor", "language"), ("anchor", "encoder"), ("previous", "language")]


@pytest.mark.parametrize(
    ("difference", "interval", "said"),
    [
        (-0.005, [-0.015, 0.005], "at most 1 point, and its interval excludes a loss of 2"),
        (-0.005, [-0.025, 0.015], "at most 1 point, and its interval does not exclude a loss of 2"),
        (-0.015, [-0.018, -0.012], "more than 1 point, and its interval excludes a loss of 2"),
        (0.0, None, "at most 1 point, and its interval does not exclude a loss of 2"),
    ],
)
def test_the_claim_is_judged_by_loss_and_interval_at_sixty_percent_and_more(difference, interval, said):
    row = {"rule": "anchor", "prune_stage": "encoder", "removed": 0.6}
    row |= {"difference_to_unpruned": difference, "difference_interval": interval}
    assert said in verdict([row])
    assert verdict([row | {"removed": 0.5}]) == ""
