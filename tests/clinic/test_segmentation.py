# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Kept and removed tokens lie on the source's own voxels, wherever these lie and however the frames were cut."""

from __future__ import annotations

import highdicom
import nibabel
import numpy as np
import pydicom
import pytest

from clinic.segmentation import KEPT, NOT_SEEN, REMOVED, build_segmentation, reconstruction, token_labels, write_nifti
from clinic.source_series import SeriesError, read_series
from clinic.structured_report import ModelIdentity
from hub_model.clip_omniv_med import PLANES
from hub_model.media_omniv_med import load_clip
from tests.helpers.clinical_series import POSES, body, centre_of, write_series
from tests.helpers.dicom_checks import errors_of, marks_in, needs_dciodvfy

MODEL = ModelIdentity("OmniV-Med-Nano", "sha256:0123456789ab")
LPS_TO_RAS = np.array([-1, -1, 1])
WITHIN = 0.01
"""Millimetres."""


def processed_of(processor, folder, **options):
    return processor.process_clip(load_clip(folder, **options))


@pytest.fixture(params=POSES)
def pose(request):
    return POSES[request.param]


@pytest.fixture
def folder(tmp_path, pose):
    write_series(tmp_path / "series", body(), pose)
    return tmp_path / "series"


def some_voxels(image) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the corners and the middles of a NIfTI, (27, 3), and their LPS millimetres."""
    ends = [np.array([0, (size - 1) / 2, size - 1]) for size in image.shape[:3]]
    indices = np.stack(np.meshgrid(*ends, indexing="ij"), axis=-1).reshape(-1, 3)
    return indices, nibabel.affines.apply_affine(image.affine, indices) * LPS_TO_RAS


# --- Which voxel belongs to which token --------------------------------------------------------------------


def test_a_voxel_has_the_label_of_the_token_that_its_pixel_is_in(tmp_path, processor):
    """By hand: the series is axial, so slices are frames; 20 rows and 16 columns are cut into the grid's cells."""
    write_series(tmp_path, body())
    processed = processed_of(processor, tmp_path)
    labels = token_labels(processed, read_series(tmp_path))
    rows, columns = processed.grid
    keep = processed.pruned.keep_mask.reshape(12, rows, columns).numpy()
    assert 0 < keep.mean() < 1
    for row in range(20):
        for column in range(16):
            token = keep[:, int((row + 0.5) / 20 * rows), int((column + 0.5) / 16 * columns)]
            assert np.array_equal(labels[:, row, column], np.where(token, KEPT, REMOVED))


CUTS = [(name, plane) for name in POSES for plane in PLANES if name != "tilted" or plane == "axial"]
"""All but those for which the slices are moved back in line, so that a pixel is no voxel; they have their own test."""


@pytest.mark.parametrize(("name", "plane"), CUTS)
def test_every_voxel_is_followed_to_its_token_whatever_the_plane(tmp_path, name, plane, processor):
    """The other way round: the centre of each pixel, in millimetres, is the centre of a voxel with its label."""
    write_series(tmp_path, body(), POSES[name])
    processed, series = processed_of(processor, tmp_path, plane=plane), read_series(tmp_path)
    labels = token_labels(processed, series)
    frames, height, width = processed.clip.frames.shape[:3]
    keep = processed.pruned.keep_mask.reshape(frames, *processed.grid).numpy()
    geometry, to_voxels = processed.clip.geometry, np.linalg.inv(series.affine())
    seen = np.zeros(series.shape, bool)
    for frame in range(frames):
        for row in range(height):
            for column in range(width):
                place = geometry.origins[frame] + geometry.steps @ [column, row, 0]
                voxel = (to_voxels @ [*place, 1])[:3]
                assert np.abs(voxel - voxel.round()).max() < 0.001
                token = keep[frame, row * processed.grid[0] // height, column * processed.grid[1] // width]
                index = tuple(voxel.round().astype(int)[::-1])
                assert labels[index] == (KEPT if token else REMOVED)
                seen[index] = True
    assert seen.all()


def test_across_a_tilted_stack_every_voxel_is_seen(tmp_path, processor):
    write_series(tmp_path, body(), POSES["tilted"])
    labels = token_labels(processed_of(processor, tmp_path, plane="coronal"), read_series(tmp_path))
    assert (labels != NOT_SEEN).all()


def test_slices_that_were_not_chosen_belong_to_no_token(folder, processor):
    labels = token_labels(processed_of(processor, folder, max_frames=4, plane="automatic"), read_series(folder))
    assert [int((piece != NOT_SEEN).any()) for piece in labels] == [1, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 1]
    assert (labels[[0, 4, 7, 11]] != NOT_SEEN).all()


def test_the_reconstruction_shows_the_kept_tokens_as_they_are(tmp_path, processor):
    """Without pruning, and where the encoder's resolution is the source's, it is what the reader shows."""
    write_series(tmp_path, body(12, 24, 32), POSES["from the head down"], PixelSpacing=[1, 1])
    processed = processor.process_clip(load_clip(tmp_path), prune_rule="none")
    assert processed.shown_frames().shape == (12, 24, 32, 3)
    assert np.array_equal(reconstruction(processed, read_series(tmp_path)), processed.clip.frames)


def test_a_removed_token_is_shown_as_its_stand_in(tmp_path, processor):
    write_series(tmp_path, body())
    processed, series = processed_of(processor, tmp_path), read_series(tmp_path)
    labels, shown = token_labels(processed, series), reconstruction(processed, series)
    first = int((labels[1:] == REMOVED).all(axis=(1, 2)).argmax()) + 1
    assert (labels[first] == REMOVED).all()
    assert np.array_equal(shown[first], shown[first - 1])


# --- Where the files say that it lies ---------------------------------------------------------------------


def test_nifti_lies_where_the_images_do(folder, pose, processor, tmp_path):
    processed, series = processed_of(processor, folder), read_series(folder)
    labels = token_labels(processed, series)
    write_nifti(labels, series, tmp_path / "tokens.nii.gz")
    write_nifti(reconstruction(processed, series), series, tmp_path / "reconstruction.nii.gz")
    for name in ("tokens.nii.gz", "reconstruction.nii.gz"):
        image = nibabel.load(tmp_path / name)
        assert image.shape == (16, 20, 12)
        indices, places = some_voxels(image)
        backwards = np.array(pose.step) @ np.cross(pose.row, pose.column) < 0  # slices are sorted along their normal
        expected = [
            centre_of(pose, 11 - number if backwards else number, row, column) for column, row, number in indices
        ]
        assert np.abs(places - expected).max() < WITHIN
    assert np.array_equal(np.asarray(nibabel.load(tmp_path / "tokens.nii.gz").dataobj), labels.transpose(2, 1, 0))


def test_a_segmentation_lies_where_the_images_do(folder, pose, processor, tmp_path):
    labels = token_labels(processed_of(processor, folder), read_series(folder))
    build_segmentation(labels, read_series(folder), MODEL, "threshold 0.1").save_as(tmp_path / "tokens.dcm")
    images = {}
    for file in folder.iterdir():
        image = pydicom.dcmread(file, stop_before_pixels=True)
        images[image.SOPInstanceUID] = image
    written = highdicom.seg.segread(tmp_path / "tokens.dcm")
    assert written.SegmentationType == "BINARY" and (written.Rows, written.Columns) == (20, 16)
    assert [written.get_segment_description(number).SegmentLabel for number in (KEPT, REMOVED)] == [
        "Token kept",
        "Token removed",
    ]
    shared = written.SharedFunctionalGroupsSequence[0]
    one = next(iter(images.values()))
    assert np.allclose(shared.PlaneOrientationSequence[0].ImageOrientationPatient, one.ImageOrientationPatient)
    assert np.allclose(shared.PixelMeasuresSequence[0].PixelSpacing, one.PixelSpacing)
    assert written.FrameOfReferenceUID == one.FrameOfReferenceUID
    for group in written.PerFrameFunctionalGroupsSequence:
        (source,) = group.DerivationImageSequence[0].SourceImageSequence
        here = np.array(group.PlanePositionSequence[0].ImagePositionPatient, dtype=float)
        there = np.array(images[source.ReferencedSOPInstanceUID].ImagePositionPatient, dtype=float)
        assert np.abs(here - there).max() < WITHIN


def test_a_segmentation_holds_the_labels_of_each_image(folder, processor, tmp_path):
    series = read_series(folder)
    labels = token_labels(processed_of(processor, folder), series)
    build_segmentation(labels, series, MODEL, "threshold 0.1").save_as(tmp_path / "tokens.dcm")
    written = highdicom.seg.segread(tmp_path / "tokens.dcm")
    uids = [header.SOPInstanceUID for header in series.headers]
    held = written.get_pixels_by_source_instance(uids, combine_segments=True)
    assert np.array_equal(held, labels)


@needs_dciodvfy
@pytest.mark.parametrize("keep_ids", [False, True], ids=["anonymous", "with the patient"])
def test_a_segmentation_is_as_the_standard_says(folder, processor, tmp_path, keep_ids):
    series = read_series(folder, keep_ids=keep_ids)
    labels = token_labels(processed_of(processor, folder), series)
    build_segmentation(labels, series, MODEL, "threshold 0.1").save_as(tmp_path / "tokens.dcm")
    assert errors_of(tmp_path / "tokens.dcm") == []
    assert bool(marks_in((tmp_path / "tokens.dcm").read_bytes())) == keep_ids


def test_uneven_slices_have_a_segmentation_and_no_nifti(tmp_path, processor):
    write_series(tmp_path / "series", body(6), POSES["oblique"], [0, 1, 2, 4, 4.4, 5])
    processed, series = processed_of(processor, tmp_path / "series", max_frames=3), read_series(tmp_path / "series")
    labels = token_labels(processed, series)
    assert [bool(piece.any()) for piece in labels] == [True, False, True, False, False, True]
    build_segmentation(labels, series, MODEL, "threshold 0.1")
    with pytest.raises(SeriesError, match="distances of the slices vary"):
        write_nifti(labels, series, tmp_path / "tokens.nii.gz")


def test_slices_that_do_not_say_where_they_lie_are_refused(tmp_path, processor):
    write_series(tmp_path, body(4), ImagePositionPatient=None)
    with pytest.raises(SeriesError, match="is not known"):
        token_labels(processed_of(processor, tmp_path), read_series(tmp_path))


def test_a_series_without_a_frame_of_reference_is_refused(tmp_path, processor):
    write_series(tmp_path, body(4), FrameOfReferenceUID=None)
    series = read_series(tmp_path)
    labels = token_labels(processed_of(processor, tmp_path), series)
    with pytest.raises(SeriesError, match="frame of reference"):
        build_segmentation(labels, series, MODEL, "threshold 0.1")
