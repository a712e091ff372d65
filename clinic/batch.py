# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Asks a model the same questions about many studies, and writes tables that can be resumed, checked and cited.

    python -m clinic.batch STUDIES --questions questions.yaml --out runs/study
    python -m clinic.batch STUDIES --questions questions.yaml --list        # what would be asked, and what not
    accelerate launch -m clinic.batch …                                     # the series are divided over GPUs
    python -m clinic.batch … --engine ray                                   # … over the machines of a Ray cluster
    python -m clinic.batch … --server http://127.0.0.1:8000/v1              # … sent to a server of the model

STUDIES is a folder (DICOM series in any order, NIfTI, NRRD, MetaImage, pictures, videos, zips), a list (CSV or Parquet)
with a column `path`, or an archive that --archives names (dicomweb://NAME/studies?ModalitiesInStudy=CT). OUT
gets answers.jsonl as the run goes, and at its end answers.parquet, a JSON file for each study and report.html. Stopped
at any moment, the same command goes on. For research only: no medical device.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout
from tqdm import tqdm

from clinic.archive_media import ArchiveMedia
from clinic.processes import Processes, take_in_parts
from clinic.questions import Questions
from clinic.results import THUMBNAILS, write_results
from clinic.studies import Series, Skipped, find_series, is_address
from clinic.tasks import Task, tasks_about
from data_engine.executors import ENGINES
from data_engine.ledger import Ledger, remove_rows

if TYPE_CHECKING:  # a listing should not wait for torch
    from clinic.engines import Engine

ANSWERS, LOCK = "answers.jsonl", ".lock"
SHOWN_OF_A_REASON = 5
"""Files that a listing names for each reason to skip them."""
DEFAULT_MODEL = Path(__file__).resolve().parents[1] / "hub_model"


def record(
    answered: Iterable[tuple[Task, Sequence[Mapping[str, Any]]]],
    ledger: Ledger,
    versions: Mapping[str, str],
    bar: tqdm[Any],
) -> None:
    """Writes the rows of tasks as they are answered; what is there stays as it is."""
    for task, rows in answered:
        if not task.is_done(ledger.rows):
            for row in rows:
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
            name = " ".join(filter(None, (one.series, one.part))) or one.path
            lines.append(f"  {name}: {one.modality or 'modality unknown'}, files: {one.file_count}, asked: {asked}")
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
    parser.add_argument(
        "studies", help="folder; list (CSV or Parquet) with a column 'path'; or dicomweb://NAME/studies"
    )
    parser.add_argument("--questions", type=Path, required=True, help="YAML file; see docs/hospital.md")
    parser.add_argument("--out", type=Path, help="folder of the results; not in STUDIES")
    parser.add_argument("--list", action="store_true", help="say what would be asked and what is passed over, and end")
    parser.add_argument("--archives", type=Path, metavar="FILE", help="YAML that names archives; see docs/archive.md")
    parser.add_argument("--retry", action="store_true", help="ask again about what failed in an earlier run")
    parser.add_argument("--model", default=str(DEFAULT_MODEL), help="folder or Hub id (default: %(default)s)")
    parser.add_argument(
        "--engine", choices=ENGINES, default="local", help="this machine (default), or the Ray cluster of RAY_ADDRESS"
    )
    parser.add_argument(
        "--server",
        metavar="URL",
        help="a vLLM server or transformers serve with --model, such as http://127.0.0.1:8000/v1",
    )
    parser.add_argument("--keep-ids", action="store_true", help="write DICOM's PatientID into the results")
    parser.add_argument("--time-limit", type=float, default=600.0, help="seconds to read one series (default 600)")
    parser.add_argument("--readers", type=int, default=2, help="series that are read at once (default 2)")
    parser.add_argument("--thumbnails", action="store_true", help="show in the report what the model saw")
    options = parser.parse_args(arguments)
    if not options.list and options.out is None:
        parser.error("--out is needed, or --list")
    if options.readers < 1 or options.time_limit <= 0:
        parser.error("--readers must be at least 1, and --time-limit above 0")
    if options.out is not None and not is_address(options.studies):
        out = options.out.resolve()
        if Path(options.studies).resolve() in (out, *out.parents):
            parser.error("--out lies in STUDIES, where its files would be taken for studies; name a folder elsewhere")
    if options.server and (options.engine == "ray" or not options.server.startswith(("http://", "https://"))):
        parser.error("--server is an address that begins with http:// or https://, and goes without --engine ray")
    if options.engine == "ray":  # workers have another working folder
        options.out = options.out and options.out.absolute()
        options.archives = options.archives and options.archives.absolute()
        options.studies = options.studies if is_address(options.studies) else os.path.abspath(options.studies)
        options.model = os.path.abspath(options.model) if Path(options.model).is_dir() else options.model
    return options


def find(options: argparse.Namespace) -> tuple[list[Series], list[Skipped]]:
    """The series of STUDIES, and what is passed over."""
    with tqdm(unit=" series" if is_address(options.studies) else " files", desc="looking") as bar:
        in_archive = None
        if options.archives:
            in_archive = ArchiveMedia(options.archives, options.keep_ids, progress=bar.update).find
        return find_series(options.studies, options.keep_ids, bar.update, in_archive)


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Keeps a second run out of the folder; the lock goes with its process, however that ends.

    Raises:
        ValueError: another run writes there.
    """
    out.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(out / LOCK, timeout=0):
            yield
    except Timeout:
        raise ValueError(f"Another run writes to {out}; wait for it, or name another folder.") from None


def run(options: argparse.Namespace) -> None:
    """The whole command; raises `ValueError` for what a user can mend."""
    processes = Processes.launched()
    if processes.count > 1 and (options.engine == "ray" or options.server):
        raise ValueError("Ray and a server divide the series themselves; start the command without accelerate launch.")
    questions = Questions.read(options.questions)
    series, skipped = find(options)
    tasks, without_question = tasks_about(series, questions)
    skipped += without_question
    if options.list:
        print(listing(tasks, skipped))
        return
    if not tasks:
        raise ValueError(f"{options.studies} holds nothing that a question is about; --list says what it holds.")
    # Not above: it takes seconds, and a mistake in the arguments should be told at once.
    from transformers.utils import logging

    from clinic.engines import groups_left
    from clinic.model import check_thresholds

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    with opened_engine(options, questions) as engine, ExitStack() as held:
        asked = hashlib.sha256(questions.model_dump_json().encode()).hexdigest()
        settings = {**engine.settings(), "questions": asked, "patient ids": options.keep_ids}
        check_thresholds(questions, settings)
        path, ids = options.out / ANSWERS, list[str]()
        if processes.is_first:
            held.enter_context(locked(options.out))
            ids = begin(path, settings, options.retry)
        done = frozenset(processes.from_first(ids))
        mine = groups_left(tasks, done, engine.group)[processes.number :: processes.count]
        answer(engine, mine, processes, processes.ledger(path), settings, sum(task.is_done(done) for task in tasks))
        processes.wait()
        if processes.is_first:
            finish(options.out, settings, tasks, skipped)


def begin(path: Path, settings: Mapping[str, Any], retry: bool) -> list[str]:
    """Makes a ledger ready for the rows that it lacks, for a retry those that failed, too; the ids of its rows."""
    ids = take_in_parts(path, settings)
    if retry and remove_rows(path, lambda row: "error" in row):
        ids = take_in_parts(path, settings)
    return ids


def answer(
    engine: Engine,
    groups: Sequence[Sequence[Task]],
    processes: Processes,
    path: Path,
    settings: Mapping[str, Any],
    done: int,
) -> None:
    """Has groups answered into this process's ledger; `done` series are already."""
    versions = {"model": settings["model"], "code": settings["code"]}
    with Ledger(path, settings) as ledger:
        left = sum(not task.is_done(ledger.rows) for group in groups for task in group)
        quiet = not processes.is_first
        with tqdm(total=done + left, initial=done, unit="series", desc="answering", disable=quiet) as bar:
            record(engine.answered(groups), ledger, versions, bar)


def finish(out: Path, settings: Mapping[str, Any], tasks: Sequence[Task], skipped: Sequence[Skipped]) -> None:
    """Writes the tables of a run whose tasks are all done, and says where they are.

    Raises:
        ValueError: rows are missing.
    """
    take_in_parts(out / ANSWERS, settings)
    with Ledger(out / ANSWERS, settings) as ledger:
        if missing := sum(not task.is_done(ledger.rows) for task in tasks):
            raise ValueError(
                f"{missing} series have no rows: other machines wrote theirs elsewhere. Give a folder that all share, "
                "and the same command again."
            )
        rows = in_order(ledger.rows, tasks)
    write_results(out, rows, settings, skipped)
    print(f"{len(rows)} rows: {out / 'answers.parquet'}. Report: {out / 'report.html'}.")


def opened_engine(options: argparse.Namespace, questions: Questions) -> AbstractContextManager[Engine]:
    """What answers, as the command line says."""
    from clinic.engines import Settings, local_engine

    thumbnails = options.out / THUMBNAILS if options.thumbnails else None
    if thumbnails is not None:
        thumbnails.mkdir(parents=True, exist_ok=True)
    work = Settings(questions.max_new_tokens, options.readers, options.time_limit, options.archives, thumbnails)
    if options.server:
        from clinic.server_engine import server_engine

        return server_engine(options.server, options.model, work)
    if options.engine == "ray":
        from clinic.ray_engine import ray_engine

        return ray_engine(options.model, work)
    return local_engine(options.model, work)


def in_order(rows: Mapping[str, dict[str, Any]], tasks: Sequence[Task]) -> list[dict[str, Any]]:
    """Rows in the order of the tasks, however they came; last those of studies that are no longer there."""
    place = {name: number for number, name in enumerate(name for task in tasks for name in task.all_ids)}
    return sorted(rows.values(), key=lambda row: place.get(row["id"], len(place)))


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
