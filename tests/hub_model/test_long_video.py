# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Long, uneven and turned videos: what is decoded, what it costs, and when and which way up the frames are."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from hub_model.media_omniv_med import Clip, MediaError, iterate_clips, load_clip
from hub_model.token_pruning_omniv_med import StreamingPruner, prune_tokens
from hub_model.visual_processing_omniv_med import patchify, resize_frames
from tests.helpers.paths import ROOT

RATE, HEIGHT, WIDTH = 25, 240, 320
LARGEST_PEAK = 600 * 2**20
"""Bytes of memory that reading an hour of video may take at most, all of Python and its libraries included."""


def grey_of(frame: int) -> int:
    """The grey level that marks a frame: neighbours, and frames a second apart, differ by more than coding noise."""
    return 20 + frame * 37 % 200


def film(
    path: Path, seconds: int, key_frames: int = 250, times: Sequence[int] | None = None, codec: str = "libx264"
) -> Path:
    """H.264 of 320 x 240 pixels with a moving bar, the upper half in the grey of the frame's number.

    Args:
        path: file to write.
        seconds: length, at 25 frames a second.
        key_frames: frames from one key frame to the next.
        times: milliseconds of each frame, in the place of 25 a second.
        codec: FFmpeg's name of the encoder.
    """
    options = {"preset": "ultrafast", "bf": "3", "b-pyramid": "normal"} if codec == "libx264" else {"bf": "2"}
    texture = 110 + 40 * np.sin(np.arange(WIDTH) / 17) + 0.2 * np.arange(HEIGHT)[:, None]
    rows = texture.astype(np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=RATE if times is None else 1000, options=options)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = WIDTH, HEIGHT, "yuv420p", key_frames
        frame = av.VideoFrame(WIDTH, HEIGHT, "yuv420p")
        for plane in frame.planes[1:]:
            plane.update(bytes([128]) * plane.buffer_size)
        for number in range(seconds * RATE if times is None else len(times)):
            shown = rows.copy()
            shown[: HEIGHT // 2] = grey_of(number)
            start = number * 2 % (WIDTH - 40)
            shown[180:200, start : start + 40] = 235
            frame.make_writable()  # the encoder may still hold the one before
            frame.planes[0].update(shown.tobytes())
            frame.pts = number if times is None else times[number]
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def numbers_shown(clip: Clip) -> np.ndarray:
    """Grey levels of the marks, which tell the frames' numbers."""
    return clip.frames[:, 10:100, 10:-10].mean(axis=(1, 2, 3))


def assert_shows(clip: Clip, numbers: Sequence[int]) -> None:
    """The clip holds exactly the frames with these numbers."""
    expected = (np.array([grey_of(number) for number in numbers]) - 16) * 255 / 219  # from video to full range
    np.testing.assert_allclose(numbers_shown(clip), expected, atol=4)


@pytest.fixture(scope="module")
def two_minutes(tmp_path_factory) -> Path:
    return film(tmp_path_factory.mktemp("film") / "two_minutes.mp4", 120)


# --- What is read -------------------------------------------------------------------------------------------


def test_one_frame_a_second_is_the_frame_of_that_second(two_minutes):
    clip = load_clip(two_minutes, max_frames=120)
    assert clip.source_frames == 3000
    np.testing.assert_allclose(clip.positions, np.arange(120), atol=1e-6)
    assert_shows(clip, range(0, 3000, RATE))


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("f.mp4", "libx264"),
        ("f.mkv", "libx264"),
        ("f.avi", "mpeg4"),
        ("f.mpg", "mpeg2video"),
        ("f.ts", "libx264"),
        ("f.ts", "mpeg2video"),
        ("f.m2ts", "libx264"),
    ],
)
@pytest.mark.parametrize(("key_frames", "fps"), [(5, 1.7), (100, 1.7), (20, 100)])
def test_frames_are_those_of_full_decoding(tmp_path, name, codec, key_frames, fps):
    path = film(tmp_path / name, 4, key_frames, codec=codec)
    with av.open(str(path)) as container:
        decoded = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    clip = load_clip(path, fps=fps, max_frames=200)
    np.testing.assert_array_equal(
        clip.frames, [decoded[number] for number in np.round(clip.positions * RATE).astype(int)]
    )


def test_frames_that_nothing_needs_are_not_decoded(tmp_path):
    """They may hold noise: the key frames of each second are read, and the clip is the same."""
    path = film(tmp_path / "film.mp4", 20, key_frames=RATE)
    whole = load_clip(path)
    with av.open(str(path)) as container:
        places = [
            (packet.pos, packet.size) for packet in container.demux(video=0) if packet.size and not packet.is_keyframe
        ]
    data = bytearray(path.read_bytes())
    for start, size in places:
        data[start + 4 : start + size] = b"\xff" * (size - 4)
    path.write_bytes(data)
    clip = load_clip(path)
    assert len(clip.frames) == 20
    np.testing.assert_array_equal(clip.frames, whole.frames)
    with pytest.raises(MediaError, match=r"damaged|cut short"):
        load_clip(path, fps=5, max_frames=100)


# --- Piece by piece -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk", [1, 7, 32, 500])
def test_pieces_together_are_the_clip(two_minutes, chunk):
    whole = load_clip(two_minutes, max_frames=500)
    pieces = list(iterate_clips(two_minutes, chunk=chunk))
    assert all(1 <= len(piece.frames) <= chunk for piece in pieces)
    np.testing.assert_array_equal(np.concatenate([piece.frames for piece in pieces]), whole.frames)
    np.testing.assert_array_equal(np.concatenate([piece.positions for piece in pieces]), whole.positions)
    assert {piece.notes for piece in pieces} == {whole.notes}
    assert {piece.source_frames for piece in pieces} == {3000}


@pytest.mark.parametrize("give", [lambda path: path.read_bytes(), lambda path: load_clip(path, max_frames=500)])
def test_what_is_no_path_to_a_video_is_handed_out_in_pieces_too(two_minutes, give):
    pieces = list(iterate_clips(give(two_minutes), chunk=50))
    assert [len(piece.frames) for piece in pieces] == [50, 50, 20]
    np.testing.assert_allclose(np.concatenate([piece.positions for piece in pieces]), np.arange(120), atol=1e-6)


def test_a_volume_comes_in_pieces_of_the_same_scale():
    volume = np.linspace(0, 1000, 20 * 16).reshape(20, 4, 4)
    pieces = list(iterate_clips(volume, chunk=8, plane="axial"))
    assert [piece.kind for piece in pieces] == ["volume"] * 3
    np.testing.assert_array_equal(np.concatenate([piece.frames for piece in pieces]), load_clip(volume).frames)


def test_progress_is_told_frame_by_frame(two_minutes):
    calls: list[tuple[int, int]] = []
    load_clip(two_minutes, max_frames=40, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(done, 40) for done in range(1, 41)]
    calls.clear()
    next(iterate_clips(two_minutes, chunk=8, progress=lambda done, total: calls.append((done, total))))
    assert calls == [(done, 120) for done in range(1, 9)]


def test_reading_stops_where_progress_says_so(two_minutes):
    def stop(done: int, total: int) -> None:
        if done == 3:
            raise MediaError("Stopped by the user.")

    with pytest.raises(MediaError, match=r"Stopped by the user\."):
        load_clip(two_minutes, progress=stop)
    with pytest.raises(MediaError, match=r"Stopped by the user\."):
        list(iterate_clips(two_minutes, chunk=2, progress=stop))


def test_what_cannot_be_read_says_so_also_in_pieces(tmp_path):
    (tmp_path / "cut.mp4").write_bytes(film(tmp_path / "film.mp4", 2).read_bytes()[:3000])
    for source, words in ((tmp_path / "cut.mp4", "damaged, cut short"), (tmp_path / "none.mp4", "does not exist")):
        with pytest.raises(MediaError, match=words):
            list(iterate_clips(source))
    with pytest.raises(MediaError, match="chunk"):
        list(iterate_clips(tmp_path / "film.mp4", chunk=0))


def test_a_stream_is_pruned_while_it_is_read(two_minutes):
    """Frame by frame, with one frame of state, and with the decisions of the whole clip."""
    pruner, kept = StreamingPruner("anchor", threshold=0.1), []
    for piece in iterate_clips(two_minutes, chunk=16):
        for tokens in patchify(resize_frames(piece.frames, 112, 140), 14, 2):
            kept.append(pruner.step(tokens).keep_mask)
    whole = patchify(resize_frames(load_clip(two_minutes, max_frames=500).frames, 112, 140), 14, 2)
    expected = prune_tokens(whole, "anchor", threshold=0.1).keep_mask
    assert torch.equal(torch.stack(kept), expected)
    assert 0 < expected.float().mean() < 1


# --- Memory -------------------------------------------------------------------------------------------------

MEASURE = """
import json, re, sys, time
from pathlib import Path
from hub_model.media_omniv_med import iterate_clips, load_clip

def measured(read):
    begin = time.perf_counter()
    frames = read()
    peak = int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024
    return {"frames": frames, "peak": peak, "seconds": round(time.perf_counter() - begin, 2)}

told = []
def stream():
    return sum(len(piece.frames) for piece in iterate_clips(path, progress=lambda *counts: told.append(counts)))

report = {"streamed": []}
for path in sys.argv[1:]:
    report["streamed"].append(measured(stream) | {"told": told[-1]})
report["clip"] = measured(lambda: len(load_clip(path).frames))
print(json.dumps(report))
"""


def measure(*paths: Path) -> dict:
    """Reads films one after the other in a child process, in pieces at 1 frame per second, the last also as a clip.

    The peak is that of the memory in use by the whole process so far, Python and its libraries included.
    """
    if not Path("/proc/self/status").exists():
        pytest.skip("Peak memory is read from Linux's /proc.")
    child = subprocess.run(
        [sys.executable, "-c", MEASURE, *map(str, paths)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(child.stdout)


def test_memory_does_not_grow_with_length(tmp_path, two_minutes):
    report = measure(film(tmp_path / "short.mp4", 40), two_minutes, film(tmp_path / "long.mp4", 360))
    peaks = [stream["peak"] for stream in report["streamed"]]
    assert [stream["frames"] for stream in report["streamed"]] == [40, 120, 360]
    assert peaks[-1] - peaks[0] < 40 * 2**20  # the frames of the long film are 70 MiB more than those of the short one
    assert report["clip"]["peak"] < LARGEST_PEAK


@pytest.mark.slow
def test_an_hour_of_video_in_600_megabytes(tmp_path):
    report = measure(film(tmp_path / "hour.mp4", 3600))
    streamed, clip = report["streamed"][0], report["clip"]
    print(json.dumps(report))
    assert streamed["frames"] == 3600 and streamed["told"] == [3600, 3600]
    assert streamed["peak"] <= LARGEST_PEAK and clip["peak"] <= LARGEST_PEAK
    assert clip["frames"] == 32


# --- Time and the way up ------------------------------------------------------------------------------------


def test_a_variable_frame_rate_keeps_its_times(tmp_path):
    """As phones and screen recorders write it: fast, then slow, then a pause."""
    steps = [20] * 100 + [200] * 20 + [3000] + [40] * 50
    times = np.concatenate([[0], np.cumsum(steps)]).tolist()
    path = film(tmp_path / "uneven.mp4", 0, key_frames=30, times=times)
    clip = load_clip(path, fps=1)
    asked = np.arange(len(clip.frames))
    on_screen = np.searchsorted(np.array(times) / 1000, asked + 1e-6, side="right") - 1
    unique = np.unique(on_screen)  # through the pause one frame stays on the screen
    np.testing.assert_allclose(clip.positions[: len(unique)], np.array(times)[unique] / 1000, atol=2e-3)
    everything = load_clip(path, fps=1000, max_frames=1000)
    np.testing.assert_allclose(everything.positions, np.array(times) / 1000, atol=2e-3)
    assert_shows(everything, range(len(times)))


QUARTER_TURNS = {  # the matrix of the track header box (ISO/IEC 14496-12, 6.2.2), to be shown clockwise by …
    0: (1, 0, 0, 1),
    90: (0, 1, -1, 0),
    180: (-1, 0, 0, -1),
    270: (0, -1, 1, 0),
}


@pytest.mark.parametrize("degrees", sorted(QUARTER_TURNS))
def test_a_video_of_a_turned_phone_is_upright(tmp_path, degrees):
    path = film(tmp_path / "phone.mp4", 2)
    stored = load_clip(path)
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 4 + 40  # version 0: 4 bytes of flags and 36 of times, number, length, layers
    a, b, c, d = QUARTER_TURNS[degrees]
    for place, value in zip((0, 1, 3, 4), (a, b, c, d), strict=True):
        data[matrix + 4 * place : matrix + 4 * place + 4] = (value << 16).to_bytes(4, "big", signed=True)
    path.write_bytes(data)
    turned = load_clip(path)
    np.testing.assert_array_equal(turned.frames, np.rot90(stored.frames, -degrees // 90, axes=(1, 2)))
    pieces = list(iterate_clips(path, chunk=3))
    np.testing.assert_array_equal(np.concatenate([piece.frames for piece in pieces]), turned.frames)


def test_a_film_that_starts_late_counts_from_its_first_frame(tmp_path):
    path = film(tmp_path / "late.mkv", 0, times=list(range(5000, 9000, 40)))
    clip = load_clip(path, fps=2.5)
    np.testing.assert_allclose(clip.positions, np.arange(10) * 0.4, atol=2e-3)
