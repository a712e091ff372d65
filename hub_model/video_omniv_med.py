# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Reads chosen frames of a video, and decodes only these and the frames they depend on.

PyAV decodes wherever it is installed. decord is the second choice, for systems that have it and no PyAV: it takes as
long and gives the same frames within two grey levels, but some damaged files make it end the process (std::bad_alloc),
and its FFmpeg is older.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from .clip_omniv_med import MediaError, MediaLimits, ReadingOptions
from .library_guards_omniv_med import native_stderr
from .pictures_omniv_med import Picture

MOST_REORDERED = 16
"""Frames that a video decoder may hold back to bring them into order (H.264, A.3.1: max_dec_frame_buffering)."""


@dataclass(frozen=True)
class _OpenVideo:
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
def _open_video(path: Path, name: str, limits: MediaLimits) -> Iterator[_OpenVideo]:
    """Opens a video file through PyAV, or through decord where only that is installed."""
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
        with opened as video:
            limits.check_frames(name, len(video.times), video.height, video.width)
            yield video
    except (MediaError, MemoryError):
        raise
    except Exception:  # of many classes; their sentences say less than this one
        raise MediaError(
            f"{name} is a video that is damaged, cut short or of an unknown codec; convert it to H.264 MP4."
        ) from None


def read_video(path: Path, name: str, options: ReadingOptions) -> Picture:
    """The frames of a video file that `load_clip` asks for."""
    with _open_video(path, name, options.limits) as video:
        indices, times, notes = options.choose_frames(video.times, True)
        options.limits.check_volume(name, len(indices), video.height, video.width)
        frames = np.empty(0, np.uint8)
        for place, frame in enumerate(video.read(indices)):
            if place == 0:  # filled in place, as a list of frames and their stack would be two copies
                frames = np.empty((len(indices), *frame.shape), np.uint8)
            frames[place] = _same_shape(frame, frames[0], name)
            options.report(place + 1, len(indices))
    return Picture(frames, True, times, (0.0, 0.0), len(video.times), options.modality or "", tuple(notes))


def read_video_in_pieces(path: Path, name: str, options: ReadingOptions, chunk: int) -> Iterator[Picture]:
    """As `read_video`, at most `chunk` frames at a time."""
    with _open_video(path, name, options.limits) as video:
        indices, times, notes = options.choose_frames(video.times, True)
        options.limits.check_volume(name, min(chunk, len(indices)), video.height, video.width)
        frames: list[np.ndarray] = []
        for place, frame in enumerate(video.read(indices), start=1):
            frames.append(_same_shape(frame, frames[0] if frames else frame, name))
            options.report(place, len(indices))
            if len(frames) == chunk or place == len(indices):
                seconds = times[place - len(frames) : place]
                values, frames = np.stack(frames), []
                yield Picture(values, True, seconds, (0.0, 0.0), len(video.times), options.modality or "", tuple(notes))


def _same_shape(frame: np.ndarray, first: np.ndarray, name: str) -> np.ndarray:
    if frame.shape != first.shape:
        raise MediaError(f"{name} holds frames of different sizes; bring them to one size first.")
    return frame


@contextmanager
def _open_with_decord(decord: ModuleType, path: Path) -> Iterator[_OpenVideo]:
    """An `_OpenVideo` through decord, which seeks and turns frames upright by itself."""
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

    yield _OpenVideo(times, height, width, read)


@contextmanager
def _open_with_pyav(av: ModuleType, path: Path, name: str) -> Iterator[_OpenVideo]:
    """An `_OpenVideo` through PyAV."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        reader = _PacketReader(container, stream, av.video.reformatter.VideoReformatter(), name)
        yield _OpenVideo(reader.shown * float(stream.time_base), stream.height, stream.width, reader.read)


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
