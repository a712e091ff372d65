# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""An hour of film at one frame a second: how long it takes to an answer, and how much memory, beside shorter films.

    python -m benchmarks.long_film --json benchmarks/results/long_film.json --figure docs/long_film.png

One generated endoscopy of an hour, 25 frames a second, of views that move or are held still; the shorter films are its
beginnings. Every frame builds on the one before, so a reader has to decode all of them. The shipped model is asked
about each in a process of its own, within a budget of visual tokens that is the same for all lengths; films take turns.
The seconds are those of reading and cutting the frames, of pruning them, of encoding what is kept, and of the answer up
to its first and to its last token. Loading the model and importing the decoders come before. The memory is the largest
resident set of the process, libraries and weights included; it starts no other process. Linux only.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from matplotlib.figure import Figure
from tqdm import tqdm

from benchmarks.end_to_end.cases import HUB_MODEL
from benchmarks.end_to_end.figures import COLOURS
from benchmarks.end_to_end.measuring import FreshProcesses
from benchmarks.film_process import MINUTES, QUESTION, STAGES, TOKEN_BUDGET, measure
from benchmarks.report import medians_of_rounds, write_json
from data_engine.films import draw_scenes, views, write_film
from data_engine.tables import markdown_table

FRAME_RATE, VIEWS, SEED = 25, 40, 1
ABOUT, MEASURED = ("minutes",), ("total_s", "peak_bytes")
"""Fields of a run that say which film it is about, and those that vary from round to round."""
MOST_BYTES = 1.5e9
"""What an hour may take: our goal."""


def copy_beginning(film: Path, path: Path, seconds: int) -> None:
    """The first seconds of a film that `write_film` wrote, as a film of its own; nothing is encoded again."""
    with av.open(str(film)) as source, av.open(str(path), "w") as target:
        stream = source.streams.video[0]
        copied = target.add_stream_from_template(stream)
        end = round(seconds / stream.time_base)
        for packet in source.demux(stream):
            if packet.pts is None or packet.pts >= end:  # shown in the order of decoding, as ultrafast reorders nothing
                break
            packet.stream = copied
            target.mux(packet)


def write_films(folder: Path, minutes: Sequence[int]) -> list[Path]:
    """A film of each length, the shorter ones the beginnings of the longest."""
    paths = [folder / f"{length}.mp4" for length in minutes]
    longest = max(minutes)
    film = folder / f"{longest}.mp4"
    write_film(film, draw_scenes(views(VIEWS, (SEED,)), 60 * longest, np.random.default_rng(SEED)), FRAME_RATE, SEED)
    for path, length in zip(paths, minutes, strict=True):
        if path != film:
            copy_beginning(film, path, 60 * length)
    return paths


def growth(entries: Sequence[dict[str, Any]]) -> float:
    """Seconds to the answer for each minute of film, of the longest film over those of the shortest: 1 is linear."""
    by_length = {entry["minutes"]: entry["total_s"] / entry["minutes"] for entry in entries}
    return by_length[max(by_length)] / by_length[min(by_length)]


def compare(minutes: Sequence[int], rounds: int, model_folder: Path) -> dict[str, Any]:
    """All figures: every run, and medians by length."""
    processes, threads = FreshProcesses(), torch.get_num_threads()
    runs = []
    with tempfile.TemporaryDirectory() as scratch, tqdm(total=rounds * len(minutes)) as bar:
        bar.set_description("writing the films")
        paths = write_films(Path(scratch), minutes)
        for number in range(rounds):
            for length, path in zip(minutes, paths, strict=True):
                bar.set_description(f"{length} minutes")
                runs.append(
                    {"minutes": length, "round": number, **processes.call(measure, path, model_folder, threads)}
                )
                bar.update()
    entries = medians_of_rounds(runs, ABOUT, MEASURED)
    return {
        "rounds": rounds,
        "question": QUESTION,
        "token_budget": TOKEN_BUDGET,
        "growth": growth(entries),
        "lengths": entries,
        "runs": runs,
    }


def table(entries: Sequence[dict[str, Any]]) -> str:
    """The figures as Markdown, one line a length."""
    rows = [
        [
            f"{entry['minutes']} min",
            f"{entry['frames']:,}",
            f"{entry['tokens']:,} → {entry['visual_tokens']:,}",
            f"{entry['frames_kept']:,}",
            f"{entry['threshold']:.2f}",
            *(f"{entry['seconds'][stage]:.1f} s" for stage in STAGES),
            f"{entry['total_s']:.0f} s",
            f"{entry['peak_bytes'] / 1e9:.2f} GB",
        ]
        for entry in entries
    ]
    header = [
        "film",
        "frames seen",
        "visual tokens",
        "frames that keep any",
        "threshold",
        *STAGES,
        "all",
        "peak memory",
    ]
    return markdown_table(header, rows)


def draw(entries: Sequence[dict[str, Any]], path: Path) -> None:
    """Writes a PNG: on the left the seconds of the stages against the length of the film, on the right the memory."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    minutes = [entry["minutes"] for entry in entries]
    seconds = [[entry["seconds"][stage] for entry in entries] for stage in STAGES]
    left.stackplot(minutes, seconds, labels=STAGES, colors=COLOURS)
    left.set_ylabel("seconds to the answer")
    handles, labels = left.get_legend_handles_labels()
    left.legend(handles[::-1], labels[::-1], loc="upper left", frameon=False)
    right.plot(minutes, [entry["peak_bytes"] / 1e9 for entry in entries], marker="o", color=COLOURS[1])
    right.axhline(MOST_BYTES / 1e9, color=COLOURS[-1], linestyle="--", label="goal")
    right.set_ylabel("peak memory of the process, GB")
    right.legend(loc="lower right", frameon=False)
    for panel in (left, right):
        panel.set_xlabel("minutes of film")
        panel.set_xticks(minutes)
        panel.set_xlim(left=0)
        panel.set_ylim(0, 1.1 * panel.get_ylim()[1])
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True, metavar="OUT", help="file for the figures")
    parser.add_argument("--figure", type=Path, metavar="PNG", help="where the chart goes")
    parser.add_argument(
        "--minutes", type=int, nargs="+", default=list(MINUTES), help="lengths of the films (default: %(default)s)"
    )
    parser.add_argument("--rounds", type=int, default=2, help="turns of each film (default: %(default)s)")
    arguments = parser.parse_args()
    results = compare(arguments.minutes, arguments.rounds, HUB_MODEL)
    write_json(arguments.json, "long_film", results)
    if arguments.figure:
        draw(results["lengths"], arguments.figure)
    print(table(results["lengths"]))
    print(f"Seconds for each minute of film, of the longest film over the shortest: {results['growth']:.2f}")


if __name__ == "__main__":
    main()
