# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Reads any medical media file into one structure, the Clip: frames, a kind, and where each frame lies."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

KINDS = ("image", "volume", "video")
CT_WINDOWS = ((2250.0, -100.0), (350.0, 40.0), (80.0, 40.0))
"""(width, level) in HU of the three CT windows that fill the three channels: bone to lung, soft tissue, brain."""
INTENSITY_PERCENTILES = (1.0, 99.0)
"""Range of a whole non-CT volume that is mapped to black and white."""


class MediaError(ValueError):
    """A file that cannot be read safely and rightly; the message is one sentence that says what to do."""


@dataclass(frozen=True)
class Clip:
    """Frames of one medical image, volume or video, ready for the encoder.

    Attributes:
        frames: uint8 array (frames, height, width, 3). Volumes are axial by default, anterior up, patient right on the left.
        kind: "image", "volume" or "video".
        positions: float64 array (frames,), millimetres along the slice axis or seconds; zero for an image.
        pixel_spacing: millimetres per pixel (rows, columns), or (0.0, 0.0) where the file does not say.
        source_frames: how many frames the file holds; more than `len(frames)` where some were left out.
        modality: what the header says ("CT", "MR", "US", a DICOM modality code), or "". Never part of a prompt.
        notes: what was chosen while reading (windows, orientation, sampling), one sentence each, no patient data.
    """

    frames: np.ndarray
    kind: str
    positions: np.ndarray
    pixel_spacing: tuple[float, float] = (0.0, 0.0)
    source_frames: int = 0
    modality: str = ""
    notes: tuple[str, ...] = ()

    @property
    def unit(self) -> str:
        """Unit of `positions`: "mm", "s", or "" for an image."""
        return {"image": "", "volume": "mm", "video": "s"}[self.kind]


def window_ct(hounsfield: np.ndarray, windows: tuple[tuple[float, float], ...] = CT_WINDOWS) -> np.ndarray:
    """Maps HU (…) to uint8 (…, 3), one (width, level) window a channel (DICOM PS3.3 C.11.2.1.2, linear exact)."""
    channels = [np.clip((hounsfield - (level - width / 2)) / width, 0, 1) for width, level in windows]
    return np.round(np.stack(channels, axis=-1) * 255).astype(np.uint8)


def scale_intensity(values: np.ndarray) -> np.ndarray:
    """Maps values (…) to uint8 (…, 3): the 1st to 99th percentile of the whole array becomes black to white."""
    low, high = np.percentile(values, INTENSITY_PERCENTILES)
    if high <= low:
        low, high = float(values.min()), float(values.max())
    scaled = np.clip((values - low) / max(high - low, 1e-12), 0, 1)
    return np.repeat(np.round(scaled * 255).astype(np.uint8)[..., None], 3, axis=-1)
