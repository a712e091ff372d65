# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Reads the headers of NIfTI-1, NIfTI-2 and Analyze 7.5 files."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

import numpy as np

NIFTI_BITS = {2: 8, 4: 16, 8: 32, 16: 32, 32: 64, 64: 64, 128: 24, 256: 8, 512: 16, 768: 32, 1024: 64, 1280: 64}
NIFTI_BITS |= {1792: 128, 2304: 32}
"""Bits of a voxel by NIfTI-1 data type, of those that ITK reads: integers, floats, complex numbers and colours."""


@dataclass(frozen=True)
class _NiftiHeader:
    """What must be known of a NIfTI file before ITK may read it."""

    size: tuple[int, ...]
    volume_bytes: int  # of one volume of three axes
    total_bytes: int  # from the start of the file to the end of the last volume
    single_file: bool
    spacing_known: bool
    rotation_known: bool
    axes: np.ndarray  # (3, 3), LPS millimetres of a step along each stored axis, one a column
    axes_known: bool
    floats: str  # NumPy's name of the type of floating-point voxels, "" for others
    start: int  # of the voxels, in bytes


def _nifti_axes(head: bytes, order: str) -> tuple[np.ndarray, bool]:
    """The `axes` of a `_NiftiHeader`, and whether the header gives them.

    They are the sform's where its code says there is one, else the qform's, else the stored ones are taken to run to
    the left, the front and the head (nifti1.h, "orientation and location in space", and what nibabel does). ITK
    takes the qform of some headers with both, and turns the front to the back where there is none.
    """
    by_quaternion, by_rows = struct.unpack_from(f"{order}2h", head, 252)
    unit = {1: 1000.0, 3: 0.001}.get(head[123] & 7, 1.0)  # metres, micrometres
    lps = np.diag([-unit, -unit, unit])
    rows = np.array(struct.unpack_from(f"{order}12f", head, 280)).reshape(3, 4)[:, :3]
    if by_rows > 0 and np.isfinite(rows).all() and np.linalg.norm(rows, axis=0).all():
        return lps @ rows, True
    handedness, *steps = np.array(struct.unpack_from(f"{order}4f", head, 76))
    steps = np.array([abs(step) if np.isfinite(step) and step else 1.0 for step in steps])
    b, c, d = struct.unpack_from(f"{order}3f", head, 256)
    if by_quaternion <= 0 or not np.isfinite([b, c, d]).all():
        return lps @ np.diag([-1.0, 1.0, 1.0]) * steps, False
    a = max(1 - b * b - c * c - d * d, 0.0) ** 0.5
    a, b, c, d = np.array([a, b, c, d]) / np.linalg.norm([a, b, c, d])
    rotation = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )
    return lps @ rotation * steps * [1, 1, -1 if handedness < 0 else 1], True


def _as_nifti1(head: bytes) -> bytes:
    """The header of a NIfTI-1, NIfTI-2 or Analyze 7.5 file as NIfTI-1 has it (348 bytes); empty for anything else."""
    for order in "<>":
        if len(head) >= 348 and head[:4] == struct.pack(f"{order}i", 348):
            return head[:348] if head[344:347] in (b"n+1", b"ni1") else _analyze_as_nifti1(head, order)
        if len(head) >= 540 and head[:4] == struct.pack(f"{order}i", 540) and head[4:7] in (b"n+2", b"ni2"):
            return _nifti2_as_nifti1(head, order)
    return b""


def _nifti2_as_nifti1(head: bytes, order: str) -> bytes:
    """Its fields at their places in the older header (nifti2.h, nifti1.h); ITK does not read the newer one."""
    extents, (start,) = struct.unpack_from(f"{order}8q", head, 16), struct.unpack_from(f"{order}q", head, 168)
    # What the shorter fields of the older one cannot hold is refused later, as no size at all.
    fits = all(0 <= extent < 2**15 for extent in extents) and 0 <= start < 2**24
    with np.errstate(over="ignore"):
        steps, scale, qform, sform = (
            np.frombuffer(head, f"{order}f8", count, place).astype(f"{order}f4").tobytes()
            for count, place in ((8, 104), (2, 176), (6, 352), (12, 400))
        )
    old = bytearray(348)
    struct.pack_into(f"{order}i", old, 0, 348)
    struct.pack_into(f"{order}8h", old, 40, *(extents if fits else [3, *[0] * 7]))
    old[70:74] = head[12:16]  # the type of voxels, and their bits
    old[76:108] = steps
    least = 540 if head[4:7] == b"n+2" else 0
    struct.pack_into(f"{order}f", old, 108, max(start, least) if fits else 0)
    old[112:120] = scale
    old[123] = struct.unpack_from(f"{order}i", head, 500)[0] & 0x3F
    codes = struct.unpack_from(f"{order}2i", head, 344)
    struct.pack_into(f"{order}2h", old, 252, *(min(max(code, 0), 1) for code in codes))
    old[256:280], old[280:328] = qform, sform
    old[344:347] = b"n+1" if head[4:7] == b"n+2" else b"ni1"
    return bytes(old)


def _analyze_as_nifti1(head: bytes, order: str) -> bytes:
    """What the two formats share: sizes, type and steps; empty where it is no Analyze header after all.

    Analyze gives no orientation. Its values are scaled as SPM2 did, which nibabel follows, too.
    """
    extents, (code,) = struct.unpack_from(f"{order}8h", head, 40), struct.unpack_from(f"{order}h", head, 70)
    if not 1 <= extents[0] <= 7 or code not in (2, 4, 8, 16, 64, 128) or head[38:39] not in (b"r", b"\0"):
        return b""
    old = bytearray(head[:148]) + bytes(200)
    old[56:70], old[74:76], old[120:124] = bytes(14), bytes(2), bytes(4)
    slope, offset = struct.unpack_from(f"{order}2f", head, 112)
    shown, stored = struct.unpack_from(f"{order}2f", head, 124), struct.unpack_from(f"{order}2i", head, 140)
    if np.isfinite(slope) and slope:
        offset = offset if np.isfinite(offset) else 0.0
    elif np.isfinite(shown).all() and shown[0] != shown[1] and stored[0] != stored[1]:
        slope = (shown[0] - shown[1]) / (stored[0] - stored[1])
        offset = shown[1] - slope * stored[1]
    else:
        slope, offset = 0.0, 0.0  # none
    struct.pack_into(f"{order}2f", old, 112, slope, offset)
    old[344:347] = b"ni1"
    return bytes(old)


def _nifti_header(head: bytes) -> _NiftiHeader | None:
    """Parses the first 348 bytes of NIfTI-1; None for anything else."""
    for order in "<>":
        if len(head) < 348 or head[:4] != struct.pack(f"{order}i", 348) or head[344:347] not in (b"n+1", b"ni1"):
            continue
        dims, (datatype,) = struct.unpack_from(f"{order}8h", head, 40), struct.unpack_from(f"{order}h", head, 70)
        steps, (offset,) = struct.unpack_from(f"{order}8f", head, 76), struct.unpack_from(f"{order}f", head, 108)
        size = tuple(max(extent, 0) for extent in dims[1 : 1 + min(max(dims[0], 0), 7)])
        # ITK goes by the data type whatever the header's bits per voxel are, and never reads the header as voxels.
        bits = NIFTI_BITS.get(datatype, 0)
        single_file = head[344:347] == b"n+1"
        start = max(int(offset) if np.isfinite(offset) else 0, 348 if single_file else 0)
        volume, everything = (int(np.prod(part, dtype=object)) * bits // 8 for part in (size[:3], size))
        known = all(step > 0 for step in steps[1:4][: len(size)])
        (by_quaternion,) = struct.unpack_from(f"{order}h", head, 252)
        rotated = by_quaternion <= 0 or np.isfinite(struct.unpack_from(f"{order}3f", head, 256)).all()
        axes = _nifti_axes(head, order)
        floats = {16: f"{order}f4", 64: f"{order}f8"}.get(datatype, "")
        return _NiftiHeader(size, volume, start + everything, single_file, known, bool(rotated), *axes, floats, start)
    return None


def _is_cifti(head: bytes) -> bool:
    """Whether a NIfTI-2 header announces CIFTI (its specification, table 1): intent codes 3000 to 3099."""
    order = "<" if head[:4] == struct.pack("<i", 540) else ">"
    return 3000 <= struct.unpack_from(f"{order}i", head, 504)[0] < 3100


def _gunzip_head(head: bytes) -> bytes:
    """The first 540 bytes, as long as the longest header, that the first bytes of a gzip file unpack to, or fewer."""
    try:
        return zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(head, 540)
    except zlib.error:
        return b""
