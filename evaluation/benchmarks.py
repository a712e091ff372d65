# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The benchmarks: their test splits as questions with media, read by the adapters that also build training data."""

from __future__ import annotations

import itertools
import re
import string
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download

from data_engine.adapters import MediaStore, get_adapter
from data_engine.adapters.base import WITHHELD
from data_engine.records import MEDIA_PLACEHOLDER, Medium, Record, RecordError, read_records

CHOICES = re.compile(r"^(?P<question>.*?)\s*Choices: A\. (.*?) B\. (.*?) C\. (.*?) D\. (.*)$", re.DOTALL)
"""How adapters write a question with four choices."""
CHOICES_IN_LINES = re.compile(r"^(?P<question>.*?)\s*Choices:\n(?P<choices>A\. .+)$", re.DOTALL)
"""How they write one with any number of choices."""
GENERATED = "generated"
ADAPTER_OF = {
    "vqa-rad": "vqa-rad",
    "slake-en": "slake",
    "slake-zh": "slake",
    "path-vqa": "path-vqa",
    "pmc-vqa": "pmc-vqa",
    "m3d-vqa-closed": "m3d-vqa-closed",
    "m3d-vqa-open": "m3d-vqa-open",
    "m3d-cap": "m3d-cap",
    "video-qa": "video-folder",
    "3d-rad": "3d-rad",
    "medvidbench": "medvidbench",
    "medxpertqa-mm": "medxpertqa-mm",
    "medframeqa": "medframeqa",
    "omnimedvqa": "omnimedvqa",
    "deeptumorvqa": "deeptumorvqa",
    "deeptumorvqa-free": "deeptumorvqa-free",
}
"""Benchmark -> adapter of its files."""
LANGUAGE_OF = {"slake-en": "en", "slake-zh": "zh"}
BENCHMARKS = (*ADAPTER_OF, GENERATED)
PROMPTS = {
    "plain": dict.fromkeys(("open", "closed", "choice", "withheld"), ""),
    "medevalkit": {
        "withheld": "",
        "open": "Please answer the question concisely.",
        "closed": "Please output 'yes' or 'no'(no extra output).",
        "choice": "Answer with the option's letter from the given choices directly.",
    },
}
"""Style -> answer type -> what is said after the question; MedEvalKit's, for numbers to stand beside published ones."""


class BenchmarkError(ValueError):
    """A benchmark that cannot be read, in one sentence."""


@dataclass(frozen=True)
class BenchmarkQuestion:
    """One question of a benchmark.

    Attributes:
        answer_type: "open", "closed" (answered yes or no), "choice" (answered by a letter), or "withheld", where only
            the benchmark's owners know the answer.
        choices: texts of A, B, C and so on; empty for other types.
        media: files of `folder`, in order.
        modality, task, dimension: as in the record it comes from.
    """

    id: str
    question: str
    answer: str
    answer_type: str
    choices: tuple[str, ...]
    media: tuple[Medium, ...]
    folder: Path
    modality: str
    task: str
    dimension: str

    def messages(self, style: str) -> list[dict[str, Any]]:
        """The conversation that asks it, as processors take it."""
        words = self.question
        if self.choices:
            listed = zip(string.ascii_uppercase, self.choices, strict=False)
            words += f" Choices: {' '.join(f'{letter}. {text}' for letter, text in listed)}"
        words = f"{words} {PROMPTS[style][self.answer_type]}".strip()
        content = [
            {"type": one.type, one.type: str(self.folder / one.path)}
            | ({"spacing": one.spacing} if one.spacing is not None else {})
            for one in self.media
        ]
        return [{"role": "user", "content": [*content, {"type": "text", "text": words}]}]

    def row(self) -> dict[str, Any]:
        """What a row of predictions repeats, so that it can be scored and read alone."""
        return {
            "id": self.id,
            "question": self.question,
            "answer": self.answer,
            "answer_type": self.answer_type,
            **({"choices": list(self.choices)} if self.choices else {}),
            "image": self.media[0].path,
            "modality": self.modality,
            "task": self.task,
            "dimension": self.dimension,
        }


def to_question(record: Record, folder: Path) -> BenchmarkQuestion:
    """The first question of a record; what kind of answer it wants follows from the answer and the choices."""
    question, answer, choices = record.question, record.answer, ()
    if in_lines := CHOICES_IN_LINES.match(question):
        question = in_lines["question"]
        choices = tuple(line.partition(". ")[2] for line in in_lines["choices"].splitlines())
    elif found := CHOICES.match(question):
        question, choices = found["question"], tuple(found.groups()[1:])
    if choices:
        answer_type, answer = "choice", answer[:1]
    elif answer == WITHHELD:
        answer_type = "withheld"
    else:
        answer_type = "closed" if answer.strip().rstrip(".").lower() in ("yes", "no") else "open"
    return BenchmarkQuestion(
        id=record.id,
        question=question.replace(MEDIA_PLACEHOLDER, "").strip(),
        answer=answer,
        answer_type=answer_type,
        choices=choices,
        media=record.media,
        folder=folder,
        modality=record.modality,
        task=record.task,
        dimension=record.dimension,
    )


def find_data(data: str) -> Path:
    """A folder or file as it is; anything else as the id of a data set on the Hub, downloaded once.

    Raises:
        BenchmarkError: neither is there.
    """
    if Path(data).exists():
        return Path(data)
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", data):
        raise BenchmarkError(f"{data} is no folder, and no id of a data set on the Hub either.")
    try:
        return Path(snapshot_download(data, repo_type="dataset"))
    except Exception as error:
        raise BenchmarkError(f"{data} could not be fetched from the Hub ({type(error).__name__}).") from None


def read_benchmark(
    name: str, data: Path, cache: Path, limit: int | None
) -> tuple[list[BenchmarkQuestion], list[dict[str, str]]]:
    """The test questions of a benchmark in their own order.

    Args:
        name: one of `BENCHMARKS`.
        data: the downloaded folder; for "generated" a built set's folder or its file of test records.
        cache: folder for media that the source keeps inside tables.
        limit: the first so many questions only; None reads all.

    Returns:
        The questions, and the rows that are broken with their reasons: `{"where", "reason"}`.

    Raises:
        BenchmarkError, ValueError: an unknown name, or a folder that does not hold the benchmark.
    """
    if name == GENERATED:
        path = data / "test.jsonl" if data.is_dir() else data
        if not path.is_file():
            raise BenchmarkError(f"{data} holds no test.jsonl; build it first: make data-mini.")
        return _read_built(path, limit)
    if name not in ADAPTER_OF:
        raise BenchmarkError(f"There is no benchmark {name!r}; choose one of {', '.join(BENCHMARKS)}.")
    adapter, store = get_adapter(ADAPTER_OF[name]), MediaStore(cache)
    questions: list[BenchmarkQuestion] = []
    broken: list[dict[str, str]] = []
    for row in adapter.rows(data):
        if limit is not None and len(questions) >= limit:
            break
        if row.values.get("split", "test") != "test":
            continue
        try:
            records = adapter.records(row, data, store)
        except ValueError as error:
            broken.append({"where": row.where, "reason": str(error)})
            continue
        language = LANGUAGE_OF.get(name)
        questions += [to_question(one, cache) for one in records if language in (None, one.language)]
    return questions[:limit], broken


def _read_built(path: Path, limit: int | None) -> tuple[list[BenchmarkQuestion], list[dict[str, str]]]:
    try:
        records = list(itertools.islice(read_records(path), limit))
    except RecordError as error:
        raise BenchmarkError(str(error)) from None
    return [to_question(record, path.parent) for record in records], []
