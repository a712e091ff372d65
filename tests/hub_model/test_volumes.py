# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""One body gives one clip, however its volume is stored: NIfTI, NRRD, MetaImage, DICOM series of any order."""

from __future__ import annotations

import zipfile
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813 - the name all of its documentation uses
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from hub_model.media_omniv_med import (
    CT_WINDOWS,
    load_clip,
    scale_intensity,
    window_ct,
)
from tests.helpers.media_files import (
    ALL_AXES,
    ANATOMICAL,
    MNI,
    SPACING,
    assert_sound,
    dicom_file,
    make_body,
    multi_frame,
    nifti,
    said,
    series,
    slice_dataset,
)


def slice_file(folder: Path, number: int) -> tuple[Path, Dataset]:
    """One file of an axial series, counted from the feet."""
    read = {path: pydicom.dcmread(path) for path in folder.iterdir()}
    return sorted(read.items(), key=lambda one: one[1].ImagePositionPatient[2])[number]


def test_nifti_and_dicom_of_one_body_give_the_same_frames(tmp_path):
    body = make_body()
    stored = nifti(tmp_path / "body.nii.gz", body)
    folder = series(tmp_path / "series", body)
    with zipfile.ZipFile(tmp_path / "series.zip", "w") as archive:
        for path in folder.iterdir():
            archive.write(path, f"export/{path.name}")
    expected = window_ct(body)
    for source in (stored, folder, tmp_path / "series.zip", sorted(folder.iterdir())):
        clip = load_clip(source)
        assert_sound(clip)
        assert (clip.kind, clip.modality, clip.unit) == ("volume", "CT", "mm")
        np.testing.assert_array_equal(clip.frames, expected)
        np.testing.assert_allclose(clip.positions, np.arange(12) * 3.0, atol=1e-5)
        np.testing.assert_allclose(clip.pixel_spacing, (1.5, 0.75), atol=1e-5)
        assert said(clip, "2250/-100, 350/40, 80/40") and said(clip, "All 12 axial slices")


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_every_storage_order_gives_the_same_clip(tmp_path, plane):
    body = make_body((6, 9, 7))
    expected = load_clip(nifti(tmp_path / "body.nii", body), plane=plane)
    for axes in ALL_AXES:
        clip = load_clip(nifti(tmp_path / f"{axes}.nii", body, axes), plane=plane)
        np.testing.assert_array_equal(clip.frames, expected.frames, err_msg=axes)
        np.testing.assert_allclose(clip.positions, expected.positions, atol=1e-4)
        np.testing.assert_allclose(clip.pixel_spacing, expected.pixel_spacing, atol=1e-4)


@pytest.mark.parametrize("axes", ["LPS", "LPI", "RPS", "LIP", "PIL", "AIR"])
def test_dicom_series_of_every_acquisition_plane_agree(tmp_path, axes):
    body = make_body()
    clip = load_clip(series(tmp_path / axes, body, axes))
    np.testing.assert_array_equal(clip.frames, window_ct(body))
    np.testing.assert_allclose(clip.positions, np.arange(12) * 3.0)
    assert clip.pixel_spacing == (1.5, 0.75)


def test_frames_lie_as_a_radiologist_expects(tmp_path):
    body = np.zeros((9, 11, 13), np.int16)
    body[1, 2, 3] = 1000  # low, in front, on the patient's right
    path = nifti(tmp_path / "point.nii", body)

    def brightest(plane: str) -> list[int]:
        frames = load_clip(path, plane=plane, modality="CT").frames[..., 0]
        return [int(i) for i in np.unravel_index(frames.argmax(), frames.shape)]

    assert brightest("axial") == [1, 2, 3]  # from the feet; anterior up; patient right on the left
    assert brightest("coronal") == [2, 9 - 1 - 1, 3]  # from the front; head up
    assert brightest("sagittal") == [3, 9 - 1 - 1, 2]  # from the right; head up; anterior on the left


def test_plane_sets_positions_and_pixel_spacing(tmp_path):
    path = nifti(tmp_path / "body.nii", make_body())
    coronal, sagittal = load_clip(path, plane="coronal"), load_clip(path, plane="sagittal")
    np.testing.assert_allclose(coronal.positions, np.arange(20) * 1.5, atol=1e-5)
    np.testing.assert_allclose(coronal.pixel_spacing, (3.0, 0.75), atol=1e-5)
    np.testing.assert_allclose(sagittal.pixel_spacing, (3.0, 1.5), atol=1e-5)
    assert said(coronal, "not square: 3.00 x 0.75 mm")


def test_slices_are_evenly_spaced_and_cover_the_volume():
    clip = load_clip(MNI, max_frames=5)
    assert_sound(clip)
    assert (len(clip.frames), clip.source_frames) == (5, 189)
    np.testing.assert_allclose(clip.positions, [0, 47, 94, 141, 188], atol=1e-3)
    assert said(clip, "5 of 189 axial slices, evenly spaced.")


@settings(max_examples=30)
@given(count=st.integers(2, 60), wanted=st.integers(1, 70))
def test_sampling_never_repeats_and_never_exceeds(count, wanted):
    volume = np.arange(count, dtype=np.float32)[:, None, None] * np.ones((1, 4, 5), np.float32)
    clip = load_clip(volume, spacing=(2, 1, 1), max_frames=wanted)
    assert_sound(clip)
    assert len(clip.frames) == min(count, wanted) and clip.source_frames == count
    if wanted == 1:
        return
    steps = np.diff(clip.positions)
    assert clip.positions[-1] <= 2 * (count - 1) and steps.max() - steps.min() <= 2


def test_whole_volume_percentiles_keep_brightness_comparable():
    """One dim and one bright slice must stay dim and bright: scaling each slice by itself would make them equal."""
    ramp = np.linspace(0, 1, 400, dtype=np.float32).reshape(20, 20)
    volume = np.stack([ramp * 10, ramp * 100, ramp * 1000])
    clip = load_clip(volume)
    assert clip.frames[0].max() < 5 and 20 < clip.frames[1].max() < 30 and clip.frames[2].max() == 255
    few = load_clip(volume, max_frames=2)
    np.testing.assert_array_equal(few.frames, clip.frames[[0, 2]])  # the scale does not depend on what is sampled
    np.testing.assert_array_equal(clip.frames, scale_intensity(volume))


def test_ct_windows():
    hounsfield = np.array([[-3000, -1225, -135, 0, 40, 80, 215, 1025, 3000]])
    shown = window_ct(hounsfield)
    np.testing.assert_array_equal(shown[0, :, 0], np.clip(np.round((hounsfield[0] + 1225) / 2250 * 255), 0, 255))
    np.testing.assert_array_equal(shown[0, [2, 6], 1], [0, 255])
    np.testing.assert_array_equal(shown[0, [3, 5], 2], [0, 255])
    clip = load_clip(make_body(), modality="CT", windows=[(100, 40)])
    np.testing.assert_array_equal(clip.frames, window_ct(make_body(), [(100, 40)] * 3))
    assert CT_WINDOWS == ((2250.0, -100.0), (350.0, 40.0), (80.0, 40.0))


def test_one_window_for_all_channels_is_one_picture_seen_three_times():
    shown = window_ct(make_body(), [(100, 40)] * 3)
    assert shown.base.nbytes == make_body().size
    different = window_ct(make_body(), [(100, 40), (100, 40), (80, 40)])
    np.testing.assert_array_equal(shown[..., :2], different[..., :2])


@pytest.mark.parametrize("element, value", [("RescaleSlope", 0.5), ("RescaleIntercept", 40000)])
def test_a_slice_in_other_numbers_changes_no_other(tmp_path, element, value):
    """Whole numbers are held in 16 bits; fractions and larger ones are not."""
    body = make_body()
    file, dataset = slice_file(series(tmp_path / "series", body), number=5)
    setattr(dataset, element, value)
    dataset.save_as(file)
    expected = body.astype(float)
    expected[5] = dataset.pixel_array * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept)
    np.testing.assert_array_equal(load_clip(tmp_path / "series").frames, window_ct(expected))


def test_padding_in_a_slice_is_background_there_alone(tmp_path):
    body = make_body()
    file, dataset = slice_file(series(tmp_path / "series", body), number=5)
    padding = int(dataset.pixel_array.max())
    dataset.add_new("PixelPaddingValue", "US", padding)
    dataset.save_as(file)
    expected = body.copy()
    expected[5][body[5] == padding - 1024] = body.min()
    assert not np.array_equal(expected, body)
    np.testing.assert_array_equal(load_clip(tmp_path / "series").frames, window_ct(expected))


def test_ct_is_recognised_by_air_alone_and_said_so(tmp_path):
    body = make_body()
    clip = load_clip(nifti(tmp_path / "ct.nii", body))
    assert clip.modality == "CT" and said(clip, "taken for CT")
    assert load_clip(nifti(tmp_path / "fraction.nii", body + np.float32(0.5))).modality == ""
    assert load_clip(nifti(tmp_path / "shifted.nii", body + 1000)).modality == ""
    assert load_clip(MNI).modality == "" and load_clip(MNI, modality="MRI").modality == "MR"


def test_of_four_dimensions_the_first_volume_is_used(tmp_path):
    volumes = np.stack([make_body(), make_body() + 500], axis=-1).transpose(2, 1, 0, 3)
    for name in ("four.nii", "four.nii.gz"):
        nibabel.save(nibabel.Nifti1Image(volumes, np.diag([-1, -1, 1, 1])), tmp_path / name)
        clip = load_clip(tmp_path / name)
        np.testing.assert_array_equal(clip.frames, window_ct(make_body()))
        assert said(clip, "The file holds 2 volumes; the first is used.")


@pytest.mark.parametrize("suffix", ["nrrd", "mha"])
@pytest.mark.parametrize("packed", [False, True])
def test_nrrd_and_metaimage(tmp_path, suffix, packed):
    image = sitk.GetImageFromArray(make_body())
    image.SetSpacing(SPACING[::-1])
    sitk.WriteImage(image, str(tmp_path / f"body.{suffix}"), packed)
    (tmp_path / f"body.{suffix}").rename(tmp_path / "no-suffix")
    clip = load_clip(tmp_path / "no-suffix")
    np.testing.assert_array_equal(clip.frames, window_ct(make_body()))
    assert clip.pixel_spacing == (1.5, 0.75)


def test_real_nifti_agrees_with_nibabel():
    image = nibabel.as_closest_canonical(nibabel.load(ANATOMICAL))
    lps = np.asarray(image.dataobj)[::-1, ::-1].transpose(2, 1, 0)
    clip = load_clip(ANATOMICAL)
    np.testing.assert_allclose(clip.frames.astype(int), scale_intensity(lps).astype(int), atol=1)


# --- DICOM series -------------------------------------------------------------------------------------------


def test_the_series_with_the_most_slices_is_chosen(tmp_path):
    series(tmp_path / "a", make_body((3, 20, 16)))
    series(tmp_path / "deep/er", make_body())
    (tmp_path / "README.txt").write_text("made for a test")
    clip = load_clip(tmp_path)
    assert len(clip.frames) == 12 and said(clip, "2 series were found; the one with the most slices (12)")


def test_a_scout_in_the_series_is_left_out(tmp_path):
    uid = generate_uid()
    body = make_body((12, 20, 20))
    series(tmp_path, body, uid=uid)
    series(tmp_path, make_body((20, 3, 20)), "LIP", uid=uid)  # coronal slices of the same size
    clip = load_clip(tmp_path)
    np.testing.assert_array_equal(clip.frames, window_ct(body))
    assert said(clip, "Slices lie in 2 directions; the largest group (12) is used.")


def test_a_missing_slice_keeps_true_positions(tmp_path):
    folder = series(tmp_path, make_body())
    lost = [path for path in folder.iterdir() if pydicom.dcmread(path).ImagePositionPatient[2] == 15]
    lost[0].unlink()
    clip = load_clip(folder)
    np.testing.assert_allclose(clip.positions, [0, 3, 6, 9, 12, 18, 21, 24, 27, 30, 33])
    assert said(clip, "from 3.00 to 6.00 mm")


def test_of_slices_at_one_place_the_first_is_used(tmp_path):
    uid = generate_uid()
    series(tmp_path, make_body(), uid=uid, modality="MR")
    for path in list(tmp_path.iterdir()):
        echo = pydicom.dcmread(path)
        echo.InstanceNumber += 100
        echo.PixelData = (echo.pixel_array + 500).tobytes()
        echo.save_as(tmp_path / f"{path.name}2")
    clip = load_clip(tmp_path)
    np.testing.assert_array_equal(clip.frames, scale_intensity(make_body()))
    assert said(clip, "24 slices lie at 12 places")


def test_a_series_without_geometry_counts_slices(tmp_path):
    for number in range(5):
        slice_dataset(np.full((4, 6), number, np.int16), "MR", InstanceNumber=number, SeriesInstanceUID="1.2").save_as(
            tmp_path / f"{9 - number}.dcm", enforce_file_format=True
        )
    clip = load_clip(tmp_path)
    np.testing.assert_array_equal(clip.positions, np.arange(5))
    assert clip.pixel_spacing == (0.0, 0.0) and said(clip, "no slice positions") and said(clip, "count slices")
    assert (np.diff(clip.frames[:, 0, 0, 0].astype(int)) > 0).all()
    known = load_clip(tmp_path, spacing=(5, 0.5, 0.25))
    np.testing.assert_array_equal(known.positions, np.arange(5) * 5.0)
    assert known.pixel_spacing == (0.5, 0.25)


def test_enhanced_multi_frame_is_a_volume(tmp_path):
    body = make_body((5, 8, 6))
    shuffled = [3, 0, 4, 1, 2]
    dataset = multi_frame(np.ascontiguousarray(body[shuffled]))
    measures, plane, transform, shared = Dataset(), Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [1.5, 0.75], 3
    plane.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    transform.RescaleSlope, transform.RescaleIntercept = 1, 0
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [plane]
    shared.PixelValueTransformationSequence = [transform]
    dataset.SharedFunctionalGroupsSequence, frames = [shared], []
    for index in shuffled:
        position, frame = Dataset(), Dataset()
        position.ImagePositionPatient = [0, 0, 3.0 * index]
        frame.PlanePositionSequence = [position]
        frames.append(frame)
    dataset.PerFrameFunctionalGroupsSequence = frames
    dataset.save_as(tmp_path / "enhanced", enforce_file_format=True)
    clip = load_clip(tmp_path / "enhanced")
    np.testing.assert_array_equal(clip.frames, window_ct(body))
    np.testing.assert_allclose(clip.positions, np.arange(5) * 3.0)
    assert clip.pixel_spacing == (1.5, 0.75) and clip.kind == "volume"


def test_a_dose_grid_is_a_volume():
    clip = load_clip(dicom_file("rtdose.dcm"))
    assert clip.kind == "volume" and clip.modality == "RTDOSE" and clip.source_frames == 15
    np.testing.assert_array_equal(clip.frames, load_clip(dicom_file("rtdose_rle.dcm")).frames)
