# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Keeps decoding libraries silent and strict, and turns whatever they raise into a `MediaError`."""

from __future__ import annotations

import logging
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import SimpleITK as sitk  # noqa: N813 - the name all of its documentation uses
from PIL import ImageFile

from .clip_omniv_med import MediaError


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
    """Swallows what C libraries write to file descriptor 2, which Python cannot filter otherwise.

    Nested and simultaneous uses share one redirection. What other threads write meanwhile is swallowed with it, so it
    is put around native calls only (OpenJPEG, MetaImage in ITK, FFmpeg in decord).
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._depth = 0
        self._saved = -1

    @contextmanager
    def __call__(self) -> Iterator[None]:
        with self._lock:
            if self._depth == 0:
                try:
                    self._saved = os.dup(2)
                except OSError:  # a process without a standard error stream has nothing to keep clean
                    self._saved = -1
                else:
                    nowhere = os.open(os.devnull, os.O_WRONLY)
                    os.dup2(nowhere, 2)
                    os.close(nowhere)
            self._depth += 1
        try:
            yield
        finally:
            with self._lock:
                self._depth -= 1
                if self._depth == 0 and self._saved >= 0:
                    os.dup2(self._saved, 2)
                    os.close(self._saved)


silence = _Silence()
native_stderr = _NativeStderr()


@contextmanager
def one_sentence_errors(name: str) -> Iterator[None]:
    """Keeps libraries silent and strict, and turns whatever they raise into a `MediaError`."""
    try:
        with silence(), _whole_pictures():
            yield
    except MediaError:
        raise
    except Exception as error:  # the libraries' own sentences may quote the header, so they are not passed on
        if lacks_memory(error):  # also where a damaged header claims more than there can be
            message = f"{name} is damaged or does not fit into memory; copy it again, or downsample it."
            raise MediaError(message) from None
        reason = type(error).__name__
        raise MediaError(f"{name} cannot be read ({reason}); it may be damaged, so save it again.") from None


@contextmanager
def _whole_pictures() -> Iterator[None]:
    """Has Pillow refuse pictures that are cut short, which other packages tell it to fill with grey."""
    before = ImageFile.LOAD_TRUNCATED_IMAGES
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before


def lacks_memory(error: Exception) -> bool:
    """Whether an error says that there is not enough memory, which ITK does in words only."""
    return isinstance(error, MemoryError) or "Failed to allocate memory" in str(error)
