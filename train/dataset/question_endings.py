# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Requests for a short answer, as public evaluations put them after every question: some training questions get one.

LLaVA-1.5 (Liu et al., arXiv 2310.03744, section 3.2) is trained with such requests, and toolkits put them after the
questions that they ask any model. A model that never met one reads it as a part of the question.
"""

from __future__ import annotations

import re

import numpy as np

from data_engine.records import MEDIA_PLACEHOLDER
from data_engine.unanswerable import CANNOT_TELL, NOT_MEDICAL

Turns = tuple[tuple[str, str], ...]
SHORT_ANSWER = 4
"""Words at most of an answer that agrees with such a request."""
SHORTLY = (
    "Answer the question using a single word or phrase.",
    "Answer with a single word or phrase.",
    "Answer in one word or a short phrase.",
    "Answer briefly.",
    "Give a short answer.",
    "A word or two will do.",
)
YES_OR_NO = ("Please answer yes or no.", "Answer yes or no.", "Answer with yes or no only.", "Yes or no?")


def with_endings(turns: Turns, share: float, rng: np.random.Generator) -> Turns:
    """Questions and answers, where a share of the questions with a short answer ends in a request for one.

    So do questions that are declined, because a request does not change what can be told.
    """
    return tuple(
        (f"{question}{_separator(rng)}{_request(answer, rng)}", answer)
        if _agrees(question, answer) and rng.random() < share
        else (question, answer)
        for question, answer in turns
    )


def _agrees(question: str, answer: str) -> bool:
    """Whether a request for a short answer may follow; a question of several lines has its choices there."""
    declines = answer.startswith((CANNOT_TELL, NOT_MEDICAL))
    words = question.replace(MEDIA_PLACEHOLDER, "").strip()
    return "\n" not in words and (declines or len(answer.split()) <= SHORT_ANSWER)


def _request(answer: str, rng: np.random.Generator) -> str:
    closed = re.match(r"(?:yes|no)\b", answer, re.IGNORECASE)
    requests = YES_OR_NO + SHORTLY if closed else SHORTLY
    return requests[int(rng.integers(len(requests)))]


def _separator(rng: np.random.Generator) -> str:
    return "\n" if rng.random() < 0.5 else " "
