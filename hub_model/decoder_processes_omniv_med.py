# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Runs GDCM in a separate process, because some damaged JPEG streams make it abort the process it runs in.

The separate process runs this file as a script, so the file imports nothing from this package.
"""

from __future__ import annotations

import atexit
import io
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import IO, cast

import numpy as np
import pydicom
from pydicom.pixels.utils import pixel_array

GDCM_SECONDS = 300.0
"""After which a decoder that does not answer is ended."""


class _GdcmProcess:
    """A process that decodes with GDCM, started when it is first needed and kept for later requests.

    It is asked with a line of JSON, a path and frame numbers, and answers with a line of JSON, then the bytes of the
    array.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0

    def frames(self, path: Path, indices: Sequence[int]) -> tuple[np.ndarray, bool]:
        """Decodes frames of a DICOM file.

        Returns:
            The frames (n, height, width, …), and whether the decoder complained.

        Raises:
            RuntimeError: where the decoder failed.
        """
        with self._lock:
            process = self._running_process()
            pipe_in, pipe_out = cast(IO[bytes], process.stdin), cast(io.BufferedReader, process.stdout)
            watchdog = threading.Timer(GDCM_SECONDS, process.kill)
            watchdog.start()
            try:
                # The process keeps the working directory that it was started in.
                request = [os.path.abspath(path), [int(index) for index in indices]]
                pipe_in.write(json.dumps(request).encode() + b"\n")
                pipe_in.flush()
                answer = json.loads(pipe_out.readline() or b"{}")
                if "shape" not in answer:
                    raise RuntimeError
                array = np.empty(answer["shape"], np.dtype(answer["dtype"]))
                if pipe_out.readinto(array.reshape(-1).view(np.uint8).data) != array.nbytes:
                    raise RuntimeError
                return array, bool(answer["complaint"])
            except OSError:
                raise RuntimeError from None
            finally:
                watchdog.cancel()

    def _running_process(self) -> subprocess.Popen[bytes]:
        """The process, started anew where it has ended or belongs to the process that this one was forked from."""
        if self._process is not None and self._process.poll() is None and self._owner == os.getpid():
            return self._process
        if self._owner == os.getpid():
            self.close()
        self._process = subprocess.Popen(
            [sys.executable, os.path.abspath(__file__)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self._owner = os.getpid()
        atexit.register(self.close)
        return self._process

    def close(self) -> None:
        """Ends the process; the next request starts another."""
        process, self._process = self._process, None
        if process is not None and self._owner == os.getpid():
            process.kill()
            process.communicate()
        atexit.unregister(self.close)


gdcm_process = _GdcmProcess()


def _serve_gdcm() -> None:
    """The other end of `_GdcmProcess`: answers until standard input ends."""
    answers = os.fdopen(os.dup(1), "wb")
    with tempfile.TemporaryFile() as said:
        # What libraries print must not mix with the answers, and tells whether they complain.
        os.dup2(said.fileno(), 1)
        os.dup2(said.fileno(), 2)
        for line in sys.stdin:
            path, indices = json.loads(line)
            said.seek(0)
            said.truncate()
            try:
                dataset = pydicom.dcmread(path, force=True)
                array = np.stack([pixel_array(dataset, index=i, decoding_plugin="gdcm") for i in indices])
                answer: dict[str, object] = {"shape": array.shape, "dtype": array.dtype.str}
            except Exception:  # of many classes; what is wrong with the file, the asking process says
                array, answer = np.empty(0), {}
            answer["complaint"] = b"orrupt JPEG" in os.pread(said.fileno(), 65536, 0)
            answers.write(json.dumps(answer).encode() + b"\n" + np.ascontiguousarray(array).tobytes())
            answers.flush()


if __name__ == "__main__":
    _serve_gdcm()
