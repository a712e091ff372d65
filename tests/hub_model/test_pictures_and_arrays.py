# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Pictures, arrays and everything that is not a path."""

from __future__ import annotations

import base64
import io
import zipfile
from dataclasses import dataclass

import numpy as np
import pytest
from PIL import Image, ImageFile

from hub_model.media_omniv_med import (
    MediaError,
    MediaLimits,
    load_clip,
    scale_intensity,
    window_ct,
)
from tests.helpers.media_files import (
    ANATOMICAL,
    SPACING,
    assert_sound,
    dicom_file,
    make_body,
    said,
    video,
)


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
