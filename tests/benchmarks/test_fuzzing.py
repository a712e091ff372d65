# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Damaged files of every format, a few of the thousands that `benchmarks.fuzz_media` reads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.fuzz_media import MUTATIONS, fuzz, is_clear, is_sound, make_corpus, mutant
from hub_model.isolated_reading_omniv_med import IsolatedReader
from hub_model.media_omniv_med import load_clip

TIME_LIMIT = 300.0
MUTANTS = 510


@pytest.fixture(scope="module")
def reader() -> Iterator[IsolatedReader]:
    with IsolatedReader(TIME_LIMIT, processes=1) as isolated:
        yield isolated


@pytest.fixture(scope="module")
def corpus():
    return make_corpus()


def test_whole_files_can_be_read(corpus, reader, tmp_path):
    """Otherwise their mutants would test little. Of the packages' own files some are damaged on purpose."""
    for kind, seeds in corpus.items():
        readable = 0
        for index, whole in enumerate(seeds):
            (tmp_path / f"{kind}{index}").write_bytes(whole.pack(whole.data))
            with suppress(ValueError):
                readable += is_sound(reader.load_clip(tmp_path / f"{kind}{index}", max_frames=16))
        assert readable > 0.7 * len(seeds), kind


def test_mutants_can_be_made_again(corpus):
    numbers = range(6 * len(corpus))
    made = [mutant(corpus, 3, number) for number in numbers]
    other = make_corpus()
    different = [made[number][:2] for number in numbers if mutant(other, 3, number) != made[number]]
    assert different == []
    assert {kind for kind, _, _ in made} == set(corpus)
    assert all(any(mutate.__name__.strip("_") in how for _, how, _ in made) for mutate in MUTATIONS)
    changed = [data != whole for _, how, data in made for whole in [_whole(corpus, how)]]
    assert np.mean(changed) > 0.9


def _whole(corpus, how: str) -> bytes:
    name = how.rpartition(":")[0]
    (seed,) = (seed for seeds in corpus.values() for seed in seeds if seed.name == name)
    return seed.pack(seed.data)


def test_every_mutant_gives_a_clip_or_a_sentence(reader):
    results = fuzz(range(MUTANTS), 0, reader)
    assert results["failures"] == [] and results["unsound"] == []
    counts = [counts.get(outcome, 0) for counts in results["outcomes"].values() for outcome in ("clip", "refused")]
    assert sum(counts) == MUTANTS and sum(results["sentences"].values()) == sum(counts[1::2])
    assert min(counts) > 0, "each format is both read and refused"
    assert results["slowest"] < TIME_LIMIT
    assert results["memory_growth"] is None or results["memory_growth"] < 16 * 2**20


def test_failures_are_counted():
    """A process that may not live long enough for anything."""
    with IsolatedReader(time_limit=1e-6, processes=1) as hasty:
        results = fuzz(range(8), 0, hasty)
    # On a busy machine the clock may start after an answer has come.
    assert {failure["outcome"] for failure in results["failures"]} == {"timed out"}


def test_what_a_clip_and_a_sentence_promise():
    clip = load_clip(np.zeros((3, 4, 5), np.uint8), spacing=(1, 1, 1))
    assert is_sound(clip)
    assert not is_sound(replace(clip, positions=np.array([0.0, np.nan, 1.0])))
    assert not is_sound(replace(clip, positions=clip.positions[::-1]))
    assert not is_sound(replace(clip, pixel_spacing=(float("inf"), 1.0)))
    assert not is_sound(replace(clip, frames=clip.frames.astype(np.float32)))
    assert not is_sound(replace(clip, source_frames=2))
    assert is_clear("upload is empty (0 bytes); copy it again.")
    assert not is_clear("upload holds \x00 as its modality.") and not is_clear("upload " + "x" * 400 + ".")
