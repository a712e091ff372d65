# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Identifies a file by its first bytes, whatever its name says."""

from __future__ import annotations

from pathlib import Path

from .dicom_files_omniv_med import looks_like_dicom
from .nifti_files_omniv_med import is_nifti, unpack_head

VOLUME_FILES = ("nifti", "nrrd", "meta")
"""Formats of one volume in a file, or in a header beside the file of its voxels."""


def identify(path: Path) -> str:
    """Tells "dicom", "nifti" (Analyze too), "nrrd", "meta", "numpy", "zip", "picture" or "video"; "" if unknown."""
    with open(path, "rb") as file:
        head = file.read(1024)
    if head[128:132] == b"DICM":  # first: the preamble before it may be that of a TIFF file (PS3.10 7.1)
        return "dicom"
    packed = head[:2] == b"\x1f\x8b"
    first = unpack_head(head) if packed else head
    if is_nifti(first):
        return "nifti"
    if packed:
        return ""
    if head[:7] == b"NRRD000":
        return "nrrd"
    if head[:6] == b"\x93NUMPY":
        return "numpy"
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return "zip"
    if head[:8] == b"\x89PNG\r\n\x1a\n" or head[:3] == b"\xff\xd8\xff" or head[:2] == b"BM" or head[:4] == b"GIF8":
        return "picture"
    if head[:4] in (b"II*\0", b"MM\0*", b"\xff\x4f\xff\x51") or head[4:8] == b"jP  " or head[8:12] == b"WEBP":
        return "picture"
    if head[:4] == b"\x1aE\xdf\xa3" or (head[:4] == b"RIFF" and head[8:12] == b"AVI "):
        return "video"
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip") or head[:4] == b"\0\0\x01\xba":
        return "video"
    # MPEG transport streams (ISO/IEC 13818-1, 2.4.3) begin each packet with 0x47; Blu-ray's have four bytes before it.
    if head[:753:188] == b"G" * 5 or head[4:773:192] == b"G" * 5:
        return "video"
    if looks_like_dicom(head):
        return "dicom"
    return "meta" if b"NDims" in head and b"=" in head else ""
