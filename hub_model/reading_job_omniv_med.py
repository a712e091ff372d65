# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The state of reading one source: its name in messages, the options, a scratch folder, and the names of its files."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .clip_omniv_med import ReadingOptions


@dataclass(frozen=True)
class ReadingJob:
    """A source that is being read.

    Attributes:
        name: what messages call the source; never a path.
        options: what the caller asked for.
        scratch: an empty folder for unpacked files, which is deleted after reading.
        names: what the files of an archive or a list are called there, where they lie under other names on the disk.
        companion: the other file of a list of two, which holds a header's voxels whatever it is called: a page that
            keeps no names of patients stores uploads under names of its own.
    """

    name: str
    options: ReadingOptions
    scratch: Path
    names: Mapping[Path, str] = field(default_factory=dict)
    companion: Path | None = None

    def name_of(self, path: Path) -> str:
        """What a file is called where it comes from; in an archive, with its folders."""
        return self.names.get(path, path.name)

    def find_beside(self, path: Path, target: str) -> Path | None:
        """The file called `target` beside another: in its folder on the disk or in the archive, or its companion.

        No link leads out of a folder.
        """
        if path in self.names:
            wanted = posixpath.join(posixpath.dirname(self.names[path]), target)
            return next((other for other, name in self.names.items() if name == wanted), self.companion)
        found = path.parent / target
        return found if found.is_file() and found.resolve().parent == path.parent.resolve() else None
