# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Reads NRRD and MetaImage files with SimpleITK after checking which file their headers name for the voxels."""

from __future__ import annotations

import os
import re
import zlib
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813 - the name all of its documentation uses

from .clip_omniv_med import MediaError
from .library_guards_omniv_med import lacks_memory, native_stderr
from .nifti_files_omniv_med import read_nifti
from .reading_job_omniv_med import ReadingJob
from .volume_omniv_med import Volume, note_volumes


def _find_voxels(path: Path, content: str, job: ReadingJob) -> tuple[Path, str]:
    """The file that holds the voxels of a NRRD or MetaImage header, itself or one beside it, and what it calls it.

    Headers may name any file of the machine, so no other is taken. A compressed stream is measured and checked, as
    ITK shows a damaged one without a word.
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
    return voxels, text


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
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(_link_files(path, content, job)))
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
            colours = pixel == sitk.sitkVectorUInt8
            volumes = int(np.prod(size[3:]))
            vectors = volumes == 1 and values > 1 and not (colours and values == 3)
            count = values if vectors else volumes
            options.check_volume_index(name, count)
            notes = note_volumes(count, vectors, options)
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


def _link_files(path: Path, content: str, job: ReadingJob) -> Path:
    """The header under a name by which ITK knows its format, beside its voxels under the name that it calls them."""
    voxels, called = _find_voxels(path, content, job)
    folder = job.scratch / "volume"
    folder.mkdir()
    link = folder / ("header.nrrd" if content == "nrrd" else "header.mha")
    link.symlink_to(path.resolve())
    if voxels != path:
        (folder / called).symlink_to(voxels.resolve())
    return link
