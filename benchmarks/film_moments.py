# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""When does it appear? Whether pruning keeps a moment of a film, and whether the shipped model names its time.

    python -m benchmarks.film_moments --json benchmarks/results/film_moments.json

Fifty generated endoscopies of two to three minutes, 2 frames a second. In one of each film's views, at a random time, a
polyp appears for 8 to 20 seconds; nothing else in the picture changes with it. The film is read at one frame a second,
within as many visual tokens for each minute as `benchmarks.long_film` has for an hour, and without a budget.

A film keeps the moment when within the tolerance of the polyp's appearing at least half of the tokens that it covers
have been kept, from frames that show it. The model's answer is right when the first number in it lies between the
appearing and the vanishing, or no further than the tolerance outside. Blind, it sees the film before in the place of
this one. Beside it stands the best single time: the second that would be right in most films, whatever they show.
"""

from __future__ import annotations

import argparse
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm
from transformers.utils import logging

from benchmarks.end_to_end.cases import HUB_MODEL
from benchmarks.film_process import MINUTES, TOKEN_BUDGET, load, question_prompt
from benchmarks.report import share_with_interval, write_json
from data_engine.film_moments import FRAME_RATE, draw_moment
from data_engine.films import HEIGHT, WIDTH, View, views, write_film
from data_engine.phantoms.sample import LESION_GRID
from data_engine.tables import markdown_table
from hub_model.processing_omniv_med import OmniVMedProcessor, ProcessedClip

FILMS, SEED = 50, 7
VIEWS = 16
"""Without a polyp, shared by all films; the view in which one appears is each film's own."""
SHORTEST_FILM, LONGEST_FILM = 120, 180
TOLERANCE = 5.0
"""Seconds before the polyp appears or after it vanishes that an answer may be off."""
COVERED = 0.25
"""Share of a token's area that the polyp covers at least."""
TOKENS_PER_MINUTE = TOKEN_BUDGET / max(MINUTES)
BUDGETS = ("as an hour has", "none")
QUESTION = "At what time does a polyp appear?"
NEW_TOKENS = 16


@dataclass(frozen=True)
class Event:
    """A polyp in a film.

    Attributes:
        film: the file.
        seconds: length of the film.
        start, end: seconds at which it appears and vanishes.
        lesions: uint8 (LESION_GRID, LESION_GRID), how much of each cell of the square in the frame's middle, which the
            endoscope fills, it covers.
    """

    film: Path
    seconds: int
    start: int
    end: int
    lesions: np.ndarray


def write_event(path: Path, plain: Sequence[View], pair: tuple[View, View], number: int) -> Event:
    """Writes a film of views without a polyp, and between them one that is held and in which a polyp appears.

    Args:
        path: file to write.
        plain: views without a polyp.
        pair: one view without and with a polyp.
        number: of the film; its seed.
    """
    rng = np.random.default_rng((SEED, number))
    seconds = int(rng.integers(SHORTEST_FILM, LONGEST_FILM + 1))
    moment = draw_moment(plain, pair, seconds, rng)
    write_film(path, moment.scenes, FRAME_RATE, number)
    lesions = pair[1].sample.lesions
    if lesions is None:
        raise ValueError("The second view of a pair has a polyp.")
    return Event(path, seconds, moment.start, moment.end, lesions[0])


def covered_tokens(event: Event, grid: tuple[int, int]) -> np.ndarray:
    """Which tokens (N,) of a frame of so many rows and columns the polyp covers: bool."""
    rows, columns = grid
    across = LESION_GRID * WIDTH // HEIGHT
    side = (across - LESION_GRID) // 2
    on_screen = np.pad(event.lesions / 255, ((0, 0), (side, across - LESION_GRID - side)))
    fine = on_screen.repeat(rows, axis=0).repeat(columns, axis=1)
    shares = fine.reshape(rows, LESION_GRID, columns, across).mean(axis=(1, 3)).flatten()
    return shares >= min(COVERED, shares.max())


def kept_share(event: Event, film: ProcessedClip) -> float:
    """Share of the tokens that the polyp covers which are kept within the tolerance of its appearing."""
    times = film.clip.positions
    in_time = (times >= event.start) & (times < min(event.start + TOLERANCE, event.end))
    kept = film.pruned.keep_mask.numpy()[in_time][:, covered_tokens(event, film.grid)]
    return float(kept.any(axis=0).mean())


def named_time(answer: str) -> float | None:
    """The first number in an answer, in seconds; None where there is none."""
    found = re.search(r"\d+(?:\.\d+)?", answer)
    return float(found.group()) if found else None


def is_right(time: float | None, event: Event) -> bool:
    """Whether a time lies in the event, or no further than the tolerance outside."""
    return time is not None and event.start - TOLERANCE <= time <= event.end + TOLERANCE


def best_single_time(events: Sequence[Event]) -> int:
    """The second that is right in the most films."""
    candidates = range(max(event.seconds for event in events))
    return max(candidates, key=lambda time: sum(is_right(time, event) for event in events))


def process(processor: OmniVMedProcessor, event: Event, budget: str) -> ProcessedClip:
    """A film at one frame a second, within one of the `BUDGETS`."""
    tokens = None if budget == "none" else round(TOKENS_PER_MINUTE * event.seconds / 60)
    return processor.process_film(event.film, fps=1.0, max_frames=LONGEST_FILM, max_visual_tokens=tokens)


def ask(processor: OmniVMedProcessor, model: Any, film: ProcessedClip) -> str:
    """What the model answers to the question when."""
    inputs = processor(text=question_prompt(processor, QUESTION), clips=[film])
    words = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    output = model.generate(
        **words, mm_encoder_outputs=model.encode_in_pieces(inputs), do_sample=False, max_new_tokens=NEW_TOKENS
    )
    (answer,) = processor.batch_decode(output[:, words["input_ids"].shape[1] :], skip_special_tokens=True)
    return answer.strip()


def write_events(folder: Path, films: int) -> list[Event]:
    """The films, each with its event."""
    plain = views(VIEWS, (SEED,), lesion=False)
    without, having = (views(films, (SEED + 1,), lesion=lesion) for lesion in (False, True))
    return [
        write_event(folder / f"{number}.mp4", plain, pair, number)
        for number, pair in enumerate(zip(without, having, strict=True))
    ]


def compare(model_folder: Path, films: int) -> dict[str, Any]:
    """All figures: shares with intervals, and what was found and answered for each film."""
    processor, model = load(model_folder)
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        events = write_events(Path(scratch), films)
        for event in tqdm(events, desc="films"):
            processed = {budget: process(processor, event, budget) for budget in BUDGETS}
            one: dict[str, Any] = {"seconds": event.seconds, "start": event.start, "end": event.end}
            for budget, film in processed.items():
                one[f"kept, budget {budget}"] = kept_share(event, film)
                one[f"tokens, budget {budget}"] = int(film.pruned.keep_mask.sum())
                one[f"answer, budget {budget}"] = ask(processor, model, film)
            found.append(one)
    shares: dict[str, int] = {}
    for budget in BUDGETS:
        answers = [one[f"answer, budget {budget}"] for one in found]
        shares |= {
            f"the moment is kept, budget {budget}": sum(one[f"kept, budget {budget}"] >= 0.5 for one in found),
            f"the model names a time, budget {budget}": sum(named_time(answer) is not None for answer in answers),
            f"the model names the moment, budget {budget}": count_right(answers, events),
            f"blind: seeing the film before, budget {budget}": count_right([answers[-1], *answers[:-1]], events),
        }
    best = best_single_time(events)
    shares[f"always {best} s"] = sum(is_right(best, event) for event in events)
    return {
        "question": QUESTION,
        "tolerance_s": TOLERANCE,
        "tokens_per_minute": TOKENS_PER_MINUTE,
        "shares": {name: share_with_interval(hits, films) for name, hits in shares.items()},
        "films": found,
    }


def count_right(answers: Sequence[str], events: Sequence[Event]) -> int:
    """How many answers name a moment of their event."""
    return sum(is_right(named_time(answer), event) for answer, event in zip(answers, events, strict=True))


def table(results: dict[str, Any]) -> str:
    """The shares as Markdown."""
    rows = [
        [name, f"{share['share'] * share['n']:.0f} of {share['n']}", f"{share['low']:.0%} to {share['high']:.0%}"]
        for name, share in results["shares"].items()
    ]
    return markdown_table(["what", "films", "95 % interval"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True, metavar="OUT", help="file for the figures")
    parser.add_argument("--films", type=int, default=FILMS, help="how many (default: %(default)s)")
    arguments = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    results = compare(HUB_MODEL, arguments.films)
    write_json(arguments.json, "film_moments", results)
    print(table(results))


if __name__ == "__main__":
    main()
