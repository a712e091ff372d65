# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Pictures of the media that questions of a report are about, and of what was pruned of them."""

from __future__ import annotations

import io
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageOps

from data_engine.adapters.base import inside
from evaluation.report.page import Picture
from hub_model.media_omniv_med import Clip, load_clip
from hub_model.pruning_heatmap_omniv_med import describe_pruning, draw_heatmap

if TYPE_CHECKING:
    from hub_model.processing_omniv_med import OmniVMedProcessor

KIND_OF = {"2d": "image", "3d": "volume", "video": "video"}
"""Dimension of a question -> kind that its medium is read as."""
FRAMES_SHOWN, FRAMES_ACROSS = 6, 3
IMAGE_SIDE, FRAME_SIDE, GAP = 384, 192, 4
"""Pixels of the longer side of a single picture, of a frame among others, and between these."""
HEATMAP_WIDTH = 1440
"""Pixels at most; wide enough for the words under the slices."""
WEBP_QUALITY = 80


@dataclass(frozen=True)
class MediaPictures:
    """Finds and draws the medium of a question.

    Attributes:
        folders: where media are looked for, in this order.
        processor: decides what is pruned; None draws no pruning.
    """

    folders: Sequence[Path]
    processor: OmniVMedProcessor | None = None

    def show(
        self, row: Mapping[str, Any], pruning: Sequence[tuple[str, Mapping[str, Any]]]
    ) -> tuple[list[Picture], list[str]]:
        """The medium of a row of predictions (the first of several), and what was pruned of a volume or a video.

        Args:
            pruning: whom to name, and the processor's options to draw.

        Returns:
            Pictures, and sentences about how the medium was read or why it is not shown.
        """
        name = str(row.get("image"))
        path = self._find(name)
        if path is None:
            return [], [f"The medium {name} was not found; name the folder that holds it with --media."]
        read = self.processor.load if self.processor else load_clip
        try:
            clip = read(path, kind=KIND_OF.get(str(row.get("dimension"))))
        except ValueError as error:  # MediaError; that of a loaded processor is a class of its own
            return [], [f"The medium {name} could not be read: {error}"]
        pictures, notes = [draw_frames(clip)], list(clip.notes)
        if self.processor and clip.kind != "image":
            for who, options in pruning:
                drawn, words = draw_pruning(self.processor, clip, options)
                pictures += [Picture(drawn, f"{who}: {words}", detailed=True)] if drawn else []
                notes += [] if drawn else [f"{who}: {words}"]
        return pictures, notes

    def _find(self, name: str) -> Path | None:
        """The file or folder of that name; never one that lies elsewhere, as predictions may come from anyone."""
        for folder in self.folders:
            try:
                path = inside(folder, name)
                if path.exists():
                    return path
            except (ValueError, OSError):  # leads out of the folder, or cannot be a name
                return None
        return None


def draw_frames(clip: Clip) -> Picture:
    """An image as it is; of a volume or a video a few frames from the first to the last, row by row."""
    count, height, width = clip.frames.shape[:3]
    chosen = np.unique(np.linspace(0, count - 1, min(count, FRAMES_SHOWN)).round().astype(int))
    rows, columns = clip.pixel_spacing
    true_height = max(round(height * rows / columns), 1) if rows and columns else height
    side = IMAGE_SIDE if count == 1 else FRAME_SIDE
    frames = [
        ImageOps.contain(Image.fromarray(frame).resize((width, true_height)), (side, side))
        for frame in clip.frames[chosen]
    ]
    across = min(count, FRAMES_ACROSS)
    right, down = (length + GAP for length in frames[0].size)
    sheet = Image.new("RGB", (across * right - GAP, math.ceil(len(frames) / across) * down - GAP), "grey")
    for place, frame in enumerate(frames):
        sheet.paste(frame, (place % across * right, place // across * down))
    if clip.kind == "image":
        return Picture(_webp(sheet), "The image")
    first, last = clip.positions[[0, -1]]
    words = f"{clip.kind.capitalize()}, {len(chosen)} of {count} frames from {first:.1f} to {last:.1f} {clip.unit}"
    return Picture(_webp(sheet), words)


def draw_pruning(processor: OmniVMedProcessor, clip: Clip, options: Mapping[str, Any]) -> tuple[bytes | None, str]:
    """The slices with their pruned tokens dimmed, and what was saved; or None and why nothing is drawn."""
    try:
        processed = processor.process_clip(clip, **options)
    except (ValueError, TypeError) as error:  # the options come from a file of predictions
        return None, f"its pruning options do not fit this processor: {error}"
    if processed.pruned.keep_mask.all():
        return None, f"all {processed.tokens_before} visual tokens were kept."
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pruning.png"
        draw_heatmap(processed, path)
        with Image.open(path) as drawn:
            picture = drawn.convert("RGB")
    picture.thumbnail((HEATMAP_WIDTH, picture.height))
    return _webp(picture), describe_pruning(processed)


def _webp(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=WEBP_QUALITY)
    return buffer.getvalue()
