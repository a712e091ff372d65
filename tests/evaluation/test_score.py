# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""A file of predictions becomes figures with counts and intervals, and no row of it is lost."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evaluation.score import KEYS, main, score_file, summarise

ORGANS = ["liver", "spleen"]


def row(kind: str, answer: str, prediction: str, **other: Any) -> dict[str, Any]:
    return {"question": "?", "answer": answer, "answer_type": kind, "prediction": prediction, **other}


ROWS = [
    row("open", "left lung", "The left lung."),
    row("open", "left lung", "left lower lung"),
    row("open", "左肺", "答案:左肺"),
    row("open", "mass", "I cannot tell."),
    row("closed", "Yes", "Yes, there is."),
    row("closed", "no", "There is no fracture."),
    row("closed", "no", "yes"),
    row("closed", "yes", "A nodule is seen."),
    row("closed", "Left", "left."),
    row("choice", "B", "The answer is (B).", choices=ORGANS),
    row("choice", "spleen", "B. spleen", choices=ORGANS),
    row("choice", "A", "", choices=ORGANS),
]


def write(path: Path, rows: list[Any]) -> Path:
    lines = [one if isinstance(one, str) else json.dumps(one, ensure_ascii=False) for one in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def score(path: Path, rows: list[Any], mode: str = "standard") -> dict[str, Any]:
    return summarise(score_file(write(path, rows), mode), mode)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "predictions.jsonl"


def test_figures_are_means_over_the_questions_of_their_kind(file: Path) -> None:
    result = score(file, ROWS)
    assert (result["n_open"], result["n_closed"], result["n_choice"]) == (4, 5, 3)
    assert result["em"] == 2 / 4
    assert result["precision"] == pytest.approx((1 + 2 / 3 + 1 + 0) / 4)
    assert result["recall"] == pytest.approx((1 + 1 + 1 + 0) / 4)
    assert result["f1"] == pytest.approx((1 + 4 / 5 + 1 + 0) / 4)
    assert result["bleu1"] == pytest.approx((1 + 2 / 3 + 1 + 0) / 4)
    assert result["rouge1"] == pytest.approx((1 + 4 / 5 + 1 + 0) / 4)
    assert result["closed_accuracy"] == 3 / 5
    assert result["choice_accuracy"] == 2 / 3
    # "A nodule is seen." says neither yes nor no, and one choice is not answered.
    assert result["n_unread"] == 2
    assert result["broken"] == []


def test_every_figure_has_an_interval_that_holds_it(file: Path) -> None:
    result = score(file, ROWS)
    assert set(result["intervals"]) == {key for keys in KEYS["standard"].values() for key in keys}
    for key, (low, high) in result["intervals"].items():
        assert 0 <= low <= result[key] <= high <= 1


def test_kinds_that_are_absent_give_null(file: Path) -> None:
    result = score(file, ROWS[4:9])
    assert result["em"] is None and result["intervals"]["em"] is None and result["n_open"] == 0
    assert result["choice_accuracy"] is None
    rotated = score(file, ROWS[4:9], "medevalkit")["medevalkit_rotated"]
    assert rotated == {"precision": None, "recall": None, "f1": None}


def test_one_question_has_no_interval(file: Path) -> None:
    result = score(file, [row("open", "ct", "ct")])
    assert result["em"] == 1 and result["intervals"]["em"] is None


def test_questions_of_one_image_are_drawn_together(file: Path) -> None:
    apart = [row("closed", "yes", "yes" if i < 20 else "no", id=str(i)) for i in range(40)]
    together = [{**one, "image": f"{i // 10}.png"} for i, one in enumerate(apart)]
    narrow, wide = (score(file, rows)["intervals"]["closed_accuracy"] for rows in (apart, together))
    assert wide == [0, 1] and narrow[1] - narrow[0] < 0.4


BROKEN = [
    # (row, what is said of it, the kind in whose figures it counts as wrong)
    ({"answer": "ct", "answer_type": "open"}, "prediction", "open"),
    ({"answer": "yes", "answer_type": "closed", "prediction": None}, "prediction", "closed"),
    ({"answer": "B", "answer_type": "choice", "prediction": 2, "choices": ORGANS}, "prediction", "choice"),
    (row("open", " . ", "ct"), "answer: is empty", "open"),
    ({"answer_type": "open", "prediction": "ct"}, "answer", "open"),
    (row("choice", "heart", "B", choices=ORGANS), "none of the choices", "choice"),
    (row("choice", "B", "B", choices="AB"), "choices", "choice"),
    (row("opened", "ct", "ct"), "answer_type: is 'opened'", None),
    ({"answer": "ct", "prediction": "ct"}, "answer_type", None),
    ('{"answer": "ct", "answer_ty', "no JSON object", None),
    ("[1, 2]", "no JSON object", None),
]


@pytest.mark.parametrize(("broken", "reason", "kind"), BROKEN)
def test_a_broken_row_is_listed_and_counts_as_wrong_where_its_kind_is_known(
    file: Path, broken: Any, reason: str, kind: str | None
) -> None:
    result = score(file, [*ROWS, broken])
    assert result["n_broken"] == 1
    (listed,) = result["broken"]
    assert listed["line"] == len(ROWS) + 1 and reason in listed["reason"] and listed["counted_as"] == kind
    whole = score(file, ROWS)
    for each in ("open", "closed", "choice"):
        extra = int(each == kind)
        assert result[f"n_{each}"] == whole[f"n_{each}"] + extra
        for key in KEYS["standard"][each]:
            assert result[key] == pytest.approx(whole[key] * whole[f"n_{each}"] / (whole[f"n_{each}"] + extra))


def test_a_question_counts_once(file: Path) -> None:
    result = score(file, [row("open", "ct", "ct", id="a"), row("open", "ct", "mr", id="a"), row("open", "ct", "ct")])
    assert result["n_open"] == 2 and result["em"] == 1
    assert result["broken"] == [{"line": 2, "id": "a", "reason": "id: repeats line 1", "counted_as": None}]


def test_a_ledgers_settings_are_handed_on_and_are_no_row(file: Path) -> None:
    result = score(file, [{"settings": {"model": "nano"}}, *ROWS])
    assert result["settings"] == {"model": "nano"} and result["n_broken"] == 0 and result["n_open"] == 4


def test_upper_case_kinds_and_a_byte_order_mark_are_read(file: Path) -> None:
    file.write_text(json.dumps(row("OPEN", "ct", "ct")) + "\n\n", encoding="utf-8-sig")
    assert summarise(score_file(file))["em"] == 1


def test_the_tools_figures_stand_under_their_own_names(file: Path) -> None:
    rows = [
        row("open", "left lung lobe", "left left lung"),
        row("open", "ct", "The answer is ct"),
        row("open", "ct", ""),
        row("closed", "Yes", "Yes, there is."),
        row("choice", "B", "b", choices=ORGANS),
        row("choice", "B", "b"),
    ]
    result = score(file, rows, "medevalkit")
    assert result["em"] == 0
    assert (result["precision"], result["recall"], result["f1"]) == pytest.approx(
        (2 / 3, (2 / 3 + 1) / 3, (4 / 5 + 1) / 3)
    )
    assert result["medevalkit_rotated"] == pytest.approx(
        {"precision": result["f1"], "recall": result["precision"], "f1": result["recall"]}
    )
    # The tool would end at the empty reply and at the missing choices; here they count as 0 and are listed.
    assert [one["line"] for one in result["medevalkit_stops"]] == [3, 6]
    assert (result["closed_accuracy"], result["medevalkit_slake_closed_accuracy"]) == (1, 0)
    assert result["choice_accuracy"] == 1 / 2
    assert "meteor" not in result


@settings(max_examples=15, suppress_health_check=list(HealthCheck))
@given(st.lists(st.sampled_from(ROWS), min_size=1, max_size=12), st.randoms(), st.sampled_from(sorted(KEYS)))
def test_the_order_of_rows_does_not_matter(file: Path, rows: list[dict], shuffler: random.Random, mode: str) -> None:
    result = score(file, rows, mode)
    shuffler.shuffle(rows)
    again = score(file, rows, mode)
    for key in (key for keys in KEYS[mode].values() for key in keys):
        assert again[key] == result[key]
        assert again["intervals"][key] == pytest.approx(result["intervals"][key])


def test_the_command_writes_json_and_names_broken_rows(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "figures.json"
    monkeypatch.setattr(sys, "argv", ["score", str(write(file, [*ROWS, BROKEN[0][0]])), "--json", str(out)])
    main()
    shown = capsys.readouterr()
    figures = json.loads(out.read_text(encoding="utf-8"))
    wanted = "em bleu1 bleu2 bleu3 bleu4 rouge1 rouge2 rougel precision recall f1 closed_accuracy choice_accuracy"
    assert all(isinstance(figures[key], float) for key in wanted.split())
    assert [figures[f"n_{kind}"] for kind in ("open", "closed", "choice")] == [5, 5, 3]
    assert "closed_accuracy" in shown.out
    assert "line 13: prediction: Field required; counts as a wrong open answer" in shown.err


def test_the_command_refuses_what_it_cannot_score_in_a_sentence(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["score", str(file)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2 and "is no file: name a file of predictions" in capsys.readouterr().err
    file.write_text("\n")
    with pytest.raises(ValueError, match="holds no predictions"):
        score_file(file)
