# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Which files a client may have opened, and the copies of them that we read."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hub_model.file_types_omniv_med import identify

SHA256 = re.compile(r"[0-9a-f]{64}")
NUMBER = re.compile(r"\d+")
MADE_UP = re.compile(r"upload-[a-z]+-\d+(\.[a-z0-9]+)*")
"""The names that the page's browser gives to uploads in place of their own (`uploads.js`)."""
HALF_OF_A_VOLUME = re.compile(r"\.(hdr|img|mhd|nhdr|z?raw)(\.gz)?$", re.IGNORECASE)
"""Endings of a header and of the file of its voxels."""
FEWEST_FRAMES = 3
"""Pictures named alike from which they are taken for the frames of a video."""
LONGEST_SUFFIX = 12
"""Characters of a file's endings (".nii.gz") that its copy keeps."""


def media_of(uploads: Sequence[Path]) -> list[list[Path]]:
    """Which of the files that a visitor loads at once make one medium, in the order of their first ones.

    DICOM files are one series. A header and its voxels are one volume. At least `FEWEST_FRAMES` pictures that are named
    alike but for a number are the frames of one video. Any other file is a medium of its own.
    """
    kinds = {path: identify(path) if path.stat().st_size else "" for path in uploads}
    groups: dict[str, list[Path]] = {}
    for path in uploads:
        name = str(path)
        if kinds[path] == "dicom":
            name = "dicom"
        elif kinds[path] == "picture":
            name = NUMBER.sub("#", path.name)
        elif HALF_OF_A_VOLUME.search(path.name) and len(uploads) == 2:
            name = "volume"
        groups.setdefault(name, []).append(path)
    media: list[list[Path]] = []
    for name, group in groups.items():
        is_one = name in ("dicom", "volume") or len(group) >= FEWEST_FRAMES
        media += [group] if is_one else [[path] for path in group]
    return media


def made_up_name(upload: Path) -> str:
    """The name of an upload where the browser made it up; "" for any other name, which may be a patient's."""
    return upload.name if MADE_UP.fullmatch(upload.name) else ""


def names_of_copies(uploads: Sequence[Path]) -> list[str]:
    """What the copies of one medium's uploads are called, without their endings: by number, but for a header and its
    voxels that are named alike, which stay so."""
    whole = {upload.name.removesuffix(_kept_ending(upload)) for upload in uploads}
    endings = {_kept_ending(upload) for upload in uploads}
    if len(uploads) == len(endings) <= 2 and len(whole) == 1:
        return ["file"] * len(uploads)
    return [f"file_{index:05}" for index in range(len(uploads))]


def _kept_ending(upload: Path) -> str:
    """The endings of an upload that its copy keeps; "" where they may be part of a name."""
    ending = "".join(upload.suffixes[-2:])
    return ending if len(ending) <= LONGEST_SUFFIX and re.fullmatch(r"[.\w]*", ending) else ""


def adopt(upload: Path, folder: Path, name: str) -> Path:
    """Copies an upload into a folder under a name of ours; makes a hard link where both are on one disk.

    The upload itself stays for a while (`delete_cache`): Gradio stores equal uploads of several visitors as one file,
    which another visitor may be about to read.
    """
    copy = folder / f"{name}{_kept_ending(upload)}"
    try:
        os.link(upload, copy)
    except OSError:
        shutil.copyfile(upload, copy)
    return copy


class RefusedFileError(ValueError):
    """A client named a file that we do not open for it; the message tells the client so."""


def uploaded_file(value: Any, upload_folder: str | Path) -> Path | str:
    """The file that a client gave: the path of an upload, or a `data:` URI. Nothing else is opened.

    Gradio passes whatever path a client names to functions without a File component. An upload lies in
    `upload_folder`/SHA-256 of its bytes/name, so whoever can name it knows its bytes.

    Args:
        value: a `data:` URI, the path that `/upload` answered, or the dict that gradio_client makes of it.
        upload_folder: where Gradio stores uploads.

    Raises:
        RefusedFileError: for other paths, for addresses, and for anything that is not a file.
    """
    if isinstance(value, dict):
        value = value.get("path")
    if not isinstance(value, str) or not value:
        raise RefusedFileError("Give the file as an upload or as a data: URI.")
    if value.startswith("data:"):
        return value
    if "://" in value:
        raise RefusedFileError("Addresses are not fetched; upload the file, or give it as a data: URI.")
    refused = RefusedFileError("Only uploads are opened, and no other paths; upload the file, or give a data: URI.")
    try:
        root, path = Path(upload_folder).resolve(), Path(value).resolve(strict=True)
        inside = path.relative_to(root).parts
    except (OSError, ValueError, RuntimeError):
        raise refused from None
    if len(inside) != 2 or not SHA256.fullmatch(inside[0]) or not path.is_file():
        raise refused
    return path


@contextmanager
def scratch_copy(value: Path | str) -> Iterator[Path | str]:
    """A copy of an upload that lasts as long as a request; a `data:` URI as it is."""
    if isinstance(value, str):
        yield value
        return
    with tempfile.TemporaryDirectory(prefix="omniv_med_request_") as folder:
        yield adopt(value, Path(folder), "file")
