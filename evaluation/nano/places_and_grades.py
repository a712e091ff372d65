# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Where the finding lies, and which grade it has: every such question of a test split, not a sample of them.

A hundred questions of a source hold fewer than ten of these, too few for any figure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from data_engine.adapters.labelled_pictures import GRADED
from data_engine.answers import normalise
from data_engine.label_questions import PLACES
from evaluation.agreement import weighted_kappa
from evaluation.breakdown import figures as share_figures
from evaluation.score import Scored

KIND_OF_PLACE = tuple(f"place-{name}" for name in PLACES)
GRADE = "grade-"


def kind_of(question: str) -> str:
    """What a record's id says that is asked for: "place-side", "grade-the-diabetic-retinopathy"."""
    return question.rsplit("/", 1)[-1]


def asks_for_place_or_grade(question: str) -> bool:
    """Whether the question of this id asks for a half or quadrant of the picture, or for a grade."""
    return kind_of(question) in KIND_OF_PLACE or kind_of(question).startswith(GRADE)


def places(seeing: Sequence[Scored], blind: Sequence[Scored]) -> dict[str, Any]:
    """Source -> figures of the questions for a half or quadrant, beside those of answers without the picture.

    Args:
        seeing, blind: answers to the same questions.
    """
    substitute = {one.id: one for one in blind}
    by_source: dict[str, list[tuple[Scored, Scored]]] = {}
    for one in seeing:
        if kind_of(one.id) in KIND_OF_PLACE:
            by_source.setdefault(one.id.split("/")[0], []).append((one, substitute[one.id]))
    return {source: share_figures(pairs) for source, pairs in sorted(by_source.items())}


def grades(scored: Sequence[Scored]) -> dict[str, Any]:
    """What is graded -> weighted kappa of the grades that were given, see `weighted_kappa`."""
    found = {}
    for thing, names in GRADED.values():
        rows = [one for one in scored if kind_of(one.id) == f"{GRADE}{thing.replace(' ', '-')}"]
        if rows:
            true, given = ([normalise(one.row[name]) for one in rows] for name in ("answer", "prediction"))
            found[thing] = weighted_kappa(
                true, given, [normalise(name) for name in names.values()], [one.group for one in rows]
            )
    return found
