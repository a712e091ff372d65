# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The blind baseline: the same words, somebody else's media of the same kind."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_engine.records import Medium
from evaluation.benchmarks import BenchmarkError, BenchmarkQuestion
from evaluation.blind import blinded


def question(number: int, kind: str, sample: int) -> BenchmarkQuestion:
    return BenchmarkQuestion(
        id=f"{kind}/{sample}/{number}",
        question="Which imaging modality is this?",
        answer="CT",
        answer_type="open",
        choices=(),
        media=(Medium(type=kind, path=f"{kind}/{sample}"),),
        folder=Path("data"),
        modality="CT",
        task="modality recognition",
        dimension={"image": "2d", "volume": "3d", "video": "video"}[kind],
    )


samples = st.fixed_dictionaries({kind: st.just(0) | st.integers(2, 9) for kind in ("image", "volume", "video")})


@given(samples, st.integers(1, 3))
def test_everybody_gets_the_medium_of_somebody_else_of_the_same_kind(counts, asked_of_each):
    asked = [question(n, kind, s) for kind, count in counts.items() for s in range(count) for n in range(asked_of_each)]
    shown = blinded(asked)
    instead = {(a.media, b.media) for a, b in zip(asked, shown, strict=True)}
    assert all(a != b and a[0].type == b[0].type for a, b in instead)
    assert len(instead) == sum(counts.values()), "all questions about a medium get the same one in its place"
    assert len({b for _, b in instead}) == len(instead), "each is given once"
    assert [replace(b, media=a.media, folder=a.folder) for a, b in zip(asked, shown, strict=True)] == asked
    assert shown == blinded(asked)


def test_a_medium_without_another_of_its_kind_is_said():
    with pytest.raises(BenchmarkError, match="volume"):
        blinded([question(0, "image", 0), question(0, "image", 1), question(0, "volume", 0)])
