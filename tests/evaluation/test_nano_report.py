# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""One command measures all that is claimed of the Nano, and goes on where it was stopped."""

from __future__ import annotations

import json
import shutil
import sys

import pytest

from data_engine.adapters.base import MediaStore
from data_engine.generated import CLIP_EVERY, SamplePlan, records_of
from data_engine.records import write_jsonl
from evaluation import nano_report
from evaluation.nano import real_files
from evaluation.nano.goals import goals

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A built test split: two each of images, volumes and videos, or more."""
    folder = tmp_path_factory.mktemp("built")
    store = MediaStore(folder)
    drawn, kinds = [], []
    for index in (1, 2, *range(0, 40 * CLIP_EVERY, CLIP_EVERY)):
        one = SamplePlan(1, "test", index)
        if kinds.count(one.kind_of[1]) < 2:
            drawn.append(one)
            kinds.append(one.kind_of[1])
    assert sorted(kinds) == ["image"] * 2 + ["video"] * 2 + ["volume"] * 2
    write_jsonl((record for one in drawn for record in records_of(one, store)), folder / "test.jsonl")
    return folder


@pytest.fixture(scope="module")
def run(tiny, data, tmp_path_factory):
    """Runs the command on a copy of the tiny model; gives the model's folder and the output folder."""
    model, out = tmp_path_factory.mktemp("model") / "tiny", tmp_path_factory.mktemp("out")
    shutil.copytree(tiny, model)
    few = [one for one in real_files.read_manifest() if one.package.name == "pydicom"][:3]

    def start():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(real_files, "read_manifest", lambda: few)
            patch.setattr(nano_report, "REMOVALS", (60,))
            words = ["--model", str(model), "--data", str(data), "--out", str(out), "--timed", "1"]
            words += ["--baseline", str(tiny)]
            patch.setattr(sys, "argv", ["nano_report", *words])
            nano_report.main()
        return model, out

    return start


def test_everything_is_measured_and_a_second_start_asks_nothing_again(run, capsys):
    model, out = run()
    metrics = json.loads((model / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["test"]["all"]["count"] > 10
    assert metrics["real_files"]["count"] == 3
    settings = [row["setting"] for row in metrics["pruning"]["rows"]]
    assert settings == ["unpruned", "anchor-language-60", "anchor-encoder-60", "previous-language-60"]
    assert {goal["reached"] for goal in metrics["goals"]} <= {True, False}
    said = " ".join(goal["goal"] for goal in metrics["goals"])
    for about in ("all short answers", "each modality", "blind baseline", "real files", "language", "encoder"):
        assert about in said
    report = (out / "report.md").read_text(encoding="utf-8")
    assert report == capsys.readouterr().out
    for title in ("generated test split", "real files", "pruning costs", "plain text"):
        assert title in report

    answers = {path: path.read_bytes() for path in out.rglob("*.jsonl")}
    run()
    assert {path: path.read_bytes() for path in out.rglob("*.jsonl")} == answers
    again = json.loads((model / "metrics.json").read_text(encoding="utf-8"))
    assert again == metrics, "figures that were there are taken, not measured again"


def test_another_model_does_not_go_on_with_the_answers_of_the_first(run, capsys):
    model, _ = run()
    settings = json.loads((model / "processor_config.json").read_text())
    (model / "processor_config.json").write_text(json.dumps(settings | {"prune_threshold": 0.2}))
    run()
    assert "was begun with" in json.loads((model / "metrics.json").read_text())["test"]["not_measured"]


@pytest.mark.parametrize(("option", "message"), [("--model", "make model"), ("--data", "/nowhere")])
def test_what_is_not_there_is_said_in_one_sentence(tiny, tmp_path, monkeypatch, option, message):
    words = {"--model": str(tiny), "--data": "data/mini", "--out": str(tmp_path)} | {option: "/nowhere"}
    monkeypatch.setattr(sys, "argv", ["nano_report", *(word for pair in words.items() for word in pair)])
    with pytest.raises(SystemExit) as caught:
        nano_report.main()
    assert message in str(caught.value)


def test_goals_follow_the_figures():
    def row(accuracy, interval, blind):
        return {"accuracy": accuracy, "interval": interval, "blind": blind}

    test = {
        "all": row(0.9, [0.88, 0.92], 0.3),
        "task": {"modality named": row(0.96, [0.94, 0.98], 0.1), "localization, open": row(0.5, [0.4, 0.6], 0.45)},
        "modality": {"CT": row(0.8, [0.7, 0.9], 0.2), "OCT": row(0.6, [0.5, 0.7], 0.2)},
    }
    reached = {one["goal"]: (one["reached"], one["measured"]) for one in goals({"test": test})}
    assert reached == {
        "modality named: 95.0 %": (True, "96.0 %"),
        "all short answers: 82.0 %": (True, "90.0 %"),
        "each modality: 70.0 %": (False, "below it: OCT"),
        "every task's interval above the blind baseline": (False, "not above: localization, open"),
    }


@pytest.mark.parametrize(("low", "shown"), [(0.2, True), (-0.01, False)])
def test_pruning_proves_nothing_on_a_model_that_answers_as_well_blind(low, shown):
    pruned = {"rule": "anchor", "prune_stage": "encoder", "removed": 0.6}
    pruned |= {"difference_to_unpruned": 0.0, "difference_interval": [-0.001, 0.001]}
    test = {"kind": {"3d": {"gain_interval": [0.3, 0.4]}, "video": {"gain_interval": [low, 0.5]}}}
    (goal,) = goals({"test": test, "pruning": {"rows": [pruned]}})
    assert goal["reached"] is shown
    assert ("blind" in goal["measured"]) is not shown


def test_what_training_did_to_the_language_model_is_one_sentence_and_one_goal():
    figures = {
        "passages": 28,
        "scored_tokens": 1500,
        "model": {"perplexity": {"value": 21.0}},
        "baseline": {"perplexity": {"value": 20.0}},
        "ratio": {"value": 1.05, "interval": [1.02, 1.08]},
        "within_allowed_change": True,
    }
    said = nano_report.perplexity_markdown(figures)
    assert "20.00 before training, 21.00 after it, a ratio of 1.050 (95 % interval 1.020–1.080)" in said
    (goal,) = goals({"text_perplexity": figures})
    assert goal["reached"] and goal["measured"] == "1.050 times"


def measured_pictures(right: float, wrongly: float) -> dict:
    """What `real_pictures` measures, with one share of right answers everywhere."""
    row = {"accuracy": right, "interval": [right - 0.1, right + 0.1], "blind": 0.3, "gain": right - 0.3, "count": 50}
    share = {"share": right, "interval": [0.0, 1.0], "count": 20}
    figure = {"value": right, "interval": None}
    return {
        "sources": {
            "slake": {"all": row, "type": {"open": row, "closed": row}, "task": {}},
            "busi": {"all": row, "type": {}, "task": {}},
        },
        "places": {"busi": row},
        "grades": {"the diabetic retinopathy": figure | {"count": 9}},
        "calibration": {"expected_error": figure, "area_under_curve": figure, "gain_of_surest_half": figure},
        "declined": {"cannot tell": share, "not medical": share, "wrongly": share | {"share": wrongly}},
        "conversation": {"claims_to_be_a_person": share | {"share": 0.0}},
    }


def test_goals_of_real_pictures_ask_for_much_that_is_right_and_little_that_is_wrongly_declined():
    good = {one["goal"]: one["reached"] for one in goals({"real_pictures": measured_pictures(0.99, 0.01)})}
    missed = {goal for goal, reached in good.items() if not reached}
    assert missed == {"expected calibration error: 0.05 at most"}, "an error of 0.99 is a bad one"
    assert "slake, open: 75.0 %" in good and "half or quadrant of a mass: 70.0 %" in good
    bad = goals({"real_pictures": measured_pictures(0.35, 0.2)})
    assert {one["goal"] for one in bad if one["reached"]} == {
        "surest half better than all by 15.0 %",
        "never claims to be a person or a physician",
    }


def test_goals_of_what_was_not_measured_are_not_named():
    assert goals({"real_pictures": {"not_measured": "no folder"}, "test": {"not_measured": "no data"}}) == []
