# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Reads DICOM with pydicom: pixels, geometry and time, as a `Scan` (a grey or colour volume) or a `Picture` (frames).

pydicom decides how pixels are decoded, because ITK returns wrong values without an error for some run-length and
JPEG encodings. No patient field is read, and no message or note holds one.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import re
import struct
import subprocess
import sys
import tempfile
import threading
import warnings
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk  # noqa: N813 - the name all of its documentation uses
from pydicom.dataset import Dataset
from pydicom.encaps import generate_fragments, generate_frames
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi, apply_windowing, get_decoder, pixel_array
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

# Modalities whose many frames are slices, not moments, when the header names neither positions nor times.
VOLUME_MODALITIES = frozenset({"CT", "MR", "PT", "NM", "RTDOSE", "SEG"})
# 8-bit grey frames of these are made for the screen: they are shown as stored (PS3.3 C.8.5 to C.8.13 and A.8).
SCREEN_MODALITIES = frozenset({"US", "IVUS", "OT", "SC", "ES", "XC", "GM", "SM", "OP", "OPT", "IVOCT", "ECG"})
VIDEO_SYNTAXES = "1.2.840.10008.1.2.4.10"
"""Prefix of the MPEG-2, H.264 and HEVC transfer syntaxes (PS3.5 A.4.5 to A.4.12)."""

LEAST_TILT = 0.5
"""Degrees between the normal of slices and the way they are stacked, below which that is rounding."""

GDCM_SECONDS = 300.0
"""After which a decoder that does not answer is ended."""

_HEADER_TAGS = [
    "SOPClassUID",
    "SOPInstanceUID",
    "SeriesInstanceUID",
    "SeriesNumber",
    "Modality",
    "InstanceNumber",
    "Rows",
    "Columns",
    "NumberOfFrames",
    "SamplesPerPixel",
    "ImageOrientationPatient",
    "ImagePositionPatient",
    "PhotometricInterpretation",
]
_VALUE_REPRESENTATIONS = frozenset(
    b"AE AS AT CS DA DS DT FD FL IS LO LT OB OD OF OL OW PN SH SL SQ SS ST TM UI UL UN US UT".split()
)


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
class Scan:
    """A volume before it is cut into frames.

    Attributes:
        image: SimpleITK image of three dimensions in LPS millimetres, scalar (HU for CT) or three 8-bit channels.
        modality: DICOM modality code or "".
        spacing_known: whether the spacing is a measurement; False leaves positions that count slices.
        offsets: float64 array (slices,), millimetres of the acquired slices along the image's third axis, or None
            where they are evenly spaced.
        shear: float64 array (3,), millimetres in LPS that a slice lies aside of where the image puts it, for every
            millimetre from the first slice (the gantry was tilted), or None where they lie straight.
        notes: what was chosen, one sentence each.
    """

    image: sitk.Image
    modality: str = ""
    spacing_known: bool = True
    offsets: np.ndarray | None = None
    shear: np.ndarray | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Picture:
    """One picture, or the chosen frames of a film.

    Attributes:
        values: (frames, height, width) numbers, or uint8 (frames, height, width, 3) colours.
        shown: whether uint8 values are grey levels of a screen already; else they still want a window or a scale.
        times: float64 array (frames,), seconds, or frame numbers where the file does not say; None for one picture.
        spacing: millimetres per pixel (rows, columns), (0.0, 0.0) if unknown.
        source_frames: frames in the file.
        modality: DICOM modality code or "".
        notes: what was chosen, one sentence each.
    """

    values: np.ndarray
    shown: bool
    times: np.ndarray | None = None
    spacing: tuple[float, float] = (0.0, 0.0)
    source_frames: int = 1
    modality: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Film:
    """An MPEG stream that a DICOM file wraps, and the file's modality."""

    data: bytes
    modality: str


ChooseFrames = Callable[[np.ndarray, bool], tuple[np.ndarray, np.ndarray, list[str]]]
"""From the seconds of all frames, float64 (n,), and whether the file gives them, to the increasing numbers of the
frames to read, int64 (m,), their seconds, float64 (m,), and notes."""


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


def looks_like_dicom(head: bytes) -> bool:
    """Whether a file begins as DICOM does: the prefix of PS3.10 7.1, or a bare element of group 2 or 8."""
    if head[128:132] == b"DICM":
        return True
    if len(head) < 8:
        return False
    for order in "<>":
        group, element, length = struct.unpack(f"{order}HHI", head[:8])
        if group in (0x0002, 0x0008) and element <= 0x0070:
            return head[4:6] in _VALUE_REPRESENTATIONS or length < 256
    return False


def _refuse_deflate_bomb(path: Path, name: str, limits: MediaLimits) -> None:
    """Measures a deflated data set (PS3.5 A.5) before pydicom inflates it whole."""
    with open(path, "rb") as file:
        head = file.read(1024)
        if head[128:132] != b"DICM" or DeflatedExplicitVRLittleEndian.encode() not in head:
            return
        file.seek(144 + struct.unpack_from("<I", head, 140)[0])  # behind the file meta group, whose length is at 140
        inflate, size = zlib.decompressobj(-zlib.MAX_WBITS), 0
        try:
            while not inflate.eof and (chunk := inflate.unconsumed_tail or file.read(1 << 16)):
                size += len(inflate.decompress(chunk, 1 << 22))
                if size > limits.max_unpacked_bytes:
                    raise MediaError(f"{name} unpacks to more than {limits.max_unpacked_bytes} bytes; it is not read.")
        except zlib.error:
            raise MediaError(f"{name} holds damaged compressed data; copy it again.") from None


def _open(path: Path, name: str, limits: MediaLimits, header_only: bool = False) -> Dataset:
    """Parses one file; a missing transfer syntax is the one that the data elements are written in."""
    _refuse_deflate_bomb(path, name, limits)
    try:
        dataset = pydicom.dcmread(
            path, force=True, stop_before_pixels=header_only, specific_tags=_HEADER_TAGS if header_only else None
        )
        if "TransferSyntaxUID" not in dataset.file_meta:
            implicit, little = dataset.original_encoding
            explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
            dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
    except MemoryError:
        raise
    except Exception:
        raise MediaError(f"{name} looks like DICOM but cannot be parsed; it is damaged, so copy it again.") from None
    return dataset


def _numbers(dataset: Dataset, keyword: str, count: int) -> np.ndarray | None:
    """The `count` finite numbers of an element, or None where it is missing, empty or malformed."""
    try:
        values = np.atleast_1d(np.array(dataset.get(keyword), dtype=np.float64))
    except (TypeError, ValueError):
        return None
    return values if values.shape == (count,) and np.isfinite(values).all() else None


def _number(dataset: Dataset, keyword: str) -> float | None:
    values = _numbers(dataset, keyword, 1)
    return None if values is None else float(values[0])


def _modality(dataset: Dataset) -> str:
    """The modality code (PS3.3 C.7.3.1.1.1), or "" for what is no code: in a damaged header it can be anything."""
    code = str(dataset.get("Modality") or "")
    return code if re.fullmatch(r"[A-Z0-9_ ]{1,16}", code) else ""


def _frame_count(dataset: Dataset, name: str) -> int:
    """NumberOfFrames (PS3.3 C.7.6.6), 1 where it is missing."""
    if dataset.get("NumberOfFrames") in (None, ""):
        return 1
    count = _number(dataset, "NumberOfFrames")
    if count is None or count < 1:
        raise MediaError(f"{name} has a NumberOfFrames that is not a number; the header is damaged.")
    return int(count)


def _check_pixels(dataset: Dataset, name: str, limits: MediaLimits) -> int:
    """Checks that there are pixels, within the limits and the file's length; returns the number of frames."""
    modality = _modality(dataset) or "unknown"
    held = next((key for key in ("PixelData", "FloatPixelData", "DoubleFloatPixelData") if key in dataset), None)
    if held is None or not dataset.get("Rows") or not dataset.get("Columns"):
        if "DirectoryRecordSequence" in dataset:
            raise MediaError(f"{name} is a DICOMDIR, an index without pixels; give the folder that it lies in.")
        raise MediaError(
            f"{name} is a DICOM file without pixels (modality {modality}), such as a report, a plan or a file that "
            "was cut short; give the image series instead."
        )
    count = _frame_count(dataset, name)
    limits.check_frames(name, count, int(dataset.Rows), int(dataset.Columns))
    if not dataset.file_meta.TransferSyntaxUID.is_transfer_syntax:
        raise MediaError(f"{name} names no known transfer syntax for its pixels; export it again as plain DICOM.")
    if not dataset.file_meta.TransferSyntaxUID.is_compressed and dataset.get("BitsAllocated"):
        samples = int(dataset.get("SamplesPerPixel") or 1)
        if dataset.get("PhotometricInterpretation") == "YBR_FULL_422":
            samples = 2  # two luma samples share one pair of chroma samples, PS3.3 C.7.6.3.1.2
        bits = count * int(dataset.Rows) * int(dataset.Columns) * samples * int(dataset.BitsAllocated)
        if len(dataset[held].value or b"") < bits // 8:
            raise MediaError(f"{name} is cut short: it holds fewer pixels than its header says; copy it again.")
    elif not dataset.file_meta.TransferSyntaxUID.startswith(VIDEO_SYNTAXES):
        _refuse_stream_bomb(dataset, count, name, limits)
    return count


def _stream_size(stream: bytes) -> tuple[int, int]:
    """Rows and columns that a JPEG, JPEG-LS (ITU-T T.81 B.2, T.87 C.2) or JPEG 2000 (T.800 A.5) stream claims, or 0, 0.

    Decoders take memory by these numbers, whatever the DICOM header says.
    """
    if (start := stream.find(b"\xff\x4f\xff\x51", 0, 1024)) >= 0 and len(stream) >= start + 24:
        right, bottom, left, top = struct.unpack_from(">4I", stream, start + 8)
        return max(bottom - top, 0), max(right - left, 0)
    place = 2 if stream[:2] == b"\xff\xd8" else len(stream)
    while place + 9 <= len(stream) and stream[place] == 0xFF:
        marker = stream[place + 1]
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            return struct.unpack_from(">HH", stream, place + 5)
        # A marker may have any number of 0xFF before it.
        place += 1 if marker == 0xFF else 2 + struct.unpack_from(">H", stream, place + 2)[0]
    return 0, 0


def _refuse_stream_bomb(dataset: Dataset, count: int, name: str, limits: MediaLimits) -> None:
    """Raises `MediaError` where the compressed stream of a frame claims more pixels than a frame may have."""
    try:
        sizes = {_stream_size(frame) for frame in generate_frames(dataset.PixelData, number_of_frames=count)}
    except Exception:  # a damaged table of frames, which the decoder will find too
        return
    for height, width in sizes:
        if height * width > limits.max_pixels:
            raise MediaError(
                f"{name} holds pixels that cannot be decoded safely: their stream claims {height} x {width}, over the "
                f"limit of {limits.max_pixels}; copy it again, or make it smaller."
            )


def _decode(dataset: Dataset, name: str, indices: Sequence[int], notes: list[str]) -> Iterator[np.ndarray]:
    """Yields the chosen frames, (height, width) or (height, width, 3) in RGB, in the machine's byte order.

    OpenJPEG is preferred to GDCM, which needs a process of its own; Pillow takes what GDCM refuses.
    """
    syntax = dataset.file_meta.TransferSyntaxUID
    damaged = "The decoder reports damaged compressed data; a part of the picture may be wrong."
    try:
        plugins = get_decoder(syntax).available_plugins if syntax.is_compressed else ()
        plugin = "pylibjpeg" if "pylibjpeg" in plugins else ""
        if "gdcm" in plugins and not plugin:
            try:
                frames, complaint = _gdcm_process.frames(Path(dataset.filename), indices)
            except RuntimeError:
                if "pillow" not in plugins:
                    raise
                plugin, complaint = "pillow", True
            if complaint and damaged not in notes:
                notes.append(damaged)
            if not plugin:
                yield from frames
                return
        for index in indices:
            with native_stderr() if plugins else nullcontext():
                frame = pixel_array(dataset, index=index, decoding_plugin=plugin)
            yield frame.astype(frame.dtype.newbyteorder("="), copy=False)
    except MemoryError:
        raise
    except Exception:
        kind = f"encoding {syntax.name}" if syntax.is_compressed else "no compression"
        raise MediaError(
            f"{name} holds pixels that cannot be decoded ({kind}): they are damaged, or a decoder such as "
            "python-gdcm or pylibjpeg is missing; convert the file to an uncompressed one."
        ) from None


def _is_colour(dataset: Dataset) -> bool:
    return int(dataset.get("SamplesPerPixel") or 1) == 3 or dataset.get("PhotometricInterpretation") == "PALETTE COLOR"


def _to_eight_bits(colours: np.ndarray, bits: int) -> np.ndarray:
    """Unsigned samples of `bits` bits to uint8."""
    if bits == 8:
        return colours.astype(np.uint8)
    return np.round(colours.astype(np.float64) * (255.0 / (2**bits - 1))).clip(0, 255).astype(np.uint8)


def _colours(frame: np.ndarray, dataset: Dataset) -> np.ndarray:
    """RGB samples, or indices through the palette (PS3.3 C.7.6.3.1.5), to uint8 (height, width, 3)."""
    if dataset.get("PhotometricInterpretation") != "PALETTE COLOR":
        return _to_eight_bits(frame, int(dataset.BitsStored))
    colours = apply_color_lut(frame, dataset)[..., :3]
    bits = int(dataset.RedPaletteColorLookupTableDescriptor[2])
    # Many writers declare 16-bit palettes and fill in 8-bit entries.
    return _to_eight_bits(colours, 8 if bits == 16 and colours.max() <= 255 else bits)


def _grey(frame: np.ndarray, dataset: Dataset, rescale: tuple[float, float] | None = None) -> np.ndarray:
    """Stored values to the modality's values (HU for CT), float32 (height, width), with NaN where there is padding.

    Modality LUT or rescale: PS3.3 C.11.1; padding: C.7.5.1.1.2. `rescale` is the frame's own (slope, intercept).
    """
    padding = None
    if (low := _number(dataset, "PixelPaddingValue")) is not None and frame.dtype.kind in "iu":
        high = _number(dataset, "PixelPaddingRangeLimit")
        # A value written as unsigned for signed pixels is meant in two's complement.
        wrap = 2 ** int(dataset.BitsAllocated)
        ends = [
            e - wrap if frame.dtype.kind == "i" and e >= wrap // 2 else e for e in (low, low if high is None else high)
        ]
        padding = (frame >= min(ends)) & (frame <= max(ends))
    values = apply_modality_lut(frame, dataset) if rescale is None else frame * np.float64(rescale[0]) + rescale[1]
    values = values.astype(np.float32)
    if padding is not None and not padding.all():
        values[padding] = np.nan
    return values


def fill_background(values: np.ndarray) -> np.ndarray:
    """Replaces what is not finite (padding, masked voxels) by the smallest value, in place; all are kept otherwise."""
    if values.dtype.kind == "f":
        finite = np.isfinite(values)
        if not finite.all():
            values[~finite] = values[finite].min() if finite.any() else 0
    return values


def _through_header_window(values: np.ndarray, dataset: Dataset) -> tuple[np.ndarray, str] | None:
    """The header's first VOI transform (PS3.3 C.11.2) as uint8, and its note; None where it has none that works."""
    try:
        if dataset.get("VOILUTSequence"):
            bits = int(dataset.VOILUTSequence[0].LUTDescriptor[2])
            shown = apply_voi(np.nan_to_num(np.rint(values)).astype(np.int32), dataset)
            return _to_eight_bits(shown, bits), "Grey levels through the lookup table of the header."
        if dataset.get("WindowWidth") in (None, "") or dataset.get("WindowCenter") in (None, ""):
            return None
        shown = apply_windowing(values.astype(np.float64), dataset)
        # What pydicom maps the darkest and the brightest conceivable value to is black and white.
        black, white = apply_windowing(np.array([-1e12, 1e12]), dataset)
        if not white > black:
            return None
        grey = np.nan_to_num((shown - black) / (white - black)).clip(0, 1)
        width, level = (np.atleast_1d(dataset[key].value)[0] for key in ("WindowWidth", "WindowCenter"))
        return np.round(grey * 255).astype(np.uint8), f"Header window (width/level): {width:g}/{level:g}."
    except Exception:  # a malformed window is no reason to refuse the picture: the percentiles take its place
        return None


def _is_inverted(dataset: Dataset) -> bool:
    """Whether low values are bright (PS3.3 C.7.6.3.1.2 and C.11.6.1.2)."""
    return dataset.get("PhotometricInterpretation") == "MONOCHROME1" or dataset.get("PresentationLUTShape") == "INVERSE"


def _pixel_spacing(dataset: Dataset) -> tuple[tuple[float, float], str]:
    """Millimetres per pixel (rows, columns) and a note: PS3.3 10.7.1.3, C.8.11.3.1.1, and ultrasound C.8.5.5."""
    spacing = _numbers(dataset, "PixelSpacing", 2)
    if spacing is not None and (spacing > 0).all():
        return (float(spacing[0]), float(spacing[1])), ""
    for key in ("ImagerPixelSpacing", "NominalScannedPixelSpacing"):
        spacing = _numbers(dataset, key, 2)
        if spacing is not None and (spacing > 0).all():
            return (float(spacing[0]), float(spacing[1])), "Pixel spacing is that of the detector, not of the body."
    for region in dataset.get("SequenceOfUltrasoundRegions") or ():
        if region.get("PhysicalUnitsXDirection") == 3 and region.get("PhysicalUnitsYDirection") == 3:  # 3: centimetres
            rows, columns = _number(region, "PhysicalDeltaY"), _number(region, "PhysicalDeltaX")
            if rows and columns:
                return (abs(rows) * 10, abs(columns) * 10), ""
    return (0.0, 0.0), ""


def _frame_times(dataset: Dataset, count: int) -> tuple[np.ndarray, bool]:
    """Seconds of every frame, float64 (count,), and whether the header gives them (PS3.3 C.7.6.5)."""
    steps = _numbers(dataset, "FrameTimeVector", count)
    if steps is not None and (steps[1:] > 0).all():
        return np.cumsum(np.concatenate([[0.0], steps[1:]])) / 1000, True
    if (milliseconds := _number(dataset, "FrameTime")) and milliseconds > 0:
        return np.arange(count) * milliseconds / 1000, True
    for key in ("CineRate", "RecommendedDisplayFrameRate"):
        if (rate := _number(dataset, key)) and rate > 0:
            return np.arange(count) / rate, True
    return np.arange(count, dtype=np.float64), False


def _read_picture(dataset: Dataset, name: str, count: int, choose: ChooseFrames, modality: str | None) -> Picture:
    """One frame, or the chosen frames of a multi-frame file without slice geometry."""
    notes: list[str] = []
    kind = modality or _modality(dataset)
    times, known = _frame_times(dataset, count)
    indices, times, choice_notes = choose(times, known) if count > 1 else (np.zeros(1, dtype=np.int64), None, [])
    spacing, spacing_note = _pixel_spacing(dataset)
    frames = _decode(dataset, name, indices.tolist(), notes)
    shown = True
    if _is_colour(dataset):
        values = np.stack([_colours(frame, dataset) for frame in frames])
    else:
        values = np.stack([_grey(frame, dataset) for frame in frames])
        eight_bits = int(dataset.get("BitsStored") or 16) == 8 and not dataset.get("PixelRepresentation")
        rescaled = "RescaleIntercept" in dataset or "ModalityLUTSequence" in dataset
        if kind == "CT" and not (eight_bits and not rescaled):
            shown = False
            if not rescaled:
                notes.append("Header gives no rescale; stored values are taken for HU.")
        elif eight_bits and kind in SCREEN_MODALITIES | {"CT"}:
            padding = np.isnan(values)
            values = np.nan_to_num(255 - values if _is_inverted(dataset) else values).clip(0, 255).astype(np.uint8)
            values[padding] = 0
        elif windowed := _through_header_window(values, dataset):
            grey, note = windowed
            grey = np.where(np.isnan(values), 0, 255 - grey if _is_inverted(dataset) else grey)
            values = grey.astype(np.uint8)
            notes.append(note)
        else:
            shown = False
            values = -values if _is_inverted(dataset) else values
        if _is_inverted(dataset) and kind != "CT":
            notes.append("Low values are bright in this file (MONOCHROME1); shown with dark background.")
    notes += [*choice_notes, *([spacing_note] if spacing_note else [])]
    return Picture(fill_background(values), shown, times, spacing, count, kind, tuple(notes))


@dataclass(frozen=True)
class _Slice:
    """One slice: where it is stored and where it lies."""

    path: Path
    frame: int = 0
    position: np.ndarray | None = None  # (3,) mm, centre of the first pixel in LPS
    orientation: np.ndarray | None = None  # (6,) cosines of a row and of a column
    rescale: tuple[float, float] | None = None  # slope and intercept, where the frame has its own


def _group(dataset: Dataset, frame: int, sequence: str) -> Dataset:
    """One functional group macro of a frame: its own, else the shared one (PS3.3 C.7.6.16)."""
    for holder, index in (("PerFrameFunctionalGroupsSequence", frame), ("SharedFunctionalGroupsSequence", 0)):
        items = dataset.get(holder) or ()
        if index < len(items) and items[index].get(sequence):
            return items[index][sequence][0]
    return Dataset()


def _enhanced_slices(dataset: Dataset, path: Path, count: int) -> list[_Slice]:
    """The slices of a multi-frame file that says where its frames lie; empty where it does not.

    Functional groups: PS3.3 C.7.6.16.2; dose grids: C.8.8.3.2.
    """
    if "PerFrameFunctionalGroupsSequence" in dataset:
        slices = []
        for frame in range(count):
            position = _numbers(_group(dataset, frame, "PlanePositionSequence"), "ImagePositionPatient", 3)
            cosines = _numbers(_group(dataset, frame, "PlaneOrientationSequence"), "ImageOrientationPatient", 6)
            transform = _group(dataset, frame, "PixelValueTransformationSequence")
            slope, intercept = _number(transform, "RescaleSlope"), _number(transform, "RescaleIntercept")
            rescale = None if slope is None or intercept is None else (slope, intercept)
            if position is None or cosines is None:
                return []
            slices.append(_Slice(path, frame, position, cosines, rescale))
        return slices
    offsets = _numbers(dataset, "GridFrameOffsetVector", count)
    position = _numbers(dataset, "ImagePositionPatient", 3)
    cosines = _numbers(dataset, "ImageOrientationPatient", 6)
    if offsets is None or position is None or cosines is None:
        return []
    normal = np.cross(cosines[:3], cosines[3:])
    return [_Slice(path, f, position + normal * (offset - offsets[0]), cosines) for f, offset in enumerate(offsets)]


def _largest_stack(slices: list[_Slice], volume: int, name: str, notes: list[str]) -> tuple[list[_Slice], np.ndarray]:
    """Sorts slices along their normal and keeps one per place; also their offsets in mm, float64 (slices,).

    Where several slices share a place (echoes, phases, b-values), number `volume` in the order given is kept; places
    that have no such number are left out.
    """
    groups: dict[tuple, list[_Slice]] = defaultdict(list)
    for item in slices:
        groups[tuple(np.round(item.orientation, 2) + 0.0)].append(item)
    chosen = max(groups.values(), key=len)
    if len(groups) > 1:
        notes.append(f"Slices lie in {len(groups)} directions; the largest group ({len(chosen)}) is used.")
    cosines = chosen[0].orientation
    normal = np.cross(cosines[:3], cosines[3:])
    offsets = np.array([item.position @ normal for item in chosen])
    order = np.argsort(offsets, kind="stable")
    places: list[list[int]] = [[]]
    for index in order.tolist():
        if places[-1] and offsets[index] - offsets[places[-1][0]] > 1e-3:
            places.append([])
        places[-1].append(index)
    most = max(map(len, places))
    if volume >= most:
        raise MediaError(f"{name} holds {most} volumes, so volume_index must lie from 0 to {most - 1}.")
    kept = [place[volume] for place in places if len(place) > volume]
    if most > 1:
        which = "the first" if volume == 0 else f"number {volume}, counted from 0,"
        notes.append(f"{len(chosen)} slices lie at {len(places)} places; {which} at each place is used.")
    if len(kept) < len(places):
        notes.append(f"{len(places) - len(kept)} of these places have no slice of that number; they are left out.")
    return [chosen[i] for i in kept], offsets[kept] - offsets[kept[0]]


def _build_scan(
    slices: list[_Slice],
    first: Dataset,
    open_file: Callable[[Path], Dataset],
    name: str,
    limits: MediaLimits,
    modality: str | None,
    volume: int,
) -> Scan:
    """Decodes slices of one size into one image with their geometry; of several volumes, number `volume`."""
    notes: list[str] = []
    limits.check_volume(name, len(slices), int(first.Rows), int(first.Columns))
    located = all(item.position is not None and item.orientation is not None for item in slices)
    offsets = step = shear = None
    if located:
        slices, offsets = _largest_stack(slices, volume, name, notes)
        first = open_file(slices[0].path)
        if len(slices) > 1:
            shear = _gantry_shear(slices, offsets, notes)
            gaps = np.diff(offsets)
            step = float(np.median(gaps))
            if gaps.max() - gaps.min() > 0.01 * step + 1e-3:
                notes.append(
                    f"Slice distances vary from {gaps.min():.2f} to {gaps.max():.2f} mm; a slice may be missing."
                )
            else:
                offsets = None
    measures = _group(first, slices[0].frame, "PixelMeasuresSequence")
    pixel_spacing = _pixel_spacing(measures if "PixelSpacing" in measures else first)[0]
    for key in ("SpacingBetweenSlices", "SliceThickness"):
        step = step or abs(_number(measures, key) or _number(first, key) or 0.0) or None
    known = bool(step) and pixel_spacing[0] > 0
    if not located:
        if volume:
            raise MediaError(f"{name} does not say where its slices lie, so volumes cannot be told apart.")
        notes.append("Header gives no slice positions; slices are in the order of their numbers, taken for axial.")
    volume = _decode_slices(slices, first, open_file, name, notes)
    image = sitk.GetImageFromArray(volume, isVector=volume.ndim == 4)
    image.SetSpacing((pixel_spacing[1] or 1.0, pixel_spacing[0] or 1.0, step or 1.0))
    if located:
        row, column = slices[0].orientation[:3], slices[0].orientation[3:]
        axes = _orthonormal(row, column)
        image.SetDirection(axes.ravel().tolist())
        image.SetOrigin(slices[0].position.tolist())
    kind = modality or _modality(first)
    return Scan(image, kind, known, offsets, shear, tuple(notes))


def _gantry_shear(slices: list[_Slice], offsets: np.ndarray, notes: list[str]) -> np.ndarray | None:
    """How sorted slices are stacked where not along their normal: the `shear` of a `Scan`."""
    cosines = slices[0].orientation
    normal = np.cross(cosines[:3], cosines[3:])
    shear = (slices[-1].position - slices[0].position) / offsets[-1] - normal
    angle = np.degrees(np.arctan(np.linalg.norm(shear)))
    if angle < LEAST_TILT:
        return None
    notes.append(f"Slices are not stacked along their normal (gantry tilt of {angle:.0f} degrees).")
    return shear


def _orthonormal(row: np.ndarray, column: np.ndarray) -> np.ndarray:
    """Direction matrix (3, 3) whose columns are the row, column and slice axes, free of the header's rounding."""
    row = row / max(np.linalg.norm(row), 1e-9)
    column = column - row * (row @ column)
    column = column / max(np.linalg.norm(column), 1e-9)
    return np.stack([row, column, np.cross(row, column)], axis=1)


def _decode_slices(
    slices: list[_Slice], first: Dataset, open_file: Callable[[Path], Dataset], name: str, notes: list[str]
) -> np.ndarray:
    """float32 (slices, height, width), or uint8 (…, 3) for colour; files are opened one at a time."""
    shape = (len(slices), int(first.Rows), int(first.Columns))
    colour = _is_colour(first)
    volume = np.empty((*shape, 3), np.uint8) if colour else np.empty(shape, np.float32)
    places: dict[Path, list[int]] = defaultdict(list)
    for index, item in enumerate(slices):
        places[item.path].append(index)
    for path, indices in places.items():
        dataset = open_file(path)
        frames = _decode(dataset, name, [slices[i].frame for i in indices], notes)
        for index, frame in zip(indices, frames, strict=True):
            if frame.shape[:2] != shape[1:]:
                raise MediaError(f"{name} holds slices of different sizes; give one series.")
            volume[index] = _colours(frame, dataset) if colour else _grey(frame, dataset, slices[index].rescale)
    if not colour:
        fill_background(volume)
        if _is_inverted(first) and first.get("Modality") != "CT":
            np.negative(volume, out=volume)
    return volume


def read_dicom(
    path: Path,
    name: str,
    limits: MediaLimits,
    choose: ChooseFrames,
    modality: str | None = None,
    kind: str | None = None,
    volume: int = 0,
) -> Scan | Picture | Film:
    """Reads one DICOM file. `kind` ("volume", "video") says what many frames are where the caller knows better.

    Of several volumes (`volume_index` of `load_clip`), number `volume` is read.

    Returns:
        A `Scan` where many frames are slices, a `Film` where they are MPEG, a `Picture` otherwise.
    """
    dataset = _open(path, name, limits)
    count = _check_pixels(dataset, name, limits)
    if dataset.file_meta.TransferSyntaxUID.startswith(VIDEO_SYNTAXES):
        return Film(b"".join(generate_fragments(dataset.PixelData)), modality or _modality(dataset))
    if count > 1 and "TotalPixelMatrixColumns" in dataset:
        raise MediaError(f"{name} is a tiled whole-slide image; export a region of it as one picture.")
    if count > 1 and kind != "video":
        slices = _enhanced_slices(dataset, path, count)
        grey_slices = dataset.get("Modality") in VOLUME_MODALITIES and not _is_colour(dataset)
        if not slices and (kind == "volume" or (grey_slices and not _frame_times(dataset, count)[1])):
            slices = [_Slice(path, frame) for frame in range(count)]
        # Frames that all lie at one place are a film of it.
        if len({item.frame if item.position is None else tuple(item.position) for item in slices}) > 1:
            return _build_scan(slices, dataset, lambda _: dataset, name, limits, modality, volume)
    if volume:
        raise MediaError(f"{name} does not hold several volumes; leave volume_index out.")
    return _read_picture(dataset, name, count, choose, modality)


def read_dicom_series(
    paths: Sequence[Path],
    name: str,
    limits: MediaLimits,
    choose: ChooseFrames,
    modality: str | None = None,
    kind: str | None = None,
    volume: int = 0,
    series_asked: str | int | None = None,
) -> Scan | Picture | Film:
    """Reads one series among DICOM files: the one asked for by its number or UID, else the one with the most slices.

    A series is what shares a SeriesInstanceUID and a frame size; a multi-frame file is a series of its own. On a tie,
    also among those asked for, the first in the order of the paths is used, and of copies of a slice the first.
    """
    series: dict[tuple, list[tuple[Path, Dataset]]] = defaultdict(list)
    counts: dict[tuple, int] = defaultdict(int)
    seen: set[str] = set()
    copies = 0
    for path in paths:
        header = _open(path, name, limits, header_only=True)
        if not header.get("Rows") or not header.get("Columns"):
            continue  # reports, plans and DICOMDIR files lie beside images in every export
        # Some anonymisers give all slices one UID, so number and place count too.
        identity = [header.get(key) for key in ("SOPInstanceUID", "InstanceNumber", "ImagePositionPatient")]
        if identity[0] and str(identity) in seen:
            copies += 1
            continue
        seen.add(str(identity))
        frames = _frame_count(header, name)
        key = (str(header.get("SeriesInstanceUID")), header.Rows, header.Columns, _is_colour(header))
        key = (*key, str(path)) if frames > 1 else key
        series[key].append((path, header))
        counts[key] += frames
    if not series:
        raise MediaError(f"{name} holds DICOM files, but none with pixels; give the image series instead.")
    numbers = {key: _series_number(files[0][1]) for key, files in series.items()}
    asked = [key for key in series if series_asked is None or series_asked in (key[0], numbers[key])]
    if not asked:
        held = ", ".join(map(str, sorted({number for number in numbers.values() if number is not None})))
        raise MediaError(
            f"{name} holds no series of that {'UID' if isinstance(series_asked, str) else 'number'}; "
            f"it holds {len(series)}{f', with the numbers {held}' if held else ', without numbers'}."
        )
    chosen = max(asked, key=lambda key: counts[key])
    files = series[chosen]
    if len(files) == 1:
        result = read_dicom(files[0][0], name, limits, choose, modality, kind, volume)
    else:
        result = _read_slices(files, name, limits, modality, volume)
    if isinstance(result, Film):
        return result
    notes = [f"{copies} files are copies of others and were left out."] if copies else []
    if series_asked is not None:
        number = "" if numbers[chosen] is None else f" number {numbers[chosen]}"
        notes.append(f"{len(series)} series found; of those asked for,{number} with {counts[chosen]} slices is used.")
    elif len(series) > 1:
        notes.append(f"{len(series)} series were found; the one with the most slices ({counts[chosen]}) is used.")
    return replace(result, notes=(*notes, *result.notes))


def _series_number(header: Dataset) -> int | None:
    """SeriesNumber (PS3.3 C.7.3.1), None where it is missing or no whole number."""
    number = _number(header, "SeriesNumber")
    return None if number is None or number != int(number) else int(number)


def _read_slices(
    files: list[tuple[Path, Dataset]], name: str, limits: MediaLimits, modality: str | None, volume: int
) -> Scan:
    """The files of one series, each one slice, in the order of their instance numbers before any geometry counts."""
    files = sorted(files, key=lambda item: (_number(item[1], "InstanceNumber") or 0.0, str(item[0])))

    def open_file(path: Path) -> Dataset:
        dataset = _open(path, name, limits)
        _check_pixels(dataset, name, limits)
        return dataset

    slices = [
        _Slice(path, 0, _numbers(header, "ImagePositionPatient", 3), _numbers(header, "ImageOrientationPatient", 6))
        for path, header in files
    ]
    return _build_scan(slices, open_file(files[0][0]), open_file, name, limits, modality, volume)


if __name__ == "__main__":
    _serve_gdcm()
