# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Scores answers about tumours by DeepTumorVQA 2.0's own rule (Chen et al., arXiv 2505.18915), written anew here.

A free answer with a number has 1 minus its relative error, at least 0, and counts as a hit within 5, 10, 20 and 50 % of
the true one; where that is 0, only 0 is right. Yes and no are read off the reply. Any other answer must be the same but
for capitals and punctuation. A choice is the reply's first character if that is one of its letters, else the first
letter that stands alone.
"""

from __future__ import annotations

import re

from data_engine.answers import THOUGHT, true_yes_or_no, yes_or_no

WITHIN = (5, 10, 20, 50)
"""Percent of the true number."""
HITS = tuple(f"within_{percent}_percent" for percent in WITHIN)
FREE_METRICS = ("free_score", *HITS)
NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?")
LETTERS = "ABCD"


def free_scores(reply: str, answer: str) -> dict[str, float]:
    """`free_score`, and the hits where the true answer begins with a number; the first number of the reply counts."""
    reply = THOUGHT.sub("", reply).strip()
    if number := NUMBER.match(answer.strip()):
        said = NUMBER.search(reply)
        error = relative_error(float(said[0]), float(number[0])) if said else float("inf")
        hits = {name: float(error <= percent / 100) for name, percent in zip(HITS, WITHIN, strict=True)}
        return {"free_score": max(0.0, 1 - error), **hits}
    truth = true_yes_or_no(answer)
    right = plain(reply) == plain(answer) if truth is None else yes_or_no(reply) is truth
    return {"free_score": float(right)}


def relative_error(said: float, true: float) -> float:
    """How far a number is from the true one, as a share of that; of 0, all others are infinitely far."""
    if true == 0:
        return 0.0 if said == 0 else float("inf")
    return abs(said - true) / abs(true)


def plain(text: str) -> str:
    """Lower-case words without punctuation, one space apart."""
    return " ".join(re.sub(r"[^\w\s]", "", text.lower()).split())


def is_choice_right(reply: str, answer: str) -> bool:
    """Whether a reply names the letter of the right choice; by this rule "Answer: B" says A."""
    reply = THOUGHT.sub("", reply).strip()
    if reply[:1] in tuple(LETTERS):
        return reply[0] == answer[:1]
    alone = re.search(rf"\b[{LETTERS}]\b", reply)
    return alone is not None and alone[0] == answer[:1]
