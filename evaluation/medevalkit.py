# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Scores answers as MedEvalKit does, with its rules and its faults, so that figures can be set beside published tables.

Its rules were read from its public code (github.com/alibaba-damo-academy/MedEvalKit, utils/utils.py, 2025) and are
written anew here. What differs from `evaluation.metrics`:

- a reply is cut after certain markers in a fixed order and not stripped of white space afterwards, so "The answer is
  left lung" leaves " left lung", which is no exact match;
- precision, recall and F1 are of sets of tokens, so a repeated word counts once;
- BLEU is not smoothed: BLEU-4 of a right answer of two words is 0;
- its three columns of overlap are rotated: "precision" shows F1, "recall" shows precision, "f1" shows recall.
  `overlap` gives the right ones, `rotate` turns them into its columns;
- it stops with an error where a reply or an answer is empty or holds only full stops: see `ToolError`.

A task of it that strips replies before it scores them (VQA-RAD, PathVQA) gets the same figures from stripped replies.
"""

from __future__ import annotations

import difflib
import re
import string
import warnings
from collections.abc import Sequence

from nltk.translate.bleu_score import sentence_bleu
from rouge import Rouge

MARKERS = (
    "**answer**:", "**answer**", "*answer*:", "**answer:**", "answer is", "answer:", "答案:", "final answer",
    "final answer is",
)  # fmt: skip
"""Tried in this order, each on what the one before has left. The last is never found: the one before it is in it."""
OPEN_METRICS = (
    "em", "bleu1", "bleu2", "bleu3", "bleu4", "rouge1", "rouge2", "rougel", "precision", "recall", "f1",
)  # fmt: skip


class ToolError(ValueError):
    """The tool itself ends with an error at this reply, so it has no figure for it or for the set that holds it."""


def parse(reply: str) -> str:
    r"""The part of a reply that is scored, in lower case.

    What the last \boxed{} holds, the text "None" if "boxed" stands there otherwise, or what <answer> tags hold; then
    what follows the last of each marker.
    """
    reply = reply.lower()
    if "boxed" in reply:
        boxed = _boxed(reply)
        reply = "None" if boxed is None else boxed
    else:
        reply = _tagged(reply)
    for marker in MARKERS:
        reply = reply.rpartition(marker)[2]
    return reply


def _boxed(reply: str) -> str | None:
    _, found, rest = reply.rpartition("\\boxed{")
    depth = 1
    for index, character in enumerate(rest if found else ""):
        depth += (character == "{") - (character == "}")
        if depth == 0:
            return rest[:index].strip()
    return None


def _tagged(reply: str) -> str:
    return " ".join(re.findall("<answer>(.*?)</answer>", reply, re.DOTALL)).strip() or reply


def _handed_on(reply: str) -> str:
    """What the tool's open and closed tasks make of a reply before they have it parsed."""
    boxed = _boxed(reply)
    return _tagged(reply) if boxed in (None, "None") else boxed


def bleu(reply: str, answer: str, order: int) -> float:
    """NLTK's unsmoothed sentence BLEU with weights 1/order; tokens between single spaces, full stops set apart."""

    def split(text: str) -> list[str]:
        return text.lower().replace(".", " .").split(" ")

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NLTK warns at every short answer that this BLEU is 0.
        return float(sentence_bleu([split(answer)], split(reply), weights=[1 / order] * order))


def rouge(reply: str, answer: str) -> tuple[float, float, float]:
    """F of ROUGE-1, ROUGE-2 and ROUGE-L from the `rouge` package, which adds 1e-8 to the divisor.

    Raises:
        ToolError: a side holds nothing but full stops, or both are too long for the package's recursion.
    """
    try:
        (scores,) = Rouge().get_scores(reply.lower(), answer.lower())
    except (ValueError, RecursionError) as error:
        raise ToolError(f"ROUGE fails: {error}") from None
    return float(scores["rouge-1"]["f"]), float(scores["rouge-2"]["f"]), float(scores["rouge-l"]["f"])


def overlap(reply: str, answer: str) -> tuple[float, float, float]:
    """Precision, recall and F1 of the sets of tokens between white space.

    Raises:
        ToolError: a side holds no token; the tool then returns one 0 where three numbers are read.
    """
    said, true = set(reply.lower().split()), set(answer.lower().split())
    if not said or not true:
        raise ToolError("precision, recall and F1 fail: no token")
    common = len(said & true)
    if not common:
        return 0.0, 0.0, 0.0
    precision, recall = common / len(said), common / len(true)
    return precision, recall, 2 * precision * recall / (precision + recall)


def rotate(precision: float | None, recall: float | None, f1: float | None) -> dict[str, float | None]:
    """The tool's three columns, as it names them, from the right values (None where there are no questions)."""
    return {"precision": f1, "recall": precision, "f1": recall}


def open_scores(reply: str, answer: str) -> dict[str, float]:
    """Every one of `OPEN_METRICS` for one question; precision, recall and F1 not rotated.

    Raises:
        ToolError: the tool fails at this question.
    """
    said, answer = parse(_handed_on(reply)), answer.lower()
    values = (
        float(said == answer),
        *(bleu(said, answer, order) for order in (1, 2, 3, 4)),
        *rouge(said, answer),
        *overlap(said, answer),
    )
    return dict(zip(OPEN_METRICS, values, strict=True))


def is_closed_right(reply: str, answer: str, *, only_lower_case: bool = False) -> bool:
    """Whether a closed question is answered rightly.

    For yes and no: "yes" or "no", but not both, stands anywhere in the reply (also in "nodule"), and it is the answer.
    For other answers: the reply is the answer. Line breaks and full stops are taken out of the reply first.

    Args:
        only_lower_case: "Yes" and "No" are compared like other answers, as the tool's SLAKE task does.
    """
    said = parse(_handed_on(reply)).replace("\n", "").replace(".", "")
    if (answer if only_lower_case else answer.lower()) in ("yes", "no"):
        return ("yes" in said) != ("no" in said) and answer.lower() in said
    return said == answer.lower()


def is_choice_right(reply: str, answer: str, choices: Sequence[str]) -> bool:
    """Whether a multiple-choice question is answered rightly; the answer is a letter or a choice's text.

    A reply that is neither a letter nor a choice's text counts as the choice most similar to it (difflib's ratio), so
    that every reply, even an empty one, names a choice.

    Raises:
        ToolError: there are no choices.
    """
    if not choices:
        raise ToolError("there are no choices to compare with")
    letters, choices = string.ascii_lowercase[: len(choices)], [choice.lower() for choice in choices]
    paragraphs = reply.lower().split("\n\n")
    last = paragraphs[-1].split(".")[0]
    if _is_letter(paragraphs[0], letters):
        reply = paragraphs[0]
    elif _is_letter(last, letters):
        reply = last
    said = parse(reply).strip().lower().replace("\n", "")
    short, answer = said.split(".")[0].split(":")[-1], answer.strip().lower()
    if short == answer:
        return True
    if _is_letter(short, letters):
        return choices[letters.index(short)] == answer
    if short in choices:
        return _is_letter(answer, letters) and short == choices[letters.index(answer)]
    similarity = [difflib.SequenceMatcher(None, choice, said).ratio() for choice in choices]
    index = similarity.index(max(similarity))
    return answer in (letters[index], choices[index])


def _is_letter(text: str, letters: str) -> bool:
    return len(text) == 1 and text in letters
