# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Scores: how a judge's answer is read, what a candidate's score is, and which candidate is kept."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field, StrictInt, ValidationError

from data_engine.records import Strict

CRITERIA = ("relevance", "fluency", "accuracy")
HIGHEST_SCORE = 5
_REASONING = re.compile(r"<think>.*?</think>", re.DOTALL)


class JudgementError(ValueError):
    """A judge's answer that is not what it was asked for; the sentence is for the judge, who may answer again."""


class Score(Strict):
    """One criterion: 1 to 5, and why."""

    score: Annotated[StrictInt, Field(ge=1, le=HIGHEST_SCORE)]
    reason: Annotated[str, Field(min_length=1)]


class Judgement(Strict):
    """One judge's scores of one caption (the paper's Figure 4: relevance, fluency and accuracy, of 5 each)."""

    relevance: Score
    fluency: Score
    accuracy: Score

    @property
    def scores(self) -> dict[str, int]:
        """Criterion -> score."""
        return {criterion: getattr(self, criterion).score for criterion in CRITERIA}


def without_reasoning(answer: str) -> str:
    """An answer without the thoughts that reasoning models put before it, and without white space around it."""
    return _REASONING.sub("", answer).strip()


def parse_judgement(answer: str) -> Judgement:
    """Reads the one JSON object of an answer; words and code fences around it are passed over, inside all is strict.

    Raises:
        JudgementError: no object, a missing or unknown field, or a score that is no whole number from 1 to 5.
    """
    words = without_reasoning(answer)
    start, end = words.find("{"), words.rfind("}")
    if not 0 <= start < end:
        raise JudgementError("It holds no JSON object.")
    try:
        return Judgement.model_validate_json(words[start : end + 1])
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, one['loc'])) or 'JSON'}: {one['msg']}" for one in error.errors()]
        raise JudgementError(f"{'; '.join(problems)}.") from None


@dataclass(frozen=True)
class Verdict:
    """What came of asking one judge about one candidate.

    Attributes:
        judge: its model.
        judgement: None where its answer and its second answer could not be read.
        problem: what was wrong with the last answer that could not be read; empty if none was.
    """

    judge: str
    judgement: Judgement | None
    problem: str = ""


@dataclass(frozen=True)
class Candidate:
    """One caption with what the judges say.

    Attributes:
        number: from 0, in the order of the seeds.
        caption: empty where the generator wrote nothing or did not come to an end.
        verdicts: one a judge; none where there is no caption.
    """

    number: int
    caption: str
    verdicts: tuple[Verdict, ...] = ()

    @property
    def score(self) -> float | None:
        """Mean over judges and criteria; None unless every judge has scored it, so that no one's veto gets lost."""
        judgements = [verdict.judgement for verdict in self.verdicts if verdict.judgement is not None]
        if not judgements or len(judgements) < len(self.verdicts):
            return None
        scores = [score for judgement in judgements for score in judgement.scores.values()]
        return sum(scores) / len(scores)


@dataclass(frozen=True)
class Decision:
    """What became of one item.

    Attributes:
        candidates: all of them.
        chosen: the one that is kept; None rejects the item.
    """

    item_id: str
    candidates: tuple[Candidate, ...]
    chosen: Candidate | None


def decide(item_id: str, candidates: Sequence[Candidate], threshold: float) -> Decision:
    """Keeps the candidate with the highest score, the earlier of equal ones, if it reaches the threshold."""
    passed = [
        (score, candidate) for candidate in candidates if (score := candidate.score) is not None and score >= threshold
    ]
    _, best = max(passed, key=lambda scored: scored[0], default=(0.0, None))
    return Decision(item_id, tuple(candidates), best)
