# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The benchmarks of long films: what their films show, what a run measures, and what is derived from that."""

from __future__ import annotations

import itertools
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import film_moments, film_process, long_film
from benchmarks.film_moments import (
    SHORTEST_FILM,
    TOLERANCE,
    Event,
    best_single_time,
    count_right,
    covered_tokens,
    kept_share,
    named_time,
)
from benchmarks.film_process import STAGES
from benchmarks.long_film import ABOUT, MEASURED, copy_beginning, draw, growth
from benchmarks.report import medians_of_rounds
from data_engine.film_moments import SHORTEST_EVENT
from data_engine.films import HEIGHT, WIDTH, Scene, draw_scenes, views, write_film
from data_engine.phantoms import endoscopy
from hub_model.media_omniv_med import load_clip

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def pool():
    return views(2, (3,))


@pytest.fixture(scope="module")
def path(tmp_path_factory, pool) -> Path:
    """Four seconds that move, and four of another view that is held."""
    written = tmp_path_factory.mktemp("films") / "film.mp4"
    write_film(written, [Scene(pool[0], 4, False), Scene(pool[1], 4, True)], 5, 0)
    return written


# Films.


def test_scenes_last_as_long_as_the_film_and_none_follows_itself(pool):
    scenes = draw_scenes(pool, 100, np.random.default_rng(0))
    assert sum(scene.seconds for scene in scenes) == 100
    assert all(one.view is not next_one.view for one, next_one in itertools.pairwise(scenes))
    assert {scene.is_still for scene in scenes} == {True, False}


def test_a_film_moves_and_is_held(path):
    clip = load_clip(path, fps=5, max_frames=40)
    assert clip.frames.shape == (40, HEIGHT, WIDTH, 3)
    assert (clip.positions[-1], clip.source_frames) == (pytest.approx(7.8), 40)
    frames = clip.frames.astype(float)
    steps = np.abs(np.diff(frames, axis=0)).mean(axis=(1, 2, 3))
    assert steps[19] > 5 * steps[20:].max()  # the change of the view, and noise alone after it
    assert steps[20:].min() > 0.1


def test_the_beginning_of_a_film_is_its_beginning(path, tmp_path):
    copy_beginning(path, tmp_path / "short.mp4", 3)
    short, whole = (load_clip(file, fps=5, max_frames=40) for file in (tmp_path / "short.mp4", path))
    assert len(short.frames) == 15
    np.testing.assert_array_equal(short.frames, whole.frames[:15])


def test_a_view_with_a_polyp_is_the_view_without_one_elsewhere():
    plain, having = (endoscopy.generate("video", np.random.default_rng(5), lesion=lesion) for lesion in (False, True))
    assert (plain.facts["lesion"], having.facts["lesion"], having.facts["finding"]) == ("no", "yes", "polyp")
    assert plain.lesions is None and having.lesions is not None
    changed = np.abs(plain.frames[0].astype(int) - having.frames[0]).max(axis=-1)
    far = np.kron(having.lesions[0] == 0, np.ones((7, 7), bool))
    assert changed[~far].mean() > 3 * changed[far].mean()


# Lengths.


def test_a_run_measures_every_stage(path, tiny, monkeypatch):
    monkeypatch.setattr(film_process, "TOKEN_BUDGET", 20)
    found = film_process.measure(path, tiny, threads=torch.get_num_threads())
    assert list(found["seconds"]) == list(STAGES) and min(found["seconds"].values()) > 0
    assert sum(found["seconds"].values()) == pytest.approx(found["total_s"])
    assert found["frames"] == 8 and 2 <= found["frames_kept"] <= 8
    assert found["visual_tokens"] <= 20 < found["tokens"]
    assert found["prompt_tokens"] > found["visual_tokens"]
    assert found["peak_bytes"] > 1e8


def test_a_prompt_must_fit_into_the_context(path, tiny, monkeypatch):
    monkeypatch.setattr(film_process, "NEW_TOKENS", 2000)
    with pytest.raises(ValueError, match="context"):
        film_process.measure(path, tiny, threads=torch.get_num_threads())


def run_of(minutes: int, seconds: float, **changes: Any) -> dict[str, Any]:
    run = {"minutes": minutes, "round": 0, "seconds": dict.fromkeys(STAGES, seconds / 5), "total_s": seconds}
    run |= {"peak_bytes": 1.2e9, "frames": 60 * minutes, "frames_kept": 9, "tokens": 900, "visual_tokens": 90}
    return run | {"prompt_tokens": 120, "threshold": 0.1, "answer": "endoscopy"} | changes


def test_figures_are_medians_and_growth_is_per_minute(tmp_path):
    runs = [run_of(5, 10.0), run_of(60, 60.0), run_of(60, 90.0, round=1), run_of(60, 60.0, round=2)]
    entries = medians_of_rounds(runs, ABOUT, MEASURED)
    assert [entry["total_s"] for entry in entries] == [10, 60]
    assert growth(entries) == pytest.approx(0.5)
    cells = [cell.strip() for cell in long_film.table(entries).splitlines()[-1].strip("|").split("|")]
    assert cells == ["60 min", "3,600", "900 → 90", "9", "0.10", *["12.0 s"] * 5, "60 s", "1.20 GB"]
    draw(entries, tmp_path / "chart.png")
    assert (tmp_path / "chart.png").stat().st_size > 5000
    with pytest.raises(ValueError, match="differ"):
        medians_of_rounds([runs[0], run_of(5, 10.0, round=1, visual_tokens=91)], ABOUT, MEASURED)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's counters")
def test_the_command_measures_a_minute_and_two(tmp_path, monkeypatch, capsys):
    out, chart = tmp_path / "out.json", tmp_path / "chart.png"
    options = ["--minutes", "1", "2", "--rounds", "1", "--json", str(out), "--figure", str(chart)]
    monkeypatch.setattr(sys, "argv", ["long_film", *options])
    long_film.main()
    found = json.loads(out.read_text())
    assert [entry["frames"] for entry in found["lengths"]] == [60, 120]
    assert all(entry["answer"] for entry in found["lengths"])
    assert chart.is_file() and "2 min" in capsys.readouterr().out


# Moments.


@pytest.mark.parametrize(
    ("answer", "time"),
    [("12.5 s", 12.5), ("At 40 s, then at 50 s", 40), ("a polyp", None), ("", None), ("I cannot tell", None)],
)
def test_the_first_number_is_the_time(answer, time):
    assert named_time(answer) == time


def event_of(start: int, end: int, lesions: np.ndarray | None = None) -> Event:
    return Event(Path("film.mp4"), 150, start, end, np.zeros((16, 16), np.uint8) if lesions is None else lesions)


def test_an_answer_is_right_in_the_event_and_a_little_outside():
    event = event_of(30, 40)
    answers = ["25 s", "33.3 s", "45 s", "24.9 s", "45.1 s", "none"]
    assert count_right(answers, [event] * 6) == 3
    assert best_single_time([event_of(30, 40), event_of(38, 50), event_of(100, 110)]) in range(33, 46)


def test_the_tokens_that_a_polyp_covers_are_where_it_lies():
    lesions = np.zeros((16, 16), np.uint8)
    lesions[10:14, 2:6] = 255
    covered = covered_tokens(event_of(30, 40, lesions), (3, 5)).reshape(3, 5)
    assert covered[2, 1] and not covered[:, 2:].any() and not covered[0].any()
    lesions[:] = 0
    lesions[0, 0] = 9  # too small for the share, so that the token it lies in counts
    assert covered_tokens(event_of(30, 40, lesions), (3, 5)).sum() == 1


def test_a_moment_is_kept_by_frames_that_show_it(processor, tmp_path):
    (event,) = film_moments.write_events(tmp_path, 1)
    assert event.seconds >= SHORTEST_FILM and SHORTEST_EVENT <= event.start < event.end <= event.seconds
    film = film_moments.process(processor, event, "none")
    assert len(film.clip.positions) == event.seconds
    assert kept_share(event, film) > 0.5
    nothing = film.pruned.keep_mask.clone()
    nothing[event.start : event.start + int(TOLERANCE)] = False
    assert kept_share(event, replace(film, pruned=replace(film.pruned, keep_mask=nothing))) == 0
    few = film_moments.process(processor, event, film_moments.BUDGETS[0])
    assert few.pruned.keep_mask.sum() <= film_moments.TOKENS_PER_MINUTE * event.seconds / 60 + 1


def test_figures_of_moments_are_counted(tiny, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(film_moments, "HUB_MODEL", tiny)
    out = tmp_path / "out.json"
    monkeypatch.setattr(sys, "argv", ["film_moments", "--films", "2", "--json", str(out)])
    film_moments.main()
    found = json.loads(out.read_text())
    assert len(found["films"]) == 2
    assert all(share["n"] == 2 and 0 <= share["low"] <= share["high"] <= 1 for share in found["shares"].values())
    assert "of 2" in capsys.readouterr().out
