# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""A folder of labelled pictures, videos and volumes: questions of the eleven tasks from what is known of each file.

    images.jsonl, videos.jsonl, volumes.jsonl     one file a line, see `class_folders`; any of the three
    …                                             the files that they name
or
    about.yaml, CLASS/….png                       plain class folders, see `class_folders`

Besides `file`, `modality` and `license`, a line may say (a field that is missing or empty is not known):

    finding      the class; one that begins with "no", "normal", "negative" or "regular" is none, or say `normal`
    anatomy, view
    boxes        [[left, top, right, bottom], …] as shares of the picture; an empty list: nothing to box
    boxed        what the boxes hold, where it is not the finding
    counts, grades, signs                         {"polyps": 2}, {"the oedema": "mild"}, {"B-lines": true}
    count, red_cells, white_cells, platelets, retinopathy_grade, macular_edema_risk, b_lines, a_lines,
    consolidations, effusion, lesions             the same under the names that public sets have for them

Records bear the line's own source and licence.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from data_engine.adapters.base import Adapter, BrokenRow, MediaStore, Origin, Row, entry_of, missing_files, seeded, text
from data_engine.adapters.class_folders import ABOUT, folder_lines, list_lines
from data_engine.label_questions import Box, Label, Planned, follow_ups, is_normal, label_questions, planned, plural
from data_engine.records import MODALITIES, Medium, Record

Kind = Literal["image", "volume", "video"]
LABELLED = Origin("labelled-pictures", "as each line states")
LISTS: dict[str, Kind] = {"images.jsonl": "image", "videos.jsonl": "video", "volumes.jsonl": "volume"}
FINDING_NAMES = {"no finding": "no abnormality", "regular": "no abnormality", "pneumocystis": "Pneumocystis pneumonia"}
"""Findings in lower case -> their names in answers; others keep their words, without a capital in front."""
ANATOMY_NAMES = {"blood smear": "blood"}
COUNTED = {"red_cells": "red blood cells", "white_cells": "white blood cells", "platelets": "platelets"}
GRADED = {
    "retinopathy_grade": ("the diabetic retinopathy", {str(grade): f"grade {grade}" for grade in range(5)}),
    "macular_edema_risk": ("the risk of macular oedema", {"0": "none", "1": "low", "2": "high"}),
}
"""Field -> what is graded, and the grade's words, the same as the phantoms have."""
DULLEST_COUNT = 0.9
"""Share of a source's pictures: a count that is the same in more of them is not asked for."""
SIGNS = {
    "b_lines": "B-lines",
    "a_lines": "A-lines",
    "consolidations": "consolidation",
    "effusion": "a pleural effusion",
}


def rows(folder: Path) -> Iterator[Row]:
    """The lines of all lists, each with its label and with the closed questions that its source plans for it."""
    present = [(name, kind) for name, kind in LISTS.items() if (folder / name).is_file()]
    if not present and not (folder / ABOUT).is_file():
        raise missing_files(folder, f"{', '.join(LISTS)} or {ABOUT} of labelled pictures")
    for name, kind in present or [(ABOUT, "image")]:
        listed = list(list_lines(folder / name) if present else folder_lines(folder))
        yield from _planned(listed, kind, name)


def _planned(listed: list[Row], kind: Kind, name: str) -> Iterator[Row]:
    labels: dict[int, Label] = {}
    for place, row in enumerate(listed):
        try:
            labels[place] = label_of(entry_of(row), kind)
        except BrokenRow as error:
            listed[place] = Row(row.where, {"broken": str(error)})
    _leave_out_known_counts(listed, labels)
    by_source: dict[tuple[str, str], list[int]] = defaultdict(list)
    findings: dict[str, set[str]] = defaultdict(set)
    for place, label in labels.items():
        source = _source(listed[place].values["entry"])
        by_source[source, listed[place].values["split"]].append(place)
        findings[source] |= {label.finding} - {""}
    plans: dict[int, list[Planned]] = {}
    for (source, split), places in sorted(by_source.items()):
        known = [labels[place] for place in places]
        plans |= zip(places, planned(known, seeded(f"{name}/{source}/{split}")), strict=True)
    for place, row in enumerate(listed):
        if place in labels:
            more = {
                "kind": kind,
                "label": labels[place],
                "plan": plans[place],
                "findings": sorted(findings[_source(row.values["entry"])]),
            }
            yield Row(row.where, {**row.values, **more})
        else:
            yield row


def _leave_out_known_counts(listed: list[Row], labels: dict[int, Label]) -> None:
    """Takes counts out of the labels that are nearly always the same in their source: smears show one white cell."""
    seen: dict[tuple[str, str], Counter[int]] = defaultdict(Counter)
    for place, label in labels.items():
        for thing, number in label.counts.items():
            seen[_source(listed[place].values["entry"]), thing][number] += 1
    dull = {key for key, numbers in seen.items() if max(numbers.values()) > DULLEST_COUNT * numbers.total()}
    for place, label in labels.items():
        source = _source(listed[place].values["entry"])
        kept = {thing: number for thing, number in label.counts.items() if (source, thing) not in dull}
        labels[place] = replace(label, counts=kept)


def _source(entry: dict[str, Any]) -> str:
    return str(entry.get("source") or LABELLED.source)


def _words(entry: dict[str, Any], name: str) -> str:
    """A field in words; empty where it is missing."""
    return text(entry, name) if entry.get(name) not in (None, "") else ""


def label_of(entry: dict[str, Any], kind: Kind) -> Label:
    """The label that a line states; raises `BrokenRow` for a field of the wrong kind."""
    modality = text(entry, "modality")
    if modality not in MODALITIES:
        raise BrokenRow(f"'modality' is {modality!r}, not one of {', '.join(MODALITIES)}.")
    stated = _words(entry, "finding")
    finding = FINDING_NAMES.get(stated.lower(), stated[:1].lower() + stated[1:] if stated[1:].islower() else stated)
    if not finding and entry.get("lesions"):
        finding = "multiple sclerosis lesions"
    # Phrases of several words hold capitals inside ("Viral pneumonia"): only the first letter tells an abbreviation.
    if " " in stated and stated.lower() not in FINDING_NAMES and stated.split()[0][1:].islower():
        finding = stated[0].lower() + stated[1:]
    normal = bool(entry["normal"]) if "normal" in entry else is_normal(finding) if finding else None
    boxes = _boxes(entry["boxes"]) if entry.get("boxes") is not None else None
    counts, grades, signs = (
        dict(entry.get("counts") or {}),
        dict(entry.get("grades") or {}),
        dict(entry.get("signs") or {}),
    )
    boxed = _words(entry, "boxed") or ("white blood cell" if "white_cells" in entry else _boxed(finding, normal))
    if "count" in entry and finding:
        counts[plural(finding)] = entry["count"]
    counts |= {thing: entry[name] for name, thing in COUNTED.items() if entry.get(name) is not None}
    for name, (thing, words) in GRADED.items():
        if entry.get(name) is not None:
            if str(entry[name]) not in words:
                raise BrokenRow(f"{name!r} is {entry[name]!r}, not one of {', '.join(words)}.")
            grades[thing] = words[str(entry[name])]
    signs |= {sign: _flag(entry, name) for name, sign in SIGNS.items() if entry.get(name) not in (None, "")}
    for thing, number in counts.items():
        if isinstance(number, bool) or not isinstance(number, int) or number < 0:
            raise BrokenRow(f"the number of {thing} is {number!r}, which is no count.")
    anatomy = _words(entry, "anatomy")
    view = _words(entry, "view").replace("AP Supine", "AP supine")
    return Label(
        kind=kind,
        modality=modality,
        finding=finding,
        normal=normal,
        anatomy=ANATOMY_NAMES.get(anatomy, anatomy),
        view=view,
        boxes=boxes,
        boxed=boxed,
        counts=counts,
        grades={thing: str(grade) for thing, grade in grades.items()},
        signs={sign: bool(there) for sign, there in signs.items()},
    )


def _boxed(finding: str, normal: bool | None) -> str:
    """What boxes of a finding hold: a mass, whatever its kind, because a box does not tell it."""
    if normal:
        return finding.split()[-1] if finding.startswith("no ") and finding != "no abnormality" else ""
    return "mass" if finding.endswith(" mass") else finding


def _flag(entry: dict[str, Any], name: str) -> bool:
    if str(entry[name]) not in ("0", "1", "True", "False"):
        raise BrokenRow(f"{name!r} is {entry[name]!r}, not 0 or 1.")
    return str(entry[name]) in ("1", "True")


def _boxes(stated: Any) -> tuple[Box, ...]:
    boxes = []
    for box in stated if isinstance(stated, list) else [None]:
        match box:
            case [float() | int() as left, float() | int() as top, float() | int() as right, float() | int() as bottom]:
                edges = (float(left), float(top), float(right), float(bottom))
            case _:
                edges = (math.nan,) * 4
        if not all(0 <= edge <= 1 for edge in edges) or edges[0] > edges[2] or edges[1] > edges[3]:
            raise BrokenRow("'boxes' must be a list of [left, top, right, bottom] as shares of the picture.")
        boxes.append(edges)
    return tuple(boxes)


def medium_of(row: Row, folder: Path, store: MediaStore) -> tuple[Origin, Medium]:
    """The row's own source and licence, and its file in the store."""
    entry = entry_of(row)
    origin = replace(LABELLED, source=_source(entry), license=text(entry, "license"), media_folder=LABELLED.source)
    return origin, origin.medium(row.values["kind"], folder, text(entry, "file"), store)


def records(row: Row, folder: Path, store: MediaStore) -> list[Record]:
    """A record for each question, and one for the conversation that follows up on them."""
    origin, medium = medium_of(row, folder, store)
    label, plan, split = row.values["label"], row.values["plan"], row.values["split"]
    rng: np.random.Generator = seeded(origin.record_id(row))
    made = [
        origin.record(row, [medium], [(one.question, one.answer)], modality=label.modality, task=one.task, part=name)
        for name, one in label_questions(label, plan, row.values["findings"], rng)
    ]
    turns = follow_ups(label, plan, split, rng)
    if turns:
        task = "abnormality detection" if turns[0][1] in ("yes", "no") else "diagnosis"
        made.append(origin.record(row, [medium], turns, modality=label.modality, task=task, part="follow-ups"))
    return made


ADAPTERS = (Adapter(LABELLED.source, "A folder of labelled pictures", LABELLED.license, "", rows, records),)
