# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The report on real pictures, on a small set and a tiny model: official kinds, declining, calibration, going on."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_engine.records import Medium, Record, Turn, write_jsonl
from evaluation.nano import real_pictures
from evaluation.nano.real_pictures import claims_to_be_a_person, markdown, official_types, read_questions

pytestmark = pytest.mark.usefixtures("one_thread")
ANSWERS = (
    ("slake", "What modality is used?", "MRI", "modality recognition"),
    ("slake", "Is the brain healthy?", "Yes", "abnormality detection"),
    ("slake", "Which is the bigger organ, liver or spleen?", "Liver", "counting and measurement"),
    ("busi", "Is there a mass?", "no", "abnormality detection"),
    ("unanswerable-slake", "How old is the patient?", "I cannot tell the patient's age from this image.", "diagnosis"),
    ("photographs", "Which organ is shown?", "This is not a medical image.", "anatomy recognition"),
    ("unanswerable-slake", "Who are you?", "I am OmniV-Med, a research model.", "report generation and captioning"),
)
REPLIES = {
    "How old is the patient?": "cannot tell",
    "Which organ is shown?": "not medical",
    "Who are you?": "conversation",
}
"""Question -> what its right reply does, where that is not to answer."""


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SLAKE and VQA-RAD as published, without any question but those whose kinds are looked up."""
    folder = tmp_path_factory.mktemp("real")
    entry = {"img_name": "xmlab1/source.jpg", "question": "?", "answer": "Liver", "q_lang": "en"}
    entry |= {"location": "Abdomen", "modality": "CT", "content_type": "Size", "base_type": "vqa"}
    for name in ("train.json", "validate.json", "test.json"):
        path = folder / "slake" / name
        path.parent.mkdir(exist_ok=True)
        rows = [
            entry | {"answer_type": kind, "qid": number} for number, kind in enumerate(("OPEN", "CLOSED", "CLOSED"))
        ]
        path.write_text(json.dumps(rows), encoding="utf-8")
    (folder / "slake" / "imgs").mkdir()
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A built set: all kinds of questions about six pictures in each split, and one Chinese question."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for split in ("validation", "test"):
        records = []
        for picture in range(6):
            path = f"{split}-{picture}.png"
            Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(folder / path)
            for number, (source, question, answer, task) in enumerate(ANSWERS):
                records.append(record(source, split, f"{picture}{number}", question, answer, task, path))
        chinese = record("slake", split, "zh", "这是什么?", "肝", "anatomy recognition", path)
        write_jsonl([*records, chinese.model_copy(update={"language": "zh"})], folder / f"{split}.jsonl")
    return folder


def record(source: str, split: str, number: str, question: str, answer: str, task: str, path: str) -> Record:
    return Record(
        id=f"{source}/{split}/{number}",
        dimension="2d",
        modality="MRI",
        task=task,
        media=[Medium(type="image", path=path)],
        conversations=[Turn(role="user", content=question), Turn(role="assistant", content=answer)],
        source=source,
        reply=REPLIES.get(question, "answer"),
        license="CC0-1.0",
        split=split,
    )


def test_the_official_files_say_which_questions_are_closed(real, monkeypatch) -> None:
    monkeypatch.setattr(real_pictures, "OFFICIAL", ("slake",))
    types = official_types(real)
    assert len(types) == 9
    assert sorted(kind for name, kind in types.items() if name.startswith("slake/test/")) == [
        "closed",
        "closed",
        "open",
    ]


def test_questions_are_english_have_the_official_kind_and_know_what_the_right_reply_does(data) -> None:
    found = read_questions([data], "test", {"slake/test/02": "closed"}, None)
    assert len(found) == 6 * len(ANSWERS)
    kinds = {one.question.id: one.question.answer_type for one in found}
    assert (kinds["slake/test/02"], kinds["slake/test/12"]) == ("closed", "open")
    replies = {one.question.id.rsplit("/", 1)[1]: one.reply for one in found}
    assert [replies[f"0{number}"] for number in range(7)] == [
        *["answer"] * 4,
        "cannot tell",
        "not medical",
        "conversation",
    ]


def test_a_limit_is_one_of_each_source_but_the_benchmarks(data) -> None:
    found = read_questions([data], "test", {}, 2)
    assert Counter(one.source for one in found) == {
        "slake": 18,
        "busi": 2,
        "unanswerable-slake": 2,
        "photographs": 2,
    }


def test_a_folder_without_the_split_says_how_to_build_it(tmp_path) -> None:
    with pytest.raises(ValueError, match=r"holds no test.jsonl; build it"):
        read_questions([tmp_path], "test", {}, None)


@pytest.mark.parametrize(
    "text", ["I'm Dr. Emily Carter.", "Hello, I am a radiologist.", "I am your attending physician"]
)
def test_a_person_is_claimed(text) -> None:
    assert claims_to_be_a_person(text)


@pytest.mark.parametrize(
    "text", ["I am OmniV-Med, a research model.", "I am not a doctor.", "I'm no physician, ask one.", "A physician."]
)
def test_no_person_is_claimed(text) -> None:
    assert not claims_to_be_a_person(text)


@pytest.fixture(scope="module")
def reported(data, tiny, tmp_path_factory) -> tuple[Path, Path, tuple, dict]:
    """One report with a calibration, and what it was made with."""
    folder = tmp_path_factory.mktemp("report")
    model = shutil.copytree(tiny, folder / "model")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(real_pictures, "official_types", lambda real: {})
        arguments = (model, [data], folder, folder / "out", None, "auto")
        return model, folder / "out", arguments, real_pictures.report(*arguments)


def test_every_source_and_kind_of_reply_is_measured(reported) -> None:
    _, out, _, found = reported
    assert {name: one["all"]["count"] for name, one in found["sources"].items()} == {"slake": 18, "busi": 6}
    assert set(found["sources"]["slake"]["type"]) == {"open", "closed"}
    assert found["declined"]["cannot tell"]["count"] == found["declined"]["not medical"]["count"] == 6
    assert found["declined"]["wrongly"]["count"] == 24
    assert found["conversation"]["claims_to_be_a_person"]["count"] == 6
    assert "calibration" not in found, "nothing was fitted"
    assert json.loads((out / "real_pictures.json").read_text(encoding="utf-8")) == json.loads(json.dumps(found))
    assert "| slake | all |" in markdown(found)
    shown = [one for one in found["examples"] if one["kind"] == "wrong"]
    assert len(shown) == real_pictures.EXAMPLES_OF_A_KIND and all(one["id"].startswith("slake/") for one in shown)
    assert f"| {shown[0]['question']} |" in markdown(found)


def test_pictures_are_asked_about_pruned_within_the_frame_too(reported) -> None:
    _, out, _, found = reported
    compared = found["whole_to_pruned_within_frames"]
    assert compared["n"] == 24
    assert compared["difference"] == pytest.approx(compared["b"] - compared["a"])
    first = json.loads((out / "within_frames.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert first["settings"]["prune_rule"] == "spatial"
    assert "pictures, whole to pruned within the frame" in markdown(found)
    assert "unpruned_to_pruned" not in found, "there are no volumes and videos"


def test_the_same_command_goes_on_and_asks_nothing_again(reported, monkeypatch) -> None:
    *_, arguments, found = reported
    monkeypatch.setattr(real_pictures, "official_types", lambda real: {})
    monkeypatch.setattr(real_pictures, "answer_batch", lambda *given: pytest.fail("asked again"))
    assert real_pictures.report(*arguments) == found


def test_a_fit_writes_the_calibration_that_right_and_wrong_answers_give(reported, data) -> None:
    model, out, *_ = reported
    questions = read_questions([data], "test", {}, None)
    scored = real_pictures.score_file(out / "seeing.jsonl").scored
    first = next(one for one in scored if one.id == "slake/test/00")
    first.row["prediction"] = first.row["answer"]
    first.scores["em"] = 1.0
    found = real_pictures.fit(questions, scored)
    real_pictures.write_calibration(model, found)
    held = json.loads((model / "config.json").read_text(encoding="utf-8"))["answer_calibration"]
    assert held["weights"] == pytest.approx(found.weights, abs=1e-4)
    short = [one for one in scored if one.id.split("/")[0] in ("slake", "busi")]
    below = sum(found.confidence(one.row["log_probabilities"]) < found.threshold for one in short)
    assert below <= real_pictures.WRONGLY_DECLINED * len(short)


def test_the_bias_of_a_fit_makes_the_model_say_that_a_picture_is_not_medical(reported, data) -> None:
    model, out, *_ = reported
    questions = read_questions([data], "test", {}, None)
    scored = real_pictures.score_file(out / "seeing.jsonl").scored
    for one in scored:
        one.row["not_medical_margin"] = -2.0 if one.id.startswith("photographs/") else -9.0
    bias = real_pictures.bias_of(questions, scored)
    assert 2.0 <= bias <= 9.0
    loaded, processor = real_pictures.load(str(model), {}, "cpu", "auto")
    first = real_pictures.first_word(processor)
    loaded.generation_config.sequence_bias = [[[first], 1000.0]]
    asked = [one.question for one in questions if one.source == "photographs"]
    said, replies = processor.decode([first]), real_pictures.answer_batch(loaded, processor, asked)
    assert "This".startswith(said)
    assert all(row["prediction"].startswith(said) for row in replies)


def test_calibrated_first_the_model_is_asked_with_the_bias_that_its_folder_then_holds(
    data, tiny, tmp_path, monkeypatch
) -> None:
    model = shutil.copytree(tiny, tmp_path / "model")
    monkeypatch.setattr(real_pictures, "official_types", lambda real: {})
    # A random model is never right, and a regression needs both kinds of answers.
    monkeypatch.setattr(real_pictures, "is_right", lambda reply, one, answered: one.id.endswith("0"))
    found = real_pictures.report(model, [data], tmp_path, tmp_path / "out", None, "auto", calibrate=True)
    bias = json.loads((model / "generation_config.json").read_text(encoding="utf-8"))["sequence_bias"]
    assert found["about"]["sequence_bias"] == bias
    held = json.loads((model / "config.json").read_text(encoding="utf-8"))["answer_calibration"]
    assert found["calibration"]["threshold"] == held["threshold"]
    for name, expected in (("validation_unbiased", None), ("validation", bias), ("seeing", bias)):
        settings = json.loads((tmp_path / "out" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()[0])
        assert settings["settings"].get("sequence_bias") == expected
