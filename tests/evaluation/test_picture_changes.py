# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Each change does to a picture what its name says, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from evaluation.picture_changes import (
    BORDER,
    CHANGES,
    LEVEL_SHIFT,
    NOISE,
    WINDOW_FACTORS,
    add_borders,
    add_noise,
    burn_in_text,
    change_width,
    compress,
    mirror,
    names_a_side,
    shift_level,
    swap_sides,
    turn,
)


def smooth(width: int = 96, height: int = 64) -> Image.Image:
    """A grey slope from left to right between 64 and 191, so that a moderate change clips nothing."""
    row = np.linspace(64, 191, width).round()
    return Image.fromarray(np.repeat(np.tile(row, (height, 1))[..., None], 3, axis=2).astype(np.uint8))


@st.composite
def pictures(draw) -> Image.Image:
    width, height = (draw(st.integers(2, 40)) for _ in range(2))
    levels = np.random.default_rng(draw(st.integers(0, 999))).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(levels)


def random(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def levels(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture, dtype=float)


@pytest.mark.parametrize("change", CHANGES, ids=lambda one: one.name)
@given(picture=pictures(), seed=st.integers(0, 99))
def test_a_change_depends_on_the_picture_and_the_seed_alone_and_leaves_the_original(change, picture, seed):
    held = picture.copy()
    first, second = (change.apply(picture, random(seed)) for _ in range(2))
    assert first.mode == "RGB"
    assert first.tobytes() == second.tobytes()
    assert picture.tobytes() == held.tobytes()


@pytest.mark.parametrize("change", [one for one in CHANGES if one.name != "borders"], ids=lambda one: one.name)
@given(picture=pictures(), seed=st.integers(0, 99))
def test_only_borders_change_the_size(change, picture, seed):
    assert change.apply(picture, random(seed)).size == picture.size


@given(picture=pictures())
def test_borders_are_black_and_leave_the_picture_whole(picture):
    bordered = add_borders(picture, random())
    left, top = (max(round(BORDER * side), 1) for side in picture.size)
    assert bordered.size == (picture.width + 2 * left, picture.height + 2 * top)
    box = (left, top, left + picture.width, top + picture.height)
    assert bordered.crop(box).tobytes() == picture.tobytes()
    bordered.paste((0, 0, 0), box)
    assert bordered.getextrema() == ((0, 0),) * 3


@given(picture=pictures())
def test_mirrored_twice_is_the_picture_itself(picture):
    assert mirror(mirror(picture, random()), random()).tobytes() == picture.tobytes()


def test_a_mirrored_picture_has_its_left_on_the_right():
    assert (levels(mirror(smooth(), random())) == levels(smooth())[:, ::-1]).all()


def test_another_level_moves_all_grey_levels_by_the_same_step_up_or_down():
    steps = {float((levels(shift_level(smooth(), random(seed))) - levels(smooth())).mean()) for seed in range(20)}
    assert sorted(steps) == pytest.approx([-255 * LEVEL_SHIFT, 255 * LEVEL_SHIFT], abs=0.5)


def test_another_width_stretches_or_squeezes_grey_levels_around_the_middle():
    spreads = {round(float(np.ptp(levels(change_width(smooth(), random(seed))))), 1) for seed in range(20)}
    expected = [min((191 - 64) / factor, 255) for factor in WINDOW_FACTORS]
    assert sorted(spreads) == pytest.approx(sorted(expected), abs=1.5)


def test_a_turn_keeps_the_middle_moves_the_edge_and_fills_corners_with_the_edges_own_colour():
    black = Image.new("RGB", (101, 101))
    black.paste((255, 255, 255), (48, 10, 53, 20))
    turned = turn(black, random())
    assert turned.getpixel((0, 0)) == (0, 0, 0)
    rows, columns = np.nonzero(levels(turned)[..., 0] > 128)
    assert abs(np.degrees(np.arctan2(50 - columns.mean(), 50 - rows.mean()))) == pytest.approx(10, abs=1.5)
    white = turn(Image.new("RGB", (40, 40), "white"), random())
    assert white.getextrema() == ((255, 255),) * 3


def test_noise_has_its_strength_no_bias_and_no_colour():
    noise = levels(add_noise(smooth(256, 256), random())) - levels(smooth(256, 256))
    assert noise.std() == pytest.approx(255 * NOISE, rel=0.05)
    assert abs(noise.mean()) < 1
    assert (noise == noise[..., :1]).all()


def test_compression_costs_detail_but_not_the_picture():
    rough = Image.fromarray(random().integers(0, 256, (64, 64, 3), dtype=np.uint8))
    assert np.abs(levels(compress(rough, random())) - levels(rough)).mean() > 5
    assert np.abs(levels(compress(smooth(), random())) - levels(smooth())).mean() < 5


def test_text_is_burnt_into_two_corners_and_nowhere_else():
    plain = Image.new("RGB", (300, 200), (90, 90, 90))
    changed = np.any(levels(burn_in_text(plain, random())) != 90, axis=2)
    assert changed[:40, :150].any() and changed[-40:, :150].any()
    assert not changed[:, 150:].any()
    assert not changed[60:140].any()


@pytest.mark.parametrize(
    ("words", "swapped"),
    [
        ("Left Lung, Right", "Right Lung, Left"),
        ("Is the lesion on the left or the right?", "Is the lesion on the right or the left?"),
        ("What is the rightmost organ in this image?", "What is the leftmost organ in this image?"),
        ("left-sided pathology", "right-sided pathology"),
        ("RIGHT upper lobe", "LEFT upper lobe"),
        ("R frontal lobe", "L frontal lobe"),
    ],
)
def test_sides_are_swapped_there_and_back(words, swapped):
    assert names_a_side(words)
    assert swap_sides(words) == swapped
    assert swap_sides(swapped) == words


@pytest.mark.parametrize(
    "words",
    ["Is it bright?", "Choose the right diagnosis. Choices: A. cyst", "Is this a right description?", "L4", "R"],
)
def test_what_is_no_side_stays(words):
    assert not names_a_side(words)
    assert swap_sides(words) == words
