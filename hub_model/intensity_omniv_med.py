# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Maps measured values to grey levels, by CT windows or by the percentiles of a whole volume."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

CT_WINDOWS = ((2250.0, -100.0), (350.0, 40.0), (80.0, 40.0))
"""(width, level) in HU of the three CT windows that fill the three channels: bone to lung, soft tissue, brain."""
CT_PRESETS = {
    "abdomen": (400.0, 50.0),
    "bone": (1800.0, 400.0),
    "brain": (80.0, 40.0),
    "liver": (150.0, 30.0),
    "lung": (1500.0, -600.0),
    "mediastinum": (350.0, 50.0),
    "soft tissue": (400.0, 50.0),
    "spine": (250.0, 50.0),
    "stroke": (40.0, 40.0),
    "subdural": (215.0, 75.0),
    "temporal bone": (2800.0, 600.0),
}
"""(width, level) in HU by the name that radiologists give the window, as radiopaedia.org/articles/windowing-ct lists
them; where it gives a range, its middle."""
INTENSITY_PERCENTILES = (1.0, 99.0)
"""Range of a whole non-CT volume that is mapped to black and white."""
LARGE = 2**18
"""Values of an array from which it pays to look up or to select instead of computing or sorting all."""
SAMPLING_ERROR = 0.005
"""Share of an array by which a percentile of a sample of it may be wrong; were it more, all would be sorted."""


def window_ct(hounsfield: np.ndarray, windows: Sequence[tuple[float, float]] = CT_WINDOWS) -> np.ndarray:
    """Maps HU (…) to uint8 (…, windows), one (width, level) a channel (DICOM PS3.3 C.11.2.1.3.2, linear exact).

    Where one window fills all channels, they are views of one.
    """
    shown = {(width, level): _grey_levels(hounsfield, level - width / 2, width) for width, level in set(windows)}
    if len(shown) == 1:
        (only,) = shown.values()
        return np.broadcast_to(only[..., None], (*only.shape, len(windows)))
    return np.stack([shown[window] for window in windows], axis=-1)


def _grey_levels(values: np.ndarray, low: float, width: float) -> np.ndarray:
    """Maps `low` to `low + width` to uint8 0 to 255, values of the same shape.

    In float64 whatever the input is, so that one body gives one picture from int16 NIfTI and float32 DICOM; a frame at
    a time, as such a copy of a whole volume is many times the file. Of large arrays of few different numbers, each
    number is mapped once and looked up.
    """

    def convert(frame: np.ndarray) -> np.ndarray:
        shares = (np.asarray(frame, dtype=np.float64) - low) / width
        return np.round(np.clip(shares, 0, 1) * 255).astype(np.uint8)

    if values.ndim < 3:
        return convert(values)
    shown = np.empty(values.shape, dtype=np.uint8)
    bits = _few_bits(values)
    table = convert(np.arange(2**bits, dtype=f"u{bits // 8}").view(values.dtype)) if bits else None
    for frame, out in zip(values, shown, strict=True):
        if table is None:
            out[...] = convert(frame)
        else:
            np.take(table, frame.view(f"u{bits // 8}"), out=out, mode="clip")
    return shown


def _few_bits(values: np.ndarray) -> int:
    """Bits of integers (…) that can be looked up by value; 0 where there are too many or too few of them."""
    few = values.dtype.kind in "iu" and values.itemsize <= 2 and values.dtype.isnative
    return 8 * values.itemsize if few and values.size >= LARGE else 0


def intensity_range(values: np.ndarray) -> tuple[float, float]:
    """The values that become black and white: the 1st and 99th percentile, or the extremes where those are equal."""
    low, high = (_percentile(values, percentile) for percentile in INTENSITY_PERCENTILES)
    return (low, high) if high > low else (float(values.min()), float(values.max()))


def _percentile(values: np.ndarray, percentile: float) -> float:
    """As `np.percentile`, but of many values only those near it are sorted.

    A sample tells about where the percentile is. The values below are counted, which takes a tenth of the time.
    """
    found = _percentile_by_sample(values, percentile) if values.size >= LARGE else None
    return float(np.percentile(values, percentile)) if found is None else found


def _percentile_by_sample(values: np.ndarray, percentile: float) -> float | None:
    """A percentile of values (n, …); None where it does not lie where the sample says."""
    sample = np.sort(values[tuple(slice(None, None, max(1, extent // 48)) for extent in values.shape)], axis=None)
    around = (percentile / 100 + np.array([-SAMPLING_ERROR, SAMPLING_ERROR])) * (sample.size - 1)
    low, high = sample[around.round().astype(int).clip(0, sample.size - 1)]
    below = count = 0
    near: list[np.ndarray] = []
    for part in values:  # stays in the processor's cache
        below += int(np.count_nonzero(part < low))
        if low == high:
            count += int(np.count_nonzero(part == low))
        else:
            near.append(part[(part >= low) & (part <= high)])
            count += len(near[-1])
    place = (values.size - 1) * percentile / 100 - below
    if not 0 <= place < count - 1:
        return None
    if low == high:
        return float(low)
    first = math.floor(place)
    one, other = (float(value) for value in np.partition(np.concatenate(near), [first, first + 1])[first : first + 2])
    return one + (other - one) * (place - first)


def grey_frames(shown: np.ndarray) -> np.ndarray:
    """uint8 grey levels (frames, height, width) as the frames of a `Clip`, without copies of them."""
    return np.broadcast_to(shown[..., None], (*shown.shape, 3))


def scale_intensity(values: np.ndarray, value_range: tuple[float, float] | None = None) -> np.ndarray:
    """Maps values (…) to uint8 (…, 3): `value_range`, by default the array's percentiles, becomes black to white."""
    return np.repeat(scale_to_grey(values, value_range)[..., None], 3, axis=-1)


def scale_to_grey(values: np.ndarray, value_range: tuple[float, float] | None = None) -> np.ndarray:
    """As `scale_intensity`, one channel (…)."""
    low, high = value_range or intensity_range(values)
    return _grey_levels(values, low, max(high - low, 1e-12))


def fill_background(values: np.ndarray) -> np.ndarray:
    """Replaces what is not finite (padding, masked voxels) by the smallest value, in place; all are kept otherwise."""
    if values.dtype.kind == "f":
        finite = np.isfinite(values)
        if not finite.all():
            values[~finite] = values[finite].min() if finite.any() else 0
    return values
