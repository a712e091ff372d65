# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The task files for lmms-eval: benchmarks in their published layouts, asked by any of its models, scored as here."""

from __future__ import annotations

import json
import os
from functools import partial
from pathlib import Path

import pytest
import yaml

pytest.importorskip(
    "lmms_eval",
    reason="lmms-eval is missing: pip install --no-deps -r requirements-lmms-eval.txt",
)

from lmms_eval.api.instance import Instance
from lmms_eval.api.model import lmms
from lmms_eval.evaluator import simple_evaluate
from lmms_eval.tasks import TaskManager
from lmms_eval.utils import load_yaml_config
from PIL import Image

from evaluation.benchmarks import ADAPTER_OF, BenchmarkError, read_benchmark
from evaluation.lmms_eval_tasks import questions
from evaluation.lmms_eval_tasks.questions import DATA, FOLDER_OF, data_folder, visuals
from evaluation.score import KEYS, score_file, summarise
from tests.helpers.data_fixtures import WRITERS, slake_entry, write_json
from tests.helpers.paths import ROOT

TASKS = ROOT / "evaluation" / "lmms_eval_tasks"


def benchmark_of(path: Path) -> tuple[str, str]:
    """A task file's task, and the benchmark whose questions its `process_docs` asks."""
    named = load_yaml_config(str(path), mode="full")
    return named["task"], named["process_docs"].keywords["benchmark"]


BENCHMARK_OF = dict(benchmark_of(path) for path in sorted(TASKS.glob("*.yaml")))


class EveryOtherAnswer(lmms):
    """A model of lmms-eval's own kind that looks at all media and knows every other answer.

    Attributes:
        seen: kinds of what it was shown.
        answers: id of a question -> what it answered.
    """

    is_simple = True

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()
        self.answers: dict[str, str] = {}

    def generate_until(self, requests: list[Instance]) -> list[str]:
        answers = []
        for number, request in enumerate(requests):
            asked, _, doc_to_visual, place, task, split = request.args
            document = self.task_dict[task][split][place]
            assert document["question"] in asked
            self.seen |= {type(one).__name__ for one in doc_to_visual(document)}
            answers.append("The answer is no." if number % 2 else document["answer"])
            self.answers[document["id"]] = answers[-1]
        return answers

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        raise NotImplementedError

    def generate_until_multi_round(self, requests: list[Instance]) -> list[str]:
        raise NotImplementedError


@pytest.fixture(scope="module")
def benchmarks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for each benchmark, in its published layout."""
    folder = tmp_path_factory.mktemp("benchmarks")
    for benchmark in BENCHMARK_OF.values():
        WRITERS[ADAPTER_OF[benchmark]](folder / FOLDER_OF.get(benchmark, benchmark))
    chinese = slake_entry(q_lang="zh", question="图中最大的器官是什么?", answer="肝脏", qid=77)
    write_json(folder / "slake" / "test.json", [slake_entry(qid=78), slake_entry(qid=79), chinese])
    return folder


@pytest.fixture
def on_disk(benchmarks, tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv(DATA, str(benchmarks))
    monkeypatch.setenv("LMMS_EVAL_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path / "home"))
    return benchmarks


def evaluated(task: str) -> tuple[EveryOtherAnswer, dict[str, float]]:
    """The model after the task, and the task's figures by their names."""
    model = EveryOtherAnswer()
    manager = TaskManager(include_path=str(TASKS), include_defaults=False)
    results = simple_evaluate(model=model, tasks=[task], task_manager=manager, bootstrap_iters=0)
    figures = {key.removesuffix(",none"): value for key, value in results["results"][task].items()}
    ours = [key for keys in KEYS["standard"].values() for key in keys]
    return model, {key: figures[key] for key in ours if key in figures}


def scored_here(benchmark: str, data: Path, answers: dict[str, str], out: Path) -> dict[str, float]:
    """The figures of the same answers by `evaluation.score`, for every kind of question that there is."""
    questions, _ = read_benchmark(benchmark, data, out / "media", None)
    assert {one.id for one in questions} == answers.keys()
    rows = [one.row() | {"prediction": answers[one.id]} for one in questions]
    file = out / "predictions.jsonl"
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    found = summarise(score_file(file))
    return {key: found[key] for key in found["intervals"] if found[key] is not None}


def test_every_benchmark_that_questions_offer_has_one_task_file():
    offered = [one.keywords["benchmark"] for one in vars(questions).values() if isinstance(one, partial)]
    assert sorted(BENCHMARK_OF.values()) == sorted(offered)


@pytest.mark.parametrize("task", [name for name in BENCHMARK_OF if name != "omniv_medvidbench"])
def test_the_same_answers_have_the_same_figures_there_and_here(task, on_disk, tmp_path):
    benchmark = BENCHMARK_OF[task]
    model, figures = evaluated(task)
    data = on_disk / FOLDER_OF.get(benchmark, benchmark)
    assert figures == pytest.approx(scored_here(benchmark, data, model.answers, tmp_path))
    assert model.seen == {"Image"}, "pictures and slices"


def test_withheld_answers_go_into_the_owners_file(on_disk, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model, figures = evaluated("omniv_medvidbench")
    assert model.seen == {"str"}, "videos are files"
    assert figures["em"] == 1, "of the one question whose answer is known"
    [written] = tmp_path.rglob("submissions/medvidbench.json")
    entries = json.loads(written.read_text(encoding="utf-8"))
    assert [one["id"] for one in entries[:3]] == ["v1&&0&&60&&1.0", "v1&&0&&60&&1.0", "v2&&3&&9&&0.5"]
    assert [one["prediction"] for one in entries[:2]] == list(model.answers.values())[:2]


def test_our_own_model_reads_the_files_itself_and_others_get_slices(on_disk):
    options = yaml.safe_load((TASKS / "common").read_text().replace("!function", ""))["lmms_eval_specific_kwargs"]
    volume = on_disk / "m3d" / "M3D_Cap_npy/ct_quizze/000006/Axial_C__portal_venous_phase.npy"
    shown = {"media": [{"type": "volume", "path": str(volume)}]}
    assert visuals(shown, options["omniv_med"]) == [str(volume)]
    slices = visuals(shown, options["default"] | {"slices": 2})
    assert len(slices) == 2
    assert all(isinstance(one, Image.Image) for one in slices)


def test_a_folder_that_is_not_there_is_said(monkeypatch, tmp_path):
    monkeypatch.delenv(DATA, raising=False)
    with pytest.raises(BenchmarkError, match=f"Set {DATA}"):
        data_folder("vqa-rad")
    monkeypatch.setenv(DATA, str(tmp_path))
    with pytest.raises(BenchmarkError, match=r"slake is no folder"):
        data_folder("slake-en")


@pytest.mark.slow
@pytest.mark.parametrize("task", ["omniv_vqa_rad", "omniv_slake_en"])
def test_real_benchmarks_have_the_same_figures_there_and_here(task, tmp_path, monkeypatch):
    """Where OMNIV_MED_BENCHMARKS names a folder with vqa-rad/ and slake/ as published."""
    benchmark = BENCHMARK_OF[task]
    folder = Path(os.environ.get(DATA, "nowhere")) / FOLDER_OF.get(benchmark, benchmark)
    if not folder.is_dir():
        pytest.skip(f"{DATA} names no folder with {folder.name}/")
    monkeypatch.setenv("LMMS_EVAL_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path / "home"))
    model, figures = evaluated(task)
    assert len(model.answers) > 400
    assert figures == pytest.approx(scored_here(benchmark, folder, model.answers, tmp_path))
