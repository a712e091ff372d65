# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Asks a model the same questions about many studies, and writes tables that can be resumed, checked and cited.

    python -m clinic.batch STUDIES --questions questions.yaml --out runs/study
    python -m clinic.batch STUDIES --questions questions.yaml --list        # what would be asked, and what not

STUDIES is a folder (DICOM series in any order, NIfTI, NRRD, MetaImage, pictures, videos, zips) or a list (CSV or
Parquet) with a column `path`. OUT gets answers.jsonl as the run goes, and at its end answers.parquet, a JSON file for
each study and report.html. Stopped at any moment, the same command goes on. For research only: no medical device.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tqdm import tqdm

from clinic.questions import Group, Questions, read_value
from clinic.results import write_results
from clinic.studies import Series, Skipped, find_series
from data_engine.ledger import Ledger
from hub_model.isolated_reading_omniv_med import IsolatedReader

if TYPE_CHECKING:
    from clinic.model import LocalModel

ANSWERS = "answers.jsonl"
SHOWN_OF_A_REASON = 5
"""Files that a listing names for each reason to skip them."""
NO_QUESTION = "no question is about it"
DEFAULT_MODEL = Path(__file__).resolve().parents[1] / "hub_model"
Item = TypeVar("Item")
Result = TypeVar("Result")


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
    def asked(self) -> str:
        """The ids of its questions."""
        return ",".join(one.id for one in self.group.questions)

    def is_done(self, rows: Mapping[str, Any]) -> bool:
        """Whether the rows of a ledger hold all of its answers, or that there are none."""
        return self.failed_row_id in rows or all(name in rows for name in self.row_ids)


@dataclass(frozen=True)
class Read:
    """A series as the model gets it, or the sentence that says why not."""

    processed: Any
    error: str
    seconds: float


def tasks_about(series: Iterable[Series], questions: Questions) -> tuple[list[Task], list[Skipped]]:
    """What is asked about which series, and the series about which nothing is."""
    tasks, left = [], []
    for one in series:
        groups = questions.groups_about(one.modality, one.described)
        tasks += [Task(one, group) for group in groups]
        if not groups:
            left.append(Skipped(one.path or one.series, NO_QUESTION))
    return tasks, left


def ahead(function: Callable[[Item], Result], items: Iterable[Item], threads: int) -> Iterator[tuple[Item, Result]]:
    """Items with the results of a function, in order; threads work on the next ones while the caller uses one."""
    remaining, waiting = iter(items), deque[tuple[Item, Future[Result]]]()
    pool = ThreadPoolExecutor(threads)
    try:
        waiting.extend((item, pool.submit(function, item)) for item in itertools.islice(remaining, threads + 1))
        while waiting:
            item, future = waiting.popleft()
            result = future.result()
            waiting.extend(
                (following, pool.submit(function, following)) for following in itertools.islice(remaining, 1)
            )
            yield item, result
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def read(task: Task, reader: IsolatedReader, model: LocalModel) -> Read:
    """Reads and prunes the series of a task.

    Raises:
        RuntimeError: no file at all can be read on this machine.
    """
    start = time.perf_counter()
    source = task.series.source
    options = {**model.sampling(), **task.group.reading, **task.series.options, **task.series.reading}
    processed, sentence = None, ""
    try:
        clip = reader.load_clip(source if isinstance(source, str) else list(source), **options)
        processed = model.prune(clip, task.group.pruning)
    except ValueError as error:
        sentence = str(error)
    return Read(processed, sentence, time.perf_counter() - start)


def rows_of(task: Task, read: Read, model: LocalModel, max_new_tokens: int) -> list[dict[str, Any]]:
    """The rows of a task, without those fields that are the same in all rows of a run."""
    start = time.perf_counter()
    answers, error = [], read.error
    if not error:
        try:
            answers = model.answer(read.processed, task.group.questions, max_new_tokens)
        except ValueError as refused:
            error = str(refused)
    series = task.series
    common: dict[str, Any] = {"study": series.study, "series": series.series, "part": series.part, "path": series.path}
    if series.patient_id:
        common["patient_id"] = series.patient_id
    seconds = read.seconds + time.perf_counter() - start
    if error:
        return [
            {"id": task.failed_row_id, **common, "question": task.asked, "modality": series.modality}
            | {"seconds": round(seconds, 3), "error": error}
        ]
    processed = read.processed
    common |= {
        "kind": processed.clip.kind,
        "modality": processed.clip.modality,
        "frames": len(processed.clip.frames),
        "source_frames": processed.clip.source_frames,
        "tokens_kept": int(processed.pruned.keep_mask.sum()),
        "tokens_total": processed.tokens_before,
        "seconds": round(seconds / len(answers), 3),
        "notes": list(processed.notes),
    }
    return [
        {
            "id": name,
            **common,
            "question": question.id,
            "asked": question.ask,
            "answer": answer.text,
            "value": None if answer.declined else read_value(question, answer.text),
            "confidence": round(answer.confidence, 6),
            "declined": answer.declined,
            "likeliest": answer.likeliest,
        }
        for name, question, answer in zip(task.row_ids, task.group.questions, answers, strict=True)
    ]


def answer_all(
    tasks: Sequence[Task],
    model: LocalModel,
    reader: IsolatedReader,
    ledger: Ledger,
    versions: Mapping[str, str],
    max_new_tokens: int,
    readers: int,
) -> None:
    """Answers what the ledger does not hold yet; the next series are read meanwhile, `readers` at once.

    The questions of a task are asked together again where a kill came between their rows: the rounding of a batch
    depends on all that is in it, and a resumed run gives the rows of one that was not.
    """
    left = [task for task in tasks if not task.is_done(ledger.rows)]
    with tqdm(total=len(tasks), initial=len(tasks) - len(left), unit="series", desc="answering") as bar:
        for task, done in ahead(lambda task: read(task, reader, model), left, readers):
            for row in rows_of(task, done, model, max_new_tokens):
                if row["id"] not in ledger.rows:
                    ledger.append({**row, **versions})
            bar.update()


def listing(tasks: Sequence[Task], skipped: Sequence[Skipped]) -> str:
    """What would be asked, a line for each series, and what is passed over, by reason."""
    lines = []
    for study, held in itertools.groupby(tasks, key=lambda task: task.series.study):
        lines.append(study)
        for one, groups in itertools.groupby(held, key=lambda task: task.series):
            asked = ", ".join(task.asked for task in groups)
            files = 1 if isinstance(one.source, str) else len(one.source)
            name = " ".join(filter(None, (one.series, one.part))) or one.path
            lines.append(f"  {name}: {one.modality or 'modality unknown'}, files: {files}, asked: {asked}")
    count = len({task.series.key for task in tasks})
    lines.append(f"{count} series of {len({task.series.study for task in tasks})} studies; {len(skipped)} passed over:")
    for reason, number in Counter(one.reason for one in skipped).most_common():
        named = [one.path for one in skipped if one.reason == reason][:SHOWN_OF_A_REASON]
        lines.append(f"  {number} × {reason}: {', '.join(named)}{', …' if number > len(named) else ''}")
    return "\n".join(lines)


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m clinic.batch", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("studies", type=Path, help="folder, or list (CSV or Parquet) with a column 'path'")
    parser.add_argument("--questions", type=Path, required=True, help="YAML file; see docs/hospital.md")
    parser.add_argument("--out", type=Path, help="folder of the results; not in STUDIES")
    parser.add_argument("--list", action="store_true", help="say what would be asked and what is passed over, and end")
    parser.add_argument("--model", default=str(DEFAULT_MODEL), help="folder or Hub id (default: %(default)s)")
    parser.add_argument("--keep-ids", action="store_true", help="write DICOM's PatientID into the results")
    parser.add_argument("--time-limit", type=float, default=600.0, help="seconds to read one series (default 600)")
    parser.add_argument("--readers", type=int, default=2, help="series that are read at once (default 2)")
    options = parser.parse_args(arguments)
    if not options.list and options.out is None:
        parser.error("--out is needed, or --list")
    if options.readers < 1 or options.time_limit <= 0:
        parser.error("--readers must be at least 1, and --time-limit above 0")
    if options.out is not None and options.studies.resolve() in (options.out.resolve(), *options.out.resolve().parents):
        parser.error("--out lies in STUDIES, where its files would be taken for studies; name a folder elsewhere")
    return options


def run(options: argparse.Namespace) -> None:
    """The whole command; raises `ValueError` for what a user can mend."""
    questions = Questions.read(options.questions)
    with tqdm(unit="file", desc="looking") as bar:
        series, skipped = find_series(options.studies, options.keep_ids, bar.update)
    tasks, without_question = tasks_about(series, questions)
    skipped += without_question
    if options.list:
        print(listing(tasks, skipped))
        return
    if not tasks:
        raise ValueError(f"{options.studies} holds nothing that a question is about; --list says what it holds.")
    # Not above: it takes seconds, and a mistake in the arguments should be told at once.
    from transformers.utils import logging

    from clinic.model import LocalModel, code_version

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    with IsolatedReader(options.time_limit, processes=options.readers) as reader:
        reader.start()
        model = LocalModel(options.model)
        model.check(questions.questions)
        versions = {"model": model.version, "code": code_version()}
        asked = hashlib.sha256(questions.model_dump_json().encode()).hexdigest()
        settings = {**model.settings(), **versions, "questions": asked, "patient ids": options.keep_ids}
        with Ledger(options.out / ANSWERS, settings) as ledger:
            answer_all(tasks, model, reader, ledger, versions, questions.max_new_tokens, options.readers)
            rows = list(ledger.rows.values())
    write_results(options.out, rows, settings, skipped)
    print(f"{len(rows)} rows: {options.out / 'answers.parquet'}. Report: {options.out / 'report.html'}.")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code: 0; 2 for what a user can mend, in one sentence; 130 when interrupted."""
    options = parse_arguments(arguments)
    try:
        run(options)
    except ValueError as error:
        print(f"clinic.batch: {error}", file=sys.stderr)
        return 2
    except OSError as error:  # of the results' folder: a full disk, no permission
        print(f"clinic.batch: {error.filename or options.out}: {error.strerror or error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Stopped; the same command goes on from here.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
