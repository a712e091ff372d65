# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Reads NRRD and MetaImage files with SimpleITK after checking which file their headers name for the voxels."""

from __future__ import annotations

import os
import re
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813 - the name all of its documentation uses

from .clip_omniv_med import MediaError
from .library_guards_omniv_med import lacks_memory, native_stderr
from .nifti_files_omniv_med import read_nifti
from .reading_job_omniv_med import ReadingJob
from .volume_omniv_med import Volume, note_volumes


@dataclass(frozen=True)
class _Voxels:
    """The file that holds the voxels of a NRRD or MetaImage header.

    Attributes:
        path: the file itself or one beside it.
        called: what the header calls it.
        unpacked_bytes: how much a compressed stream holds, None where the voxels are not compressed.
    """

    path: Path
    called: str
    unpacked_bytes: int | None


def _find_voxels(path: Path, content: str, job: ReadingJob) -> _Voxels:
    """The voxels of a NRRD or MetaImage header.

    Headers may name any file of the machine, so only the file itself or one beside it is taken. A compressed stream is
    measured and checked, as ITK shows a damaged one without a word, and memory that it never wrote where it is short.
    """
    with open(path, "rb") as file:
        target, start, packed = (_nrrd_voxels if content == "nrrd" else _meta_voxels)(file.read(1 << 16))
    voxels, text, name, limits = path, os.fsdecode(target), job.name, job.options.limits
    if target != b"LOCAL":
        start = 0
        plain = text == os.path.basename(text) and "%" not in text and not text.upper().startswith("LIST")
        beside = job.find_beside(path, text) if plain and text else None
        if beside is None:
            raise MediaError(
                f"{name} is a header without its voxels; give both files, or save it as one .nrrd or .mha file."
            )
        voxels = beside
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
    return _Voxels(voxels, text, size if packed else None)


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
    end, packed = 0, False
    for line in head.split(b"\n"):
        end += len(line) + 1
        key, equals, value = line.partition(b"=")
        if key.strip() == b"ElementDataFile" and equals:
            return value.strip(), end, packed
        if key.strip() == b"CompressedData":
            packed = value.strip()[:1] in (b"T", b"t", b"1")  # MetaIO goes by the first letter, too
        if not equals or b"ElementDataFile" in line:
            break
    return b"", 0, False


def read_volume_file(path: Path, content: str, job: ReadingJob) -> Volume:
    """A NIfTI, Analyze, NRRD or MetaImage file; of more than three axes or several values in a voxel, one volume.

    Args:
        path: the file, or the header beside the file of its voxels.
        content: "nifti" (Analyze too), "nrrd" or "meta".
        job: what the file is read for.
    """
    return read_nifti(path, job) if content == "nifti" else _read_with_itk(path, content, job)


def _read_with_itk(path: Path, content: str, job: ReadingJob) -> Volume:
    """A NRRD or MetaImage file."""
    name, options = job.name, job.options
    voxels = _find_voxels(path, content, job)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(_link_files(path, content, voxels, job)))
    try:
        with native_stderr():
            reader.ReadImageInformation()
            size, pixel, values = list(reader.GetSize()), reader.GetPixelID(), reader.GetNumberOfComponents()
            depth, height, width = (*size, 1, 1)[2::-1]
            options.limits.check_volume(name, depth * values, height, width)
            if not np.isfinite([*reader.GetDirection(), *reader.GetSpacing(), *reader.GetOrigin()]).all():
                raise MediaError(f"{name} does not say where its slices lie (not a number); save it again.")
            if pixel in (sitk.sitkComplexFloat32, sitk.sitkComplexFloat64):
                raise MediaError(f"{name} holds complex numbers; save their magnitude.")
            voxel_bytes = values * sitk.Image([1, 1, 1], pixel, values).GetSizeOfPixelComponent()
            if (
                voxels.unpacked_bytes is not None
                and voxels.unpacked_bytes < int(np.prod(size, dtype=object)) * voxel_bytes
            ):
                raise MediaError(f"{name} is damaged or cut short: it holds less than its header says; copy it again.")
            colours = pixel == sitk.sitkVectorUInt8
            volumes = int(np.prod(size[3:]))
            vectors = volumes == 1 and values > 1 and not (colours and values == 3)
            count = values if vectors else volumes
            options.check_volume_index(name, count)
            notes = [*job.note_companion(path, voxels.path, voxels.called), *note_volumes(count, vectors, options)]
            if len(size) > 3:
                number = options.volume_index if volumes > 1 else 0
                place = np.unravel_index(number, size[3:], order="F")  # the first axis runs fastest
                reader.SetExtractIndex([0, 0, 0, *map(int, place)])
                reader.SetExtractSize([*size[:3], *[0] * (len(size) - 3)])
            image = reader.Execute()
    except RuntimeError as error:
        if lacks_memory(error):
            raise
        if "orthonormal" in str(error):
            raise MediaError(f"{name} has axes that are not at right angles; resample it to ones that are.") from None
        raise MediaError(f"{name} is damaged, cut short or too big for the memory; save it again.") from None
    image = sitk.JoinSeries(image) if image.GetDimension() == 2 else image
    if values > 1 and not colours:
        image = sitk.VectorIndexSelectionCast(image, options.volume_index if vectors else 0)
    return Volume(image, options.modality or "", notes=tuple(notes))


def _link_files(path: Path, content: str, voxels: _Voxels, job: ReadingJob) -> Path:
    """The header under a name by which ITK knows its format, beside its voxels under the name that it calls them."""
    folder = job.scratch / "volume"
    folder.mkdir()
    link = folder / ("header.nrrd" if content == "nrrd" else "header.mha")
    link.symlink_to(path.resolve())
    if voxels.path != path:
        (folder / voxels.called).symlink_to(voxels.path.resolve())
    return link
