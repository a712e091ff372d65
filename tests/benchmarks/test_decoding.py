# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The benchmark of decoding: a missing package is told, and a run on a tiny model compares both engines."""

from __future__ import annotations

import importlib.util
import json
import sys

import pytest
from PIL import Image

from benchmarks import decoding
from data_engine.records import Medium, Record, Turn, write_jsonl
from train.checkpoints.language_model_gguf import write

pytestmark = pytest.mark.usefixtures("one_thread")


def record(number: int) -> Record:
    return Record(
        id=f"tests/test/{number}",
        dimension="2d",
        modality="unknown",
        task="modality recognition",
        media=(Medium(type="image", path=f"{number}.png"),),
        conversations=(Turn(role="user", content="What is it?"), Turn(role="assistant", content="noise")),
        source="tests",
        license="CC0-1.0",
        split="test",
    )


def test_a_missing_package_is_told_at_once(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    command = ["decoding", str(tmp_path), "--gguf", str(tmp_path / "any.gguf"), "--json", str(tmp_path / "out.json")]
    monkeypatch.setattr("sys.argv", command)
    with pytest.raises(SystemExit):
        decoding.main()
    assert "pip install -e '.[llama-cpp]'" in capsys.readouterr().err


@pytest.mark.skipif(importlib.util.find_spec("llama_cpp") is None, reason="llama-cpp-python is not installed")
def test_both_engines_are_timed_and_their_answers_compared(tiny, tmp_path, picture, monkeypatch, capsys) -> None:
    for number in range(3):
        Image.fromarray(picture(number, 48, 48)).save(tmp_path / f"{number}.png")
    write_jsonl(map(record, range(3)), tmp_path / "test.jsonl")
    write(tiny, tmp_path / "tiny.gguf")
    monkeypatch.setattr(decoding, "MEDIA", {"image": "xray.png"})
    monkeypatch.setattr(decoding, "LONGEST_ANSWER", 4)
    command = ["decoding", tmp_path, "--model", tiny, "--gguf", tmp_path / "tiny.gguf", "--json", tmp_path / "out.json"]
    command += ["--threads", 1, "--tokens", 3, "--rounds", 1, "--each", 2]
    monkeypatch.setattr("sys.argv", [str(word) for word in command])
    decoding.main()
    figures = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    (row,) = figures["speeds"]
    assert row["speed"] == pytest.approx(
        row[decoding.LLAMA_CPP]["tokens_a_second"] / row[decoding.TORCH]["tokens_a_second"]
    )
    answers = figures["answers"]
    assert answers["kinds"] == {"image": 2}
    assert answers["same_answers"]["n"] == 2
    assert len(answers["different"]) == 2 - round(2 * answers["same_answers"]["share"])
    assert "% of 2 answers are the same" in capsys.readouterr().out
