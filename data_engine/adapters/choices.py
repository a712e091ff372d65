# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Questions with choices, in the words of M3D: "… Choices: A. kidney B. liver C. … D. …", answered "B. liver".

Where a set has other numbers of choices than four, each stands in a line of its own: then a text such as "E. coli" is
not taken for one more choice.
"""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from typing import Any

from data_engine.adapters.base import BrokenRow, text

LETTERS = "ABCD"
LEADING_LETTER = re.compile(r"^\(?[A-Z]\s*[:.)]\s+")


def choices_of(entry: dict[str, Any]) -> dict[str, str]:
    """Letter -> words of the columns "Choice A" to "Choice D", without a letter that the words repeat ("A: kidney")."""
    choices = {}
    for letter in LETTERS:
        words = re.sub(rf"^{letter}\s*[:.)]\s*", "", text(entry, f"Choice {letter}"))
        if not words:
            raise BrokenRow(f"'Choice {letter}' is empty.")
        choices[letter] = words
    return choices


def asked(question: str, choices: dict[str, str]) -> str:
    """The question with its choices."""
    return f"{question} Choices: {' '.join(f'{letter}. {words}' for letter, words in choices.items())}"


def lettered(texts: Sequence[Any]) -> dict[str, str]:
    """Letter -> words of two or more choices in their order; raises `BrokenRow` for fewer, too many, or an empty one.

    Letters that all the texts carry themselves ("A. liver") are taken off.
    """
    words = [" ".join(str(one).split()) for one in texts]
    if not 2 <= len(words) <= len(string.ascii_uppercase) or not all(words):
        raise BrokenRow("the choices are fewer than two, too many, or one of them is empty.")
    pairs = list(zip(string.ascii_uppercase, words, strict=False))
    if all(LEADING_LETTER.match(one) and one.lstrip("(")[0] == letter for letter, one in pairs):
        pairs = [(letter, LEADING_LETTER.sub("", one)) for letter, one in pairs]
    return dict(pairs)


def asked_in_lines(question: str, choices: dict[str, str]) -> str:
    """The question with any number of choices, one a line."""
    return "\n".join([f"{question} Choices:", *(f"{letter}. {words}" for letter, words in choices.items())])


def answered(letter: str, choices: dict[str, str]) -> str:
    """The right choice with its letter; raises `BrokenRow` for a letter that is no choice."""
    if letter not in choices:
        raise BrokenRow(f"the answer is {letter!r}, which is none of the choices {', '.join(choices)}.")
    return f"{letter}. {choices[letter]}"
