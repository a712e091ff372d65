# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Turns what is known of a real picture (finding, boxes, counts, grades, signs) into questions of the eleven tasks.

Closed questions, and those for a half or quadrant, are planned over a whole source: "yes" is the answer as often as
"no", "left" as often as "right", and no quadrant more than twice as often as another. Where a source has only one of
the answers, the question is not asked.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from data_engine.adapters.choices import LETTERS, answered, asked
from data_engine.questions import (
    LESION_ABSENT,
    LESION_PRESENT,
    MATCHING,
    OPEN_WORDINGS,
    REPORT_REQUESTS,
    TUMOUR_PRESENT,
    Question,
    article,
    caption,
    caption_request,
    matching_question,
    pick_wording,
    questions,
    report,
)
from data_engine.records import Task
from data_engine.unanswerable import MEDICAL_PICTURE, Shown, cannot_tell, small_talk

Box = tuple[float, float, float, float]
"""Left, top, right, bottom, as shares of the picture."""
CLEAR_MARGIN = 0.05
"""Share of the picture: a place nearer to a middle line is called neither left nor right, neither upper nor lower."""
QUADRANTS = ("upper left", "upper right", "lower left", "lower right")
NO_ABNORMALITY = "no abnormality"
NORMAL_STARTS = ("no ", "normal", "negative", "regular", "healthy", "unremarkable")
"""First words of a finding that is none."""
MASS_NOUNS = ("retinopathy", "pneumonia", "COVID-19", "ARDS", "effusion lines", "consolidation", "oedema")
"""Last words of findings that stand without "a"."""
PLURAL = {"stenosis": "stenoses", "mass": "masses", "biopsy": "biopsies"}

DIAGNOSIS = (
    "What is the diagnosis?",
    "What is the most likely diagnosis?",
    "Which diagnosis fits this {kind}?",
    "How would you classify this {kind}?",
    "Name the diagnosis.",
    "What would you diagnose?",
)
CHOICE_OF_DIAGNOSIS = (
    "Which diagnosis fits this {kind}?",
    "What does this {kind} show?",
    "Which of these is the finding?",
    "Choose the right diagnosis.",
    "Which of these describes the {kind} best?",
)
FINDING_PRESENT = (
    "Is there {a}?",
    "Does this {kind} show {a}?",
    "Is {a} present?",
    "Can {a} be seen?",
    "Do you see {a} in this {kind}?",
    "Is {a} visible?",
)
FINDING_IN_QUADRANT = (
    "Is there {a} in the {place} quadrant of the {kind}?",
    "Does the {place} quadrant of the {kind} hold {a}?",
    "Is {a} in the {place} quadrant?",
    "Looking at the {place} quadrant of the {kind}, is there {a}?",
)
SIDE_IN_PICTURE = (
    "In which half of the {kind} is the {thing}, left or right?",
    "Is the {thing} in the left or the right half of the {kind}?",
    "On which side of the {kind}, as displayed, is the {thing}?",
    "Left or right half of the {kind}: where is the {thing}?",
    "Which half of the {kind} holds the {thing}, the left or the right?",
)
HEIGHT_IN_PICTURE = (
    "In which half of the {kind} is the {thing}, upper or lower?",
    "Is the {thing} in the upper or the lower half of the {kind}?",
    "Upper or lower half of the {kind}: where is the {thing}?",
    "Which half of the {kind} holds the {thing}, the upper or the lower?",
)
QUADRANT_IN_PICTURE = (
    "In which quadrant of the {kind} is the {thing}?",
    "Which quadrant of the {kind} holds the {thing}?",
    "Where in the {kind} is the {thing}, as displayed?",
    "Name the quadrant of the picture that the {thing} lies in.",
    "In what part of the picture is the {thing}?",
)
WORDINGS_OF_PLACE = {"side": SIDE_IN_PICTURE, "height": HEIGHT_IN_PICTURE, "quadrant": QUADRANT_IN_PICTURE}
PLACES = {"side": 1, "height": 1, "quadrant": 2}
"""Attribute of a label -> how many times as often as its rarest value any other is asked for."""
WHERE_IS_IT = ("Where is it?", "In which quadrant is it?", "Where in the picture does it lie?", "Which quadrant?")
WHAT_IS_IT = ("What is it?", "What kind of abnormality is it?", "Which abnormality is it?", "What abnormality is seen?")
NOTHING_THERE = f"There is nothing to locate: {NO_ABNORMALITY} is seen."


@dataclass(frozen=True)
class Label:
    """What is known of one picture, volume or video.

    Attributes:
        kind: "image", "volume" or "video".
        modality: one of the fourteen.
        finding: the class in the source's words; empty if it has none.
        normal: whether the finding is none, or None where the source tells no finding.
        anatomy, view: in words; empty if unknown.
        boxes: of what `boxed` names; None where nothing was boxed.
        boxed: in the singular: "polyp".
        counts: what is counted, in the plural -> number.
        grades: what is graded, with "the" -> grade.
        signs: name of a sign -> whether it is there.
    """

    kind: str
    modality: str
    finding: str = ""
    normal: bool | None = None
    anatomy: str = ""
    view: str = ""
    boxes: tuple[Box, ...] | None = None
    boxed: str = ""
    counts: dict[str, int] = field(default_factory=dict)
    grades: dict[str, str] = field(default_factory=dict)
    signs: dict[str, bool] = field(default_factory=dict)

    @property
    def thing(self) -> str:
        """What the boxes hold, in the number that fits."""
        return self.boxed if self.boxes is None or len(self.boxes) == 1 else plural(self.boxed)

    @property
    def side(self) -> str | None:
        """The half, "left" or "right" as displayed, that all boxes clearly lie in."""
        return _common("left", "right", [(box[0] + box[2]) / 2 for box in self.boxes or ()])

    @property
    def height(self) -> str | None:
        """The half, "upper" or "lower", that all boxes clearly lie in."""
        return _common("upper", "lower", [(box[1] + box[3]) / 2 for box in self.boxes or ()])

    @property
    def quadrant(self) -> str | None:
        """The quadrant that all boxes clearly lie in."""
        return f"{self.height} {self.side}" if self.height and self.side else None

    def lies_in(self, quadrant: str) -> bool | None:
        """Whether any box has its middle clearly in a quadrant; None where boxes only reach into it."""
        vertical, horizontal = quadrant.split()
        alone = [replace(self, boxes=(box,)) for box in self.boxes or ()]
        if any(one.quadrant == quadrant for one in alone):
            return True
        for left, top, right, bottom in self.boxes or ():
            across = left < 0.5 if horizontal == "left" else right > 0.5
            along = top < 0.5 if vertical == "upper" else bottom > 0.5
            if across and along:
                return None
        return False

    def facts(self) -> dict[str, str]:
        """What is known, in the names of the phantoms' ground truth, see `data_engine.questions`."""
        facts = {"modality": self.modality}
        if self.anatomy:
            facts["region"] = self.anatomy
        if self.view:
            facts["plane"] = self.view
        if self.normal is not None:
            facts["lesion"] = "no" if self.normal else "yes"
        if self.normal is False:
            facts["finding"] = self.finding
            if self.quadrant:
                facts["location"] = self.quadrant
        for name, count in list(self.counts.items())[:1]:
            facts |= {"counted": name, "count": str(count)}
        for name, grade in list(self.grades.items())[:1]:
            facts |= {"graded": name, "severity": grade}
        return facts


def _common(low: str, high: str, middles: Sequence[float]) -> str | None:
    if middles and max(middles) < 0.5 - CLEAR_MARGIN:
        return low
    return high if middles and min(middles) > 0.5 + CLEAR_MARGIN else None


def is_normal(finding: str) -> bool:
    """Whether the words of a finding say that there is none."""
    return finding.lower().startswith(NORMAL_STARTS)


def plural(thing: str) -> str:
    """ "polyps", "stenoses", "benign masses"."""
    words = thing.split()
    return " ".join([*words[:-1], PLURAL.get(words[-1], f"{words[-1]}s")]) if words else ""


def one_finding(finding: str) -> str:
    """A finding as a sentence names it: "a polyp", "diabetic retinopathy", "B-lines"."""
    if finding.endswith(MASS_NOUNS) or (finding.endswith("s") and not finding.endswith(("ss", "sis", "us"))):
        return finding
    return article(finding)


@dataclass(frozen=True)
class Planned:
    """A question that is planned over a source, and its answer.

    Attributes:
        topic: of yes or no: "abnormal" (anything), "normal", "finding", "sign" or "quadrant" (whether it is in this
            one); or "place", where a half or quadrant is the answer.
        name: the finding, sign or quadrant; of a place "side", "height" or "quadrant".
    """

    topic: str
    name: str
    answer: str


def planned(labels: Sequence[Label], seed: np.random.Generator) -> list[list[Planned]]:
    """The planned questions of each of a source's labels of one split.

    Args:
        seed: draws those that are asked, where one answer is the commoner one.
    """
    plans: list[list[Planned]] = [[] for _ in labels]
    for (topic, name), truth in sorted(_truths(labels).items()):
        sides = [[place for place, yes in truth.items() if yes is side] for side in (True, False)]
        count = min(map(len, sides))
        for side, places in zip((True, False), sides, strict=True):
            for turn, index in enumerate(seed.permutation(len(places))[:count]):
                # Every second asks the other way round, so that "no" is not the answer of the normal alone.
                turned = topic == "abnormal" and turn % 2 == 1
                answer = "yes" if side is not turned else "no"
                plans[places[index]].append(Planned("normal" if turned else topic, name, answer))
    for name, most in PLACES.items():
        by_answer: dict[str, list[int]] = defaultdict(list)
        for place, label in enumerate(labels):
            if (answer := getattr(label, name)) is not None:
                by_answer[answer].append(place)
        count = min(map(len, by_answer.values()), default=0) * most
        for answer, places in sorted(by_answer.items()) if len(by_answer) > 1 else ():
            for index in seed.permutation(len(places))[:count]:
                plans[places[index]].append(Planned("place", name, answer))
    return plans


def _truths(labels: Sequence[Label]) -> dict[tuple[str, str], dict[int, bool]]:
    """Topic and name of every question of yes or no -> place of each label that can answer it, and whether it is so."""
    truths: dict[tuple[str, str], dict[int, bool]] = defaultdict(dict)
    findings = sorted({label.finding for label in labels if label.finding and label.normal is False})
    absent = {label.finding for label in labels if label.normal and label.finding.startswith("no ")} - {NO_ABNORMALITY}
    for place, label in enumerate(labels):
        if label.normal is not None:
            truths["abnormal", ""][place] = not label.normal
            for name in findings if len(findings) > 1 else ():
                truths["finding", name][place] = label.finding == name
            for name in sorted(absent):
                truths["finding", name[3:]][place] = not label.normal
        for sign, there in label.signs.items():
            truths["sign", sign][place] = there
        for quadrant in QUADRANTS if label.boxes is not None and label.boxed else ():
            lies = label.lies_in(quadrant)
            if lies is not None:
                truths["quadrant", quadrant][place] = lies
    return truths


def planned_question(one: Planned, label: Label, rng: np.random.Generator) -> Question:
    """A planned question in words."""
    if one.topic == "place":
        return _place_question(one, label, rng)
    if one.topic in ("abnormal", "normal"):
        present = TUMOUR_PRESENT if label.modality == "histopathology" else LESION_PRESENT
        wordings = present if one.topic == "abnormal" else LESION_ABSENT
        return Question("abnormality detection", pick_wording(wordings, rng, kind=label.kind), one.answer)
    if one.topic == "quadrant":
        a = one_finding(label.boxed)
        wording = pick_wording(FINDING_IN_QUADRANT, rng, kind=label.kind, place=one.name, a=a)
        return Question("localization", _sentence(wording), one.answer)
    wording = pick_wording(FINDING_PRESENT, rng, kind=label.kind, a=one_finding(one.name))
    return Question("abnormality detection", _sentence(wording), one.answer)


def _place_question(one: Planned, label: Label, rng: np.random.Generator) -> Question:
    question = pick_wording(WORDINGS_OF_PLACE[one.name], rng, kind=label.kind, thing=label.thing)
    if label.thing != label.boxed:
        question = question.replace("is the", "are the").replace("Is the", "Are the").replace(" lies in", " lie in")
    return Question("localization", question, one.answer)


def _sentence(words: str) -> str:
    """With a capital first and the verb of a plural where "B-lines" or the like follow."""
    for plural_start in ("B-lines", "A-lines", "consolidations"):
        words = words.replace(f"Is there {plural_start}", f"Are there {plural_start}")
        words = words.replace(f"Is {plural_start}", f"Are {plural_start}")
        words = words.replace(f"is there {plural_start}", f"are there {plural_start}")
    return words


def label_caption(label: Label, rng: np.random.Generator, finding: str | None = None) -> str:
    """One sentence with the modality, mostly the anatomy, and the finding or that there is none.

    Args:
        finding: told in place of the label's own, for a false caption; it must differ from it.
    """
    facts = {name: value for name, value in label.facts().items() if name in ("modality", "region", "plane")}
    sentence = caption(facts, label.kind, rng).removesuffix(".")
    if label.normal is None:
        return f"{sentence}."
    told = label.finding if finding is None else finding
    if is_normal(told) or (finding is None and label.normal):
        return f"{sentence} without abnormality."
    return f"{sentence} showing {one_finding(told)}."


def label_questions(
    label: Label, plan: Sequence[Planned], findings: Sequence[str], rng: np.random.Generator
) -> list[tuple[str, Question]]:
    """The questions about one medium, each with a name that is unique among them.

    Args:
        plan: its planned questions, see `planned`.
        findings: of its source, this one's among them; two or more make a choice.
    """
    made = [(f"{one.topic} {one.name}".strip().replace(" ", "-"), planned_question(one, label, rng)) for one in plan]
    made += _recognition(label, rng)
    made += _diagnosis(label, findings, rng)
    for name, count in label.counts.items():
        task, wordings = OPEN_WORDINGS["count"]
        made.append(
            (
                f"count-{name.replace(' ', '-')}",
                Question(task, pick_wording(wordings, rng, thing=name, kind=label.kind), str(count)),
            )
        )
    for name, grade in label.grades.items():
        task, wordings = OPEN_WORDINGS["severity"]
        made.append(
            (
                f"grade-{name.replace(' ', '-')}",
                Question(task, pick_wording(wordings, rng, thing=name, kind=label.kind), grade),
            )
        )
    if rng.random() < 0.5:
        made.append(("caption", _captioned(label, rng)))
    if rng.random() < 0.5:
        made.append(("matching", _matched(label, findings, rng)))
    return made


def _recognition(label: Label, rng: np.random.Generator) -> list[tuple[str, Question]]:
    """Modality, anatomy and view: half of the time each; sometimes whether it is medical at all."""
    facts = {name: value for name, value in label.facts().items() if name in ("modality", "region", "plane")}
    by_task: dict[str, list[Question]] = {}
    for one in questions(facts, label.kind, rng):
        by_task.setdefault(one.task, []).append(one)
    made = [
        (task.split()[0].replace("/", "-"), some[0]) for task, some in sorted(by_task.items()) if rng.random() < 0.6
    ]
    if rng.random() < 0.15:
        made.append(
            ("medical", Question("modality recognition", pick_wording(MEDICAL_PICTURE, rng, kind=label.kind), "yes"))
        )
    return made


def _diagnosis(label: Label, findings: Sequence[str], rng: np.random.Generator) -> list[tuple[str, Question]]:
    if label.normal is None:
        return []
    task, wordings = OPEN_WORDINGS["finding"]
    abnormality = NO_ABNORMALITY if label.normal else label.finding
    made = [("abnormality", Question(task, pick_wording(wordings, rng, kind=label.kind), abnormality))]
    if len(findings) > 1:
        made.append(("diagnosis", Question(task, pick_wording(DIAGNOSIS, rng, kind=label.kind), label.finding)))
        made.append(("choice", _choice(label, findings, rng)))
    return made


def _choice(label: Label, findings: Sequence[str], rng: np.random.Generator) -> Question:
    others = [name for name in findings if name != label.finding]
    drawn = [others[i] for i in rng.permutation(len(others))[: len(LETTERS) - 1]]
    offered = [label.finding, *drawn]
    choices = {LETTERS[place]: offered[i] for place, i in enumerate(rng.permutation(len(offered)))}
    letter = next(letter for letter, words in choices.items() if words == label.finding)
    question = asked(pick_wording(CHOICE_OF_DIAGNOSIS, rng, kind=label.kind), choices)
    return Question("diagnosis", question, answered(letter, choices))


def _captioned(label: Label, rng: np.random.Generator) -> Question:
    task: Task = "report generation and captioning"
    if rng.random() < 0.5:
        return Question(task, caption_request(label.kind, rng), label_caption(label, rng))
    return Question(task, pick_wording(REPORT_REQUESTS, rng, kind=label.kind), report(label.facts(), label.kind))


def _matched(label: Label, findings: Sequence[str], rng: np.random.Generator) -> Question:
    """Whether a caption fits: a false one names another finding of the source, or else another modality or region."""
    others = [name for name in findings if name != label.finding and not (label.normal and is_normal(name))]
    if label.normal is None or not others or rng.random() < 0.5:
        return matching_question(
            {k: v for k, v in label.facts().items() if k in ("modality", "region", "plane")}, label.kind, rng
        )
    fits = bool(rng.random() < 0.5)
    sentence = label_caption(label, rng, None if fits else others[int(rng.integers(len(others)))])
    wording = pick_wording(MATCHING, rng, kind=label.kind, sentence=sentence)
    return Question("image-text matching", wording, "yes" if fits else "no")


def follow_ups(label: Label, plan: Iterable[Planned], split: str, rng: np.random.Generator) -> list[tuple[str, str]]:
    """A conversation whose later answers agree with the earlier: presence, kind, place, and what cannot be told.

    It begins with the presence only where that is planned, so that "yes" is no commoner than "no".
    """
    if label.normal is None:
        return []
    turns = []
    if any(one.topic in ("abnormal", "normal") for one in plan):
        present = pick_wording(LESION_PRESENT, rng, kind=label.kind)
        turns.append((present, "no" if label.normal else "yes"))
        turns.append(
            (
                pick_wording(WHAT_IS_IT[-1:] if label.normal else WHAT_IS_IT, rng),
                NO_ABNORMALITY if label.normal else label.finding,
            )
        )
    else:
        wordings = OPEN_WORDINGS["finding"][1]
        turns.append((pick_wording(wordings, rng, kind=label.kind), NO_ABNORMALITY if label.normal else label.finding))
    if label.normal:
        if rng.random() < 0.5:
            turns.append((pick_wording(WHERE_IS_IT, rng), NOTHING_THERE))
    elif label.quadrant:
        turns.append((pick_wording(WHERE_IS_IT, rng), label.quadrant))
    shown = Shown(label.kind, label.modality, label.anatomy)
    names = ("age", "size", "prognosis", "history", "treatment", "change")
    unknown = cannot_tell(names[int(rng.integers(len(names)))], shown, split, rng)
    if unknown is not None and rng.random() < 0.7:
        turns.append((unknown.question, unknown.answer))
    if rng.random() < 0.3:
        thanks = small_talk(split, rng, "thanks")
        turns.append((thanks.question, thanks.answer))
    return turns if len(turns) > 1 else []
