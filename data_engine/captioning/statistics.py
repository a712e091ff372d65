# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Figures of a captioning run: how much was accepted, how well the judges agree, and what it cost."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import asdict
from typing import Any

from sklearn.metrics import cohen_kappa_score

from data_engine.captioning.judging import CRITERIA, HIGHEST_SCORE, Decision
from data_engine.captioning.ledger import Totals

SCORES = list(range(1, HIGHEST_SCORE + 1))
ScorePairs = Counter[tuple[int, int]]
"""(one judge's score, the other's) -> how often."""


def weighted_kappa(pairs: ScorePairs) -> float | None:
    """Cohen's kappa with quadratic weights (Cohen, 1968): 1 agrees always, 0 as by chance.

    None where it is not defined: no pairs, or both judges gave one and the same score throughout.
    """
    if len({score for pair in pairs for score in pair}) < 2:
        return None
    first, second = zip(*pairs, strict=True)
    counts = list(pairs.values())
    return round(float(cohen_kappa_score(first, second, labels=SCORES, weights="quadratic", sample_weight=counts)), 4)


def exact_agreement(pairs: ScorePairs) -> float | None:
    """The share of pairs with equal scores; None without pairs."""
    equal = sum(count for (first, second), count in pairs.items() if first == second)
    return round(equal / pairs.total(), 4) if pairs else None


class Statistics:
    """Sums over decisions, in constant memory and time."""

    def __init__(self, judges: list[str]):
        self.judges = judges
        self.accepted = self.rejected = 0
        self.failures: dict[str, str] = {}
        self.candidates: Counter[str] = Counter()
        self.accepted_scores = 0.0
        self.asked: Counter[str] = Counter()
        self.asked_again: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self.scores: dict[tuple[str, str], Counter[int]] = {
            (judge, criterion): Counter() for judge in judges for criterion in CRITERIA
        }
        self.pairs: dict[tuple[str, str, str], ScorePairs] = {
            (*pair, criterion): Counter() for pair in itertools.combinations(judges, 2) for criterion in CRITERIA
        }

    def add(self, decision: Decision) -> None:
        """Counts a decision."""
        self.accepted += decision.chosen is not None
        self.rejected += decision.chosen is None
        self.accepted_scores += (decision.chosen and decision.chosen.score) or 0.0
        for candidate in decision.candidates:
            self.candidates["asked for"] += 1
            self.candidates["without a caption"] += not candidate.caption
            self.candidates["without a score"] += bool(candidate.caption) and candidate.score is None
            scores = {}
            for verdict in candidate.verdicts:
                self.asked[verdict.judge] += 1
                self.asked_again[verdict.judge] += bool(verdict.problem)
                self.failed[verdict.judge] += verdict.judgement is None
                if verdict.judgement is not None:
                    scores[verdict.judge] = verdict.judgement.scores
            for judge, criterion in itertools.product(scores, CRITERIA):
                self.scores[judge, criterion][scores[judge][criterion]] += 1
            for first, second in itertools.combinations([judge for judge in self.judges if judge in scores], 2):
                for criterion in CRITERIA:
                    self.pairs[first, second, criterion][scores[first][criterion], scores[second][criterion]] += 1

    def add_failure(self, item_id: str, reason: str) -> None:
        """Counts an item that could not be decided."""
        self.failures[item_id] = reason

    @property
    def acceptance(self) -> float | None:
        """Accepted items of those that were decided."""
        decided = self.accepted + self.rejected
        return round(self.accepted / decided, 4) if decided else None

    @property
    def agreement(self) -> float | None:
        """Exact agreement over all pairs of judges and all criteria."""
        return exact_agreement(sum(self.pairs.values(), Counter()))

    def brief(self, totals: Totals) -> dict[str, str]:
        """A few words for the progress bar."""
        words = {"accepted": "-" if self.acceptance is None else f"{self.acceptance:.0%}"}
        words |= {"failed": str(len(self.failures))} if self.failures else {}
        words |= {"tokens": f"{totals.input_tokens + totals.output_tokens:,}", "cost": f"{totals.cost:.2f}"}
        return words | ({} if self.agreement is None else {"agree": f"{self.agreement:.0%}"})

    def summary(self, items: int, totals: Totals, seconds: float) -> dict[str, Any]:
        """All figures for JSON.

        Args:
            items: how many there are to decide.
            totals: of the ledger, so over all runs that wrote to it.
            seconds: that this run took.
        """
        return {
            "items": items,
            "accepted": self.accepted,
            "rejected": self.rejected,
            "failed": len(self.failures),
            "acceptance": self.acceptance,
            "mean_accepted_score": round(self.accepted_scores / self.accepted, 4) if self.accepted else None,
            "candidates": dict(self.candidates),
            "judges": {judge: self._of_judge(judge) for judge in self.judges},
            "agreement": {
                f"{first} / {second}": {
                    criterion: self._of_pairs(self.pairs[first, second, criterion]) for criterion in CRITERIA
                }
                for first, second in itertools.combinations(self.judges, 2)
            },
            "spent": {
                name: round(value, 6) if isinstance(value, float) else value for name, value in asdict(totals).items()
            },
            "seconds_of_this_run": round(seconds, 1),
            "failures": self.failures,
        }

    def _of_judge(self, judge: str) -> dict[str, Any]:
        means = {}
        for criterion in CRITERIA:
            counts = self.scores[judge, criterion]
            total = sum(score * count for score, count in counts.items())
            means[criterion] = round(total / counts.total(), 4) if counts else None
        return {
            "asked": self.asked[judge],
            "asked_again": self.asked_again[judge],
            "failed": self.failed[judge],
            "mean_scores": means,
        }

    @staticmethod
    def _of_pairs(pairs: ScorePairs) -> dict[str, Any]:
        return {"scored": pairs.total(), "exact": exact_agreement(pairs), "weighted_kappa": weighted_kappa(pairs)}
