# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""What the task files beside this module are made of: benchmarks on a local disk as tasks of lmms-eval, scored as here.

    export OMNIV_MED_BENCHMARKS=/data/benchmarks
    python -m lmms_eval --model qwen2_5_vl --tasks omniv_vqa_rad --include_path evaluation/lmms_eval_tasks ...

The variable names a folder with one folder for each benchmark, as published: vqa-rad, slake, path-vqa, m3d, 3d-rad,
medvidbench. The adapters that `evaluation.run` reads them with give the questions, and `evaluation.score` the figures,
so that the same answers have the same figures there and here. lmms-eval loads a data set before it calls any function
of a task; placeholder.jsonl is that data set, and `process_docs` puts the questions in its place.

OmniV-Med reads all media from their files. Other models get pictures as pictures, volumes as slices that cover them,
and videos as files, and are told by MedEvalKit's words to answer briefly.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from datasets import Dataset
from huggingface_hub.constants import HF_HOME

from data_engine.files import write_atomically
from evaluation.benchmarks import BenchmarkError, BenchmarkQuestion, read_benchmark
from evaluation.score import WITHHELD, score_row
from evaluation.submission import SUBMISSIONS
from hub_model.media_omniv_med import load_clip

DATA = "OMNIV_MED_BENCHMARKS"
FOLDER_OF = {"slake-en": "slake", "slake-zh": "slake", "m3d-vqa-closed": "m3d", "m3d-vqa-open": "m3d"}
"""Benchmark -> its folder, where that has another name."""
SUBMISSION = "submission"
Options = Mapping[str, Any]
"""A task's `lmms_eval_specific_kwargs` for the model that runs: `prompts`, a style of `evaluation.benchmarks.PROMPTS`;
`media`, "files" or "pictures"; and with pictures `slices`, of a volume at most."""


def data_folder(benchmark: str) -> Path:
    """Where a benchmark lies.

    Raises:
        BenchmarkError: the variable is not set, or the folder is not there.
    """
    held = os.environ.get(DATA)
    if not held:
        raise BenchmarkError(f"Set {DATA} to the folder that holds the benchmarks, each in a folder of its name.")
    folder = Path(held) / FOLDER_OF.get(benchmark, benchmark)
    if not folder.is_dir():
        raise BenchmarkError(f"{folder} is no folder; put {benchmark} there as it was published.")
    return folder.resolve()


def document(question: BenchmarkQuestion) -> dict[str, Any]:
    """One question as lmms-eval keeps it: plain values, so that it can be stored in a table and logged."""
    media = [{"type": one.type, "path": str(question.folder / one.path)} for one in question.media]
    messages = {style: question.messages(style)[0]["content"][-1]["text"] for style in ("plain", "medevalkit")}
    return {
        "id": question.id,
        "question": question.question,
        "answer": question.answer,
        "answer_type": question.answer_type,
        "choices": list(question.choices),
        "image": question.media[0].path,
        "media": media,
        "asked": messages,
    }


def questions(placeholder: object, *, benchmark: str) -> Dataset:
    """The benchmark's test questions in the place of the data set that lmms-eval loaded.

    Raises:
        BenchmarkError, ValueError: a folder that is not there or does not hold the benchmark, or holds no question.
    """
    store = Path(HF_HOME) / "omniv_med_media" / benchmark
    found, _ = read_benchmark(benchmark, data_folder(benchmark), store, None)
    if not found:
        raise BenchmarkError(f"{data_folder(benchmark)} holds no test question of {benchmark} that can be asked.")
    return Dataset.from_list([document(one) for one in found])


def text(doc: Mapping[str, Any], options: Options) -> str:
    """What the model is asked."""
    return doc["asked"][options["prompts"]]


def visuals(doc: Mapping[str, Any], options: Options) -> list[Any]:
    """The question's media: paths, or pictures and paths of videos."""
    shown: list[Any] = []
    for medium in doc["media"]:
        if options["media"] == "files" or medium["type"] == "video":
            shown.append(medium["path"])
        else:
            shown += load_clip(medium["path"], kind=medium["type"], max_frames=options["slices"]).images()
    return shown


def scores(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, Any]:
    """The figures of one answer by `evaluation.score`; a withheld answer goes into the benchmark's submission."""
    if doc["answer_type"] == WITHHELD:
        return {SUBMISSION: {"id": doc["id"], "prediction": results[0]}}
    row = {name: doc[name] for name in ("id", "answer", "answer_type", "image")}
    row |= {"prediction": results[0], "choices": doc["choices"] or None}
    scored, reason = score_row(1, doc["id"], row, "standard")
    if scored is None:
        raise ValueError(f"Question {doc['id']} cannot be scored: {reason}.")
    return scored.scores


def write_medvidbench(items: Sequence[Mapping[str, str]], args: Any) -> None:
    """Writes the answers as MedVidBench's owners take them.

    Args:
        items: id of a question and the answer to it.
        args: lmms-eval's, whose `output_path` holds the folder of submissions; None takes the current folder.
    """
    path = Path(getattr(args, "output_path", None) or ".") / "submissions" / "medvidbench.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    answers = {one["id"]: one["prediction"] for one in items}
    with write_atomically(path) as part:
        entries = SUBMISSIONS["medvidbench"](data_folder("medvidbench"), answers)
        part.write_text(json.dumps(entries, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


vqa_rad = partial(questions, benchmark="vqa-rad")
slake_en = partial(questions, benchmark="slake-en")
slake_zh = partial(questions, benchmark="slake-zh")
path_vqa = partial(questions, benchmark="path-vqa")
m3d_vqa_closed = partial(questions, benchmark="m3d-vqa-closed")
m3d_vqa_open = partial(questions, benchmark="m3d-vqa-open")
rad_3d = partial(questions, benchmark="3d-rad")
medvidbench = partial(questions, benchmark="medvidbench")
