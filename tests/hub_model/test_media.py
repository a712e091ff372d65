# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""What reading a medical file means, on real files that packages ship and on ones written here from a known body."""

from __future__ import annotations

import base64
import gzip
import importlib.util
import io
import os
import struct
import subprocess
import sys
import threading
import warnings
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813 - the name all of its documentation uses
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels import apply_color_lut
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from hub_model.media_omniv_med import (
    CT_WINDOWS,
    MediaError,
    MediaLimits,
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
    video,
)
from tests.helpers.paths import ROOT

# --- Volumes: one body gives one clip, however it is stored -------------------------------------------------


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


# --- Single DICOM files: pydicom is the reference -----------------------------------------------------------

COLOUR = [
    "examples_rgb_color.dcm",
    "examples_jpeg2k.dcm",
    "ExplVR_BigEnd.dcm",
    "SC_rgb_rle.dcm",
    "SC_rgb_jpeg_dcmtk.dcm",
    "SC_rgb_dcmtk_+eb+cy+np.dcm",
    "SC_ybr_full_422_uncompressed.dcm",
    "SC_rgb_gdcm_KY.dcm",
    "SC_rgb_small_odd.dcm",
    "SC_rgb_jls_lossy_line.dcm",
    "SC_jpeg_no_color_transform.dcm",
    "GDCMJ2K_TextGBR.dcm",
]


@pytest.mark.parametrize("name", COLOUR)
def test_colour_is_what_pydicom_decodes(name):
    clip = load_clip(dicom_file(name))
    assert_sound(clip)
    assert clip.kind == "image"
    np.testing.assert_array_equal(clip.frames[0], pydicom.dcmread(dicom_file(name)).pixel_array)


@pytest.mark.parametrize("name", ["SC_rgb_rle_16bit.dcm", "SC_rgb_rle_32bit.dcm", "SC_rgb_rle_16bit_2frame.dcm"])
def test_deep_colour_is_scaled_to_eight_bits(name):
    dataset = pydicom.dcmread(dicom_file(name))
    expected = np.round(dataset.pixel_array / (2.0**dataset.BitsStored - 1) * 255)
    np.testing.assert_array_equal(load_clip(dicom_file(name)).frames, expected.reshape(-1, *expected.shape[-3:]))


def test_palette_is_honoured():
    dataset = pydicom.dcmread(dicom_file("examples_palette.dcm"))
    colours = apply_color_lut(dataset.pixel_array, dataset).astype(int)
    clip = load_clip(dicom_file("examples_palette.dcm"))
    np.testing.assert_allclose(clip.frames[0].astype(int), colours * 255 / colours.max(), atol=1.5)
    assert clip.pixel_spacing == pytest.approx((0.262288, 0.262288), abs=1e-5)  # from the ultrasound region, in cm


@pytest.mark.parametrize("name", ["RLE", "bigendian", "expb", "implicit", "jp2klossless", "jpeg_ls_lossless", "padded"])
def test_every_encoding_gives_the_same_picture(name):
    clip = load_clip(dicom_file(f"MR_small_{name}.dcm"))
    np.testing.assert_array_equal(clip.frames, load_clip(dicom_file("MR_small.dcm")).frames)


def test_header_window_is_that_of_the_standard():
    dataset = pydicom.dcmread(dicom_file("MR_small.dcm"))
    width, level = float(dataset.WindowWidth), float(dataset.WindowCenter)
    linear = (dataset.pixel_array - (level - 0.5)) / (width - 1) + 0.5  # PS3.3 C.11.2.1.2.1
    clip = load_clip(dicom_file("MR_small.dcm"))
    np.testing.assert_allclose(clip.frames[0, ..., 0].astype(int), np.clip(linear, 0, 1) * 255, atol=1)
    assert said(clip, "Header window (width/level): 1600/600.") and clip.pixel_spacing == (0.3125, 0.3125)


@pytest.mark.parametrize("name", ["CT_small.dcm", "693_J2KI.dcm", "J2K_pixelrep_mismatch.dcm"])
def test_one_ct_slice_is_an_image_in_hounsfield_units(name):
    dataset = pydicom.dcmread(dicom_file(name))
    stored = dataset.pixel_array.astype(float)
    hounsfield = stored * dataset.RescaleSlope + dataset.RescaleIntercept
    if "PixelPaddingValue" in dataset:
        hounsfield[stored == dataset.PixelPaddingValue] = hounsfield[stored != dataset.PixelPaddingValue].min()
    clip = load_clip(dicom_file(name))
    assert (clip.kind, clip.modality, clip.unit) == ("image", "CT", "") and min(clip.pixel_spacing) > 0
    np.testing.assert_array_equal(clip.frames[0], window_ct(hounsfield))


def test_content_decides_not_the_name(tmp_path):
    (tmp_path / "scan.txt").write_bytes(dicom_file("CT_small.dcm").read_bytes())
    np.testing.assert_array_equal(load_clip(tmp_path / "scan.txt").frames, load_clip(dicom_file("CT_small.dcm")).frames)
    bare = dicom_file("CT_small.dcm").read_bytes()
    start = bare.index(struct.pack("<HH", 8, 5))  # the first element behind preamble and file meta group
    (tmp_path / "bare").write_bytes(bare[start:])
    np.testing.assert_array_equal(load_clip(tmp_path / "bare").frames, load_clip(dicom_file("CT_small.dcm")).frames)


def test_low_values_are_bright_in_monochrome1(tmp_path):
    ramp = np.arange(256, dtype=np.uint16).reshape(16, 16) * 16
    for window in ({}, {"WindowWidth": 4096, "WindowCenter": 2048}):
        plain = slice_dataset(ramp, "DX", **window)
        plain.save_as(tmp_path / "plain", enforce_file_format=True)
        slice_dataset(ramp, "DX", **window, PhotometricInterpretation="MONOCHROME1").save_as(
            tmp_path / "inverted", enforce_file_format=True
        )
        shown, inverted = load_clip(tmp_path / "plain"), load_clip(tmp_path / "inverted")
        assert shown.frames[0, 0, 0, 0] < 5 and said(inverted, "MONOCHROME1")
        np.testing.assert_allclose(inverted.frames.astype(int), 255 - shown.frames.astype(int), atol=1)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_is_background(tmp_path, photometric):
    pixels = np.arange(400, dtype=np.int16).reshape(20, 20) + 100
    pixels[:, :5] = -2000
    slice_dataset(pixels, "CR", PixelPaddingValue=-2000, PhotometricInterpretation=photometric).save_as(
        tmp_path / "padded", enforce_file_format=True
    )
    grey = load_clip(tmp_path / "padded").frames[0, ..., 0]
    assert (grey[:, :5] == 0).all() and grey[:, 5:].max() == 255
    assert len(np.unique(grey[:, 5:])) > 150  # the padding has not eaten the range


def damaged_jpeg(path: Path) -> Path:
    """A DICOM file whose JPEG stream has a hole in the middle."""
    dataset = pydicom.dcmread(dicom_file("SC_rgb_jpeg_dcmtk.dcm"))
    frame = bytearray(next(pydicom.encaps.generate_frames(dataset.PixelData, number_of_frames=1)))
    frame[len(frame) // 2 : len(frame) // 2 + 40] = bytes(40)
    dataset.PixelData = pydicom.encaps.encapsulate([bytes(frame)])
    dataset.save_as(path)
    return path


def test_a_damaged_jpeg_is_shown_with_a_warning(tmp_path):
    clip = load_clip(damaged_jpeg(tmp_path / "hole.dcm"))
    assert said(clip, "damaged compressed data")


@pytest.mark.parametrize("name", ["SC_rgb_jpeg_gdcm.dcm", "MR_small_jpeg_ls_lossless.dcm", "SC_rgb_jpeg_dcmtk.dcm"])
def test_damaged_streams_never_end_the_process(tmp_path, name):
    """GDCM answers some of them with an abort, so it decodes in a process of its own, and the next file is read."""
    dataset = pydicom.dcmread(dicom_file(name))
    frame = next(pydicom.encaps.generate_frames(dataset.PixelData, number_of_frames=1))
    noise = np.random.default_rng(0)
    for _ in range(60):
        damaged = bytearray(frame)
        for place in noise.integers(0, min(len(frame), 300), 3):
            damaged[place] = noise.integers(256)
        dataset.PixelData = pydicom.encaps.encapsulate([bytes(damaged)])
        dataset.save_as(tmp_path / "damaged.dcm")
        try:
            assert_sound(load_clip(tmp_path / "damaged.dcm"))
        except MediaError as error:
            assert "cannot be decoded" in str(error)
    assert len(load_clip(dicom_file(name)).frames) == 1


# --- Films --------------------------------------------------------------------------------------------------


def test_ultrasound_cine_is_a_video_in_seconds():
    dataset = pydicom.dcmread(dicom_file("examples_ybr_color.dcm"))
    clip = load_clip(dicom_file("examples_ybr_color.dcm"))
    assert_sound(clip)
    assert (clip.kind, clip.unit, clip.modality, clip.source_frames) == ("video", "s", "US", 30)
    wanted = np.round(np.linspace(0, 29, 8)).astype(int)  # 1 s at 1 fps would be one frame: 8 evenly spaced instead
    np.testing.assert_allclose(clip.positions, wanted * 0.033333, atol=1e-6)
    np.testing.assert_array_equal(clip.frames, dataset.pixel_array[wanted])
    assert said(clip, "8 of 30 frames, evenly spaced.")
    faster = load_clip(dicom_file("examples_ybr_color.dcm"), fps=10)
    np.testing.assert_allclose(faster.positions, np.arange(0, 30, 3)[: len(faster.frames)] * 0.033333, atol=1e-6)
    assert len(load_clip(dicom_file("examples_ybr_color.dcm"), max_frames=3).frames) == 3


@pytest.mark.parametrize(
    ("elements", "expected"),
    [
        ({"FrameTime": 50}, [0, 0.05, 0.1]),
        ({"FrameTimeVector": [0, 40, 80]}, [0, 0.04, 0.12]),
        ({"CineRate": 20}, [0, 0.05, 0.1]),
        ({"RecommendedDisplayFrameRate": 10}, [0, 0.1, 0.2]),
        ({}, [0, 1, 2]),
    ],
)
def test_frame_times_of_dicom(tmp_path, elements, expected):
    multi_frame(np.arange(60, dtype=np.uint8).reshape(3, 4, 5), modality="US", **elements).save_as(
        tmp_path / "cine", enforce_file_format=True
    )
    clip = load_clip(tmp_path / "cine")
    assert clip.kind == "video"
    np.testing.assert_allclose(clip.positions, expected)
    np.testing.assert_array_equal(clip.frames[..., 0], np.arange(60).reshape(3, 4, 5))
    assert said(clip, "positions count frames") == (not elements)


def test_only_needed_frames_are_decoded(tmp_path):
    """A frame that is not shown may be beyond decoding; one that is shown may not."""
    dataset = pydicom.dcmread(dicom_file("examples_ybr_color.dcm"))
    frames = list(pydicom.encaps.generate_frames(dataset.PixelData, number_of_frames=30))
    for name, index in (("unused", 1), ("used", 0)):
        dataset.PixelData = pydicom.encaps.encapsulate([b"\0" * 64 if i == index else f for i, f in enumerate(frames)])
        dataset.save_as(tmp_path / name)
    assert len(load_clip(tmp_path / "unused").frames) == 8
    with pytest.raises(MediaError, match="cannot be decoded"):
        load_clip(tmp_path / "used")


CODECS = [("film.mp4", "libx264"), ("film.mov", "libx264"), ("film.mkv", "libx264"), ("film.avi", "mpeg4")]


@pytest.mark.parametrize(("name", "codec"), [*CODECS, ("film.webm", "libvpx")])
def test_video_files(tmp_path, name, codec):
    path = video(tmp_path / name, codec=codec)
    clip = load_clip(path)
    assert_sound(clip)
    wanted = np.round(np.linspace(0, 39, 8)).astype(int)  # 4 s
    assert clip.kind == "video" and clip.source_frames == 40
    np.testing.assert_allclose(clip.positions, wanted / 10, atol=2e-3)
    np.testing.assert_allclose(clip.frames.mean((1, 2, 3)), wanted * 6, atol=3)


def test_video_is_sampled_by_time_then_by_number(tmp_path):
    path = video(tmp_path / "film.mp4", count=200)
    clip = load_clip(path)
    np.testing.assert_allclose(clip.positions, np.arange(20), atol=1e-3)
    np.testing.assert_allclose(clip.frames.mean((1, 2, 3)), np.arange(20) * 60 % 256, atol=4)
    assert said(clip, "20 of 200 frames, at 1 per second.")
    few = load_clip(path, max_frames=10)
    assert len(few.frames) == 10 and few.positions[-1] == pytest.approx(19.9, abs=1e-3)
    assert len(load_clip(path, fps=2).frames) == 32


def test_without_pyav_decord_reads_the_same(tmp_path):
    """In a child without PyAV; where decord has no wheel either, the sentence says what to install."""
    path = video(tmp_path / "film.mp4", count=120)
    code = (
        "import sys; sys.modules['av'] = None\n"
        "import numpy as np; from hub_model.media_omniv_med import load_clip\n"
        f"clip = load_clip({str(path)!r}, fps=3)\n"
        f"np.savez({str(tmp_path / 'out.npz')!r}, frames=clip.frames, positions=clip.positions)"
    )
    child = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    if importlib.util.find_spec("decord") is None:
        assert "install one of them" in child.stderr
        return
    there, here = np.load(tmp_path / "out.npz"), load_clip(path, fps=3)
    np.testing.assert_allclose(there["positions"], here.positions, atol=1e-3)
    np.testing.assert_allclose(there["frames"].astype(int), here.frames.astype(int), atol=2)


def test_without_nibabel_everything_else_is_read(tmp_path):
    """In a child without it; the sentence says what to install."""
    Image.new("L", (9, 7)).save(tmp_path / "picture.png")
    nifti(tmp_path / "volume.nii.gz", make_body())
    code = (
        "import sys; sys.modules['nibabel'] = None\n"
        "from hub_model.media_omniv_med import MediaError, load_clip\n"
        "print(load_clip(sys.argv[1]).kind)\n"
        "try: load_clip(sys.argv[2])\n"
        "except MediaError as error: print(error)"
    )
    paths = [str(tmp_path / name) for name in ("picture.png", "volume.nii.gz")]
    child = subprocess.run([sys.executable, "-c", code, *paths], cwd=ROOT, capture_output=True, text=True)
    assert child.stdout.splitlines() == ["image", "NIfTI and Analyze files need the package nibabel; install it."]


def test_a_path_counts_from_where_the_caller_is_also_for_the_decoder_process(tmp_path, monkeypatch):
    """The process that runs GDCM was started elsewhere."""
    source = dicom_file("MR_small_jpeg_ls_lossless.dcm")
    expected = load_clip(source)
    (tmp_path / "here.dcm").write_bytes(source.read_bytes())
    monkeypatch.chdir(tmp_path)
    np.testing.assert_array_equal(load_clip("here.dcm").frames, expected.frames)


def test_mpeg_inside_dicom(tmp_path):
    path = video(tmp_path / "film.mp4")
    dataset = multi_frame(np.zeros((40, 48, 64), np.uint8), modality="ES", SamplesPerPixel=3)
    dataset.PixelData = pydicom.encaps.encapsulate([path.read_bytes()], has_bot=False)
    dataset["PixelData"].VR = "OB"
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.MPEG4HP41
    dataset.save_as(tmp_path / "endoscopy", enforce_file_format=True)
    clip = load_clip(tmp_path / "endoscopy")
    assert (clip.kind, clip.modality) == ("video", "ES")
    np.testing.assert_array_equal(clip.frames, load_clip(path).frames)


def test_gif_is_a_video_with_its_own_times(tmp_path):
    pages = [Image.new("L", (10, 8), 20 * i) for i in range(6)]
    pages[0].save(
        tmp_path / "film.gif", save_all=True, append_images=pages[1:], duration=[100, 100, 200, 100, 100, 100]
    )
    clip = load_clip(tmp_path / "film.gif")
    assert clip.kind == "video"
    np.testing.assert_allclose(clip.positions, [0, 0.1, 0.2, 0.4, 0.5, 0.6])
    np.testing.assert_array_equal(clip.frames[:, 0, 0, 0], np.arange(6) * 20)


# --- Pictures, arrays and everything that is not a path -----------------------------------------------------


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp", "webp", "jp2"])
def test_pictures_are_shown_as_stored(tmp_path, suffix):
    colours = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    lossless = {"webp": {"lossless": True}, "jp2": {"irreversible": False}}.get(suffix, {})
    Image.fromarray(colours).save(tmp_path / f"picture.{suffix}", **lossless)
    clip = load_clip(tmp_path / f"picture.{suffix}")
    assert_sound(clip)
    assert clip.kind == "image" and clip.pixel_spacing == (0.0, 0.0) and clip.notes == ()
    np.testing.assert_array_equal(clip.frames[0], colours)


def test_sixteen_bit_png_is_scaled(tmp_path):
    deep = np.arange(4000, dtype=np.uint16).reshape(50, 80) * 16
    Image.fromarray(deep).save(tmp_path / "deep.png")
    np.testing.assert_array_equal(load_clip(tmp_path / "deep.png").frames[0], scale_intensity(deep))


def test_transparency_and_camera_orientation(tmp_path):
    clear = np.zeros((4, 4, 4), np.uint8)
    clear[..., 0], clear[:2, :, 3] = 255, 255
    Image.fromarray(clear).save(tmp_path / "clear.png")
    clip = load_clip(tmp_path / "clear.png")
    assert clip.frames[0, 0, 0].tolist() == [255, 0, 0] and clip.frames[0, 3, 0].tolist() == [0, 0, 0]
    photo = Image.new("RGB", (40, 20))
    exif = photo.getexif()
    exif[0x0112] = 6  # the camera was turned by 90 degrees
    photo.save(tmp_path / "photo.jpg", exif=exif)
    assert load_clip(tmp_path / "photo.jpg").frames.shape == (1, 40, 20, 3)


def test_pages_of_a_tiff(tmp_path):
    pages = [Image.fromarray(np.full((6, 8), 50 * i, np.uint8)) for i in range(4)]
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    first, volume = load_clip(tmp_path / "pages.tif"), load_clip(tmp_path / "pages.tif", kind="volume")
    assert first.kind == "image" and said(first, "Page 1 of 4")
    assert volume.kind == "volume" and len(volume.frames) == 4
    assert load_clip(tmp_path / "pages.tif", kind="video").frames[:, 0, 0, 0].tolist() == [0, 50, 100, 150]


def test_a_picture_that_is_cut_short_is_refused_whatever_other_packages_told_pillow(tmp_path, monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    Image.effect_noise((64, 64), 50).save(tmp_path / "noise.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "noise.png").read_bytes()[:2000])
    with pytest.raises(MediaError, match=r"cut\.png"):
        load_clip(tmp_path / "cut.png")
    assert ImageFile.LOAD_TRUNCATED_IMAGES, "their choice is theirs again"


def test_a_numpy_file_is_read_as_the_array_in_it(tmp_path):
    body = make_body()
    np.save(tmp_path / "body.npy", body)
    clip = load_clip(tmp_path / "body.npy", spacing=SPACING)
    expected = load_clip(body, spacing=SPACING)
    assert np.array_equal(clip.frames, expected.frames)
    assert np.array_equal(clip.positions, expected.positions)
    assert clip.pixel_spacing == SPACING[1:]


def test_fractions_are_no_hounsfield_units_whatever_the_modality(tmp_path):
    """M3D keeps CT as (1, slices, rows, columns) in [0, 1]."""
    fractions = np.random.default_rng(0).random((1, 6, 8, 10), dtype=np.float32)
    np.save(tmp_path / "scan.npy", fractions)
    clip = load_clip(tmp_path / "scan.npy", modality="CT")
    assert (clip.kind, clip.frames.shape) == ("volume", (6, 8, 10, 3))
    assert np.array_equal(clip.frames, load_clip(fractions[0]).frames)
    assert any("not HU" in note for note in clip.notes)


def test_a_numpy_file_that_lies_or_holds_objects_is_refused(tmp_path):
    np.save(tmp_path / "objects.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    np.save(tmp_path / "short.npy", make_body())
    whole = (tmp_path / "short.npy").read_bytes()
    (tmp_path / "short.npy").write_bytes(whole[:-100])
    (tmp_path / "header.npy").write_bytes(whole[:20])
    for name in ("objects.npy", "short.npy", "header.npy"):
        with pytest.raises(MediaError, match=rf"{name} is cut short or holds no plain numbers"):
            load_clip(tmp_path / name)
    np.save(tmp_path / "big.npy", make_body())
    with pytest.raises(MediaError, match="over the limit"):
        load_clip(tmp_path / "big.npy", limits=MediaLimits(max_voxels=100))


def test_arrays():
    grey, colour = np.zeros((6, 8), np.uint8), np.full((6, 8, 3), 7, np.uint8)
    assert load_clip(grey).kind == load_clip(colour).kind == "image"
    assert load_clip(np.stack([grey] * 5)).kind == "volume"
    assert load_clip(np.stack([grey] * 5), kind="video").kind == "video"
    assert load_clip(np.stack([colour] * 5)).kind == "video"
    assert load_clip(np.stack([colour] * 5), kind="volume").kind == "volume"
    np.testing.assert_array_equal(load_clip(colour).frames[0], colour)
    np.testing.assert_array_equal(load_clip(colour / 255.0 * 0.5).frames[0], np.full((6, 8, 3), 4))
    film = load_clip(np.stack([colour] * 20), spacing=0.04, fps=25)
    np.testing.assert_allclose(film.positions, np.arange(20) * 0.04)
    body = load_clip(make_body(), modality="CT", spacing=SPACING)
    np.testing.assert_array_equal(body.frames, window_ct(make_body()))
    assert body.pixel_spacing == (1.5, 0.75) and body.positions[-1] == 33
    assert load_clip(grey, spacing=(0.2, 0.3)).pixel_spacing == (0.2, 0.3)
    assert load_clip(np.full((3, 4, 5), np.nan, np.float16)).frames.max() == 0


def test_other_sources_give_what_the_file_gives(tmp_path):
    path = dicom_file("CT_small.dcm")
    expected = load_clip(path).frames
    uri = "data:application/octet-stream;base64," + base64.b64encode(path.read_bytes()).decode()
    for source in (str(path), uri, path.read_bytes()):
        np.testing.assert_array_equal(load_clip(source).frames, expected)
    picture = Image.fromarray(np.arange(48, dtype=np.uint8).reshape(6, 8))
    packed = io.BytesIO()
    picture.save(packed, "PNG")
    uri = "data:image/png;base64," + base64.b64encode(packed.getvalue()).decode()
    np.testing.assert_array_equal(load_clip(uri).frames, load_clip(picture).frames)
    film = video(tmp_path / "film.mp4")
    uri = "data:video/mp4;base64," + base64.b64encode(film.read_bytes()).decode()
    np.testing.assert_array_equal(load_clip(uri).frames, load_clip(film).frames)


def test_lists_of_frames(tmp_path):
    frames = [np.full((6, 8, 3), 10 * i, np.uint8) for i in range(12)]
    paths = []
    for index, frame in enumerate(frames):
        Image.fromarray(frame).save(tmp_path / f"{index}.png")
        paths.append(str(tmp_path / f"{index}.png"))
    for source in (frames, paths, [Image.fromarray(frame) for frame in frames]):
        clip = load_clip(source, max_frames=4)
        assert clip.kind == "video" and clip.source_frames == 12
        assert clip.frames[:, 0, 0, 0].tolist() == [0, 40, 70, 110]
        np.testing.assert_allclose(load_clip(source, spacing=0.5, fps=2).positions, np.arange(12) * 0.5)
    assert load_clip(paths, kind="volume", spacing=(2, 1, 1)).positions[-1] == 22


def test_a_clip_passes_through_whatever_module_its_class_is_from():
    @dataclass
    class Stranger:
        frames: np.ndarray
        kind: str
        positions: np.ndarray
        pixel_spacing: tuple
        source_frames: int
        modality: str
        notes: tuple
        plane: str
        geometry: object
        series: tuple

    clip = Stranger(np.zeros((1, 2, 2, 3), np.uint8), "image", np.zeros(1), (0, 0), 1, "", (), "axial", None, ())
    assert load_clip(clip) is clip


def test_a_zip_may_hold_one_volume(tmp_path):
    with zipfile.ZipFile(tmp_path / "one.zip", "w") as archive:
        archive.write(ANATOMICAL, "study/anatomical.nii")
        archive.writestr("__MACOSX/study/._anatomical.nii", b"\0" * 9)
    np.testing.assert_array_equal(load_clip(tmp_path / "one.zip").frames, load_clip(ANATOMICAL).frames)


def test_kind_that_does_not_fit_is_said():
    assert said(load_clip(ANATOMICAL, kind="video"), "Given as video, but it holds volume data")


# --- What cannot be read ------------------------------------------------------------------------------------


def archive_of(path: Path, entries: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return path


def bad_files(folder: Path) -> dict[str, tuple[object, str]]:
    """By name: a source that must be refused, and words of the sentence that must be said."""
    folder.mkdir(exist_ok=True)
    body, cases = make_body(), {}

    def case(name: str, data: bytes, words: str) -> None:
        (folder / name).write_bytes(data)
        cases[name] = (folder / name, words)

    whole = nifti(folder / "whole.nii", body).read_bytes()
    huge = bytearray(whole)
    struct.pack_into("<3h", huge, 42, 5000, 5000, 5000)
    film = video(folder / "film.mp4").read_bytes()
    ct = dicom_file("CT_small.dcm").read_bytes()
    mono = pydicom.dcmread(dicom_file("CT_small.dcm"))
    mono.NumberOfFrames, mono.PatientName = 10**6, "Secret^Patient"
    mono.save_as(folder / "frames.dcm")
    packed = gzip.compress(whole)
    flipped = bytearray(packed)
    flipped[len(packed) // 2] ^= 0xFF
    sitk.WriteImage(sitk.GetImageFromArray(body), str(folder / "whole.mha"))
    mha = (folder / "whole.mha").read_bytes()
    picture = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(picture, "PNG")
    locked = bytearray(archive_of(folder / "plain.zip", {"a.dcm": ct}).read_bytes())
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        locked[locked.index(mark) + offset] |= 1

    cases["missing"] = (folder / "missing.nii", "does not exist")
    cases["address"] = ("https://example.org/ct.nii.gz", "download the file")
    case("text.nii", b"hello\n" * 100, "not a known medical image")
    case("text.nii.gz", gzip.compress(b"hello\n" * 100), "not a known medical image")
    case("cut.nii", whole[:2000], "cut short")
    case("cut.nii.gz", packed[: len(packed) // 2], "cut short")
    case("flipped.nii.gz", bytes(flipped), "damaged or cut short")
    case("huge.nii", bytes(huge), "over the limit")
    case("cut.mha", mha[: len(mha) // 2], "cut short")
    case("detached.mha", mha.replace(b"= LOCAL", b"= /etc/hosts"), "without its voxels")
    case(
        "detached.nrrd",
        b"NRRD0004\ntype: uint8\ndimension: 1\nsizes: 9\ndata file: /etc/hosts\n\n",
        "without its voxels",
    )
    case("empty.mp4", b"", "empty")
    case("cut.mp4", film[: len(film) // 2], "damaged, cut short")
    case("noise.mp4", film[:40] + bytes(range(256)) * 20, "damaged, cut short")
    case("cut.dcm", ct[:5000], "cut short")
    case("stub.dcm", ct[:200], "without pixels")
    case("cut.png", picture.getvalue()[:2000], "damaged or unsupported picture")
    case("empty.zip", b"PK\x05\x06" + b"\0" * 18, "empty archive")
    case("cut.zip", bytes(locked[:400]), "damaged or unusual zip")
    case("locked.zip", bytes(locked), "encrypted")
    cases["million frames"] = (folder / "frames.dcm", "over the limit")
    cases["report"] = (dicom_file("reportsi.dcm"), r"without pixels \(modality SR\)")
    cases["plan"] = (dicom_file("rtplan.dcm"), r"without pixels \(modality RTPLAN\)")
    cases["truncated"] = (dicom_file("MR_truncated.dcm"), "cut short")
    cases["frame count"] = (dicom_file("badVR.dcm"), "not a number")
    cases["no decoder"] = (dicom_file("JPEG-lossy.dcm"), "cannot be decoded")
    cases["broken stream"] = (dicom_file("JPEG2000-embedded-sequence-delimiter.dcm"), "cannot be decoded")
    cases["text zip"] = (archive_of(folder / "text.zip", {"a.txt": b"hello"}), "holds no medical image")
    cases["report zip"] = (
        archive_of(folder / "reports.zip", {"Secret.dcm": dicom_file("reportsi.dcm").read_bytes()}),
        "none with pixels",
    )
    cases["climbing zip"] = (archive_of(folder / "climb.zip", {"../../a.dcm": ct}), "leave the archive")
    cases["absolute zip"] = (archive_of(folder / "absolute.zip", {"/tmp/a.dcm": ct}), "leave the archive")
    link = zipfile.ZipInfo("link.dcm")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(folder / "link.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    cases["linking zip"] = (folder / "link.zip", "leave the archive")
    (folder / "hollow").mkdir(exist_ok=True)
    cases["hollow folder"] = (folder / "hollow", "holds no medical image")
    cases["bad base64"] = ("data:image/png;base64,!!!!", "not valid base64")
    cases["no data"] = ("data:,", "holds no data")
    return cases


NAMES = [
    "missing",
    "address",
    "text.nii",
    "text.nii.gz",
    "cut.nii",
    "cut.nii.gz",
    "flipped.nii.gz",
    "huge.nii",
    "cut.mha",
    "detached.mha",
    "detached.nrrd",
    "empty.mp4",
    "cut.mp4",
    "noise.mp4",
    "cut.dcm",
    "stub.dcm",
    "cut.png",
    "empty.zip",
    "cut.zip",
    "locked.zip",
    "million_frames",
    "report",
    "plan",
    "truncated",
    "frame_count",
    "no_decoder",
    "broken_stream",
    "text_zip",
    "report_zip",
    "climbing_zip",
    "absolute_zip",
    "linking_zip",
    "hollow_folder",
    "bad_base64",
    "no_data",
]


@pytest.fixture(scope="module")
def refused(tmp_path_factory):
    return bad_files(tmp_path_factory.mktemp("bad") / "files")


@pytest.mark.parametrize("name", NAMES)
def test_bad_files_get_one_clear_sentence(refused, name):
    source, words = refused[name.replace("_", " ")]
    with pytest.raises(MediaError, match=words) as caught:
        load_clip(source)
    sentence = str(caught.value)
    assert "\n" not in sentence and sentence.endswith(".") and len(sentence) < 260
    assert "Secret" not in sentence and isinstance(caught.value, ValueError)
    assert caught.value.__cause__ is None and caught.value.__suppress_context__ | (caught.value.__context__ is None)


def test_the_table_is_complete(refused):
    assert {name.replace("_", " ") for name in NAMES} == set(refused)


NONSENSE = [
    (None, {}, "is no media"),
    (42, {}, "is no media"),
    ([], {}, "empty"),
    ([np.zeros((2, 2)), np.zeros((3, 3))], {}, "different sizes"),
    (np.zeros((2, 3, 4, 5)), {}, "last must be 3 colours"),
    (np.zeros((0, 3)), {}, "no axis empty"),
    (np.array([["a", "b"]]), {}, "must hold numbers"),
    (np.full((4, 4, 3), 900.0), {}, "outside 0 to 255"),
    (np.zeros((4, 4)), {"kind": "movie"}, "kind must be"),
    (np.zeros((4, 4)), {"plane": "oblique"}, "plane must be"),
    (np.zeros((4, 4)), {"max_frames": 0}, "max_frames"),
    (np.zeros((4, 4)), {"fps": float("nan")}, "fps"),
    (np.zeros((4, 4)), {"spacing": (1, -1)}, "spacing"),
    (np.zeros((4, 4)), {"spacing": (1, 1, 1)}, "rows, columns"),
    (np.zeros((5, 5, 5)), {"spacing": (1, 1)}, "three numbers"),
    (np.zeros((4, 4)), {"windows": [(0, 1)]}, "width above 0"),
]


@pytest.mark.parametrize(("source", "options", "words"), NONSENSE)
def test_arguments_that_mean_nothing_are_refused(source, options, words):
    with pytest.raises(MediaError, match=words):
        load_clip(source, **options)


LIMITED = [
    (lambda folder: ANATOMICAL, {"max_voxels": 1000}, "over the limit"),
    (lambda folder: dicom_file("examples_ybr_color.dcm"), {"max_source_frames": 20}, "over the limit"),
    (lambda folder: dicom_file("CT_small.dcm"), {"max_pixels": 1000}, "over the limit"),
    (lambda folder: series(folder / "s", make_body()), {"max_archive_entries": 5}, "holds over 5 files"),
    (lambda folder: series(folder / "s", make_body()), {"max_voxels": 1000}, "over the limit"),
    (lambda folder: archive_of(folder / "z.zip", {"a": b"0" * 5000}), {"max_unpacked_bytes": 1000}, "unpacks to more"),
    (
        lambda folder: archive_of(folder / "z.zip", {str(i): b"" for i in range(9)}),
        {"max_archive_entries": 5},
        "over 5",
    ),
    (lambda folder: MNI, {"max_unpacked_bytes": 10**6}, "unpacks to more"),
    (lambda folder: dicom_file("image_dfl.dcm"), {"max_unpacked_bytes": 10**5}, "unpacks to more"),
    (lambda folder: video(folder / "film.mp4"), {"max_pixels": 1000}, "over the limit"),
    (lambda folder: video(folder / "film.mp4"), {"max_source_frames": 30}, "over the limit"),
    (lambda folder: np.zeros((9, 9, 9)), {"max_voxels": 100}, "over the limit"),
]


@pytest.mark.parametrize(("make", "limits", "words"), LIMITED)
def test_limits(tmp_path, make, limits, words):
    source = make(tmp_path)
    load_clip(source) if not isinstance(source, Path) or source.suffix != ".zip" else None
    with pytest.raises(MediaError, match=words):
        load_clip(source, limits=MediaLimits(**limits))


CHILD = """
import sys
from hub_model.media_omniv_med import MediaError, load_clip
for source in sys.stdin.read().splitlines():
    try:
        clip = load_clip(source)
        print("read", clip.kind)
    except MediaError as error:
        print("refused", error)
"""


def test_nothing_is_printed_but_by_the_caller(refused, tmp_path):
    """C libraries write to the terminal directly, so only another process can be watched for it."""
    sources = [str(source) for source, _ in refused.values()]
    names = ("J2K_pixelrep_mismatch.dcm", "GDCMJ2K_TextGBR.dcm", "examples_overlay.dcm", "SC_rgb_jpeg_dcmtk.dcm")
    good = [str(dicom_file(name)) for name in names]
    good += [str(video(tmp_path / "film.mp4")), str(MNI), str(damaged_jpeg(tmp_path / "hole.dcm"))]
    child = subprocess.run(
        [sys.executable, "-W", "always", "-c", CHILD],
        input="\n".join(sources + good),
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert child.stderr == "" and child.returncode == 0
    answers = child.stdout.splitlines()
    assert [answer.split()[0] for answer in answers[: len(sources)]] == ["refused"] * len(sources)
    assert len(answers) == len(sources) + len(good) and answers[len(sources)] == "read image"


def test_reading_leaves_the_process_as_it_was(tmp_path):
    """Several threads read at once; afterwards warnings, the terminal and the scratch folder are as before."""
    filters, results = list(warnings.filters), []
    before = os.fstat(2)

    def read(name: str) -> None:
        for _ in range(5):
            results.append(load_clip(dicom_file(name)).frames.shape)

    names = ("SC_rgb_jpeg_dcmtk.dcm", "MR_small_RLE.dcm", "examples_jpeg2k.dcm", "CT_small.dcm")
    threads = [threading.Thread(target=read, args=(name,)) for name in names]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert len(results) == 20 and list(warnings.filters) == filters
    assert (os.fstat(2).st_dev, os.fstat(2).st_ino) == (before.st_dev, before.st_ino)


# --- Files that are made to harm ----------------------------------------------------------------------------


def claims_pixels(path: Path, syntax: str, stream: bytes) -> Path:
    """A DICOM file with a harmless header around one compressed frame."""
    dataset = slice_dataset(np.zeros((64, 64), np.uint8), SamplesPerPixel=1)
    dataset.PixelData = pydicom.encaps.encapsulate([stream])
    dataset["PixelData"].VR = "OB"
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.save_as(path, enforce_file_format=True)
    return path


def test_a_compressed_stream_may_not_claim_more_than_the_header(tmp_path):
    """Decoders take memory by the stream's own numbers: 3.6 GB for a file of a few bytes."""
    jpeg = b"\xff\xd8\xff\xfe\x00\x04hi\xff\xff\xc0\x00\x0b\x08" + struct.pack(">HH", 60000, 60000) + b"\1\1\x11\0"
    jpeg_2000 = b"\xff\x4f\xff\x51" + struct.pack(">HHIIII", 41, 0, 60000, 60000, 0, 0) + bytes(40)
    for syntax, stream in (
        (pydicom.uid.JPEGBaseline8Bit, jpeg),
        (pydicom.uid.JPEGLSLossless, jpeg.replace(b"\xc0", b"\xf7")),
        (pydicom.uid.JPEG2000, jpeg_2000),
        (pydicom.uid.JPEG2000, b"\0\0\0\x0cjP  \r\n\x87\n" + jpeg_2000),
    ):
        with pytest.raises(MediaError, match="stream claims 60000 x 60000, over the limit"):
            load_clip(claims_pixels(tmp_path / "bomb", syntax, stream))


def test_headers_that_claim_too_much_are_refused_before_memory_is_taken(tmp_path):
    """Each of these files is small and claims terabytes."""
    body = make_body()
    sitk.WriteImage(sitk.GetImageFromArray(body), str(tmp_path / "volume.mha"))
    sitk.WriteImage(sitk.GetImageFromArray(body), str(tmp_path / "volume.nrrd"))
    mha, nrrd = (tmp_path / "volume.mha").read_bytes(), (tmp_path / "volume.nrrd").read_bytes()
    np.save(tmp_path / "volume.npy", body)
    array = (tmp_path / "volume.npy").read_bytes()
    picture = io.BytesIO()
    Image.new("L", (8, 8)).save(picture, "PNG")
    chunk = b"IHDR" + struct.pack(">IIBBBBB", 60000, 60000, 8, 0, 0, 0, 0)
    png = picture.getvalue()[:12] + chunk + struct.pack(">I", zlib.crc32(chunk)) + picture.getvalue()[33:]
    for data, words in (
        (mha.replace(b"DimSize = 16 20 12", b"DimSize = 99999 99999 99999"), "over the limit"),
        (nrrd.replace(b"sizes: 16 20 12", b"sizes: 99999 99999 99999"), "over the limit"),
        (array.replace(b"(12, 20, 16), }" + b" " * 12, b"(99999, 99999, 99999), }   "), "cut short"),
        (png, "more pixels than"),
    ):
        assert data not in (mha, nrrd, array, picture.getvalue())
        (tmp_path / "bomb").write_bytes(data)
        with pytest.raises(MediaError, match=words):
            load_clip(tmp_path / "bomb")


def test_a_nifti_header_cannot_hide_that_voxels_are_missing(tmp_path):
    """Not by where they begin, nor by a number of bits that is not that of their type."""
    whole = nifti(tmp_path / "whole.nii", make_body()).read_bytes()
    for place, form, value in ((108, "<f", -1e6), (72, "<h", 1), (72, "<h", -16)):
        data = bytearray(whole[: len(whole) // 2])
        struct.pack_into(form, data, place, value)
        (tmp_path / "cut.nii").write_bytes(data)
        (tmp_path / "cut.nii.gz").write_bytes(gzip.compress(data))
        for name in ("cut.nii", "cut.nii.gz"):
            with pytest.raises(MediaError, match=r"cut short|begin before the file"):
                load_clip(tmp_path / name)


@pytest.mark.parametrize("flag", [b"True", b"T^ue"])
def test_a_compressed_metaimage_cannot_hide_that_voxels_are_missing(tmp_path, flag):
    """ITK would show memory that nobody wrote to; and it goes by the first letter of the flag."""
    sitk.WriteImage(sitk.GetImageFromArray(make_body()), str(tmp_path / "whole.mha"), True)
    whole = (tmp_path / "whole.mha").read_bytes().replace(b"CompressedData = True", b"CompressedData = " + flag)
    (tmp_path / "whole.mha").write_bytes(whole)
    assert len(load_clip(tmp_path / "whole.mha").frames) == 12
    (tmp_path / "short.mha").write_bytes(whole.replace(b"DimSize = 16 20 12", b"DimSize = 16 20 13"))
    with pytest.raises(MediaError, match="cut short"):
        load_clip(tmp_path / "short.mha")
    stream = bytearray(whole)
    stream[-len(stream) // 4] ^= 0xFF
    (tmp_path / "damaged.mha").write_bytes(stream)
    with pytest.raises(MediaError, match="damaged"):
        load_clip(tmp_path / "damaged.mha")


@pytest.mark.parametrize(("code", "place"), [(254, 280), (252, 256)])
def test_a_nifti_that_does_not_say_where_it_lies_is_refused(tmp_path, code, place):
    """A rotation that is no number is neither none nor any."""
    data = bytearray(nifti(tmp_path / "whole.nii", make_body()).read_bytes())
    data[252:256] = bytes(4)
    struct.pack_into("<h", data, code, 1)
    struct.pack_into("<f", data, place, float("nan"))
    (tmp_path / "lost.nii").write_bytes(data)
    with pytest.raises(MediaError, match=r"does not say where its slices lie|not at right angles"):
        load_clip(tmp_path / "lost.nii")


def test_an_archive_cannot_unpack_to_more_than_it_says(tmp_path):
    """The size in its table is a lie; what is unpacked ends there."""
    path = archive_of(tmp_path / "lie.zip", {})
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.dcm", bytes(10**7))
    data = bytearray(path.read_bytes())
    for mark, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        struct.pack_into("<I", data, data.index(mark) + offset, 1000)
    path.write_bytes(data)
    with pytest.raises(MediaError, match="damaged or unusual zip"):
        load_clip(path, limits=MediaLimits(max_unpacked_bytes=2000))


@pytest.mark.parametrize("name", ["C:\\scan.dcm", "..\\scan.dcm", "a/../../scan.dcm", "\\\\server\\scan.dcm"])
def test_archives_may_not_point_out_of_themselves_on_any_system(tmp_path, name):
    path = archive_of(tmp_path / "out.zip", {name: dicom_file("CT_small.dcm").read_bytes()})
    with pytest.raises(MediaError, match="leave the archive"):
        load_clip(path)
    assert sorted(tmp_path.iterdir()) == [path]


def test_archives_in_archives_are_not_opened(tmp_path):
    inner = archive_of(tmp_path / "inner.zip", {"a.dcm": dicom_file("CT_small.dcm").read_bytes()}).read_bytes()
    with pytest.raises(MediaError, match="holds no medical image"):
        load_clip(archive_of(tmp_path / "outer.zip", {"inner.zip": inner}))


def test_sequences_nested_without_end_are_refused(tmp_path):
    start = dicom_file("CT_small.dcm").read_bytes()[:132] + b"\2\0\x10\0UI\x14\x001.2.840.10008.1.2.1\0"
    nested = b"\x08\0\x40\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\0\xe0\xff\xff\xff\xff"
    (tmp_path / "deep.dcm").write_bytes(start + nested * 100_000)
    with pytest.raises(MediaError, match=r"cannot be parsed|without pixels|cannot be read"):
        load_clip(tmp_path / "deep.dcm")


@pytest.mark.filterwarnings("ignore:Invalid value for VR CS")  # what is wrong on purpose
def test_a_dicomdir_is_never_followed(tmp_path):
    """Neither alone nor beside a series: its records may name any file of the machine."""
    series(tmp_path / "outside", make_body((30, 20, 16)))
    folder = series(tmp_path / "export", make_body((4, 20, 16)))
    directory = Dataset()
    directory.file_meta = FileMetaDataset()
    directory.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    directory.file_meta.MediaStorageSOPClassUID = pydicom.uid.MediaStorageDirectoryStorage
    directory.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    record = Dataset()
    record.DirectoryRecordType = "IMAGE"
    record.ReferencedFileID = ["..", "outside", next((tmp_path / "outside").iterdir()).name]
    directory.DirectoryRecordSequence = [record]
    directory.save_as(folder / "DICOMDIR", enforce_file_format=True)
    assert len(load_clip(folder).frames) == 4
    with pytest.raises(MediaError, match="DICOMDIR, an index without pixels"):
        load_clip(folder / "DICOMDIR")


def test_what_is_no_file_in_a_folder_is_passed_over(tmp_path):
    """Reading from a pipe would wait for ever, and a link to a folder above would go round in circles."""
    folder = series(tmp_path / "series", make_body((4, 20, 16)))
    os.mkfifo(folder / "pipe")
    (folder / "circle").symlink_to(tmp_path)
    (folder / "nowhere").symlink_to(tmp_path / "missing")
    assert len(load_clip(folder).frames) == 4
    with pytest.raises(MediaError, match="neither a file nor a folder"):
        load_clip(folder / "pipe")
