# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Studies an hour of a batch run beside a loop that asks one by one, and whether a long run's memory stays flat.

    python -m benchmarks.batch_runs --json benchmarks/results/batch_runs.json
    python -m benchmarks.batch_runs --json benchmarks/results/batch_memory.json --memory 2000

Generated CT volumes of 64 slices and pictures, three questions about each. The peer is what the README shows, in a loop
over files and questions: chat template, processor with the file's path, `generate`. Both have the model loaded, in the
same number format, with as many threads, and take turns, the other one first in each round; before, each asks about
one picture. Seconds are those of a clock; seconds of processors, which other programs on a machine hardly change, count
the reading processes of the batch run, too.

With --memory N nothing is timed: N small pictures go through a batch run, and the largest memory after a quarter of
them is compared with that at the end. What a run keeps does not depend on the model, so a small one will do.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import psutil
from transformers.utils import logging

from benchmarks.generated_studies import write_picture, write_volume
from benchmarks.report import write_json
from clinic.engines import Settings, answered_here, groups_left
from clinic.model import LocalModel
from clinic.questions import Questions
from clinic.studies import find_series
from clinic.tasks import Task, tasks_about
from data_engine.tables import markdown_table
from hub_model.modeling_omniv_med import OmniVMedForConditionalGeneration
from hub_model.number_format_omniv_med import preferred_dtype
from hub_model.processing_omniv_med import OmniVMedProcessor

DEFAULT_MODEL = Path(__file__).resolve().parents[1] / "hub_model"
MAX_NEW_TOKENS = 32
QUESTIONS = f"""\
max_new_tokens: {MAX_NEW_TOKENS}
questions:
  - {{id: modality, ask: "Which imaging modality is this?"}}
  - {{id: region, ask: "Which part of the body is shown?"}}
  - {{id: lesion, ask: "Is there a lesion?"}}
"""
Answers = dict[tuple[str, str], str]
"""(name of a file, question) -> answer."""


def tasks_in(folder: Path) -> tuple[list[Task], Questions]:
    """What a batch run asks about a folder; the questions lie beside it."""
    path = folder.with_suffix(".yaml")
    path.write_text(QUESTIONS, encoding="utf-8")
    questions = Questions.read(path)
    return tasks_about(find_series(folder)[0], questions)[0], questions


class Sides:
    """The same files and questions, asked in two ways."""

    def __init__(self, model: str) -> None:
        self._batch_model = LocalModel(model)
        self._work = Settings(MAX_NEW_TOKENS)
        self.reader = self._work.reader()
        self._processor = OmniVMedProcessor.from_pretrained(model, trust_remote_code=True)
        loaded = OmniVMedForConditionalGeneration.from_pretrained(
            model, trust_remote_code=True, dtype=preferred_dtype()
        )
        self._model = loaded.eval()

    def batch_run(self, tasks: Sequence[Task]) -> Answers:
        """As `clinic.batch` asks."""
        answered = answered_here(groups_left(tasks, ()), self._batch_model, self.reader, self._work)
        return {
            (Path(row["path"]).name, row["question"]): row["likeliest"] or row["answer"]
            for _, rows in answered
            for row in rows
        }

    def _ask(self, medium: Any, kind: str, words: str) -> str:
        messages = [{"role": "user", "content": [{"type": kind}, {"type": "text", "text": words}]}]
        prompt = self._processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        inputs = self._processor(text=prompt, clips=[medium])
        output = self._model.generate(**inputs, max_new_tokens=MAX_NEW_TOKENS, do_sample=False)
        new = output[:, inputs["input_ids"].shape[1] :]
        (text,) = self._processor.batch_decode(new, skip_special_tokens=True)
        return str(text).strip()

    def one_by_one(self, tasks: Sequence[Task]) -> Answers:
        """A file is read for each question."""
        return {
            (Path(task.series.path).name, one.id): self._ask(medium_of(task), kind_of(task), one.ask)
            for task in tasks
            for one in task.group.questions
        }


def kind_of(task: Task) -> str:
    """The type of a content part with the file of a task."""
    return "volume" if ".nii" in task.series.path else "image"


def medium_of(task: Task) -> dict[str, Any]:
    """The file of a task as the processor takes it."""
    return {"source": task.series.source, "kind": kind_of(task)}


def compare(sides: Sides, tasks: Sequence[Task], rounds: int) -> dict[str, Any]:
    """Seconds of each side in each round, and studies an hour by the median."""
    ways: dict[str, Callable[[Sequence[Task]], Answers]] = {
        "one by one": sides.one_by_one,
        "batch run": sides.batch_run,
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    of_processors: dict[str, list[float]] = {name: [] for name in ways}
    given: dict[str, Answers] = {}
    order = list(ways)
    for _ in range(rounds):
        for name in order:
            start, begun = time.perf_counter(), processor_seconds()
            given[name] = ways[name](tasks)
            seconds[name].append(time.perf_counter() - start)
            of_processors[name].append(processor_seconds() - begun)
        order.reverse()
    typical = {name: median(values) for name, values in seconds.items()}
    asked, spent = given["one by one"], {name: median(values) for name, values in of_processors.items()}
    return {
        "studies": len(tasks),
        "questions": len(asked),
        "seconds": seconds,
        "processor_seconds": of_processors,
        "studies_an_hour": {name: 3600 * len(tasks) / value for name, value in typical.items()},
        "times_faster": typical["one by one"] / typical["batch run"],
        "times_less_processor_time": spent["one by one"] / spent["batch run"],
        "same_answers": sum(asked[key] == given["batch run"][key] for key in asked),
    }


def processor_seconds() -> float:
    """What this process and those that it started have computed, by the clock of the processors."""
    own = psutil.Process()
    times = [process.cpu_times() for process in (own, *own.children(recursive=True))]
    return sum(one.user + one.system for one in times)


def memory_of_a_long_run(model: str, folder: Path, studies: int) -> dict[str, Any]:
    """The largest memory (MiB) of the process with the model, after a quarter of the studies and at the end."""
    for number in range(studies):
        write_picture(folder / f"{number:05d}.png", number, 64)
    tasks, questions = tasks_in(folder)
    local, work, largest = LocalModel(model), Settings(questions.max_new_tokens), []
    with work.reader() as reader:
        for number, _ in enumerate(answered_here(groups_left(tasks, ()), local, reader, work), start=1):
            if number in (studies // 4, studies):
                largest.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    reading = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    return {"studies": studies, "quarter_mib": largest[0], "end_mib": largest[-1], "reading_process_mib": reading}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", required=True, help="where the figures go")
    parser.add_argument("--model", default=str(DEFAULT_MODEL), help="folder (default: %(default)s)")
    parser.add_argument("--volumes", type=int, default=4, help="CT volumes of 64 slices (default 4)")
    parser.add_argument("--pictures", type=int, default=16, help="pictures (default 16)")
    parser.add_argument("--rounds", type=int, default=2, help="turns of each side (default 2)")
    parser.add_argument("--memory", type=int, metavar="N", help="measure the memory of N small studies instead")
    options = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, "studies")
        folder.mkdir()
        if options.memory:
            found = memory_of_a_long_run(options.model, folder, options.memory)
            write_json(options.json, "batch_runs", found)
            print(markdown_table(list(found), [[f"{value:.0f}" for value in found.values()]]))
            return
        sides = Sides(options.model)
        rows: dict[str, dict[str, Any]] = {}
        with sides.reader:
            for name, count in (("pictures", options.pictures), ("CT of 64 slices", options.volumes)):
                held = folder / name.split()[0]
                held.mkdir()
                for number in range(count):
                    if name == "pictures":
                        write_picture(held / f"{number:02d}.png", number, 512)
                    else:
                        write_volume(held / f"{number:02d}.nii.gz", number)
                tasks = tasks_in(held)[0]
                if not rows:
                    sides.one_by_one(tasks[:1])
                    sides.batch_run(tasks[:1])
                rows[name] = compare(sides, tasks, options.rounds)
                write_json(options.json, "batch_runs", {"rows": rows})
    header = ["studies", "one by one", "batch run", "faster", "less processor time", "same answers"]
    lines = [
        [
            name,
            *(f"{row['studies_an_hour'][side]:.0f} an hour" for side in header[1:3]),
            f"{row['times_faster']:.2f}×",
            f"{row['times_less_processor_time']:.2f}×",
            f"{row['same_answers']} of {row['questions']}",
        ]
        for name, row in rows.items()
    ]
    print(markdown_table(header, lines))


if __name__ == "__main__":
    main()
