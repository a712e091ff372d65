# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Cuts views out of labelled pictures with boxes, so that what was boxed lies elsewhere in each.

    python -m data_engine.boxed_views --real DIR --out DIR/boxed-views

A model that is asked again and again where the polyp of one of six hundred pictures lies learns the pictures by heart.
Of every picture for training, views are cut out, mirrored and turned on their side, and what its boxes become is
written with them, as a folder of labelled pictures. Only places are asked of a view: mirrored, it is no patient's.

A picture that looks like one of validation or test is left out. The build's leak check would leave it out itself, but
does not recognise a view of it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from data_engine.adapters.base import BrokenRow, SourceError, entry_of, seeded
from data_engine.adapters.class_folders import list_lines
from data_engine.adapters.labelled_pictures import LABELLED, label_of
from data_engine.fingerprints import fingerprint, near_pairs
from data_engine.label_questions import Box

LIST = "images.jsonl"
VIEWS = 6
"""Of each picture."""
SMALLEST_PART = 0.5
"""A view's sides are at least this share of the picture's."""
QUALITY = 92
"""Of the JPEG files."""


def view(picture: Image.Image, boxes: list[Box], rng: np.random.Generator) -> tuple[Image.Image, list[Box]]:
    """A part of a picture that holds all its boxes, perhaps mirrored or turned, and the boxes as shares of it."""
    share = rng.uniform(SMALLEST_PART, 1)
    edges = np.asarray(boxes, dtype=float)
    first, last = edges[:, :2].min(axis=0), edges[:, 2:].max(axis=0)
    side = np.maximum(last - first, share)
    latest = np.minimum(first, 1 - side)
    start = rng.uniform(np.minimum(np.maximum(last - side, 0), latest), latest)
    size = np.array(picture.size)
    corner = np.concatenate([np.floor(start * size), np.ceil((start + side) * size)]).clip(0, np.tile(size, 2))
    cut = picture.crop(tuple(corner.astype(int)))
    edges = ((edges * np.tile(size, 2) - np.tile(corner[:2], 2)) / np.tile(cut.size, 2)).clip(0, 1)
    if rng.random() < 0.5:
        cut, edges[:, [0, 2]] = cut.transpose(Image.Transpose.FLIP_LEFT_RIGHT), 1 - edges[:, [2, 0]]
    if rng.random() < 0.5:
        cut, edges[:, [1, 3]] = cut.transpose(Image.Transpose.FLIP_TOP_BOTTOM), 1 - edges[:, [3, 1]]
    if rng.random() < 0.5:
        cut, edges = cut.transpose(Image.Transpose.TRANSPOSE), edges[:, [1, 0, 3, 2]]
    return cut, [tuple(box) for box in edges.round(4).tolist()]


def look(path: Path) -> str | None:
    """The picture's perceptual hash; None where it cannot be read or shows nearly nothing."""
    try:
        return fingerprint(path, "image").perceptual
    except ValueError:
        return None


def boxed_lines(real: Path) -> list[tuple[dict[str, Any], str]]:
    """The lines of the pictures for training that have boxes and look like no held-out one, and what the boxes hold."""
    boxed, held_out = [], []
    for row in list_lines(real / LIST):
        try:
            entry = entry_of(row)
            if row.values["split"] != "train":
                held_out.append(entry)
            elif (thing := label_of(entry, "image").boxed) and entry.get("boxes"):
                boxed.append((entry, thing))
        except BrokenRow:
            continue  # the build names it
    every = [entry for entry, _ in boxed] + held_out
    looks = [look(real / one["file"]) for one in tqdm(every, "Looking for copies", unit=" pictures", disable=None)]
    mine = {place: seen for place, seen in enumerate(looks[: len(boxed)]) if seen is not None}
    others = [seen for seen in looks[len(boxed) :] if seen is not None]
    pairs = near_pairs(list(mine.values()), others, [0] * len(mine), [0] * len(others))
    copies = {list(mine)[place] for place, _, _ in pairs}
    return [one for place, one in enumerate(boxed) if place not in copies]


def lay_out(real: Path, out: Path) -> Counter[str]:
    """Writes the views and their list, and counts them by source.

    Raises:
        ValueError: no picture has boxes.
    """
    lines, counts = [], Counter[str]()
    for entry, boxed in tqdm(boxed_lines(real), desc="Cutting views", unit=" pictures", disable=None):
        source = f"{entry.get('source') or LABELLED.source}-views"
        rng = seeded(f"views of {source}/{entry['file']}")
        known = {"source": source, "split": "train", "boxed": boxed}
        known |= {field: entry[field] for field in ("modality", "license", "group") if field in entry}
        with Image.open(real / entry["file"]) as opened:
            picture = opened.convert("RGB")
        for number in range(VIEWS):
            cut, boxes = view(picture, entry["boxes"], rng)
            name = Path(source) / f"{Path(entry['file']).stem}-{number}.jpg"
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            cut.save(out / name, quality=QUALITY)
            lines.append({"file": name.as_posix(), "boxes": boxes, **known})
            counts[source] += 1
    if not lines:
        raise ValueError(f"No picture for training in {real / LIST} has boxes and is its own.")
    (out / LIST).write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--real", type=Path, required=True, help="folder of images.jsonl")
    parser.add_argument("--out", type=Path, required=True, help="folder to write, `boxed-views` beside images.jsonl")
    arguments = parser.parse_args()
    try:
        counts = lay_out(arguments.real, arguments.out)
    except (OSError, ValueError, SourceError) as error:
        sys.exit(f"Error: {error}")
    print(", ".join(f"{count} of {name}" for name, count in sorted(counts.items())), f"in {arguments.out}.")


if __name__ == "__main__":
    main()
