# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Films keep their own times, and only the frames that are needed are decoded."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import numpy as np
import pydicom
import pytest
from PIL import Image

from hub_model.media_omniv_med import (
    MediaError,
    load_clip,
)
from tests.helpers.media_files import (
    assert_sound,
    dicom_file,
    make_body,
    multi_frame,
    nifti,
    said,
    video,
)
from tests.helpers.paths import ROOT


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
