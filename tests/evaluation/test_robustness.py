# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The robustness command, on a small set and a tiny model: what is asked, how it is compared, and that it goes on."""

from __future__ import annotations

import json
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_engine.ledger import LedgerError
from data_engine.records import Medium, Record, Turn, write_jsonl
from evaluation import robustness
from evaluation.nano.real_pictures import read_questions
from evaluation.picture_changes import CHANGES
from evaluation.robustness import answerable, compare, markdown, rows_of, with_change
from evaluation.score import Scored
from hub_model.media_omniv_med import load_clip

pytestmark = pytest.mark.usefixtures("one_thread")
MIRRORED = next(one for one in CHANGES if one.name == "mirrored")
QUESTIONS = (
    ("slake", "Which lung is abnormal?", "Left Lung", "localization", "answer"),
    ("slake", "Is there a mass in the upper right lung?", "Yes", "abnormality detection", "answer"),
    ("busi", "Which organ is shown?", "breast", "anatomy recognition", "answer"),
    ("busi", "How old is she?", "I cannot tell.", "diagnosis", "cannot tell"),
    ("busi", "Describe this image.", "An ultrasound image.", "report generation and captioning", "answer"),
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A built set: five questions about each of three pictures, two of which are saved as JPEG."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    records = []
    for picture in range(3):
        path = f"media/{picture}.{'png' if picture else 'jpg'}"
        (folder / "media").mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (32, 48, 3), dtype=np.uint8)).save(folder / path)
        for number, (source, question, answer, task, reply) in enumerate(QUESTIONS):
            records.append(
                Record(
                    id=f"{source}/test/{picture}{number}",
                    dimension="2d",
                    modality="X-ray",
                    task=task,
                    media=[Medium(type="image", path=path)],
                    conversations=[Turn(role="user", content=question), Turn(role="assistant", content=answer)],
                    source=source,
                    reply=reply,
                    license="CC0-1.0",
                    split="test",
                )
            )
    write_jsonl(records, folder / "test.jsonl")
    return folder


@pytest.fixture(scope="module")
def reported(data, tiny, tmp_path_factory) -> tuple[Namespace, dict]:
    """One report, and the arguments it was made with."""
    out = tmp_path_factory.mktemp("out")
    arguments = Namespace(model=str(tiny), data=[data], limit=None, out=out, dtype="auto")
    return arguments, robustness.report(arguments)


def test_only_what_has_a_short_answer_is_asked_and_a_limit_is_one_of_each_source(data):
    questions = read_questions([data], "test", {}, None)
    assert {one.question.question for one in answerable(questions, None)} == {one[1] for one in QUESTIONS[:3]}
    assert sorted(one.source for one in answerable(questions, 2)) == ["busi", "busi", "slake", "slake"]
    assert answerable(questions, 2) == answerable(questions, 2)


def test_the_mirrored_picture_is_asked_about_with_sides_swapped(data, tmp_path):
    asked = {one.question.question: one.question for one in read_questions([data], "test", {}, None)}
    side = with_change(asked["Which lung is abnormal?"], MIRRORED, tmp_path)
    named = with_change(asked["Is there a mass in the upper right lung?"], MIRRORED, tmp_path)
    assert side.answer == "Right Lung"
    assert (named.question, named.answer) == ("Is there a mass in the upper left lung?", "Yes")
    before, after = (load_clip(folder / side.media[0].path).frames for folder in (data, side.folder))
    assert (after == before[:, :, ::-1]).all()


def test_a_change_of_no_sides_leaves_the_words_alone(data, tmp_path):
    asked = read_questions([data], "test", {}, None)[0].question
    changed = with_change(asked, CHANGES[0], tmp_path)
    assert replace(changed, folder=data) == asked
    assert tmp_path in changed.folder.parents
    assert (
        load_clip(changed.folder / asked.media[0].path).frames != load_clip(data / asked.media[0].path).frames
    ).any()


def test_a_picture_that_cannot_be_read_is_left_to_the_asking(data, tmp_path):
    asked = read_questions([data], "test", {}, None)[0].question
    absent = replace(asked, folder=tmp_path / "nowhere")
    assert with_change(absent, CHANGES[0], tmp_path) == absent


def scored(name: str, right: bool, log_probability: float) -> Scored:
    row = {"prediction": "x", "log_probabilities": [log_probability]}
    return Scored(1, name, row, "open", name.split("/")[0], {"em": float(right)})


def test_what_is_lost_is_the_difference_between_the_same_questions():
    before = [scored("a/1", True, 0.0), scored("a/2", True, 0.0), scored("b/1", False, 0.0), scored("b/2", True, 0.0)]
    after = [scored("a/1", False, np.log(0.5)), scored("a/2", True, 0.0), scored("b/1", False, 0.0)]
    after.append(scored("b/2", True, 0.0))
    found = compare(before, after, None)
    assert (found["questions"], found["pictures"]) == (4, 2)
    assert found["accuracy"]["value"] == 0.5
    assert found["accuracy_lost"]["value"] == 0.25
    assert found["confidence_change"]["value"] == pytest.approx(-0.125)
    # Two pictures, one of which loses half of its answers: whole pictures are drawn.
    assert found["accuracy_lost"]["interval"] == [0.0, 0.5]


def test_every_change_is_reported_for_all_questions_each_source_and_sides(reported):
    arguments, found = reported
    assert set(found["changes"]) == {one.name for one in CHANGES}
    assert found["unchanged"]["questions"] == 9
    assert {name: one["questions"] for name, one in found["changes"]["noise"]["sources"].items()} == {
        "slake": 6,
        "busi": 3,
    }
    mirrored = found["changes"]["mirrored"]
    assert (mirrored["about_a_side"]["questions"], mirrored["about_no_side"]["questions"]) == (6, 3)
    assert len(markdown(found).splitlines()) == 3 + len(rows_of(found)) == 3 + len(CHANGES) + 2
    assert json.loads((arguments.out / "robustness.json").read_text(encoding="utf-8")) == json.loads(json.dumps(found))
    assert (arguments.out / "robustness.md").read_text(encoding="utf-8") == markdown(found)
    with Image.open(arguments.out / "robustness.png") as figure:
        assert figure.width > 500


def test_the_same_command_goes_on_where_it_was_stopped(reported, monkeypatch):
    arguments, found = reported
    ledger = arguments.out / "noise.jsonl"
    lines = ledger.read_text(encoding="utf-8").splitlines(keepends=True)
    ledger.write_text("".join(lines[:-2]) + lines[-1][:20], encoding="utf-8")
    batches = []
    answer_batch = robustness.answer_batch

    def counted(model, processor, questions):
        batches.append(len(questions))
        return answer_batch(model, processor, questions)

    monkeypatch.setattr(robustness, "answer_batch", counted)
    again = robustness.report(arguments)
    assert batches == [2]
    assert again["changes"]["jpeg"] == found["changes"]["jpeg"]
    assert again["changes"]["noise"]["all"]["questions"] == 9


def test_a_change_of_another_strength_does_not_go_on_in_the_same_file(reported, monkeypatch):
    arguments, _ = reported
    stronger = tuple(replace(one, title="stronger") if one.name == "noise" else one for one in CHANGES)
    monkeypatch.setattr(robustness, "CHANGES", stronger)
    with pytest.raises(LedgerError, match="stronger"):
        robustness.report(arguments)


def test_what_a_user_can_mend_is_said_in_one_sentence(tmp_path, data, tiny):
    with pytest.raises(ValueError, match="no model's folder"):
        robustness.report(Namespace(model=str(tmp_path), data=[data], limit=None, out=tmp_path, dtype="auto"))
    (tmp_path / "test.jsonl").write_text("")
    with pytest.raises(ValueError, match="no test question"):
        robustness.report(Namespace(model=str(tiny), data=[tmp_path], limit=None, out=tmp_path, dtype="auto"))
