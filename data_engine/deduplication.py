# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Leaves out records that say the same words about the same, or nearly the same, media.

The same picture with other questions is no duplicate: the public sets ask up to a dozen of one picture.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Literal

from data_engine.fingerprints import Fingerprinted, distance, near_pairs
from data_engine.records import MEDIA_PLACEHOLDER, Record

_TOKEN = re.compile(r"[\u3400-\u9fff]|[^\W_\u3400-\u9fff]+|[<>≤≥=+%]")
"""A Chinese character, which stands for itself; a word or number of any other script; a sign that changes a value."""


@dataclass(frozen=True)
class Duplicate:
    """A record that was left out, and the one that was kept instead.

    Attributes:
        kept_id, dropped_id: of the records.
        kind: "exact" for files of the same bytes, "near" for media that look the same; the words are the same in both.
    """

    kept_id: str
    dropped_id: str
    kind: Literal["exact", "near"]


def normalised(text: str) -> str:
    """Lower-case tokens with one space between; case, punctuation, typographic forms and placeholders do not count."""
    text = unicodedata.normalize("NFKC", text.replace(MEDIA_PLACEHOLDER, " ")).casefold()
    return " ".join(_TOKEN.findall(text))


def deduplicate(items: Iterable[Fingerprinted]) -> tuple[list[Fingerprinted], list[Duplicate]]:
    """Keeps the first of all records that are duplicates of each other.

    Two records are duplicates if their conversations have the same words, and each medium of the one has the same bytes
    as, or looks nearly like (`fingerprints.distance`), the medium at its place in the other. Only a record that is
    kept makes others duplicates, so no chain of small changes removes a record unlike all that stay.

    Returns:
        The records that are kept, in order, and those that are not.
    """
    items = list(items)
    groups: dict[Hashable, int] = {}
    looks: dict[tuple[int, tuple[str, ...]], int] = {}
    exact, look = [], []
    for item in items:
        words = _words(item.record)
        exact.append((words, tuple(mark.sha256 for mark in item.fingerprints)))
        group = groups.setdefault((words, _unseen(item)), len(groups))
        hashes = tuple(mark.perceptual for mark in item.fingerprints if mark.perceptual is not None)
        look.append(looks.setdefault((group, hashes), len(looks)))
    neighbours = _neighbours(list(looks))

    kept: list[Fingerprinted] = []
    dropped: list[Duplicate] = []
    kept_exact: dict[Hashable, str] = {}
    kept_look: dict[int, str] = {}
    for item, key, place in zip(items, exact, look, strict=True):
        near = next((other for other in neighbours.get(place, (place,)) if other in kept_look), None)
        if key in kept_exact:
            dropped.append(Duplicate(kept_exact[key], item.record.id, "exact"))
        elif near is not None:
            dropped.append(Duplicate(kept_look[near], item.record.id, "near"))
        else:
            kept.append(item)
            kept_exact[key] = kept_look[place] = item.record.id
    return kept, dropped


def _words(record: Record) -> tuple[str, ...]:
    return tuple(normalised(turn.content) for turn in record.conversations)


def _unseen(item: Fingerprinted) -> tuple[tuple[str, str | None], ...]:
    """What looks do not tell of each medium: its kind, and its bytes if it is nearly empty."""
    media = zip(item.record.media, item.fingerprints, strict=True)
    return tuple((medium.type, mark.sha256 if mark.perceptual is None else None) for medium, mark in media)


def _neighbours(looks: list[tuple[int, tuple[str, ...]]]) -> dict[int, list[int]]:
    """Place of each (group, hashes of the media) -> places, up to its own, of those that look nearly like it."""
    shown = [place for place, (_, hashes) in enumerate(looks) if hashes]
    groups = [looks[place][0] for place in shown]
    # The first medium finds candidates; the others of a record are compared only for those.
    first = [looks[place][1][0] for place in shown]
    near: dict[int, list[int]] = {}
    for i, j, _ in near_pairs(first, first, groups, groups):
        hashes, others = looks[shown[i]][1], looks[shown[j]][1]
        if j <= i and all(distance(one, other) is not None for one, other in zip(hashes, others, strict=True)):
            near.setdefault(shown[i], []).append(shown[j])
    return near
