# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Reads any medical image, volume or video into a `Clip`: frames, a kind, and where each frame lies.

This is the entry to the reader. `load_clip` identifies the source and hands it to the module for its format;
`iterate_clips` reads long videos piece by piece.
"""

from __future__ import annotations

import base64
import os
import posixpath
import tempfile
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypeAlias, TypeGuard

import numpy as np
from PIL import Image

from .archives_omniv_med import unpack_archive
from .clip_omniv_med import KINDS, PLANES, Clip, MediaError, MediaLimits, ReadingOptions
from .dicom_omniv_med import EncodedVideo, read_dicom, read_dicom_series
from .file_types_omniv_med import VOLUME_FILES, identify
from .intensity_omniv_med import CT_PRESETS, CT_WINDOWS, intensity_range, scale_intensity, window_ct
from .library_guards_omniv_med import one_sentence_errors
from .pictures_omniv_med import (
    Picture,
    clip_of_picture,
    load_array,
    load_picture_file,
    map_numpy_file,
    read_pillow,
    stack_frames,
)
from .reading_job_omniv_med import ReadingJob
from .video_omniv_med import read_video, read_video_in_pieces
from .volume_files_omniv_med import read_volume_file
from .volume_omniv_med import Volume, clip_of_volume

__all__ = [
    "CT_PRESETS",
    "CT_WINDOWS",
    "KINDS",
    "PLANES",
    "Clip",
    "MediaError",
    "MediaLimits",
    "intensity_range",
    "iterate_clips",
    "load_clip",
    "scale_intensity",
    "window_ct",
]


MediaSource: TypeAlias = (
    "str | os.PathLike[str] | bytes | bytearray | memoryview | np.ndarray | Image.Image | Clip | Sequence[MediaSource]"
)
"""What `load_clip` reads."""


def load_clip(
    source: MediaSource,
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
    other volume is scaled by the percentiles of all of its voxels. Of a video, the frames on screen at every 1 / `fps`
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
    options = ReadingOptions.check(
        kind=kind,
        modality=modality,
        spacing=spacing,
        plane=plane,
        windows=windows,
        series=series,
        volume_index=volume_index,
        max_frames=max_frames,
        fps=fps,
        limits=limits,
        progress=progress,
    )
    name = _describe_source(source)
    with one_sentence_errors(name), tempfile.TemporaryDirectory(prefix="omniv_med_") as scratch:
        clip = _load(source, ReadingJob(name, options, Path(scratch)))
    if kind and clip.kind != kind:
        clip = replace(clip, notes=(*clip.notes, f"Given as {kind}, but it holds {clip.kind} data and is read so."))
    return clip


def iterate_clips(
    source: MediaSource,
    *,
    chunk: int = 32,
    max_frames: int | None = None,
    fps: float = 1.0,
    limits: MediaLimits | None = None,
    progress: Callable[[int, int], None] | None = None,
    **description: Any,
) -> Iterator[Clip]:
    """Reads a video piece by piece, with memory that does not grow with its length.

    Pruning and encoding can run on each piece while the next is not read yet. The pieces together are the clip of
    `load_clip`: positions go on from piece to piece. Only a path to a video file is read so; any other source is read
    whole and handed out in pieces.

    Args:
        source, fps, limits, progress: as in `load_clip`.
        chunk: frames of a piece at most.
        max_frames: frames of all pieces at most; None sets no limit of its own.
        description: other arguments of `load_clip`.

    Yields:
        Clips of 1 to `chunk` frames.

    Raises:
        MediaError: as `load_clip`; also between pieces, where the damage lies there.
    """
    if chunk < 1:
        raise MediaError("chunk must be at least 1.")
    limits = limits or MediaLimits()
    most = limits.max_source_frames if max_frames is None else max_frames
    if not is_video_file(source):
        clip = load_clip(source, max_frames=most, fps=fps, limits=limits, progress=progress, **description)
        for start in range(0, len(clip.frames), chunk):
            part = slice(start, start + chunk)
            geometry = clip.geometry and replace(clip.geometry, origins=clip.geometry.origins[part])
            yield replace(clip, frames=clip.frames[part], positions=clip.positions[part], geometry=geometry)
        return
    options = ReadingOptions.check(max_frames=most, fps=fps, limits=limits, progress=progress, **description)
    name = _describe_source(source)
    options.refuse_choice(name)
    pictures = read_video_in_pieces(Path(os.fsdecode(source)), name, options, chunk)
    while True:
        with one_sentence_errors(name):  # around each step alone: what the caller does between them is its own
            picture = next(pictures, None)
            if picture is None:
                return
            clip = clip_of_picture(picture, options)
        yield clip


def is_video_file(source: object) -> TypeGuard[str | os.PathLike[str]]:
    """Whether this is a path to a video file, which can be read piece by piece."""
    try:
        return _is_path(source) and os.path.isfile(source) and identify(Path(os.fsdecode(source))) == "video"
    except (OSError, ValueError):  # `load_clip` says what is wrong with it
        return False


def _is_clip(source: object) -> TypeGuard[Clip]:
    """By its fields: the loader of remote code may import this file twice, and then two classes are called Clip."""
    return all(hasattr(source, field.name) for field in fields(Clip)) and not isinstance(source, type)


def _describe_source(source: object) -> str:
    """How messages call the source: a file by its own name, without its folders."""
    if _is_path(source) and not str(source).startswith("data:"):
        given = os.path.basename(os.path.normpath(os.fspath(source)))
        text = given.decode(errors="replace") if isinstance(given, bytes) else str(given)
        return "".join(c if c.isprintable() else "?" for c in text)[:100]
    if isinstance(source, np.ndarray):
        return "The array"
    return "The list of frames" if isinstance(source, (list, tuple)) else "The media"


def _is_path(source: object) -> TypeGuard[str | os.PathLike[str]]:
    return isinstance(source, (str, os.PathLike))


def _load(source: object, job: ReadingJob) -> Clip:
    """Whatever `load_clip` takes, except a Clip."""
    if isinstance(source, (Image.Image, np.ndarray)):
        job.options.refuse_choice(job.name)
    if isinstance(source, Image.Image):
        return clip_of_picture(read_pillow(source, job.name, job.options), job.options)
    if isinstance(source, np.ndarray):
        return load_array(source, job.name, job.options)
    if isinstance(source, (list, tuple)):
        return _load_list(source, job)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _load_bytes(bytes(source), job)
    if not _is_path(source):
        raise MediaError(f"A {type(source).__name__} is no media; give a path, bytes, an array or a PIL image.")
    text = os.fsdecode(source)
    if text.startswith("data:"):
        return _load_bytes(_decode_data_uri(text, job.name, job.options.limits), job)
    if "://" in text:
        scheme = text.split("://")[0][:10]
        raise MediaError(f"Addresses ({scheme}://) are not fetched; download the file and give its path.")
    return _load_path(Path(text), job)


def _decode_data_uri(text: str, name: str, limits: MediaLimits) -> bytes:
    """The bytes of a `data:` URI (RFC 2397); its media type is not trusted."""
    header, comma, body = text.partition(",")
    if len(body) > limits.max_unpacked_bytes:
        raise MediaError(f"{name} is longer than {limits.max_unpacked_bytes} bytes; it is not read.")
    data = urllib.parse.unquote_to_bytes(body)
    try:
        data = base64.b64decode(b"".join(data.split()), validate=True) if header.endswith(";base64") else data
    except ValueError:
        raise MediaError("The data URI is not valid base64; encode the file again.") from None
    if not comma or not data:
        raise MediaError("The data URI holds no data; encode the file again.")
    return data


def _load_bytes(data: bytes, job: ReadingJob) -> Clip:
    path = job.scratch / "media"
    path.write_bytes(data)
    return _load_path(path, job)


def _load_path(path: Path, job: ReadingJob) -> Clip:
    """One file or folder."""
    name, options = job.name, job.options
    if path.is_dir():
        return _load_folder(path, job)
    if not path.exists():
        raise MediaError(f"{name} does not exist; check the path.")
    if not path.is_file():
        raise MediaError(f"{name} is neither a file nor a folder; give a file.")
    if not os.access(path, os.R_OK):
        raise MediaError(f"{name} may not be read by this user; change its permissions.")
    if path.stat().st_size == 0:
        raise MediaError(f"{name} is empty (0 bytes); copy it again.")
    content = identify(path)
    if content == "dicom" and options.series is None:
        return _render(read_dicom(path, name, options), job)
    if content == "dicom":
        return _load_series([path], job)
    if content == "zip":
        folder, names = unpack_archive(path, name, options.limits, job.scratch)
        return _load_folder(folder, replace(job, names=names))
    options.refuse_choice(name, volumes=content in (*VOLUME_FILES, ""))
    if content in VOLUME_FILES:
        return clip_of_volume(read_volume_file(path, content, job), name, options)
    if content == "numpy":
        return load_array(map_numpy_file(path, name), name, options)
    if content == "picture":
        return load_picture_file(path, name, options)
    if content == "video":
        return clip_of_picture(read_video(path, name, options), options)
    if header := _header_of_voxels(path, job):
        return _load_path(header, job)
    raise MediaError(
        f"{name} is not a known medical image, volume or video, whatever its name says; convert it to DICOM, NIfTI, "
        "PNG, JPEG or MP4."
    )


def _header_of_voxels(path: Path, job: ReadingJob) -> Path | None:
    """The NIfTI or Analyze header beside a file of voxels, which has no signature, only the ending .img."""
    stem, ending = os.path.splitext(posixpath.basename(job.name_of(path)).removesuffix(".gz"))
    if ending.lower() != ".img":
        return None
    headers = (job.find_beside(path, stem + suffix) for suffix in (".hdr", ".HDR", ".hdr.gz"))
    return next((header for header in headers if header and identify(header) == "nifti"), None)


def _load_series(paths: Sequence[Path], job: ReadingJob) -> Clip:
    """The series that is asked for among DICOM files, or the one with the most slices."""
    read, series = read_dicom_series(paths, job.name, job.options)
    return replace(_render(read, job), series=series)


def _render(read: Volume | Picture | EncodedVideo, job: ReadingJob) -> Clip:
    """What DICOM held, as a clip."""
    name, options = job.name, job.options
    if isinstance(read, Volume):
        return clip_of_volume(read, name, options)
    if isinstance(read, EncodedVideo):
        path = job.scratch / "video"
        path.write_bytes(read.data)
        read = replace(read_video(path, name, options), modality=read.modality)
    return clip_of_picture(read, options)


def _load_folder(folder: Path, job: ReadingJob) -> Clip:
    """The DICOM series of a folder and those below it, by the rule of `load_clip`, or its only other media file."""
    name, options = job.name, job.options
    paths: list[Path] = []
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(entry for entry in folders if not entry.startswith((".", "__MACOSX")))
        paths += [Path(parent, file) for file in sorted(files) if not file.startswith(".")]
        if len(paths) > options.limits.max_archive_entries:
            raise MediaError(f"{name} holds over {options.limits.max_archive_entries} files; give one series' folder.")
    contents = [(path, identify(path)) for path in paths if path.is_file() and path.stat().st_size]
    dicom = [path for path, content in contents if content == "dicom"]
    if dicom:
        return _load_series(dicom, job)
    others = [path for path, content in contents if content not in ("", "zip")]
    if len(others) == 1:
        return _load_path(others[0], job)
    if others:
        raise MediaError(f"{name} holds {len(others)} media files and no DICOM series; give one of them.")
    raise MediaError(f"{name} holds no medical image, volume or video; give the folder or archive of a DICOM series.")


def _load_list(items: Sequence[object], job: ReadingJob) -> Clip:
    """A list of DICOM files is a series; arrays, pictures or picture files are frames, by default of a video."""
    name, options = job.name, job.options
    if not items:
        raise MediaError("The list of frames is empty; give at least one frame.")
    options.limits.check_frames(name, len(items), 1, 1)
    arrays = [item for item in items if isinstance(item, np.ndarray)]
    if len(arrays) == len(items):
        options.refuse_choice(name)
        array = stack_frames(arrays, name)
        kind = options.kind or "video"
        return load_array(array, name, replace(options, kind=kind if kind != "image" else "video"))
    local = [Path(item) for item in items if _is_path(item) and not str(item).startswith("data:")]
    paths = local if len(local) == len(items) and all(path.is_file() for path in local) else []
    if paths and all(identify(path) == "dicom" for path in paths):
        return _load_series(paths, job)
    known = [path for path in paths if identify(path)] if len(paths) == 2 else []
    if len(known) == 1 and identify(known[0]) in VOLUME_FILES:  # a header, and the file of its voxels
        (voxels,) = (path for path in paths if path not in known)
        pair = replace(job, names={path: path.name for path in paths}, companion=voxels)
        clip = _load_path(known[0], pair)
        if voxels in pair.found:
            return clip
        place = "second" if voxels == paths[1] else "first"
        return replace(clip, notes=(*clip.notes, f"The {place} of the two files was not read; the other is complete."))
    options.refuse_choice(name)
    count = len(items)
    volume = options.kind == "volume"
    indices, times, notes = options.choose_frames(np.arange(count), False)
    alone = replace(options, kind=None, spacing=())
    frames = []
    for index in range(count) if volume else indices:
        # Each frame gets a folder of its own: readers leave files under fixed names.
        with tempfile.TemporaryDirectory(dir=job.scratch) as folder:
            item = items[index]
            frame = item if _is_clip(item) else _load(item, ReadingJob(_describe_source(item), alone, Path(folder)))
        if len(frame.frames) != 1:
            raise MediaError(f"{name} must hold single pictures, and one of them is a {frame.kind}.")
        frames.append(frame.frames[0])
    values = stack_frames(frames, name)
    if volume:
        return load_array(values, name, options)
    picture = Picture(values, True, times, (0.0, 0.0), count, options.modality or "", tuple(notes))
    return clip_of_picture(picture, options)
