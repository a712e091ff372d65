# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""`Clip.geometry`: a voxel that is known to the hundredth of a millimetre lies there in the frames, however cut."""

from __future__ import annotations

import numpy as np
import pytest

from hub_model.clip_omniv_med import PLANES, Clip
from hub_model.isolated_reading_omniv_med import IsolatedReader
from hub_model.media_omniv_med import iterate_clips, load_clip
from tests.helpers.clinical_series import POSES, body, centre_of, write_series

SHAPE = (9, 14, 11)
SEEN = (6, 4, 7)
"""The one bright voxel: slice, row, column."""
STRAIGHT = [name for name in POSES if name != "tilted"]


def one_voxel() -> np.ndarray:
    voxels = np.full(SHAPE, -1000, np.int16)
    voxels[SEEN] = 1000
    return voxels


def where_it_is_seen(clip: Clip) -> np.ndarray:
    """LPS millimetres of the brightest pixel."""
    frame, row, column = np.unravel_index(clip.frames[..., 0].argmax(), clip.frames.shape[:3])
    return clip.geometry.origins[frame] + clip.geometry.steps @ [column, row, 0]


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("name", STRAIGHT)
def test_a_voxel_lies_where_its_slice_says(tmp_path, name, plane):
    write_series(tmp_path, one_voxel(), POSES[name])
    clip = load_clip(tmp_path, plane=plane)
    assert np.abs(where_it_is_seen(clip) - centre_of(POSES[name], *SEEN)).max() < 0.001


def test_slices_of_a_tilted_gantry_lie_where_they_were_acquired(tmp_path):
    write_series(tmp_path, one_voxel(), POSES["tilted"])
    clip = load_clip(tmp_path)
    assert np.abs(where_it_is_seen(clip) - centre_of(POSES["tilted"], *SEEN)).max() < 0.001


@pytest.mark.parametrize("plane", ["coronal", "sagittal"])
def test_across_a_tilted_stack_a_voxel_lies_there_within_a_pixel(tmp_path, plane):
    """The slices were moved back in line, so its brightness is shared with the neighbour."""
    write_series(tmp_path, one_voxel(), POSES["tilted"])
    clip = load_clip(tmp_path, plane=plane)
    away = np.linalg.solve(clip.geometry.steps, where_it_is_seen(clip) - centre_of(POSES["tilted"], *SEEN))
    assert np.abs(away).max() < 1


def test_uneven_slices_lie_where_they_say_and_nowhere_across(tmp_path):
    steps = [0, 1, 2, 3, 5, 6, 8.5, 9, 10]
    write_series(tmp_path, one_voxel(), POSES["oblique"], steps)
    expected = centre_of(POSES["oblique"], steps[SEEN[0]], *SEEN[1:])
    assert np.abs(where_it_is_seen(load_clip(tmp_path)) - expected).max() < 0.001
    assert load_clip(tmp_path, plane="coronal").geometry is None


def test_chosen_slices_keep_their_places(tmp_path):
    write_series(tmp_path, body(), POSES["from the head down"])
    every, chosen = load_clip(tmp_path).geometry, load_clip(tmp_path, max_frames=4).geometry
    assert np.allclose(chosen.origins, every.origins[[0, 4, 7, 11]], atol=1e-9)
    assert np.allclose(chosen.steps, every.steps)
    assert np.allclose(np.diff(every.origins, axis=0), every.steps[:, 2])


def test_pieces_have_their_own_places(tmp_path):
    write_series(tmp_path, body())
    whole = load_clip(tmp_path).geometry
    pieces = [clip.geometry.origins for clip in iterate_clips(tmp_path, chunk=5)]
    assert [len(piece) for piece in pieces] == [5, 5, 2]
    assert np.array_equal(np.concatenate(pieces), whole.origins)


def test_a_separate_process_tells_it_too(tmp_path):
    write_series(tmp_path, body(), POSES["oblique"])
    with IsolatedReader(processes=1) as reader:
        told = reader.load_clip(tmp_path).geometry
    known = load_clip(tmp_path).geometry
    assert np.array_equal(told.origins, known.origins) and np.array_equal(told.steps, known.steps)


def test_what_does_not_say_where_it_lies_has_none(tmp_path):
    write_series(tmp_path / "series", body())
    assert load_clip(tmp_path / "series", spacing=(1, 1, 1)).geometry is None
    assert load_clip(np.zeros((4, 8, 8), np.uint8)).geometry is None
