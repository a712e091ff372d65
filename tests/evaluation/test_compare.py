# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Ledgers of answers, which outlive a kill and are merged, and the comparison of two of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_engine.ledger import Ledger, LedgerError, merge
from evaluation.compare import compare, main, mcnemar
from evaluation.score import Predictions, Scored, score_file
from tests.helpers.paths import ROOT

SETTINGS = {"model": "nano", "benchmark": "vqa-rad", "pruning": {"rule": "anchor", "threshold": 0.1}}


def answered(name: str, prediction: str = "yes", **other: Any) -> dict[str, Any]:
    return {"id": name, "question": "?", "answer": "yes", "answer_type": "closed", "prediction": prediction, **other}


def ledger(path: Path, *rows: dict[str, Any], settings: dict[str, Any] = SETTINGS) -> Path:
    with Ledger(path, settings) as opened:
        for row in rows:
            opened.append(row)
    return path


def test_a_ledger_goes_on_where_it_stopped(tmp_path: Path) -> None:
    path = ledger(tmp_path / "runs" / "a.jsonl", answered("1"), answered("2", "是"))
    with Ledger(path, SETTINGS) as again:
        assert list(again.rows) == ["1", "2"] and again.rows["2"]["prediction"] == "是"
        again.append(answered("3"))
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert lines == [{"settings": SETTINGS}, answered("1"), answered("2", "是"), answered("3")]


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_a_line_that_a_kill_cut_short_is_asked_again(tmp_path: Path, cut: int) -> None:
    path = ledger(tmp_path / "a.jsonl", answered("1"), answered("2"))
    os.truncate(path, path.stat().st_size - cut)
    with Ledger(path, SETTINGS) as again:
        assert list(again.rows) == ["1"]
        again.append(answered("2", "no"))
    assert Ledger(path, SETTINGS).rows["2"]["prediction"] == "no"


@pytest.mark.parametrize("held", [0, 1, 20])
def test_a_ledger_whose_settings_were_cut_short_begins_anew(tmp_path: Path, held: int) -> None:
    path = ledger(tmp_path / "a.jsonl")
    os.truncate(path, held)
    ledger(path, answered("1"))
    assert list(Ledger(path, SETTINGS).rows) == ["1"]


def test_an_answer_is_on_disk_before_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    code = (
        "import os, signal, sys; from pathlib import Path; from data_engine.ledger import Ledger\n"
        "ledger = Ledger(Path(sys.argv[1]), {}); ledger.append({'id': '1'}); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL
    assert list(Ledger(path, {}).rows) == ["1"]


def test_other_settings_are_refused_by_name(tmp_path: Path) -> None:
    path = ledger(tmp_path / "a.jsonl", answered("1"))
    with pytest.raises(LedgerError, match=r"begun with model 'nano', not 'other': name a new file"):
        Ledger(path, {**SETTINGS, "model": "other"})
    with pytest.raises(LedgerError, match="seed None, not 1"):
        Ledger(path, {**SETTINGS, "seed": 1})
    assert list(Ledger(path, {**SETTINGS, "pruning": {"threshold": 0.1, "rule": "anchor"}}).rows) == ["1"]


@pytest.mark.parametrize("text", ["my notes", '{"id": "1"}\n', "\n", "[]\n"])
def test_a_file_that_is_no_ledger_is_left_alone(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(text)
    with pytest.raises(LedgerError, match="no ledger"):
        Ledger(path, SETTINGS)
    assert path.read_text() == text


def test_damage_within_a_ledger_is_named_by_its_line(tmp_path: Path) -> None:
    path = ledger(tmp_path / "a.jsonl", answered("1"), answered("2"))
    path.write_text(path.read_text().replace('{"id": "1"', '{"id": '))
    with pytest.raises(LedgerError, match=r"line 2 of .* is damaged: remove that line"):
        Ledger(path, SETTINGS)
    path.write_text('{"settings": 3}\n')
    with pytest.raises(LedgerError, match="first line"):
        Ledger(path, SETTINGS)


@pytest.mark.parametrize("row", [answered("1"), {"id": 2}, {}])
def test_a_row_needs_an_id_of_its_own(tmp_path: Path, row: dict[str, Any]) -> None:
    with Ledger(tmp_path / "a.jsonl", SETTINGS) as opened:
        opened.append(answered("1"))
        with pytest.raises(ValueError, match="needs an id"):
            opened.append(row)


def test_ledgers_are_merged_in_the_order_of_the_questions(tmp_path: Path) -> None:
    first = ledger(tmp_path / "0.jsonl", answered("3"), answered("1"), answered("x"))
    second = ledger(tmp_path / "1.jsonl", answered("2"), answered("1", "no"))
    merged = merge([first, second], ["1", "2", "3", "4"])
    assert merged.rows == [answered("1"), answered("2"), answered("3")]
    assert (merged.missing, merged.repeated, merged.unknown) == (["4"], ["1"], ["x"])
    merged.write(tmp_path / "all.jsonl")
    assert list(Ledger(tmp_path / "all.jsonl", SETTINGS).rows) == ["1", "2", "3"]
    assert len(score_file(tmp_path / "all.jsonl").scored) == 3


def test_ledgers_of_different_settings_are_not_merged(tmp_path: Path) -> None:
    paths = [ledger(tmp_path / f"{model}.jsonl", settings={"model": model}) for model in "ab"]
    with pytest.raises(LedgerError, match="model 'b', not 'a'"):
        merge(paths, [])


def scored(**right: bool) -> Predictions:
    rows = [answered(name) for name in right]
    return Predictions(
        None,
        [
            Scored(line, row["id"], row, "closed", line, {"closed_accuracy": float(is_right)})
            for line, (row, is_right) in enumerate(zip(rows, right.values(), strict=True), start=1)
        ],
        [],
    )


def test_flips_are_counted_listed_and_tested(tmp_path: Path) -> None:
    names = [str(number) for number in range(10)]
    a = ledger(tmp_path / "a.jsonl", *(answered(n, "yes" if int(n) < 5 else "no") for n in names))
    b = ledger(tmp_path / "b.jsonl", *(answered(n, "yes" if int(n) > 0 else "no") for n in reversed(names)))
    result = compare(score_file(a), score_file(b))
    assert result["n_paired"] == 10
    assert result["right"]["a"] == 0.5 and result["right"]["b"] == 0.9
    assert result["right"]["difference"] == pytest.approx(0.4)
    assert [flip["id"] for flip in result["right_to_wrong"]] == ["0"]
    assert [flip["id"] for flip in result["wrong_to_right"]] == ["5", "6", "7", "8", "9"]
    assert result["right_to_wrong"][0]["prediction_a"] == "yes" and result["right_to_wrong"][0]["prediction_b"] == "no"
    # Of six flips, one or fewer or five or more in one direction: 2 * (1 + 6) / 2**6.
    assert result["mcnemar_p"] == pytest.approx(14 / 64)
    low, high = result["right"]["interval"]
    assert -0.2 <= low < 0.4 < high <= 0.9
    assert result["differences"]["closed_accuracy"]["difference"] == pytest.approx(0.4)
    assert result["differences"]["em"] is None
    assert result["settings_a"] == SETTINGS


def test_mcnemar_by_hand() -> None:
    assert mcnemar(0, 0) == 1
    assert mcnemar(3, 3) == 1
    assert mcnemar(0, 5) == mcnemar(5, 0) == pytest.approx(2 / 2**5)
    assert mcnemar(2, 8) == pytest.approx(2 * (1 + 10 + 45) / 2**10)


def test_questions_of_one_file_or_of_another_truth_are_listed_and_not_paired(tmp_path: Path) -> None:
    a = ledger(tmp_path / "a.jsonl", answered("1"), answered("2"), answered("3"))
    b = ledger(tmp_path / "b.jsonl", answered("2"), answered("3", answer="no"), answered("4"), answered("5", ""))
    result = compare(score_file(a), score_file(b))
    assert result["n_paired"] == 1
    assert (result["only_in_a"], result["only_in_b"], result["changed"]) == (["1"], ["4", "5"], ["3"])
    assert (result["n_only_in_a"], result["n_only_in_b"], result["n_changed"]) == (1, 2, 1)


def test_a_question_without_a_prediction_counts_as_wrong_in_its_run(tmp_path: Path) -> None:
    a = ledger(tmp_path / "a.jsonl", answered("1"), answered("2"))
    b = ledger(tmp_path / "b.jsonl", answered("1", None), answered("2"))
    result = compare(score_file(a), score_file(b))
    assert result["n_right_to_wrong"] == 1 and len(result["broken_b"]) == 1 and not result["broken_a"]


@given(st.dictionaries(st.text("abc", min_size=1, max_size=3), st.tuples(st.booleans(), st.booleans()), min_size=2))
def test_the_other_way_round_everything_is_reversed(rights: dict[str, tuple[bool, bool]]) -> None:
    a, b = (scored(**{name: pair[side] for name, pair in rights.items()}) for side in (0, 1))
    there, back = compare(a, b), compare(b, a)
    assert there["right_to_wrong"] == back["wrong_to_right"] and there["mcnemar_p"] == back["mcnemar_p"]
    assert there["right"]["difference"] == -back["right"]["difference"]
    low, high = there["right"]["interval"]
    assert low <= there["right"]["difference"] <= high
    same = compare(a, a)
    assert same["mcnemar_p"] == 1 and same["right"]["interval"] == [0, 0]


def test_runs_without_a_common_question_or_ids_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no question in common"):
        compare(scored(a=True), scored(b=True))
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"answer": "ct", "answer_type": "open", "prediction": "ct"}) + "\n")
    with pytest.raises(ValueError, match="line 1 has no id"):
        compare(score_file(path), score_file(path))


def test_the_command_compares_two_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    a = ledger(tmp_path / "a.jsonl", answered("1"), answered("2", "no"))
    b = ledger(tmp_path / "b.jsonl", answered("1"), answered("2"), answered("3"))
    out = tmp_path / "out.json"
    monkeypatch.setattr(sys, "argv", ["compare", str(a), str(b), "--json", str(out)])
    main()
    shown = capsys.readouterr().out
    assert "0 right to wrong, 1 wrong to right" in shown and "1 questions only in" in shown
    assert json.loads(out.read_text(encoding="utf-8"))["n_paired"] == 2
