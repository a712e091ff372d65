# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Questions of a batch run: what a file may say, whom it asks, what is wrong and on which line; answers as values."""

from __future__ import annotations

from pathlib import Path

import pytest

from clinic.questions import Question, Questions, QuestionsError, read_value

FILE = """\
max_new_tokens: 8
reading: {max_frames: 16}
questions:
  - id: modality
    ask: Which imaging modality is this?
    answer: choice
    choices: [CT, MRI]
  - id: bleeding
    ask: Is there a hemorrhage?
    answer: yes/no
    modality: [CT]
    description: head|brain
    confidence: 0.6
  - id: window
    ask: Is there a fracture?
    modality: MRI
    reading: {windows: bone}
    pruning: {keep_ratio: 0.5}
"""


def written(folder: Path, text: str = FILE) -> Path:
    path = folder / "questions.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_each_series_gets_the_questions_about_it(tmp_path: Path) -> None:
    questions = Questions.read(written(tmp_path))

    def asked(modality: str, described: str) -> list[str]:
        return [one.id for group in questions.groups_about(modality, described) for one in group.questions]

    assert asked("CT", "Brain 5 mm") == ["modality", "bleeding"]
    assert asked("CT", "chest") == asked("US", "") == asked("", "ct_head.nii") == ["modality"]
    assert asked("MR", "brain") == ["modality", "window"]


def test_questions_share_a_reading_unless_they_want_another(tmp_path: Path) -> None:
    questions = Questions.read(written(tmp_path))
    (together,) = questions.groups_about("CT", "head")
    assert [one.id for one in together.questions] == ["modality", "bleeding"]
    assert (together.reading, together.pruning) == ({"max_frames": 16}, {})
    _, apart = questions.groups_about("MR", "head")
    assert (apart.reading, apart.pruning) == ({"max_frames": 16, "windows": "bone"}, {"keep_ratio": 0.5})


@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [
        ("answer: yes/no", "answer: maybe", r"line 10: questions\.1\.answer: Input should be 'text', 'yes/no'"),
        ("answer: yes/no", "anwser: yes/no", r"line 10: questions\.1\.anwser: not known here; known are id, ask, ans"),
        (
            "{keep_ratio: 0.5}",
            "{keep: 0.5}",
            r"line 18: questions\.2\.pruning\.keep: not known here; known are prune",
        ),
        ("{keep_ratio: 0.5}", "{keep_ratio: 5}", r"line 18: questions\.2\.pruning\.keep_ratio: .* less than or equal"),
        ("windows: bone", "windows: bones", r"line 17: questions\.2\.reading: windows must be .*abdomen"),
        ("head|brain", "head(", r"line 12: questions\.1\.description: 'head\(' is no regular expression"),
        ("choices: [CT, MRI]", "choices: []", r"line 4: questions\.0: answer: choice needs choices"),
        (
            "choices: [CT, MRI]",
            "choices: [yes, no]",
            r"line 7: questions\.0\.choices\.0: Input should be a valid string",
        ),
        ("confidence: 0.6", "confidence: 60", r"line 13: questions\.1\.confidence: .* less than or equal to 1"),
        ("max_new_tokens: 8", "max_new_tokens: 0", r"line 1: max_new_tokens: .* greater than or equal to 1"),
        ("id: window", "id: modality", r"the id 'modality' is given to several questions"),
        ("id: window", "id: a, b", r"line 14: questions\.2\.id: String should match pattern"),
        ("max_new_tokens: 8", "max_new_tokens: [8", r"is not YAML \(line"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(tmp_path: Path, right: str, wrong: str, message: str) -> None:
    assert right in FILE
    with pytest.raises(QuestionsError, match=message):
        Questions.read(written(tmp_path, FILE.replace(right, wrong)))


@pytest.mark.parametrize(
    ("kind", "answer", "value"),
    [
        ("yes/no", "Yes, there is.", "yes"),
        ("yes/no", "There is no fracture.", "no"),
        ("yes/no", "Perhaps.", None),
        ("number", "3", "3"),
        ("number", "There are three lesions.", "3"),
        ("number", "About 12.5 mm.", "12.5"),
        ("number", "1,200 ml", "1200"),
        ("number", "\N{MINUS SIGN}40 HU", "-40"),
        ("number", "5mm", "5"),
        ("number", "3 to 5 mm", None),
        ("number", "3-5 mm", None),
        ("number", "3,5 cm", None),
        ("number", "at L4", None),
        ("number", "Many.", None),
        ("number", "I cannot tell from these 3 images.", None),
        ("choice", "B", "MRI"),
        ("choice", "It is a CT.", "CT"),
        ("choice", "CT or MRI", None),
        ("choice", "B. MRI", "MRI"),
        ("choice", "B. CT", None),
        ("text", "The left lung.", "The left lung."),
        ("text", "I cannot tell from this image.", None),
    ],
)
def test_an_answer_is_read_as_what_was_asked_for(kind: str, answer: str, value: str | None) -> None:
    choices = {"choices": ("CT", "MRI")} if kind == "choice" else {}
    question = Question.model_validate({"id": "q", "ask": "What?", "answer": kind, **choices})
    assert read_value(question, answer) == value
