# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""A CT in any window, out of the three that the model reads it in."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from demo.service.samples import examples
from demo.service.windows import MODELS, PRESETS, chosen_window, fitting_window, in_window, is_ct
from hub_model.intensity_omniv_med import window_ct
from hub_model.media_omniv_med import load_clip

AIR, FAT, BRAIN, BLOOD, SKULL = -1000, -100, 35, 50, 900


@given(units=st.lists(st.integers(-1200, 1000), min_size=1, max_size=50), name=st.sampled_from(sorted(PRESETS)))
def test_a_window_is_that_of_the_file_as_exactly_as_the_model_knows_it(units, name):
    """The widest of the model's windows has steps of 8.8 HU."""
    hounsfield, window = np.array(units).reshape(1, 1, -1), PRESETS[name]
    drawn = in_window(window_ct(hounsfield), window)
    true = window_ct(hounsfield, [(window.width, window.level)])[..., 0]
    assert drawn.shape == true.shape
    assert np.abs(drawn.astype(int) - true).max() <= np.ceil(4.5 / window.width * 255)


def test_the_models_own_windows_come_back():
    frames = window_ct(np.arange(-1200, 1000).reshape(1, 20, -1))
    for channel, window in enumerate(MODELS):
        assert np.abs(in_window(frames, window).astype(int) - frames[..., channel]).max() <= 1, "rounded twice"


def test_what_lies_beyond_the_models_windows_is_not_invented():
    assert PRESETS["lung"].is_known and PRESETS["brain"].is_known
    assert not PRESETS["bone"].is_known, "bone is brighter than the model's windows; the file is read again"


@pytest.mark.parametrize(("width", "level"), [(0, 40), ("80", 40), (80, None), (float("nan"), 40), (80, 1e9)])
def test_a_window_that_is_none_is_a_sentence(width, level):
    with pytest.raises(ValueError, match="window"):
        chosen_window(width, level)


def head() -> np.ndarray:
    """A brain in its skull in air, HU."""
    rows, columns = np.mgrid[-64:64, -64:64]
    radius = np.hypot(rows, columns)
    return np.select([radius < 46, radius < 54, radius < 57], [BRAIN, SKULL, FAT], AIR)


def belly() -> np.ndarray:
    """Soft tissue with a spine, HU."""
    rows, columns = np.mgrid[-64:64, -64:64]
    spine = np.hypot(rows - 30, columns) < 9
    return np.where(np.hypot(rows, columns) < 57, np.where(spine, SKULL, BLOOD), AIR)


def test_the_window_that_fits_goes_by_what_the_scan_holds():
    for picture, name in ((head(), "brain"), (belly(), "soft tissue")):
        assert fitting_window(window_ct(np.repeat(picture[None], 3, axis=0))) is PRESETS[name]
    by_name = {example.name: load_clip(example.path) for example in examples() if example.name in ("ct", "xray")}
    assert is_ct(by_name["ct"]) and fitting_window(by_name["ct"].frames) is PRESETS["lung"]
    assert not is_ct(by_name["xray"])
