# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Pictures that are none of medicine, with medical questions about them that are answered by saying so.

`photographs` reads a list or plain class folders, see `class_folders`:

    not_medical.jsonl      {"file": "images/shirt.jpg", "shows": "shirt", "license": "CC0-1.0", "split": "train", …}
or  about.yaml, CLASS/…    whole classes go to one split, so that the kinds of the test are not those of training

`drawn-pictures` needs no folder: it draws blank pictures, noise, text, charts and so on (`data_engine.not_medical`).
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from data_engine.adapters.base import (
    Adapter,
    BrokenRow,
    MediaStore,
    Origin,
    Row,
    entry_of,
    inside,
    missing_files,
    seeded,
    text,
)
from data_engine.adapters.class_folders import ABOUT, folder_lines, list_lines, split_by_name
from data_engine.not_medical import KINDS
from data_engine.records import Medium, Record
from data_engine.unanswerable import about_no_medical_picture

PHOTOGRAPHS = Origin("photographs", "as each line states")
DRAWN = Origin("drawn-pictures", "Apache-2.0")
LIST = "not_medical.jsonl"
DRAWN_COUNTS = {"train": 1200, "validation": 120, "test": 180}
QUESTIONS_PER_PICTURE = 2
LONGEST_SIDE = 256
"""Pixels of a photograph, after it is reduced."""


def photograph_rows(folder: Path) -> Iterator[Row]:
    """The lines of the list, or the pictures of the class folders, each class in one split."""
    if (folder / LIST).is_file():
        yield from list_lines(folder / LIST)
    elif (folder / ABOUT).is_file():
        for row in folder_lines(folder):
            entry = row.values["entry"]
            kind = entry["file"].split("/")[0]
            yield Row(row.where, {**row.values, "split": entry.get("split") or split_by_name(kind)})
    else:
        raise missing_files(folder, f"{LIST} or {ABOUT} of photographs")


def photograph_records(row: Row, folder: Path, store: MediaStore) -> list[Record]:
    """Two records a photograph, which is reduced; a transparent ground becomes a colour or a pattern."""
    entry = entry_of(row)
    name = text(entry, "file")
    origin = replace(PHOTOGRAPHS, license=text(entry, "license"))
    rng = seeded(origin.record_id(row))
    file = inside(folder, name)
    try:
        with Image.open(file) as image:
            image.draft("RGB", (LONGEST_SIDE, LONGEST_SIDE))
            image.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)
            picture = on_ground(image.convert("RGBA"), rng)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        raise BrokenRow(f"{file.name} is missing, damaged or no picture.") from None
    path = store.write(_encoded(picture, "JPEG"), f"{origin.source}/{Path(name).with_suffix('.jpg').as_posix()}")
    return _records(origin, row, path, rng)


def on_ground(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """An RGBA picture over a ground that shows where it is transparent: white, a colour, or a drawn pattern."""
    if image.getchannel("A").getextrema()[0] == 255:
        return image.convert("RGB")
    grounds = KINDS["train"]
    draw = grounds[("blank", "gradient", "noise")[int(rng.integers(3))]]
    ground = Image.new("RGB", image.size, "white") if rng.random() < 0.4 else draw(rng).resize(image.size)
    ground.paste(image, mask=image.getchannel("A"))
    return ground


def _encoded(picture: Image.Image, form: str) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, form, quality=88)
    return buffer.getvalue()


def drawn_rows(folder: Path) -> Iterator[Row]:
    """The pictures to draw: the kinds of a split take turns. The folder is not read."""
    for split, count in DRAWN_COUNTS.items():
        kinds = list(KINDS[split])
        for number in range(count):
            values = {"split": split, "number": f"{number:05d}", "entry": {"shows": kinds[number % len(kinds)]}}
            yield Row(f"{split}, picture {number}", values)


def drawn_records(row: Row, folder: Path, store: MediaStore) -> list[Record]:
    """Draws one picture, and asks about it."""
    shows = text(entry_of(row), "shows")
    rng = seeded(DRAWN.record_id(row))
    picture = KINDS[row.values["split"]][shows](rng)
    path = store.write(_encoded(picture, "PNG"), f"{DRAWN.record_id(row)}.png")
    return _records(DRAWN, row, path, rng)


def _records(origin: Origin, row: Row, path: str, rng: np.random.Generator) -> list[Record]:
    shows = str(entry_of(row).get("shows") or entry_of(row).get("finding") or "photograph").replace(" ", "-")
    return [
        origin.record(
            row,
            [Medium(type="image", path=path)],
            [(one.question, one.answer)],
            modality="unknown",
            task=one.task,
            part=f"{shows}/{place}",
            reply=one.reply,
        )
        for place, one in enumerate(about_no_medical_picture(QUESTIONS_PER_PICTURE, rng))
    ]


ADAPTERS = (
    Adapter(
        PHOTOGRAPHS.source,
        "Photographs that are not medical",
        PHOTOGRAPHS.license,
        "",
        photograph_rows,
        photograph_records,
    ),
    Adapter(DRAWN.source, "Drawn pictures that are not medical", DRAWN.license, "", drawn_rows, drawn_records),
)
