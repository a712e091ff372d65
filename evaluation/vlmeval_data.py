# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""A benchmark's questions as data sets of VLMEvalKit, and that tool's answers as predictions that we score.

    python -m evaluation.vlmeval_data --benchmark vqa-rad --data downloads/vqa-rad --out LMUData
    LMUData=LMUData PRED_FORMAT=tsv python -m vlmeval --config LMUData/vqa-rad.json --judge exact_matching ...
    python -m evaluation.vlmeval_data --benchmark vqa-rad --data downloads/vqa-rad --out LMUData \
      --answers outputs/omniv-med

VLMEvalKit asks any server of OpenAI's chat completions. It takes a table that it does not know for choices, or for what
it cannot score. But a configuration may name the class that reads a table: so the first command writes a table for each
kind of question, `OUT/BENCHMARK_KIND.tsv`, and the configuration `OUT/BENCHMARK.json` with the classes for yes and no,
for choices, and for open answers. The last command writes `OUT/BENCHMARK_predictions.jsonl`, which `evaluation.score`
scores.
"""

from __future__ import annotations

import argparse
import csv
import json
import string
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from data_engine.answers import true_yes_or_no
from data_engine.files import write_atomically
from evaluation.benchmarks import BENCHMARKS, BenchmarkError, BenchmarkQuestion, find_data, read_benchmark

CLASS_OF = {"closed": "ImageYORNDataset", "choice": "ImageMCQDataset", "open": "ImageVQADataset"}
"""Kind of question -> VLMEvalKit's class, whose words ask and whose rule scores."""
ANNOTATORS = 10
"""An open answer is right as far as three of the other annotators gave it (VQA, Antol et al. 2015, section 4): a single
true answer, which no other annotator gave, would never be right."""
NO_ANSWER = "Failed to obtain answer via API"
"""What VLMEvalKit writes down where the server answered nothing."""
LONGEST_ANSWER = 32
"""New tokens, as in `evaluation.run`."""


def of_pictures(questions: Iterable[BenchmarkQuestion]) -> dict[str, list[BenchmarkQuestion]]:
    """Kind -> the questions that VLMEvalKit can ask and score: those about pictures alone whose answers are known."""
    kinds: dict[str, list[BenchmarkQuestion]] = {}
    for one in questions:
        if one.answer_type in CLASS_OF and all(medium.type == "image" for medium in one.media):
            kinds.setdefault(one.answer_type, []).append(one)
    return kinds


def table(questions: Sequence[BenchmarkQuestion]) -> list[dict[str, str]]:
    """The rows of one kind's table; cells are empty where a question has fewer choices than another."""
    letters = string.ascii_uppercase[: max(len(one.choices) for one in questions)]
    return [
        {
            "index": str(index),
            "id": one.id,
            "image_path": _paths(one),
            "question": one.question,
            **{letter: "".join(one.choices[place : place + 1]) for place, letter in enumerate(letters)},
            "answer": _answer(one),
            "category": one.task,
        }
        for index, one in enumerate(questions)
    ]


def _paths(question: BenchmarkQuestion) -> str:
    paths = [str((question.folder / medium.path).resolve()) for medium in question.media]
    return paths[0] if len(paths) == 1 else repr(paths)


def _answer(question: BenchmarkQuestion) -> str:
    """The true answer in the form that the class of its kind compares."""
    if question.answer_type == "closed":
        return "Yes" if true_yes_or_no(question.answer) else "No"
    return repr([question.answer] * ANNOTATORS) if question.answer_type == "open" else question.answer


def configuration(names: Mapping[str, str], server: str, model: str) -> dict[str, dict[str, dict[str, object]]]:
    """What VLMEvalKit's `--config` takes.

    Args:
        names: kind of question -> name of its table.
        server: address of the API, ending in /v1.
        model: its name at the server; folders and files of answers are named by it, with "--" for "/".
    """
    asked = {
        "class": "LMDeployAPI",
        "model": model,
        "api_base": f"{server.rstrip('/')}/chat/completions",
        "temperature": 0,
        "max_tokens": LONGEST_ANSWER,
    }
    data: dict[str, dict[str, object]] = {
        name: {"class": CLASS_OF[kind], "dataset": name} for kind, name in names.items()
    }
    return {"model": {model.replace("/", "--"): asked}, "data": data}


def read_answers(folder: Path, name: str) -> list[str]:
    """VLMEvalKit's answers to a table's questions, in their order; what was not answered is empty.

    Args:
        folder: its folder of one model's answers, written with PRED_FORMAT=tsv.
        name: of the table.

    Raises:
        BenchmarkError: the folder holds no such file, or several.
    """
    found = sorted(folder.glob(f"*_{name}.tsv"))
    if len(found) != 1:
        raise BenchmarkError(
            f"{folder} holds {len(found)} files *_{name}.tsv, not one; set PRED_FORMAT=tsv where VLMEvalKit runs."
        )
    with found[0].open(encoding="utf-8", newline="") as file:
        rows = sorted(csv.DictReader(file, delimiter="\t"), key=lambda row: int(row["index"]))
    return ["" if row["prediction"].startswith(NO_ANSWER) else row["prediction"] for row in rows]


def write_data(
    kinds: Mapping[str, Sequence[BenchmarkQuestion]], benchmark: str, out: Path, server: str, model: str
) -> None:
    """Writes a table for each kind of question, and the configuration; each file whole or not at all."""
    names = {kind: f"{benchmark}_{kind}" for kind in kinds}
    for kind, name in names.items():
        rows = table(kinds[kind])
        with write_atomically(out / f"{name}.tsv") as part, part.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter="\t", quoting=csv.QUOTE_ALL)
            writer.writeheader()
            writer.writerows(rows)
    with write_atomically(out / f"{benchmark}.json") as part:
        part.write_text(json.dumps(configuration(names, server, model), indent=1) + "\n", encoding="utf-8")


def write_predictions(
    kinds: Mapping[str, Sequence[BenchmarkQuestion]], benchmark: str, out: Path, answers: Path
) -> None:
    """Writes a row of predictions for each question.

    Raises:
        BenchmarkError: a file of answers is missing, or does not answer every question.
    """
    lines = []
    for kind, questions in kinds.items():
        given = read_answers(answers, f"{benchmark}_{kind}")
        if len(given) != len(questions):
            raise BenchmarkError(f"{answers} holds {len(given)} answers to {len(questions)} {kind} questions.")
        rows = [one.row() | {"prediction": said} for one, said in zip(questions, given, strict=True)]
        lines += [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    with write_atomically(out / f"{benchmark}_predictions.jsonl") as part:
        part.write_text("".join(lines), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--benchmark", choices=BENCHMARKS, required=True)
    parser.add_argument("--data", required=True, help="its folder, or its id on the Hub")
    parser.add_argument("--out", type=Path, required=True, help="the folder that VLMEvalKit's variable LMUData names")
    parser.add_argument("--limit", type=int, help="the first so many questions only")
    parser.add_argument("--server", default="http://127.0.0.1:8000/v1", help="(default: %(default)s)")
    parser.add_argument("--model", default="omniv-med", help="its name at the server (default: %(default)s)")
    parser.add_argument("--answers", type=Path, help="VLMEvalKit's folder of answers, to be made predictions")
    arguments = parser.parse_args()
    name, out = arguments.benchmark, arguments.out.resolve()
    try:
        questions, broken = read_benchmark(name, find_data(arguments.data), out / "images" / name, arguments.limit)
        kinds = of_pictures(questions)
        if not kinds:
            raise BenchmarkError(f"{arguments.data} holds no question about pictures with a known answer.")
        if arguments.answers:
            write_predictions(kinds, name, out, arguments.answers)
        else:
            write_data(kinds, name, out, arguments.server, arguments.model)
    except ValueError as error:
        parser.error(str(error))
    print(", ".join(f"{len(asked)} {kind}" for kind, asked in kinds.items()))
    left_out = len(questions) - sum(map(len, kinds.values()))
    if left_out or broken:
        print(f"left out: {left_out} not about pictures or withheld, {len(broken)} broken", file=sys.stderr)


if __name__ == "__main__":
    main()
