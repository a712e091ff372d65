# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Where phantoms say their lesions lie: on every sample that has a lesion with a place, and where its facts say."""

from __future__ import annotations

import numpy as np
import pytest

from data_engine.phantoms import KINDS_OF, LESION_GRID, MODALITIES, generate
from data_engine.phantoms.geometry import SIZE, fit, fit_cover, lesion_map

WITHOUT_A_PLACE = {"histopathology"}
"""Families whose lesion is the whole tissue."""


def samples(modality: str):
    for kind in KINDS_OF[modality]:
        for seed in range(20 if kind == "image" else 5):
            yield generate(modality, kind, np.random.default_rng([41, seed]))


@pytest.mark.parametrize("modality", MODALITIES)
def test_a_lesion_has_a_map_and_health_an_empty_one(modality) -> None:
    maps = {"yes": [], "no": [], None: []}
    for sample in samples(modality):
        maps[sample.facts.get("lesion")].append(sample.lesions)
        if sample.lesions is not None:
            assert sample.lesions.dtype == np.uint8
            assert sample.lesions.shape == (len(sample.frames), LESION_GRID, LESION_GRID)
    assert maps["yes"]
    assert maps["no"]
    assert all(one is None for one in maps[None])
    assert not any(one.any() for one in maps["no"])
    if modality in WITHOUT_A_PLACE:
        assert all(one is None for one in maps["yes"])
    else:
        assert all(one is not None and one.any() for one in maps["yes"])


@pytest.mark.parametrize("modality", sorted(set(MODALITIES) - WITHOUT_A_PLACE))
def test_the_map_lies_where_the_location_is_said_to_be(modality) -> None:
    for sample in samples(modality):
        place = sample.facts.get("location")
        if place is None:
            continue
        largest = sample.lesions[sample.lesions.sum(axis=(1, 2), dtype=int).argmax()].astype(float)
        row, column = (np.average(np.arange(LESION_GRID) + 0.5, weights=largest.sum(axis=1 - axis)) for axis in (0, 1))
        said = f"{'lower' if row > LESION_GRID / 2 else 'upper'} {'right' if column > LESION_GRID / 2 else 'left'}"
        assert said == place


@pytest.mark.parametrize("seed", range(6))
def test_a_cover_is_fitted_like_its_picture(seed) -> None:
    """A white box is its own cover: squashed or letterboxed, picture and cover agree."""
    cover = np.zeros((1, 60, 90), np.float32)
    cover[0, 10:30, 50:80] = 1
    frames, scale = fit(np.repeat(np.uint8(cover * 255)[..., None], 3, axis=-1), np.random.default_rng(seed))
    fitted = fit_cover(cover, scale)
    assert fitted.shape == (1, SIZE, SIZE)
    assert np.abs(fitted - frames[..., 0] / 255).mean() < 0.01
    assert np.array_equal(lesion_map(np.ones((1, SIZE, SIZE))), np.full((1, LESION_GRID, LESION_GRID), 255))
