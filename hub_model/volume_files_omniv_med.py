# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Reads NIfTI, Analyze, NRRD and MetaImage files with SimpleITK, after their headers were checked."""

from __future__ import annotations

import gzip
import os
import posixpath
import re
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813 - the name all of its documentation uses

from .clip_omniv_med import MediaError, _Options
from .decoder_processes_omniv_med import native_stderr
from .nifti_headers_omniv_med import _as_nifti1, _gunzip_head, _is_cifti, _nifti_header, _NiftiHeader
from .volume_omniv_med import Scan

LARGEST_SKEW = 0.01
"""Difference of a volume's direction cosines from ones at right angles, above which that is no rounding."""


@dataclass(frozen=True)
class _PlainNifti:
    """A NIfTI file as ITK may read it.

    Attributes:
        path: what ITK opens.
        voxels: where the voxels are: the same file or one beside it.
        header: what was in the header.
    """

    path: Path
    voxels: Path
    header: _NiftiHeader


def _plain_nifti(path: Path, name: str, options: _Options, scratch: Path) -> _PlainNifti:
    """A NIfTI or Analyze file that ITK may read: unpacked, as long as its header says, and with a header it knows.

    ITK fills what a file lacks with zeros and says nothing, so lengths are checked here. Of several volumes in a
    compressed file those behind the one that is asked for are not unpacked.
    """
    with open(path, "rb") as file:
        head = file.read(1024)
    head = _gunzip_head(head) if head[:2] == b"\x1f\x8b" else head
    if head[4:7] in (b"n+2", b"ni2") and head[504:508] != bytes(4) and _is_cifti(head):
        raise MediaError(f"{name} is a CIFTI file of a brain's surface, which has no slices; give a volume.")
    plain = _as_nifti1(head)
    header = _nifti_header(plain)
    voxels = path if header.single_file else _find_img(path, options)
    if voxels is None:
        raise MediaError(
            f"{name} is a header without its voxels (.img); give both files, or save it as one .nii or .nii.gz file."
        )
    if not header.rotation_known:  # ITK takes a quaternion that is no number for no rotation
        raise MediaError(f"{name} does not say where its slices lie (not a number); save it again.")
    depth, height, width = (*header.size, 1, 1, 1)[2::-1]
    options.limits.check_volume(name, depth, height, width)
    with open(voxels, "rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    # A file that begins with the older header is read as it is; else the header goes into a file of its own.
    whole = header.single_file and head[:348] == plain
    unpacked = scratch / ("volume.nii" if whole else "volume.img")
    needed = header.start + (options.volume_index + 1) * header.volume_bytes
    if not packed:
        unpacked.symlink_to(voxels.resolve())
        length = voxels.stat().st_size
    elif needed > options.limits.max_unpacked_bytes:
        raise MediaError(f"{name} unpacks to more than {options.limits.max_unpacked_bytes} bytes; crop it first.")
    else:
        length = _unpack_volumes(voxels, unpacked, needed, header)
    if length < (min(needed, header.total_bytes) if packed else header.total_bytes):
        raise MediaError(f"{name} is damaged or cut short: it holds less than its header says; copy it again.")
    if whole:
        return _PlainNifti(unpacked, unpacked, header)
    (scratch / "volume.hdr").write_bytes(plain[:344] + b"ni1\0" + bytes(4))
    return _PlainNifti(scratch / "volume.hdr", unpacked, header)


def _find_img(path: Path, options: _Options) -> Path | None:
    """The file of voxels beside a NIfTI or Analyze header."""
    stem = os.path.splitext(posixpath.basename(_called(path, options)).removesuffix(".gz"))[0]
    return next(filter(None, (_beside(path, stem + suffix, options) for suffix in (".img", ".IMG", ".img.gz"))), None)


def _unpack_volumes(path: Path, plain: Path, needed: int, header: _NiftiHeader) -> int:
    """Writes the `needed` first bytes of a gzip file to `plain`; returns how many were there."""
    length = 0
    try:
        with gzip.open(path) as file, open(plain, "wb") as out:
            while length < needed and (chunk := file.read(min(1 << 22, needed - length))):
                length += out.write(chunk)
            if header.total_bytes <= needed:
                file.read(1)  # reaching the end of the stream makes gzip compare its checksum
            else:
                out.truncate(header.total_bytes)  # later volumes are never read: a hole stands for them
    except (OSError, EOFError, zlib.error):
        return 0
    return length


def _nrrd_voxels(head: bytes) -> tuple[bytes, int, bool]:
    """As `_meta_voxels`, for NRRD (teem.sourceforge.net/nrrd/format.html)."""
    blank = re.search(rb"\r?\n\r?\n", head)
    # Looked for behind the blank line too, in case teem sees the end of the header later than this does.
    targets = re.findall(rb"(?im)(?:^|\r)data ?file:[ \t]*([^\r\n]*)", head)
    packed = re.search(rb"(?im)^encoding:[ \t]*gz(ip)?\s", head) is not None
    if blank and not targets:
        return b"LOCAL", blank.end(), packed
    return targets[0] if len(targets) == 1 else b"", 0, packed


def _meta_voxels(head: bytes) -> tuple[bytes, int, bool]:
    """What the first bytes of a MetaImage file name as its voxels.

    MetaIO reads some headers otherwise than they look (a line without "=" runs on into the next), and would open
    whatever file they then name, so only headers of plain lines count.

    Returns:
        The name, b"LOCAL" for the file itself, b"" where it is not certain; where the header ends; and whether the
        voxels are compressed.
    """
    end = 0
    for line in head.split(b"\n"):
        end += len(line) + 1
        key, equals, value = line.partition(b"=")
        if key.strip() == b"ElementDataFile" and equals:
            return value.strip(), end, b"compresseddata=true" in head[:end].lower().replace(b" ", b"")
        if not equals or b"ElementDataFile" in line:
            break
    return b"", 0, False


def _find_voxels(path: Path, content: str, name: str, options: _Options) -> tuple[Path, str]:
    """The file that holds the voxels of a NRRD or MetaImage header, itself or one beside it, and what it calls it.

    Headers may name any file of the machine, so no other is taken. A compressed stream is measured and checked, as
    ITK shows a damaged one without a word.
    """
    with open(path, "rb") as file:
        target, start, packed = (_nrrd_voxels if content == "nrrd" else _meta_voxels)(file.read(1 << 16))
    voxels, text, limits = path, os.fsdecode(target), options.limits
    if target != b"LOCAL":
        start = 0
        plain = text == os.path.basename(text) and "%" not in text and not text.upper().startswith("LIST")
        voxels = _beside(path, text, options) if plain and text else None
        if voxels is None:
            raise MediaError(
                f"{name} is a header without its voxels; give both files, or save it as one .nrrd or .mha file."
            )
    with open(voxels, "rb") as file:
        file.seek(start)
        inflate, size = zlib.decompressobj(zlib.MAX_WBITS | 32), 0
        try:
            while packed and not inflate.eof and (chunk := inflate.unconsumed_tail or file.read(1 << 20)):
                size += len(inflate.decompress(chunk, 1 << 22))
                if size > limits.max_unpacked_bytes:
                    raise MediaError(f"{name} unpacks to more than {limits.max_unpacked_bytes} bytes; crop it first.")
        except zlib.error:
            raise MediaError(f"{name} holds damaged compressed voxels; copy it again.") from None
    return voxels, text


def _read_itk(path: Path, content: str, name: str, options: _Options, scratch: Path) -> Scan:
    """NIfTI, Analyze, NRRD or MetaImage; of more than three dimensions or many values in a voxel, one volume."""
    known, notes, volume = True, [], options.volume_index
    if content == "nifti":
        plain = _plain_nifti(path, name, options, scratch)
        path, known = plain.path, plain.header.spacing_known
    else:
        voxels, called = _find_voxels(path, content, name, options)
        folder = scratch / "volume"
        folder.mkdir()
        link = folder / f"header.{'nrrd' if content == 'nrrd' else 'mha'}"
        link.symlink_to(path.resolve())
        if voxels != path:
            (folder / called).symlink_to(voxels.resolve())
        path = link
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        with native_stderr():
            reader.ReadImageInformation()
            size, pixel = list(reader.GetSize()), reader.GetPixelID()
            depth, height, width = (*size, 1, 1)[2::-1]
            options.limits.check_volume(name, depth * reader.GetNumberOfComponents(), height, width)
            if not np.isfinite([*reader.GetDirection(), *reader.GetSpacing(), *reader.GetOrigin()]).all():
                raise MediaError(f"{name} does not say where its slices lie (not a number); save it again.")
            if pixel in (sitk.sitkComplexFloat32, sitk.sitkComplexFloat64):
                raise MediaError(f"{name} holds complex numbers; save their magnitude.")
            volumes, values = int(np.prod(size[3:])), reader.GetNumberOfComponents()
            values = 1 if values == 3 and pixel == sitk.sitkVectorUInt8 else values  # colours
            if volume >= max(volumes, values if volumes == 1 else 1):
                raise MediaError(
                    f"{name} holds {max(volumes, values)} volumes, so volume_index must lie from 0 to "
                    f"{max(volumes, values) - 1}."
                )
            if len(size) > 3:
                place = np.unravel_index(volume if volumes > 1 else 0, size[3:], order="F")  # the first runs fastest
                reader.SetExtractIndex([0, 0, 0, *map(int, place)])
                reader.SetExtractSize([*size[:3], *[0] * (len(size) - 3)])
            if volumes > 1:
                notes.append(f"The file holds {volumes} volumes; {_ordinal(volume)} is used.")
            image = reader.Execute()
    except RuntimeError as error:
        if _lacks_memory(error):
            raise
        if "orthonormal" in str(error):
            raise MediaError(f"{name} has axes that are not at right angles; resample it to ones that are.") from None
        raise MediaError(f"{name} is damaged, cut short or too big for the memory; save it again.") from None
    image = sitk.JoinSeries(image) if image.GetDimension() == 2 else image
    if content == "nifti":
        image = _restore_gaps(image, plain, volume)
        _set_axes(image, plain.header.axes, name)
        if not plain.header.axes_known:
            notes.append("The header gives no orientation; the voxels are taken to run to the left, front and head.")
    if image.GetNumberOfComponentsPerPixel() > 1 and image.GetPixelID() != sitk.sitkVectorUInt8:
        volume = volume if volumes == 1 else 0
        notes.append(f"Each voxel has {image.GetNumberOfComponentsPerPixel()} values; {_ordinal(volume)} is used.")
        image = sitk.VectorIndexSelectionCast(image, volume)
    return Scan(image, options.modality or "", known, notes=tuple(notes))


def _ordinal(volume: int) -> str:
    """How notes call a volume."""
    return "the first" if volume == 0 else f"number {volume}, counted from 0,"


def _restore_gaps(image: sitk.Image, plain: _PlainNifti, volume: int) -> sitk.Image:
    """Voxels that are no numbers (outside a mask) made so again: ITK makes zeros of them, which may mean something."""
    header = plain.header
    if not header.floats:
        return image
    shape = (*header.size, 1, 1)[2::-1]
    start = header.start + volume * header.volume_bytes
    gaps = ~np.isfinite(np.memmap(plain.voxels, header.floats, "r", start, shape))
    if not gaps.any():
        return image
    values = sitk.GetArrayFromImage(image)
    values[gaps] = np.nan
    return sitk.GetImageFromArray(values)


def _set_axes(image: sitk.Image, axes: np.ndarray, name: str) -> None:
    """Gives an image the direction and spacing of `axes`, as in `_NiftiHeader`, without their rounding."""
    steps = np.linalg.norm(axes, axis=0)
    left, _, right = np.linalg.svd(axes / steps)
    direction = left @ right  # the nearest axes at right angles
    if np.abs(direction - axes / steps).max() > LARGEST_SKEW:
        raise MediaError(f"{name} has axes that are not at right angles; resample it to ones that are.")
    image.SetDirection(direction.ravel().tolist())
    image.SetSpacing(steps.tolist())


def _called(path: Path, options: _Options) -> str:
    """What a file is called where it comes from; in an archive, with its folders."""
    return options.names.get(path, path.name)


def _beside(path: Path, target: str, options: _Options) -> Path | None:
    """The file of a name that lies beside another: in its folder of the disk or the archive, or in the same list.

    No link leads out of a folder.
    """
    if path in options.names:
        wanted = posixpath.join(posixpath.dirname(options.names[path]), target)
        return next((other for other, called in options.names.items() if called == wanted), None)
    found = path.parent / target
    return found if found.is_file() and found.resolve().parent == path.parent.resolve() else None


def _lacks_memory(error: Exception) -> bool:
    """ITK says it in words only."""
    return isinstance(error, MemoryError) or "Failed to allocate memory" in str(error)
