# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Questions with four choices, in the words of M3D: "… Choices: A. kidney B. liver C. … D. …", answered "B. liver"."""

from __future__ import annotations

import re
from typing import Any

from data_engine.adapters.base import BrokenRow, text

LETTERS = "ABCD"


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


def answered(letter: str, choices: dict[str, str]) -> str:
    """The right choice with its letter; raises `BrokenRow` for a letter that is no choice."""
    if letter not in choices:
        raise BrokenRow(f"the answer is {letter!r}, which is none of the choices {', '.join(choices)}.")
    return f"{letter}. {choices[letter]}"
