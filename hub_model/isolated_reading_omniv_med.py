# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Decodes uploads in separate processes, so that a decoder that crashes or hangs costs one request, not the server.

`MediaLimits` stops what a header claims; what remains are bugs in the C and C++ libraries that decode. This guards
against accidents and denial of service. It is not a sandbox: a file that takes over a decoder has the rights of this
user, so run a public server in a container.
"""

from __future__ import annotations

import atexit
import inspect
import io
import json
import math
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any, TypeAlias, cast

import numpy as np

from .clip_omniv_med import Clip, Geometry, MediaError, MediaLimits, ReadingOptions, Series

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

__all__ = ["IsolatedReader"]

START_SECONDS = 120.0
"""After which a process that has not imported its libraries is given up; on an idle machine it takes 0.3 s."""
LONGEST_HEADER = 1 << 26
"""Bytes of the JSON before the pixels; 250,000 positions take a tenth of it."""


Source: TypeAlias = "str | os.PathLike[str]"


class IsolatedReader:
    """`load_clip` in other processes, with a time and a memory limit; safe to share between threads.

    A process is started when it is first needed, or by `start`, kept for later requests, and replaced when it has
    ended. On Linux the kernel refuses it memory above the limit. Elsewhere no memory limit is enforced: on macOS and
    Windows what guards against files that grow are the time limit and `limits`, so servers belong on Linux. The rest
    works alike.

    Args:
        time_limit: seconds that reading one source may take, waiting for a free process not counted.
        memory_limit: bytes of memory that one process may hold, its libraries' 0.1 GB included.
        processes: how many sources are read at once; further requests wait.

    Example:
        with IsolatedReader(time_limit=30) as reader:
            clip = reader.load_clip("upload.dcm", max_frames=64)
    """

    def __init__(self, time_limit: float = 60.0, memory_limit: int = 4 * 2**30, processes: int = 2) -> None:
        self._workers = [_Worker(time_limit, memory_limit) for _ in range(processes)]
        # The one that was used last is taken first, so that a quiet server has one process and not all.
        self._idle: queue.LifoQueue[_Worker] = queue.LifoQueue()
        for worker in self._workers:
            self._idle.put(worker)

    def start(self) -> None:
        """Starts one process ahead of the first request, and does not wait until it has imported its libraries."""
        worker = self._idle.get()
        try:
            worker.start()
        finally:
            self._idle.put(worker)

    def load_clip(self, source: Source | Sequence[Source], **options: Any) -> Clip:
        """Reads a path, a `data:` URI or a list of paths.

        Args:
            source: what to read; other sources of `load_clip` need no decoder, so they need no process either.
            options: as for `load_clip`. What `progress` does counts into the time limit.

        Raises:
            MediaError: as `load_clip`; also where the decoder crashed, or needed more time or memory than it may have.
            RuntimeError: where the process cannot be started.
        """
        # A misspelled option is told here, not by the process.
        inspect.signature(ReadingOptions.check).bind(**options)
        if isinstance(options.get("limits"), MediaLimits):
            options["limits"] = asdict(options["limits"])
        paths = [_absolute(item) for item in source] if isinstance(source, (list, tuple)) else _absolute(source)
        progress = options.pop("progress", None)
        request = {"source": paths, "options": options, "progress": bool(progress)}
        line = json.dumps(request, default=lambda value: np.asarray(value).tolist()).encode() + b"\n"
        worker = self._idle.get()
        try:
            return worker.load_clip(line, progress)
        finally:
            self._idle.put(worker)

    def close(self) -> None:
        """Ends the processes, and with an error what they are reading; a later request starts new ones."""
        for worker in self._workers:
            worker.close()

    def __enter__(self) -> IsolatedReader:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _absolute(source: object) -> str:
    """A path as the process can find it, which runs in another folder; addresses and `data:` URIs as they are."""
    if not isinstance(source, (str, os.PathLike)):
        raise MediaError("Only paths and data: URIs are read in a separate process; save the media as a file.")
    text = os.fsdecode(source)
    return text if text.startswith("data:") or "://" in text else os.path.abspath(text)


class _Worker:
    """One process that runs this file. It is asked with a line of JSON, and answers with a line of JSON, then pixels.

    Nothing is unpickled: what a process sends that has read a hostile file is not to be trusted.
    """

    def __init__(self, time_limit: float, memory_limit: int) -> None:
        self._time_limit, self._memory_limit = time_limit, memory_limit
        self._process: subprocess.Popen[bytes] | None = None
        self._is_ready = False
        self._scratch: tempfile.TemporaryDirectory[str] | None = None

    def load_clip(self, request: bytes, progress: Callable[[int, int], None] | None) -> Clip:
        """The clip or the `MediaError` of one request."""
        try:
            try:
                answer = self._talk(self._ready_process(), request, progress)
            except _NotReceivedError:  # it was ended while it was idle, which is not this file's fault
                answer = self._talk(self._ready_process(), request, progress)
        except TimeoutError:
            raise MediaError(
                f"The file takes longer than {self._time_limit:g} s to read; cut it, make it smaller or convert it."
            ) from None
        except _NoAnswerError:
            raise MediaError(
                f"The file made its decoder fail: it is damaged, or needs over {self._memory_limit / 2**30:.2g} GB of "
                "memory; save it again or make it smaller."
            ) from None
        if isinstance(answer, str):
            raise MediaError(answer)
        return answer

    def _talk(
        self, process: subprocess.Popen[bytes], request: bytes, progress: Callable[[int, int], None] | None
    ) -> Clip | str:
        with self._deadline(self._time_limit):
            return self._ask(process, request, progress)

    def start(self) -> subprocess.Popen[bytes]:
        """The process, started where none runs; it may still be importing its libraries."""
        if self._process is not None and self._process.poll() is None:
            return self._process
        self.close()
        # What a process leaves behind when it ends in the middle of a file is deleted with this folder.
        self._scratch = tempfile.TemporaryDirectory(prefix="omniv_med_")
        process = self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(self._memory_limit)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # libraries write to it what they find in headers
            cwd=Path(os.path.abspath(__file__)).parents[__name__.count(".")],  # where Python finds this module
            env={**os.environ, "TMPDIR": self._scratch.name},
            start_new_session=True,  # so that the decoders that it starts can be ended with it
        )
        atexit.register(self.close)
        return process

    def _ready_process(self) -> subprocess.Popen[bytes]:
        """The process, once it has said that it takes requests."""
        process = self.start()
        if not self._is_ready:
            try:
                with self._deadline(START_SECONDS):
                    _read_header(_output(process))
            except (TimeoutError, _NoAnswerError):
                command = f"python -m {__name__} {self._memory_limit}"
                raise RuntimeError(f"Files cannot be read: '{command}' fails.") from None
            self._is_ready = True
        return process

    def _ask(
        self, process: subprocess.Popen[bytes], request: bytes, progress: Callable[[int, int], None] | None
    ) -> Clip | str:
        """Sends a request and waits for its answer, the clip or the sentence of an error."""
        answers, requests = _output(process), cast(IO[bytes], process.stdin)
        with suppress(OSError):  # that it has ended is seen below
            requests.write(request)
            requests.flush()
        try:
            _read_header(answers)
        except _NoAnswerError:
            raise _NotReceivedError from None
        while "progress" in (header := _read_header(answers)):
            if progress is not None:
                progress(*header["progress"])
        return str(header["error"]) if "error" in header else self._receive(answers, header)

    def _receive(self, pipe: io.BufferedReader, header: dict[str, Any]) -> Clip:
        """The clip whose pixels follow its header."""
        try:
            shape = tuple(int(extent) for extent in header.pop("shape"))
            if min(shape) < 0 or math.prod(shape) > self._memory_limit:  # more than the process itself can have held
                raise ValueError
            frames = np.empty(shape, np.uint8)
            if pipe.readinto(frames.reshape(-1).data) != frames.nbytes:
                raise EOFError
            if header.pop("grey"):
                frames = np.broadcast_to(frames, (*shape[:-1], 3))
            positions = np.array(header.pop("positions"), dtype=np.float64)
            spacing, notes = tuple(header.pop("pixel_spacing")), tuple(header.pop("notes"))
            if (geometry := header.pop("geometry")) is not None:
                geometry = Geometry(**{name: np.array(value, dtype=np.float64) for name, value in geometry.items()})
            known = {"geometry": geometry, "series": tuple(Series(*item) for item in header.pop("series"))}
            return Clip(frames, positions=positions, pixel_spacing=spacing, notes=notes, **known, **header)
        except (OSError, EOFError, ValueError, TypeError, KeyError):
            raise _NoAnswerError from None

    @contextmanager
    def _deadline(self, seconds: float) -> Iterator[None]:
        """Around talks: `TimeoutError` where they take longer. Whatever is raised in them ends the process, too."""
        late = threading.Event()

        def end() -> None:
            late.set()
            self._kill()

        watchdog = threading.Timer(seconds, end)
        watchdog.daemon = True
        watchdog.start()
        try:
            yield
        except BaseException as error:
            self.close()  # after a KeyboardInterrupt too: an answer that nobody waits for would be the next one's
            if late.is_set() and isinstance(error, _NoAnswerError):
                raise TimeoutError from None
            raise
        finally:
            watchdog.cancel()
            watchdog.join()
            if late.is_set():
                self.close()

    def _kill(self) -> None:
        process = self._process
        with suppress(ProcessLookupError):
            if process is not None and hasattr(os, "killpg"):
                os.killpg(process.pid, signal.SIGKILL)
            elif process is not None:
                process.kill()

    def close(self) -> None:
        """Ends the process and deletes what it left behind."""
        atexit.unregister(self.close)
        self._kill()
        # Taken first, because a thread that waits for an answer closes too.
        process, self._process = self._process, None
        self._is_ready = False
        scratch, self._scratch = self._scratch, None
        if process is not None:
            process.communicate()
        if scratch is not None:
            scratch.cleanup()


class _NoAnswerError(Exception):
    """The process ended, or sent what is no answer."""


class _NotReceivedError(_NoAnswerError):
    """The process ended before it took the request."""


def _output(process: subprocess.Popen[bytes]) -> io.BufferedReader:
    """What a process that was started with a pipe writes."""
    return cast(io.BufferedReader, process.stdout)


def _read_header(pipe: IO[bytes]) -> dict[str, Any]:
    try:
        header = json.loads(pipe.readline(LONGEST_HEADER))
    except (OSError, ValueError, RecursionError):
        raise _NoAnswerError from None
    if not isinstance(header, dict):
        raise _NoAnswerError
    return header


def _write(pipe: IO[bytes], header: dict[str, Any], pixels: np.ndarray | None = None) -> None:
    encoded = json.dumps(header, default=lambda value: value.tolist() if isinstance(value, np.ndarray) else vars(value))
    pipe.write(encoded.encode() + b"\n")
    if pixels is not None:
        pipe.write(np.ascontiguousarray(pixels).data)
    pipe.flush()


def _limit_memory(size: int) -> None:
    """Has the kernel refuse memory above `size` bytes, and write no image of a crash to the disk: it holds the file."""
    if resource is not None:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        # Not RLIMIT_AS: libraries reserve addresses by the number of cores, and files are mapped without being loaded.
        _, highest = resource.getrlimit(resource.RLIMIT_DATA)
        size = size if highest == resource.RLIM_INFINITY else min(size, highest)
        resource.setrlimit(resource.RLIMIT_DATA, (size, size))


def _serve(memory_limit: int) -> None:
    """The other end of `_Worker`: says that it is ready, and answers until standard input ends."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print must not mix with the answers
    from .media_omniv_med import load_clip  # not above: who asks need not wait for the decoders' imports

    _limit_memory(memory_limit)
    _write(answers, {})
    for line in sys.stdin.buffer:
        request = json.loads(line)
        _write(answers, {"received": True})
        options = request["options"]
        if options.get("limits"):
            options["limits"] = MediaLimits(**options["limits"])
        if request["progress"]:
            options["progress"] = lambda done, total: _write(answers, {"progress": [done, total]})
        try:
            clip = load_clip(request["source"], **options)
        except MediaError as error:
            _write(answers, {"error": str(error)})
        else:
            header = {**vars(clip), "grey": clip.frames.strides[-1] == 0}
            pixels = header.pop("frames")[..., : 1 if header["grey"] else 3]  # one channel is enough of grey frames
            _write(answers, {**header, "shape": pixels.shape}, pixels)
    with suppress(OSError):  # where the other end could not: it was ended without notice
        os.rmdir(tempfile.gettempdir())


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
