# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Keeps libraries that decode silent, and runs GDCM, which damaged files can make abort, in a process of its own."""

from __future__ import annotations

import atexit
import json
import logging
import os
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk  # noqa: N813 - the name all of its documentation uses
from pydicom.pixels import pixel_array

GDCM_SECONDS = 300.0
"""After which a decoder that does not answer is ended."""


class _Silence:
    """Keeps libraries from writing to the terminal while at least one thread reads (warnings filters are global)."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._depth = 0

    @contextmanager
    def __call__(self) -> Iterator[None]:
        loggers = [logging.getLogger(name) for name in ("pydicom", "PIL", "libav")]
        with self._lock:
            self._depth += 1
            if self._depth == 1:
                self._filters = warnings.catch_warnings()
                self._filters.__enter__()
                warnings.simplefilter("ignore")
                self._levels = [logger.level for logger in loggers]
                for logger in loggers:
                    logger.setLevel(logging.CRITICAL + 1)
                self._itk = sitk.ProcessObject.GetGlobalWarningDisplay()
                sitk.ProcessObject.SetGlobalWarningDisplay(False)
        try:
            yield
        finally:
            with self._lock:
                self._depth -= 1
                if self._depth == 0:
                    sitk.ProcessObject.SetGlobalWarningDisplay(self._itk)
                    for logger, level in zip(loggers, self._levels, strict=True):
                        logger.setLevel(level)
                    self._filters.__exit__(None, None, None)


class _NativeStderr:
    """Collects what C libraries write to file descriptor 2, which Python cannot filter otherwise.

    Nested and simultaneous uses share one redirection. What other threads write meanwhile is swallowed with it, so it
    is put around native calls only (OpenJPEG, MetaImage in ITK, FFmpeg in decord).
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._depth = 0

    @contextmanager
    def __call__(self) -> Iterator[Callable[[], bytes]]:
        with self._lock:
            if self._depth == 0:
                self._file = tempfile.TemporaryFile()  # noqa: SIM115 - outlives this block, closed by the last user
                try:
                    self._saved = os.dup(2)
                    os.dup2(self._file.fileno(), 2)
                except OSError:  # a process without a standard error stream has nothing to keep clean
                    self._saved = -1
            self._depth += 1
            start = os.fstat(self._file.fileno()).st_size
        try:
            yield lambda: os.pread(self._file.fileno(), 65536, start)
        finally:
            with self._lock:
                self._depth -= 1
                if self._depth == 0:
                    if self._saved >= 0:
                        os.dup2(self._saved, 2)
                        os.close(self._saved)
                    self._file.close()


class _GdcmProcess:
    """GDCM in a process of its own, started when it is first needed: damaged JPEG makes it abort its whole process.

    The process runs this file. It is asked with a line of JSON, a path and frame numbers, and answers with a line of
    JSON, then the bytes of the array.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen | None = None
        self._owner = 0

    def frames(self, path: Path, indices: Sequence[int]) -> tuple[np.ndarray, bool]:
        """The frames (n, height, width, …) and whether the decoder complained; `RuntimeError` where it failed."""
        with self._lock:
            if self._process is None or self._process.poll() is not None or self._owner != os.getpid():
                self._start()
            pipe_in, pipe_out = self._process.stdin, self._process.stdout
            watchdog = threading.Timer(GDCM_SECONDS, self._process.kill)
            watchdog.start()
            try:
                pipe_in.write(json.dumps([str(path), [int(index) for index in indices]]).encode() + b"\n")
                pipe_in.flush()
                answer = json.loads(pipe_out.readline() or b"{}")
                if "shape" not in answer:
                    raise RuntimeError
                array = np.empty(answer["shape"], np.dtype(answer["dtype"]))
                if pipe_out.readinto(memoryview(array.reshape(-1).view(np.uint8))) != array.nbytes:
                    raise RuntimeError
                return array, answer["complaint"]
            except OSError:
                raise RuntimeError from None
            finally:
                watchdog.cancel()

    def _start(self) -> None:
        if self._process is not None and self._owner == os.getpid():
            self.close()
        self._process = subprocess.Popen(
            [sys.executable, os.path.abspath(__file__)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self._owner = os.getpid()
        atexit.register(self.close)

    def close(self) -> None:
        """Ends the process; the next request starts another."""
        process, self._process = self._process, None
        if process is not None and self._owner == os.getpid():
            process.kill()
            process.communicate()
        atexit.unregister(self.close)


silence = _Silence()
native_stderr = _NativeStderr()
_gdcm_process = _GdcmProcess()


def _serve_gdcm() -> None:
    """The other end of `_GdcmProcess`: answers until standard input ends."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print must not mix with the answers
    with silence():
        for line in sys.stdin:
            path, indices = json.loads(line)
            with native_stderr() as said:
                try:
                    dataset = pydicom.dcmread(path, force=True)
                    array = np.stack([pixel_array(dataset, index=i, decoding_plugin="gdcm") for i in indices])
                    answer = {"shape": array.shape, "dtype": array.dtype.str}
                except Exception:
                    array, answer = np.empty(0), {}
                answer["complaint"] = b"orrupt JPEG" in said()
            answers.write(json.dumps(answer).encode() + b"\n" + np.ascontiguousarray(array).tobytes())
            answers.flush()


if __name__ == "__main__":
    _serve_gdcm()
