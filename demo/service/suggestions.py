# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Questions that the page suggests: those that fit a file and that the model answers better than without looking."""

from __future__ import annotations

from collections.abc import Mapping

from demo.service.sessions import LoadedFile

GENERAL_QUESTION = "What is computed tomography used for?"
QUESTION_ABOUT = {
    "modality": "Which imaging modality is this?",
    "region": "Which part of the body is shown?",
    "plane": "In which plane is this {kind}?",
    "contrast": "Which contrast or sequence is this?",
    "stain": "Which stain was used?",
    "motion": "What motion is seen?",
    "lesion": "Is there a lesion?",
    "finding": "What abnormality is seen?",
    "location": "In which quadrant of the {kind} is the abnormality?",
    "side": "On which side is the lesion?",
    "eye": "Is this the left or the right eye?",
    "breast": "Is this the left or the right breast?",
    "count": "How many lesions can be seen?",
    "size": "What is the size of the lesion?",
    "severity": "What is the grade of the lesion?",
    "report": "Describe this {kind}.",
}
"""Each fact that training asks for, in one of its wordings (data_engine/questions.py)."""
FACTS_OF_KIND = {
    "image": ("modality", "region", "lesion", "finding", "location", "count", "size", "report"),
    "volume": ("modality", "region", "plane", "lesion", "finding", "side", "count", "report"),
    "video": ("modality", "region", "motion", "lesion", "finding", "report"),
}
FACTS_OF_MODALITY = {
    "CT": ("plane", "contrast"),
    "MR": ("plane", "contrast"),
    "PT": ("plane",),
    "SM": ("stain", "count"),
    "OP": ("eye", "severity"),
    "MG": ("breast", "severity"),
}
"""Facts that come before the others, by DICOM modality code: tomography, slide microscopy, fundus, mammography."""
TASK_OF = {
    "modality": "modality named",
    "region": "anatomy recognition, open",
    "plane": "view/plane identification, open",
    "contrast": "modality recognition, open",
    "stain": "modality recognition, open",
    "motion": "temporal and procedure understanding, open",
    "lesion": "abnormality detection, yes/no",
    "finding": "diagnosis, open",
    "location": "localization, open",
    "side": "localization, open",
    "eye": "anatomy recognition, open",
    "breast": "anatomy recognition, open",
    "count": "counting and measurement, open",
    "size": "counting and measurement, open",
    "severity": "severity grading, open",
}
"""The evaluation's row for questions about each fact; a report is no question with one answer, and has none."""
OF_ANY_MODEL = ("modality", "region", "finding", "report")
"""Facts that any medical vision-language model is asked for: all that is suggested where nothing was measured."""
MOST_SUGGESTIONS = 6


def suggestions(file: LoadedFile | None, answered: Mapping[str, bool]) -> list[str]:
    """Questions about a file; without one, a question that needs none.

    Args:
        answered: of `Measured`; what was measured and not answered is not suggested.
    """
    if file is None:
        return [GENERAL_QUESTION]
    first = ("modality", *FACTS_OF_MODALITY.get(file.modality, ()))
    of_kind = [fact for fact in FACTS_OF_KIND[file.kind] if fact not in first]
    if file.modality in FACTS_OF_MODALITY or file.kind != "volume":
        of_kind = [fact for fact in of_kind if fact != "plane"]
    if answered:
        facts = [fact for fact in (*first, *of_kind) if answered.get(TASK_OF.get(fact, ""), True)]
    else:
        facts = list(OF_ANY_MODEL)
    return [QUESTION_ABOUT[fact].format(kind=file.kind) for fact in facts[:MOST_SUGGESTIONS]]
