# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""What every reader shares: the Clip it returns, its error, its limits and its options."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image

from .intensity_omniv_med import CT_PRESETS, CT_WINDOWS

KINDS = ("image", "volume", "video")
PLANES = ("axial", "coronal", "sagittal")
FEWEST_VIDEO_FRAMES = 8
"""Frames that a video keeps at least, if it has them: an ultrasound loop of 2 s would keep two at 1 frame a second."""
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
class Geometry:
    """Where the frames of a volume lie in the patient, in LPS millimetres (DICOM PS3.3 C.7.6.2.1.1).

    Pixel (row, column) of frame i is centred at `origins[i] + steps[:, 0] * column + steps[:, 1] * row`.

    Attributes:
        origins: float64 array (frames, 3), the centre of the first pixel of each frame.
        steps: float64 array (3, 3), one a column: the way to the next column, to the next row, and to the next slice of
            the source, of which the frames may be a choice.
    """

    origins: np.ndarray
    steps: np.ndarray


class Series(NamedTuple):
    """A DICOM series that a source holds: the number that `load_clip` takes, its slices, its modality code, and whether
    it is the one that was read."""

    number: int
    slices: int
    modality: str
    is_read: bool


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
        geometry: where the frames lie in the patient, for DICOM slices and NIfTI whose headers say so; else None.
        series: the DICOM series of a folder, archive or list that holds several, those that have numbers; else empty.
    """

    frames: np.ndarray
    kind: str
    positions: np.ndarray
    pixel_spacing: tuple[float, float] = (0.0, 0.0)
    source_frames: int = 0
    modality: str = ""
    notes: tuple[str, ...] = ()
    plane: str = "axial"
    geometry: Geometry | None = None
    series: tuple[Series, ...] = ()

    @property
    def unit(self) -> str:
        """Unit of `positions`: "mm", "s", or "" for an image."""
        return {"image": "", "volume": "mm", "video": "s"}[self.kind]

    def images(self) -> list[Image.Image]:
        """The frames as RGB pictures, for any other model: with this reader's windows, plane and choice of frames."""
        return [Image.fromarray(np.ascontiguousarray(frame)) for frame in self.frames]


@dataclass(frozen=True)
class ReadingOptions:
    """The arguments of `load_clip`, checked by `ReadingOptions.check`.

    Attributes:
        kind, plane, volume_index, max_frames, fps, limits: as in `load_clip`.
        modality: DICOM modality code that goes before the header's, or None.
        spacing: () or one to three numbers, as in `load_clip`.
        windows: three (width, level) pairs in HU.
        windows_note: the sentence that records the windows by the names they were given.
        series: number or UID of the DICOM series that is asked for, or None.
        report: called after every frame of a video with the frames read and the frames to read.
    """

    kind: str | None
    modality: str | None
    spacing: tuple[float, ...]
    plane: str
    windows: tuple[tuple[float, float], ...]
    windows_note: str
    series: str | int | None
    volume_index: int
    max_frames: int
    fps: float
    limits: MediaLimits
    report: Callable[[int, int], None]

    @classmethod
    def check(
        cls,
        *,
        kind: str | None = None,
        modality: str | None = None,
        spacing: float | Sequence[float] | None = None,
        plane: str = "axial",
        windows: str | Sequence[str | tuple[float, float]] | None = None,
        series: str | int | None = None,
        volume_index: int = 0,
        max_frames: int = 32,
        fps: float = 1.0,
        limits: MediaLimits | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> ReadingOptions:
        """The options that the arguments of `load_clip` mean.

        Raises:
            MediaError: for an argument that means nothing.
        """
        if kind not in (None, *KINDS):
            raise MediaError(f"kind must be one of {', '.join(KINDS)}.")
        if plane not in (*PLANES, "automatic"):
            raise MediaError(f"plane must be one of {', '.join(PLANES)}, automatic.")
        try:
            max_frames, fps = int(max_frames), float(fps)
            steps = () if spacing is None else tuple(float(step) for step in np.atleast_1d(np.asarray(spacing)))
        except (TypeError, ValueError, OverflowError):
            raise MediaError("max_frames, fps and spacing must be numbers.") from None
        if max_frames < 1 or not 0 < fps < float("inf"):
            raise MediaError("max_frames must be at least 1, and fps above 0.")
        if len(steps) > 3 or not all(0 < step < float("inf") for step in steps):
            raise MediaError("spacing must be one, two or three numbers above 0.")
        if not isinstance(volume_index, (int, np.integer)) or volume_index < 0:
            raise MediaError("volume_index must be a whole number from 0.")
        code = str(modality).strip().upper() if modality else ""
        pairs, note = _check_windows(CT_WINDOWS if windows is None else windows)
        return cls(
            kind=kind,
            modality=MODALITY_CODES.get(code, code) or None,
            spacing=steps,
            plane=plane,
            windows=pairs,
            windows_note=note,
            series=_check_series(series),
            volume_index=int(volume_index),
            max_frames=max_frames,
            fps=fps,
            limits=limits or MediaLimits(),
            report=progress or (lambda done, total: None),
        )

    def refuse_choice(self, name: str, volumes: bool = False) -> None:
        """Raises `MediaError` for a choice among series, or among `volumes`, that the source called `name` lacks."""
        if self.series is not None:
            raise MediaError(f"{name} is no DICOM, so it has no series to choose from; leave series out.")
        if self.volume_index and not volumes:
            raise MediaError(f"{name} does not hold several volumes; leave volume_index out.")

    def check_volume_index(self, name: str, count: int) -> None:
        """Raises `MediaError` where the source called `name` holds `count` volumes, and not the one asked for."""
        if self.volume_index >= count:
            raise MediaError(f"{name} holds {count} volumes, so volume_index must lie from 0 to {count - 1}.")

    @property
    def chosen_volume(self) -> str:
        """How notes call the volume that is asked for."""
        return "the first" if self.volume_index == 0 else f"number {self.volume_index}, counted from 0,"

    def choose_frames(self, times: np.ndarray, known: bool) -> tuple[np.ndarray, np.ndarray, list[str]]:
        """Which frames of a video are read, by the rule of `load_clip`.

        Args:
            times: float64 (n,), seconds of all frames, or their numbers.
            known: whether the file gives the seconds.

        Returns:
            The increasing numbers of the frames to read, int64 (m,), their seconds, float64 (m,), and notes.
        """
        count, notes = len(times), []
        if len(self.spacing) == 1:
            times, known = np.arange(count) * self.spacing[0], True
        times = np.asarray(times, dtype=np.float64) - times[0]
        wanted = count
        if known and count > 1:
            wanted = int((times[-1] + np.median(np.diff(times))) * self.fps + 1e-6)
        at_least = min(FEWEST_VIDEO_FRAMES, count)
        if known and at_least <= wanted <= min(self.max_frames, count):
            indices = np.unique(np.searchsorted(times, np.arange(wanted) / self.fps + 1e-6, side="right") - 1)
            how = f"at {self.fps:g} per second"
        else:
            indices = evenly_spaced(count, min(max(wanted, at_least), self.max_frames))
            how = "evenly spaced"
        notes.append(f"All {count} frames." if len(indices) == count else f"{len(indices)} of {count} frames, {how}.")
        if not known:
            notes.append("The file gives no frame times; positions count frames.")
        return indices, times[indices], notes


def evenly_spaced(count: int, wanted: int) -> np.ndarray:
    """At most `wanted` of `count` indices, increasing, evenly spaced from the first to the last; one is the middle."""
    if wanted <= 1:
        return np.array([(count - 1) // 2])
    return np.round(np.linspace(0, count - 1, min(count, wanted))).astype(np.int64)


def _check_series(series: str | int | None) -> str | int | None:
    """A series' number or UID; digits in a string are a number."""
    if series is None:
        return None
    if isinstance(series, str) and series.strip():
        return int(series) if re.fullmatch(r"\d{1,9}", series.strip()) else series.strip()
    if isinstance(series, (int, np.integer)):
        return int(series)
    raise MediaError("series must be the number or the UID of a DICOM series.")


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
