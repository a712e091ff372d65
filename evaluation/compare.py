# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Compares two runs question by question: `python -m evaluation.compare A.jsonl B.jsonl --json OUT`.

Both files are scored as `evaluation.score` does by default and paired by question id. Said are the questions that
flipped from right to wrong or back, McNemar's exact test of whether the two directions differ, and every figure's
difference, B less A, with a 95 % paired bootstrap interval. Questions of only one file are listed and not compared.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Hashable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from scipy.stats import binomtest

from data_engine.answers import normalise
from evaluation.metrics import bootstrap_interval
from evaluation.score import KEYS, KINDS, Predictions, Scored, mean, score_file


def mcnemar(right_to_wrong: int, wrong_to_right: int) -> float:
    """Two-sided p-value of McNemar's exact test (McNemar 1947): whether flips are as likely in either direction.

    1 where nothing flipped.
    """
    flips = right_to_wrong + wrong_to_right
    return float(binomtest(right_to_wrong, flips, 0.5).pvalue) if flips else 1.0


def compare(first: Predictions, second: Predictions) -> dict[str, Any]:
    """What changed from the first run to the second.

    Raises:
        ValueError: a row has no id, or no question is in both runs.
    """
    a, b = _by_id(first), _by_id(second)
    pairs, changed = pairs_of(first, second)
    flipped = {
        direction: [_flip(*pair) for pair in pairs.values() if (pair[0].right, pair[1].right) == rights]
        for direction, rights in {"right_to_wrong": (True, False), "wrong_to_right": (False, True)}.items()
    }
    differences = {}
    for kind in KINDS:
        of_kind = [pair for pair in pairs.values() if pair[0].kind == kind]
        for key in KEYS["standard"][kind]:
            values = [(before.scores[key], after.scores[key]) for before, after in of_kind]
            groups = [before.group for before, _ in of_kind]
            differences[key] = paired_difference(values, groups) if of_kind else None
    rights = [(float(before.right), float(after.right)) for before, after in pairs.values()]
    only_in = {"a": [name for name in a if name not in b], "b": [name for name in b if name not in a]}
    return {
        "n_paired": len(pairs),
        "right": paired_difference(rights, [before.group for before, _ in pairs.values()]),
        "n_right_to_wrong": len(flipped["right_to_wrong"]),
        "n_wrong_to_right": len(flipped["wrong_to_right"]),
        "mcnemar_p": mcnemar(len(flipped["right_to_wrong"]), len(flipped["wrong_to_right"])),
        "differences": differences,
        **flipped,
        "n_only_in_a": len(only_in["a"]),
        "n_only_in_b": len(only_in["b"]),
        "n_changed": len(changed),
        "only_in_a": only_in["a"],
        "only_in_b": only_in["b"],
        "changed": changed,
        "broken_a": [asdict(one) for one in first.broken],
        "broken_b": [asdict(one) for one in second.broken],
        "settings_a": first.settings,
        "settings_b": second.settings,
    }


def pairs_of(first: Predictions, second: Predictions) -> tuple[dict[str, tuple[Scored, Scored]], list[str]]:
    """The questions of both runs by id, and the ids whose question is not the same in both.

    Raises:
        ValueError: a row has no id, or no question is in both runs.
    """
    a, b = _by_id(first), _by_id(second)
    both = {name: (a[name], b[name]) for name in a if name in b}
    pairs = {name: pair for name, pair in both.items() if _question(pair[0]) == _question(pair[1])}
    if not pairs:
        raise ValueError("the two files have no question in common: compare two runs of the same benchmark")
    return pairs, [name for name in both if name not in pairs]


def _by_id(predictions: Predictions) -> dict[str, Scored]:
    for one in predictions.scored:
        if one.id is None:
            raise ValueError(f"line {one.line} has no id: give each row of both files the id of its question")
    return {one.id: one for one in predictions.scored}


def _question(one: Scored) -> tuple[str, str]:
    """What must be the same in both runs: the kind of question and its true answer."""
    return one.kind, normalise(str(one.row.get("answer")))


def _flip(before: Scored, after: Scored) -> dict[str, Any]:
    row = before.row
    return {
        "id": before.id,
        "question": row.get("question"),
        "answer": row.get("answer"),
        "prediction_a": row.get("prediction"),
        "prediction_b": after.row.get("prediction"),
    }


def paired_difference(values: Sequence[tuple[float, float]], groups: Sequence[Hashable]) -> dict[str, Any]:
    """Means of two runs and of their differences, second less first, with the interval of the latter.

    Args:
        values: both runs' scores of each question; at least one.
        groups: as in `bootstrap_interval`.
    """
    gains = [after - before for before, after in values]
    interval = bootstrap_interval(gains, groups)
    return {
        "a": mean([before for before, _ in values]),
        "b": mean([after for _, after in values]),
        "difference": mean(gains),
        "interval": None if interval is None else list(interval),
        "n": len(values),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("a", type=Path, help="predictions of the first run, JSON Lines")
    parser.add_argument("b", type=Path, help="predictions of the second run")
    parser.add_argument("--json", type=Path, help="where the comparison is written")
    arguments = parser.parse_args()
    try:
        result = compare(score_file(arguments.a), score_file(arguments.b))
    except ValueError as error:
        parser.error(str(error))
    right = result["right"]
    low, high = right["interval"] or (float("nan"), float("nan"))
    print(
        f"right {right['a']:.2%} -> {right['b']:.2%}, difference {right['difference']:+.2%} [{low:+.2%}, {high:+.2%}]"
        f" over {result['n_paired']} questions\n"
        f"{result['n_right_to_wrong']} right to wrong, {result['n_wrong_to_right']} wrong to right,"
        f" McNemar p = {result['mcnemar_p']:.3g}"
    )
    for name, text in (
        ("only_in_a", f"only in {arguments.a}"),
        ("only_in_b", f"only in {arguments.b}"),
        ("changed", "of another kind or with another true answer"),
        ("broken_a", f"broken in {arguments.a}"),
        ("broken_b", f"broken in {arguments.b}"),
    ):
        if result[name]:
            print(f"{len(result[name])} questions {text}")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
