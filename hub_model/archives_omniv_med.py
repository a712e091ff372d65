# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Unpacks zip archives after checking their entries for size, encryption and paths that leave the archive."""

from __future__ import annotations

import os
import stat
import zipfile
import zlib
from pathlib import Path

from .clip_omniv_med import MediaError, MediaLimits


def unpack_archive(path: Path, name: str, limits: MediaLimits, scratch: Path) -> tuple[Path, dict[Path, str]]:
    """Unpacks a zip archive into a folder of its own, under numbers: names in it are checked, but no file has them.

    Returns the folder, and what each file in it is called in the archive.
    """
    folder, names = scratch / "unpacked", {}
    folder.mkdir()
    try:
        with zipfile.ZipFile(path) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
            _check_entries(entries, name, limits)
            for index, entry in enumerate(entries):
                if os.path.basename(entry.filename).startswith(".") or entry.filename.startswith("__MACOSX"):
                    continue
                # zipfile reads no more than the size that the checks above have seen.
                unpacked = folder / f"{index:06d}"
                unpacked.write_bytes(archive.read(entry))
                names[unpacked] = entry.filename.replace("\\", "/")
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, UnicodeDecodeError):
        raise MediaError(f"{name} is a damaged or unusual zip archive; pack it again.") from None
    return folder, names


def _check_entries(entries: list[zipfile.ZipInfo], name: str, limits: MediaLimits) -> None:
    """Raises `MediaError` for an archive that is empty, locked, too big, or points out of itself."""
    if not entries:
        raise MediaError(f"{name} is an empty archive; pack the files again.")
    if len(entries) > limits.max_archive_entries:
        raise MediaError(f"{name} holds over {limits.max_archive_entries} files; pack one series only.")
    if sum(entry.file_size for entry in entries) > limits.max_unpacked_bytes:
        raise MediaError(f"{name} unpacks to more than {limits.max_unpacked_bytes} bytes; pack one series only.")
    for entry in entries:
        if entry.flag_bits & 1:
            raise MediaError(f"{name} is encrypted; unpack it with its password first.")
        parts = entry.filename.replace("\\", "/").split("/")
        if ".." in parts or parts[0] == "" or parts[0].endswith(":") or stat.S_ISLNK(entry.external_attr >> 16):
            raise MediaError(f"{name} holds paths or links that leave the archive; it is not read.")
