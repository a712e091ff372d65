# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""A benchmark's questions for VLMEvalKit: their tables, its answers as predictions, and its command beside our scorer.

The slow tests run VLMEvalKit's command where OMNIV_MED_VLMEVALKIT names the Python of the environment that holds it,
and on real benchmarks where OMNIV_MED_BENCHMARKS names a folder with vqa-rad/ and slake/ as published.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from evaluation import vlmeval_data
from evaluation.benchmarks import ADAPTER_OF, BenchmarkQuestion, read_benchmark
from evaluation.lmms_eval_tasks.questions import DATA, FOLDER_OF
from evaluation.score import score_file, summarise
from evaluation.vlmeval_data import CLASS_OF, NO_ANSWER, of_pictures
from tests.helpers.data_fixtures import WRITERS
from tests.helpers.json_server import JsonHandler, in_background
from tests.helpers.loopback import answers, free_port
from tests.helpers.paths import HUB_MODEL
from tests.helpers.waiting import PATIENCE, wait_until

PYTHON = "OMNIV_MED_VLMEVALKIT"
MODEL = "omniv-med"
FIGURES = {
    "closed": ("closed_accuracy", "score", 100),
    "choice": ("choice_accuracy", "acc", 1),
    "open": ("em", "acc", 100),
}
"""Kind of question -> our figure, the end of the name of VLMEvalKit's file of figures, and its value of all right."""
BENCHMARKS_OF_PICTURES = ("vqa-rad", "slake-en", "path-vqa", "medxpertqa-mm", "omnimedvqa")


def command(monkeypatch: pytest.MonkeyPatch, **options: object) -> None:
    """Runs the module's command."""
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    monkeypatch.setattr(sys, "argv", ["vlmeval_data", *words])
    vlmeval_data.main()


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as opened:
        return list(csv.DictReader(opened, delimiter="\t"))


def write_answers(table: Path, folder: Path, said: Sequence[str]) -> None:
    """VLMEvalKit's file of answers to a table, with its rows in another order."""
    rows = [row | {"prediction": words} for row, words in zip(rows_of(table), said, strict=True)]
    folder.mkdir(exist_ok=True)
    with (folder / f"{MODEL}_{table.name}").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter="\t", quoting=csv.QUOTE_ALL)
        writer.writeheader()
        writer.writerows(reversed(rows))


@pytest.mark.parametrize("benchmark", BENCHMARKS_OF_PICTURES)
def test_every_question_stands_in_the_table_of_its_kind(tmp_path, monkeypatch, benchmark):
    source, out = tmp_path / "source", tmp_path / "LMUData"
    WRITERS[ADAPTER_OF[benchmark]](source)
    command(monkeypatch, benchmark=benchmark, data=source, out=out, server="http://127.0.0.1:8000/v1/")
    questions, _ = read_benchmark(benchmark, source, tmp_path / "cache", None)
    configured = json.loads((out / f"{benchmark}.json").read_text())
    assert configured["model"][MODEL]["api_base"] == "http://127.0.0.1:8000/v1/chat/completions"
    asked = {}
    for name, options in configured["data"].items():
        kind = name.removeprefix(f"{benchmark}_")
        assert options == {"class": CLASS_OF[kind], "dataset": name}
        asked |= {row["id"]: (kind, row) for row in rows_of(out / f"{name}.tsv")}
    assert asked.keys() == {one.id for one in questions}
    for one in questions:
        kind, row = asked[one.id]
        assert (kind, row["question"]) == (one.answer_type, one.question)
        paths = [row["image_path"]] if len(one.media) == 1 else eval(row["image_path"])
        assert [Path(path).read_bytes() for path in paths] == [(one.folder / x.path).read_bytes() for x in one.media]
        if kind == "choice":
            assert [row[letter] for letter in "ABCDEF" if row.get(letter)] == list(one.choices)
            assert row["answer"] == one.answer
        elif kind == "closed":
            assert row["answer"] == one.answer.capitalize()
        else:
            assert set(eval(row["answer"])) == {one.answer}


def test_its_answers_become_predictions_in_whatever_order_they_stand(tmp_path, monkeypatch):
    source, out = tmp_path / "source", tmp_path / "LMUData"
    WRITERS["path-vqa"](source)
    command(monkeypatch, benchmark="path-vqa", data=source, out=out)
    questions, _ = read_benchmark("path-vqa", source, tmp_path / "cache", None)
    kinds = of_pictures(questions)
    said = {kind: [one.answer for one in asked] for kind, asked in kinds.items()}
    kind = next(iter(kinds))
    said[kind][0] = f"{NO_ANSWER}. "
    for name, words in said.items():
        write_answers(out / f"path-vqa_{name}.tsv", tmp_path / "answers", words)
    command(monkeypatch, benchmark="path-vqa", data=source, out=out, answers=tmp_path / "answers")
    scored = score_file(out / "path-vqa_predictions.jsonl")
    assert len(scored.scored) == len(questions)
    wrong = {one.id: one.row["prediction"] for one in scored.scored if not one.right}
    assert wrong == {kinds[kind][0].id: ""}, "what was not answered is wrong, and no words of the model's"


def test_without_whole_answers_nothing_is_written(tmp_path, monkeypatch, capsys):
    source, out, given = tmp_path / "source", tmp_path / "LMUData", tmp_path / "answers"
    WRITERS["vqa-rad"](source)
    command(monkeypatch, benchmark="vqa-rad", data=source, out=out)
    with pytest.raises(SystemExit):
        command(monkeypatch, benchmark="vqa-rad", data=source, out=out, answers=given)
    assert "PRED_FORMAT=tsv" in capsys.readouterr().err
    for table in out.glob("*.tsv"):
        write_answers(table, given, ["no" for _ in rows_of(table)])
    file = next(given.iterdir())
    file.write_text(file.read_text().splitlines()[0] + "\n")
    with pytest.raises(SystemExit):
        command(monkeypatch, benchmark="vqa-rad", data=source, out=out, answers=given)
    assert "0 answers to" in capsys.readouterr().err
    assert not list(out.glob("*.jsonl"))


def test_what_is_not_about_pictures_is_left_out_and_counted(tmp_path, monkeypatch, capsys):
    WRITERS["m3d-cap"](tmp_path / "source")
    with pytest.raises(SystemExit):
        command(monkeypatch, benchmark="m3d-cap", data=tmp_path / "source", out=tmp_path / "LMUData")
    assert "no question about pictures" in capsys.readouterr().err


class Handler(JsonHandler):
    """Answers chat completions: one question right, the next one not."""

    server: Any

    def do_POST(self) -> None:
        request = json.loads(self.body())
        *pictures, words = request["messages"][0]["content"]
        assert all(one["image_url"]["url"].startswith("data:image/jpeg;base64,") for one in pictures)
        known = [one for one in self.server.known if one.question in words["text"]]
        true = max(known, key=lambda one: len(one.question)).answer
        # Not "None" alone: VLMEvalKit reads its own file of answers with pandas, for which that is no answer.
        said = (f"({true})", "I am not sure.", true.upper(), "Unknown")[next(self.server.turn) % 4]
        message = {"role": "assistant", "content": said}
        self.reply({"choices": [{"index": 0, "finish_reason": "stop", "message": message}]})


@contextmanager
def every_other_answer(questions: Sequence[BenchmarkQuestion]) -> Iterator[str]:
    """The address of a server that knows the questions, while the block lasts."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.known, server.turn = questions, count()
    with in_background(server) as address:
        yield f"{address}/v1"


@contextmanager
def default_model_served(log: Path) -> Iterator[str]:
    """The address of `transformers serve` with the default model, while the block lasts."""
    port = free_port()
    words = [str(Path(sys.executable).parent / "transformers"), "serve", HUB_MODEL.name, "--trust-remote-code"]
    words += ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    with log.open("w") as output:
        process = subprocess.Popen(words, cwd=HUB_MODEL.parent, env=environment, stdout=output, stderr=output)
    try:
        wait_until(lambda: answers(f"http://127.0.0.1:{port}/health"), process)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait()


def vlmevalkit(configuration: Path, out: Path) -> Path:
    """Runs VLMEvalKit's command on a configuration beside its tables; returns its folder of the model's answers."""
    python = os.environ.get(PYTHON)
    if not python:
        pytest.skip(f"{PYTHON} names no Python with VLMEvalKit (pip install ms-vlmeval)")
    out.mkdir()
    arguments = ["--judge", "exact_matching", "--api-nproc", "4", "--work-dir", str(out)]
    done = subprocess.run(
        [str(Path(python).absolute()), "-m", "vlmeval", "--config", str(configuration), *arguments],
        cwd=out,
        env=os.environ | {"LMUData": str(configuration.parent), "PRED_FORMAT": "tsv", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=4 * PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    [model] = json.loads(configuration.read_text())["model"]
    assert list((out / model).glob("*.csv")), done.stdout + done.stderr
    return out / model


def its_figures(folder: Path, kinds: Mapping[str, object], benchmark: str) -> dict[str, float]:
    """Our names of the figures -> VLMEvalKit's values, as shares."""
    found = {}
    for kind in kinds:
        ours, end, whole = FIGURES[kind]
        [file] = folder.glob(f"*_{benchmark}_{kind}_{end}.csv")
        with file.open(encoding="utf-8", newline="") as opened:
            [row] = csv.DictReader(opened)
        found[ours] = float(row["Overall"]) / whole
    return found


def compared(monkeypatch, benchmark: str, source: Path, out: Path, server: str, **options: object) -> dict[str, float]:
    """VLMEvalKit's figures of a server's answers, after they were found to be ours of the same answers."""
    data, named = out / "LMUData", {"benchmark": benchmark, "data": source, **options}
    command(monkeypatch, out=data, server=server, **named)
    folder = vlmevalkit(data / f"{benchmark}.json", out / "outputs")
    command(monkeypatch, out=data, answers=folder, **{key: value for key, value in named.items() if key != "model"})
    ours = summarise(score_file(data / f"{benchmark}_predictions.jsonl"))
    kinds = {kind: ours[f"n_{kind}"] for kind in CLASS_OF if ours[f"n_{kind}"]}
    theirs = its_figures(folder, kinds, benchmark)
    assert theirs == pytest.approx({name: ours[name] for name in theirs})
    print(benchmark, kinds, theirs)
    return theirs


def real(benchmark: str) -> Path:
    folder = Path(os.environ.get(DATA, "nowhere")) / FOLDER_OF.get(benchmark, benchmark)
    if not folder.is_dir():
        pytest.skip(f"{DATA} names no folder with {folder.name}/")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("benchmark", ["path-vqa", "medxpertqa-mm", "omnimedvqa"])
def test_the_same_answers_have_the_same_figures_there_and_here(tmp_path, monkeypatch, benchmark):
    WRITERS[ADAPTER_OF[benchmark]](tmp_path / "source")
    questions, _ = read_benchmark(benchmark, tmp_path / "source", tmp_path / "cache", None)
    with every_other_answer(questions) as server:
        assert compared(monkeypatch, benchmark, tmp_path / "source", tmp_path, server)


@pytest.mark.slow
@pytest.mark.parametrize("benchmark", ["vqa-rad", "slake-en"])
def test_real_benchmarks_have_the_same_figures_there_and_here(tmp_path, monkeypatch, benchmark):
    questions, _ = read_benchmark(benchmark, real(benchmark), tmp_path / "cache", None)
    with every_other_answer(questions) as server:
        figures = compared(monkeypatch, benchmark, real(benchmark), tmp_path, server)
    assert all(0.2 < figure < 0.8 for figure in figures.values()), "or nothing was told apart"


@pytest.mark.slow
@pytest.mark.parametrize("benchmark", ["vqa-rad", "slake-en"])
def test_the_default_models_answers_have_the_same_figures_there_and_here(tmp_path, monkeypatch, benchmark):
    source = real(benchmark)
    with default_model_served(tmp_path / "log.txt") as server:
        compared(monkeypatch, benchmark, source, tmp_path, server, model=HUB_MODEL.name, limit=40)
