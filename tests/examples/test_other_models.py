# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""A volume for any chat model: its slices as our reader chooses and windows them, in MedGemma's message."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from examples.other_models import INSTRUCTION, main, messages_for
from hub_model.media_omniv_med import load_clip
from tests.helpers.paths import ROOT

pytestmark = pytest.mark.usefixtures("one_thread")
CT = ROOT / "examples" / "media" / "ct_volume.nii.gz"


def test_each_slice_is_followed_by_its_number_and_the_question_comes_last():
    clip = load_clip(CT, max_frames=3, windows="lung", plane="coronal")
    content = messages_for(clip, "What is it?")[0]["content"]
    assert [part["type"] for part in content] == ["text", *["image", "text"] * 3, "text"]
    assert [part["text"] for part in content if part["type"] == "text"] == [
        INSTRUCTION,
        "SLICE 1",
        "SLICE 2",
        "SLICE 3",
        "What is it?",
    ]
    pictures = [part["image"] for part in content if part["type"] == "image"]
    assert np.array_equal(np.stack([np.asarray(picture) for picture in pictures]), clip.frames)


def run(monkeypatch, capsys, *arguments) -> str:
    monkeypatch.setattr(sys, "argv", ["other_models", *map(str, arguments)])
    main()
    return capsys.readouterr().out


def test_the_command_prints_what_the_message_holds(monkeypatch, capsys):
    printed = run(monkeypatch, capsys, CT, "What is it?", "--slices", "2", "--windows", "lung")
    assert "lung" in printed
    assert printed.count("[picture of ") == 2
    assert printed.rstrip().endswith("SLICE 2\nWhat is it?")


def test_a_model_answers(monkeypatch, capsys, tiny):
    """Ours stands for any: it gets pictures in a chat message, as all do."""
    monkeypatch.setattr("examples.other_models.LONGEST_ANSWER", 3)
    answered = run(monkeypatch, capsys, CT, "Which?", "--slices", "2", "--model", tiny, "--trust-remote-code")
    assert "SLICE" not in answered


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((ROOT / "examples" / "media" / "xray.png", "What?"), "holds no volume but a single image"),
        ((CT, "What?", "--windows", "chalk"), "windows must be"),
        ((ROOT / "nowhere.nii", "What?"), "Error: "),
        ((CT, "What?", "--model", ROOT / "nowhere"), "Error: "),
    ],
)
def test_what_is_wrong_is_said(monkeypatch, capsys, arguments, sentence):
    with pytest.raises(SystemExit, match=sentence):
        run(monkeypatch, capsys, *arguments)
