# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""A batch run on a server: the rows of this process, and what a server may do wrong without costing more than it must.

The fast tests ask a server of our own, which reads, prunes and answers with a tiny model; a slow one asks
`transformers serve`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from clinic.batch import main
from clinic.server_engine import KEY, NO_CONFIDENCE
from tests.helpers.batch_runs import arguments, rows_in, table_of
from tests.helpers.loopback import answers, free_port
from tests.helpers.model_server import ModelServer, model_server
from tests.helpers.waiting import wait_until

pytestmark = pytest.mark.usefixtures("one_thread", "in_float32")
QUESTIONS = """\
max_new_tokens: 4
reading: {max_frames: 8}
pruning: {keep_ratio: 0.5}
questions:
  - {id: modality, ask: "Which imaging modality is this?"}
  - {id: lesion, ask: "Is there a lesion?", answer: yes/no, confidence: 0.9}
  - {id: bone, ask: "Is there a fracture?", modality: CT, reading: {windows: bone}}
"""
SIMPLE = 'max_new_tokens: 4\nquestions: [{id: what, ask: "What is shown?"}]\n'
CALIBRATION = {"weights": [0.1, 0.05, -0.1], "bias": 1.0, "threshold": 0.1}


@pytest.fixture(scope="module")
def calibrated(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with a calibration of its answers."""
    folder = tmp_path_factory.mktemp("calibrated") / "model"
    shutil.copytree(tiny, folder)
    path = folder / "config.json"
    settings = json.loads(path.read_text(encoding="utf-8")) | {"answer_calibration": CALIBRATION}
    path.write_text(json.dumps(settings), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def loaded(calibrated: Path) -> Iterator[ModelServer]:
    with model_server(calibrated) as server:
        yield server


@pytest.fixture
def server(loaded: ModelServer) -> ModelServer:
    """The server, as it is started."""
    loaded.statuses, loaded.keys = [], []
    loaded.gives_probabilities = loaded.takes_options = True
    return loaded


@pytest.fixture
def simple(tmp_path: Path) -> Path:
    """A file with one question."""
    path = tmp_path / "simple.yaml"
    path.write_text(SIMPLE, encoding="utf-8")
    return path


def some_of(studies: Path, folder: Path, *names: str) -> Path:
    """A folder with some of the files."""
    folder.mkdir()
    for name in names:
        shutil.copy(studies / name, folder / name)
    return folder


def without_confidence(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name != "confidence"} for row in rows]


def test_the_rows_are_those_of_this_process(
    server: ModelServer, calibrated: Path, studies: Path, tmp_path: Path
) -> None:
    questions = tmp_path / "questions.yaml"
    questions.write_text(QUESTIONS, encoding="utf-8")
    assert main(arguments(studies, questions, tmp_path / "here", calibrated)) == 0
    assert main(arguments(studies, questions, tmp_path / "there", calibrated, "--server", server.url)) == 0
    here, there = table_of(tmp_path / "here"), table_of(tmp_path / "there")
    assert without_confidence(there) == without_confidence(here) and len(here) == 23
    assert [row["confidence"] for row in there] == pytest.approx([row["confidence"] for row in here], abs=1e-5)
    assert {row["declined"] for row in here if row["question"] == "lesion"} == {True}, "by the question's threshold"
    assert {row["declined"] for row in here if row["question"] == "bone"} == {False}


def test_what_fails_on_its_way_is_sent_again(
    server: ModelServer, calibrated: Path, studies: Path, simple: Path, tmp_path: Path
) -> None:
    few = some_of(studies, tmp_path / "few", "picture.png")
    server.statuses = [503, 500]
    assert main(arguments(few, simple, tmp_path / "out", calibrated, "--server", server.url)) == 0
    (row,) = rows_in(tmp_path / "out")
    assert "error" not in row and len(server.keys) == 3


def test_a_file_that_the_server_refuses_costs_its_row_with_the_servers_sentence(
    server: ModelServer, calibrated: Path, studies: Path, simple: Path, tmp_path: Path
) -> None:
    few = some_of(studies, tmp_path / "few", "picture.png")
    body = np.arange(4 * 10 * 12, dtype=np.int16).reshape(12, 10, 4)
    nibabel.save(nibabel.AnalyzeImage(body, np.diag([1, 1, 2, 1])), few / "body.img")  # voxels beside the header
    assert main(arguments(few, simple, tmp_path / "out", calibrated, "--server", server.url)) == 0
    errors = {row["path"]: row.get("error") for row in rows_in(tmp_path / "out")}
    assert errors.keys() == {"picture.png", "body.hdr"} and errors["picture.png"] is None
    assert "voxels" in errors["body.hdr"]


def test_a_server_that_reads_or_prunes_otherwise_is_found_out(
    server: ModelServer, calibrated: Path, studies: Path, tmp_path: Path
) -> None:
    few = shutil.copytree(studies / "LEAKED" / "mixed", tmp_path / "few")
    questions = tmp_path / "questions.yaml"
    questions.write_text(SIMPLE + "pruning: {prune_rule: none}\n", encoding="utf-8")
    server.takes_options = False
    assert main(arguments(few, questions, tmp_path / "out", calibrated, "--server", server.url)) == 0
    errors = [row["error"] for row in rows_in(tmp_path / "out")]
    assert len(errors) == 2 and all("reads or prunes the series otherwise" in error for error in errors)


def test_without_probabilities_there_is_no_confidence_and_the_row_says_so(
    server: ModelServer, calibrated: Path, studies: Path, tmp_path: Path
) -> None:
    few = some_of(studies, tmp_path / "few", "picture.png")
    questions = tmp_path / "questions.yaml"
    sure = '  - {id: sure, ask: "Is it?", confidence: 0.9, pruning: {keep_ratio: 0.5}}\n'
    questions.write_text(f'questions:\n  - {{id: what, ask: "What is it?"}}\n{sure}', encoding="utf-8")
    server.gives_probabilities = False
    assert main(arguments(few, questions, tmp_path / "out", calibrated, "--server", server.url)) == 0
    what, sure = rows_in(tmp_path / "out")
    assert what["confidence"] is None and NO_CONFIDENCE in what["notes"] and not what["declined"] and what["answer"]
    assert "leave `confidence` out" in sure["error"]
    assert "not known" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_a_server_that_answers_nobody_ends_the_run_which_goes_on_later(
    server: ModelServer, calibrated: Path, studies: Path, simple: Path, tmp_path: Path, capsys
) -> None:
    few = some_of(studies, tmp_path / "few", "picture.png", "head.nii.gz", "film.mp4")
    command = arguments(few, simple, tmp_path / "out", calibrated, "--server", server.url)
    server.statuses = [200, 401, 401]
    assert main(command) == 2
    assert f"check the environment variable {KEY}" in capsys.readouterr().err
    server.statuses = []
    assert main(command) == 0
    assert [row["path"] for row in table_of(tmp_path / "out")] == ["film.mp4", "head.nii.gz", "picture.png"]
    assert [row["error"] for row in table_of(tmp_path / "out")] == [None] * 3


def test_a_server_that_is_not_there_is_told_in_one_sentence(
    calibrated: Path, studies: Path, simple: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.setattr("clinic.server_engine.RETRIES", 0)
    url = f"http://127.0.0.1:{free_port()}/v1"
    assert main(arguments(studies, simple, tmp_path / "out", calibrated, "--server", url)) == 2
    assert f"clinic.batch: {url} cannot be reached; start the server" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("key", "sent"), [("secret", "Bearer secret"), ("", "Bearer none")])
def test_the_key_comes_from_an_environment_variable_of_its_own(
    server: ModelServer, calibrated: Path, studies: Path, simple: Path, tmp_path: Path, monkeypatch, key: str, sent: str
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "of another server")
    monkeypatch.setenv(KEY, key)
    few = some_of(studies, tmp_path / "few", "picture.png")
    assert main(arguments(few, simple, tmp_path / "out", calibrated, "--server", server.url)) == 0
    assert server.keys == [sent]


@pytest.mark.parametrize("more", [["--server", "localhost:8000"], ["--server", "http://h/v1", "--engine", "ray"]])
def test_an_address_that_is_none_or_a_second_engine_is_refused(studies, simple, tiny, tmp_path, capsys, more) -> None:
    with pytest.raises(SystemExit):
        main(arguments(studies, simple, tmp_path / "out", tiny, *more))
    assert "--server is an address" in capsys.readouterr().err


@pytest.mark.slow
def test_transformers_serve_gives_the_rows_of_this_process_but_for_the_confidence(
    tiny: Path, studies: Path, tmp_path: Path
) -> None:
    few = some_of(studies, tmp_path / "few", "picture.png", "head.nii.gz", "film.mp4")
    questions = tmp_path / "questions.yaml"
    questions.write_text(SIMPLE + "reading: {max_frames: 8}\npruning: {keep_ratio: 0.5}\n", encoding="utf-8")
    assert main(arguments(few, questions, tmp_path / "here", tiny)) == 0
    port = free_port()
    command = [str(Path(sys.executable).parent / "transformers"), "serve", str(tiny), "--trust-remote-code"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu", "--dtype", "float32"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with (
        (tmp_path / "log.txt").open("w") as log,
        subprocess.Popen(command, env=environment, stdout=log, stderr=log) as process,
    ):
        try:
            wait_until(lambda: answers(f"http://127.0.0.1:{port}/health"), process)
            address = f"http://127.0.0.1:{port}/v1"
            assert main(arguments(few, questions, tmp_path / "there", tiny, "--server", address)) == 0
        finally:
            process.terminate()
    here, there = table_of(tmp_path / "here"), table_of(tmp_path / "there")
    assert {row["confidence"] for row in there} == {None}
    for row in there:
        assert row["notes"].pop() == NO_CONFIDENCE
    assert without_confidence(there) == without_confidence(here) and len(here) == 3
