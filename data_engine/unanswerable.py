# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Questions that a medical picture cannot answer, and small talk, each with the one sentence that is the right reply.

Every reply to a question without an answer begins with "I cannot tell", and every reply about a picture that is none of
medicine with "This is not a medical image", so that both can be recognised by their first words. The test split asks in
wordings, and about some things, that the other splits never use.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from data_engine.questions import (
    CAPTION_REQUESTS,
    LESION_ABSENT,
    LESION_PRESENT,
    OPEN_WORDINGS,
    REPORT_REQUESTS,
    pick_wording,
)
from data_engine.records import Reply, Task
from data_engine.small_talk import TALK

CANNOT_TELL = "I cannot tell"
NOT_MEDICAL = "This is not a medical image"
TESTED = "test"
"""The split whose wordings no other split has."""


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
        wordings: of training and validation; without any, the thing is asked for in the test split only.
        test_wordings: of the test split.
        kinds, modalities: what is asked about; None asks about all.
        not_of: anatomies that may give the answer away.
    """

    task: Task
    subject: str
    reason: str
    wordings: tuple[str, ...]
    test_wordings: tuple[str, ...]
    kinds: tuple[str, ...] = ("image", "volume", "video")
    modalities: tuple[str, ...] | None = None
    not_of: tuple[str, ...] = ()


X_RAYS = ("CT", "X-ray", "angiography", "mammography")
RECORD = "only the patient's record says that"
UNKNOWNS: dict[str, Unknown] = {
    "age": Unknown(
        "diagnosis",
        "the patient's age",
        RECORD,
        (
            "How old is the patient?",
            "What is the patient's age?",
            "Is the patient older than 60?",
            "How old is this person?",
            "What age is the patient?",
            "Can you estimate the patient's age?",
            "Is this a young or an old patient?",
            "Give the age of the patient.",
        ),
        ("What is the age of this person?", "Is the patient over 50?", "Which age group does the patient belong to?"),
    ),
    "name": Unknown(
        "diagnosis",
        "the patient's name",
        RECORD,
        (
            "What is the patient's name?",
            "Who is this patient?",
            "Whose {kind} is this?",
            "What is the name of the patient?",
            "Can you tell me who this is?",
            "Name the patient.",
        ),
        ("Do you know this patient's name?", "Which patient is this?", "What is this person called?"),
    ),
    "sex": Unknown(
        "diagnosis",
        "the patient's sex",
        RECORD,
        (
            "Is the patient male or female?",
            "What is the patient's sex?",
            "Is this a man or a woman?",
            "Is the patient a woman?",
            "What gender is the patient?",
            "Is this patient male?",
        ),
        ("Does this {kind} come from a man or a woman?", "Is the person female?", "Which sex is the patient?"),
        modalities=("endoscopy", "fundus photography", "histopathology", "microscopy", "angiography", "ultrasound"),
        not_of=("cervical", "breast", "uterus", "fetus", "prostate"),
    ),
    "birth": Unknown(
        "diagnosis",
        "when the patient was born",
        RECORD,
        ("When was the patient born?", "What is the patient's date of birth?", "In which year was the patient born?"),
        ("What is the birthday of this patient?", "Give the patient's year of birth."),
    ),
    "symptoms": Unknown(
        "diagnosis",
        "the patient's symptoms",
        "only the patient can say that",
        (
            "What symptoms does the patient have?",
            "Is the patient in pain?",
            "Does the patient have a fever?",
            "What does the patient complain of?",
            "Why did the patient come to the hospital?",
            "Does it hurt?",
        ),
        ("Which complaints brought the patient here?", "Has the patient been coughing?", "How is the patient feeling?"),
    ),
    "history": Unknown(
        "diagnosis",
        "the patient's history",
        RECORD,
        (
            "What is the patient's medical history?",
            "Does the patient smoke?",
            "Did the patient have surgery before?",
            "Has the patient had cancer before?",
            "Does the patient have diabetes in the family?",
            "How long has the patient been ill?",
            "What is the clinical history?",
        ),
        ("Which illnesses did the patient have earlier?", "Is the patient a smoker?", "Does the patient drink?"),
    ),
    "medication": Unknown(
        "diagnosis",
        "what the patient takes",
        RECORD,
        (
            "Which medication does the patient take?",
            "What drugs is the patient on?",
            "Does the patient take aspirin?",
            "Was the patient given a sedative?",
        ),
        ("Is the patient on blood thinners?", "Which medicines were prescribed?"),
    ),
    "radiation dose": Unknown(
        "counting and measurement",
        "the radiation dose",
        "the examination's protocol says that",
        (
            "What was the radiation dose?",
            "How much radiation did the patient receive?",
            "What is the dose in millisievert?",
            "What tube voltage was used?",
            "How high was the dose?",
        ),
        ("Which dose did this {kind} take?", "How many milligray were applied?"),
        modalities=X_RAYS,
    ),
    "drug dose": Unknown(
        "counting and measurement",
        "which dose is right",
        "a physician must decide that",
        (
            "Which dose of ibuprofen should the patient take?",
            "What dose should be given?",
            "How many milligrams of paracetamol does the patient need?",
            "How much insulin should be injected?",
        ),
        ("What is the right dose of antibiotics here?", "How many tablets a day should be taken?"),
    ),
    "contrast agent": Unknown(
        "modality recognition",
        "which contrast agent was given",
        "the examination's protocol says that",
        (
            "How much contrast agent was injected?",
            "Which contrast agent was given?",
            "What was the dose of contrast medium?",
            "When was the contrast injected?",
            "Through which vein was the contrast medium given?",
        ),
        ("What is the brand of the contrast medium?", "How many millilitres of contrast were used?"),
        modalities=("CT", "angiography", "ultrasound", "PET", "unknown"),
    ),
    "size": Unknown(
        "counting and measurement",
        "sizes in millimetres",
        "its scale is not given",
        (
            "How large is the lesion in millimetres?",
            "How many centimetres does it measure?",
            "What is the diameter in mm?",
            "How big is the abnormality in cm?",
            "Measure the lesion in millimetres.",
            "What is the size of the finding in cm?",
            "How long is this structure in mm?",
            "What is the volume of the lesion in ml?",
        ),
        (
            "Give the largest diameter in millimetres.",
            "How wide is it in centimetres?",
            "What does the lesion measure in mm?",
        ),
        kinds=("image", "video"),
    ),
    "slice": Unknown(
        "view/plane identification",
        "which slice this is",
        "a single picture does not say where it lies in the stack",
        (
            "Which slice is this?",
            "What is the slice number?",
            "Which slice of the series is shown?",
            "How many slices does the scan have?",
            "On which slice is the lesion largest?",
            "What is the slice thickness?",
        ),
        ("What number does this slice have?", "How thick are the slices?", "In which slice does the lesion begin?"),
        kinds=("image",),
        modalities=("CT", "MRI"),
    ),
    "change": Unknown(
        "temporal and procedure understanding",
        "how this has changed",
        "no earlier examination is given",
        (
            "Has it grown since the last examination?",
            "Is this better or worse than before?",
            "What has changed since the previous {kind}?",
            "Is the finding new?",
        ),
        ("How does this compare with last year?", "Did the lesion shrink under treatment?"),
    ),
    "prognosis": Unknown(
        "diagnosis",
        "how this will go on",
        "that depends on much that it does not show",
        (
            "What is the prognosis?",
            "How long will the patient live?",
            "Will the patient recover?",
            "How likely is a relapse?",
            "Will it become cancer?",
            "What are the chances of survival?",
        ),
        ("How will the disease develop?", "Is it curable?", "When will the patient be well again?"),
    ),
    "treatment": Unknown(
        "diagnosis",
        "which treatment is right",
        "a physician must decide that",
        (
            "What treatment should the patient get?",
            "Does the patient need surgery?",
            "What should be done next?",
            "Which therapy do you recommend?",
            "Should this be operated on?",
            "Can the patient go home?",
        ),
        ("How should this patient be treated?", "Is a biopsy necessary?", "Should I see a specialist about it?"),
    ),
    "date": Unknown(
        "temporal and procedure understanding",
        "when it was taken",
        "no date is given",
        (
            "When was this {kind} taken?",
            "What is the date of the examination?",
            "In which year was this taken?",
            "Was this taken in the morning?",
        ),
        ("On which day was the examination?", "How old is this {kind}?"),
    ),
    "place": Unknown(
        "diagnosis",
        "where it was taken",
        "no hospital is given",
        (
            "In which hospital was this taken?",
            "Which country is the patient from?",
            "Where was this {kind} made?",
            "Who is the patient's physician?",
        ),
        ("Which clinic does this come from?", "Which doctor ordered this examination?"),
    ),
    "machine": Unknown(
        "modality recognition",
        "which machine was used",
        "no manufacturer is given",
        (
            "Which manufacturer made the machine?",
            "What model of device was used?",
            "Is this from a Siemens or a GE machine?",
        ),
        ("Which company built the device?", "What is the serial number of the machine?"),
    ),
    "body weight": Unknown(
        "counting and measurement",
        "the patient's weight or height",
        RECORD,
        ("How much does the patient weigh?", "How tall is the patient?", "What is the body mass index?"),
        ("What is the patient's weight in kilograms?", "Is the patient tall?"),
        not_of=("whole body", "trunk"),
    ),
    "blood pressure": Unknown(
        "counting and measurement",
        "the blood pressure",
        "it is not measured here",
        (),
        ("What is the patient's blood pressure?", "Is the blood pressure too high?"),
    ),
    "laboratory": Unknown(
        "counting and measurement",
        "laboratory values",
        "they are not measured here",
        (),
        ("What is the haemoglobin value?", "How high is the creatinine?", "What is the blood group?"),
    ),
    "allergy": Unknown(
        "diagnosis", "the patient's allergies", RECORD, (), ("Is the patient allergic to anything?", "Any allergies?")
    ),
    "cost": Unknown(
        "diagnosis", "what it costs", "no price is given", (), ("What does this examination cost?", "Who pays for it?")
    ),
    "occupation": Unknown(
        "diagnosis", "what the patient does", RECORD, (), ("What is the patient's job?", "Can the patient work?")
    ),
    "insurance": Unknown("diagnosis", "the patient's insurance", RECORD, (), ("Which insurance has the patient?",)),
}  # fmt: skip
"""What is asked for -> how; `{kind}` becomes "image", "volume" or "video"."""

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
ELSEWHERE_WORDINGS = (
    "Is there {finding}?",
    "Does the patient have {finding}?",
    "Do you see {finding}?",
    "Does this {kind} show {finding}?",
    "Any sign of {finding}?",
    "Is {finding} present?",
)
ELSEWHERE_TEST_WORDINGS = ("Can you rule out {finding}?", "Is {finding} visible?", "Could the patient have {finding}?")

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
    wordings = one.test_wordings if split == TESTED else one.wordings
    evident = one.modalities is not None and shown.modality not in one.modalities
    if not wordings or evident or shown.kind not in one.kinds or any(word in shown.anatomy for word in one.not_of):
        return None
    question = pick_wording(wordings, rng, kind=shown.kind)
    answer = pick_wording(REPLIES, rng, subject=one.subject, kind=shown.kind, reason=one.reason)
    return Asked(about, one.task, question, answer, "cannot tell")


def _finding_elsewhere(shown: Shown, split: str, rng: np.random.Generator) -> Asked | None:
    anatomy = shown.anatomy.lower()
    visible = next((organs for words, organs in VISIBLE if any(word in anatomy for word in words)), None)
    hidden = sorted(set(ELSEWHERE) - set(visible)) if visible is not None else []
    if not hidden:
        return None
    organ = hidden[int(rng.integers(len(hidden)))]
    finding = ELSEWHERE[organ][int(rng.integers(len(ELSEWHERE[organ])))]
    wordings = ELSEWHERE_TEST_WORDINGS if split == TESTED else ELSEWHERE_WORDINGS
    question = pick_wording(wordings, rng, finding=finding, kind=shown.kind)
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
    names = sorted(UNKNOWNS)
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
