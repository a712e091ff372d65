# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Right answers by task, modality and kind, beside the blind baseline and the most frequent answer.

    python -m evaluation.breakdown runs/seeing/predictions.jsonl runs/blind/predictions.jsonl --markdown OUT.md

Short answers are exactly right or wrong (`evaluation.score`). Reports and captions, whose words vary, stand apart with
ROUGE-L. Every share has a 95 % bootstrap interval over media, and so has the difference seeing less blind, paired by
question. Yes/no questions of a task stand apart from its others, and naming the modality from naming contrast or stain.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from data_engine.answers import normalise
from data_engine.records import REPORTS
from data_engine.tables import markdown_table
from evaluation.compare import paired_difference, pairs_of
from evaluation.metrics import bootstrap_interval
from evaluation.score import Predictions, Scored, mean, score_file

Pair = tuple[Scored, Scored]
"""The same question, answered seeing and blind."""
MODALITY_NAMED = "modality named"


def task_of(one: Scored) -> str:
    """The row of the table that a question belongs to."""
    task = str(one.row.get("task"))
    if one.kind == "closed":
        return f"{task}, yes/no"
    if one.kind == "open" and normalise(str(one.row["answer"])) == normalise(str(one.row.get("modality"))):
        return MODALITY_NAMED
    return f"{task}, {one.kind}"


def figures(pairs: Sequence[Pair], score: Callable[[Scored], float] = lambda one: float(one.right)) -> dict[str, Any]:
    """One row: mean scores of both runs, their paired difference, and the most frequent true answer's share."""
    values = [(score(seeing), score(blind)) for seeing, blind in pairs]
    groups = [seeing.group for seeing, _ in pairs]
    answers = Counter(normalise(str(seeing.row["answer"])) for seeing, _ in pairs)
    # The difference of compare is second less first; here the seeing run is the one to be judged.
    gain = paired_difference([(blind, seeing) for seeing, blind in values], groups)
    return {
        "accuracy": mean([seeing for seeing, _ in values]),
        "interval": bootstrap_interval([seeing for seeing, _ in values], groups),
        "count": len(pairs),
        "blind": gain["a"],
        "blind_interval": bootstrap_interval([blind for _, blind in values], groups),
        "gain": gain["difference"],
        "gain_interval": gain["interval"],
        "most_frequent_answer": answers.most_common(1)[0][1] / len(pairs),
    }


def breakdown(seeing: Predictions, blind: Predictions) -> dict[str, Any]:
    """All rows: over all short answers, by task, modality and kind of media; and reports by ROUGE-L.

    Raises:
        ValueError: the runs have no question in common, or not all.
    """
    pairs, changed = pairs_of(seeing, blind)
    if changed or not len(pairs) == len(seeing.scored) == len(blind.scored):
        raise ValueError("the two runs were not asked the same questions; finish both, on the same data")
    short = [pair for pair in pairs.values() if pair[0].row.get("task") != REPORTS]
    reports = [pair for pair in pairs.values() if pair[0].row.get("task") == REPORTS]
    if not short:
        raise ValueError("no question has a short answer; look at the scores of each run instead")

    def split(key: Callable[[Scored], str]) -> dict[str, Any]:
        groups: dict[str, list[Pair]] = {}
        for pair in short:
            groups.setdefault(key(pair[0]), []).append(pair)
        return {name: figures(group) for name, group in sorted(groups.items())}

    result = {
        "all": figures(short),
        "task": split(task_of),
        "modality": split(lambda one: str(one.row.get("modality"))),
        "kind": split(lambda one: str(one.row.get("dimension"))),
    }
    if reports:
        result["reports_rouge_l"] = figures(reports, lambda one: one.scores["rougel"])
        del result["reports_rouge_l"]["most_frequent_answer"]  # says nothing about sentences that are all different
    return result


def points(value: float, sign: str = "") -> str:
    """A share times 100 as text: "34.6", or with the sign "+" a difference: "−3.3"."""
    return f"{100 * value:{sign}.1f}".replace("-", "−")


def percent(value: float | None, sign: str = "") -> str:
    """A share as text: "34.6 %", or with the sign "+" a difference: "−3.3 %"."""
    return "–" if value is None else f"{points(value, sign)} %"


def span(interval: Sequence[float] | None, sign: str = "") -> str:
    """An interval of shares in percent as text: "31.6–37.6", "−1.2 to +3.4"."""
    if interval is None:
        return "–"
    low, high = (points(end, sign) for end in interval)
    return f"{low} to {high}" if sign else f"{low}–{high}"


def markdown(result: dict[str, Any]) -> str:
    """Tables for a README: by task, by modality, by kind."""
    tables = []
    for title, rows in (
        ("question", {"all short answers": result["all"], **result["task"]}),
        ("modality", result["modality"]),
        ("kind", result["kind"]),
        ("reports and captions", {"ROUGE-L": result["reports_rouge_l"]} if "reports_rouge_l" in result else {}),
    ):
        if not rows:
            continue
        header = [title, "right", "95 % interval", "blind", "seeing less blind", "most frequent answer", "n"]
        body = [
            [
                name,
                percent(one["accuracy"]),
                span(one["interval"]),
                percent(one["blind"]),
                f"{percent(one['gain'], '+')} ({span(one['gain_interval'], '+')})",
                percent(one.get("most_frequent_answer")),
                str(one["count"]),
            ]
            for name, one in rows.items()
        ]
        tables.append(markdown_table(header, body))
    return "\n\n".join(tables) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("seeing", type=Path, help="predictions of a run of evaluation.run")
    parser.add_argument("blind", type=Path, help="predictions of the same command with --blind")
    parser.add_argument("--json", type=Path, help="where the figures are written")
    parser.add_argument("--markdown", type=Path, help="where the tables are written")
    arguments = parser.parse_args()
    try:
        result = breakdown(score_file(arguments.seeing), score_file(arguments.blind))
    except ValueError as error:
        parser.error(str(error))
    print(markdown(result), end="")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    if arguments.markdown:
        arguments.markdown.write_text(markdown(result), encoding="utf-8")


if __name__ == "__main__":
    main()
