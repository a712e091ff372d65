# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Formats and choices beyond the common ones: CT presets, planes, tilted gantries, copies, detached headers, cines."""

from __future__ import annotations

import shutil
import zipfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813 - the name all of its documentation uses
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from scipy.spatial.transform import Rotation

from benchmarks import media as media_benchmark
from benchmarks import media_outcomes
from hub_model.media_omniv_med import CT_PRESETS, CT_WINDOWS, MediaError, load_clip, scale_intensity, window_ct
from tests.helpers.media_files import (
    ALL_AXES,
    METAIMAGE,
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
from tests.helpers.paths import ROOT

# --- CT windows ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(CT_PRESETS))
def test_a_preset_is_its_width_and_level(name):
    clip = load_clip(make_body(), modality="CT", windows=name)
    width, level = CT_PRESETS[name]
    np.testing.assert_array_equal(clip.frames, window_ct(make_body(), [(width, level)] * 3))
    assert said(clip, f"CT windows (width/level HU): {name} {width:g}/{level:g}.")


def test_presets_and_numbers_may_be_mixed_one_a_channel():
    clip = load_clip(make_body(), modality="CT", windows=["Lung", "soft_tissue", (80, 40)])
    np.testing.assert_array_equal(clip.frames, window_ct(make_body(), [(1500, -600), (400, 50), (80, 40)]))
    assert said(clip, "lung 1500/-600, soft tissue 400/50, 80/40.")


def test_presets_show_what_radiologists_look_for():
    """Each window keeps what it is for between black and white: HU of the tissues, from any textbook of CT."""
    tissues = {
        "lung": (-850, -500),
        "brain": (25, 40),
        "liver": (40, 70),
        "bone": (300, 1000),
        "mediastinum": (-100, 150),
        "soft tissue": (-100, 60),
    }
    for name, hounsfield in tissues.items():
        shown = window_ct(np.array([hounsfield]), [CT_PRESETS[name]])[0, :, 0]
        assert 0 < shown[0] < shown[1] < 255, name


def test_without_windows_the_three_default_ones_fill_the_channels():
    clip = load_clip(make_body(), modality="CT")
    np.testing.assert_array_equal(clip.frames, window_ct(make_body(), CT_WINDOWS))
    assert said(clip, "2250/-100, 350/40, 80/40.")


@pytest.mark.parametrize(
    "windows", ["kidney", "", ["lung", "bone"], [(100, "x")], [100], 7, [(float("nan"), 0)], [(100, float("inf"))], []]
)
def test_windows_that_mean_nothing_are_refused(windows):
    with pytest.raises(MediaError, match="windows must be"):
        load_clip(make_body(), modality="CT", windows=windows)


def test_one_dicom_slice_takes_a_preset_too():
    clip = load_clip(dicom_file("CT_small.dcm"), windows="bone")
    assert said(clip, "bone 1800/400") and (clip.frames[..., 0] == clip.frames[..., 2]).all()


# --- Planes and orientation ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spacing", "plane"),
    [
        ((5, 1, 1), "axial"),
        ((1, 4, 1), "coronal"),
        ((1, 1, 3), "sagittal"),
        ((1, 1, 1), "axial"),
        ((1, 1.001, 1), "axial"),
    ],
)
def test_the_automatic_plane_is_across_the_largest_spacing(tmp_path, spacing, plane):
    path = nifti(tmp_path / "body.nii", make_body(), spacing=spacing)
    clip, expected = load_clip(path, plane="automatic"), load_clip(path, plane=plane)
    np.testing.assert_array_equal(clip.frames, expected.frames)
    np.testing.assert_array_equal(clip.positions, expected.positions)
    assert said(clip, f"The plane was chosen by the spacing: {plane}.")


@pytest.mark.parametrize(("axes", "plane"), [("LPS", "axial"), ("LIP", "coronal"), ("PIL", "sagittal")])
def test_the_automatic_plane_is_the_one_a_series_was_acquired_in(tmp_path, axes, plane):
    folder = series(tmp_path / axes, make_body(), axes)
    assert said(load_clip(folder, plane="automatic", spacing=None), "plane was chosen by the spacing: axial")
    for path in folder.iterdir():  # thicker along the slices, whichever way they lie
        dataset = pydicom.dcmread(path)
        normal = np.abs(np.cross(dataset.ImageOrientationPatient[:3], dataset.ImageOrientationPatient[3:]))
        place = np.array(dataset.ImagePositionPatient, dtype=float)
        dataset.ImagePositionPatient = list(np.where(normal > 0.5, place * 10, place))
        dataset.save_as(path)
    clip = load_clip(folder, plane="automatic")
    assert_sound(clip)
    assert said(clip, f"chosen by the spacing: {plane}")


def test_without_spacing_the_automatic_plane_is_axial():
    assert said(load_clip(make_body(), plane="automatic"), "chosen by the spacing: axial")


@settings(max_examples=30)
@given(
    axes=st.sampled_from(ALL_AXES),
    shape=st.tuples(st.integers(2, 6), st.integers(2, 6), st.integers(2, 6)),
    spacing=st.tuples(*[st.sampled_from([0.5, 0.7, 1.3, 2.0, 5.0])] * 3),
    plane=st.sampled_from(["axial", "coronal", "sagittal", "automatic"]),
    max_frames=st.integers(1, 7),
)
def test_whatever_the_axes_and_the_sampling_the_clip_is_the_same(
    tmp_path_factory, axes, shape, spacing, plane, max_frames
):
    folder = tmp_path_factory.mktemp("axes")
    body = np.random.default_rng(0).integers(0, 1000, shape).astype(np.int16)
    options = {"plane": plane, "max_frames": max_frames, "modality": "MR"}
    expected = load_clip(nifti(folder / "LPS.nii", body, "LPS", spacing), **options)
    clip = load_clip(nifti(folder / "other.nii", body, axes, spacing), **options)
    shutil.rmtree(folder)
    assert_sound(clip)
    np.testing.assert_array_equal(clip.frames, expected.frames)
    np.testing.assert_allclose(clip.positions, expected.positions, atol=1e-4)
    np.testing.assert_allclose(clip.pixel_spacing, expected.pixel_spacing, atol=1e-4)
    assert clip.notes == expected.notes


def test_every_format_of_one_body_gives_the_same_clip(tmp_path):
    """Also with uneven axes, and at a place and an angle of the scanner that is not the origin."""
    body = make_body()
    image = sitk.GetImageFromArray(body)
    image.SetSpacing(SPACING[::-1])
    paths = [nifti(tmp_path / "body.nii", body), nifti(tmp_path / "body.nii.gz", body), series(tmp_path / "s", body)]
    for name in ("body.nrrd", "body.mha", "body.mhd", "body.nhdr"):
        sitk.WriteImage(image, str(tmp_path / name), name == "body.nhdr")
        paths.append(tmp_path / name)
    np.save(tmp_path / "body.npy", body)
    expected = load_clip(paths[0])
    for path in paths:
        clip = load_clip(path)
        np.testing.assert_array_equal(clip.frames, expected.frames, err_msg=path.name)
        np.testing.assert_allclose(clip.positions, expected.positions, atol=1e-4)
        np.testing.assert_allclose(clip.pixel_spacing, expected.pixel_spacing, atol=1e-4)
    clip = load_clip(tmp_path / "body.npy", spacing=SPACING, modality="CT")
    np.testing.assert_array_equal(clip.frames, expected.frames)
    np.testing.assert_allclose(clip.positions, expected.positions, atol=1e-4)


# --- Gantry tilt, copies, localizers ------------------------------------------------------------------------

TILT = np.radians(20)


def tilted_series(folder: Path, depth: int = 24, side: int = 32) -> Path:
    """A ball of 8 mm radius in air, whose slices lean by 20 degrees while the table moves along z."""
    folder.mkdir(parents=True, exist_ok=True)
    uid, centre = generate_uid(), np.array([15.0, 15.0, 23.0])
    column = np.array([0, np.cos(TILT), np.sin(TILT)])
    rows, columns = np.mgrid[:side, :side]
    for number in range(depth):
        corner = np.array([0.0, 0.0, 2.0 * number - 5])
        places = corner + columns[..., None] * np.array([1.0, 0, 0]) + rows[..., None] * column
        inside = np.linalg.norm(places - centre, axis=-1) < 8
        slice_dataset(
            np.where(inside, 1100, 0).astype(np.uint16),
            SeriesInstanceUID=uid,
            InstanceNumber=number,
            ImageOrientationPatient=[1, 0, 0, *column],
            ImagePositionPatient=list(corner),
            PixelSpacing=[1, 1],
            RescaleSlope=1,
            RescaleIntercept=-1000,
        ).save_as(folder / f"{number}", enforce_file_format=True)
    return folder


def test_a_tilted_gantry_is_said_and_its_slices_are_shown_as_acquired(tmp_path):
    clip = load_clip(tilted_series(tmp_path))
    assert_sound(clip)
    assert said(clip, "gantry tilt of 20 degrees") and len(clip.frames) == 24
    assert clip.frames.shape[1:3] == (32, 32)
    np.testing.assert_allclose(clip.positions, np.arange(24) * 2 * np.cos(TILT), atol=1e-6)


@pytest.mark.parametrize("plane", ["sagittal", "coronal"])
def test_across_a_tilted_stack_a_ball_stays_a_ball(tmp_path, plane):
    """Piled straight, the slices would make an ellipse of it, drawn out along the diagonal."""
    clip = load_clip(tilted_series(tmp_path), plane=plane, max_frames=64)
    assert_sound(clip)
    assert said(clip, "moved back in line")
    areas = (clip.frames[..., 0] > 88).sum(axis=(1, 2))  # 88 is half way from air to the ball
    pixels = np.nonzero(clip.frames[int(areas.argmax()), ..., 0] > 88)
    rows, columns = (axis * step for axis, step in zip(pixels, clip.pixel_spacing, strict=True))
    assert abs(np.corrcoef(rows, columns)[0, 1]) < 0.1
    extents = np.array([np.ptp(rows), np.ptp(columns)]) + clip.pixel_spacing
    np.testing.assert_allclose(extents, 16, atol=1.5)
    assert areas.max() * np.prod(clip.pixel_spacing) == pytest.approx(np.pi * 8**2, rel=0.08)


def test_a_straight_stack_is_not_called_tilted(tmp_path):
    folder = series(tmp_path, make_body(), "LIP")
    assert not any("tilt" in note for note in load_clip(folder, plane="coronal").notes)


def test_copies_of_slices_are_left_out(tmp_path):
    folder = series(tmp_path / "first", make_body())
    expected = load_clip(folder)
    shutil.copytree(folder, tmp_path / "second")
    clip = load_clip(tmp_path)
    np.testing.assert_array_equal(clip.frames, expected.frames)
    np.testing.assert_allclose(clip.positions, expected.positions)
    assert said(clip, "12 files are copies of others")


def test_copies_without_geometry_are_left_out_and_shared_uids_are_not(tmp_path):
    for number in range(5):
        dataset = slice_dataset(np.full((4, 6), number, np.int16), "MR", InstanceNumber=number, SeriesInstanceUID="1.2")
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
        for copy in "ab":
            dataset.save_as(tmp_path / f"{copy}{number}", enforce_file_format=True)
    clip = load_clip(tmp_path)
    assert len(clip.frames) == 5 and said(clip, "5 files are copies of others")


def test_localizers_beside_a_series_do_not_mix_into_it(tmp_path):
    """Three planes of scouts under one series UID, and a scout of the same size under the series' own."""
    body, uid = make_body((12, 20, 20)), generate_uid()
    series(tmp_path / "study", body, uid=uid)
    series(tmp_path / "scouts", make_body((3, 20, 20)), uid=generate_uid())
    for axes, shape in (("LIP", (20, 2, 20)), ("PIL", (20, 20, 2))):
        series(tmp_path / axes, make_body(shape), axes, uid=uid)
    clip = load_clip(tmp_path)
    np.testing.assert_array_equal(clip.frames, window_ct(body))
    assert said(clip, "Slices lie in 3 directions; the largest group (12)")


def test_uneven_gaps_keep_their_positions_in_the_acquired_plane(tmp_path):
    folder = series(tmp_path, make_body())
    for path in folder.iterdir():
        dataset = pydicom.dcmread(path)
        z = float(dataset.ImagePositionPatient[2])
        dataset.ImagePositionPatient = [*dataset.ImagePositionPatient[:2], z + max(0.0, z - 15)]
        dataset.save_as(path)
    clip = load_clip(folder)
    np.testing.assert_allclose(clip.positions, [*np.arange(0, 18, 3), *np.arange(21, 57, 6)])
    assert said(clip, "Slice distances vary from 3.00 to 6.00 mm")


def test_each_slice_of_pet_has_its_own_scale(tmp_path):
    """Scanners store every slice by its own maximum; one scale for all would make brightness jump."""
    stored = np.random.default_rng(0).integers(0, 32000, (4, 12, 10)).astype(np.uint16)
    slopes, uid = (1.0, 0.25, 2.5, 0.5), generate_uid()
    for index, (pixels, slope) in enumerate(zip(stored, slopes, strict=True)):
        slice_dataset(
            pixels,
            "PT",
            SeriesInstanceUID=uid,
            InstanceNumber=index,
            ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
            ImagePositionPatient=[0, 0, 3.27 * index],
            PixelSpacing=[4, 4],
            RescaleSlope=slope,
            RescaleIntercept=0,
            WindowWidth=100,
            WindowCenter=50,
        ).save_as(tmp_path / str(index), enforce_file_format=True)
    clip = load_clip(tmp_path)
    activity = stored * np.array(slopes)[:, None, None]
    np.testing.assert_array_equal(clip.frames, scale_intensity(activity.astype(np.float32)))
    np.testing.assert_allclose(clip.positions, np.arange(4) * 3.27)
    assert clip.modality == "PT" and said(clip, "1st to 99th percentile of the whole volume")


# --- Headers beside their voxels ----------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["mhd", "nhdr"])
@pytest.mark.parametrize("packed", [False, True])
def test_a_header_is_read_with_the_voxels_beside_it(tmp_path, suffix, packed):
    sitk.WriteImage(sitk.GetImageFromArray(make_body()), str(tmp_path / f"body.{suffix}"), packed)
    expected = window_ct(make_body())
    np.testing.assert_array_equal(load_clip(tmp_path / f"body.{suffix}").frames, expected)
    np.testing.assert_array_equal(load_clip(tmp_path).frames, expected)  # the folder of both
    voxels = next(path for path in tmp_path.iterdir() if path.suffix != f".{suffix}")
    voxels.write_bytes(voxels.read_bytes()[:-40])
    with pytest.raises(MediaError, match=r"cut short|damaged"):
        load_clip(tmp_path / f"body.{suffix}")
    voxels.unlink()
    with pytest.raises(MediaError, match="without its voxels"):
        load_clip(tmp_path / f"body.{suffix}")


NRRD = b"NRRD0004\ntype: uint8\ndimension: 3\nsizes: 5 4 3\nencoding: raw\n"
ELSEWHERE = [
    METAIMAGE + b"ElementDataFile = %s\n",
    METAIMAGE + b"ElementDataFile = ../elsewhere/%s\n",
    METAIMAGE + b"Comment = ElementDataFile = LOCAL\nElementDataFile = %s\n",  # MetaIO reads these six in its own way
    METAIMAGE + b"Comment\nElementDataFile = LOCAL\nElementDataFile = %s\n",
    METAIMAGE + b"elementdatafile = LOCAL\nElementDataFile = %s\n",
    METAIMAGE + b"ElementDataFile : %s\n",
    METAIMAGE + b"ElementDataFile = LIST\n%s\n",
    METAIMAGE + b"\tElementDataFile\t=\t%s\n",
    NRRD + b"data file: %s\n\n",
    NRRD + b"DATA FILE: %s\n\n",
    NRRD + b"datafile: LIST\n%s\n\n",
    NRRD + b"data file: %s\ndata file: LOCAL\n\n",
]


@pytest.mark.parametrize("header", ELSEWHERE)
def test_no_header_reaches_a_file_that_is_not_beside_it(tmp_path, header):
    (tmp_path / "here").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/secret").write_bytes(bytes(60))
    named = b"secret" if b"../" in header else str(tmp_path / "elsewhere/secret").encode()
    (tmp_path / "here/scan").write_bytes(header % named + bytes(60))
    (tmp_path / "here/LIST").write_bytes(bytes(60))
    with pytest.raises(MediaError, match="without its voxels"):
        load_clip(tmp_path / "here/scan")


def test_a_link_beside_a_header_does_not_lead_out_of_the_folder(tmp_path):
    (tmp_path / "here").mkdir()
    (tmp_path / "secret").write_bytes(bytes(60))
    (tmp_path / "here/voxels").symlink_to(tmp_path / "secret")
    (tmp_path / "here/scan").write_bytes(METAIMAGE + b"ElementDataFile = voxels\n")
    with pytest.raises(MediaError, match="without its voxels"):
        load_clip(tmp_path / "here/scan")


# --- Multi-frame DICOM --------------------------------------------------------------------------------------


def enhanced(body: np.ndarray, order: list[int], modality: str, cosines: list[int], step: list[float]) -> Dataset:
    """An enhanced multi-frame object whose frame i is slice order[i] of `body`, `step` mm from one to the next."""
    dataset = multi_frame(np.ascontiguousarray(body[order]), modality=modality)
    measures, orientation, shared, frames = Dataset(), Dataset(), Dataset(), []
    measures.PixelSpacing, measures.SliceThickness = [1.5, 0.75], 3
    orientation.ImageOrientationPatient = cosines
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
    for index in order:
        place, transform, frame = Dataset(), Dataset(), Dataset()
        place.ImagePositionPatient = [float(index * along) for along in step]
        transform.RescaleSlope, transform.RescaleIntercept = 2, index
        frame.PlanePositionSequence, frame.PixelValueTransformationSequence = [place], [transform]
        frames.append(frame)
    dataset.SharedFunctionalGroupsSequence, dataset.PerFrameFunctionalGroupsSequence = [shared], frames
    return dataset


def test_enhanced_mr_is_a_volume_with_the_rescale_of_each_frame(tmp_path):
    body = np.random.default_rng(0).integers(0, 500, (5, 8, 6)).astype(np.int16)
    dataset = enhanced(body, [3, 0, 4, 1, 2], "MR", [1, 0, 0, 0, 1, 0], [0, 0, 3])
    dataset.save_as(tmp_path / "enhanced", enforce_file_format=True)
    clip = load_clip(tmp_path / "enhanced")
    values = 2.0 * body + np.arange(5)[:, None, None]
    np.testing.assert_array_equal(clip.frames, scale_intensity(values.astype(np.float32)))
    np.testing.assert_allclose(clip.positions, np.arange(5) * 3.0)
    assert (clip.kind, clip.modality, clip.pixel_spacing) == ("volume", "MR", (1.5, 0.75))


def test_enhanced_coronal_slices_are_turned_to_the_plane_asked_for(tmp_path):
    body = np.random.default_rng(0).integers(0, 500, (7, 6, 5)).astype(np.int16)  # y, then z downwards, then x
    dataset = enhanced(body, list(range(7)), "MR", [1, 0, 0, 0, 0, -1], [0, 3, 0])
    dataset.save_as(tmp_path / "coronal", enforce_file_format=True)
    values = (2.0 * body + np.arange(7)[:, None, None]).astype(np.float32)
    coronal, axial = load_clip(tmp_path / "coronal", plane="automatic"), load_clip(tmp_path / "coronal")
    np.testing.assert_array_equal(coronal.frames, scale_intensity(values))
    np.testing.assert_array_equal(axial.frames, scale_intensity(values.transpose(1, 0, 2)[::-1]))
    assert said(coronal, "by the spacing: coronal") and said(axial, "All 6 axial slices")


def test_echoes_in_one_enhanced_object_do_not_interleave(tmp_path):
    body = np.random.default_rng(0).integers(0, 500, (4, 8, 6)).astype(np.int16)
    both = enhanced(np.concatenate([body, body + 5000]), list(range(8)), "MR", [1, 0, 0, 0, 1, 0], [0, 0, 3])
    for index, frame in enumerate(both.PerFrameFunctionalGroupsSequence):
        frame.PlanePositionSequence[0].ImagePositionPatient = [0, 0, 3.0 * (index % 4)]
        frame.PixelValueTransformationSequence[0].RescaleIntercept = 0
    both.save_as(tmp_path / "echoes", enforce_file_format=True)
    clip = load_clip(tmp_path / "echoes")
    np.testing.assert_array_equal(clip.frames, scale_intensity(body.astype(np.float32)))
    assert said(clip, "8 slices lie at 4 places")


@pytest.mark.parametrize("modality", ["XA", "RF", "US"])
def test_an_angiogram_is_a_video_with_its_frame_times(tmp_path, modality):
    """12-bit frames at 7.5 per second, MONOCHROME2, with a window in the header."""
    pixels = (np.arange(30, dtype=np.uint16)[:, None, None] * 100 + np.arange(20, dtype=np.uint16)).repeat(16, axis=1)
    dataset = multi_frame(np.ascontiguousarray(pixels), modality=modality, FrameTime=1000 / 7.5, BitsStored=12)
    dataset.HighBit, dataset.WindowWidth, dataset.WindowCenter = 11, 4096, 2048
    dataset.save_as(tmp_path / "run", enforce_file_format=True)
    clip = load_clip(tmp_path / "run", fps=7.5)
    assert_sound(clip)
    assert (clip.kind, clip.modality, clip.unit, clip.source_frames) == ("video", modality, "s", 30)
    np.testing.assert_allclose(clip.positions, np.arange(30) / 7.5, atol=1e-6)
    np.testing.assert_allclose(clip.frames[..., 0], pixels / 4095 * 255, atol=1)


def test_overlays_are_not_burnt_in(tmp_path):
    """Overlay planes are annotations (PS3.3 C.9.2); bits above BitsStored that hold old ones are not grey levels."""
    with_overlay = load_clip(dicom_file("examples_overlay.dcm"))
    dataset = pydicom.dcmread(dicom_file("examples_overlay.dcm"))
    for element in [element for element in dataset if element.tag.group & 0xFF00 == 0x6000]:
        del dataset[element.tag]
    dataset.save_as(tmp_path / "plain")
    np.testing.assert_array_equal(with_overlay.frames, load_clip(tmp_path / "plain").frames)
    pixels = np.arange(320, dtype=np.uint16).reshape(16, 20) * 10
    old = slice_dataset(pixels | 0x8000, "CR", BitsStored=12)
    old.HighBit = 11
    old.save_as(tmp_path / "old", enforce_file_format=True)
    np.testing.assert_array_equal(load_clip(tmp_path / "old").frames[0], scale_intensity(pixels))


# --- Archives, lists and pictures ---------------------------------------------------------------------------


def test_a_zip_in_a_zip_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "inner.zip", "w") as archive:
        archive.write(dicom_file("CT_small.dcm"), "slice.dcm")
    with zipfile.ZipFile(tmp_path / "outer.zip", "w") as archive:
        archive.write(tmp_path / "inner.zip", "inner.zip")
    with pytest.raises(MediaError, match="holds no medical image"):
        load_clip(tmp_path / "outer.zip")


def test_a_list_of_dicom_files_in_any_order_is_the_series(tmp_path):
    paths = sorted(series(tmp_path, make_body()).iterdir())
    clip = load_clip([str(path) for path in paths[::-1]])
    np.testing.assert_array_equal(clip.frames, window_ct(make_body()))


MODES = [(mode, suffix) for mode in ("P", "L", "1", "LA", "RGBA") for suffix in ("png", "tif")]


@pytest.mark.parametrize(("mode", "suffix"), [*MODES, ("CMYK", "tif")])
def test_every_mode_of_a_picture_becomes_three_channels(tmp_path, mode, suffix):
    picture = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8) * 4).convert(mode)
    picture.save(tmp_path / f"picture.{suffix}")
    clip = load_clip(tmp_path / f"picture.{suffix}")
    assert_sound(clip)
    np.testing.assert_allclose(clip.frames[0].astype(int), np.asarray(picture.convert("RGB")).astype(int), atol=1)


def test_sixteen_bit_tiff_is_scaled(tmp_path):
    deep = np.arange(4000, dtype=np.uint16).reshape(50, 80) * 16
    Image.fromarray(deep).save(tmp_path / "deep.tif")
    np.testing.assert_array_equal(load_clip(tmp_path / "deep.tif").frames[0], scale_intensity(deep))


# --- NIfTI: nibabel is the reference -----------------------------------------------------------------------


@settings(max_examples=60)
@given(
    axes=st.sampled_from(ALL_AXES),
    turn=st.tuples(*[st.floats(-15, 15)] * 3),
    other=st.sampled_from(ALL_AXES),
    codes=st.sampled_from([(2, 0), (0, 1), (2, 1), (1, 1), (1, 2), (4, 2), (0, 0)]),
)
def test_sform_and_qform_mean_what_they_do_to_nibabel(tmp_path_factory, axes, turn, other, codes):
    """Also where the two disagree, where there is only one, and where there is none."""
    folder = tmp_path_factory.mktemp("nifti")
    body = np.random.default_rng(0).integers(0, 255, (4, 5, 6)).astype(np.uint8)
    orientations = [nibabel.orientations.axcodes2ornt(code) for code in (axes, other)]
    sform, qform = (nibabel.orientations.inv_ornt_aff(ornt, (4, 5, 6)) @ np.diag([1, 2, 3, 1]) for ornt in orientations)
    sform[:3, :3] = Rotation.from_euler("xyz", turn, degrees=True).as_matrix() @ sform[:3, :3]
    image = nibabel.Nifti1Image(body, None)
    image.header.set_zooms(np.linalg.norm(qform[:3, :3] if codes[0] == 0 else sform[:3, :3], axis=0))
    image.set_qform(qform, codes[1], update_affine=False)
    image.set_sform(sform, codes[0], update_affine=False)
    nibabel.save(image, folder / "image.nii")
    stored = nibabel.load(folder / "image.nii")
    canonical = nibabel.as_closest_canonical(stored)
    clip = load_clip(folder / "image.nii")
    expected = np.asarray(canonical.dataobj)[::-1, ::-1].transpose(2, 1, 0)
    shutil.rmtree(folder)
    np.testing.assert_array_equal(clip.frames, scale_intensity(expected))
    steps = np.linalg.norm(canonical.affine[:3, :3], axis=0)
    np.testing.assert_allclose(clip.pixel_spacing, steps[1::-1], rtol=1e-4)
    np.testing.assert_allclose(clip.positions, np.arange(len(expected)) * steps[2], rtol=1e-4)
    assert said(clip, "gives no orientation") == (codes == (0, 0))


def test_units_other_than_millimetres_become_millimetres(tmp_path):
    body = np.zeros((3, 4, 5), np.int16)
    for units, factor in (("meter", 1000), ("micron", 0.001), ("mm", 1)):
        image = nibabel.Nifti1Image(body, np.diag([0.5, 0.5, 2, 1]) / factor)
        image.header.set_xyzt_units(units)
        nibabel.save(image, tmp_path / "image.nii")
        clip = load_clip(tmp_path / "image.nii")
        np.testing.assert_allclose(clip.positions, np.arange(5) * 2.0, rtol=1e-5)
        np.testing.assert_allclose(clip.pixel_spacing, (0.5, 0.5), rtol=1e-5)


def test_sheared_axes_are_refused(tmp_path):
    affine = np.eye(4)
    affine[0, 1] = 0.3
    nibabel.save(nibabel.Nifti1Image(np.zeros((3, 4, 5), np.int16), affine), tmp_path / "image.nii")
    with pytest.raises(MediaError, match="not at right angles"):
        load_clip(tmp_path / "image.nii")


def test_voxels_that_are_no_numbers_are_background_and_not_zero(tmp_path):
    """A map of negative and positive values with a mask around it: zero would be a middle grey."""
    values = np.random.default_rng(0).normal(0, 10, (5, 6, 7)).astype(np.float32)
    values[:2] = np.nan
    nibabel.save(nibabel.Nifti1Image(values, np.diag([-1, -1, 1, 1])), tmp_path / "map.nii.gz")
    clip = load_clip(tmp_path / "map.nii.gz")
    filled = np.where(np.isnan(values), np.nanmin(values), values)
    np.testing.assert_array_equal(clip.frames, scale_intensity(filled.transpose(2, 1, 0)))
    assert said(clip, "not finite are shown as background")


# --- The test sets of pydicom and nibabel -------------------------------------------------------------------


def test_every_file_of_two_test_sets_is_read_as_its_own_library_does_or_refused():
    """The table in docs/media_outcomes.md; files that are not installed are counted there and skipped here."""
    outcomes = media_outcomes.judge_all()
    assert [outcome for outcome in outcomes if outcome.outcome == "different"] == []
    counts = Counter((outcome.package, outcome.outcome) for outcome in outcomes)
    assert counts["pydicom", "equal"] >= 90 and counts["nibabel", "equal"] >= 10
    for outcome in outcomes:
        if outcome.outcome == "refused":
            assert outcome.detail.endswith(".") and "\n" not in outcome.detail and len(outcome.detail) < 260


@pytest.mark.parametrize("name", ["CT_small.dcm", "examples_ybr_color.dcm", "rtdose.dcm"])
def test_the_comparison_notices_what_is_silently_wrong(monkeypatch, name):
    path = dicom_file(name)
    assert media_outcomes.judge("pydicom", path, name).outcome == "equal"
    clip = load_clip(path, **media_outcomes.EVERYTHING)
    brighter = np.where(clip.frames < 200, clip.frames + 2, clip.frames).astype(np.uint8)
    for frames in (clip.frames[..., ::-1, :], clip.frames[::-1, ::-1], brighter, clip.frames[:, 1:]):
        monkeypatch.setattr(media_outcomes, "load_clip", lambda *_, f=frames, **__: replace(clip, frames=f))
        assert media_outcomes.judge("pydicom", path, name).outcome == "different"


def test_the_table_in_the_documentation_is_that_of_the_command():
    page = (ROOT / "docs/media_outcomes.md").read_text(encoding="utf-8")
    for package, files in media_outcomes.test_files().items():
        if f"| {package} {media_outcomes.VERSIONS[package]} |" not in page:
            pytest.skip(f"The table was written with another version of {package}.")
        for _, name in files:
            assert f"| {package} | `{name}` |" in page


def test_the_benchmark_compares_like_with_like(tmp_path):
    """The same frames of a film from both sides (asserted inside), and patches of the same shape of a volume."""
    video = media_benchmark.measure_video(tmp_path, "a key frame every second", seconds=9, repeats=2)
    assert video["speed"] > 0 and video["ours"]["median_s"] > 0
    path = media_benchmark.write_volume(tmp_path / "volume.nii")
    patches = media_benchmark.our_patches(path, 28, 56)
    assert patches.shape == (media_benchmark.SLICES * 2 * 4, 3 * 14 * 14)
    assert -1.001 < patches.min() < 0 < patches.max() < 1.001  # resizing rounds
