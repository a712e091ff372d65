# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Single DICOM files are shown as pydicom decodes them and as the standard's windows say."""

from __future__ import annotations

import struct

import numpy as np
import pydicom
import pytest
from pydicom.pixels import apply_color_lut

from hub_model.media_omniv_med import (
    MediaError,
    load_clip,
    window_ct,
)
from tests.helpers.media_files import (
    assert_sound,
    damaged_jpeg,
    dicom_file,
    said,
    slice_dataset,
)

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
