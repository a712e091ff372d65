# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Labels of a NIfTI file lie on its own grid, voxel by voxel, however its axes run and whatever the plane."""

from __future__ import annotations

import itertools
from pathlib import Path

import nibabel
import numpy as np
import pytest

from clinic.export import main
from clinic.segmentation import KEPT, NOT_SEEN, REMOVED, token_labels
from clinic.source_volume import read_volume
from hub_model.clip_omniv_med import PLANES
from hub_model.media_omniv_med import load_clip
from tests.helpers.clinical_series import ORIGIN, PIXEL_SPACING, POSES, Pose, body

pytestmark = pytest.mark.usefixtures("one_thread")
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
STRAIGHT = [name for name in POSES if name != "tilted"]
SEEN = (4, 5, 11)
"""Slice, row and column of a voxel."""


def affine_of(pose: Pose) -> np.ndarray:
    """From (column, row, slice) to RAS millimetres."""
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = np.array(pose.row) * PIXEL_SPACING[1], np.array(pose.column) * PIXEL_SPACING[0]
    affine[:3, 2], affine[:3, 3] = pose.step, ORIGIN
    return LPS_TO_RAS @ affine


def write_volume(path: Path, voxels: np.ndarray, affine: np.ndarray, units: str = "mm") -> Path:
    """Writes HU (slices, rows, columns) with an affine of whatever units."""
    image = nibabel.Nifti1Image(voxels.transpose(2, 1, 0), affine)
    image.header.set_xyzt_units(units)
    nibabel.save(image, path)
    return path


@pytest.mark.parametrize("name", STRAIGHT)
def test_files_lie_on_the_grid_of_their_source(tmp_path: Path, tiny: Path, name: str) -> None:
    source = write_volume(tmp_path / "body.nii.gz", body(), affine_of(POSES[name]))
    out = ["--out", str(tmp_path / "out"), "--model", str(tiny)]
    assert main([str(source), "--question", "Which imaging modality is this?", *out]) == 0
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"tokens.nii.gz", "reconstruction.nii.gz"}
    for file in (tmp_path / "out").iterdir():
        written = nibabel.load(file)
        assert written.shape == nibabel.load(source).shape
        corners = np.array(list(itertools.product(*((0, size - 1) for size in written.shape[:3]))))
        places = (nibabel.affines.apply_affine(one.affine, corners) for one in (written, nibabel.load(source)))
        assert np.abs(np.subtract(*places)).max() < 0.01
    assert set(np.unique(nibabel.load(tmp_path / "out" / "tokens.nii.gz").dataobj)) == {KEPT, REMOVED}


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("order", list(itertools.permutations("xyz")))
@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, 1, 1), (1, -1, -1)])
def test_every_voxel_is_followed_to_its_token(tmp_path: Path, processor, plane: str, order, flips) -> None:
    """The centre of each pixel, in millimetres, is the centre of a voxel with the label of its token."""
    affine = affine_of(POSES["oblique"])
    columns = [affine[:, "xyz".index(axis)] * flip for axis, flip in zip(order, flips, strict=True)]
    path = write_volume(tmp_path / "body.nii", body(7, 6, 5), np.column_stack([*columns, affine[:, 3]]))
    processed = processor.process_clip(load_clip(path, plane=plane, max_frames=5))
    source = read_volume(path)
    labels, to_voxels = token_labels(processed, source), np.linalg.inv(source.affine())
    frames, height, width = processed.clip.frames.shape[:3]
    keep = processed.pruned.keep_mask.reshape(frames, *processed.grid).numpy()
    expected = np.full(source.shape, NOT_SEEN)
    for frame, row, column in np.ndindex(frames, height, width):
        place = processed.clip.geometry.origins[frame] + processed.clip.geometry.steps @ [column, row, 0]
        voxel = (to_voxels @ [*place, 1])[:3]
        assert np.abs(voxel - voxel.round()).max() < 0.001
        down, across = (int((row + 0.5) / height * processed.grid[0]), int((column + 0.5) / width * processed.grid[1]))
        token = keep[frame, down, across]
        expected[tuple(voxel.round().astype(int)[::-1])] = KEPT if token else REMOVED
    assert np.array_equal(labels, expected)


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("name", STRAIGHT)
@pytest.mark.parametrize(("units", "millimetres"), [("mm", 1.0), ("meter", 1000.0), ("micron", 0.001)])
def test_a_voxel_lies_where_the_affine_says(tmp_path: Path, name: str, plane: str, units: str, millimetres) -> None:
    voxels = np.full((6, 8, 14), -1000, np.int16)
    voxels[SEEN] = 1000
    affine = affine_of(POSES[name])
    scaled = np.diag([1 / millimetres] * 3 + [1.0]) @ affine
    clip = load_clip(write_volume(tmp_path / "point.nii", voxels, scaled, units), plane=plane)
    frame, row, column = np.unravel_index(clip.frames[..., 0].argmax(), clip.frames.shape[:3])
    found = clip.geometry.origins[frame] + clip.geometry.steps @ [column, row, 0]
    assert np.abs(found - (LPS_TO_RAS @ affine @ [*SEEN[::-1], 1])[:3]).max() < 0.01


def test_axes_that_are_not_quite_at_right_angles_are_kept(tmp_path: Path) -> None:
    """The reader takes them for right angles; over 200 voxels that would be a millimetre and a half."""
    affine = np.diag([1.0, 1.0, 1.0, 1.0])
    affine[0, 1] = 0.008
    path = write_volume(tmp_path / "skewed.nii", np.zeros((2, 200, 4), np.int16), affine)
    geometry = load_clip(path).geometry
    corners = nibabel.affines.apply_affine(LPS_TO_RAS @ affine, list(itertools.product((0, 3), (0, 199), (0, 1))))
    for column, row in itertools.product((0, 3), (0, 199)):
        place = geometry.origins[0] + geometry.steps @ [column, row, 0]
        assert np.abs(corners - place).max(axis=1).min() < 0.01


def test_a_file_whose_sform_is_empty_lies_where_its_qform_says(tmp_path: Path, processor) -> None:
    """Some programs say that there is an sform and leave it zero. Labels and frames must take the same place then."""
    affine = affine_of(POSES["oblique"])
    image = nibabel.Nifti1Image(body(7, 6, 5).transpose(2, 1, 0), affine)
    image.set_qform(affine, code="scanner")
    path = tmp_path / "body.nii"
    nibabel.save(image, path)
    content = bytearray(path.read_bytes())
    content[280:328] = bytes(48)  # srow_x, srow_y and srow_z
    path.write_bytes(content)
    source = read_volume(path)
    assert np.abs(source.affine() - LPS_TO_RAS @ affine).max() < 0.001
    labels = token_labels(processor.process_clip(load_clip(path)), source)
    assert set(np.unique(labels)) <= {KEPT, REMOVED}


def test_a_file_that_does_not_say_where_it_lies_has_no_layers(tmp_path: Path, tiny: Path, capsys) -> None:
    image = nibabel.Nifti1Image(body().transpose(2, 1, 0), None)
    nibabel.save(image, tmp_path / "nowhere.nii")
    assert load_clip(tmp_path / "nowhere.nii").geometry is None
    out = ["--out", str(tmp_path / "out"), "--model", str(tiny)]
    assert main([str(tmp_path / "nowhere.nii"), "--question", "What is it?", *out]) == 0
    assert "Where the frames lie in the patient is not known" in capsys.readouterr().err
