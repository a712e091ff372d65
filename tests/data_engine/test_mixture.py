# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The mixture: shares along several axes, never more than there is, seeded."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_engine.mixture import MixtureError, cell_counts, mix
from data_engine.records import Medium, Record, Turn


def record(number: int, source: str = "a", modality: str = "CT", task: str = "diagnosis") -> Record:
    return Record(
        id=f"{source}/{number}",
        dimension="2d",
        modality=modality,
        task=task,
        media=(Medium(type="image", path=f"{number}.png"),),
        conversations=(Turn(role="user", content="?"), Turn(role="assistant", content="!")),
        source=source,
        license="CC0-1.0",
        split="train",
    )


@pytest.fixture(scope="module")
def pool() -> list[Record]:
    """900 of source a, 300 of b; CT, MRI and PET, two tasks, unevenly."""
    modalities, tasks = ("CT", "CT", "MRI", "PET", "CT"), ("localization", "diagnosis", "diagnosis")
    return [record(i, "a" if i % 4 else "b", modalities[i % 5], tasks[i % 3]) for i in range(1200)]


def share(records: list[Record], axis: str) -> dict[str, float]:
    return {value: count / len(records) for value, count in Counter(getattr(r, axis) for r in records).items()}


def test_without_shares_and_total_everything_is_taken_in_another_order(pool):
    mixed = mix(pool, None, {}, seed=0)
    assert sorted(r.id for r in mixed) == sorted(r.id for r in pool)
    assert [r.id for r in mixed] != [r.id for r in pool]


def test_shares_of_three_axes_are_met_together(pool):
    shares = {"source": {"b": 0.4}, "modality": {"MRI": 0.3, "PET": 0.3}, "task": {"localization": 0.5}}
    mixed = mix(pool, 300, shares, seed=1)
    assert len(mixed) == 300
    assert share(mixed, "source")["b"] == pytest.approx(0.4, abs=0.02)
    assert share(mixed, "modality") == pytest.approx({"CT": 0.4, "MRI": 0.3, "PET": 0.3}, abs=0.02)
    assert share(mixed, "task")["localization"] == pytest.approx(0.5, abs=0.02)


def test_without_a_total_as_many_as_the_shares_allow(pool):
    mixed = mix(pool, None, {"source": {"a": 0.5, "b": 0.5}}, seed=0)
    assert Counter(r.source for r in mixed)["b"] == 300
    assert len(mixed) == pytest.approx(600, rel=0.02)


def test_a_share_of_zero_leaves_a_value_out(pool):
    assert "CT" not in share(mix(pool, None, {"modality": {"CT": 0.0}}, seed=0), "modality")


def test_a_value_that_does_not_occur_gets_nothing_and_the_others_keep_their_proportion(pool):
    mixed = mix(pool, 200, {"modality": {"OCT": 0.5, "MRI": 0.25, "CT": 0.25}}, seed=0)
    assert share(mixed, "modality") == pytest.approx({"MRI": 0.5, "CT": 0.5}, abs=0.02)


def test_the_seed_decides_which_and_in_what_order(pool):
    def chosen(seed: int) -> list[str]:
        return [r.id for r in mix(pool, 100, {}, seed)]

    assert chosen(3) == chosen(3) != chosen(4)


@pytest.mark.parametrize(
    "shares", [{"colour": {"red": 1}}, {"task": {"diagnosis": -0.1}}, {"task": {"diagnosis": 0.7, "localization": 0.6}}]
)
def test_shares_that_mean_nothing_are_refused(pool, shares):
    with pytest.raises(MixtureError):
        mix(pool, 10, shares, seed=0)


values = st.sampled_from(["x", "y", "z"])


@settings(max_examples=60)
@given(
    st.dictionaries(st.tuples(values, values, values), st.integers(1, 60), min_size=1, max_size=12),
    st.one_of(st.none(), st.integers(1, 400)),
    st.dictionaries(
        st.sampled_from(["source", "modality", "task"]), st.dictionaries(values, st.floats(0, 0.33), max_size=3)
    ),
)
def test_never_more_than_there_is_and_never_more_than_asked(available, total, shares):
    counts = cell_counts(available, total, shares)
    assert all(0 <= counts[cell] <= available[cell] for cell in available)
    if total is not None:
        assert sum(counts.values()) <= total
