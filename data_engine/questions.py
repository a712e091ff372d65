# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Turns the ground truth of a generated sample into questions with short answers, and into one-sentence captions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from data_engine.phantoms import MODALITIES
from data_engine.records import Task


@dataclass(frozen=True)
class Question:
    """One question about a sample, its short answer, and the task it trains (a benchmark task name)."""

    task: Task
    question: str
    answer: str


OPEN_WORDINGS: dict[str, tuple[Task, tuple[str, ...]]] = {
    "modality": (
        "modality recognition",
        (
            "Which imaging modality is this?",
            "What imaging modality is shown?",
            "What is the imaging modality of this {kind}?",
            "What modality is used to take this {kind}?",
            "How was this {kind} acquired?",
            "Name the imaging modality.",
            "What kind of medical {kind} is this?",
            "Which imaging technique produced this {kind}?",
        ),
    ),
    "region": (
        "anatomy recognition",
        (
            "Which part of the body is shown?",
            "What body region is this?",
            "Which anatomy does this {kind} show?",
            "What organ or region is imaged?",
            "Name the anatomical region.",
            "What part of the body does this {kind} show?",
        ),
    ),
    "plane": (
        "view/plane identification",
        (
            "In which plane is this {kind}?",
            "Which plane is shown?",
            "What is the imaging plane?",
            "What is the view of this {kind}?",
            "Name the plane or view.",
            "From which orientation was this {kind} taken?",
        ),
    ),
    "contrast": (
        "modality recognition",
        (
            "Which contrast does this {kind} have?",
            "What is the contrast of this {kind}?",
            "Which contrast or sequence is this?",
            "Name the contrast.",
            "What type of contrast is seen?",
            "Say which contrast this is.",
        ),
    ),
    "stain": (
        "modality recognition",
        (
            "Which stain was used?",
            "How is this tissue stained?",
            "Name the staining method.",
            "What staining is shown in this {kind}?",
            "What type of stain is this?",
            "Which staining technique was applied?",
        ),
    ),
    "side": (
        "localization",
        (
            "On which side is it?",
            "Which side is concerned?",
            "Is it on the left or the right?",
            "Left or right?",
            "Name the side.",
            "What is the side?",
        ),
    ),
    "finding": (
        "diagnosis",
        (
            "What abnormality is seen?",
            "What does this {kind} show that is abnormal?",
            "What is the finding?",
            "Name the abnormality.",
            "Which pathology is visible?",
            "What is the main finding?",
        ),
    ),
    "border": (
        "diagnosis",
        (
            "How is the border of the lesion?",
            "Is the border of the lesion regular or irregular?",
            "Describe the lesion's border.",
            "What is the lesion's border like?",
            "Name the kind of border.",
            "Which kind of border does the lesion have?",
        ),
    ),
    "location": (
        "localization",
        (
            "In which quadrant of the {kind} is the abnormality?",
            "Which quadrant of the picture holds the abnormality?",
            "Where in the {kind} is the abnormality, as displayed?",
            "Name the quadrant of the picture that the abnormality lies in.",
            "Where does the abnormality lie in the picture?",
            "In what part of the picture is the abnormality?",
        ),
    ),
    "count": (
        "counting and measurement",
        (
            "How many {thing} are there?",
            "How many {thing} can be seen?",
            "Count the {thing}.",
            "What is the number of {thing}?",
            "How many {thing} does this {kind} show?",
            "Give the number of {thing}.",
        ),
    ),
    "size": (
        "counting and measurement",
        (
            "How large is {thing}?",
            "What is the size of {thing}?",
            "What is the greatest diameter of {thing}?",
            "Measure {thing}.",
            "How wide is {thing} at most?",
            "Give the largest diameter of {thing}.",
        ),
    ),
    "severity": (
        "severity grading",
        (
            "What grade is {thing}?",
            "Grade {thing}.",
            "What is the grade of {thing}?",
            "How would you grade {thing}?",
            "Which grade does {thing} have?",
            "Name the grade of {thing}.",
        ),
    ),
    "motion": (
        "temporal and procedure understanding",
        (
            "What motion is seen?",
            "How does the picture move?",
            "What movement does this {kind} show?",
            "Which motion does the {kind} show?",
            "Describe the motion.",
            "What kind of motion is this?",
        ),
    ),
}
"""Fact -> (task, wordings); {kind} becomes "image", "volume" or "video", {thing} what the fact is about."""
THING_OF = {"count": "counted", "size": "measured", "severity": "graded"}
"""Fact -> the fact that says what was counted, measured or graded: "polyps", "the mass"."""

SIDE_OF_LESION = (
    "On which side is the lesion?",
    "Which side is the lesion on?",
    "Is the lesion on the left or the right?",
    "On which side of the patient is the abnormality?",
    "Where is the lesion, left or right?",
    "Name the side of the lesion.",
)
SIDE_OF_EYE = (
    "Is this the left or the right eye?",
    "Which eye is shown?",
    "Which eye is this?",
    "Left or right eye?",
    "What side is this eye?",
    "Name the eye: left or right?",
)
SIDE_OF_BREAST = (
    "Is this the left or the right breast?",
    "Which breast is shown?",
    "Which breast is this?",
    "Left or right breast?",
    "What side is this breast?",
    "Name the breast: left or right?",
)
SIDE_OF = {"fundus photography": SIDE_OF_EYE, "mammography": SIDE_OF_BREAST}
"""Modality -> wordings, where the side is that of the organ and not of a lesion."""
LESION_PRESENT = (
    "Is there a lesion?",
    "Does this {kind} show a lesion?",
    "Is an abnormality present?",
    "Can a lesion be seen?",
    "Is there any abnormality in this {kind}?",
    "Does the {kind} show a pathology?",
)
LESION_ABSENT = (
    "Is this {kind} normal?",
    "Does this {kind} look normal?",
    "Is it free of lesions?",
    "Is this a normal {kind}?",
    "Does everything look normal?",
    "Is the {kind} without abnormality?",
)
TUMOUR_PRESENT = (
    "Is there a tumour?",
    "Does this tissue look malignant?",
    "Is the tissue cancerous?",
    "Are the nuclei atypical?",
    "Is there an abnormality?",
    "Is malignancy present?",
)
CLOSED_MODALITY = (
    "Is this {a} {kind}?",
    "Was this {kind} taken with {name}?",
    "Is the imaging modality {name}?",
    "Does this show {a} {kind}?",
    "Is it {a} {kind}?",
    "Would you call this {a} {kind}?",
)
REGIONS = (
    "brain",
    "head",
    "chest",
    "abdomen",
    "pelvis",
    "spine",
    "knee",
    "hand",
    "heart",
    "liver",
    "skin",
    "retina",
    "colon",
)


def modality_adjective(modality: str) -> str:
    """A modality as an attribute of "image": "ultrasound", "fundus" (not "fundus photography image")."""
    return {"fundus photography": "fundus"}.get(modality, modality)


def article(words: str) -> str:
    """`words` with "a" or "an" as they are spoken: "an MRI", "an X-ray", "a CT"."""
    spoken_with_vowel = words[0].lower() in "aeio" or words.startswith(("MRI", "X-ray", "ultrasound", "H&E"))
    return f"{'an' if spoken_with_vowel else 'a'} {words}"


def questions(facts: dict[str, str], kind: str, rng: np.random.Generator) -> list[Question]:
    """Every question the facts can answer, each in one random wording, in random order.

    Closed questions are answered "yes" and "no" equally often over samples whose lesions are balanced.
    """

    def pick(wordings: tuple[str, ...], **fields: str) -> str:
        return pick_wording(wordings, rng, kind=kind, **fields)

    def closed(task: Task, truth: str, others: tuple[str, ...], wordings: tuple[str, ...]) -> Question:
        yes = bool(rng.random() < 0.5)
        false = [name for name in others if name != truth]
        name = truth if yes else false[int(rng.integers(len(false)))]
        return Question(task, pick(wordings, name=name, a=article(modality_adjective(name))), "yes" if yes else "no")

    modality = facts["modality"]
    asked = [closed("modality recognition", modality, MODALITIES, CLOSED_MODALITY)]
    for fact, (task, wordings) in OPEN_WORDINGS.items():
        if fact in facts:
            if fact == "side":
                wordings = SIDE_OF.get(modality, SIDE_OF_LESION)
            thing = facts[THING_OF[fact]] if fact in THING_OF else ""
            asked.append(Question(task, pick(wordings, thing=thing), facts[fact]))
    if facts.get("region") in REGIONS:
        shown = ("Is this the {name}?", "Does this {kind} show the {name}?", "Is the {name} imaged?")
        # A head is no wrong name for a brain, so the two are never each other's counterexample.
        others = tuple(
            r for r in REGIONS if {r, facts["region"]} != {"brain", "head"} and (r, facts["region"]) not in OVERLAPS
        )
        asked.append(closed("anatomy recognition", facts["region"], others, shown))
    if facts.get("lesion") in ("yes", "no"):
        present = facts["lesion"] == "yes"
        if rng.random() < 0.5:
            wordings = TUMOUR_PRESENT if modality == "histopathology" else LESION_PRESENT
            asked.append(Question("abnormality detection", pick(wordings), "yes" if present else "no"))
        else:
            asked.append(Question("abnormality detection", pick(LESION_ABSENT), "no" if present else "yes"))
    return [asked[i] for i in rng.permutation(len(asked))]


OVERLAPS = {
    ("heart", "chest"), ("spine", "chest"), ("spine", "abdomen"), ("spine", "pelvis"), ("liver", "abdomen"),
    ("liver", "chest"), ("abdomen", "liver"), ("chest", "heart"), ("abdomen", "kidney"), ("liver", "kidney"),
    ("abdomen", "spine"), ("chest", "spine"), ("pelvis", "spine"), ("colon", "abdomen"), ("colon", "pelvis"),
    ("pelvis", "uterus"), ("abdomen", "uterus"), ("chest", "breast"), ("head", "face"), ("head", "eye"),
    *((part, "whole body") for part in ("brain", "head", "chest", "abdomen", "pelvis", "spine", "heart", "liver")),
    ("skin", "face"), ("skin", "hand"), ("skin", "foot"), ("skin", "forearm"), ("skin", "back"), ("skin", "leg"),
    ("hand", "forearm"), ("spine", "back"), ("chest", "back"), ("retina", "eye"), ("eye", "retina"),
}  # fmt: skip
"""(name, true region) pairs where the name is not clearly wrong."""


TISSUES = ("skin", "glands", "stroma", "epithelium", "lymphoid tissue", "blood", "cultured cells")
"""Regions that stand without "the"."""
WITHOUT_ARTICLE = ("fluid", "drusen", "consolidation", "jaundice", "erythema", "yeast contamination", "malignant")
"""Findings that stand without "a", besides plurals."""


def finding_of(facts: dict[str, str]) -> str:
    """The finding of a sample that has a lesion; its common name where no closer one is known."""
    return facts.get("finding", "tumour" if facts["modality"] == "histopathology" else "lesion")


def finding_phrase(facts: dict[str, str]) -> str:
    """The finding as a sentence names it: "a polyp", "an ulcer", "drusen", "Gram-positive rods"."""
    finding = finding_of(facts)
    plural = finding.endswith(("s", "cocci")) and not finding.endswith(("sis", "us", "ss"))
    if plural or finding in WITHOUT_ARTICLE:
        return finding
    return f"{'an' if finding[0].lower() in 'aeiou' else 'a'} {finding}"


def caption(facts: dict[str, str], kind: str, rng: np.random.Generator) -> str:
    """One sentence that states the modality and, mostly, what else is known, for alignment of the projector."""
    modality = facts["modality"]
    words = []
    if "plane" in facts and rng.random() < 0.8:
        words.append(facts["plane"])
    if modality in ("CT", "MRI") and "contrast" in facts and rng.random() < 0.8:
        words.append(facts["contrast"])
    if "stain" in facts and rng.random() < 0.8:
        words.append({"immunohistochemistry": "immunohistochemical"}.get(facts["stain"], facts["stain"]))
    words.append(modality_adjective(modality))
    bare = modality in ("CT", "MRI", "X-ray", "OCT") and kind == "image" and rng.random() < 0.5
    bare |= modality == "clinical photograph"
    sentence = article(" ".join(words) if bare else " ".join([*words, kind]))
    if modality == "ultrasound" and facts.get("contrast"):
        sentence += " with " + facts["contrast"]
    if "region" in facts and rng.random() < 0.9:
        region = facts["region"]
        sentence += " of " + (region if region in TISSUES else f"the {region}")
    if kind == "video" and "motion" in facts and rng.random() < 0.8:
        motion = facts["motion"]
        if modality == "endoscopy":
            sentence += ", with the camera " + {"still": "held still"}.get(motion, motion)
        else:
            things = {
                "beating": "beating chambers",
                "pulsing": "a pulsing artery",
                "moving": "fetal movement",
                "breathing": "breathing motion",
            }
            sentence += " with " + things.get(motion, motion)
    elif facts.get("lesion") == "yes" and rng.random() < 0.5:
        sentence += " showing " + finding_phrase(facts)
    starts = ("", "", "", "This is ", "The picture shows ")
    sentence = starts[int(rng.integers(len(starts)))] + sentence
    return sentence[0].upper() + sentence[1:] + "."


CAPTION_REQUESTS = (
    "Describe this {kind}.",
    "What does this {kind} show?",
    "Give a short description of this {kind}.",
    "Caption this {kind}.",
    "Summarise what you see in this {kind}.",
    "Briefly, what is this {kind}?",
)
REPORT_REQUESTS = (
    "Write a short report of this {kind}.",
    "Report the findings.",
    "Give findings and impression.",
    "Write the radiology report of this {kind}.",
    "What would the report say?",
    "Report this {kind} with an impression.",
)
MATCHING = (
    'Does this sentence describe the {kind}? "{sentence}"',
    'Is this true of the {kind}? "{sentence}"',
    'Does the text fit the {kind}? "{sentence}"',
    'Do the {kind} and the text belong together? "{sentence}"',
    'Is this a right description? "{sentence}"',
    'Text: "{sentence}" Does it match the {kind}?',
)


def pick_wording(wordings: tuple[str, ...], rng: np.random.Generator, **fields: str) -> str:
    """One wording, with its fields filled in."""
    return wordings[int(rng.integers(len(wordings)))].format(**fields)


def caption_request(kind: str, rng: np.random.Generator) -> str:
    """Asks for a caption."""
    return pick_wording(CAPTION_REQUESTS, rng, kind=kind)


def caption_question(facts: dict[str, str], kind: str, rng: np.random.Generator) -> Question:
    """Asks for a caption or, as often, for a report."""
    task: Task = "report generation and captioning"
    if rng.random() < 0.5:
        return Question(task, caption_request(kind, rng), caption(facts, kind, rng))
    return Question(task, pick_wording(REPORT_REQUESTS, rng, kind=kind), report(facts, kind))


def report(facts: dict[str, str], kind: str) -> str:
    """Findings and impression: every fact of the sample, one short sentence each."""
    examination = " ".join(
        facts[name] for name in ("plane", "contrast", "stain") if name in facts and facts["modality"] != "ultrasound"
    )
    thing = modality_adjective(facts["modality"]) + (f" {kind}" if facts["modality"] != "clinical photograph" else "")
    shown = f"{examination} {thing}".strip()
    if "region" in facts:
        shown += f" of {facts['region']}" if facts["region"] in TISSUES else f" of the {facts['region']}"
    findings = [shown[0].upper() + shown[1:]]
    if facts.get("lesion") == "yes":
        finding = finding_of(facts)
        where = f" on the {facts['side']}" if "side" in facts and facts["modality"] not in SIDE_OF else ""
        quadrant = f" in the {facts['location']} of the picture" if "location" in facts else ""
        findings.append(f"{finding[0].upper() + finding[1:]}{where}{quadrant}")
    if "count" in facts:
        findings.append(f"Number of {facts['counted']}: {facts['count']}")
    if "size" in facts:
        findings.append(f"Greatest diameter of {facts['measured']}: {facts['size']}")
    if "motion" in facts:
        findings.append(f"Motion: {facts['motion']}")
    if "severity" in facts:
        findings.append(f"Grade of {facts['graded']}: {facts['severity']}")
    impression = {"no": "no abnormality", "yes": finding_of(facts)}.get(facts.get("lesion", ""), "as described")
    return f"Findings: {'. '.join(findings)}. Impression: {impression}."


def matching_question(facts: dict[str, str], kind: str, rng: np.random.Generator) -> Question:
    """Asks whether a caption fits; a false one differs in one fact that it names (modality, region or plane)."""
    fits = bool(rng.random() < 0.5)
    sentence = caption(facts, kind, rng)
    if not fits:
        fact, changed = _changed(facts, rng)
        told = modality_adjective(changed[fact]) if fact == "modality" else changed[fact]
        sentence = caption(changed, kind, rng)
        while told.lower() not in sentence.lower():
            sentence = caption(changed, kind, rng)
    wording = pick_wording(MATCHING, rng, kind=kind, sentence=sentence)
    return Question("image-text matching", wording, "yes" if fits else "no")


def _changed(facts: dict[str, str], rng: np.random.Generator) -> tuple[str, dict[str, str]]:
    """A fact, and the facts with another value of it that is clearly wrong."""
    planes = ("axial", "coronal", "sagittal")
    regions = [
        name
        for name in REGIONS
        if name != facts.get("region")
        and {name, facts.get("region")} != {"brain", "head"}
        and (name, facts.get("region")) not in OVERLAPS
    ]
    wrong = {"modality": [name for name in MODALITIES if name != facts["modality"]]}
    if facts.get("region") in REGIONS:
        wrong["region"] = regions
    if facts.get("plane") in planes:
        wrong["plane"] = [name for name in planes if name != facts["plane"]]
    names = sorted(wrong)
    fact = names[int(rng.integers(len(names)))]
    value = wrong[fact][int(rng.integers(len(wrong[fact])))]
    return fact, facts | {fact: value}
