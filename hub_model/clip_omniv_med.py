# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The Clip that every reader returns, the error and the limits of reading, and its options."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from .intensity_omniv_med import CT_PRESETS, CT_WINDOWS

KINDS = ("image", "volume", "video")
PLANES = ("axial", "coronal", "sagittal")
SHORT_FILM_FRAMES = 8
"""Frames that a film keeps at least, if it has them: an ultrasound loop of 2 s would keep two at 1 frame per second."""
MODALITY_CODES = {"MRI": "MR", "PET": "PT", "ULTRASOUND": "US", "X-RAY": "DX"}
"""Everyday names that `modality` may have, and their DICOM codes."""


class MediaError(ValueError):
    """A file that cannot be read safely and rightly; the message is one sentence that says what to do."""


@dataclass(frozen=True)
class MediaLimits:
    """What a file may claim; checked before memory is taken for it.

    Attributes:
        max_voxels: voxels of one volume, or pixels of all frames that are decoded from one file.
        max_pixels: pixels of one frame.
        max_source_frames: frames, slices or pages in one file or list.
        max_archive_entries: files in one folder or archive.
        max_unpacked_bytes: bytes that an archive or a compressed file becomes.
    """

    max_voxels: int = 2**29
    max_pixels: int = 2**26
    max_source_frames: int = 250_000
    max_archive_entries: int = 20_000
    max_unpacked_bytes: int = 4 * 2**30

    def check_frames(self, name: str, count: int, height: int, width: int) -> None:
        """Raises `MediaError` where frames of (height, width) pixels, or so many of them, are over a limit."""
        if min(count, height, width) < 1:
            raise MediaError(f"{name} says that it holds no pixels ({count} frames of {height} x {width}).")
        if height * width > self.max_pixels:
            raise MediaError(
                f"{name} has frames of {height} x {width} pixels, over the limit of {self.max_pixels}; make it smaller."
            )
        if count > self.max_source_frames:
            raise MediaError(f"{name} has {count} frames, over the limit of {self.max_source_frames}; cut it.")

    def check_volume(self, name: str, count: int, height: int, width: int) -> None:
        """Raises `MediaError` where a volume of (count, height, width) voxels is over a limit."""
        self.check_frames(name, count, height, width)
        if count * height * width > self.max_voxels:
            raise MediaError(
                f"{name} says that it holds {count} x {height} x {width} voxels, over the limit of "
                f"{self.max_voxels}; crop or downsample it first."
            )


@dataclass(frozen=True)
class Clip:
    """Frames of one medical image, volume or video, ready for the encoder.

    Attributes:
        frames: uint8 array (frames, height, width, 3). Volumes are axial by default, anterior up, patient right on
            the left. Grey frames are mostly one channel seen three times (last stride 0), which saves memory and time
            and makes them read-only: copy them before you draw into them.
        kind: "image", "volume" or "video".
        positions: float64 array (frames,), millimetres along the slice axis or seconds; zero for an image.
        pixel_spacing: millimetres per pixel (rows, columns), or (0.0, 0.0) where the file does not say.
        source_frames: how many frames the file holds; more than `len(frames)` where some were left out.
        modality: what the header says ("CT", "MR", "US", a DICOM modality code), or "". Never part of a prompt.
        notes: what was chosen while reading (windows, orientation, sampling), one sentence each, no patient data.
        plane: how a volume is sliced, one of `PLANES`; without a meaning for images and videos.
    """

    frames: np.ndarray
    kind: str
    positions: np.ndarray
    pixel_spacing: tuple[float, float] = (0.0, 0.0)
    source_frames: int = 0
    modality: str = ""
    notes: tuple[str, ...] = ()
    plane: str = "axial"

    @property
    def unit(self) -> str:
        """Unit of `positions`: "mm", "s", or "" for an image."""
        return {"image": "", "volume": "mm", "video": "s"}[self.kind]


ChooseFrames = Callable[[np.ndarray, bool], tuple[np.ndarray, np.ndarray, list[str]]]
"""From the seconds of all frames, float64 (n,), and whether the file gives them, to the increasing numbers of the
frames to read, int64 (m,), their seconds, float64 (m,), and notes."""


@dataclass(frozen=True)
class _Options:
    """The arguments of `load_clip`, checked."""

    kind: str | None
    modality: str | None
    spacing: tuple[float, ...]
    plane: str
    windows: tuple[tuple[float, float], ...]
    windows_note: str
    max_frames: int
    fps: float
    limits: MediaLimits
    report: Callable[[int, int], None]
    series: str | int | None
    volume_index: int
    names: Mapping[Path, str] = field(default_factory=dict)
    """What the files of an archive or a list are called there, where they lie under other names on the disk."""

    def choose(self, times: np.ndarray, known: bool) -> tuple[np.ndarray, np.ndarray, list[str]]:
        """Which frames of a film are read, by the rule of `load_clip`: a `ChooseFrames`."""
        count, notes = len(times), []
        if len(self.spacing) == 1:
            times, known = np.arange(count) * self.spacing[0], True
        times = np.asarray(times, dtype=np.float64) - times[0]
        wanted = count
        if known and count > 1:
            wanted = int((times[-1] + np.median(np.diff(times))) * self.fps + 1e-6)
        at_least = min(SHORT_FILM_FRAMES, count)
        if known and at_least <= wanted <= min(self.max_frames, count):
            indices = np.unique(np.searchsorted(times, np.arange(wanted) / self.fps + 1e-6, side="right") - 1)
            how = f"at {self.fps:g} per second"
        else:
            indices = _evenly(count, min(max(wanted, at_least), self.max_frames))
            how = "evenly spaced"
        notes.append(f"All {count} frames." if len(indices) == count else f"{len(indices)} of {count} frames, {how}.")
        if not known:
            notes.append("The file gives no frame times; positions count frames.")
        return indices, times[indices], notes


def _evenly(count: int, wanted: int) -> np.ndarray:
    """At most `wanted` of `count` indices, increasing, evenly spaced from the first to the last; one is the middle."""
    if wanted <= 1:
        return np.array([(count - 1) // 2])
    return np.round(np.linspace(0, count - 1, min(count, wanted))).astype(np.int64)


def _check_options(
    kind, modality, spacing, plane, windows, max_frames, fps, limits, progress, series, volume_index
) -> _Options:
    """Raises `MediaError` for an argument that means nothing."""
    if kind not in (None, *KINDS):
        raise MediaError(f"kind must be one of {', '.join(KINDS)}.")
    if plane not in (*PLANES, "automatic"):
        raise MediaError(f"plane must be one of {', '.join(PLANES)}, automatic.")
    try:
        max_frames, fps = int(max_frames), float(fps)
        spacing = () if spacing is None else tuple(float(value) for value in np.atleast_1d(spacing))
    except (TypeError, ValueError, OverflowError):
        raise MediaError("max_frames, fps and spacing must be numbers.") from None
    if max_frames < 1 or not 0 < fps < float("inf"):
        raise MediaError("max_frames must be at least 1, and fps above 0.")
    if len(spacing) > 3 or not all(0 < value < float("inf") for value in spacing):
        raise MediaError("spacing must be one, two or three numbers above 0.")
    if isinstance(series, str):
        series = int(series) if re.fullmatch(r"\d{1,9}", series.strip()) else series.strip() or -1
    if series is not None and (not isinstance(series, (str, int, np.integer)) or series == -1):
        raise MediaError("series must be the number or the UID of a DICOM series.")
    if not isinstance(volume_index, (int, np.integer)) or volume_index < 0:
        raise MediaError("volume_index must be a whole number from 0.")
    code = str(modality).strip().upper() if modality else None
    windows, note = _check_windows(CT_WINDOWS if windows is None else windows)
    code = MODALITY_CODES.get(code, code)
    report = progress or (lambda done, total: None)
    series = series if series is None or isinstance(series, str) else int(series)
    return _Options(
        kind, code, spacing, plane, windows, note, max_frames, fps, limits, report, series, int(volume_index)
    )


def _check_windows(windows: str | Sequence[str | tuple[float, float]]) -> tuple[tuple[tuple[float, float], ...], str]:
    """Three (width, level) pairs in HU, and the note that records them with the names they were given by."""
    pairs, texts = [], []
    try:
        for window in [windows] if isinstance(windows, str) else windows:
            name = window.strip().lower().replace("_", " ") if isinstance(window, str) else ""
            width, level = (float(value) for value in (CT_PRESETS[name] if name else window))
            pairs.append((width, level))
            texts.append(f"{name} {width:g}/{level:g}".strip())
    except (TypeError, ValueError, KeyError):
        raise MediaError(f"windows must be (width, level) pairs or names out of {', '.join(CT_PRESETS)}.") from None
    if len(pairs) not in (1, 3) or not all(0 < width < np.inf and np.isfinite(level) for width, level in pairs):
        raise MediaError("windows must be one or three names or (width, level) pairs with a width above 0.")
    return tuple(pairs * (3 // len(pairs))), f"CT windows (width/level HU): {', '.join(texts)}."
