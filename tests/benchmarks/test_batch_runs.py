# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The benchmark of batch runs asks both sides the same and writes its figures; its seconds are no matter here."""

from __future__ import annotations

import json

import pytest

from benchmarks import batch_runs

pytestmark = pytest.mark.usefixtures("one_thread")


def test_both_sides_answer_alike(tiny, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(batch_runs, "MAX_NEW_TOKENS", 2)
    monkeypatch.setattr(
        batch_runs, "QUESTIONS", batch_runs.QUESTIONS.replace("max_new_tokens: 32", "max_new_tokens: 2")
    )
    monkeypatch.setattr("benchmarks.generated_studies.SLICES", 3)
    out = tmp_path / "figures.json"
    sizes = ["--volumes", "1", "--pictures", "2", "--rounds", "1"]
    monkeypatch.setattr("sys.argv", ["batch_runs", "--json", str(out), "--model", str(tiny), *sizes])
    batch_runs.main()
    rows = json.loads(out.read_text())["rows"]
    assert {name: (row["questions"], row["same_answers"]) for name, row in rows.items()} == {
        "CT of 64 slices": (3, 3),
        "pictures": (6, 6),
    }
    assert all(len(seconds) == 1 for row in rows.values() for seconds in row["seconds"].values())


def test_memory_is_looked_at_in_the_run_and_at_its_end(tiny, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(
        batch_runs, "QUESTIONS", batch_runs.QUESTIONS.replace("max_new_tokens: 32", "max_new_tokens: 2")
    )
    out = tmp_path / "figures.json"
    monkeypatch.setattr("sys.argv", ["batch_runs", "--json", str(out), "--model", str(tiny), "--memory", "4"])
    batch_runs.main()
    found = json.loads(out.read_text())
    assert found["studies"] == 4 and 0 < found["quarter_mib"] <= found["end_mib"] and found["reading_process_mib"] > 0
