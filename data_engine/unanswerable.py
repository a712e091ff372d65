# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Questions that a medical picture cannot answer, and small talk, each with the one sentence that is the right reply.

Every reply to a question without an answer begins with "I cannot tell", and every reply about a picture that is none of
medicine with "This is not a medical image", so that both can be recognised by their first words. Validation and test
ask in wordings, and about some things, that no other split has: `configs/unanswerable.yaml` holds them all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from data_engine.questions import (
    CAPTION_REQUESTS,
    LESION_ABSENT,
    LESION_PRESENT,
    OPEN_WORDINGS,
    REPORT_REQUESTS,
    pick_wording,
)
from data_engine.records import SPLITS, Reply, Task
from data_engine.small_talk import TALK

CANNOT_TELL = "I cannot tell"
NOT_MEDICAL = "This is not a medical image"
TESTED = "test"
"""The split whose small talk has wordings of its own."""


@dataclass(frozen=True)
class Asked:
    """One question and the right reply.

    Attributes:
        about: what is asked for, in a word or two: "age", "finding elsewhere", "identity".
        task: of the record; the one that the question would train if it had an answer.
    """

    about: str
    task: Task
    question: str
    answer: str
    reply: Reply


@dataclass(frozen=True)
class Shown:
    """What is known of the picture, volume or video that is asked about.

    Attributes:
        kind: "image", "volume" or "video".
        modality: one of the fourteen, or "unknown".
        anatomy: in the source's words; empty if unknown.
    """

    kind: str
    modality: str
    anatomy: str


@dataclass(frozen=True)
class Unknown:
    """Something that pictures do not tell.

    Attributes:
        task: see `Asked`.
        subject: how the reply names it: "the patient's age".
        reason: why it cannot be seen, as a clause.
        wordings: split -> how it asks; `{kind}` becomes "image", "volume" or "video". A split that is not there does
            not ask for it.
        kinds, modalities: what is asked about; None asks about all.
        not_of: anatomies that may give the answer away.
    """

    task: Task
    subject: str
    reason: str
    wordings: Mapping[str, tuple[str, ...]]
    kinds: tuple[str, ...] = ("image", "volume", "video")
    modalities: tuple[str, ...] | None = None
    not_of: tuple[str, ...] = ()


def _read_unknowns(path: Path) -> dict[str, Unknown]:
    unknowns = {}
    for about, fields in yaml.safe_load(path.read_text(encoding="utf-8")).items():
        wordings: dict[str, tuple[str, ...]] = {split: tuple(fields.pop(split)) for split in SPLITS if split in fields}
        lists = {name: tuple(value) for name, value in fields.items() if isinstance(value, list)}
        unknowns[about] = Unknown(**fields | lists, wordings=wordings)
    return unknowns


UNKNOWNS = _read_unknowns(Path(__file__).parent / "configs" / "unanswerable.yaml")
"""What is asked for -> how."""

ELSEWHERE: dict[str, tuple[str, ...]] = {
    "lungs": ("a pneumothorax", "pneumonia", "a pleural effusion", "a lung nodule"),
    "brain": ("a stroke", "a brain haemorrhage", "hydrocephalus", "a brain tumour"),
    "eyes": ("macular degeneration", "a retinal detachment", "a cataract"),
    "knee": ("a meniscal tear", "a torn cruciate ligament"),
    "liver": ("liver cirrhosis", "liver metastases"),
    "kidneys": ("a kidney stone", "a renal cyst"),
    "heart": ("an enlarged heart", "a pericardial effusion", "a leaking heart valve"),
    "colon": ("a colon polyp", "diverticulitis"),
    "skin": ("a melanoma", "psoriasis"),
    "stomach": ("a gastric ulcer", "gastritis"),
    "breasts": ("breast cancer", "a breast cyst"),
    "spine": ("a herniated disc", "a vertebral fracture"),
    "teeth": ("tooth decay", "a dental abscess"),
    "thyroid": ("a thyroid nodule", "a goitre"),
    "prostate": ("prostate cancer",),
    "hip": ("a hip fracture", "arthritis of the hip"),
    "foot": ("a broken toe", "a heel spur"),
}
"""Organ -> findings that only a picture of it can show."""
VISIBLE: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (("whole body", "trunk", "skin"), tuple(ELSEWHERE)),
    (
        ("chest", "lung", "thora", "mediastin"),
        ("lungs", "heart", "breasts", "spine", "liver", "thyroid", "stomach", "colon", "kidneys", "skin"),
    ),
    (("heart", "coronary", "aorta"), ("lungs", "heart", "spine", "breasts", "liver", "stomach")),
    (
        ("abd",),
        ("lungs", "heart", "liver", "kidneys", "colon", "stomach", "spine", "prostate", "hip", "skin", "breasts"),
    ),
    (("pelvi",), ("kidneys", "colon", "spine", "prostate", "hip", "skin")),
    (("head", "brain", "face"), ("brain", "eyes", "spine", "teeth", "skin")),
    (("neck",), ("brain", "eyes", "teeth", "spine", "thyroid", "lungs", "skin")),
    (("retina", "eye"), ("eyes", "brain")),
    (("colon",), ("colon",)),
    (("breast",), ("breasts", "skin", "lungs", "heart")),
    (("cervical cells", "blood"), ()),
    (("oral",), ("teeth", "skin")),
)
"""Words of an anatomy -> organs that a picture of it may show; nothing is asked about an anatomy that is not here."""
ELSEWHERE_WORDINGS: Mapping[str, tuple[str, ...]] = {
    "train": (
        "Is there {finding}?",
        "Does the patient have {finding}?",
        "Do you see {finding}?",
        "Does this {kind} show {finding}?",
        "Any sign of {finding}?",
        "Is {finding} present?",
        "Is {finding} absent?",
        "Is there evidence of {finding}?",
        "Is this {finding}?",
        "Does it look like {finding}?",
        "Are there signs of {finding}?",
        "I think there is {finding}, is that right?",
        "Is the patient free of {finding}?",
        "Do I have {finding}?",
        "Check for {finding}.",
        "Where is {finding}?",
    ),
    "validation": ("Would you say that there is {finding}?", "Is {finding} likely?", "Look for {finding}."),
    "test": ("Can you rule out {finding}?", "Is {finding} visible?", "Could the patient have {finding}?"),
}

REPLIES = (
    CANNOT_TELL + " {subject} from this {kind}.",
    CANNOT_TELL + " {subject} from this {kind}.",
    CANNOT_TELL + " {subject} from this {kind} alone.",
    CANNOT_TELL + " {subject} from this {kind}: {reason}.",
)
"""The plain sentence is the commonest."""

MEDICAL_PICTURE = (
    "Is this a medical {kind}?",
    "Does this {kind} come from a medical examination?",
    "Is this {kind} a medical one?",
    "Is this a picture of medicine?",
)
"""Answered with yes about the pictures of medicine, so that it is no sign of the others."""
NOT_MEDICAL_REPLIES = (
    NOT_MEDICAL + ".",
    NOT_MEDICAL + ".",
    NOT_MEDICAL + ", so I cannot answer that.",
    NOT_MEDICAL + "; it shows no anatomy.",
)


def cannot_tell(about: str, shown: Shown, split: str, rng: np.random.Generator) -> Asked | None:
    """A question about one thing that this picture does not tell; None where it might tell, or in another split only.

    Args:
        about: key of `UNKNOWNS`, or "finding elsewhere".
    """
    if about == "finding elsewhere":
        return _finding_elsewhere(shown, split, rng)
    one = UNKNOWNS[about]
    wordings = one.wordings.get(split)
    evident = one.modalities is not None and shown.modality not in one.modalities
    if not wordings or evident or shown.kind not in one.kinds or any(word in shown.anatomy for word in one.not_of):
        return None
    question = _as_asked(pick_wording(wordings, rng, kind=shown.kind), split, rng)
    answer = pick_wording(REPLIES, rng, subject=one.subject, kind=shown.kind, reason=one.reason)
    return Asked(about, one.task, question, answer, "cannot tell")


def _as_asked(question: str, split: str, rng: np.random.Generator) -> str:
    """In training, a third of the questions as people type them: in lower case, and without the mark at the end."""
    return question.lower().rstrip("?.") if split == "train" and rng.random() < 1 / 3 else question


def _finding_elsewhere(shown: Shown, split: str, rng: np.random.Generator) -> Asked | None:
    anatomy = shown.anatomy.lower()
    visible = next((organs for words, organs in VISIBLE if any(word in anatomy for word in words)), None)
    hidden = sorted(set(ELSEWHERE) - set(visible)) if visible is not None else []
    if not hidden:
        return None
    organ = hidden[int(rng.integers(len(hidden)))]
    finding = ELSEWHERE[organ][int(rng.integers(len(ELSEWHERE[organ])))]
    question = _as_asked(pick_wording(ELSEWHERE_WORDINGS[split], rng, finding=finding, kind=shown.kind), split, rng)
    reason = f"it does not show the {organ}"
    answer = pick_wording(REPLIES, rng, subject=f"whether there is {finding}", kind=shown.kind, reason=reason)
    return Asked("finding elsewhere", "abnormality detection", question, answer, "cannot tell")


def without_answer(shown: Shown, split: str, count: int, rng: np.random.Generator) -> list[Asked]:
    """So many questions about different things that this picture does not tell, or fewer where there are not as many.

    A finding of another organ is drawn as often as all the personal things together, because it is the question that
    most looks as if it had an answer.
    """
    asked = []
    if rng.random() < 0.5 and (elsewhere := cannot_tell("finding elsewhere", shown, split, rng)):
        asked.append(elsewhere)
    names = sorted(name for name, one in UNKNOWNS.items() if split in one.wordings)
    for index in rng.permutation(len(names)):
        if len(asked) >= count:
            break
        one = cannot_tell(names[index], shown, split, rng)
        if one is not None:
            asked.append(one)
    return asked


def small_talk(split: str, rng: np.random.Generator, about: str | None = None) -> Asked:
    """Something said to the model that is not about the picture; who it is as often as all else together."""
    if about is None:
        others = [name for name in TALK if name != "identity"]
        about = "identity" if rng.random() < 0.5 else others[int(rng.integers(len(others)))]
    wordings, test_wordings, answers = TALK[about]
    question = pick_wording(test_wordings if split == TESTED else wordings, rng)
    return Asked(about, "report generation and captioning", question, pick_wording(answers, rng), "conversation")


def identity_turns(split: str) -> tuple[tuple[str, str], ...]:
    """Every way of asking who the model is, with an answer, for conversations without a picture."""
    wordings, test_wordings, answers = TALK["identity"]
    asked = test_wordings if split == TESTED else wordings
    return tuple((question, answers[place % len(answers)]) for place, question in enumerate(asked))


def about_no_medical_picture(count: int, rng: np.random.Generator) -> list[Asked]:
    """So many medical questions, of different tasks, about a picture that is none of medicine."""
    asked: list[tuple[Task, tuple[str, ...]]] = [
        (task, wordings) for fact, (task, wordings) in OPEN_WORDINGS.items() if fact in ASKED_ANYWAY
    ]
    asked += [
        ("abnormality detection", (*LESION_PRESENT, *LESION_ABSENT)),
        ("report generation and captioning", (*CAPTION_REQUESTS, *REPORT_REQUESTS)),
        ("modality recognition", MEDICAL_PICTURE),
    ]
    return [
        Asked(
            "not medical",
            asked[i][0],
            pick_wording(asked[i][1], rng, kind="image"),
            pick_wording(NOT_MEDICAL_REPLIES, rng),
            "not medical",
        )
        for i in rng.permutation(len(asked))[:count]
    ]


ASKED_ANYWAY = ("modality", "region", "plane", "finding", "location", "side")
"""Facts that visitors ask for whatever they have uploaded."""
