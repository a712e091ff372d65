# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Writes films of endoscopy: one generated view after the other, some held still.

Each frame has noise of its own, so that a still view is not the same frame again. A film's views come from a pool,
because generating a view takes longer than filming it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import av
import numpy as np
from PIL import Image

from data_engine.phantoms import endoscopy
from data_engine.phantoms.sample import Sample

HEIGHT, WIDTH = 240, 320
NOISE = 2.0
"""Standard deviation of each frame's own noise, in grey levels of 255; less in smaller ones, as if reduced."""
SHORTEST_VIEW, LONGEST_VIEW = 4, 20
"""Seconds of one view."""
SHARE_STILL = 0.5
STEPS_PER_SECOND = 8
"""Frames of a moving phantom that are shown in a second."""


@dataclass(frozen=True)
class View:
    """What the camera sees for a while."""

    sample: Sample
    height: int = HEIGHT

    @cached_property
    def pictures(self) -> np.ndarray:
        """The phantom's frames, forwards and backwards, as planes of yuv420p: uint8 (frames, 1.5 · height, width)."""
        frames = self.sample.frames
        there_and_back = np.concatenate([frames, frames[-2:0:-1]])
        side = (self.height * WIDTH // HEIGHT - self.height) // 2
        planes = []
        for frame in there_and_back:
            large = np.asarray(Image.fromarray(frame).resize((self.height, self.height)))
            on_screen = np.pad(large, ((0, 0), (side, side), (0, 0)))
            shown = av.VideoFrame.from_ndarray(on_screen, format="rgb24")
            planes.append(shown.reformat(format="yuv420p").to_ndarray())
        return np.stack(planes)


@dataclass(frozen=True)
class Scene:
    """A view in a film.

    Attributes:
        view: what is seen.
        seconds: for how long.
        is_still: whether the camera holds the view's first frame.
    """

    view: View
    seconds: int
    is_still: bool


def view(seed: Sequence[int], lesion: bool | None = None, height: int = HEIGHT) -> View:
    """The view of a seed, with a polyp or without one as asked, or as chance has it; all else is the same in both."""
    return View(endoscopy.generate("video", np.random.default_rng(seed), lesion=lesion), height)


def views(count: int, seed: Sequence[int], lesion: bool | None = None, height: int = HEIGHT) -> list[View]:
    """So many views by seed, each with a polyp or without one as asked, or as chance has it."""
    return [view((*seed, number), lesion, height) for number in range(count)]


def draw_scenes(pool: Sequence[View], seconds: int, rng: np.random.Generator) -> list[Scene]:
    """Scenes of a pool's views that last so many seconds together; none follows itself."""
    scenes: list[Scene] = []
    left, last = seconds, -1
    while left > 0:
        number = int(rng.integers(len(pool)))
        if number == last and len(pool) > 1:
            continue
        length = min(int(rng.integers(SHORTEST_VIEW, LONGEST_VIEW + 1)), left)
        scenes.append(Scene(pool[number], length, bool(rng.random() < SHARE_STILL)))
        left, last = left - length, number
    return scenes


def write_film(path: Path, scenes: Sequence[Scene], rate: int, seed: int, one_thread: bool = False) -> None:
    """H.264 in MP4 of the scenes, one after the other.

    Args:
        path: file to write.
        scenes: what is seen, of views of one height.
        rate: frames a second.
        seed: of the noise.
        one_thread: slower, and the same bytes on every machine: x264's depend on how many threads it runs.
    """
    options = {"preset": "ultrafast"} | ({"threads": "1"} if one_thread else {})
    height = scenes[0].view.height
    width = height * WIDTH // HEIGHT
    sigma = NOISE * height / HEIGHT
    grain = np.random.default_rng(seed).normal(0, sigma, (2 * height, 2 * width)).round().astype(np.int16)
    number = 0
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for scene in scenes:
            pictures = scene.view.pictures
            for place in range(scene.seconds * rate):
                step = 0 if scene.is_still else place * STEPS_PER_SECOND // rate
                shown = pictures[step % len(pictures)].copy()
                down, right = 7919 * number % height, 104729 * number % width
                noise = grain[down : down + height, right : right + width]
                np.clip(shown[:height] + noise, 0, 255, out=shown[:height], casting="unsafe")
                container.mux(stream.encode(av.VideoFrame.from_ndarray(shown, format="yuv420p")))
                number += 1
        container.mux(stream.encode())
