# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Opens DICOM files, reads their headers, and checks what they claim before any memory is allocated for it."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from .clip_omniv_med import MediaError, MediaLimits

VIDEO_SYNTAXES = "1.2.840.10008.1.2.4.10"
"""Prefix of the MPEG-2, H.264 and HEVC transfer syntaxes (PS3.5 A.4.5 to A.4.12)."""
_HEADER_TAGS = [
    "SOPClassUID",
    "SOPInstanceUID",
    "SeriesInstanceUID",
    "SeriesNumber",
    "Modality",
    "InstanceNumber",
    "Rows",
    "Columns",
    "NumberOfFrames",
    "SamplesPerPixel",
    "ImageOrientationPatient",
    "ImagePositionPatient",
    "PhotometricInterpretation",
]
_VALUE_REPRESENTATIONS = frozenset(
    b"AE AS AT CS DA DS DT FD FL IS LO LT OB OD OF OL OW PN SH SL SQ SS ST TM UI UL UN US UT".split()
)


def looks_like_dicom(head: bytes) -> bool:
    """Whether a file begins as DICOM does: the prefix of PS3.10 7.1, or a bare element of group 2 or 8."""
    if head[128:132] == b"DICM":
        return True
    if len(head) < 8:
        return False
    for order in "<>":
        group, element, length = struct.unpack(f"{order}HHI", head[:8])
        if group in (0x0002, 0x0008) and element <= 0x0070:
            return head[4:6] in _VALUE_REPRESENTATIONS or length < 256
    return False


def _refuse_deflate_bomb(path: Path, name: str, limits: MediaLimits) -> None:
    """Measures a deflated data set (PS3.5 A.5) before pydicom inflates it whole."""
    with open(path, "rb") as file:
        head = file.read(1024)
        if head[128:132] != b"DICM" or DeflatedExplicitVRLittleEndian.encode() not in head:
            return
        file.seek(144 + struct.unpack_from("<I", head, 140)[0])  # behind the file meta group, whose length is at 140
        inflate, size = zlib.decompressobj(-zlib.MAX_WBITS), 0
        try:
            while not inflate.eof and (chunk := inflate.unconsumed_tail or file.read(1 << 16)):
                size += len(inflate.decompress(chunk, 1 << 22))
                if size > limits.max_unpacked_bytes:
                    raise MediaError(f"{name} unpacks to more than {limits.max_unpacked_bytes} bytes; it is not read.")
        except zlib.error:
            raise MediaError(f"{name} holds damaged compressed data; copy it again.") from None


def open_dicom(
    path: Path, name: str, limits: MediaLimits, header_only: bool = False, more: Sequence[str] = ()
) -> Dataset:
    """Parses one file; a missing transfer syntax is the one that the data elements are written in.

    Args:
        header_only: reads what tells series and slices apart, and no pixels.
        more: keywords of elements that are read with these.
    """
    _refuse_deflate_bomb(path, name, limits)
    try:
        dataset = pydicom.dcmread(
            path,
            force=True,
            stop_before_pixels=header_only,
            specific_tags=[*_HEADER_TAGS, *more] if header_only else None,
        )
        if "TransferSyntaxUID" not in dataset.file_meta:
            implicit, little = dataset.original_encoding
            explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
            dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
    except MemoryError:
        raise
    except Exception:
        raise MediaError(f"{name} looks like DICOM but cannot be parsed; it is damaged, so copy it again.") from None
    return dataset


def numbers_of(dataset: Dataset, keyword: str, count: int) -> np.ndarray | None:
    """The `count` finite numbers of an element, or None where it is missing, empty or malformed."""
    try:
        values = np.atleast_1d(np.array(dataset.get(keyword), dtype=np.float64))
    except (TypeError, ValueError):
        return None
    return values if values.shape == (count,) and np.isfinite(values).all() else None


def number_of(dataset: Dataset, keyword: str) -> float | None:
    values = numbers_of(dataset, keyword, 1)
    return None if values is None else float(values[0])


def modality_of(dataset: Dataset) -> str:
    """The modality code (PS3.3 C.7.3.1.1.1), or "" for what is no code: in a damaged header it can be anything."""
    code = str(dataset.get("Modality") or "")
    return code if re.fullmatch(r"[A-Z0-9_ ]{1,16}", code) else ""


def frame_count(dataset: Dataset, name: str) -> int:
    """NumberOfFrames (PS3.3 C.7.6.6), 1 where it is missing."""
    if dataset.get("NumberOfFrames") in (None, ""):
        return 1
    count = number_of(dataset, "NumberOfFrames")
    if count is None or count < 1:
        raise MediaError(f"{name} has a NumberOfFrames that is not a number; the header is damaged.")
    return int(count)


def check_pixels(dataset: Dataset, name: str, limits: MediaLimits) -> int:
    """Checks that there are pixels, within the limits and the file's length; returns the number of frames."""
    modality = modality_of(dataset) or "unknown"
    held = next((key for key in ("PixelData", "FloatPixelData", "DoubleFloatPixelData") if key in dataset), None)
    if held is None or not dataset.get("Rows") or not dataset.get("Columns"):
        if "DirectoryRecordSequence" in dataset:
            raise MediaError(f"{name} is a DICOMDIR, an index without pixels; give the folder that it lies in.")
        raise MediaError(
            f"{name} is a DICOM file without pixels (modality {modality}), such as a report, a plan or a file that "
            "was cut short; give the image series instead."
        )
    count = frame_count(dataset, name)
    limits.check_frames(name, count, int(dataset.Rows), int(dataset.Columns))
    if not dataset.file_meta.TransferSyntaxUID.is_transfer_syntax:
        raise MediaError(f"{name} names no known transfer syntax for its pixels; export it again as plain DICOM.")
    if not dataset.file_meta.TransferSyntaxUID.is_compressed and dataset.get("BitsAllocated"):
        samples = int(dataset.get("SamplesPerPixel") or 1)
        if dataset.get("PhotometricInterpretation") == "YBR_FULL_422":
            samples = 2  # two luma samples share one pair of chroma samples, PS3.3 C.7.6.3.1.2
        bits = count * int(dataset.Rows) * int(dataset.Columns) * samples * int(dataset.BitsAllocated)
        if len(dataset[held].value or b"") < bits // 8:
            raise MediaError(f"{name} is cut short: it holds fewer pixels than its header says; copy it again.")
    elif not dataset.file_meta.TransferSyntaxUID.startswith(VIDEO_SYNTAXES):
        _refuse_stream_bomb(dataset, count, name, limits)
    return count


def _stream_size(stream: bytes) -> tuple[int, int]:
    """Rows and columns that a JPEG, JPEG-LS (ITU-T T.81 B.2, T.87 C.2) or JPEG 2000 (T.800 A.5) stream claims, or 0, 0.

    Decoders take memory by these numbers, whatever the DICOM header says.
    """
    if (start := stream.find(b"\xff\x4f\xff\x51", 0, 1024)) >= 0 and len(stream) >= start + 24:
        right, bottom, left, top = struct.unpack_from(">4I", stream, start + 8)
        return max(bottom - top, 0), max(right - left, 0)
    place = 2 if stream[:2] == b"\xff\xd8" else len(stream)
    while place + 9 <= len(stream) and stream[place] == 0xFF:
        marker = stream[place + 1]
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            return struct.unpack_from(">HH", stream, place + 5)
        # A marker may have any number of 0xFF before it.
        place += 1 if marker == 0xFF else 2 + struct.unpack_from(">H", stream, place + 2)[0]
    return 0, 0


def _refuse_stream_bomb(dataset: Dataset, count: int, name: str, limits: MediaLimits) -> None:
    """Raises `MediaError` where the compressed stream of a frame claims more pixels than a frame may have."""
    try:
        sizes = {_stream_size(frame) for frame in generate_frames(dataset.PixelData, number_of_frames=count)}
    except Exception:  # a damaged table of frames, which the decoder will find too
        return
    for height, width in sizes:
        if height * width > limits.max_pixels:
            raise MediaError(
                f"{name} holds pixels that cannot be decoded safely: their stream claims {height} x {width}, over the "
                f"limit of {limits.max_pixels}; copy it again, or make it smaller."
            )


def is_colour(dataset: Dataset) -> bool:
    return int(dataset.get("SamplesPerPixel") or 1) == 3 or dataset.get("PhotometricInterpretation") == "PALETTE COLOR"


def is_inverted(dataset: Dataset) -> bool:
    """Whether low values are bright (PS3.3 C.7.6.3.1.2 and C.11.6.1.2)."""
    return bool(
        dataset.get("PhotometricInterpretation") == "MONOCHROME1" or dataset.get("PresentationLUTShape") == "INVERSE"
    )


def find_pixel_spacing(dataset: Dataset) -> tuple[tuple[float, float], str]:
    """Millimetres per pixel (rows, columns) and a note: PS3.3 10.7.1.3, C.8.11.3.1.1, and ultrasound C.8.5.5."""
    spacing = numbers_of(dataset, "PixelSpacing", 2)
    if spacing is not None and (spacing > 0).all():
        return (float(spacing[0]), float(spacing[1])), ""
    for key in ("ImagerPixelSpacing", "NominalScannedPixelSpacing"):
        spacing = numbers_of(dataset, key, 2)
        if spacing is not None and (spacing > 0).all():
            return (float(spacing[0]), float(spacing[1])), "Pixel spacing is that of the detector, not of the body."
    for region in dataset.get("SequenceOfUltrasoundRegions") or ():
        if region.get("PhysicalUnitsXDirection") == 3 and region.get("PhysicalUnitsYDirection") == 3:  # 3: centimetres
            rows, columns = number_of(region, "PhysicalDeltaY"), number_of(region, "PhysicalDeltaX")
            if rows and columns:
                return (abs(rows) * 10, abs(columns) * 10), ""
    return (0.0, 0.0), ""


def find_frame_times(dataset: Dataset, count: int) -> tuple[np.ndarray, bool]:
    """Seconds of every frame, float64 (count,), and whether the header gives them (PS3.3 C.7.6.5)."""
    steps = numbers_of(dataset, "FrameTimeVector", count)
    if steps is not None and (steps[1:] > 0).all():
        return np.cumsum(np.concatenate([[0.0], steps[1:]])) / 1000, True
    if (milliseconds := number_of(dataset, "FrameTime")) and milliseconds > 0:
        return np.arange(count) * milliseconds / 1000, True
    for key in ("CineRate", "RecommendedDisplayFrameRate"):
        if (rate := number_of(dataset, key)) and rate > 0:
            return np.arange(count) / rate, True
    return np.arange(count, dtype=np.float64), False
