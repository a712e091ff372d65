# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""What a batch run asks: a YAML file with questions, the series each is about, and how media are read and pruned.

max_new_tokens: 32                      # longest answer
reading: {max_frames: 32}               # arguments of load_clip, for all questions
pruning: {keep_ratio: 0.4}              # options of the pruner, for all questions
questions:
  - id: modality
    ask: Which imaging modality is this?
    answer: choice
    choices: [CT, MRI, ultrasound]
  - id: bleeding
    ask: Is there a hemorrhage?
    answer: yes/no
    modality: CT                        # only series with this DICOM modality code
    description: head|brain             # only series whose description this pattern is found in
    confidence: 0.6                     # below it the answer is "I cannot tell"
    reading: {windows: brain}           # goes before the reading above
"""

from __future__ import annotations

import json
import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from data_engine.answers import LEADING_LETTER, choice_letter, final_answer, fold, is_refusal, yes_or_no
from data_engine.files import YamlError, line_of, read_yaml
from data_engine.records import Strict
from hub_model.clip_omniv_med import MODALITY_CODES, MediaError, ReadingOptions

NUMBER = re.compile(r"(?<![\w.,])[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?![\d,.]*\d|[A-Z])")
"""A number, with its thousands grouped by commas or not at all; "L4" and the comma of "3,5" make none."""
NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


class QuestionsError(ValueError):
    """A file of questions that cannot be followed, in one sentence that names the line."""


class Reading(Strict):
    """How media are read; what each means says `load_clip`. Only fields that are given count."""

    plane: str = "axial"
    windows: Any = None
    volume_index: int = 0
    max_frames: int = 32
    fps: float = 1.0

    @model_validator(mode="after")
    def _can_be_read_so(self) -> Reading:
        try:
            ReadingOptions.check(**self.given())
        except MediaError as error:
            raise ValueError(str(error).rstrip(".")) from None
        return self

    def given(self) -> dict[str, Any]:
        """The arguments that the file gives."""
        return self.model_dump(exclude_unset=True)


class Pruning(Strict):
    """How visual tokens are pruned; what each means says `OmniVMedProcessor`. Only fields that are given count."""

    prune_rule: str = "anchor"
    prune_threshold: float = Field(default=0.1, ge=0)
    peak_threshold: float | None = Field(default=None, ge=0)
    keep_ratio: float | None = Field(default=None, gt=0, le=1)
    max_visual_tokens: int | None = Field(default=None, ge=1)

    @field_validator("prune_rule")
    @classmethod
    def _is_known(cls, given: str) -> str:
        # Not above: it imports torch, and a listing should not wait for that.
        from hub_model.token_pruning_omniv_med import PRUNE_RULES

        if given not in PRUNE_RULES:
            raise ValueError(f"one of {', '.join(PRUNE_RULES)}, not {given!r}")
        return given

    def given(self) -> dict[str, Any]:
        """The options that the file gives."""
        return self.model_dump(exclude_unset=True)


class Question(Strict):
    """One question.

    Attributes:
        id: its name in the results.
        ask: its words, as the model gets them.
        answer: how `read_value` reads the answer.
        choices: what the answer of a "choice" may be, by its text, or by its letter where `ask` lists them by letters.
        modality: DICOM codes of the series it is about, or everyday names ("MRI"); empty asks about all.
        description: pattern (a regular expression, case ignored) that is found in the description of these series, or
            in the path of a file that has none; None asks about all.
        confidence: below which it is declined; None takes the model's threshold.
        reading, pruning: go before those of the file.
    """

    id: str = Field(pattern=r"^[\w.-]+$")
    ask: str = Field(min_length=1)
    answer: Literal["text", "yes/no", "choice", "number"] = "text"
    choices: tuple[str, ...] = Field(default=(), max_length=len(string.ascii_uppercase))
    modality: tuple[str, ...] = ()
    description: str | None = None
    confidence: float | None = Field(default=None, ge=0, le=1)
    reading: Reading = Reading()
    pruning: Pruning = Pruning()

    @field_validator("modality", mode="before")
    @classmethod
    def _one_or_several(cls, given: object) -> object:
        return (given,) if isinstance(given, str) else given

    @field_validator("modality")
    @classmethod
    def _as_codes(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        codes = [one.strip().upper() for one in given]
        return tuple(MODALITY_CODES.get(code, code) for code in codes)

    @field_validator("description")
    @classmethod
    def _is_a_pattern(cls, given: str | None) -> str | None:
        try:
            re.compile(given or "")
        except re.error as error:
            raise ValueError(f"{given!r} is no regular expression: {error}") from None
        return given

    @model_validator(mode="after")
    def _has_choices_for_a_choice(self) -> Question:
        if (self.answer == "choice") != bool(self.choices):
            raise ValueError("answer: choice needs choices, and no other answer has any")
        return self

    def is_about(self, modality: str, described: str) -> bool:
        """Whether it is asked about a series with this DICOM code ("" if unknown) and this description or path."""
        fits = not self.modality or modality in self.modality
        return fits and (self.description is None or re.search(self.description, described, re.IGNORECASE) is not None)


@dataclass(frozen=True)
class Group:
    """Questions that are asked together, because they want a series read and pruned alike.

    Attributes:
        reading: arguments of `load_clip`.
        pruning: options of `process_clip`.
    """

    reading: Mapping[str, Any]
    pruning: Mapping[str, Any]
    questions: tuple[Question, ...]


class Questions(Strict):
    """A file of questions.

    Attributes:
        questions: in the order of the results.
        max_new_tokens: longest answer.
        reading, pruning: for all questions.
    """

    questions: tuple[Question, ...] = Field(min_length=1)
    max_new_tokens: int = Field(default=64, ge=1)
    reading: Reading = Reading()
    pruning: Pruning = Pruning()

    @model_validator(mode="after")
    def _names_each_once(self) -> Questions:
        names = [one.id for one in self.questions]
        if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
            raise ValueError(f"the id {twice[0]!r} is given to several questions; each needs its own")
        return self

    def groups_about(self, modality: str, described: str) -> list[Group]:
        """The questions about a series, those together that can share its visual tokens."""
        groups: dict[str, list[Question]] = {}
        for one in self.questions:
            if one.is_about(modality, described):
                groups.setdefault(json.dumps([self._reading_of(one), self._pruning_of(one)]), []).append(one)
        return [Group(self._reading_of(held[0]), self._pruning_of(held[0]), tuple(held)) for held in groups.values()]

    def _reading_of(self, question: Question) -> dict[str, Any]:
        return self.reading.given() | question.reading.given()

    def _pruning_of(self, question: Question) -> dict[str, Any]:
        return self.pruning.given() | question.pruning.given()

    @classmethod
    def read(cls, path: Path) -> Questions:
        """Reads a file of questions.

        Raises:
            QuestionsError: a file that is not there, or holds or lacks what it should not.
        """
        try:
            return cls.model_validate(read_yaml(path))
        except YamlError as error:
            raise QuestionsError(str(error)) from None
        except ValidationError as error:
            first = error.errors()[0]
            place = first["loc"]
            where = ".".join(map(str, place)) or "questions"
            problem = first["msg"].removeprefix("Value error, ")
            if first["type"] == "extra_forbidden":
                problem = f"not known here; known are {', '.join(_known_at(place[:-1]))}"
            raise QuestionsError(f"{path}, line {line_of(path, place)}: {where}: {problem}.") from None


def _known_at(place: Sequence[int | str]) -> list[str]:
    """The fields that may stand in a part of the file."""
    parts: dict[str, type[Strict]] = {"reading": Reading, "pruning": Pruning}
    held = parts.get(str(place[-1]), Question) if place else Questions
    return list(held.model_fields)


def read_value(question: Question, answer: str) -> str | None:
    """What an answer says, in the form that a table holds: "yes" or "no", a choice's text, or a number's digits.

    None where it says nothing of the kind, several things, or declines; the text itself for a "text".
    """
    if question.answer == "text":
        return None if is_refusal(answer) else answer
    if question.answer == "yes/no":
        said = yes_or_no(answer)
        return None if said is None else "yes" if said else "no"
    if question.answer == "choice":
        letter = choice_letter(answer, question.choices)
        # A small model may give one choice's letter and another one's text: "B. ultrasound", where B is MRI.
        reply = final_answer(answer)
        leading = LEADING_LETTER.match(reply)
        text = choice_letter(reply[leading.end() :] if leading else reply, question.choices)
        if letter is None or text not in (None, letter):
            return None
        return question.choices[string.ascii_uppercase.index(letter)]
    return _number_in(answer)


def _number_in(answer: str) -> str | None:
    """The one number in an answer, in digits ("3", "12.5"), or as a word up to ten."""
    said = fold(final_answer(answer)).replace("\N{MINUS SIGN}", "-")
    if is_refusal(said):
        return None
    numbers = {float(found.replace(",", "")) for found in NUMBER.findall(said)}
    numbers |= {float(NUMBER_WORDS.index(word)) for word in re.findall(r"[a-z]+", said.lower()) if word in NUMBER_WORDS}
    return f"{numbers.pop():.15g}" if len(numbers) == 1 else None
