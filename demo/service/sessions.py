# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""What the server holds of its visitors: a folder of files for each, and their decoded clips in bounded memory.

Everything of a visitor goes when the page is closed.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from demo.service.bounded_memory import BoundedMemory
from demo.service.dialogue import Exchange
from demo.service.reading_choice import AS_FOUND, ReadingChoice
from demo.service.thumbnails import thumbnail
from demo.service.uploads import adopt, made_up_name, names_of_copies

if TYPE_CHECKING:
    from hub_model.clip_omniv_med import Series
    from hub_model.media_omniv_med import Clip

THUMBNAIL = 96
"""Pixels of a thumbnail's side."""
ReadFiles = Callable[[list[Path], ReadingChoice], "Clip"]
"""Reads files as one clip, as they are chosen to be read."""


@dataclass(frozen=True)
class LoadedFile:
    """A medium that a visitor loaded: one file, or several as one DICOM series or the frames of a video.

    Attributes:
        number: counts the visitor's files from 1.
        paths: the copies in the visitor's folder.
        kind, frames: the clip's kind and number of frames.
        modality: the DICOM modality code in the header, or "".
        notes: what the reader chose, one sentence each.
        thumbnail: its middle frame, a small picture.
        upload: the name that the browser made up for its first file; "" for a file under any other name.
        choice: how it is read.
        series: those to choose from, where there are several.
    """

    number: int
    paths: tuple[Path, ...]
    kind: str
    frames: int
    modality: str
    notes: tuple[str, ...]
    thumbnail: bytes = field(default=b"", repr=False)
    upload: str = ""
    choice: ReadingChoice = AS_FOUND
    series: tuple[Series, ...] = ()

    @property
    def label(self) -> str:
        """What the page calls the file; never its own name, which may be a patient's."""
        detail = {"image": "", "volume": f", {self.frames} slices", "video": f", {self.frames} frames"}[self.kind]
        return f"File {self.number}: {self.kind}{detail}"


@dataclass
class Session:
    """One open page.

    Attributes:
        key: Gradio's hash of the session.
        folder: where its files are.
        files: what was loaded and not removed, in order.
        exchanges: the conversation.
        loaded, asked: how many files were loaded and how many questions asked since the page was opened.
    """

    key: str
    folder: Path
    files: list[LoadedFile] = field(default_factory=list)
    exchanges: list[Exchange] = field(default_factory=list)
    loaded: int = 0
    asked: int = 0

    def file(self, number: int | None) -> LoadedFile | None:
        """The file of that number, or None."""
        return next((file for file in self.files if file.number == number), None)


class Sessions:
    """All open pages. Only the user who runs this process can read their folders.

    Args:
        most_clips, most_clip_bytes: bounds of the decoded clips of all visitors together.
    """

    def __init__(self, most_clips: int = 64, most_clip_bytes: int = 2 * 2**30) -> None:
        self._root = tempfile.TemporaryDirectory(prefix="omniv_med_sessions_")
        self._sessions: dict[str, Session] = {}
        self._lock = threading.Lock()
        self.clips: BoundedMemory[Clip] = BoundedMemory(most_clips, most_clip_bytes, self.is_open)

    @property
    def root(self) -> Path:
        """The folder that holds the sessions' folders."""
        return Path(self._root.name)

    def is_open(self, key: str) -> bool:
        """Whether the page of that key is still there."""
        return key in self._sessions

    def open(self, key: str) -> Session:
        """The session of that key; makes it if it is new."""
        with self._lock:
            if key not in self._sessions:
                self._sessions[key] = Session(key, Path(tempfile.mkdtemp(dir=self.root)))
            return self._sessions[key]

    def all(self) -> list[Session]:
        """All sessions."""
        with self._lock:
            return list(self._sessions.values())

    def end(self, key: str) -> None:
        """Forgets a session and deletes its files."""
        with self._lock:
            session = self._sessions.pop(key, None)
        self.clips.drop(key)
        if session is not None:
            shutil.rmtree(session.folder, ignore_errors=True)

    def close(self) -> None:
        """Ends all sessions."""
        for key in list(self._sessions):
            self.end(key)
        self._root.cleanup()

    def load(
        self, session: Session, uploads: list[Path], read: ReadFiles, choice: ReadingChoice = AS_FOUND
    ) -> LoadedFile:
        """Copies uploads into the session's folder, reads them as one medium and adds it to the session.

        Args:
            uploads: paths that `uploaded_file` let pass, or samples of the page.
            read: reads all paths as one clip.
            choice: how they are read.

        Raises:
            ValueError: when they cannot be read; the message is for the visitor. The copies are deleted.
        """
        folder = Path(tempfile.mkdtemp(prefix="medium_", dir=session.folder))
        try:
            names = names_of_copies(uploads)
            paths = tuple(adopt(upload, folder, name) for upload, name in zip(uploads, names, strict=True))
            clip = read(list(paths), choice)
            facts = _facts(clip)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        with self._lock:  # a visitor may load two at once
            session.loaded += 1
            file = LoadedFile(session.loaded, paths, upload=made_up_name(uploads[0]), choice=choice, **facts)
            session.files.append(file)
        self.clips.put(session.key, str(file.number), clip, clip.frames.nbytes)
        return file

    def load_again(
        self, session: Session, file: LoadedFile, read: ReadFiles, choice: ReadingChoice, in_its_place: bool
    ) -> LoadedFile:
        """Reads a loaded file in another way.

        Args:
            in_its_place: whether the result takes the file's place; else it is a file of its own, with copies.

        Raises:
            ValueError: when it cannot be read so; the message is for the visitor, and nothing changes.
        """
        if not in_its_place:
            other = self.load(session, list(file.paths), read, choice)
            named = replace(other, upload=file.upload)
        else:
            clip = read(list(file.paths), choice)
            other, named = file, replace(file, choice=choice, **_facts(clip))
            self.clips.put(session.key, str(file.number), clip, clip.frames.nbytes)
        with self._lock:
            session.files[session.files.index(other)] = named
        return named

    def clip(self, session: Session, file: LoadedFile, read: ReadFiles) -> Clip:
        """The clip of a loaded file; reads it again if it is no longer in memory."""
        clip = self.clips.get(session.key, str(file.number))
        if clip is None:
            clip = read(list(file.paths), file.choice)
            self.clips.put(session.key, str(file.number), clip, clip.frames.nbytes)
        return clip

    def remove(self, session: Session, file: LoadedFile) -> None:
        """Removes a file from the session and deletes it."""
        session.files.remove(file)
        self.clips.take(session.key, str(file.number))
        shutil.rmtree(file.paths[0].parent, ignore_errors=True)


def _facts(clip: Clip) -> dict[str, Any]:
    """What a `LoadedFile` says of a clip."""
    return {
        "kind": clip.kind,
        "frames": len(clip.frames),
        "modality": clip.modality,
        "notes": tuple(clip.notes),
        "thumbnail": thumbnail(clip, THUMBNAIL),
        "series": tuple(clip.series),
    }
