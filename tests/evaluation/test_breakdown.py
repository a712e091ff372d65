# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The table of right answers beside blind and majority: what its rows count, and what they pair."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from data_engine.records import REPORTS
from evaluation import breakdown as module
from evaluation.breakdown import MODALITY_NAMED, breakdown, markdown, percent, span
from evaluation.score import score_file

ASKED = [  # modality, task, answer type, answer, seeing says, blind says
    ("CT", "modality recognition", "open", "CT", "CT", "MRI"),
    ("CT", "modality recognition", "open", "contrast-enhanced", "plain", "plain"),
    ("CT", "modality recognition", "closed", "yes", "yes", "yes"),
    ("CT", REPORTS, "open", "A CT image.", "A CT image.", "An MRI image."),
    ("MRI", "modality recognition", "open", "MRI", "MRI", "MRI"),
    ("MRI", "modality recognition", "open", "MRI", "CT", "CT"),
    ("MRI", "abnormality detection", "closed", "no", "no", "yes"),
    ("MRI", REPORTS, "open", "An MRI volume.", "An MRI image.", "A CT image."),
]


def write(path: Path, said: int) -> Path:
    rows = [
        {
            "id": str(number), "question": "?", "answer": answer, "answer_type": kind, "prediction": row[said],
            "image": f"{modality}/{number}", "modality": modality, "task": task, "dimension": "2d",
        }
        for number, row in enumerate(ASKED)
        for modality, task, kind, answer, *_ in [row]
    ]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def runs(tmp_path):
    return write(tmp_path / "seeing.jsonl", 4), write(tmp_path / "blind.jsonl", 5)


@pytest.fixture
def result(runs):
    return breakdown(*map(score_file, runs))


def test_short_answers_are_counted_by_task_modality_and_kind(result):
    assert result["all"]["count"] == 6
    assert (result["all"]["accuracy"], result["all"]["blind"]) == (4 / 6, 2 / 6)
    assert result["all"]["gain"] == pytest.approx(2 / 6)
    assert {name: one["count"] for name, one in result["task"].items()} == {
        MODALITY_NAMED: 3,
        "modality recognition, open": 1,
        "modality recognition, yes/no": 1,
        "abnormality detection, yes/no": 1,
    }
    assert {name: one["count"] for name, one in result["modality"].items()} == {"CT": 3, "MRI": 3}
    assert result["kind"]["2d"]["count"] == 6


def test_the_most_frequent_answer_is_the_best_constant(result):
    assert result["task"][MODALITY_NAMED]["most_frequent_answer"] == 2 / 3


def test_the_gain_is_paired_by_question(result):
    named = result["task"][MODALITY_NAMED]
    assert (named["accuracy"], named["blind"]) == (2 / 3, 1 / 3)
    low, high = named["gain_interval"]
    assert 0 <= low <= named["gain"] <= high <= 1, "seeing is right wherever blind is, so no resample can be below 0"


def test_reports_stand_apart_and_are_compared_by_their_words(result):
    reports = result["reports_rouge_l"]
    assert reports["count"] == 2
    assert reports["accuracy"] > reports["blind"] > 0


def test_runs_of_different_questions_are_refused(runs, tmp_path):
    shorter = tmp_path / "shorter.jsonl"
    shorter.write_text("\n".join(runs[1].read_text(encoding="utf-8").splitlines()[:3]), encoding="utf-8")
    with pytest.raises(ValueError, match="same questions"):
        breakdown(score_file(runs[0]), score_file(shorter))


def test_the_command_writes_figures_and_tables(runs, tmp_path, monkeypatch, capsys, result):
    out, table = tmp_path / "out.json", tmp_path / "out.md"
    words = ["breakdown", *map(str, runs), "--json", str(out), "--markdown", str(table)]
    monkeypatch.setattr(sys, "argv", words)
    module.main()
    assert json.loads(out.read_text(encoding="utf-8")) == json.loads(json.dumps(result))
    assert table.read_text(encoding="utf-8") == markdown(result) == capsys.readouterr().out
    assert f"| {MODALITY_NAMED} | 66.7 % |" in markdown(result)
    for line in markdown(result).splitlines():
        assert line.count("|") in (0, 8)


def test_differences_have_signs():
    assert (percent(0.346), percent(-0.033, "+"), percent(0.01, "+")) == ("34.6 %", "−3.3 %", "+1.0 %")
    assert (span((0.1, 0.2)), span((-0.01, 0.02), "+"), span(None)) == ("10.0–20.0", "−1.0 to +2.0", "–")
