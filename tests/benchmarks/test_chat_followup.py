# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The benchmark of further questions holds its conversations and writes its figures; its seconds are no matter here."""

from __future__ import annotations

import json
import shutil

import pytest

from benchmarks import chat_followup

pytestmark = pytest.mark.usefixtures("one_thread")


def test_the_figures_of_a_conversation_are_written(tiny, tmp_path, monkeypatch):
    model = tmp_path / "model"
    shutil.copytree(tiny, model)
    config = json.loads((model / "config.json").read_text())
    config["text_config"]["max_position_embeddings"] = 4096  # the tiny one's are too few for the unpruned prompt
    (model / "config.json").write_text(json.dumps(config))
    name = "chest CT, generated"
    monkeypatch.setattr(chat_followup, "FILES", {name: chat_followup.FILES[name]})
    monkeypatch.setattr(chat_followup, "QUESTIONS", chat_followup.QUESTIONS[:2])
    out = tmp_path / "figures.json"
    monkeypatch.setattr("sys.argv", ["chat_followup", "--json", str(out), "--repeats", "1", "--model", str(model)])
    chat_followup.main()
    rows = json.loads(out.read_text())["rows"]
    assert set(rows) == {f"{name}, pruned", f"{name}, without pruning"}
    for row in rows.values():
        assert row["same_answers"], "what is remembered must not change an answer"
        first, *further = row["computed_tokens"]
        assert first == row["prompt_tokens"][0] and max(further) < first
