# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""A CT in any window, from the three windows that the model reads it in, without reading the file again.

Each of the three channels holds another window of the same pixel (`CT_WINDOWS`). The narrowest one that does not
saturate there gives the pixel's Hounsfield units best: within 0.2 HU in the brain's range, 0.7 HU in that of soft
tissue, 4.4 HU elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from hub_model.media_omniv_med import CT_PRESETS, CT_WINDOWS

if TYPE_CHECKING:
    from hub_model.media_omniv_med import Clip

NARROWEST_FIRST = sorted(range(len(CT_WINDOWS)), key=lambda channel: CT_WINDOWS[channel][0])
BODY, LUNG, BONE = -300, (-950, -500), 300
"""Hounsfield units: above which a pixel is body, between which it is lung, above which it is bone."""
LUNG_SHARE, SKULL_SHARE = 0.15, 0.12
"""Shares of the body from which a scan is shown in the lung's or the brain's window."""
EVERY = 4
"""Rows and columns between the pixels that are looked at to choose a window."""


@dataclass(frozen=True)
class Window:
    """A window: the HU range that is drawn from black to white.

    Attributes:
        name: what the page calls it.
        width, level: its width and its middle in HU.
    """

    name: str
    width: float
    level: float

    @property
    def is_known(self) -> bool:
        """Whether the model's windows hold all that this one shows; else the file must be read again.

        Nothing in a body is darker than air, so only the bright end matters.
        """
        width, level = CT_WINDOWS[NARROWEST_FIRST[-1]]
        return self.low + self.width <= level + width / 2

    @property
    def low(self) -> float:
        """What is drawn black, in HU."""
        return self.level - self.width / 2


def chosen_window(width: object, level: object) -> Window:
    """A window that a visitor chose.

    Raises:
        ValueError: for values that make no window.
    """
    if not isinstance(width, (int, float)) or not isinstance(level, (int, float)) or not 1 <= width <= 1e5:
        raise ValueError("A window needs a width of at least 1 and a level, both in HU.")
    if not abs(level) <= 1e5:
        raise ValueError("The level of a window must lie between −100,000 and 100,000 HU.")
    return Window("", float(width), float(level))


def _named(name: str, width: float, level: float) -> Window:
    return Window(f"{name} {width:g}/{level:g}".replace("-", "−"), width, level)


PRESETS = {name: _named(name, *window) for name, window in CT_PRESETS.items()}
MODELS = [
    _named(f"model's {colour}:", *window) for colour, window in zip(("red", "green", "blue"), CT_WINDOWS, strict=True)
]
"""The three windows that the model gets."""


def is_ct(clip: Clip) -> bool:
    """Whether the reader put three CT windows into the three channels, by its notes."""
    return any(note.startswith("CT windows") for note in clip.notes)


def in_window(frames: npt.NDArray[np.uint8], window: Window) -> npt.NDArray[np.uint8]:
    """CT frames (T, H, W, 3), as the reader gives them, in another window: (T, H, W)."""
    grey = np.arange(256, dtype=np.float64) / 255
    shown: npt.NDArray[np.uint8] | None = None
    for channel in reversed(NARROWEST_FIRST):
        (width, level), levels = CT_WINDOWS[channel], frames[..., channel]
        shares = (level - width / 2 + grey * width - window.low) / window.width
        values = np.round(np.clip(shares, 0, 1) * 255).astype(np.uint8)[levels]
        if shown is None:
            shown = values
            continue
        # A saturated channel says that the pixel is at least as bright, or as dark, as the end of its window.
        bounded = np.where(levels == 0, np.minimum(shown, values), np.maximum(shown, values))
        shown = np.where((levels > 0) & (levels < 255), values, bounded)
    assert shown is not None
    return shown


def fitting_window(frames: npt.NDArray[np.uint8]) -> Window:
    """The window in which a CT (T, H, W, 3) is usually looked at: lung, brain or soft tissue, by what it holds most."""
    width, level = CT_WINDOWS[NARROWEST_FIRST[-1]]
    units = level - width / 2 + frames[:, ::EVERY, ::EVERY, NARROWEST_FIRST[-1]] / 255 * width
    body = (units > BODY).sum()
    lung, bone = ((units > LUNG[0]) & (units < LUNG[1])).sum(), (units > BONE).sum()
    if lung > LUNG_SHARE * (body + lung):
        return PRESETS["lung"]
    return PRESETS["brain" if bone > SKULL_SHARE * body else "soft tissue"]
