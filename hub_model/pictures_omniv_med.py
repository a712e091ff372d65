# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Reads picture files, animations and arrays, and turns their frames into clips."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813 - the name all of its documentation uses
from PIL import Image, ImageOps

from .clip_omniv_med import Clip, MediaError, ReadingOptions
from .intensity_omniv_med import fill_background, grey_frames, scale_to_grey, window_ct
from .library_guards_omniv_med import native_stderr
from .volume_omniv_med import Volume, clip_of_volume

PILLOW_FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "BMP", "GIF", "JPEG2000")
"""What Pillow may open; its other formats are no medical media, and some start other programs."""


@dataclass(frozen=True)
class Picture:
    """One picture, or the chosen frames of a video.

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


def clip_of_picture(picture: Picture, options: ReadingOptions) -> Clip:
    """One picture or a video's frames, through the CT windows or scaled by all frames where they are not shown yet."""
    notes = list(picture.notes)
    if picture.values.ndim == 4:
        frames = np.ascontiguousarray(picture.values)
    elif picture.shown:
        frames = grey_frames(picture.values)
    elif picture.modality == "CT":
        frames = window_ct(picture.values, options.windows)
        notes.append(options.windows_note)
    else:
        frames = grey_frames(scale_to_grey(picture.values))
        notes.append("Grey levels: 1st to 99th percentile of the values.")
    still = picture.times is None
    if len(options.spacing) == 3 or (still and len(options.spacing) == 1):
        raise MediaError("spacing must be (rows, columns) in mm for an image, and also seconds per frame for a video.")
    spacing = options.spacing if len(options.spacing) == 2 else picture.spacing
    positions = np.zeros(1) if picture.times is None else picture.times
    kind = "image" if still else "video"
    return Clip(frames, kind, positions, spacing, picture.source_frames, picture.modality, tuple(notes))


def read_pillow(image: Image.Image, name: str, options: ReadingOptions, page: bool = False) -> Picture:
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


def load_picture_file(path: Path, name: str, options: ReadingOptions) -> Clip:
    """A picture file; an animation is a video, and of many pages the first is used unless `kind` says what they are."""
    try:
        with native_stderr(), Image.open(path, formats=PILLOW_FORMATS) as image:
            options.limits.check_frames(name, getattr(image, "n_frames", 1), image.height, image.width)
            count = getattr(image, "n_frames", 1)
            paged = image.format == "TIFF"
            if count > 1 and (not paged or options.kind in ("video", "volume")):
                return _load_pages(image, name, options)
            picture = read_pillow(image, name, options)
    except (MediaError, MemoryError):
        raise
    except Image.DecompressionBombError:
        raise MediaError(f"{name} has more pixels than Pillow's limit for safe pictures; make it smaller.") from None
    except Exception:  # of many classes, as each of Pillow's readers has its own
        raise MediaError(f"{name} is a damaged or unsupported picture; save it again as PNG.") from None
    if count > 1:
        note = f"Page 1 of {count}; kind='volume' or kind='video' reads all."
        picture = replace(picture, notes=(*picture.notes, note), source_frames=count)
    return clip_of_picture(picture, options)


def _load_pages(image: Image.Image, name: str, options: ReadingOptions) -> Clip:
    """The frames of an animation, with their seconds, or the pages of a TIFF as a volume or a video."""
    count: int = getattr(image, "n_frames", 1)
    if options.kind == "volume":
        options.limits.check_volume(name, count, image.height, image.width)
        pages = []
        for index in range(count):
            image.seek(index)
            pages.append(read_pillow(image, name, options, page=True).values[0])
        return load_array(stack_frames(pages, name), name, options)
    seconds = []
    for index in range(count):
        image.seek(index)
        seconds.append(float(image.info.get("duration", 0)) / 1000)
    known = min(seconds) > 0
    times = np.concatenate([[0.0], np.cumsum(seconds[:-1])]) if known else np.arange(count, dtype=np.float64)
    indices, times, notes = options.choose_frames(times, known)
    frames = []
    for index in indices:
        image.seek(int(index))
        frames.append(read_pillow(image, name, options, page=True))
    shown = frames[0].shown
    values = stack_frames([frame.values[0] for frame in frames], name)
    notes = [*frames[0].notes, *notes]
    picture = Picture(values, shown, times, (0.0, 0.0), count, options.modality or "", tuple(notes))
    return clip_of_picture(picture, options)


def stack_frames(frames: list[np.ndarray], name: str) -> np.ndarray:
    """Frames of one shape as one array; `MediaError` where their shapes differ."""
    if len({frame.shape for frame in frames}) > 1:
        raise MediaError(f"{name} holds frames of different sizes or colours; bring them to one size first.")
    return np.stack(frames)


def map_numpy_file(path: Path, name: str) -> np.ndarray:
    """The array of a `.npy` file, mapped and not read yet; a first axis of one channel before a volume is dropped."""
    try:
        array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception:  # of many classes: NumPy reads the header with Python's own parser
        raise MediaError(f"{name} is cut short or holds no plain numbers; save the array again.") from None
    return array[0] if array.ndim == 4 and array.shape[0] == 1 and array.shape[-1] not in (3, 4) else array


def load_array(array: np.ndarray, name: str, options: ReadingOptions) -> Clip:
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
        volume = Volume(sitk.GetImageFromArray(values, isVector=colour), options.modality or "", spacing_known=False)
        return clip_of_volume(volume, name, options)
    indices, times, notes = options.choose_frames(np.arange(count), False) if many else (slice(None), None, [])
    values = values[indices] if many else values[None]
    if values.dtype.kind == "f":
        values = fill_background(values.copy())
    shown = values.dtype == np.uint8
    picture = Picture(values, shown, times, (0.0, 0.0), count, options.modality or "", tuple(notes))
    return clip_of_picture(picture, options)


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
