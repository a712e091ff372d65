# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Decodes the pixels of DICOM files with pydicom, and turns single pictures and videos into values or colours."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut, apply_voi, apply_windowing
from pydicom.pixels.utils import pixel_array

from .clip_omniv_med import MediaError, ReadingOptions
from .decoder_processes_omniv_med import gdcm_process
from .dicom_files_omniv_med import find_frame_times, find_pixel_spacing, is_colour, is_inverted, modality_of, number_of
from .intensity_omniv_med import fill_background
from .library_guards_omniv_med import native_stderr
from .pictures_omniv_med import Picture

# 8-bit grey frames of these are made for the screen: they are shown as stored (PS3.3 C.8.5 to C.8.13 and A.8).
SCREEN_MODALITIES = frozenset({"US", "IVUS", "OT", "SC", "ES", "XC", "GM", "SM", "OP", "OPT", "IVOCT", "ECG"})


def decode_frames(dataset: Dataset, name: str, indices: Sequence[int], notes: list[str]) -> Iterator[np.ndarray]:
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
                frames, complaint = gdcm_process.frames(Path(dataset.filename), indices)
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


def _to_eight_bits(colours: np.ndarray, bits: int) -> np.ndarray:
    """Unsigned samples of `bits` bits to uint8."""
    if bits == 8:
        return colours.astype(np.uint8)
    scaled: np.ndarray = colours.astype(np.float64) * (255.0 / (2**bits - 1))
    return np.round(scaled).clip(0, 255).astype(np.uint8)


def to_colours(frame: np.ndarray, dataset: Dataset) -> np.ndarray:
    """RGB samples, or indices through the palette (PS3.3 C.7.6.3.1.5), to uint8 (height, width, 3)."""
    if dataset.get("PhotometricInterpretation") != "PALETTE COLOR":
        return _to_eight_bits(frame, int(dataset.BitsStored))
    colours: np.ndarray = apply_color_lut(frame, dataset)[..., :3]
    bits = int(dataset.RedPaletteColorLookupTableDescriptor[2])
    # Many writers declare 16-bit palettes and fill in 8-bit entries.
    return _to_eight_bits(colours, 8 if bits == 16 and colours.max() <= 255 else bits)


def to_measured_values(frame: np.ndarray, dataset: Dataset, rescale: tuple[float, float] | None = None) -> np.ndarray:
    """Stored values to the modality's values (HU for CT), float32 (height, width), with NaN where there is padding.

    Modality LUT or rescale: PS3.3 C.11.1; padding: C.7.5.1.1.2. `rescale` is the frame's own (slope, intercept).
    """
    padding = None
    if (low := number_of(dataset, "PixelPaddingValue")) is not None and frame.dtype.kind in "iu":
        high = number_of(dataset, "PixelPaddingRangeLimit")
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


def read_picture(dataset: Dataset, name: str, count: int, options: ReadingOptions) -> Picture:
    """One frame, or the chosen frames of a multi-frame file without slice geometry."""
    notes: list[str] = []
    modality = options.modality or modality_of(dataset)
    indices, times = [0], None
    choice_notes: list[str] = []
    if count > 1:
        numbers, times, choice_notes = options.choose_frames(*find_frame_times(dataset, count))
        indices = numbers.tolist()
    spacing, spacing_note = find_pixel_spacing(dataset)
    frames = decode_frames(dataset, name, indices, notes)
    shown = True
    if is_colour(dataset):
        values = np.stack([to_colours(frame, dataset) for frame in frames])
    else:
        values = np.stack([to_measured_values(frame, dataset) for frame in frames])
        eight_bits = int(dataset.get("BitsStored") or 16) == 8 and not dataset.get("PixelRepresentation")
        rescaled = "RescaleIntercept" in dataset or "ModalityLUTSequence" in dataset
        if modality == "CT" and not (eight_bits and not rescaled):
            shown = False
            if not rescaled:
                notes.append("Header gives no rescale; stored values are taken for HU.")
        elif eight_bits and modality in SCREEN_MODALITIES | {"CT"}:
            padding = np.isnan(values)
            values = np.nan_to_num(255 - values if is_inverted(dataset) else values).clip(0, 255).astype(np.uint8)
            values[padding] = 0
        elif windowed := _through_header_window(values, dataset):
            grey, note = windowed
            grey = np.where(np.isnan(values), 0, 255 - grey if is_inverted(dataset) else grey)
            values = grey.astype(np.uint8)
            notes.append(note)
        else:
            shown = False
            values = -values if is_inverted(dataset) else values
        if is_inverted(dataset) and modality != "CT":
            notes.append("Low values are bright in this file (MONOCHROME1); shown with dark background.")
    notes += [*choice_notes, *([spacing_note] if spacing_note else [])]
    return Picture(fill_background(values), shown, times, spacing, count, modality, tuple(notes))
