# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""What cannot be read gets one clear sentence, and leaves the process as it was."""

from __future__ import annotations

import gzip
import io
import os
import struct
import subprocess
import sys
import threading
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813 - the name all of its documentation uses
from PIL import Image

from hub_model.media_omniv_med import (
    MediaError,
    MediaLimits,
    load_clip,
)
from tests.helpers.media_files import (
    ANATOMICAL,
    MNI,
    archive_of,
    damaged_jpeg,
    dicom_file,
    make_body,
    nifti,
    series,
    video,
)
from tests.helpers.paths import ROOT


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
