# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Reads any medical media file into one structure, the Clip: frames, a kind, and where each frame lies."""

from __future__ import annotations

import base64
import gzip
import itertools
import math
import os
import posixpath
import re
import stat
import struct
import tempfile
import urllib.parse
import zipfile
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import SimpleITK as sitk  # noqa: N813 - the name all of its documentation uses
from PIL import Image, ImageFile, ImageOps

from .dicom_omniv_med import (
    Film,
    MediaError,
    MediaLimits,
    Picture,
    Scan,
    fill_background,
    looks_like_dicom,
    native_stderr,
    read_dicom,
    read_dicom_series,
    silence,
)

__all__ = [
    "CT_PRESETS",
    "CT_WINDOWS",
    "KINDS",
    "Clip",
    "MediaError",
    "MediaLimits",
    "iterate_clips",
    "load_clip",
    "scale_intensity",
    "window_ct",
]

KINDS = ("image", "volume", "video")
PLANES = ("axial", "coronal", "sagittal")
CT_WINDOWS = ((2250.0, -100.0), (350.0, 40.0), (80.0, 40.0))
"""(width, level) in HU of the three CT windows that fill the three channels: bone to lung, soft tissue, brain."""
CT_PRESETS = {
    "abdomen": (400.0, 50.0),
    "bone": (1800.0, 400.0),
    "brain": (80.0, 40.0),
    "liver": (150.0, 30.0),
    "lung": (1500.0, -600.0),
    "mediastinum": (350.0, 50.0),
    "soft tissue": (400.0, 50.0),
    "spine": (250.0, 50.0),
    "stroke": (40.0, 40.0),
    "subdural": (215.0, 75.0),
    "temporal bone": (2800.0, 600.0),
}
"""(width, level) in HU by the name that radiologists give the window, as radiopaedia.org/articles/windowing-ct lists
them; where it gives a range, its middle."""
INTENSITY_PERCENTILES = (1.0, 99.0)
"""Range of a whole non-CT volume that is mapped to black and white."""
LARGE = 2**18
"""Values of an array from which it pays to look up or to select instead of computing or sorting all."""
SAMPLING_ERROR = 0.005
"""Share of an array by which a percentile of a sample of it may be wrong; were it more, all would be sorted."""
SHORT_FILM_FRAMES = 8
"""Frames that a film keeps at least, if it has them: an ultrasound loop of 2 s would keep two at 1 frame per second."""
LARGEST_SKEW = 0.01
"""Difference of a volume's direction cosines from ones at right angles, above which that is no rounding."""
MOST_REORDERED = 16
"""Frames that a video decoder may hold back to bring them into order (H.264, A.3.1: max_dec_frame_buffering)."""
PILLOW_FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "BMP", "GIF", "JPEG2000")
"""What Pillow may open; its other formats are no medical media, and some start other programs."""
NIFTI_BITS = {2: 8, 4: 16, 8: 32, 16: 32, 32: 64, 64: 64, 128: 24, 256: 8, 512: 16, 768: 32, 1024: 64, 1280: 64}
NIFTI_BITS |= {1792: 128, 2304: 32}
"""Bits of a voxel by NIfTI-1 data type, of those that ITK reads: integers, floats, complex numbers and colours."""
MODALITY_CODES = {"MRI": "MR", "PET": "PT", "ULTRASOUND": "US", "X-RAY": "DX"}
"""Everyday names that `modality` may have, and their DICOM codes."""


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


def window_ct(hounsfield: np.ndarray, windows: Sequence[tuple[float, float]] = CT_WINDOWS) -> np.ndarray:
    """Maps HU (…) to uint8 (…, windows), one (width, level) a channel (DICOM PS3.3 C.11.2.1.3.2, linear exact)."""
    channels = [_grey_levels(hounsfield, level - width / 2, width) for width, level in windows]
    return np.stack(channels, axis=-1)


def _grey_levels(values: np.ndarray, low: float, width: float) -> np.ndarray:
    """Maps `low` to `low + width` to uint8 0 to 255, values of the same shape.

    In float64 whatever the input is, so that one body gives one picture from int16 NIfTI and float32 DICOM; a frame at
    a time, as such a copy of a whole volume is many times the file. Of large arrays of few different numbers, each
    number is mapped once and looked up.
    """

    def convert(frame: np.ndarray) -> np.ndarray:
        shares = (np.asarray(frame, dtype=np.float64) - low) / width
        return np.round(np.clip(shares, 0, 1) * 255).astype(np.uint8)

    if values.ndim < 3:
        return convert(values)
    shown = np.empty(values.shape, dtype=np.uint8)
    bits = _few_bits(values)
    table = convert(np.arange(2**bits, dtype=f"u{bits // 8}").view(values.dtype)) if bits else None
    for frame, out in zip(values, shown, strict=True):
        if table is None:
            out[...] = convert(frame)
        else:
            np.take(table, frame.view(f"u{bits // 8}"), out=out, mode="clip")
    return shown


def _few_bits(values: np.ndarray) -> int:
    """Bits of integers (…) that can be looked up by value; 0 where there are too many or too few of them."""
    few = values.dtype.kind in "iu" and values.itemsize <= 2 and values.dtype.isnative
    return 8 * values.itemsize if few and values.size >= LARGE else 0


def intensity_range(values: np.ndarray) -> tuple[float, float]:
    """The values that become black and white: the 1st and 99th percentile, or the extremes where those are equal."""
    found = [_percentile(values, percentile) if values.size >= LARGE else None for percentile in INTENSITY_PERCENTILES]
    if None in found:
        found = [float(value) for value in np.percentile(values, INTENSITY_PERCENTILES)]
    low, high = found
    return (low, high) if high > low else (float(values.min()), float(values.max()))


def _percentile(values: np.ndarray, percentile: float) -> float | None:
    """As `np.percentile` of many values (n, …), but sorting only those near it; None where they do not hold it.

    A sample tells about where the percentile is. The values below are counted, which takes a tenth of the time.
    """
    sample = np.sort(values[tuple(slice(None, None, max(1, extent // 48)) for extent in values.shape)], axis=None)
    around = (percentile / 100 + np.array([-SAMPLING_ERROR, SAMPLING_ERROR])) * (sample.size - 1)
    low, high = sample[around.round().astype(int).clip(0, sample.size - 1)]
    below, near = 0, []
    for part in values:  # stays in the processor's cache
        below += np.count_nonzero(part < low)
        near.append(np.count_nonzero(part == low) if low == high else part[(part >= low) & (part <= high)])
    place = (values.size - 1) * percentile / 100 - below
    count = sum(near) if low == high else sum(map(len, near))
    if not 0 <= place < count - 1:
        return None
    if low == high:
        return float(low)
    first = math.floor(place)
    one, other = (float(value) for value in np.partition(np.concatenate(near), [first, first + 1])[first : first + 2])
    return one + (other - one) * (place - first)


def _grey_frames(shown: np.ndarray) -> np.ndarray:
    """uint8 grey levels (frames, height, width) as the frames of a `Clip`, without copies of them."""
    return np.broadcast_to(shown[..., None], (*shown.shape, 3))


def scale_intensity(values: np.ndarray, value_range: tuple[float, float] | None = None) -> np.ndarray:
    """Maps values (…) to uint8 (…, 3): `value_range`, by default the array's percentiles, becomes black to white."""
    return np.repeat(_scaled(values, value_range)[..., None], 3, axis=-1)


def _scaled(values: np.ndarray, value_range: tuple[float, float] | None = None) -> np.ndarray:
    """As `scale_intensity`, one channel (…)."""
    low, high = value_range or intensity_range(values)
    return _grey_levels(values, low, max(high - low, 1e-12))


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


def load_clip(
    source: Any,
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
) -> Clip:
    """Reads an image, a volume or a video from wherever it is; what a file is, its content says, not its name.

    Pictures are shown as stored if they have 8 bits; deeper ones are scaled. Volumes are turned to LPS axes and cut
    into `max_frames` evenly spaced slices that cover them. CT goes through three windows into three channels; every
    other volume is scaled by the percentiles of all of its voxels. Of a film, the frames on screen at every 1 / `fps`
    seconds are read; where they would be more than `max_frames`, or fewer than 8, `max_frames` or 8 evenly spaced ones.

    Args:
        source: a path to PNG, JPEG, TIFF, WebP, BMP, GIF, JPEG 2000, DICOM, NIfTI-1 or -2, Analyze 7.5, NRRD,
            MetaImage (of the last four also a header beside the file with its voxels), MP4, MOV, AVI, MKV, WebM or
            MPEG (transport) streams, or to a NumPy array in a `.npy` file; a folder or zip archive with DICOM series
            or a single other file; a `data:` URI; the bytes of a file; an array (H, W), (H, W, 3), (T, H, W) or
            (T, H, W, 3); a PIL image; a list of frames, of DICOM files, or of a header and the file with its voxels; a
            `Clip`, which is returned as it is.
        kind: "image", "volume" or "video" for what leaves it open: arrays, lists, and multi-frame DICOM files. By
            default (T, H, W) is a volume with the first slice at the feet and anterior up; colour (T, H, W, 3) and
            lists are videos. A volume of which only one slice is held becomes an image.
        modality: DICOM modality code that goes before the header's. "CT" says that values are HU, unless all of them
            lie from 0 to 1. Without any, a volume of whole numbers is taken for CT where it reaches -900 and at least
            1 % of it is air (-1100 to -900).
        spacing: goes before the header's: (slices, rows, columns) in mm for a volume after it is turned to LPS,
            (rows, columns) in mm for an image or a video, or one number, the seconds from frame to frame of a video.
        plane: "axial"; "coronal", from front to back; "sagittal", from right to left, anterior on the left, both with
            the head at the top; or "automatic": across the axis with the largest spacing, which is how it was acquired.
        windows: three CT windows, or one for all channels; each a (width, level) pair in HU or a name from
            `CT_PRESETS` ("lung", "bone", "brain", …). Default: `CT_WINDOWS`.
        series: which DICOM series of a folder, archive or list is read: its SeriesNumber, as the scanner's console
            shows it, or its SeriesInstanceUID. Default: the one with the most slices.
        volume_index: which volume, counted from 0, where there are several: of a file with more than three axes or
            with several values in a voxel (time points, directions), in the order they are stored; of a DICOM series
            with several slices at each place (echoes, phases, b-values), in the order of their instance numbers.
        max_frames: frames of the clip at most.
        fps: frames per second that a video is read at.
        limits: what a file may claim. Default: `MediaLimits()`.
        progress: called after every frame of a video with the frames read and the frames to read; it may raise
            `MediaError` to stop.

    Raises:
        MediaError: whatever is wrong with the source or an argument, in one sentence without patient data.
    """
    if _is_clip(source):
        chosen = any(choice is not None for choice in (modality, spacing, windows, series))
        if chosen or plane != "axial" or volume_index:
            raise MediaError("A Clip has been read already; give modality, spacing, plane and windows to its reading.")
        return source
    limits = limits or MediaLimits()
    options = _check_options(
        kind, modality, spacing, plane, windows, max_frames, fps, limits, progress, series, volume_index
    )
    name = _name(source)
    with _in_one_sentence(name), tempfile.TemporaryDirectory(prefix="omniv_med_") as scratch:
        clip = _load(source, name, options, Path(scratch))
    if kind and clip.kind != kind:
        clip = replace(clip, notes=(*clip.notes, f"Given as {kind}, but it holds {clip.kind} data and is read so."))
    return clip


def iterate_clips(
    source: Any,
    *,
    chunk: int = 32,
    fps: float = 1.0,
    limits: MediaLimits | None = None,
    progress: Callable[[int, int], None] | None = None,
    **description: Any,
) -> Iterator[Clip]:
    """Reads a video piece by piece, with memory that does not grow with its length.

    Pruning and encoding can run on each piece while the next is not read yet. The pieces together are the clip of
    `load_clip` without a limit of frames: positions go on from piece to piece. Only a path to a video file is read so;
    any other source is read whole and handed out in pieces.

    Args:
        source, fps, limits, progress: as in `load_clip`.
        chunk: frames of a piece at most.
        description: other arguments of `load_clip`, except `max_frames`.

    Yields:
        Clips of 1 to `chunk` frames.

    Raises:
        MediaError: as `load_clip`; also between pieces, where the damage lies there.
    """
    if chunk < 1:
        raise MediaError("chunk must be at least 1.")
    limits = limits or MediaLimits()
    everything = {"max_frames": limits.max_source_frames, "fps": fps, "limits": limits, "progress": progress}
    if not _is_video_file(source):
        clip = load_clip(source, **everything, **description)
        for start in range(0, len(clip.frames), chunk):
            part = slice(start, start + chunk)
            yield replace(clip, frames=clip.frames[part], positions=clip.positions[part])
        return
    unset = {"kind": None, "modality": None, "spacing": None, "plane": "axial", "windows": None}
    unset |= {"series": None, "volume_index": 0}
    options = _check_options(**unset | everything | description)
    name = _name(source)
    _refuse_choice(name, options)
    pictures = _read_video_in_pieces(Path(os.fsdecode(source)), name, options, chunk)
    while True:
        with _in_one_sentence(name):  # around each step alone: what the caller does between them is its own
            picture = next(pictures, None)
            if picture is None:
                return
            clip = _picture_clip(picture, options)
        yield clip


def _is_video_file(source: Any) -> bool:
    try:
        return _is_path(source) and os.path.isfile(source) and _sniff(Path(os.fsdecode(source))) == "video"
    except (OSError, ValueError):  # `load_clip` says what is wrong with it
        return False


@contextmanager
def _in_one_sentence(name: str) -> Iterator[None]:
    """Keeps libraries silent and strict, and turns whatever they raise into a `MediaError`."""
    try:
        with silence(), _whole_pictures():
            yield
    except MediaError:
        raise
    except Exception as error:  # the libraries' own sentences may quote the header, so they are not passed on
        if _lacks_memory(error):  # also where a damaged header claims more than there can be
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


def _lacks_memory(error: Exception) -> bool:
    """ITK says it in words only."""
    return isinstance(error, MemoryError) or "Failed to allocate memory" in str(error)


def _is_clip(source: Any) -> bool:
    """By its fields: the loader of remote code may import this file twice, and then two classes are called Clip."""
    return all(hasattr(source, field.name) for field in fields(Clip)) and not isinstance(source, type)


def _name(source: Any) -> str:
    """How messages call the source: a file by its own name, without its folders."""
    if _is_path(source) and not str(source).startswith("data:"):
        text = os.path.basename(os.path.normpath(os.fspath(source)))
        text = text.decode(errors="replace") if isinstance(text, bytes) else text
        return "".join(c if c.isprintable() else "?" for c in text)[:100]
    if isinstance(source, np.ndarray):
        return "The array"
    return "The list of frames" if isinstance(source, (list, tuple)) else "The media"


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


def _is_path(source: Any) -> bool:
    return isinstance(source, (str, os.PathLike))


def _load(source: Any, name: str, options: _Options, scratch: Path) -> Clip:
    """Whatever `load_clip` takes, except a Clip."""
    if isinstance(source, (Image.Image, np.ndarray)):
        _refuse_choice(name, options)
    if isinstance(source, Image.Image):
        return _picture_clip(_read_pillow(source, name, options), options)
    if isinstance(source, np.ndarray):
        return _load_array(source, name, options)
    if isinstance(source, (list, tuple)):
        return _load_list(source, name, options, scratch)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _load_bytes(bytes(source), name, options, scratch)
    if not _is_path(source):
        raise MediaError(f"A {type(source).__name__} is no media; give a path, bytes, an array or a PIL image.")
    text = os.fspath(source)
    text = os.fsdecode(text)
    if text.startswith("data:"):
        return _load_bytes(_decode_data_uri(text, name, options.limits), name, options, scratch)
    if "://" in text:
        scheme = text.split("://")[0][:10]
        raise MediaError(f"Addresses ({scheme}://) are not fetched; download the file and give its path.")
    return _load_path(Path(text), name, options, scratch)


def _refuse_choice(name: str, options: _Options, volumes: bool = False) -> None:
    """Raises `MediaError` for a choice among series or volumes that a source does not offer."""
    if options.series is not None:
        raise MediaError(f"{name} is no DICOM, so it has no series to choose from; leave series out.")
    if options.volume_index and not volumes:
        raise MediaError(f"{name} does not hold several volumes; leave volume_index out.")


def _decode_data_uri(text: str, name: str, limits: MediaLimits) -> bytes:
    """The bytes of a `data:` URI (RFC 2397); its media type is not trusted."""
    header, comma, body = text.partition(",")
    if len(body) > limits.max_unpacked_bytes:
        raise MediaError(f"{name} is longer than {limits.max_unpacked_bytes} bytes; it is not read.")
    body = urllib.parse.unquote_to_bytes(body)
    try:
        data = base64.b64decode(b"".join(body.split()), validate=True) if header.endswith(";base64") else body
    except ValueError:
        raise MediaError("The data URI is not valid base64; encode the file again.") from None
    if not comma or not data:
        raise MediaError("The data URI holds no data; encode the file again.")
    return data


def _load_bytes(data: bytes, name: str, options: _Options, scratch: Path) -> Clip:
    path = scratch / "media"
    path.write_bytes(data)
    return _load_path(path, name, options, scratch)


def _sniff(path: Path) -> str:
    """What a file is by its first bytes: "dicom", "nifti", "nrrd", "picture", … or "" if unknown."""
    with open(path, "rb") as file:
        head = file.read(1024)
    if head[128:132] == b"DICM":  # first: the preamble before it may be that of a TIFF file (PS3.10 7.1)
        return "dicom"
    packed = head[:2] == b"\x1f\x8b"
    first = _gunzip_head(head) if packed else head
    if _as_nifti1(first):
        return "nifti"
    if packed:
        return ""
    if head[:7] == b"NRRD000":
        return "nrrd"
    if head[:6] == b"\x93NUMPY":
        return "numpy"
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return "zip"
    if head[:8] == b"\x89PNG\r\n\x1a\n" or head[:3] == b"\xff\xd8\xff" or head[:2] == b"BM" or head[:4] == b"GIF8":
        return "picture"
    if head[:4] in (b"II*\0", b"MM\0*", b"\xff\x4f\xff\x51") or head[4:8] == b"jP  " or head[8:12] == b"WEBP":
        return "picture"
    if head[:4] == b"\x1aE\xdf\xa3" or (head[:4] == b"RIFF" and head[8:12] == b"AVI "):
        return "video"
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip") or head[:4] == b"\0\0\x01\xba":
        return "video"
    # MPEG transport streams (ISO/IEC 13818-1, 2.4.3) begin each packet with 0x47; Blu-ray's have four bytes before it.
    if head[:753:188] == b"G" * 5 or head[4:773:192] == b"G" * 5:
        return "video"
    if looks_like_dicom(head):
        return "dicom"
    return "meta" if b"NDims" in head and b"=" in head else ""


def _gunzip_head(head: bytes) -> bytes:
    """The first 540 bytes, as long as the longest header, that the first bytes of a gzip file unpack to, or fewer."""
    try:
        return zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(head, 540)
    except zlib.error:
        return b""


def _load_path(path: Path, name: str, options: _Options, scratch: Path) -> Clip:
    """One file or folder."""
    if path.is_dir():
        return _load_folder(path, name, options, scratch)
    if not path.exists():
        raise MediaError(f"{name} does not exist; check the path.")
    if not path.is_file():
        raise MediaError(f"{name} is neither a file nor a folder; give a file.")
    if not os.access(path, os.R_OK):
        raise MediaError(f"{name} may not be read by this user; change its permissions.")
    if path.stat().st_size == 0:
        raise MediaError(f"{name} is empty (0 bytes); copy it again.")
    content = _sniff(path)
    if content == "dicom" and options.series is None:
        read = read_dicom(
            path, name, options.limits, options.choose, options.modality, options.kind, options.volume_index
        )
        return _render(read, name, options, scratch)
    if content == "dicom":
        return _load_series([path], name, options, scratch)
    if content == "zip":
        folder, names = _unpack(path, name, options.limits, scratch)
        return _load_folder(folder, name, replace(options, names=names), scratch)
    _refuse_choice(name, options, volumes=content in ("nifti", "nrrd", "meta", ""))
    if content in ("nifti", "nrrd", "meta"):
        return _scan_clip(_read_itk(path, content, name, options, scratch), name, options)
    if content == "numpy":
        return _load_array(_map_numpy(path, name), name, options)
    if content == "picture":
        return _load_pillow_file(path, name, options)
    if content == "video":
        return _picture_clip(_read_video(path, name, options), options)
    if header := _header_of_voxels(path, options):
        return _load_path(header, name, options, scratch)
    raise MediaError(
        f"{name} is not a known medical image, volume or video, whatever its name says; convert it to DICOM, NIfTI, "
        "PNG, JPEG or MP4."
    )


def _load_series(paths: Sequence[Path], name: str, options: _Options, scratch: Path) -> Clip:
    """The series that is asked for among DICOM files, or the one with the most slices."""
    choice = (options.modality, options.kind, options.volume_index, options.series)
    read = read_dicom_series(paths, name, options.limits, options.choose, *choice)
    return _render(read, name, options, scratch)


def _called(path: Path, options: _Options) -> str:
    """What a file is called where it comes from; in an archive, with its folders."""
    return options.names.get(path, path.name)


def _beside(path: Path, target: str, options: _Options) -> Path | None:
    """The file of a name that lies beside another: in its folder of the disk or the archive, or in the same list.

    No link leads out of a folder.
    """
    if path in options.names:
        wanted = posixpath.join(posixpath.dirname(options.names[path]), target)
        return next((other for other, called in options.names.items() if called == wanted), None)
    found = path.parent / target
    return found if found.is_file() and found.resolve().parent == path.parent.resolve() else None


def _header_of_voxels(path: Path, options: _Options) -> Path | None:
    """The NIfTI or Analyze header beside a file of voxels, which has no signature, only the ending .img."""
    stem, ending = os.path.splitext(posixpath.basename(_called(path, options)).removesuffix(".gz"))
    if ending.lower() != ".img":
        return None
    headers = (_beside(path, stem + suffix, options) for suffix in (".hdr", ".HDR", ".hdr.gz"))
    return next((header for header in headers if header and _sniff(header) == "nifti"), None)


def _render(read: Scan | Picture | Film, name: str, options: _Options, scratch: Path) -> Clip:
    """What DICOM held, as a clip."""
    if isinstance(read, Scan):
        return _scan_clip(read, name, options)
    if isinstance(read, Film):
        path = scratch / "film"
        path.write_bytes(read.data)
        read = replace(_read_video(path, name, options), modality=read.modality)
    return _picture_clip(read, options)


def _load_folder(folder: Path, name: str, options: _Options, scratch: Path) -> Clip:
    """The DICOM series of a folder and those below it, by the rule of `load_clip`, or its only other media file."""
    paths: list[Path] = []
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(entry for entry in folders if not entry.startswith((".", "__MACOSX")))
        paths += [Path(parent, file) for file in sorted(files) if not file.startswith(".")]
        if len(paths) > options.limits.max_archive_entries:
            raise MediaError(f"{name} holds over {options.limits.max_archive_entries} files; give one series' folder.")
    contents = [(path, _sniff(path)) for path in paths if path.is_file() and path.stat().st_size]
    dicom = [path for path, content in contents if content == "dicom"]
    if dicom:
        return _load_series(dicom, name, options, scratch)
    others = [path for path, content in contents if content not in ("", "zip")]
    if len(others) == 1:
        return _load_path(others[0], name, options, scratch)
    if others:
        raise MediaError(f"{name} holds {len(others)} media files and no DICOM series; give one of them.")
    raise MediaError(f"{name} holds no medical image, volume or video; give the folder or archive of a DICOM series.")


def _unpack(path: Path, name: str, limits: MediaLimits, scratch: Path) -> tuple[Path, dict[Path, str]]:
    """Unpacks a zip archive into a folder of its own, under numbers: names in it are checked, but no file has them.

    Returns the folder, and what each file in it is called in the archive.
    """
    folder, names = scratch / "unpacked", {}
    folder.mkdir()
    try:
        with zipfile.ZipFile(path) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
            _check_entries(entries, name, limits)
            for index, entry in enumerate(entries):
                if os.path.basename(entry.filename).startswith(".") or entry.filename.startswith("__MACOSX"):
                    continue
                # zipfile reads no more than the size that the checks above have seen.
                unpacked = folder / f"{index:06d}"
                unpacked.write_bytes(archive.read(entry))
                names[unpacked] = entry.filename.replace("\\", "/")
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, UnicodeDecodeError):
        raise MediaError(f"{name} is a damaged or unusual zip archive; pack it again.") from None
    return folder, names


def _check_entries(entries: list[zipfile.ZipInfo], name: str, limits: MediaLimits) -> None:
    """Raises `MediaError` for an archive that is empty, locked, too big, or points out of itself."""
    if not entries:
        raise MediaError(f"{name} is an empty archive; pack the files again.")
    if len(entries) > limits.max_archive_entries:
        raise MediaError(f"{name} holds over {limits.max_archive_entries} files; pack one series only.")
    if sum(entry.file_size for entry in entries) > limits.max_unpacked_bytes:
        raise MediaError(f"{name} unpacks to more than {limits.max_unpacked_bytes} bytes; pack one series only.")
    for entry in entries:
        if entry.flag_bits & 1:
            raise MediaError(f"{name} is encrypted; unpack it with its password first.")
        parts = entry.filename.replace("\\", "/").split("/")
        if ".." in parts or parts[0] == "" or parts[0].endswith(":") or stat.S_ISLNK(entry.external_attr >> 16):
            raise MediaError(f"{name} holds paths or links that leave the archive; it is not read.")


@dataclass(frozen=True)
class _NiftiHeader:
    """What must be known of a NIfTI file before ITK may read it."""

    size: tuple[int, ...]
    volume_bytes: int  # of one volume of three axes
    total_bytes: int  # from the start of the file to the end of the last volume
    single_file: bool
    spacing_known: bool
    rotation_known: bool
    axes: np.ndarray  # (3, 3), LPS millimetres of a step along each stored axis, one a column
    axes_known: bool
    floats: str  # NumPy's name of the type of floating-point voxels, "" for others
    start: int  # of the voxels, in bytes


def _nifti_axes(head: bytes, order: str) -> tuple[np.ndarray, bool]:
    """The `axes` of a `_NiftiHeader`, and whether the header gives them.

    They are the sform's where its code says there is one, else the qform's, else the stored ones are taken to run to
    the left, the front and the head (nifti1.h, "orientation and location in space", and what nibabel does). ITK
    takes the qform of some headers with both, and turns the front to the back where there is none.
    """
    by_quaternion, by_rows = struct.unpack_from(f"{order}2h", head, 252)
    unit = {1: 1000.0, 3: 0.001}.get(head[123] & 7, 1.0)  # metres, micrometres
    lps = np.diag([-unit, -unit, unit])
    rows = np.array(struct.unpack_from(f"{order}12f", head, 280)).reshape(3, 4)[:, :3]
    if by_rows > 0 and np.isfinite(rows).all() and np.linalg.norm(rows, axis=0).all():
        return lps @ rows, True
    handedness, *steps = np.array(struct.unpack_from(f"{order}4f", head, 76))
    steps = np.array([abs(step) if np.isfinite(step) and step else 1.0 for step in steps])
    b, c, d = struct.unpack_from(f"{order}3f", head, 256)
    if by_quaternion <= 0 or not np.isfinite([b, c, d]).all():
        return lps @ np.diag([-1.0, 1.0, 1.0]) * steps, False
    a = max(1 - b * b - c * c - d * d, 0.0) ** 0.5
    a, b, c, d = np.array([a, b, c, d]) / np.linalg.norm([a, b, c, d])
    rotation = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )
    return lps @ rotation * steps * [1, 1, -1 if handedness < 0 else 1], True


def _as_nifti1(head: bytes) -> bytes:
    """The header of a NIfTI-1, NIfTI-2 or Analyze 7.5 file as NIfTI-1 has it (348 bytes); empty for anything else."""
    for order in "<>":
        if len(head) >= 348 and head[:4] == struct.pack(f"{order}i", 348):
            return head[:348] if head[344:347] in (b"n+1", b"ni1") else _analyze_as_nifti1(head, order)
        if len(head) >= 540 and head[:4] == struct.pack(f"{order}i", 540) and head[4:7] in (b"n+2", b"ni2"):
            return _nifti2_as_nifti1(head, order)
    return b""


def _nifti2_as_nifti1(head: bytes, order: str) -> bytes:
    """Its fields at their places in the older header (nifti2.h, nifti1.h); ITK does not read the newer one."""
    extents, (start,) = struct.unpack_from(f"{order}8q", head, 16), struct.unpack_from(f"{order}q", head, 168)
    # What the shorter fields of the older one cannot hold is refused later, as no size at all.
    fits = all(0 <= extent < 2**15 for extent in extents) and 0 <= start < 2**24
    with np.errstate(over="ignore"):
        steps, scale, qform, sform = (
            np.frombuffer(head, f"{order}f8", count, place).astype(f"{order}f4").tobytes()
            for count, place in ((8, 104), (2, 176), (6, 352), (12, 400))
        )
    old = bytearray(348)
    struct.pack_into(f"{order}i", old, 0, 348)
    struct.pack_into(f"{order}8h", old, 40, *(extents if fits else [3, *[0] * 7]))
    old[70:74] = head[12:16]  # the type of voxels, and their bits
    old[76:108] = steps
    least = 540 if head[4:7] == b"n+2" else 0
    struct.pack_into(f"{order}f", old, 108, max(start, least) if fits else 0)
    old[112:120] = scale
    old[123] = struct.unpack_from(f"{order}i", head, 500)[0] & 0x3F
    codes = struct.unpack_from(f"{order}2i", head, 344)
    struct.pack_into(f"{order}2h", old, 252, *(min(max(code, 0), 1) for code in codes))
    old[256:280], old[280:328] = qform, sform
    old[344:347] = b"n+1" if head[4:7] == b"n+2" else b"ni1"
    return bytes(old)


def _analyze_as_nifti1(head: bytes, order: str) -> bytes:
    """What the two formats share: sizes, type and steps; empty where it is no Analyze header after all.

    Analyze gives no orientation. Its values are scaled as SPM2 did, which nibabel follows, too.
    """
    extents, (code,) = struct.unpack_from(f"{order}8h", head, 40), struct.unpack_from(f"{order}h", head, 70)
    if not 1 <= extents[0] <= 7 or code not in (2, 4, 8, 16, 64, 128) or head[38:39] not in (b"r", b"\0"):
        return b""
    old = bytearray(head[:148]) + bytes(200)
    old[56:70], old[74:76], old[120:124] = bytes(14), bytes(2), bytes(4)
    slope, offset = struct.unpack_from(f"{order}2f", head, 112)
    shown, stored = struct.unpack_from(f"{order}2f", head, 124), struct.unpack_from(f"{order}2i", head, 140)
    if np.isfinite(slope) and slope:
        offset = offset if np.isfinite(offset) else 0.0
    elif np.isfinite(shown).all() and shown[0] != shown[1] and stored[0] != stored[1]:
        slope = (shown[0] - shown[1]) / (stored[0] - stored[1])
        offset = shown[1] - slope * stored[1]
    else:
        slope, offset = 0.0, 0.0  # none
    struct.pack_into(f"{order}2f", old, 112, slope, offset)
    old[344:347] = b"ni1"
    return bytes(old)


def _nifti_header(head: bytes) -> _NiftiHeader | None:
    """Parses the first 348 bytes of NIfTI-1; None for anything else."""
    for order in "<>":
        if len(head) < 348 or head[:4] != struct.pack(f"{order}i", 348) or head[344:347] not in (b"n+1", b"ni1"):
            continue
        dims, (datatype,) = struct.unpack_from(f"{order}8h", head, 40), struct.unpack_from(f"{order}h", head, 70)
        steps, (offset,) = struct.unpack_from(f"{order}8f", head, 76), struct.unpack_from(f"{order}f", head, 108)
        size = tuple(max(extent, 0) for extent in dims[1 : 1 + min(max(dims[0], 0), 7)])
        # ITK goes by the data type whatever the header's bits per voxel are, and never reads the header as voxels.
        bits = NIFTI_BITS.get(datatype, 0)
        single_file = head[344:347] == b"n+1"
        start = max(int(offset) if np.isfinite(offset) else 0, 348 if single_file else 0)
        volume, everything = (int(np.prod(part, dtype=object)) * bits // 8 for part in (size[:3], size))
        known = all(step > 0 for step in steps[1:4][: len(size)])
        (by_quaternion,) = struct.unpack_from(f"{order}h", head, 252)
        rotated = by_quaternion <= 0 or np.isfinite(struct.unpack_from(f"{order}3f", head, 256)).all()
        axes = _nifti_axes(head, order)
        floats = {16: f"{order}f4", 64: f"{order}f8"}.get(datatype, "")
        return _NiftiHeader(size, volume, start + everything, single_file, known, bool(rotated), *axes, floats, start)
    return None


@dataclass(frozen=True)
class _PlainNifti:
    """A NIfTI file as ITK may read it.

    Attributes:
        path: what ITK opens.
        voxels: where the voxels are: the same file or one beside it.
        header: what was in the header.
    """

    path: Path
    voxels: Path
    header: _NiftiHeader


def _plain_nifti(path: Path, name: str, options: _Options, scratch: Path) -> _PlainNifti:
    """A NIfTI or Analyze file that ITK may read: unpacked, as long as its header says, and with a header it knows.

    ITK fills what a file lacks with zeros and says nothing, so lengths are checked here. Of several volumes in a
    compressed file those behind the one that is asked for are not unpacked.
    """
    with open(path, "rb") as file:
        head = file.read(1024)
    head = _gunzip_head(head) if head[:2] == b"\x1f\x8b" else head
    if head[4:7] in (b"n+2", b"ni2") and head[504:508] != bytes(4) and _is_cifti(head):
        raise MediaError(f"{name} is a CIFTI file of a brain's surface, which has no slices; give a volume.")
    plain = _as_nifti1(head)
    header = _nifti_header(plain)
    voxels = path if header.single_file else _find_img(path, options)
    if voxels is None:
        raise MediaError(
            f"{name} is a header without its voxels (.img); give both files, or save it as one .nii or .nii.gz file."
        )
    if not header.rotation_known:  # ITK takes a quaternion that is no number for no rotation
        raise MediaError(f"{name} does not say where its slices lie (not a number); save it again.")
    depth, height, width = (*header.size, 1, 1, 1)[2::-1]
    options.limits.check_volume(name, depth, height, width)
    with open(voxels, "rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    # A file that begins with the older header is read as it is; else the header goes into a file of its own.
    whole = header.single_file and head[:348] == plain
    unpacked = scratch / ("volume.nii" if whole else "volume.img")
    needed = header.start + (options.volume_index + 1) * header.volume_bytes
    if not packed:
        unpacked.symlink_to(voxels.resolve())
        length = voxels.stat().st_size
    elif needed > options.limits.max_unpacked_bytes:
        raise MediaError(f"{name} unpacks to more than {options.limits.max_unpacked_bytes} bytes; crop it first.")
    else:
        length = _unpack_volumes(voxels, unpacked, needed, header)
    if length < (min(needed, header.total_bytes) if packed else header.total_bytes):
        raise MediaError(f"{name} is damaged or cut short: it holds less than its header says; copy it again.")
    if whole:
        return _PlainNifti(unpacked, unpacked, header)
    (scratch / "volume.hdr").write_bytes(plain[:344] + b"ni1\0" + bytes(4))
    return _PlainNifti(scratch / "volume.hdr", unpacked, header)


def _is_cifti(head: bytes) -> bool:
    """Whether a NIfTI-2 header announces CIFTI (its specification, table 1): intent codes 3000 to 3099."""
    order = "<" if head[:4] == struct.pack("<i", 540) else ">"
    return 3000 <= struct.unpack_from(f"{order}i", head, 504)[0] < 3100


def _find_img(path: Path, options: _Options) -> Path | None:
    """The file of voxels beside a NIfTI or Analyze header."""
    stem = os.path.splitext(posixpath.basename(_called(path, options)).removesuffix(".gz"))[0]
    return next(filter(None, (_beside(path, stem + suffix, options) for suffix in (".img", ".IMG", ".img.gz"))), None)


def _unpack_volumes(path: Path, plain: Path, needed: int, header: _NiftiHeader) -> int:
    """Writes the `needed` first bytes of a gzip file to `plain`; returns how many were there."""
    length = 0
    try:
        with gzip.open(path) as file, open(plain, "wb") as out:
            while length < needed and (chunk := file.read(min(1 << 22, needed - length))):
                length += out.write(chunk)
            if header.total_bytes <= needed:
                file.read(1)  # reaching the end of the stream makes gzip compare its checksum
            else:
                out.truncate(header.total_bytes)  # later volumes are never read: a hole stands for them
    except (OSError, EOFError, zlib.error):
        return 0
    return length


def _nrrd_voxels(head: bytes) -> tuple[bytes, int, bool]:
    """As `_meta_voxels`, for NRRD (teem.sourceforge.net/nrrd/format.html)."""
    blank = re.search(rb"\r?\n\r?\n", head)
    # Looked for behind the blank line too, in case teem sees the end of the header later than this does.
    targets = re.findall(rb"(?im)(?:^|\r)data ?file:[ \t]*([^\r\n]*)", head)
    packed = re.search(rb"(?im)^encoding:[ \t]*gz(ip)?\s", head) is not None
    if blank and not targets:
        return b"LOCAL", blank.end(), packed
    return targets[0] if len(targets) == 1 else b"", 0, packed


def _meta_voxels(head: bytes) -> tuple[bytes, int, bool]:
    """What the first bytes of a MetaImage file name as its voxels.

    MetaIO reads some headers otherwise than they look (a line without "=" runs on into the next), and would open
    whatever file they then name, so only headers of plain lines count.

    Returns:
        The name, b"LOCAL" for the file itself, b"" where it is not certain; where the header ends; and whether the
        voxels are compressed.
    """
    end = 0
    for line in head.split(b"\n"):
        end += len(line) + 1
        key, equals, value = line.partition(b"=")
        if key.strip() == b"ElementDataFile" and equals:
            return value.strip(), end, b"compresseddata=true" in head[:end].lower().replace(b" ", b"")
        if not equals or b"ElementDataFile" in line:
            break
    return b"", 0, False


def _find_voxels(path: Path, content: str, name: str, options: _Options) -> tuple[Path, str]:
    """The file that holds the voxels of a NRRD or MetaImage header, itself or one beside it, and what it calls it.

    Headers may name any file of the machine, so no other is taken. A compressed stream is measured and checked, as
    ITK shows a damaged one without a word.
    """
    with open(path, "rb") as file:
        target, start, packed = (_nrrd_voxels if content == "nrrd" else _meta_voxels)(file.read(1 << 16))
    voxels, text, limits = path, os.fsdecode(target), options.limits
    if target != b"LOCAL":
        start = 0
        plain = text == os.path.basename(text) and "%" not in text and not text.upper().startswith("LIST")
        voxels = _beside(path, text, options) if plain and text else None
        if voxels is None:
            raise MediaError(
                f"{name} is a header without its voxels; give both files, or save it as one .nrrd or .mha file."
            )
    with open(voxels, "rb") as file:
        file.seek(start)
        inflate, size = zlib.decompressobj(zlib.MAX_WBITS | 32), 0
        try:
            while packed and not inflate.eof and (chunk := inflate.unconsumed_tail or file.read(1 << 20)):
                size += len(inflate.decompress(chunk, 1 << 22))
                if size > limits.max_unpacked_bytes:
                    raise MediaError(f"{name} unpacks to more than {limits.max_unpacked_bytes} bytes; crop it first.")
        except zlib.error:
            raise MediaError(f"{name} holds damaged compressed voxels; copy it again.") from None
    return voxels, text


def _read_itk(path: Path, content: str, name: str, options: _Options, scratch: Path) -> Scan:
    """NIfTI, Analyze, NRRD or MetaImage; of more than three dimensions or many values in a voxel, one volume."""
    known, notes, volume = True, [], options.volume_index
    if content == "nifti":
        plain = _plain_nifti(path, name, options, scratch)
        path, known = plain.path, plain.header.spacing_known
    else:
        voxels, called = _find_voxels(path, content, name, options)
        folder = scratch / "volume"
        folder.mkdir()
        link = folder / f"header.{'nrrd' if content == 'nrrd' else 'mha'}"
        link.symlink_to(path.resolve())
        if voxels != path:
            (folder / called).symlink_to(voxels.resolve())
        path = link
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        with native_stderr():
            reader.ReadImageInformation()
            size, pixel = list(reader.GetSize()), reader.GetPixelID()
            depth, height, width = (*size, 1, 1)[2::-1]
            options.limits.check_volume(name, depth * reader.GetNumberOfComponents(), height, width)
            if not np.isfinite([*reader.GetDirection(), *reader.GetSpacing(), *reader.GetOrigin()]).all():
                raise MediaError(f"{name} does not say where its slices lie (not a number); save it again.")
            if pixel in (sitk.sitkComplexFloat32, sitk.sitkComplexFloat64):
                raise MediaError(f"{name} holds complex numbers; save their magnitude.")
            volumes, values = int(np.prod(size[3:])), reader.GetNumberOfComponents()
            values = 1 if values == 3 and pixel == sitk.sitkVectorUInt8 else values  # colours
            if volume >= max(volumes, values if volumes == 1 else 1):
                raise MediaError(
                    f"{name} holds {max(volumes, values)} volumes, so volume_index must lie from 0 to "
                    f"{max(volumes, values) - 1}."
                )
            if len(size) > 3:
                place = np.unravel_index(volume if volumes > 1 else 0, size[3:], order="F")  # the first runs fastest
                reader.SetExtractIndex([0, 0, 0, *map(int, place)])
                reader.SetExtractSize([*size[:3], *[0] * (len(size) - 3)])
            if volumes > 1:
                notes.append(f"The file holds {volumes} volumes; {_ordinal(volume)} is used.")
            image = reader.Execute()
    except RuntimeError as error:
        if _lacks_memory(error):
            raise
        if "orthonormal" in str(error):
            raise MediaError(f"{name} has axes that are not at right angles; resample it to ones that are.") from None
        raise MediaError(f"{name} is damaged, cut short or too big for the memory; save it again.") from None
    image = sitk.JoinSeries(image) if image.GetDimension() == 2 else image
    if content == "nifti":
        image = _restore_gaps(image, plain, volume)
        _set_axes(image, plain.header.axes, name)
        if not plain.header.axes_known:
            notes.append("The header gives no orientation; the voxels are taken to run to the left, front and head.")
    if image.GetNumberOfComponentsPerPixel() > 1 and image.GetPixelID() != sitk.sitkVectorUInt8:
        volume = volume if volumes == 1 else 0
        notes.append(f"Each voxel has {image.GetNumberOfComponentsPerPixel()} values; {_ordinal(volume)} is used.")
        image = sitk.VectorIndexSelectionCast(image, volume)
    return Scan(image, options.modality or "", known, notes=tuple(notes))


def _ordinal(volume: int) -> str:
    """How notes call a volume."""
    return "the first" if volume == 0 else f"number {volume}, counted from 0,"


def _restore_gaps(image: sitk.Image, plain: _PlainNifti, volume: int) -> sitk.Image:
    """Voxels that are no numbers (outside a mask) made so again: ITK makes zeros of them, which may mean something."""
    header = plain.header
    if not header.floats:
        return image
    shape = (*header.size, 1, 1)[2::-1]
    start = header.start + volume * header.volume_bytes
    gaps = ~np.isfinite(np.memmap(plain.voxels, header.floats, "r", start, shape))
    if not gaps.any():
        return image
    values = sitk.GetArrayFromImage(image)
    values[gaps] = np.nan
    return sitk.GetImageFromArray(values)


def _set_axes(image: sitk.Image, axes: np.ndarray, name: str) -> None:
    """Gives an image the direction and spacing of `axes`, as in `_NiftiHeader`, without their rounding."""
    steps = np.linalg.norm(axes, axis=0)
    left, _, right = np.linalg.svd(axes / steps)
    direction = left @ right  # the nearest axes at right angles
    if np.abs(direction - axes / steps).max() > LARGEST_SKEW:
        raise MediaError(f"{name} has axes that are not at right angles; resample it to ones that are.")
    image.SetDirection(direction.ravel().tolist())
    image.SetSpacing(steps.tolist())


def _looks_like_ct(values: np.ndarray) -> bool:
    """The rule for a volume without a modality: see `load_clip`."""
    if values.ndim != 3:
        return False
    sample = values[tuple(slice(None, None, max(1, extent // 128)) for extent in values.shape)]
    air = np.mean((sample >= -1100) & (sample <= -900)) >= 0.01
    return bool(air and (sample == np.round(sample)).all() and -32768 <= values.min() <= -900)


def _is_normalised(values: np.ndarray) -> bool:
    """Fractions from 0 to 1, as data sets for training hold them: not what a scanner measured."""
    return values.dtype.kind == "f" and values.min() >= 0 and values.max() <= 1


def _cut(values: np.ndarray, plane: str) -> np.ndarray:
    """A view of an LPS array (z, y, x, …) as (slices, rows, columns, …) of a plane; rows run from the head down."""
    if plane == "axial":
        return values
    return np.moveaxis(values, PLANES.index(plane), 0)[:, ::-1]


def _scan_clip(scan: Scan, name: str, options: _Options) -> Clip:
    """A volume as slices of the chosen plane, through the CT windows or scaled by all of its voxels."""
    notes = list(scan.notes)
    turned = _turn(scan.image)
    steps, known = turned.steps, scan.spacing_known
    if options.spacing:
        if len(options.spacing) != 3:
            raise MediaError("spacing of a volume must be three numbers: slices, rows and columns in mm.")
        steps, known = np.array(options.spacing), True
    plane = _choose_plane(turned.values.shape[:3], steps if known else np.ones(3), options, notes)
    axis = PLANES.index(plane)
    if scan.shear is not None and scan.offsets is None and axis != _slice_axis(scan.image, turned):
        turned = _turn(_straighten(scan.image, scan.shear, name, options.limits))
        notes.append("The slices were moved back in line for this plane.")
    values = turned.values
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        values = fill_background(values.copy())
        notes.append("Voxels that are not finite are shown as background.")
    modality = scan.modality
    slices = _cut(values, plane)
    indices = _evenly(len(slices), options.max_frames)
    if not modality and _looks_like_ct(values):
        modality = "CT"
        notes.append("No modality in the header; whole numbers with air near -1000 are taken for CT.")
    chosen = slices if len(indices) == len(slices) else slices[indices]
    if chosen.ndim == 4:
        # Copied in any case: ITK's memory goes with its image.
        frames = np.array(chosen[..., :3]) if chosen.shape[-1] >= 3 else _grey_frames(np.array(chosen[..., 0]))
    elif modality == "CT" and not _is_normalised(values):
        frames = window_ct(chosen, options.windows)
        notes.append(options.windows_note)
    else:
        if modality == "CT":
            notes.append("The values lie between 0 and 1, so they are not HU, and no CT windows are applied.")
        # The order of voxels does not matter for their range, and as they are stored they are read faster.
        stored = sitk.GetArrayViewFromImage(turned.image) if values is turned.values else values
        frames = _grey_frames(_scaled(chosen, intensity_range(stored)))
        notes.append("Grey levels: 1st to 99th percentile of the whole volume.")
    count = len(slices)
    if count > 1:
        taken = f"All {count}" if len(indices) == count else f"{len(indices)} of {count}"
        notes.append(f"{taken} {plane} slices{'' if len(indices) == count else ', evenly spaced'}.")
    if not known:
        notes.append("The header gives no spacing; positions count slices.")
    rows, columns = (float(step) for step in np.delete(steps, axis))
    notes += _geometry_notes(scan.image, rows, columns, known)
    positions = _slice_positions(scan, turned, axis, count, steps, known and not options.spacing)
    kind = "volume" if count > 1 else "image"
    spacing = (rows, columns) if known else (0.0, 0.0)
    return Clip(frames, kind, positions[indices] - positions[0], spacing, count, modality, tuple(notes), plane)


def _choose_plane(shape: tuple[int, ...], steps: np.ndarray, options: _Options, notes: list[str]) -> str:
    """The plane that volumes of `shape` (z, y, x) with `steps` in mm are cut along; says where it is not the asked one.

    "automatic" cuts across the axis with the largest spacing, and axially where that is not clearly larger.
    """
    plane = options.plane
    if plane == "automatic":
        axis = int(np.argmax(steps))
        plane = PLANES[axis] if steps[axis] > 1.01 * steps[0] else "axial"
        notes.append(f"The plane was chosen by the spacing: {plane}.")
    thin = [axis for axis in range(3) if shape[axis] == 1]
    if len(thin) == 1 and shape[PLANES.index(plane)] > 1:
        plane = PLANES[thin[0]]
        notes.append(f"The volume is one slice, which is {plane}.")
    return plane


@dataclass(frozen=True)
class _Turned:
    """A volume seen along LPS axes.

    Attributes:
        values: view of the image's voxels (z, y, x) or (z, y, x, channels), from the feet, the front and the right.
        steps: float64 array (3,), mm between voxels along z, y and x.
        direction: float64 array (3, 3), LPS direction of the x, y and z axis, one a column.
        image: whose memory `values` is in.
    """

    values: np.ndarray
    steps: np.ndarray
    direction: np.ndarray
    image: sitk.Image


def _turn(image: sitk.Image) -> _Turned:
    """Turns an image to LPS axes as sitk.DICOMOrient does, but without a copy: it is asked about one voxel only."""
    voxel = sitk.Image([1, 1, 1], sitk.sitkUInt8)
    voxel.SetDirection(image.GetDirection())
    orient = sitk.DICOMOrientImageFilter()
    orient.SetDesiredCoordinateOrientation("LPS")
    direction = np.array(orient.Execute(voxel).GetDirection()).reshape(3, 3)
    order, flips = list(orient.GetPermuteOrder()), orient.GetFlipAxes()  # of x, y and z; arrays have them backwards
    values = sitk.GetArrayViewFromImage(image)
    values = values.transpose(*[2 - axis for axis in reversed(order)], *range(3, values.ndim))
    values = values[tuple(slice(None, None, -1 if flipped else 1) for flipped in reversed(flips))]
    return _Turned(values, np.array(image.GetSpacing())[order][::-1], direction, image)


def _slice_axis(acquired: sitk.Image, turned: _Turned) -> int:
    """Which axis (0 for z) of the turned volume the slices of the acquired image follow each other along."""
    normal = np.array(acquired.GetDirection()).reshape(3, 3)[:, 2]
    return 2 - int(np.argmax(np.abs(normal @ turned.direction)))


def _straighten(image: sitk.Image, shear: np.ndarray, name: str, limits: MediaLimits) -> sitk.Image:
    """Moves each slice back to where it lies: `shear` as in `Scan`. The frame grows, filled with the smallest value."""
    direction, spacing = np.array(image.GetDirection()).reshape(3, 3), np.array(image.GetSpacing())
    size, origin = np.array(image.GetSize()), np.array(image.GetOrigin())
    steps = direction.T @ shear * spacing[2] * (size[2] - 1) / spacing  # pixels that the last slice lies aside
    first = np.floor(np.minimum(steps, 0))
    new_size = (size + np.ceil(np.maximum(steps, 0)) - first).astype(int)
    limits.check_volume(name, *new_size[::-1].tolist())
    transform = sitk.AffineTransform(3)  # from a place in the new image to the same in the old one
    transform.SetMatrix((np.eye(3) - np.outer(shear, direction[:, 2])).ravel().tolist())
    transform.SetCenter(origin.tolist())
    new_origin = (origin + direction @ (first * spacing)).tolist()
    background = float(sitk.GetArrayViewFromImage(image).min())
    return sitk.Resample(
        image,
        new_size.tolist(),
        transform,
        sitk.sitkLinear,
        new_origin,
        spacing.tolist(),
        image.GetDirection(),
        background,
        image.GetPixelID(),
    )


def _slice_positions(
    scan: Scan, turned: _Turned, axis: int, count: int, steps: np.ndarray, as_acquired: bool
) -> np.ndarray:
    """float64 (count,), mm along an axis (0 for z) of the turned volume; uneven where the slices were acquired so."""
    step = steps[axis] if scan.spacing_known or not as_acquired else 1.0
    if scan.offsets is not None and as_acquired:
        acquired = np.array(scan.image.GetDirection()).reshape(3, 3)[:, 2]
        along = turned.direction[:, 2 - axis] @ acquired
        if abs(along) > 0.99:
            return scan.offsets if along > 0 else scan.offsets[-1] - scan.offsets[::-1]
    return np.arange(count) * float(step)


def _geometry_notes(image: sitk.Image, rows: float, columns: float, known: bool) -> list[str]:
    """What a reader of the frames should know: slices that lie oblique, pixels that are not square."""
    notes = []
    direction = np.abs(np.array(image.GetDirection()).reshape(3, 3))
    angle = float(np.degrees(np.arccos(np.clip(direction.max(axis=0).min(), 0, 1))))
    if angle > 1:
        notes.append(f"The volume lies oblique by {angle:.0f} degrees; it is cut along its own axes, not resampled.")
    if known and max(rows, columns) > 1.5 * min(rows, columns):
        notes.append(f"Pixels are not square: {rows:.2f} x {columns:.2f} mm.")
    return notes


def _picture_clip(picture: Picture, options: _Options) -> Clip:
    """One picture or a film's frames, through the CT windows or scaled by all frames where they are not shown yet."""
    notes = list(picture.notes)
    if picture.values.ndim == 4:
        frames = np.ascontiguousarray(picture.values)
    elif picture.shown:
        frames = _grey_frames(picture.values)
    elif picture.modality == "CT":
        frames = window_ct(picture.values, options.windows)
        notes.append(options.windows_note)
    else:
        frames = _grey_frames(_scaled(picture.values))
        notes.append("Grey levels: 1st to 99th percentile of the values.")
    still = picture.times is None
    if len(options.spacing) == 3 or (still and len(options.spacing) == 1):
        raise MediaError("spacing must be (rows, columns) in mm for an image, and also seconds per frame for a video.")
    spacing = options.spacing if len(options.spacing) == 2 else picture.spacing
    positions = np.zeros(1) if still else picture.times
    kind = "image" if still else "video"
    return Clip(frames, kind, positions, spacing, picture.source_frames, picture.modality, tuple(notes))


def _read_pillow(image: Image.Image, name: str, options: _Options, page: bool = False) -> Picture:
    """One picture that Pillow holds: 8 bits as stored, deeper grey left for scaling, transparency on black.

    A page of many is not turned as its camera was held, and has three channels, since others may have colours.
    """
    options.limits.check_frames(name, 1, image.height, image.width)
    modality, notes = options.modality or "", []
    image = image if page else ImageOps.exif_transpose(image)
    if image.mode in ("F", "I") or image.mode.startswith("I;16"):
        values = np.asarray(image)
        values = values.astype(values.dtype.newbyteorder("="))
        return Picture(fill_background(values)[None], False, modality=modality)
    if image.has_transparency_data:
        notes.append("Transparent parts are shown on black.")
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
    mode = "L" if image.mode in ("1", "L") and not page else "RGB"
    return Picture(np.asarray(image.convert(mode))[None], True, modality=modality, notes=tuple(notes))


def _load_pillow_file(path: Path, name: str, options: _Options) -> Clip:
    """A picture file; an animation is a video, and of many pages the first is used unless `kind` says what they are."""
    try:
        with native_stderr(), Image.open(path, formats=PILLOW_FORMATS) as image:
            options.limits.check_frames(name, getattr(image, "n_frames", 1), image.height, image.width)
            count = getattr(image, "n_frames", 1)
            paged = image.format == "TIFF"
            if count > 1 and (not paged or options.kind in ("video", "volume")):
                return _load_pages(image, name, options)
            picture = _read_pillow(image, name, options)
    except (MediaError, MemoryError):
        raise
    except Image.DecompressionBombError:
        raise MediaError(f"{name} has more pixels than Pillow's limit for safe pictures; make it smaller.") from None
    except Exception:  # of many classes, as each of Pillow's readers has its own
        raise MediaError(f"{name} is a damaged or unsupported picture; save it again as PNG.") from None
    if count > 1:
        note = f"Page 1 of {count}; kind='volume' or kind='video' reads all."
        picture = replace(picture, notes=(*picture.notes, note), source_frames=count)
    return _picture_clip(picture, options)


def _load_pages(image: Image.Image, name: str, options: _Options) -> Clip:
    """The frames of an animation, with their seconds, or the pages of a TIFF as a volume or a video."""
    count = image.n_frames
    if options.kind == "volume":
        options.limits.check_volume(name, count, image.height, image.width)
        pages = []
        for index in range(count):
            image.seek(index)
            pages.append(_read_pillow(image, name, options, page=True).values[0])
        return _load_array(_stack(pages, name), name, options)
    seconds = []
    for index in range(count):
        image.seek(index)
        seconds.append(float(image.info.get("duration", 0)) / 1000)
    known = min(seconds) > 0
    times = np.concatenate([[0.0], np.cumsum(seconds[:-1])]) if known else np.arange(count, dtype=np.float64)
    indices, times, notes = options.choose(times, known)
    frames = []
    for index in indices:
        image.seek(int(index))
        frames.append(_read_pillow(image, name, options, page=True))
    shown = frames[0].shown
    values = _stack([frame.values[0] for frame in frames], name)
    notes = [*frames[0].notes, *notes]
    picture = Picture(values, shown, times, (0.0, 0.0), count, options.modality or "", tuple(notes))
    return _picture_clip(picture, options)


def _stack(frames: list[np.ndarray], name: str) -> np.ndarray:
    if len({frame.shape for frame in frames}) > 1:
        raise MediaError(f"{name} holds frames of different sizes or colours; bring them to one size first.")
    return np.stack(frames)


def _map_numpy(path: Path, name: str) -> np.ndarray:
    """The array of a `.npy` file, mapped and not read yet; a first axis of one channel before a volume is dropped."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception:  # of many classes: NumPy reads the header with Python's own parser
        raise MediaError(f"{name} is cut short or holds no plain numbers; save the array again.") from None
    return array[0] if array.ndim == 4 and array.shape[0] == 1 and array.shape[-1] not in (3, 4) else array


def _load_array(array: np.ndarray, name: str, options: _Options) -> Clip:
    """(H, W), (H, W, 3), (T, H, W) or (T, H, W, 3); what (T, H, W) and (T, H, W, 3) are, `kind` may say."""
    if array.dtype.kind not in "buif" or array.ndim not in (2, 3, 4) or 0 in array.shape:
        raise MediaError(f"{name} must hold numbers, as (H, W), (H, W, 3), (T, H, W) or (T, H, W, 3), no axis empty.")
    colour = array.ndim == 4 or (array.ndim == 3 and array.shape[-1] == 3 and options.kind in (None, "image"))
    if array.ndim == 4 and array.shape[-1] not in (3, 4):
        raise MediaError(f"{name} has four axes, so the last must be 3 colours; give volumes one at a time.")
    many = array.ndim == (4 if colour else 3)
    count, height, width = array.shape[:3] if many else (1, *array.shape[:2])
    options.limits.check_volume(name, count, height, width)
    values = array.astype(np.uint8) * 255 if array.dtype.kind == "b" else array
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    values = _colour_bytes(values[..., :3], name) if colour else values
    kind = options.kind if many and options.kind else ("image" if not many else "video" if colour else "volume")
    if many and kind == "volume":
        # ITK has no half precision, and fill_background works in place.
        values = values.astype(np.float32) if values.dtype == np.float16 else values
        scan = Scan(sitk.GetImageFromArray(values, isVector=colour), options.modality or "", spacing_known=False)
        return _scan_clip(scan, name, options)
    indices, times, notes = options.choose(np.arange(count), False) if many else (slice(None), None, [])
    values = values[indices] if many else values[None]
    if values.dtype.kind == "f":
        values = fill_background(values.copy())
    shown = values.dtype == np.uint8
    picture = Picture(values, shown, times, (0.0, 0.0), count, options.modality or "", tuple(notes))
    return _picture_clip(picture, options)


def _colour_bytes(colours: np.ndarray, name: str) -> np.ndarray:
    """Colours to uint8: unsigned integers by their full range, floats from 0 to 1 or from 0 to 255."""
    if colours.dtype == np.uint8:
        return colours
    if colours.dtype.kind == "u":
        return np.round(colours * (255.0 / np.iinfo(colours.dtype).max)).astype(np.uint8)
    if colours.dtype.kind == "f":
        colours = np.nan_to_num(colours) * (255.0 if np.nanmax(colours) <= 1 else 1.0)
    if colours.min() < 0 or colours.max() > 255:
        raise MediaError(f"{name} has colours outside 0 to 255; scale them to uint8 first.")
    return np.round(colours).astype(np.uint8)


def _load_list(items: Sequence[Any], name: str, options: _Options, scratch: Path) -> Clip:
    """A list of DICOM files is a series; arrays, pictures or picture files are frames, by default of a video."""
    if not items:
        raise MediaError("The list of frames is empty; give at least one frame.")
    options.limits.check_frames(name, len(items), 1, 1)
    if all(isinstance(item, np.ndarray) for item in items):
        _refuse_choice(name, options)
        array = _stack(list(items), name)
        kind = options.kind or "video"
        return _load_array(array, name, replace(options, kind=kind if kind != "image" else "video"))
    local = [_is_path(item) and not str(item).startswith("data:") and Path(item).is_file() for item in items]
    paths = [Path(item) for item in items] if all(local) else []
    if paths and all(_sniff(path) == "dicom" for path in paths):
        return _load_series(paths, name, options, scratch)
    known = [path for path in paths if _sniff(path)] if len(paths) == 2 else []
    if len(known) == 1 and _sniff(known[0]) in ("nifti", "nrrd", "meta"):  # a header, and the file of its voxels
        return _load_path(known[0], name, replace(options, names={path: path.name for path in paths}), scratch)
    _refuse_choice(name, options)
    count = len(items)
    volume = options.kind == "volume"
    indices, times, notes = options.choose(np.arange(count), False)
    frames = []
    for index in range(count) if volume else indices:
        # Each frame gets a folder of its own: readers leave files under fixed names.
        with tempfile.TemporaryDirectory(dir=scratch) as folder:
            one = replace(options, kind=None, spacing=())
            item = items[index]
            frame = item if _is_clip(item) else _load(item, _name(item), one, Path(folder))
        if len(frame.frames) != 1:
            raise MediaError(f"{name} must hold single pictures, and one of them is a {frame.kind}.")
        frames.append(frame.frames[0])
    values = _stack(frames, name)
    if volume:
        return _load_array(values, name, options)
    picture = Picture(values, True, times, (0.0, 0.0), count, options.modality or "", tuple(notes))
    return _picture_clip(picture, options)


@dataclass(frozen=True)
class _OpenFilm:
    """A video file that is open.

    Attributes:
        times: float64 (n,), seconds of all frames, increasing.
        height, width: of a frame as it is stored; it may be shown turned by 90 degrees.
        read: yields the frames of increasing numbers (m,), each uint8 (height, width, 3), upright.
    """

    times: np.ndarray
    height: int
    width: int
    read: Callable[[np.ndarray], Iterator[np.ndarray]]


@contextmanager
def _open_film(path: Path, name: str, limits: MediaLimits) -> Iterator[_OpenFilm]:
    """Opens a video file through PyAV, or decord where only that is installed.

    Both take as long, but decord ends the process on some damaged files (std::bad_alloc), and its FFmpeg is older.
    """
    try:
        import av

        opened = _open_with_pyav(av, path, name)
    except ImportError:
        try:
            import decord

            opened = _open_with_decord(decord, path)
        except ImportError:
            raise MediaError("Videos need the package av or decord; install one of them.") from None
    try:
        with opened as film:
            limits.check_frames(name, len(film.times), film.height, film.width)
            yield film
    except (MediaError, MemoryError):
        raise
    except Exception:  # of many classes; their sentences say less than this one
        raise MediaError(
            f"{name} is a video that is damaged, cut short or of an unknown codec; convert it to H.264 MP4."
        ) from None


def _read_video(path: Path, name: str, options: _Options) -> Picture:
    """The frames of a video file that `load_clip` asks for."""
    with _open_film(path, name, options.limits) as film:
        indices, times, notes = options.choose(film.times, True)
        options.limits.check_volume(name, len(indices), film.height, film.width)
        frames: np.ndarray | None = None
        for place, frame in enumerate(film.read(indices)):
            if frames is None:  # filled in place, as a list of frames and their stack would be two copies
                frames = np.empty((len(indices), *frame.shape), np.uint8)
            frames[place] = _same_shape(frame, frames[0], name)
            options.report(place + 1, len(indices))
    return Picture(frames, True, times, (0.0, 0.0), len(film.times), options.modality or "", tuple(notes))


def _read_video_in_pieces(path: Path, name: str, options: _Options, chunk: int) -> Iterator[Picture]:
    """As `_read_video`, at most `chunk` frames at a time."""
    with _open_film(path, name, options.limits) as film:
        indices, times, notes = options.choose(film.times, True)
        options.limits.check_volume(name, min(chunk, len(indices)), film.height, film.width)
        frames: list[np.ndarray] = []
        for place, frame in enumerate(film.read(indices), start=1):
            frames.append(_same_shape(frame, frames[0] if frames else frame, name))
            options.report(place, len(indices))
            if len(frames) == chunk or place == len(indices):
                seconds = times[place - len(frames) : place]
                values, frames = np.stack(frames), []
                yield Picture(values, True, seconds, (0.0, 0.0), len(film.times), options.modality or "", tuple(notes))


def _same_shape(frame: np.ndarray, first: np.ndarray, name: str) -> np.ndarray:
    if frame.shape != first.shape:
        raise MediaError(f"{name} holds frames of different sizes; bring them to one size first.")
    return frame


@contextmanager
def _open_with_decord(decord: ModuleType, path: Path) -> Iterator[_OpenFilm]:
    """An `_OpenFilm` through decord, which seeks and turns frames upright by itself."""
    with native_stderr():
        decord.logging.set_level(decord.logging.QUIET)
        reader = decord.VideoReader(str(path))
        height, width = reader[0].shape[:2]
        # decord keeps seconds in float32, so digits below the microsecond are noise.
        times = np.asarray(reader.get_frame_timestamp(range(len(reader))), dtype=np.float64)[:, 0].round(6)

    def read(indices: np.ndarray) -> Iterator[np.ndarray]:
        for index in indices:
            with native_stderr():
                frame = reader[int(index)].asnumpy()
            yield frame

    yield _OpenFilm(times, height, width, read)


@contextmanager
def _open_with_pyav(av: ModuleType, path: Path, name: str) -> Iterator[_OpenFilm]:
    """An `_OpenFilm` through PyAV."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        reader = _PacketReader(container, stream, av.video.reformatter.VideoReformatter(), name)
        yield _OpenFilm(reader.shown * float(stream.time_base), stream.height, stream.width, reader.read)


class _PacketReader:
    """Decodes of a PyAV stream the frames that are asked for and those that they build on, and no other.

    Packets, which are listed without decoding them, tell the times of all frames.

    Attributes:
        shown: int64 (n,), time stamps of all frames, increasing.
    """

    def __init__(self, container: Any, stream: Any, converter: Any, name: str):
        self._container, self._stream, self._name = container, stream, name
        self._converter = converter  # one for all frames: making one takes longer than most frames do
        rows = [
            (packet.pts, packet.pts if packet.dts is None else packet.dts, packet.is_keyframe)
            for packet in self._demux()
        ]
        # In the order of decoding: when a frame is shown, when it is decoded, and whether it is a key frame.
        self._stamps, self._decoding, is_key = np.array(rows, dtype=np.int64).T
        keys = np.flatnonzero(is_key)
        # MPEG streams give some frames only time stamps that depend on where reading began, so there is no seeking.
        keys = keys[:1] if container.format.name.startswith("mpeg") else keys
        self._keys = keys[np.argsort(self._stamps[keys], kind="stable")]
        # What is shown before the first key frame cannot be decoded: recordings may begin anywhere.
        self.shown = np.unique(self._stamps[self._stamps >= self._stamps[self._keys[0]]])

    def read(self, indices: np.ndarray) -> Iterator[np.ndarray]:
        """Yields frames by their increasing numbers (m,), each uint8 (height, width, 3), upright."""
        stamps = self.shown[indices]
        waiting, wanted, held = deque(stamps.tolist()), set(stamps.tolist()), {}
        for first, last in self._spans(stamps):
            for frame in self._decode(first, last, wanted):
                held[frame.pts] = frame
                while waiting and waiting[0] in held:
                    frame = held.pop(waiting.popleft())
                    colours = self._converter.reformat(frame, format="rgb24").to_ndarray()
                    yield np.ascontiguousarray(np.rot90(colours, round(frame.rotation / 90)))
                if len(held) > MOST_REORDERED:
                    break
        if waiting:
            raise MediaError(
                f"{self._name} is a video that is cut short: some of its frames are missing; copy it again."
            )

    def _demux(self) -> Iterator[Any]:
        return (packet for packet in self._container.demux(self._stream) if packet.size and packet.pts is not None)

    def _spans(self, wanted: np.ndarray) -> list[list[int]]:
        """First and last packet from each key frame to the last wanted frame that builds on it, overlaps joined."""
        order = np.argsort(self._stamps, kind="stable")
        numbers = order[np.searchsorted(self._stamps, wanted, sorter=order)]
        starts = self._keys[np.searchsorted(self._stamps[self._keys], wanted, side="right") - 1]
        spans: list[list[int]] = []
        for start, number in zip(starts.tolist(), numbers.tolist(), strict=True):
            if spans and start <= spans[-1][1] + 1:
                spans[-1][1] = max(spans[-1][1], number)
            else:
                spans.append([start, number])
        return spans

    def _decode(self, first: int, last: int, wanted: set[int]) -> Iterator[Any]:
        """Yields the wanted frames of a span as PyAV gives them; others are decoded where frames build on them."""
        decoder = self._stream.codec_context
        for packet in itertools.islice(self._packets_from(first), last - first + 1):
            decoder.skip_frame = "DEFAULT" if packet.pts in wanted else "NONREF"
            yield from (frame for frame in decoder.decode(packet) if frame.pts in wanted)
        yield from (frame for frame in decoder.decode(None) if frame.pts in wanted)

    def _packets_from(self, first: int) -> Iterator[Any]:
        """Yields the packets from number `first` on; seeking goes by the time of decoding, or to somewhere before."""
        for target in (self._decoding[first], self._decoding[0]):
            self._container.seek(int(target), stream=self._stream)
            packets = itertools.dropwhile(lambda packet: packet.pts != self._stamps[first], self._demux())
            for packet in packets:
                yield packet
                yield from packets
                return
