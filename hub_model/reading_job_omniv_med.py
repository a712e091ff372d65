# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The state of reading one source: its name in messages, the options, a scratch folder, and the names of its files."""

from __future__ import annotations

import os
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
        found: what `find_beside` has found so far.
    """

    name: str
    options: ReadingOptions
    scratch: Path
    names: Mapping[Path, str] = field(default_factory=dict)
    companion: Path | None = None
    found: set[Path] = field(default_factory=set)

    def name_of(self, path: Path) -> str:
        """What a file is called where it comes from; in an archive, with its folders."""
        return self.names.get(path, path.name)

    def stem_of(self, path: Path) -> str:
        """Its name without folders and endings: what a header and the file of its voxels have in common."""
        return os.path.splitext(posixpath.basename(self.name_of(path)).removesuffix(".gz"))[0]

    def find_beside(self, path: Path, target: str) -> Path | None:
        """The file called `target` beside another: in its folder on the disk or in the archive, or its companion.

        No link leads out of a folder.
        """
        if path in self.names:
            wanted = posixpath.join(posixpath.dirname(self.names[path]), target)
            beside = next((other for other, name in self.names.items() if name == wanted), self.companion)
        else:
            beside = path.parent / target
            if not beside.is_file() or beside.resolve().parent != path.parent.resolve():
                return None
        if beside is not None:
            self.found.add(beside)
        return beside

    def note_companion(self, header: Path, voxels: Path, called: str = "") -> list[str]:
        """The note that two files were read as one, where only their coming together in a list says that they are.

        It tells them by their places in the list, because names are often a patient's.

        Args:
            header: the file that was read.
            voxels: the file that its voxels were read from.
            called: what the header calls the file of its voxels, "" where it does not.
        """
        if voxels != self.companion or self.name_of(voxels) == called or self.stem_of(voxels) == self.stem_of(header):
            return []
        read_as = ("a header", "its voxels") if next(iter(self.names)) == header else ("voxels", "their header")
        return [
            "Of the two files, whose names differ, the first was read as {} and the second as {}; check that they "
            "belong together.".format(*read_as)
        ]
