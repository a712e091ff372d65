# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Files that are made to harm are refused before they take memory, time or another file."""

from __future__ import annotations

import gzip
import io
import os
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813 - the name all of its documentation uses
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from hub_model.media_omniv_med import (
    MediaError,
    MediaLimits,
    load_clip,
)
from tests.helpers.media_files import (
    archive_of,
    dicom_file,
    make_body,
    nifti,
    series,
    slice_dataset,
)


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
