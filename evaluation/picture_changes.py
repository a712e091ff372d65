# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""What happens to a picture between the scanner and the person who asks about it: one pure function for each change.

Every change takes an RGB picture and a random generator, and gives a new RGB picture: the same generator state gives
the same picture. A mirrored picture has its left on the right, so `swap_sides` rewrites what is said about sides.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

LEVEL_SHIFT = 0.15
"""Of the whole range of grey levels, up or down."""
WINDOW_FACTORS = (0.6, 1.6)
"""Width of the grey-level window, relative to the one that the picture was saved with: narrower, wider."""
DEGREES = 10.0
NOISE = 0.08
"""Standard deviation, of the whole range of grey levels."""
JPEG_QUALITY = 30
BORDER = 0.1
"""Width of each added border, of the picture's own side."""
TEXT_HEIGHT = 0.045
"""Of the shorter side; about what scanners and viewers burn in."""
SMALLEST_TEXT = 8.0
"""Pixels, below which a font cannot be read."""
SIDE = re.compile(r"(?<![A-Za-z])(?:(?i:left|right)(?=$|[^A-Za-z]|most|ward)|[LR](?= [a-z]))")
"""Words of place, and the letters that stand for them before a word ("R frontal lobe")."""
RIGHT_AS_CORRECT = re.compile(r"\bright (?:description|diagnosis|answer|choice|name|order)\b", re.IGNORECASE)


def shift_level(picture: Image.Image, generator: np.random.Generator) -> Image.Image:
    """Brighter or darker by `LEVEL_SHIFT`, as another window level shows it; what leaves the range is clipped."""
    shift = 255 * LEVEL_SHIFT * (1 if generator.random() < 0.5 else -1)
    return _from_levels(_levels(picture) + shift)


def change_width(picture: Image.Image, generator: np.random.Generator) -> Image.Image:
    """Harder or softer contrast around the middle grey, as another window width shows it."""
    factor = WINDOW_FACTORS[int(generator.integers(len(WINDOW_FACTORS)))]
    return _from_levels((_levels(picture) - 127.5) / factor + 127.5)


def turn(picture: Image.Image, generator: np.random.Generator) -> Image.Image:
    """Turned by `DEGREES` one way or the other; the corners get the usual colour of the picture's edge."""
    angle = DEGREES if generator.random() < 0.5 else -DEGREES
    levels = np.asarray(picture)
    edge = np.concatenate([levels[0], levels[-1], levels[:, 0], levels[:, -1]])
    usual = tuple(int(level) for level in np.median(edge, axis=0))
    return picture.rotate(angle, resample=Image.Resampling.BILINEAR, fillcolor=usual)


def mirror(picture: Image.Image, generator: np.random.Generator) -> Image.Image:
    """Left and right exchanged."""
    return ImageOps.mirror(picture)


def add_noise(picture: Image.Image, generator: np.random.Generator) -> Image.Image:
    """Normal noise of the standard deviation `NOISE`, the same in all channels, so that grey stays grey."""
    levels = _levels(picture)
    return _from_levels(levels + 255 * NOISE * generator.standard_normal((*levels.shape[:2], 1)))


def compress(picture: Image.Image, generator: np.random.Generator) -> Image.Image:
    """Saved as a JPEG of `JPEG_QUALITY`, and read again."""
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=JPEG_QUALITY)
    with Image.open(buffer) as read:
        return read.convert("RGB")


def add_borders(picture: Image.Image, generator: np.random.Generator) -> Image.Image:
    """Black borders all around, as screenshots and scanned films have; the picture itself keeps its pixels."""
    columns, rows = (max(round(BORDER * side), 1) for side in picture.size)
    return ImageOps.expand(picture, (columns, rows), fill=(0, 0, 0))


def burn_in_text(picture: Image.Image, generator: np.random.Generator) -> Image.Image:
    """Made-up lines of an examination, burnt into two corners; none of them names a side, an organ or a finding."""
    identifier, day, hour = (int(generator.integers(low, high)) for low, high in ((10_000, 99_999), (1, 29), (8, 19)))
    height = max(TEXT_HEIGHT * min(picture.size), SMALLEST_TEXT)
    font = ImageFont.load_default(size=height)
    marked = picture.copy()
    draw = ImageDraw.Draw(marked)
    margin, stroke = height / 2, max(round(height / 12), 1)
    for top, words in (
        (margin, f"ID {identifier}\n2019-03-{day:02d} {hour:02d}:40"),
        (picture.height - margin - 1.5 * height, f"IMAGE {day} ZOOM 1.0"),
    ):
        draw.text((margin, top), words, fill="white", font=font, stroke_width=stroke, stroke_fill="black")
    return marked


def names_a_side(words: str) -> bool:
    """Whether a text speaks of left or right as a place."""
    return SIDE.search(RIGHT_AS_CORRECT.sub("", words)) is not None


def swap_sides(words: str) -> str:
    """The text with left and right exchanged, as it is true of the mirrored picture.

    Capitals stay, and so do "bright" and "the right diagnosis".
    """
    parts = []
    last = 0
    for kept in RIGHT_AS_CORRECT.finditer(words):
        parts += [SIDE.sub(_other_side, words[last : kept.start()]), kept[0]]
        last = kept.end()
    return "".join([*parts, SIDE.sub(_other_side, words[last:])])


def _other_side(found: re.Match[str]) -> str:
    said = found[0]
    if len(said) == 1:
        return "R" if said == "L" else "L"
    other = "right" if said.lower() == "left" else "left"
    return other.upper() if said.isupper() else other.capitalize() if said[0].isupper() else other


def _levels(picture: Image.Image) -> np.ndarray:
    """float64 (rows, columns, 3) from 0 to 255."""
    return np.asarray(picture, dtype=np.float64)


def _from_levels(levels: np.ndarray) -> Image.Image:
    return Image.fromarray(levels.round().clip(0, 255).astype(np.uint8))


@dataclass(frozen=True)
class PictureChange:
    """One change as it is measured and reported.

    Attributes:
        name: in files.
        title: in tables, with the strength, so that figures of another strength are not taken for these.
        apply: the change.
        swaps_sides: whether what is said of left and right must be exchanged.
    """

    name: str
    title: str
    apply: Callable[[Image.Image, np.random.Generator], Image.Image]
    swaps_sides: bool = False


CHANGES = (
    PictureChange("level", f"window level ± {100 * LEVEL_SHIFT:.0f} % of the range", shift_level),
    PictureChange("width", f"window width × {WINDOW_FACTORS[0]} or × {WINDOW_FACTORS[1]}", change_width),
    PictureChange("turned", f"turned by ± {DEGREES:.0f}°", turn),
    PictureChange("mirrored", "mirrored, sides swapped in question and answer", mirror, swaps_sides=True),
    PictureChange("noise", f"noise, standard deviation {100 * NOISE:.0f} % of the range", add_noise),
    PictureChange("jpeg", f"JPEG of quality {JPEG_QUALITY}", compress),
    PictureChange("borders", f"black borders of {100 * BORDER:.0f} % on each side", add_borders),
    PictureChange("text", "burned-in text in two corners", burn_in_text),
)
