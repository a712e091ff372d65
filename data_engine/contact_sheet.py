# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Draws a contact sheet of the phantoms, for a specialist's eye: single images of every modality, strips of the clips.

Red bars above and left of a frame tell in which columns and rows its lesions lie, and leave the frame itself as it is.

python -m data_engine.contact_sheet --out docs/phantoms.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from data_engine.phantoms import KINDS_OF, LESION_GRID, MODALITIES, Sample, generate

SIZE, LABEL_WIDTH, CAPTION_HEIGHT, GAP = 84, 120, 12, 3
"""Pixels: side of a frame on the sheet, and the space for words."""
BAR_COLOUR = (220, 0, 0)
LABELLED_FACTS = ("region", "stain", "plane", "contrast", "finding", "motion")


def describe(sample: Sample) -> str:
    """The facts of a sample in a few words, short enough to stand under a frame."""
    words = [sample.facts[name] for name in LABELLED_FACTS if name in sample.facts][:2]
    short = ", ".join(words).replace("immunohistochemistry", "IHC").replace("-weighted", "")
    return short[: SIZE // 5]


def mark_lesions(draw: ImageDraw.ImageDraw, lesions: np.ndarray, left: int, top: int) -> None:
    """Bars beside a frame at (left, top), for all columns and rows of a lesion map that are not empty."""
    cell = SIZE / LESION_GRID
    for axis in (0, 1):
        for place in np.flatnonzero(lesions.any(axis=axis)):
            begin, end = round(place * cell), round((place + 1) * cell) - 1
            if axis == 0:
                bar = (left + begin, top - 2, left + end, top - 2)
            else:
                bar = (left - 2, top + begin, left - 2, top + end)
            draw.line(bar, fill=BAR_COLOUR, width=2)


def contact_sheet(columns: int, seed: int) -> Image.Image:
    """One row of images per modality, then one row per modality that has volumes or videos."""
    rows = [(name, "image") for name in MODALITIES]
    rows += [(name, kind) for name in MODALITIES for kind in KINDS_OF[name] if kind != "image"]
    pitch, step = SIZE + GAP, SIZE + CAPTION_HEIGHT + GAP
    sheet = Image.new("RGB", (LABEL_WIDTH + columns * pitch, GAP + len(rows) * step), "white")
    draw = ImageDraw.Draw(sheet)
    for row, (modality, kind) in enumerate(rows):
        rng = np.random.default_rng([seed, row])
        draw.text((4, row * step + SIZE // 2), f"{modality}\n{kind}", fill="black")
        if kind == "image":
            samples = [generate(modality, kind, rng) for _ in range(columns)]
            frames, labels = [sample.frames[0] for sample in samples], [describe(sample) for sample in samples]
            maps = [sample.lesions[0] if sample.lesions is not None else None for sample in samples]
        else:
            sample = generate(modality, kind, rng)
            unit = "mm" if kind == "volume" else "s"
            shown = np.linspace(0, len(sample.frames) - 1, columns).round().astype(int)
            frames, labels = (
                list(sample.frames[shown]),
                [f"{position:.2f} {unit}" for position in sample.positions[shown]],
            )
            maps = list(sample.lesions[shown]) if sample.lesions is not None else [None] * columns
            draw.text((4, row * step + SIZE // 2 + 26), describe(sample), fill="black")
        for column, (frame, label, lesions) in enumerate(zip(frames, labels, maps, strict=True)):
            left, top = LABEL_WIDTH + column * pitch, GAP + row * step
            sheet.paste(Image.fromarray(frame).resize((SIZE, SIZE), Image.Resampling.LANCZOS), (left, top))
            draw.text((left + 1, top + SIZE), label, fill="black")
            if lesions is not None:
                mark_lesions(draw, lesions, left, top)
    return sheet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="PNG file to write")
    parser.add_argument("--columns", type=int, default=8, help="samples, or frames of a clip, in a row")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    # A palette keeps the sheet small enough for a repository.
    sheet = contact_sheet(arguments.columns, arguments.seed).quantize(256, kmeans=2, dither=Image.Dither.NONE)
    sheet.save(arguments.out, optimize=True)


if __name__ == "__main__":
    main()
