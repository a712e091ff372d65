# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""What the server holds of its visitors: files in a folder each, and results that can be computed again.

All of a visitor goes when its page is closed. What is only kept for speed (decoded clips, key-value caches) has a bound
in number and bytes over all visitors; the least recently used goes first, and is read or computed again when needed.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

Value = TypeVar("Value")
SHA256 = re.compile(r"[0-9a-f]{64}")
LARGEST_SUFFIX = 12
"""Characters of a file's endings (".nii.gz") that its copy keeps."""


class BoundedMemory(Generic[Value]):
    """Values by owner and name, bounded in number and bytes; safe to share between threads.

    Args:
        most: how many values are kept.
        most_bytes: how large they may be together. A value that is larger alone is not kept at all.
        is_present: whether an owner is still there; nothing is kept for one who left while a value was computed.
    """

    def __init__(self, most: int, most_bytes: int, is_present: Callable[[str], bool] = lambda owner: True) -> None:
        self._most, self._most_bytes, self._is_present = most, most_bytes, is_present
        self._values: OrderedDict[tuple[str, str], tuple[Value, int]] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._values)

    @property
    def bytes(self) -> int:
        """Of all values together."""
        with self._lock:
            return sum(size for _, size in self._values.values())

    def put(self, owner: str, name: str, value: Value, size: int) -> None:
        """Keeps a value of `size` bytes, in the place of one of the same name, and drops what is too much."""
        with self._lock:
            self._values.pop((owner, name), None)
            if not self._is_present(owner):
                return
            self._values[owner, name] = value, size
            total = sum(size for _, size in self._values.values())
            while len(self._values) > self._most or total > self._most_bytes:
                _, (_, dropped) = self._values.popitem(last=False)
                total -= dropped

    def get(self, owner: str, name: str) -> Value | None:
        """The value, which becomes the most recently used, or None."""
        with self._lock:
            if (owner, name) not in self._values:
                return None
            self._values.move_to_end((owner, name))
            return self._values[owner, name][0]

    def take(self, owner: str, name: str) -> Value | None:
        """The value, which is no longer kept: for what its user changes, and puts back when that is done."""
        with self._lock:
            return self._values.pop((owner, name), (None, 0))[0]

    def drop(self, owner: str) -> None:
        """Forgets all of an owner."""
        with self._lock:
            for key in [key for key in self._values if key[0] == owner]:
                del self._values[key]


@dataclass(frozen=True)
class LoadedFile:
    """A medium that a visitor loaded: one file, or several as one DICOM series or the frames of a video.

    Attributes:
        number: 1 for the visitor's first, as the page calls it.
        paths: the copies in the visitor's folder.
        kind, frames: as the clip has them.
        modality: what the header says, a DICOM modality code or "".
        notes: what reading chose.
    """

    number: int
    paths: tuple[Path, ...]
    kind: str
    frames: int
    modality: str
    notes: tuple[str, ...]

    @property
    def label(self) -> str:
        """What the page calls it; never the name of the upload, which may be a patient's."""
        detail = {"image": "", "volume": f", {self.frames} slices", "video": f", {self.frames} frames"}[self.kind]
        return f"File {self.number}: {self.kind}{detail}"


@dataclass
class Session:
    """One open page.

    Attributes:
        key: Gradio's hash of the session.
        folder: where its files are.
        files: what was loaded and not removed, in order.
        exchanges: the conversation, questions with their answers (`demo.panels.chat.Exchange`).
        loaded, asked: how many files were ever loaded, and how many questions asked.
    """

    key: str
    folder: Path
    files: list[LoadedFile] = field(default_factory=list)
    exchanges: list[Any] = field(default_factory=list)
    loaded: int = 0
    asked: int = 0

    def file(self, number: int | None) -> LoadedFile | None:
        """The file of that number, or None."""
        return next((file for file in self.files if file.number == number), None)


class Sessions:
    """All open pages, in folders that only this process's user can read.

    Args:
        most_clips, most_clip_bytes: bounds of the decoded clips that are kept for all visitors.
    """

    def __init__(self, most_clips: int = 64, most_clip_bytes: int = 2 * 2**30) -> None:
        self._root = tempfile.TemporaryDirectory(prefix="omniv_med_sessions_")
        self._sessions: dict[str, Session] = {}
        self._lock = threading.Lock()
        self.clips: BoundedMemory[Any] = BoundedMemory(most_clips, most_clip_bytes, self.is_open)

    @property
    def root(self) -> Path:
        """The folder of all folders."""
        return Path(self._root.name)

    def is_open(self, key: str) -> bool:
        """Whether the page of that key is still there."""
        return key in self._sessions

    def open(self, key: str) -> Session:
        """The session of that key, made when it is new."""
        with self._lock:
            if key not in self._sessions:
                self._sessions[key] = Session(key, Path(tempfile.mkdtemp(dir=self.root)))
            return self._sessions[key]

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

    def load(self, session: Session, uploads: list[Path], read: Callable[[list[Path]], Any]) -> LoadedFile:
        """Moves uploads into the session's folder, reads them as one medium and adds it to the session.

        Args:
            uploads: paths that `uploaded_file` let pass, or samples of the page.
            read: reads paths, one clip for all of them.

        Raises:
            ValueError: the sentence for the visitor, where they cannot be read; their copies are deleted.
        """
        folder = Path(tempfile.mkdtemp(prefix="medium_", dir=session.folder))
        try:
            names = ["file"] if len(uploads) == 1 else [f"file_{index:05}" for index in range(len(uploads))]
            paths = [adopt(upload, folder, name) for upload, name in zip(uploads, names, strict=True)]
            clip = read(paths)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        with self._lock:  # a visitor may load two at once
            session.loaded += 1
            number = session.loaded
            file = LoadedFile(number, tuple(paths), clip.kind, len(clip.frames), clip.modality, tuple(clip.notes))
            session.files.append(file)
        self.clips.put(session.key, str(number), clip, clip.frames.nbytes)
        return file

    def clip(self, session: Session, file: LoadedFile, read: Callable[[list[Path]], Any]) -> Any:
        """The clip of a loaded file, read again where it is no longer in memory."""
        clip = self.clips.get(session.key, str(file.number))
        if clip is None:
            clip = read(list(file.paths))
            self.clips.put(session.key, str(file.number), clip, clip.frames.nbytes)
        return clip

    def remove(self, session: Session, file: LoadedFile) -> None:
        """Takes a file out of the session and deletes it."""
        session.files.remove(file)
        self.clips.take(session.key, str(file.number))
        shutil.rmtree(file.paths[0].parent, ignore_errors=True)


def adopt(upload: Path, folder: Path, name: str) -> Path:
    """Copies an upload into a folder under a name of ours, by a link where the disk is the same.

    The upload itself stays for a while (`delete_cache`): Gradio keeps equal uploads of several visitors as one file,
    and another one may be about to read it.
    """
    suffix = "".join(upload.suffixes[-2:])
    suffix = suffix if len(suffix) <= LARGEST_SUFFIX and re.fullmatch(r"[.\w]*", suffix) else ""
    copy = folder / f"{name}{suffix}"
    try:
        os.link(upload, copy)
    except OSError:
        shutil.copyfile(upload, copy)
    return copy


class RefusedFileError(ValueError):
    """A file that a client named and may not have opened; the message is the sentence for it."""


def uploaded_file(value: Any, upload_folder: str | Path) -> Path | str:
    """What a client gave as a file: the path of an upload or a `data:` URI; nothing else is opened.

    Gradio hands whatever a client names to functions without a File component. An upload lies in
    `upload_folder`/SHA-256 of its bytes/name, so whoever can name it has seen its bytes.

    Args:
        value: a `data:` URI, the path that `/upload` answered, or the dict that gradio_client makes of it.
        upload_folder: where Gradio puts uploads.

    Raises:
        RefusedFileError: for paths elsewhere, addresses, and everything that is no file.
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
    """An upload as a copy of its own while a request lasts; a `data:` URI as it is."""
    if isinstance(value, str):
        yield value
        return
    with tempfile.TemporaryDirectory(prefix="omniv_med_request_") as folder:
        yield adopt(value, Path(folder), "file")
