# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""M3D: reports, questions and boxes of 3D CT, as M3D's own scripts prepare them (Bai et al., arXiv 2404.00578).

The folder is the one that M3D calls data root; what it holds:

    M3D_Cap_npy/ or M3D_Cap/   M3D_Cap.json: {"train": [{"image": "…/Axial.npy", "text": "…/text.txt"}, …],
                               "validation": […], "test": […]}
    M3D-VQA/                   M3D_VQA_train.csv, M3D_VQA_val.csv, M3D_VQA_test.csv: Image Path, Text, Question Type,
                               Question, Choice A, …, Choice D, Answer, Answer Choice
    M3D_Seg_npy/               dataset_info.json: {tag: [class name, …]}; one folder a tag: 0000/0000.json with lists of
                               {"image": "…/image.npy", "label": "…/masks/mask_<class>.npy"}

Volumes are arrays of shape (1, 32, 256, 256), normalised to [0, 1] and stretched to this size, so they have neither
Hounsfield units nor a spacing, and the records give none: `load_clip` reads them as they are, by slice number.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np

from data_engine.adapters.base import (
    Adapter,
    BrokenRow,
    MediaStore,
    Origin,
    Row,
    SourceError,
    closed,
    entry_of,
    first_file,
    inside,
    listed,
    missing_files,
    read_json,
    seeded,
    table_rows,
    text,
)
from data_engine.adapters.choices import answered, asked, choices_of
from data_engine.questions import caption_request, pick_wording
from data_engine.records import Record

# The data sets' pages say Apache-2.0; pictures and reports come from Radiopaedia, whose own terms their pages do not
# settle (the Hub withdrew M3D-Cap after a notice of its owners).
LICENSE = "Apache-2.0 (declared; see homepage)"
# Questions are asked of the volumes of M3D-Cap, so these are stored once.
CAP = Origin("m3d-cap", LICENSE)
VQA_CLOSED = Origin("m3d-vqa-closed", LICENSE, media_folder=CAP.source)
VQA_OPEN = Origin("m3d-vqa-open", LICENSE, media_folder=CAP.source)
POSITIONING = Origin("m3d-positioning", LICENSE)

CAP_FILES = ("M3D_Cap_npy/M3D_Cap.json", "M3D_Cap/M3D_Cap.json", "M3D_Cap.json")
VQA_FILES = {"train": "M3D_VQA_train.csv", "validation": "M3D_VQA_val.csv", "test": "M3D_VQA_test.csv"}
VQA_FOLDERS = ("M3D-VQA", "M3D_VQA", "")
SEG_FOLDER = "M3D_Seg_npy"
SEG_SPLITS = {"train": "train", "training": "train", "validation": "validation", "test": "test"}
"""Key of a tag's JSON file -> split; M3D writes "train", the decathlon format that it follows "training"."""
TASK_OF_TYPE = {
    "1": "view/plane identification",
    "2": "modality recognition",
    "3": "anatomy recognition",
    "4": "abnormality detection",
    "5": "localization",
}
"""Question type -> task: plane, phase of contrast, organ, abnormality, its position."""

WHERE_IS = (
    "Where is the {name}? Answer with a box.",
    "Locate the {name} and give its box.",
    "Give the box around the {name}.",
    "What box holds the {name}?",
    "In which box does the {name} lie?",
    "Find the {name}. Where is it? Answer with a box.",
)
WHAT_IS_AT = (
    "What is at {box}?",
    "What lies in the box {box}?",
    "Which structure is at {box}?",
    "Name the structure in the box {box}.",
    "What does the box {box} hold?",
    "Which structure lies within {box}?",
)


def cap_rows(folder: Path) -> Iterator[Row]:
    """The pairs of image and report of all three lists; further lists in the file (test1k, …) are parts of these."""
    file = first_file(folder, CAP_FILES)
    if file is None:
        raise missing_files(folder, f"{CAP_FILES[0]}; give the folder that M3D calls data root")
    lists = read_json(file)
    for split in ("train", "validation", "test"):
        for number, entry in enumerate(_list(lists, split, file), 1):
            yield listed(f"{file.name}, {split} entry {number}", split, str(number), entry)


def _list(lists: object, name: str, file: Path) -> list[object]:
    entries = lists.get(name, []) if isinstance(lists, dict) else None
    if not isinstance(entries, list):
        raise SourceError(f"{file} should hold an object with lists of entries.")
    return entries


def cap_records(row: Row, folder: Path, store: MediaStore) -> list[Record]:
    """One record a pair: the report of the volume."""
    entry = entry_of(row)
    report = inside(folder, text(entry, "text"))
    if not report.is_file():
        raise BrokenRow(f"the report {report.name} is missing.")
    answer = " ".join(report.read_text(encoding="utf-8", errors="replace").split())
    if not answer:
        raise BrokenRow(f"the report {report.name} is empty.")
    medium = CAP.medium("volume", folder, text(entry, "image"), store)
    request = caption_request("volume", seeded(CAP.record_id(row)))
    task = "report generation and captioning"
    return [CAP.record(row, [medium], [(request, answer)], modality="CT", task=task)]


def vqa_rows(folder: Path) -> Iterator[Row]:
    """The questions of all splits that were downloaded; the file of 5,000 test questions is a part of the test file."""
    files = {
        split: first_file(folder, [f"{place}/{name}" if place else name for place in VQA_FOLDERS])
        for split, name in VQA_FILES.items()
    }
    if not any(files.values()):
        raise missing_files(folder, f"M3D-VQA/{VQA_FILES['train']}; give the folder that M3D calls data root")
    for split, file in files.items():
        for row in table_rows(file, split) if file is not None else ():
            # The whole report stands in every row and is not needed.
            row.values.get("entry", {}).pop("Text", None)
            yield row


def vqa_records(row: Row, folder: Path, store: MediaStore, *, origin: Origin) -> list[Record]:
    """One record a question, with its four choices or without, by the origin."""
    entry = entry_of(row)
    question, answer = text(entry, "Question"), text(entry, "Answer")
    kind = text(entry, "Question Type")
    if kind not in TASK_OF_TYPE:
        raise BrokenRow(f"'Question Type' is {kind!r}, not one of {', '.join(TASK_OF_TYPE)}.")
    if origin == VQA_CLOSED:
        choices = choices_of(entry)
        turn = asked(question, choices), answered(text(entry, "Answer Choice"), choices)
    else:
        turn = question, closed(answer)
    medium = origin.medium("volume", folder, text(entry, "Image Path"), store)
    return [origin.record(row, [medium], [turn], modality="CT", task=TASK_OF_TYPE[kind])]


def positioning_rows(folder: Path) -> Iterator[Row]:
    """The masks of all tags, with the names of their classes."""
    root = folder / SEG_FOLDER if (folder / SEG_FOLDER).is_dir() else folder
    files = [path for path in sorted(root.glob("[0-9][0-9][0-9][0-9]/*.json")) if path.stem == path.parent.name]
    if not files:
        raise missing_files(folder, f"{SEG_FOLDER}/0000/0000.json; give the folder that M3D calls data root")
    info = root / "dataset_info.json"
    names_of = read_json(info) if info.is_file() else {}
    for file in files:
        tag, lists = file.stem, read_json(file)
        names = names_of.get(tag) if isinstance(names_of, dict) else None
        names = names if isinstance(names, list) else _labels(lists)
        for key, split in SEG_SPLITS.items():
            for number, entry in enumerate(_list(lists, key, file), 1):
                where = f"{tag}/{file.name}, {key} entry {number}"
                place = {"root": root.relative_to(folder).as_posix(), "tag": tag, "names": names}
                yield listed(where, split, f"{tag}/{number}", entry, **place)


def _labels(lists: object) -> list[str]:
    """Class names by number from a tag's own "labels", which count the background as 0, as the masks do not."""
    labels = lists.get("labels") if isinstance(lists, dict) else None
    if not isinstance(labels, dict) or not all(str(number) in labels for number in range(len(labels))):
        return []
    names = [str(labels[str(number)]) for number in range(len(labels))]
    return names[1:] if names and names[0].lower() == "background" else names


def _from_tag(path: str, tag: str) -> str:
    """A path from its tag's folder on: M3D's script writes absolute paths of the machine that it ran on."""
    parts = PurePosixPath(path).parts
    return PurePosixPath(*parts[parts.index(tag) :]).as_posix() if tag in parts else path


def box_of(mask: np.ndarray) -> str:
    """The box of a mask (slices, rows, columns) in words: "[x1, y1, z1, x2, y2, z2]".

    As M3D has it (`mask2box`): smallest and largest index along the array's first, second and third axis, divided by
    the size of the axis and rounded to 3 digits. x thus counts slices, y rows and z columns.

    Raises:
        BrokenRow: the mask is empty.
    """
    held = np.asarray(mask) != 0
    if not held.any():
        raise BrokenRow("the mask is empty.")
    ends = []
    for axis in range(3):
        (indices,) = held.any(axis=tuple(other for other in range(3) if other != axis)).nonzero()
        ends.append((indices[0] / held.shape[axis], indices[-1] / held.shape[axis]))
    numbers = [low for low, _ in ends] + [high for _, high in ends]
    return f"[{', '.join(str(round(float(number), 3)) for number in numbers)}]"


def _array(file: Path) -> np.ndarray:
    """An array of shape (1, slices, rows, columns), mapped, without its first axis."""
    if not file.is_file():
        raise BrokenRow(f"{file.name} is missing.")
    try:
        array = np.load(file, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError):
        raise BrokenRow(f"{file.name} is no array or is cut short.") from None
    if array.ndim != 4 or array.shape[0] != 1:
        raise BrokenRow(f"{file.name} has the shape {array.shape}, not (1, slices, rows, columns).")
    return array[0]


def positioning_records(row: Row, folder: Path, store: MediaStore) -> list[Record]:
    """Two records a mask: where the named structure is, and what is in the box."""
    entry, tag = entry_of(row), row.values["tag"]
    root = folder / row.values["root"]
    image, label = (_from_tag(text(entry, name), tag) for name in ("image", "label"))
    number = re.fullmatch(r"mask_(\d+)\.npy", PurePosixPath(label).name)
    if number is None:
        raise BrokenRow(f"the label {PurePosixPath(label).name!r} is not named mask_<class>.npy.")
    if int(number[1]) >= len(row.values["names"]):
        raise BrokenRow(f"class {number[1]} of {tag} has no name in dataset_info.json.")
    name = row.values["names"][int(number[1])]
    volume, mask = _array(inside(root, image)), _array(inside(root, label))
    if volume.shape != mask.shape:
        raise BrokenRow(f"the mask has the shape {mask.shape}, and the volume {volume.shape}.")
    box = box_of(mask)
    medium = POSITIONING.medium("volume", root, image, store)
    rng = seeded(POSITIONING.record_id(row))
    turns = {
        "where": (pick_wording(WHERE_IS, rng, name=name), box),
        "what": (pick_wording(WHAT_IS_AT, rng, box=box), name),
    }
    return [
        POSITIONING.record(row, [medium], [turn], modality="CT", task="localization", part=part)
        for part, turn in turns.items()
    ]


M3D_CAP = Adapter(
    CAP.source,
    "M3D-Cap",
    CAP.license,
    "https://huggingface.co/datasets/GoodBaiBai88/M3D-Cap",
    cap_rows,
    cap_records,
)
VQA_HOMEPAGE = "https://huggingface.co/datasets/GoodBaiBai88/M3D-VQA"
ADAPTERS = (
    M3D_CAP,
    *(
        Adapter(origin.source, title, origin.license, VQA_HOMEPAGE, vqa_rows, partial(vqa_records, origin=origin))
        for origin, title in ((VQA_CLOSED, "M3D-VQA, four choices"), (VQA_OPEN, "M3D-VQA, open"))
    ),
    Adapter(
        POSITIONING.source,
        "M3D positioning",
        POSITIONING.license,
        "https://huggingface.co/datasets/GoodBaiBai88/M3D-Seg",
        positioning_rows,
        positioning_records,
    ),
)
