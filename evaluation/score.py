# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Scores a file of predictions: `python -m evaluation.score PREDICTIONS.jsonl [--mode MODE] --json OUT`.

A row is {"id", "question", "answer", "answer_type": "open" | "closed" | "choice", "choices"?, "prediction", "image"?};
other keys are ignored, and so is a first line of settings (see `data_engine.ledger`). All figures are shares from 0 to
1, null where no row is of their kind:

- open questions: the means of `evaluation.metrics`, each of what the reply gives as its answer;
- closed questions (yes or no, or one of a few words): `closed_accuracy`; multiple choice: `choice_accuracy`. A reply
  that cannot be read is wrong and counts in `n_unread`;
- `intervals`: 95 % bootstrap intervals; questions with the same `image` are drawn together;
- `n_withheld`: questions whose answers only a benchmark's owners know ("answer_type": "withheld"); they are not scored;
- `broken`: every row that could not be scored, with its line and its fault. A row whose kind can be read counts there
  as wrong, in all of that kind's figures; one whose kind cannot, or that repeats an id, counts nowhere.

`--mode medevalkit` gives that tool's figures instead (`evaluation.medevalkit`): `precision`, `recall` and `f1` are
what these words say, and `medevalkit_rotated` holds the three columns as the tool prints them, which is what to set
beside published tables. Its SLAKE task treats "Yes" and "No" differently: `medevalkit_slake_closed_accuracy`. It ends
with an error at some replies, such as empty ones: `medevalkit_stops` lists them, and they count as 0.

`--mode deeptumorvqa` scores by that benchmark's rule (`evaluation.deeptumorvqa`): `choice_accuracy` of its choices, and
of its free answers `free_score` and, where they are numbers, hits within 5 to 50 %.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Hashable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ValidationError, field_validator

from data_engine.answers import choice_letter, final_answer, normalise, true_yes_or_no, yes_or_no
from data_engine.ledger import read_lines, settings_of
from evaluation import deeptumorvqa, medevalkit, metrics

Kind = Literal["open", "closed", "choice"]
KINDS: tuple[str, ...] = get_args(Kind)
Mode = Literal["standard", "medevalkit", "deeptumorvqa"]
MODES: tuple[str, ...] = get_args(Mode)
WITHHELD = "withheld"
SLAKE_CLOSED = "medevalkit_slake_closed_accuracy"
KEYS: dict[str, dict[str, tuple[str, ...]]] = {
    "standard": {"open": metrics.OPEN_METRICS, "closed": ("closed_accuracy",), "choice": ("choice_accuracy",)},
    "medevalkit": {
        "open": medevalkit.OPEN_METRICS,
        "closed": ("closed_accuracy", SLAKE_CLOSED),
        "choice": ("choice_accuracy",),
    },
    "deeptumorvqa": {"open": deeptumorvqa.FREE_METRICS, "closed": (), "choice": ("choice_accuracy",)},
}
"""Mode -> kind of question -> the figures that a question of that kind counts in."""


class Row(BaseModel):
    """What a row must hold to be scored."""

    answer: str
    answer_type: Kind
    prediction: str
    choices: list[str] | None = None

    @field_validator("answer")
    @classmethod
    def _says_something(cls, answer: str) -> str:
        if not normalise(answer):
            raise ValueError("is empty")
        return answer


@dataclass(frozen=True)
class Scored:
    """One question with its figures.

    Attributes:
        line: of the file, from 1.
        id: of the question, None if the row has none.
        row: as it stands in the file.
        kind: of the question.
        group: the questions that are drawn together: those of one image, else only this one.
        scores: figure -> value from 0 to 1.
        fault: why the reply has no figures of its own and counts as wrong, else None.
    """

    line: int
    id: str | None
    row: dict[str, Any]
    kind: str
    group: Hashable
    scores: dict[str, float]
    fault: str | None = None

    @property
    def right(self) -> bool:
        """Exactly matched, if open."""
        return self.scores["em" if self.kind == "open" else f"{self.kind}_accuracy"] == 1


@dataclass(frozen=True)
class Broken:
    """A row that could not be scored.

    Attributes:
        line: of the file, from 1.
        id: of the question, None if it has none.
        reason: what is wrong with it.
        counted_as: the kind of question in whose figures it counts as wrong, None if in none.
    """

    line: int
    id: str | None
    reason: str
    counted_as: str | None


@dataclass(frozen=True)
class Predictions:
    """A scored file.

    Attributes:
        settings: of the file, if it is a ledger.
        scored: every row that counts.
        broken: every row that is broken.
        withheld: number of rows whose true answers only a benchmark's owners know.
    """

    settings: dict[str, Any] | None
    scored: list[Scored]
    broken: list[Broken]
    withheld: int = 0


def score_standard(row: Row) -> tuple[dict[str, float], str | None]:
    """Figures of one row, and a fault if the reply could not be read.

    Raises:
        ValueError: the true answer of a multiple-choice question is none of its choices.
    """
    if row.answer_type == "open":
        return metrics.open_scores(final_answer(row.prediction), row.answer), None
    truth: Any = true_yes_or_no(row.answer) if row.answer_type == "closed" else None
    if truth is not None:
        said: Any = yes_or_no(row.prediction)
    elif row.answer_type == "choice" or row.choices:
        truth, said = (choice_letter(text, row.choices or ()) for text in (row.answer, row.prediction))
        if truth is None:
            raise ValueError("answer: is none of the choices, and no letter")
    else:
        truth, said = normalise(row.answer), normalise(final_answer(row.prediction)) or None
    return {f"{row.answer_type}_accuracy": float(said == truth)}, "unread" if said is None else None


def score_medevalkit(row: Row) -> tuple[dict[str, float], str | None]:
    """Figures of one row as MedEvalKit has them, and a fault if that tool fails at it."""
    try:
        if row.answer_type == "open":
            return medevalkit.open_scores(row.prediction, row.answer), None
        if row.answer_type == "choice":
            right = medevalkit.is_choice_right(row.prediction, row.answer, row.choices or ())
            return {"choice_accuracy": float(right)}, None
    except medevalkit.ToolError as error:
        return dict.fromkeys(KEYS["medevalkit"][row.answer_type], 0.0), str(error)
    right = medevalkit.is_closed_right(row.prediction, row.answer)
    right_in_slake = medevalkit.is_closed_right(row.prediction, row.answer, only_lower_case=True)
    return {"closed_accuracy": float(right), SLAKE_CLOSED: float(right_in_slake)}, None


def score_deeptumorvqa(row: Row) -> tuple[dict[str, float], str | None]:
    """Figures of one row as DeepTumorVQA has them; one that is no choice is a free answer."""
    if row.answer_type == "choice":
        return {"choice_accuracy": float(deeptumorvqa.is_choice_right(row.prediction, row.answer))}, None
    return deeptumorvqa.free_scores(row.prediction, row.answer), None


SCORERS: dict[str, Callable[[Row], tuple[dict[str, float], str | None]]] = {
    "standard": score_standard,
    "medevalkit": score_medevalkit,
    "deeptumorvqa": score_deeptumorvqa,
}


def score_file(path: Path, mode: Mode = "standard") -> Predictions:
    """Scores every row of a file of predictions.

    Raises:
        ValueError: there is no such file, or no row in it.
    """
    if not path.is_file():
        raise ValueError(f"{path} is no file: name a file of predictions in JSON Lines")
    settings, scored, broken, withheld = None, [], [], 0
    first_line_of: dict[str, int] = {}
    for line, row in read_lines(path):
        if line == 1 and settings_of(row) is not None:
            settings = settings_of(row)
            continue
        name = None if row is None or row.get("id") is None else str(row["id"])
        if name in first_line_of:
            broken.append(Broken(line, name, f"id: repeats line {first_line_of[name]}", None))
            continue
        if name is not None:
            first_line_of[name] = line
        if row is not None and row.get("answer_type") == WITHHELD:
            withheld += 1
            continue
        one, reason = score_row(line, name, row, mode)
        if one is not None:
            scored.append(one)
        if reason is not None:
            broken.append(Broken(line, name, reason, one.kind if one else None))
    if not scored and not broken and not withheld:
        raise ValueError(f"{path} holds no predictions: name a file in JSON Lines with a row for each question")
    return Predictions(settings, scored, broken, withheld)


def score_row(line: int, name: str | None, row: dict[str, Any] | None, mode: Mode) -> tuple[Scored | None, str | None]:
    """Scores one row, with its line and id.

    Returns:
        The row's figures, all 0 if it is broken, None if its kind cannot be read; and why it is broken, if it is.
    """
    if row is None:
        return None, "is no JSON object"
    kind = row.get("answer_type")
    if isinstance(kind, str):
        kind = kind.lower()
    if kind not in KINDS:
        return None, f"answer_type: is {kind!r}, not one of {', '.join(KINDS)}"
    if mode == "deeptumorvqa" and kind == "closed":
        kind = "open"  # its average is of all free answers, yes and no among them
    group = f"line {line}" if row.get("image") is None else ("image", json.dumps(row["image"], sort_keys=True))
    try:
        scores, fault = SCORERS[mode](Row.model_validate({**row, "answer_type": kind}))
    except ValidationError as error:
        first = error.errors()[0]
        reason = f"{first['loc'][0]}: {first['msg'].removeprefix('Value error, ')}"
    except ValueError as error:
        reason = str(error)
    else:
        return Scored(line, name, row, kind, group, scores, fault), None
    return Scored(line, name, row, kind, group, dict.fromkeys(KEYS[mode][kind], 0.0), "broken"), reason


def mean(values: Sequence[float]) -> float | None:
    """Whatever the order of the values, the same sum to the last digit; None of no values."""
    return math.fsum(values) / len(values) if values else None


def summarise(predictions: Predictions, mode: Mode = "standard") -> dict[str, Any]:
    """Every figure with its interval and counts, as the module's description says."""
    result: dict[str, Any] = {"mode": mode}
    intervals: dict[str, list[float] | None] = {}
    by_kind = {kind: [one for one in predictions.scored if one.kind == kind] for kind in KINDS}
    for kind, rows in by_kind.items():
        for key in KEYS[mode][kind]:
            having = [one for one in rows if key in one.scores]
            values = [one.scores[key] for one in having]
            result[key] = mean(values)
            interval = metrics.bootstrap_interval(values, [one.group for one in having])
            intervals[key] = None if interval is None else list(interval)
    result |= {f"n_{kind}": len(rows) for kind, rows in by_kind.items()}
    if mode == "medevalkit":
        result["medevalkit_rotated"] = medevalkit.rotate(result["precision"], result["recall"], result["f1"])
        stops = [one for one in predictions.scored if one.fault not in (None, "broken")]
        result["medevalkit_stops"] = [{"line": one.line, "reason": one.fault} for one in stops]
    else:
        result["n_unread"] = sum(one.fault == "unread" for one in predictions.scored)
    return {
        **result,
        "intervals": intervals,
        "n_withheld": predictions.withheld,
        "n_broken": len(predictions.broken),
        "broken": [asdict(one) for one in predictions.broken],
        "settings": predictions.settings,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("predictions", type=Path, help="JSON Lines, a row for each question")
    parser.add_argument("--mode", choices=MODES, default="standard", help="whose rules score (default: standard)")
    parser.add_argument("--json", type=Path, help="where the figures are written")
    arguments = parser.parse_args()
    try:
        result = summarise(score_file(arguments.predictions, arguments.mode), arguments.mode)
    except ValueError as error:
        parser.error(str(error))
    for kind in KINDS:
        for key in KEYS[arguments.mode][kind]:
            if result[key] is not None:
                low, high = result["intervals"][key] or (math.nan, math.nan)
                print(f"{key:34s} {result[key]:7.2%}  [{low:7.2%}, {high:7.2%}]  n={result[f'n_{kind}']}")
    for one in result["broken"]:
        counted = f"counts as a wrong {one['counted_as']} answer" if one["counted_as"] else "counts nowhere"
        print(f"line {one['line']}: {one['reason']}; {counted}", file=sys.stderr)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
