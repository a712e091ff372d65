# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""A batch run of two real processes under `accelerate launch`: the rows of one, and one ledger, whoever is killed."""

from __future__ import annotations

from pathlib import Path

import pytest

from clinic.batch import ANSWERS, main
from clinic.processes import PART, Processes, take_in_parts
from data_engine.ledger import Ledger, LedgerError
from tests.helpers.batch_runs import arguments, rows_in, table_of, write_questions
from tests.helpers.paths import ROOT
from tests.helpers.study_files import write_studies
from tests.helpers.two_process_launch import run_two

pytestmark = pytest.mark.usefixtures("one_thread")
CONFIG = ROOT / "train" / "configs" / "accelerate" / "single.yaml"
GROUP = 3
"""Tasks of a group, so that there are five groups."""
SETTINGS = {"model": "a1"}


@pytest.mark.slow
def test_a_run_of_two_processes_that_is_killed_goes_on_with_the_rows_of_one(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clinic.engines.GROUP", GROUP)
    studies, questions = write_studies(tmp_path / "studies"), write_questions(tmp_path)
    here, out = tmp_path / "here", tmp_path / "out"
    assert main(arguments(studies, questions, here, tiny)) == 0
    command = arguments(studies, questions, out, tiny)

    def launch(rows: int):
        module = "tests.helpers.batch_process"
        return run_two(
            CONFIG,
            module,
            [str(GROUP), str(rows), "preferred", *command],
            ("--multi_gpu", "--mixed_precision", "no"),
            ACCELERATE_USE_CPU="true",
        )

    assert launch(rows=4).returncode != 0
    kept = [row["id"] for path in out.glob("answers*.jsonl") for row in rows_in(out, path.name)]
    assert 4 <= len(kept) <= 8 and not (out / "answers.parquet").exists()
    done = launch(rows=0)
    assert done.returncode == 0, done.stderr[-3000:]
    assert [path.name for path in out.glob("answers*.jsonl")] == [ANSWERS]
    assert table_of(out) == table_of(here)
    assert kept == sorted(set(kept), key=kept.index) and set(kept) <= {row["id"] for row in rows_in(out)}
    assert done.stdout.count("rows: ") == 1, "the first process alone reports"


def test_parts_that_a_stopped_run_left_are_taken_into_the_ledger_once(tmp_path: Path) -> None:
    ledger = tmp_path / ANSWERS
    for path, ids in ((ledger, "ab"), (tmp_path / PART.format(1), "bc"), (tmp_path / PART.format(2), "d")):
        with Ledger(path, SETTINGS) as written:
            for one in ids:
                written.append({"id": one, "from": path.name})
    assert take_in_parts(ledger, SETTINGS) == ["a", "b", "c", "d"] == take_in_parts(ledger, SETTINGS)
    assert [row["from"] for row in rows_in(tmp_path)][1] == ANSWERS, "a row that is there stays"
    assert [path.name for path in tmp_path.iterdir()] == [ANSWERS]


def test_parts_of_another_run_are_refused(tmp_path: Path) -> None:
    Ledger(tmp_path / PART.format(1), SETTINGS).close()
    with pytest.raises(LedgerError, match="was begun with model 'a1', not 'b2'"):
        take_in_parts(tmp_path / ANSWERS, {"model": "b2"})
    assert (tmp_path / PART.format(1)).exists()


def test_ray_and_servers_are_not_started_several_times(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("clinic.batch.Processes.launched", lambda: Processes(0, 2))
    studies, questions = write_studies(tmp_path / "studies"), write_questions(tmp_path)
    command = arguments(studies, questions, tmp_path / "out", tiny)
    for more in (["--engine", "ray"], ["--server", "http://127.0.0.1:9/v1"]):
        assert main([*command, *more]) == 2
        assert "without accelerate launch" in capsys.readouterr().err
