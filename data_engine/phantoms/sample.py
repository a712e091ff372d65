# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""What every phantom generator returns: frames, where they lie, and the exact ground truth about them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

LESION_GRID = 16
"""Rows and columns of the map that says where in a frame lesions lie."""

Box = tuple[float, float, float, float]
"""Left, top, right, bottom as shares of the frame."""


def box_area(box: Box) -> float:
    """The share of the frame that a box covers."""
    left, top, right, bottom = box
    return (right - left) * (bottom - top)


@dataclass(frozen=True)
class Sample:
    """One generated image, volume or video.

    Attributes:
        frames: uint8 (T, H, W, 3); T is 1 for an image.
        kind: "image", "volume" or "video".
        positions: float64 (T,), mm along the slice axis for a volume, seconds for a video, zero for an image.
        pixel_spacing: mm per pixel (rows, columns), or (0, 0) where a file of this modality would not say.
        facts: what is true of the sample by construction; always "modality", others where they apply.
        lesions: uint8 (T, LESION_GRID, LESION_GRID), how much of each cell of a frame its lesions cover, 255 for all of
            it; all zero without a lesion. None where the sample does not say whether there is one, or where it is.
        structures: name and box of each organ or finding that is outlined, as left, top, right, bottom, shares of the
            frame; empty where none is.
    """

    frames: np.ndarray
    kind: str
    positions: np.ndarray
    pixel_spacing: tuple[float, float]
    facts: dict[str, str]
    lesions: np.ndarray | None = None
    structures: tuple[tuple[str, Box], ...] = ()
