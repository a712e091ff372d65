# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""A source of a build: generated endoscopies of up to three minutes, and the question at which second a polyp appears.

In three films of four a polyp appears; the others are the same but for the polyp, so that only the picture can tell.
Everything about film i depends on the seed, the split and i alone. Splits share no views. There is no test split here:
`benchmarks.film_moments` is the test, with views of its own.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from data_engine.films import Scene, View, draw_scenes, views, write_film
from data_engine.phantoms import endoscopy
from data_engine.records import SPLITS, Record, Split

if TYPE_CHECKING:
    from data_engine.adapters.base import MediaStore

NAME, LICENSE = "film-moments", "Apache-2.0"
FRAME_RATE = 2
HEIGHT = 120
"""Pixels of a frame, as the Nano sees a film at 112."""
SHORTEST_FILM, LONGEST_FILM = 40, 180
"""Seconds."""
SHORTEST_EVENT, LONGEST_EVENT = 8, 20
"""Seconds that a polyp is seen, and that its place is seen before."""
VIEWS = 48
"""Without a polyp, shared by all films of a split; the view in which a polyp appears is each film's own."""
PLAIN_EVERY = 4
"""Of so many films one has no polyp."""
WORDINGS = (
    "At what time does a polyp appear?",
    "When does a polyp appear?",
    "When is a polyp first seen?",
    "When does a polyp come into view?",
    "At what second does a polyp appear?",
    "At what second does a polyp come into view?",
    "At which second of the film is a polyp first seen?",
    "After how many seconds does a polyp appear?",
    "Tell me the time at which a polyp is first seen.",
    "Name the second at which a polyp appears.",
)
NO_POLYP = "No polyp appears in this film."


@dataclass(frozen=True)
class Moment:
    """The scenes of a film, and the seconds at which in one of them something appears and vanishes."""

    scenes: list[Scene]
    start: int
    end: int


def draw_moment(plain: Sequence[View], pair: tuple[View, View], seconds: int, rng: np.random.Generator) -> Moment:
    """Scenes of plain views, and between them the pair's two views, both held, one after the other.

    Args:
        plain: what is seen before and after.
        pair: the place, and what it looks like once something has appeared there.
        seconds: length of the film.
        rng: decides how long the pair is seen, when, and what else.
    """
    length = int(rng.integers(SHORTEST_EVENT, LONGEST_EVENT + 1))
    before = int(rng.integers(SHORTEST_EVENT, LONGEST_EVENT + 1))
    place = int(rng.integers(0, seconds - before - length))
    start = place + before
    scenes = [
        *draw_scenes(plain, place, rng),
        Scene(pair[0], before, True),
        Scene(pair[1], length, True),
        *draw_scenes(plain, seconds - start - length, rng),
    ]
    return Moment(scenes, start, start + length)


def still(seed: Sequence[int], lesion: bool) -> View:
    """A view that is only held, with a polyp or without one; all else is the same in both."""
    return View(endoscopy.generate("video", np.random.default_rng(seed), lesion=lesion, frames=1), HEIGHT)


@cache
def plain_views(seed: int, split: Split) -> list[View]:
    """The views without a polyp of all films of a split."""
    return views(VIEWS, (seed, SPLITS.index(split), 0), lesion=False, height=HEIGHT)


@dataclass(frozen=True)
class FilmPlan:
    """Which film of a split is to be made; it depends on these three numbers alone."""

    seed: int
    split: Split
    index: int

    @property
    def has_polyp(self) -> bool:
        """Whether a polyp appears."""
        return self.index % PLAIN_EVERY != PLAIN_EVERY - 1

    def random(self, purpose: int) -> np.random.Generator:
        """Random numbers of this film; scenes (2) and words (3) have streams of their own, as views (0, 1) have."""
        return np.random.default_rng((self.seed, SPLITS.index(self.split), purpose, self.index))

    def moment(self) -> Moment:
        """What the film shows; without a polyp, the pair's views are the same."""
        rng = self.random(2)
        seconds = int(rng.integers(SHORTEST_FILM, LONGEST_FILM + 1))
        place = (self.seed, SPLITS.index(self.split), 1, self.index)
        pair = (still(place, lesion=False), still(place, lesion=self.has_polyp))
        return draw_moment(plain_views(self.seed, self.split), pair, seconds, rng)


def plan_films(seed: int, counts: Mapping[Split, int]) -> Iterator[FilmPlan]:
    """The films of all splits."""
    for split in SPLITS:
        for index in range(counts.get(split, 0)):
            yield FilmPlan(seed, split, index)


def records_of(plan: FilmPlan, store: MediaStore) -> list[Record]:
    """Makes one film, writes its file, and asks one question about it."""
    moment = plan.moment()
    with tempfile.TemporaryDirectory() as folder:
        film = Path(folder) / "film.mp4"
        write_film(film, moment.scenes, FRAME_RATE, plan.index, one_thread=True)
        path = store.add(film, f"{NAME}/{plan.split}/{plan.index:04d}.mp4")
    question = WORDINGS[int(plan.random(3).integers(len(WORDINGS)))]
    answer = f"At {moment.start} s." if plan.has_polyp else NO_POLYP
    return [
        Record.model_validate(
            {
                "id": f"{NAME}/{plan.split}/{plan.index:04d}",
                "dimension": "video",
                "modality": "endoscopy",
                "task": "temporal and procedure understanding",
                "media": [{"type": "video", "path": path}],
                "conversations": [
                    {"role": "user", "content": question},
                    {"role": "assistant", "content": answer},
                ],
                "source": NAME,
                "license": LICENSE,
                "split": plan.split,
            }
        )
    ]
