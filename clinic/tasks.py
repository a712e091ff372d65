# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""What a batch run asks about which series, and the rows that come of it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clinic.questions import Group, Questions, read_value
from clinic.results import thumbnail_name
from clinic.studies import Series, Skipped
from hub_model.isolated_reading_omniv_med import IsolatedReader

if TYPE_CHECKING:  # a listing should not wait for torch
    from clinic.archive_media import Downloads
    from clinic.model import LocalModel, ModelFolder
    from hub_model.answering_omniv_med import Answer

Rows = list[dict[str, Any]]
NO_QUESTION = "no question is about it"


@dataclass(frozen=True)
class Task:
    """One series and the questions that are asked together about it."""

    series: Series
    group: Group

    @property
    def row_ids(self) -> list[str]:
        """The ids of its rows, one for each question."""
        return [f"{self.series.key} ? {one.id}" for one in self.group.questions]

    @property
    def failed_row_id(self) -> str:
        """The id of the one row that stands for all of them where the series cannot be read."""
        return f"{self.series.key} ? {self.asked}"

    @property
    def all_ids(self) -> list[str]:
        """The ids of all rows that it may have, in the order of a table."""
        return [self.failed_row_id, *self.row_ids]

    @property
    def reading(self) -> dict[str, Any]:
        """The arguments of `load_clip` that the questions, a list or the place of the series give."""
        return {**self.group.reading, **self.series.options, **self.series.reading}

    @property
    def asked(self) -> str:
        """The ids of its questions."""
        return ",".join(one.id for one in self.group.questions)

    def is_done(self, rows: Container[str]) -> bool:
        """Whether rows with these ids hold all of its answers, or that there are none."""
        return self.failed_row_id in rows or all(name in rows for name in self.row_ids)


@dataclass(frozen=True)
class Read:
    """A series as the model gets it, or the sentence that says why not; and what was made of its files."""

    processed: Any
    error: str
    seconds: float
    made: Any = None


def tasks_about(series: Iterable[Series], questions: Questions) -> tuple[list[Task], list[Skipped]]:
    """What is asked about which series, and the series about which nothing is."""
    tasks, left = [], []
    for one in series:
        groups = questions.groups_about(one.modality, one.described)
        tasks += [Task(one, group) for group in groups]
        if not groups:
            left.append(Skipped(one.path or one.series, NO_QUESTION))
    return tasks, left


def read(
    task: Task,
    reader: IsolatedReader,
    downloads: Downloads,
    model: ModelFolder,
    thumbnails: Path | None = None,
    make: Callable[[str | list[str]], Any] | None = None,
) -> Read:
    """Fetches, reads and prunes the series of a task.

    Args:
        task: whose series it is.
        reader, downloads, model: what reads, fetches and prunes.
        thumbnails: folder of a picture of what is left, named by the first row; None draws none.
        make: what else is made of the files while they are there.

    Raises:
        OSError: a thumbnail cannot be written.
        RuntimeError: no file at all can be read on this machine.
    """
    start = time.perf_counter()
    options = {**model.sampling(), **task.reading}
    processed, made, sentence = None, None, ""
    try:
        with downloads.files(task.series.source) as files:
            clip = reader.load_clip(files, **options)
            processed = model.prune(clip, task.group.pruning)
            made = make(files) if make else None
        if thumbnails is not None:
            from clinic.thumbnails import write_thumbnail  # with matplotlib: for those who want them

            write_thumbnail(processed, thumbnails / thumbnail_name(task.row_ids[0]))
    except ValueError as error:
        sentence = str(error)
    return Read(processed, sentence, time.perf_counter() - start, made)


def rows_of_all(tasks: Sequence[Task], reads: Sequence[Read], model: LocalModel, max_new_tokens: int) -> list[Rows]:
    """The rows of tasks that are answered together, without those fields that are the same in all rows of a run."""
    readable = [number for number, one in enumerate(reads) if not one.error]
    media = [(reads[number].processed, tasks[number].group.questions) for number in readable]
    given = dict(zip(readable, model.answer(media, max_new_tokens), strict=True))
    rows = []
    for number, (task, one) in enumerate(zip(tasks, reads, strict=True)):
        answers, error, seconds = given.get(number, ([], one.error, 0.0))
        facts = {} if error else model.facts(one.processed)
        rows.append(rows_of(task, answers, error, facts, one.seconds + seconds))
    return rows


def rows_of(task: Task, answers: Sequence[Answer], error: str, facts: Mapping[str, Any], seconds: float) -> Rows:
    """The rows of one task: of its answers, or one with the sentence that says why there are none.

    A confidence that is not known is NaN in an answer, and None in its row.
    """
    series = task.series
    common: dict[str, Any] = {"study": series.study, "series": series.series, "part": series.part, "path": series.path}
    if series.patient_id:
        common["patient_id"] = series.patient_id
    if error:
        return [
            {"id": task.failed_row_id, **common, "question": task.asked, "modality": series.modality}
            | {"seconds": round(seconds, 3), "error": error}
        ]
    common |= {**facts, "seconds": round(seconds / len(answers), 3)}
    return [
        {
            "id": name,
            **common,
            "question": question.id,
            "asked": question.ask,
            "answer": answer.text,
            "value": None if answer.declined else read_value(question, answer.text),
            "confidence": None if math.isnan(answer.confidence) else round(answer.confidence, 6),
            "declined": answer.declined,
            "likeliest": answer.likeliest,
        }
        for name, question, answer in zip(task.row_ids, task.group.questions, answers, strict=True)
    ]
