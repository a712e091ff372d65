# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Reads lists of labelled files, and plain folders of pictures of one class each, as the same kind of lines.

A list is a JSON Lines file, one file a line:

    {"file": "images/busi/benign_1.jpg", "source": "busi", "modality": "ultrasound", "license": "CC-BY-4.0",
     "group": "busi/patient 1", "split": "train", "finding": "benign mass", "anatomy": "breast", …}

A plain folder holds `about.yaml` beside its class folders, and may say what each class is:

    source: our-clinic
    license: CC-BY-4.0
    modality: dermoscopy
    anatomy: skin
    classes:                    # only these folders are read; without it all are, and their names are the findings
      mel: melanoma
      nv: {finding: nevus}
      ok: {finding: normal skin, normal: true}

Without a split, groups are divided by a hash of their name: a tenth each for validation and test. A group, a patient's
or a picture's, never lies in two splits.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_engine.adapters.base import Row, SourceError, json_rows, listed, seeded
from data_engine.files import YamlError, read_yaml
from data_engine.records import SPLITS

ABOUT = "about.yaml"
PICTURE_ENDINGS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp")
HELD_OUT_SHARE = 0.1
"""Of the groups without a split: so many become validation, and as many test."""


def split_by_name(name: str) -> str:
    """The split of a group that has none, the same in every build."""
    drawn = seeded(f"split of {name}").random()
    return "test" if drawn < HELD_OUT_SHARE else "validation" if drawn < 2 * HELD_OUT_SHARE else "train"


def list_lines(file: Path) -> Iterator[Row]:
    """The lines of a list, each with its split and group; a line that names neither split nor group gets its own.

    Raises:
        SourceError: a group lies in two splits.
    """
    split_of: dict[str, str] = {}
    for row in json_rows(file, "train", prefix=f"{file.stem}-"):
        if "broken" in row.values:
            yield row
            continue
        entry: dict[str, Any] = row.values["entry"]
        group = str(entry.get("group") or entry.get("file"))
        split = entry.get("split") or split_by_name(group)
        if split not in SPLITS:
            yield Row(row.where, {"broken": f"'split' is {split!r}, not one of {', '.join(SPLITS)}."})
            continue
        if split_of.setdefault(group, split) != split:
            raise SourceError(
                f"{row.where}: the group {group!r} is in {split_of[group]} and in {split}; give each group one split."
            )
        yield Row(row.where, {**row.values, "split": split})


def about(folder: Path) -> dict[str, Any]:
    """What `about.yaml` says of a plain folder.

    Raises:
        SourceError: it is missing, or is no YAML of named fields.
    """
    path = folder / ABOUT
    try:
        fields = read_yaml(path)
    except YamlError as error:
        if not path.is_file():
            raise SourceError(
                f"The folder {folder} holds no {ABOUT}, which says what its class folders show."
            ) from None
        raise SourceError(str(error)) from None
    if not isinstance(fields.get("classes", {}), dict):
        raise SourceError(f"{path} must hold named fields, see the documentation of labelled pictures.")
    return fields


def folder_lines(folder: Path) -> Iterator[Row]:
    """The pictures of a plain folder, class by class, as lines of a list would say them."""
    fields = about(folder)
    classes = fields.pop("classes", None) or {
        path.name: path.name.replace("_", " ") for path in sorted(folder.iterdir()) if path.is_dir()
    }
    number = 0
    for name, shown in classes.items():
        if not (folder / str(name)).is_dir():
            raise SourceError(f"{folder / ABOUT} names the class {name!r}, but there is no such folder.")
        known = shown if isinstance(shown, dict) else {"finding": str(shown)}
        for path in sorted((folder / str(name)).rglob("*")):
            if path.suffix.lower() in PICTURE_ENDINGS and path.is_file():
                number += 1
                file = path.relative_to(folder).as_posix()
                entry = {**fields, **known, "file": file}
                split = entry.get("split") or split_by_name(file)
                if split not in SPLITS:
                    raise SourceError(f"{folder / ABOUT}: 'split' is {split!r}, not one of {', '.join(SPLITS)}.")
                yield listed(file, split, f"{number}", entry)
