# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Generated CT volumes and radiographs as files, for benchmarks that ask about many of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813 - the name all of its documentation uses
from PIL import Image
from scipy.ndimage import zoom

from data_engine.phantoms import generate
from data_engine.sample_media import hounsfield_units

SLICES, PIXELS, NOISE = 64, 256, 12.0
"""Of a CT volume: how many, how large, and the standard deviation of their noise in HU."""


def resampled(values: np.ndarray, size: tuple[int, int, int]) -> np.ndarray:
    """A volume of phantoms, (slices, rows, columns), at the size that a scanner would give it."""
    return zoom(values, [new / old for new, old in zip(size, values.shape, strict=True)], order=1)


def write_volume(path: Path, seed: int) -> None:
    """A generated CT volume, resampled to `SLICES` slices of `PIXELS`², with noise of its own in each."""
    rng = np.random.default_rng(seed)
    coarse = hounsfield_units(generate("CT", "volume", rng).frames).astype(np.float32)
    size = (SLICES, PIXELS, PIXELS)
    noisy = (resampled(coarse, size) + rng.normal(0, NOISE, size)).clip(-1024, 3000).round().astype(np.int16)
    image = sitk.GetImageFromArray(noisy)
    image.SetSpacing((1.4, 1.4, 2.5))
    sitk.WriteImage(image, str(path), useCompression=True)


def write_picture(path: Path, seed: int, pixels: int) -> None:
    """A generated radiograph of so many pixels a side."""
    frames = generate("X-ray", "image", np.random.default_rng(seed)).frames
    Image.fromarray(frames[0]).resize((pixels, pixels), Image.Resampling.BICUBIC).save(path)
