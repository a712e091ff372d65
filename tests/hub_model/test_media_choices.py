# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Which series, which volume, which plane and windows; and headers that lie beside their voxels: NIfTI, Analyze, …"""

from __future__ import annotations

import base64
import gzip
import itertools
import shutil
import struct
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813 - the name all of its documentation uses
import torch
from PIL import Image
from pydicom.uid import generate_uid

from hub_model.clip_omniv_med import Series
from hub_model.isolated_reading_omniv_med import IsolatedReader
from hub_model.media_omniv_med import (
    Clip,
    MediaError,
    MediaLimits,
    intensity_range,
    load_clip,
    scale_intensity,
    window_ct,
)
from tests.helpers.media_files import METAIMAGE, assert_sound, make_body, nifti, number_series, said, series

# --- Which series -------------------------------------------------------------------------------------------


@pytest.fixture
def study(tmp_path: Path) -> dict[str, Any]:
    """A scout of 3 slices (number 1), a scan of 12 (number 2) and a thinner one of 9 (number 301), and their bodies."""
    bodies = {1: make_body((3, 20, 16)), 2: make_body((12, 20, 16)), 301: make_body((9, 20, 16)) + np.int16(100)}
    uids = {number: generate_uid() for number in bodies}
    for number, body in bodies.items():
        number_series(series(tmp_path / "study" / str(number), body, uid=uids[number]), number)
    return {"folder": tmp_path / "study", "bodies": bodies, "uids": uids}


def sources(folder: Path, archive: Path) -> list[Any]:
    """A folder, a zip archive and a list of the same files."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    with zipfile.ZipFile(archive, "w") as out:
        for path in files:
            out.write(path, f"export/{path.relative_to(folder)}")
    return [folder, archive, files]


def test_a_series_is_chosen_by_its_number_or_its_uid(study, tmp_path):
    for source in sources(study["folder"], tmp_path / "study.zip"):
        for number, body in study["bodies"].items():
            for choice in (number, str(number), np.int64(number), study["uids"][number]):
                clip = load_clip(source, series=choice)
                assert_sound(clip)
                np.testing.assert_array_equal(clip.frames, window_ct(body))
                assert said(
                    clip, f"3 series found; of those asked for, number {number} with {len(body)} slices is used."
                )
                assert study["uids"][number] not in " ".join(clip.notes)
            listed = [Series(each, len(body), "CT", each == number) for each, body in study["bodies"].items()]
            assert list(clip.series) == listed
        default = load_clip(source)
        np.testing.assert_array_equal(default.frames, window_ct(study["bodies"][2]))
        assert said(default, "3 series were found; the one with the most slices (12) is used.")
        assert [each.number for each in default.series if each.is_read] == [2]
    assert load_clip(study["folder"] / "2").series == (), "there is nothing to choose"
    with IsolatedReader() as reader:
        assert reader.load_clip(study["folder"]).series == default.series


def test_a_series_that_is_not_there_is_told_with_those_that_are(study):
    for choice, what in ((7, "number"), (generate_uid(), "UID")):
        with pytest.raises(MediaError, match=rf"no series of that {what}; it holds 3, with the numbers 1, 2, 301\.$"):
            load_clip(study["folder"], series=choice)
    one = next((study["folder"] / "2").iterdir())
    assert load_clip(one, series=2).kind == "image"
    with pytest.raises(MediaError, match="no series of that number; it holds 1, with the numbers 2"):
        load_clip(one, series=3)


@pytest.mark.parametrize(
    "source", [np.zeros((3, 4, 5)), Image.new("L", (4, 4)), [np.zeros((4, 4))]], ids=["a", "p", "l"]
)
def test_what_holds_no_series_or_volumes_says_so(source):
    with pytest.raises(MediaError, match="no DICOM, so it has no series"):
        load_clip(source, series=1)
    with pytest.raises(MediaError, match="does not hold several volumes"):
        load_clip(source, volume_index=1)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"series": 1.5}, "series must be"),
        ({"series": " "}, "series must be"),
        ({"volume_index": -1}, "volume_index must be"),
        ({"volume_index": 0.5}, "volume_index must be"),
        ({"volume_index": "1"}, "volume_index must be"),
    ],
)
def test_choices_that_mean_nothing_are_refused(options, words):
    with pytest.raises(MediaError, match=words):
        load_clip(make_body(), **options)


def test_what_was_read_already_cannot_be_read_otherwise():
    clip = load_clip(make_body())
    assert load_clip(clip, kind="volume", max_frames=2) is clip
    for options in ({"plane": "coronal"}, {"windows": "lung"}, {"volume_index": 1}, {"spacing": (1, 1, 1)}):
        with pytest.raises(MediaError, match="read already"):
            load_clip(clip, **options)


# --- Which volume -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["four.nii", "four.nii.gz", "four.nrrd", "four.mha"])
def test_a_volume_of_four_dimensions_is_chosen_by_its_index(tmp_path, name):
    volumes = np.random.default_rng(0).integers(0, 900, (3, 4, 5, 6)).astype(np.int16)
    if ".nii" in name:
        nibabel.save(nibabel.Nifti1Image(volumes.transpose(3, 2, 1, 0), np.diag([-1, -1, 1, 1])), tmp_path / name)
    else:
        image = sitk.JoinSeries([sitk.GetImageFromArray(volume) for volume in volumes])
        sitk.WriteImage(image, str(tmp_path / name))
    for index, volume in enumerate(volumes):
        clip = load_clip(tmp_path / name, volume_index=index)
        assert_sound(clip)
        np.testing.assert_array_equal(clip.frames, scale_intensity(volume))
        which = "the first is used" if index == 0 else f"number {index}, counted from 0, is used"
        assert said(clip, f"The file holds 3 volumes; {which}.")
    with pytest.raises(MediaError, match=r"holds 3 volumes, so volume_index must lie from 0 to 2\."):
        load_clip(tmp_path / name, volume_index=3)


def test_of_five_dimensions_the_stored_order_counts(tmp_path):
    volumes = np.random.default_rng(0).integers(0, 900, (6, 5, 4, 2, 3)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(volumes, np.diag([-1, -1, 1, 1])), tmp_path / "five.nii")
    for index, (last, fourth) in enumerate(itertools.product(range(3), range(2))):
        clip = load_clip(tmp_path / "five.nii", volume_index=index)
        np.testing.assert_array_equal(clip.frames, scale_intensity(volumes[..., fourth, last].T))


def test_of_several_values_in_a_voxel_one_is_chosen(tmp_path):
    """As NRRD holds the directions of a diffusion scan."""
    values = np.random.default_rng(0).normal(size=(4, 5, 6, 7)).astype(np.float32)
    sitk.WriteImage(sitk.GetImageFromArray(values, isVector=True), str(tmp_path / "directions.nrrd"))
    clip = load_clip(tmp_path / "directions.nrrd", volume_index=5)
    np.testing.assert_array_equal(clip.frames, scale_intensity(values[..., 5]))
    assert said(clip, "Each voxel has 7 values; number 5, counted from 0, is used.")
    with pytest.raises(MediaError, match="volume_index must lie from 0 to 6"):
        load_clip(tmp_path / "directions.nrrd", volume_index=7)


def test_gaps_of_a_later_volume_are_its_own(tmp_path):
    volumes = np.random.default_rng(0).normal(0, 10, (5, 6, 7, 2)).astype(np.float32)
    volumes[:2, ..., 1] = np.nan
    nibabel.save(nibabel.Nifti1Image(volumes, np.diag([-1, -1, 1, 1])), tmp_path / "map.nii.gz")
    clip = load_clip(tmp_path / "map.nii.gz", volume_index=1)
    second = np.where(np.isnan(volumes[..., 1]), np.nanmin(volumes[..., 1]), volumes[..., 1])
    np.testing.assert_array_equal(clip.frames, scale_intensity(second.T))
    assert not said(load_clip(tmp_path / "map.nii.gz"), "not finite")


def test_echoes_of_a_series_are_chosen_by_their_order(tmp_path):
    """Two echoes at each place; the second was not stored for the topmost slice."""
    uid, body = generate_uid(), make_body((6, 20, 16))
    for echo in range(2):
        folder = series(tmp_path / f"echo{echo}", body + np.int16(50 * echo), "LPS", "MR", uid)
        for path in folder.iterdir():
            dataset = pydicom.dcmread(path)
            dataset.InstanceNumber = int(dataset.InstanceNumber) + 100 * echo
            dataset.save_as(path)
            if echo and dataset.ImagePositionPatient[2] > 14:
                path.unlink()
    first, second = (load_clip(tmp_path, volume_index=index) for index in range(2))
    assert (len(first.frames), len(second.frames)) == (6, 5)
    np.testing.assert_array_equal(second.frames, scale_intensity((body[:5] + 50).astype(np.float32)))
    assert said(first, "11 slices lie at 6 places; the first at each place is used.")
    assert said(second, "number 1, counted from 0, at each place is used.")
    assert said(second, "1 of these places have no slice of that number; they are left out.")
    with pytest.raises(MediaError, match="holds 2 volumes, so volume_index must lie from 0 to 1"):
        load_clip(tmp_path, volume_index=2)


# --- NIfTI-2, Analyze, and headers beside their voxels ------------------------------------------------------

CLASSES = [
    (nibabel.Nifti2Image, "scan.nii"),
    (nibabel.Nifti2Image, "scan.nii.gz"),
    (nibabel.Nifti1Pair, "scan.img"),
    (nibabel.Nifti1Pair, "scan.img.gz"),
    (nibabel.Nifti2Pair, "scan.img"),
    (nibabel.AnalyzeImage, "scan.img"),
    (nibabel.Spm99AnalyzeImage, "scan.img"),
]


def as_nibabel(path: Path) -> np.ndarray:
    """The voxels as nibabel decodes them: from the feet, the front and the right."""
    return nibabel.as_closest_canonical(nibabel.load(path)).get_fdata()[::-1, ::-1].transpose(2, 1, 0)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(("image_class", "name"), CLASSES)
def test_other_headers_mean_what_they_do_to_nibabel(tmp_path, image_class, name, order):
    folder = tmp_path / "scan"
    folder.mkdir()
    body = make_body((6, 9, 7)).T
    analyze = issubclass(image_class, nibabel.AnalyzeImage) and not issubclass(image_class, nibabel.Nifti1Pair)
    affine = (
        None
        if analyze
        else nibabel.orientations.inv_ornt_aff(nibabel.orientations.axcodes2ornt("PIR"), body.shape)
        @ np.diag([2, 3, 4, 1])
    )
    header = image_class.header_class(endianness=order)
    header.set_data_dtype(np.int16)
    image = image_class(body, affine, header)
    if analyze:
        image.header.set_zooms((2, 3, 4))
    nibabel.save(image, folder / name)
    for leftover in folder.glob("*.mat"):  # SPM keeps orientations there; none is read
        leftover.unlink()
    expected = as_nibabel(folder / name)
    files = sorted(folder.iterdir())
    given = sources(folder, tmp_path / "scan.zip")[: 3 if len(files) == 2 else 2]
    for source in [*given, *files]:
        clip = load_clip(source, modality="CT")
        assert_sound(clip)
        np.testing.assert_array_equal(clip.frames, window_ct(expected))
        steps = np.linalg.norm(nibabel.as_closest_canonical(nibabel.load(folder / name)).affine[:3, :3], axis=0)
        np.testing.assert_allclose(clip.pixel_spacing, steps[1::-1], rtol=1e-5)
        np.testing.assert_allclose(clip.positions, np.arange(len(expected)) * steps[2], rtol=1e-5)
        assert said(clip, "gives no orientation") == analyze


@pytest.mark.parametrize(("image_class", "name"), [(nibabel.Nifti2Image, "s.nii"), (nibabel.Spm2AnalyzeImage, "s.img")])
def test_scaled_voxels_are_those_of_nibabel(tmp_path, image_class, name):
    values = np.random.default_rng(0).normal(0, 300, (5, 6, 7))
    image = image_class(values, np.diag([-1, -1, 1, 1]))
    image.header.set_data_dtype(np.int16)
    nibabel.save(image, tmp_path / name)
    (tmp_path / "s.mat").unlink(missing_ok=True)  # SPM keeps orientations there; none is read
    clip = load_clip(tmp_path / name, modality="CT")
    expected = window_ct(as_nibabel(tmp_path / name)).astype(int)
    assert np.abs(clip.frames.astype(int) - expected).max() <= 1


def test_a_header_without_its_voxels_or_with_too_few_is_told(tmp_path):
    nibabel.save(nibabel.Nifti1Pair(make_body().T, np.eye(4)), tmp_path / "scan.img")
    whole = (tmp_path / "scan.img").read_bytes()
    (tmp_path / "scan.img").write_bytes(whole[:-10])
    for source in (tmp_path, tmp_path / "scan.hdr", tmp_path / "scan.img"):
        with pytest.raises(MediaError, match="cut short"):
            load_clip(source)
    (tmp_path / "scan.img").rename(tmp_path / "other.img")
    with pytest.raises(MediaError, match="header without its voxels"):
        load_clip(tmp_path / "scan.hdr")
    with pytest.raises(MediaError, match="cut short"):  # named together, they belong together
        load_clip([tmp_path / "scan.hdr", tmp_path / "other.img"])
    with pytest.raises(MediaError, match="not a known medical image"):
        load_clip(tmp_path / "other.img")


def test_a_file_beside_a_complete_volume_in_a_list_is_not_passed_over_silently(tmp_path):
    volume, other = tmp_path / "scan.mha", tmp_path / "report.txt"
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((3, 8, 8), np.int16)), str(volume))
    other.write_text("no voxels")
    for order, place in (([volume, other], "second"), ([other, volume], "first")):
        clip = load_clip(order)
        assert len(clip.frames) == 3
        assert f"The {place} of the two files was not read; the other is complete." in clip.notes


def test_no_link_leads_from_a_header_out_of_its_folder(tmp_path):
    (tmp_path / "here").mkdir()
    nibabel.save(nibabel.Nifti1Pair(make_body().T, np.eye(4)), tmp_path / "scan.img")
    (tmp_path / "scan.hdr").rename(tmp_path / "here/scan.hdr")
    (tmp_path / "here/scan.img").symlink_to(tmp_path / "scan.img")
    with pytest.raises(MediaError, match="header without its voxels"):
        load_clip(tmp_path / "here/scan.hdr")


@pytest.mark.parametrize(
    ("place", "form", "value", "words"),
    [
        (16 + 8, "<q", 2**40, "over the limit"),
        (16 + 8, "<q", 40_000, "cut short"),
        (16 + 8, "<q", -5, "says that it holds no pixels"),
        (168, "<q", 2**60, "cut short|unpacks to more"),
        (168, "<q", -8, "begin before the file"),
        (504, "<i", 3002, "CIFTI"),
        (400, "<d", float("nan"), "where its slices lie"),
        (400, "<d", 1e300, "not at right angles"),
        (12, "<h", 1536, "no usual numbers"),  # 128-bit floats
    ],
)
def test_a_damaged_nifti2_header_is_told(tmp_path, place, form, value, words):
    nibabel.save(nibabel.Nifti2Image(make_body().T, np.eye(4)), tmp_path / "scan.nii")
    data = bytearray((tmp_path / "scan.nii").read_bytes())
    struct.pack_into(form, data, place, value)
    for name, content in (("bad.nii", bytes(data)), ("bad.nii.gz", gzip.compress(bytes(data)))):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(MediaError, match=words):
            load_clip(tmp_path / name)


def test_a_nifti2_file_may_not_unpack_past_the_limit(tmp_path):
    volumes = np.zeros((20, 20, 20, 9), np.int16)
    nibabel.save(nibabel.Nifti2Image(volumes, np.eye(4)), tmp_path / "four.nii.gz")
    limits = MediaLimits(max_unpacked_bytes=50_000)
    assert len(load_clip(tmp_path / "four.nii.gz", volume_index=2, limits=limits).frames) == 20
    with pytest.raises(MediaError, match="unpacks to more than"):
        load_clip(tmp_path / "four.nii.gz", volume_index=3, limits=limits)


@pytest.mark.parametrize("suffix", ["mhd", "nhdr"])
@pytest.mark.parametrize("packed", [False, True])
def test_a_header_and_its_voxels_may_come_in_a_zip_or_a_list(tmp_path, suffix, packed):
    folder = tmp_path / "scan"
    folder.mkdir()
    sitk.WriteImage(sitk.GetImageFromArray(make_body()), str(folder / f"body.{suffix}"), packed)
    for source in sources(folder, tmp_path / "scan.zip"):
        np.testing.assert_array_equal(load_clip(source).frames, window_ct(make_body()))
    header, voxels = sorted(folder.iterdir(), key=lambda path: path.suffix != f".{suffix}")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.move(voxels, elsewhere)  # as uploads lie, each in a folder of its own
    np.testing.assert_array_equal(load_clip([header, elsewhere / voxels.name]).frames, window_ct(make_body()))
    renamed = (elsewhere / voxels.name).rename(elsewhere / f"upload-b-00001{voxels.suffix}")  # as the page keeps it
    np.testing.assert_array_equal(load_clip([renamed, header]).frames, window_ct(make_body()))
    with pytest.raises(MediaError, match="without its voxels"):
        load_clip(header)


@pytest.mark.parametrize("suffix", ["mhd", "nhdr", "hdr"])
def test_two_files_that_are_one_only_because_they_come_together_are_named_in_a_note(tmp_path, suffix):
    if suffix == "hdr":
        nibabel.save(nibabel.Nifti1Pair(make_body().T, np.eye(4)), tmp_path / "body.img")
    else:
        sitk.WriteImage(sitk.GetImageFromArray(make_body()), str(tmp_path / f"body.{suffix}"))
    header, voxels = sorted(tmp_path.iterdir(), key=lambda path: path.suffix != f".{suffix}")

    def pairs(*files: Path) -> list[str]:
        return [note for note in load_clip(list(files)).notes if "two files" in note]

    assert pairs(header, voxels) == [], "the header finds its voxels by their name"
    voxels = voxels.rename(tmp_path / f"Wombatowski{voxels.suffix}")
    (note,) = pairs(header, voxels)
    assert "the first was read as a header and the second as its voxels" in note and "Wombatowski" not in note
    (note,) = pairs(voxels, header)
    assert "the first was read as voxels and the second as their header" in note
    header = header.rename(tmp_path / f"Wombatowski.{suffix}")
    assert pairs(header, voxels) == [], "named alike, whatever the header calls them"


def test_a_header_that_names_its_voxels_needs_no_note(tmp_path):
    (tmp_path / "scan.mhd").write_bytes(METAIMAGE + b"ElementDataFile = voxels.raw\n")
    (tmp_path / "voxels.raw").write_bytes(bytes(60))
    assert not any("two files" in note for note in load_clip(sorted(tmp_path.iterdir())).notes)


def test_an_archive_gives_a_header_nothing_but_what_lies_beside_it_there(tmp_path):
    for target, called in ((b"secret", "other/secret"), (b"../other/secret", "other/secret"), (b"000001", "other/x")):
        with zipfile.ZipFile(tmp_path / "scan.zip", "w") as archive:
            archive.writestr("here/scan.mhd", METAIMAGE + b"ElementDataFile = " + target + b"\n")
            archive.writestr(called, bytes(60))
        with pytest.raises(MediaError, match="without its voxels"):
            load_clip(tmp_path / "scan.zip")


def test_pairs_are_read_in_a_process_of_their_own_too(tmp_path):
    nibabel.save(nibabel.Nifti1Pair(make_body().T, np.diag([-1, -1, 1, 1])), tmp_path / "scan.img")
    with IsolatedReader() as reader:
        for source in (tmp_path / "scan.hdr", sorted(tmp_path.iterdir())):
            clip = reader.load_clip(source, modality="CT")
            np.testing.assert_array_equal(clip.frames, window_ct(make_body()))


# --- Through a message --------------------------------------------------------------------------------------


def inputs_of(processor, *parts: dict[str, Any], **options: Any) -> dict[str, torch.Tensor]:
    conversation = [{"role": "user", "content": [*parts, {"type": "text", "text": "What is it?"}]}]
    return processor.apply_chat_template(
        conversation, tokenize=True, return_dict=True, return_tensors="pt", processor_kwargs=options
    )


def assert_inputs_show(processor, inputs: dict[str, torch.Tensor], clips: Sequence[Clip]) -> None:
    """The inputs are those of these clips, and of no others."""
    expected = processor(text="<|media_pad|>" * len(clips), clips=list(clips))
    for name in ("pixel_values", "grid_thw", "frame_positions", "patch_spacing", "keep_mask"):
        assert torch.equal(inputs[name], expected[name]), name


@pytest.mark.parametrize(
    "options",
    [
        {"plane": "coronal"},
        {"windows": "lung"},
        {"windows": [(100, 40)]},
        {"modality": "MR", "plane": "sagittal"},
        {"max_frames": 3},
        {"spacing": (1, 2, 3), "plane": "automatic"},
    ],
    ids=str,
)
def test_a_message_says_how_its_medium_is_read(processor, tmp_path, options):
    path = nifti(tmp_path / "body.nii", make_body())
    clip = processor.load(path, **options)
    part = {"type": "volume", "volume": str(path), **options}
    assert_inputs_show(processor, inputs_of(processor, part), [clip])
    with pytest.raises(AssertionError):
        assert_inputs_show(processor, inputs_of(processor, part), [processor.load(path)])


def test_what_a_message_asks_for_is_noted(processor, tmp_path):
    path = nifti(tmp_path / "body.nii", make_body())
    clip = processor.load(path, plane="coronal", windows=["lung", "bone", "brain"])
    assert said(clip, "lung 1500/-600, bone 1800/400, brain 80/40") and said(clip, "All 20 coronal slices.")
    assert processor.process_clip(clip).notes[: len(clip.notes)] == clip.notes


def test_a_message_chooses_a_series_and_a_volume(processor, study, tmp_path):
    nibabel.save(nibabel.Nifti1Image(np.random.default_rng(0).normal(size=(5, 6, 7, 3)), np.eye(4)), tmp_path / "f.nii")
    parts = [
        {"type": "volume", "volume": study["folder"], "series": 301},
        {"type": "volume", "path": str(tmp_path / "f.nii"), "volume_index": 2, "volume": None},
    ]
    clips = [processor.load(study["folder"], series=301), processor.load(tmp_path / "f.nii", volume_index=2)]
    assert_inputs_show(processor, inputs_of(processor, *parts), clips)


def test_what_one_medium_says_goes_before_what_the_call_says(processor, film):
    parts = [{"type": "video", "video": film(frames=6), "max_frames": 2}, {"type": "video", "video": film(frames=6)}]
    assert inputs_of(processor, *parts, max_frames=4)["grid_thw"][:, 0].tolist() == [2, 4]


@pytest.mark.parametrize("key", ["window", "planes", "nframes", "text", "image", "limits", "kind", "progress"])
def test_an_unknown_key_of_a_medium_is_told(processor, key):
    """Also those of `load_clip` that a stranger's message must not set."""
    part = {"type": "volume", "volume": make_body(), key: 1}
    with pytest.raises(ValueError, match=rf"type 'volume' has unknown keys \['{key}'\].* it may have modality, "):
        inputs_of(processor, part)


@pytest.mark.parametrize("address", ["/etc/passwd", "file:///etc/passwd", "scan.nii.gz", "https://example.org/a.png"])
def test_a_request_s_url_opens_no_file_of_this_machine(processor, address):
    """`transformers serve` puts what a stranger asks for under "url"."""
    with pytest.raises(ValueError, match=r"'url' must be a data: URI\..*'path'"):
        inputs_of(processor, {"type": "image", "url": address})


def test_a_url_holds_data_and_by_the_operator_s_choice_a_path(processor, picture, tmp_path, monkeypatch):
    path = tmp_path / "picture.png"
    Image.fromarray(picture()).save(path)
    shown = [processor.load(picture(), kind="image")]
    data = f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"
    assert_inputs_show(processor, inputs_of(processor, {"type": "image", "url": data}), shown)
    assert_inputs_show(processor, inputs_of(processor, {"type": "image", "path": str(path)}), shown)
    monkeypatch.setattr(processor, "local_urls", True)
    assert_inputs_show(processor, inputs_of(processor, {"type": "image", "url": str(path)}), shown)


def test_keys_without_a_value_are_no_keys(processor):
    """Data sets in columns (Arrow) give every part every key."""
    absent = dict.fromkeys(["text", "image", "video", "url", "plane", "windows", "series", "fps", "anything"])
    part = {"type": "volume", "volume": make_body(), **absent}
    assert_inputs_show(processor, inputs_of(processor, part), [processor.load(make_body(), kind="volume")])


# --- Brightness of large volumes ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [np.uint8, np.int8, np.uint16, np.int16, np.float32, np.float64])
@pytest.mark.parametrize("spread", ["all", "few", "one", "mostly one", "sorted", "two"])
def test_selected_percentiles_and_looked_up_levels_are_exact(kind, spread):
    """However the values lie; also where a sample of them misleads, as of sorted ones or of two slices that differ."""
    generator, shape = np.random.default_rng(0), (70, 80, 60)
    limits = np.iinfo(kind) if np.issubdtype(kind, np.integer) else np.iinfo(np.int16)
    low, high = {"all": (limits.min, limits.max), "one": (7, 7)}.get(spread, (3, 90))
    values = generator.integers(low, high, shape, endpoint=True).astype(kind)
    if spread == "mostly one":
        values[generator.random(shape) < 0.9] = 3
    elif spread == "sorted":
        values = np.sort(values, axis=None).reshape(shape)
    elif spread == "two":
        values[1:] = 5
    values = values[::-1, :, ::-1]
    expected = np.percentile(values.astype(np.float64), (1, 99))
    if expected[0] == expected[1]:
        expected = np.array([values.min(), values.max()], dtype=np.float64)
    np.testing.assert_allclose(intensity_range(values), expected, rtol=1e-12)
    np.testing.assert_array_equal(scale_intensity(values), scale_intensity(values.astype(np.float64)))


def test_grey_frames_are_one_channel_seen_three_times(tmp_path):
    for source in (make_body(), np.zeros((4, 5), np.uint8), Image.new("L", (6, 4))):
        clip = load_clip(source, modality="MR")
        assert clip.frames.shape[-1] == 3 and clip.frames.strides[-1] == 0 and not clip.frames.flags.writeable
    assert load_clip(make_body(), modality="CT").frames.flags.writeable


# --- Frames for other models --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "source", [make_body(), Image.new("L", (6, 4), 90), [np.full((4, 6, 3), t, np.uint8) for t in (1, 200)]]
)
def test_frames_are_pictures_that_may_be_drawn_into(source):
    clip = load_clip(source, modality="MR")
    pictures = clip.images()
    assert {(picture.mode, picture.size) for picture in pictures} == {("RGB", clip.frames.shape[2:0:-1])}
    assert np.array_equal(np.stack([np.asarray(picture) for picture in pictures]), clip.frames)
    before = clip.frames.copy()
    for picture in pictures:
        picture.putpixel((0, 0), (1, 2, 3))
    assert np.array_equal(clip.frames, before)
