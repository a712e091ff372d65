# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Reads NIfTI-1, NIfTI-2 and Analyze 7.5 files: nibabel parses the header, which is checked before voxels are read."""

from __future__ import annotations

import gzip
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk  # noqa: N813 - the name all of its documentation uses

from .clip_omniv_med import MediaError
from .reading_job_omniv_med import ReadingJob
from .volume_omniv_med import Volume, note_volumes

LARGEST_SKEW = 0.01
"""Difference of a volume's direction cosines from ones at right angles, above which that is no rounding."""
NIFTI1_BYTES, NIFTI2_BYTES = 348, 540
"""Lengths of the headers; Analyze's is as long as NIfTI-1's."""
ANALYZE_TYPES = frozenset({2, 4, 8, 16, 64, 128})
CIFTI_INTENTS = range(3000, 3100)
"""Intent codes of brain surfaces and of tables about them (CIFTI-2, table 1)."""
GZIP = b"\x1f\x8b"
READ_BYTES = 1 << 22


def is_nifti(head: bytes) -> bool:
    """Whether a file that begins with these bytes is NIfTI or Analyze; where it is compressed, see `unpack_head`."""
    return _identify_header(head) is not None


def unpack_head(head: bytes) -> bytes:
    """The first 540 bytes, as long as the longest header, that the first bytes of a gzip file unpack to, or fewer."""
    try:
        return zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(head, NIFTI2_BYTES)
    except zlib.error:
        return b""


def _identify_header(head: bytes) -> tuple[str, str] | None:
    """Format ("NIfTI-1", "NIfTI-2" or "Analyze") and byte order ("<" or ">") of a header; None for anything else.

    Analyze has no signature, so its fields must make sense.
    """
    for order in "<>":
        if len(head) >= NIFTI1_BYTES and head[:4] == struct.pack(f"{order}i", NIFTI1_BYTES):
            if head[344:347] in (b"n+1", b"ni1"):
                return "NIfTI-1", order
            axes, datatype = (struct.unpack_from(f"{order}h", head, place)[0] for place in (40, 70))
            if 1 <= axes <= 7 and datatype in ANALYZE_TYPES and head[38:39] in (b"r", b"\0"):
                return "Analyze", order
        if len(head) >= NIFTI2_BYTES and head[:4] == struct.pack(f"{order}i", NIFTI2_BYTES):
            return ("NIfTI-2", order) if head[4:7] in (b"n+2", b"ni2") else None
    return None


@dataclass(frozen=True)
class NiftiHeader:
    """What a header says of its voxels.

    Attributes:
        size: voxels along each stored axis, three or more, the first running fastest.
        voxel: NumPy type of a stored voxel, uint8 for colours.
        channels: colours of a voxel, 1 for a measured value.
        start: bytes before the voxels in their file.
        slope, offset: what stored values become values by, or None.
        axes: float64 (3, 3), LPS millimetres of a step along each stored axis, one a column.
        first: float64 (3,), LPS millimetres of the first voxel's centre; without a meaning where axes are not known.
        axes_known, spacing_known: whether the header gives them.
        single_file: whether the voxels follow in the same file.
    """

    size: tuple[int, ...]
    voxel: np.dtype[Any]
    channels: int
    start: int
    scale: tuple[float, float] | None
    axes: np.ndarray
    first: np.ndarray
    axes_known: bool
    spacing_known: bool
    single_file: bool

    @property
    def origins(self) -> np.ndarray | None:
        """float64 (slices, 3), LPS millimetres of the centre of each slice's first voxel; None where not known."""
        if not self.axes_known or not np.isfinite(self.first).all():
            return None
        return self.first + np.arange(self.size[2])[:, None] * self.axes[:, 2]

    @property
    def volumes(self) -> int:
        """How many volumes of three axes there are."""
        return int(np.prod(self.size[3:], dtype=object))

    @property
    def volume_bytes(self) -> int:
        """Length of one volume."""
        return int(np.prod(self.size[:3], dtype=object)) * self.channels * self.voxel.itemsize


def read_header(path: Path, name: str) -> NiftiHeader:
    """The header of a NIfTI or Analyze file, compressed or not.

    Args:
        path: the file.
        name: what messages call it.

    Raises:
        MediaError: a header of voxels that cannot be shown, or that does not say where they lie.
    """
    with open(path, "rb") as file:
        head = file.read(1024)
    if head.startswith(GZIP):
        head = unpack_head(head)
    try:
        from nibabel.nifti1 import Nifti1Header
        from nibabel.nifti2 import Nifti2Header
        from nibabel.spatialimages import HeaderDataError
        from nibabel.spm2analyze import Spm2AnalyzeHeader  # Analyze itself does not scale; SPM and its readers do
    except ImportError:
        raise MediaError("NIfTI and Analyze files need the package nibabel; install it.") from None
    kind, order = _identify_header(head) or ("NIfTI-1", "<")
    made: Any = {"NIfTI-1": Nifti1Header, "NIfTI-2": Nifti2Header, "Analyze": Spm2AnalyzeHeader}[kind]
    header = made(head[: made.sizeof_hdr], endianness=order, check=False)
    if kind == "NIfTI-2" and int(header["intent_code"]) in CIFTI_INTENTS:
        raise MediaError(f"{name} is a CIFTI file of a brain's surface, which has no slices; give a volume.")
    try:
        voxel = header.get_data_dtype()
        scale = header.get_slope_inter()
    except (KeyError, HeaderDataError):
        raise MediaError(f"{name} cannot be read: its header names no known type or scale; save it again.") from None
    if scale[0] is not None and not np.isfinite(np.float32(scale)).all():
        raise MediaError(f"{name} cannot be read: its header scales the voxels beyond all numbers; save it again.")
    channels = len(voxel.names or (0,))
    voxel = np.dtype(np.uint8) if voxel.names else voxel
    if voxel.kind == "c":
        raise MediaError(f"{name} holds complex numbers; save their magnitude.")
    if voxel.kind not in "iuf" or voxel.itemsize > 8:
        raise MediaError(f"{name} cannot be read: its voxels are no usual numbers; save them as 32-bit floats.")
    dimensions = [int(extent) for extent in header["dim"]]
    size = [max(extent, 0) for extent in dimensions[1 : 1 + min(max(dimensions[0], 0), 7)]]
    start = float(header["vox_offset"])  # a float in NIfTI-1
    if start < 0:
        raise MediaError(f"{name} is damaged: its header says that the voxels begin before the file; copy it again.")
    single_file = kind != "Analyze" and bytes(header["magic"]).startswith(b"n+")
    least = made.sizeof_hdr if single_file else 0
    spacing_known = all(step > 0 for step in header["pixdim"][1 : 1 + min(len(size), 3)])
    place, axes_known = _find_place(header, name) if kind != "Analyze" else (_usual_place(header), False)
    return NiftiHeader(
        size=(*size, *[1] * (3 - len(size))),
        voxel=voxel,
        channels=channels,
        start=max(int(start) if np.isfinite(start) else 0, least),
        scale=None if scale[0] is None or channels > 1 or scale == (1, 0) else scale,
        axes=place[:, :3],
        first=place[:, 3],
        axes_known=axes_known,
        spacing_known=spacing_known,
        single_file=single_file,
    )


def _steps(header: Any) -> np.ndarray:
    """float64 (3,), the units from voxel to voxel along each stored axis, 1 where the header does not say."""
    steps: np.ndarray = np.abs(header["pixdim"][1:4].astype(np.float64))
    return np.where(np.isfinite(steps) & (steps > 0), steps, 1.0)


def _usual_place(header: Any) -> np.ndarray:
    """As `_find_place`: axes that run to the left, the front and the head, which a header without any means."""
    return np.column_stack([np.diag(_steps(header) * [1.0, -1.0, 1.0]), np.zeros(3)])


def _find_place(header: Any, name: str) -> tuple[np.ndarray, bool]:
    """The `axes` of a `NiftiHeader` and, as a fourth column, `first`; and whether the header gives them.

    They are the sform's where its code says there is one, else the qform's (nifti1.h, "orientation and location in
    space").
    """
    unit = {1: 1000.0, 3: 0.001}.get(int(header["xyzt_units"]) & 7, 1.0)  # metres, micrometres
    lps = np.diag([-unit, -unit, unit])
    rows = np.stack([header[row] for row in ("srow_x", "srow_y", "srow_z")]).astype(np.float64)
    quaternion = np.array([header[f"quatern_{part}"] for part in "bcd"], dtype=np.float64)
    by_rows, by_quaternion = header["sform_code"] > 0, header["qform_code"] > 0
    axes = rows[:, :3]
    if by_rows and np.isfinite(axes).all() and np.linalg.norm(axes, axis=0).all():
        return lps @ rows, True
    if (by_rows and not np.isfinite(axes).all()) or (by_quaternion and not np.isfinite(quaternion).all()):
        raise MediaError(f"{name} does not say where its slices lie (not a number); save it again.")
    if not by_quaternion:
        return _usual_place(header) * unit, False
    # nibabel refuses a quaternion that is a little too long, and steps below zero.
    header["pixdim"][:4] = [-1.0 if header["pixdim"][0] < 0 else 1.0, *_steps(header)]
    for part, value in zip("bcd", quaternion / max(float(np.linalg.norm(quaternion)), 1.0), strict=True):
        header[f"quatern_{part}"] = value
    return lps @ np.asarray(header.get_qform(), dtype=np.float64)[:3], True


def read_nifti(path: Path, job: ReadingJob) -> Volume:
    """A NIfTI or Analyze file, compressed or not, or the header of one; of several volumes the one asked for."""
    name, options = job.name, job.options
    header = read_header(path, name)
    voxels = path if header.single_file else _find_voxels(path, job)
    if voxels is None:
        raise MediaError(
            f"{name} is a header without its voxels (.img); give both files, or save it as one .nii or .nii.gz file."
        )
    width, height, depth = header.size[:3]
    options.limits.check_volume(name, depth * header.channels, height, width)
    vectors = len(header.size) > 4 and header.size[3] == 1
    options.check_volume_index(name, header.volumes)
    notes = [*job.note_companion(path, voxels), *note_volumes(header.volumes, vectors, options)]
    values = _read_volume(voxels, header, job)
    if header.scale:
        values = _apply_scale(values, *header.scale)
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    image = sitk.GetImageFromArray(values, isVector=header.channels > 1)
    _set_axes(image, header.axes, name)
    if not header.axes_known:
        notes.append("The header gives no orientation; the voxels are taken to run to the left, front and head.")
    return Volume(
        image,
        options.modality or "",
        header.spacing_known,
        origins=header.origins,
        notes=tuple(notes),
        axes=header.axes,
    )


def _find_voxels(path: Path, job: ReadingJob) -> Path | None:
    """The file of voxels beside a NIfTI or Analyze header."""
    stem = job.stem_of(path)
    return next(filter(None, (job.find_beside(path, stem + suffix) for suffix in (".img", ".IMG", ".img.gz"))), None)


def _read_volume(path: Path, header: NiftiHeader, job: ReadingJob) -> np.ndarray:
    """The stored values (z, y, x) or (z, y, x, channels) of the volume that is asked for, mapped where possible."""
    name, limits = job.name, job.options.limits
    first = header.start + job.options.volume_index * header.volume_bytes
    end = header.start + header.volumes * header.volume_bytes
    shape = (*header.size[2::-1], *([header.channels] if header.channels > 1 else []))
    incomplete = f"{name} is damaged or cut short: it holds less than its header says; copy it again."
    with open(path, "rb") as file:
        packed = file.read(2) == GZIP
    if not packed:
        if path.stat().st_size < end:
            raise MediaError(incomplete)
        return np.memmap(path, header.voxel, "r", first, shape)
    if first + header.volume_bytes > limits.max_unpacked_bytes:
        raise MediaError(f"{name} unpacks to more than {limits.max_unpacked_bytes} bytes; crop it first.")
    values = np.empty(shape, header.voxel)
    target = values.reshape(-1).view(np.uint8).data
    try:
        with gzip.open(path) as file:
            file.seek(first)
            read = 0
            while read < len(target):
                part = file.readinto(target[read : read + READ_BYTES])
                if not part:
                    raise EOFError
                read += part
            if first + header.volume_bytes == end:
                file.read(1)  # reaching the end of the stream makes gzip compare its checksum
    except (OSError, EOFError, zlib.error):
        raise MediaError(incomplete) from None
    return values


def _apply_scale(stored: np.ndarray, slope: float, offset: float) -> np.ndarray:
    """Stored values (z, …) to values, computed in float64; float32 where the stored ones are short."""
    values = np.empty(stored.shape, np.float32 if stored.dtype.itemsize <= 2 else np.float64)
    for part, out in zip(stored, values, strict=True):
        out[...] = part * np.float64(slope) + offset
    return values


def _set_axes(image: sitk.Image, axes: np.ndarray, name: str) -> None:
    """Gives an image the direction and spacing of `axes`, as in `NiftiHeader`, without their rounding."""
    steps = np.linalg.norm(axes, axis=0)
    left, _, right = np.linalg.svd(axes / steps)
    direction = left @ right  # the nearest axes at right angles
    if np.abs(direction - axes / steps).max() > LARGEST_SKEW:
        raise MediaError(f"{name} has axes that are not at right angles; resample it to ones that are.")
    image.SetDirection(direction.ravel().tolist())
    image.SetSpacing(steps.tolist())
