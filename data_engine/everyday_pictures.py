# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Lays out pictures of everyday things, which are not medical, as class folders for `photographs` to read.

    python -m data_engine.everyday_pictures --clip-art openclipart/png --photographs wallpapers --out DIR/photographs

Clip art is taken evenly from its categories; of each photograph several parts are cut out. Some of both become grey,
and some of these negatives, so that a model cannot tell a scan by its lack of colour. What shows clothing, the body or
medicine is left out: clothing is a kind of the test, and the others are no good examples of what is not medical.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import yaml
from PIL import Image, ImageOps

from data_engine.adapters.base import seeded
from data_engine.adapters.class_folders import ABOUT, PICTURE_ENDINGS

LEFT_OUT = re.compile(
    r"cloth|shirt|shoe|hats|jewelry|pantyhose|bodypart|skelet|skull|organ|heart|lung|brain|bone|medic|cell",
    re.IGNORECASE,
)
OF_A_CATEGORY = 110
"""Pieces of clip art that are taken from a category at most."""
PARTS_OF_A_PHOTOGRAPH, SMALLEST_PART = 5, 0.35
"""A part's sides are at least this share of the photograph's."""
GREY_SHARE, NEGATIVE_SHARE = 0.3, 0.25
VALIDATION_OF_CLIP_ART, VALIDATION_OF_PHOTOGRAPHS = 12, 8
"""One in so many is for validation; all parts of a photograph go together."""
SMALLEST_SIDE, LONGEST_SIDE, LONGEST_WHOLE = 24, 320, 1600
"""Pixels: of what is taken, of what is written, and of a photograph before parts are cut out of it."""
LICENSE = "as the packages state"


def pictures(folder: Path) -> list[Path]:
    """The picture files below a folder, in order, without those that are left out."""
    found = (path for path in folder.rglob("*") if path.suffix.lower() in PICTURE_ENDINGS)
    return sorted(path for path in found if not LEFT_OUT.search(path.relative_to(folder).as_posix()))


def clip_art(folder: Path) -> list[Path]:
    """So many of each category, the first folder of a path, drawn by a seed."""
    categories: dict[str, list[Path]] = {}
    for path in pictures(folder):
        categories.setdefault(path.relative_to(folder).parts[0], []).append(path)
    chosen = []
    for name, paths in sorted(categories.items()):
        order = seeded(f"clip art {name}").permutation(len(paths))
        chosen += [paths[place] for place in order[:OF_A_CATEGORY]]
    return chosen


def parts(photograph: Image.Image, rng: np.random.Generator) -> Iterator[Image.Image]:
    """Rectangles of a photograph."""
    photograph.thumbnail((LONGEST_WHOLE, LONGEST_WHOLE))
    width, height = photograph.size
    for _ in range(PARTS_OF_A_PHOTOGRAPH):
        wide, high = (max(int(side * rng.uniform(SMALLEST_PART, 1)), 1) for side in (width, height))
        left, top = int(rng.integers(width - wide + 1)), int(rng.integers(height - high + 1))
        yield photograph.crop((left, top, left + wide, top + high))


def read(path: Path) -> Image.Image | None:
    """A picture as RGBA; None, and a line that says so, where Pillow refuses the file, mostly for its size."""
    try:
        with Image.open(path) as opened:
            return opened.convert("RGBA")
    except (OSError, Image.DecompressionBombError) as error:
        print(f"Passed over {path}: {error}", file=sys.stderr)
        return None


def reduced(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """An RGBA picture as it is written: small, and sometimes grey or a negative; transparent places stay so."""
    picture = picture.copy()
    picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)
    if rng.random() >= GREY_SHARE:
        return picture
    grey = ImageOps.grayscale(picture.convert("RGB"))
    if rng.random() < NEGATIVE_SHARE:
        grey = ImageOps.invert(grey)
    return Image.merge("RGBA", (grey, grey, grey, picture.getchannel("A")))


def lay_out(clip_art_folder: Path | None, photographs: Sequence[Path], out: Path) -> dict[str, int]:
    """Writes the class folders and their `about.yaml`.

    Args:
        clip_art_folder: whose folders are categories.
        photographs: folders of photographs.

    Returns:
        How many pictures each class has.

    Raises:
        ValueError: nothing to lay out.
    """
    counts: dict[str, int] = {}

    def write(picture: Image.Image, kind: str, held_out: bool, name: str, rng: np.random.Generator) -> None:
        folder = f"{kind}-validation" if held_out else kind
        (out / folder).mkdir(parents=True, exist_ok=True)
        reduced(picture, rng).save(out / folder / f"{name}.png")
        counts[folder] = counts.get(folder, 0) + 1

    for number, path in enumerate(clip_art(clip_art_folder) if clip_art_folder else ()):
        if (picture := read(path)) is not None and min(picture.size) >= SMALLEST_SIDE:
            rng = seeded(f"clip art {path.name}")
            write(picture, "clip-art", number % VALIDATION_OF_CLIP_ART == 0, f"{number:04d}", rng)
    for number, path in enumerate(path for folder in photographs for path in pictures(folder)):
        rng = seeded(f"photograph {path.name}")
        if (whole := read(path)) is None:
            continue
        for place, part in enumerate(parts(whole, rng)):
            write(part, "photograph", number % VALIDATION_OF_PHOTOGRAPHS == 0, f"{number:03d}-{place}", rng)
    if not counts:
        raise ValueError("There are no pictures in these folders; name those that the packages were unpacked into.")
    classes = {
        name: {
            "finding": name.removesuffix("-validation").replace("-", " "),
            "split": "validation" if name.endswith("-validation") else "train",
        }
        for name in sorted(counts)
    }
    about = {"source": "photographs", "license": LICENSE, "classes": classes}
    (out / ABOUT).write_text(yaml.safe_dump(about, sort_keys=False), encoding="utf-8")
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clip-art", type=Path, help="folder of clip art, a folder a category")
    parser.add_argument("--photographs", type=Path, nargs="+", default=[], help="folders of photographs")
    parser.add_argument(
        "--out", type=Path, required=True, help="folder to write, `photographs` beside the real pictures"
    )
    arguments = parser.parse_args()
    try:
        counts = lay_out(arguments.clip_art, arguments.photographs, arguments.out)
    except (OSError, ValueError) as error:
        sys.exit(f"Error: {error}")
    print(", ".join(f"{count} of {name}" for name, count in sorted(counts.items())), f"in {arguments.out}.")


if __name__ == "__main__":
    main()
