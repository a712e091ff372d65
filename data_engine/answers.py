# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Reads what a model answered: the final words of its reply, the choice it names, or its yes or no.

Every reader gives None where the reply names nothing, names several things or refuses; the scorer counts that as wrong.
English and Chinese.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Sequence

OUTER_MARKS = " \t\r\n.,;:!?'\"`()[]{}*_…“”\u2018\u2019«»。、《》「」【】"
"""What may stand around an answer without being part of it; signs that carry meaning (-, +, <, >, %) are not in it."""
LEADING_ARTICLE = re.compile(r"^(?:the|an|a)\s+(?=\S)")

THOUGHT = re.compile(r"<think>.*?(?:</think>|$)", re.DOTALL | re.IGNORECASE)
ANSWER_TAG = re.compile(r"<answer>(.*?)(?:</answer>|$)", re.DOTALL | re.IGNORECASE)
ANNOUNCEMENT = re.compile(
    r"(?:\banswer\b(?:\s+is\b(?:\s*:)?|[*_]*\s*:)|(?:正确)?答案(?:\s*[是为]\s*:?|[*_]*\s*:))[*_]*", re.IGNORECASE
)

REFUSAL = re.compile(
    r"(?:i\s+am|i'm)\s+(?:sorry|afraid|unable|not\s+(?:able|sure|certain))|(?:sorry|apologies)\b|as\s+an\s+ai\b"
    r"|i\s+(?:cannot|can\s+not|can't|could\s+not|couldn't|do\s+not\s+know|don't\s+know|am\s+not|apologi[sz]e)"
    r"|(?:it\s+is\s+|it's\s+)?(?:unable|not\s+possible|impossible)\s+to\b|(?:(?:it|this|the\s+answer)\s+)?(?:cannot|can't)\s+be\b"
    r"|not\s+(?:sure|certain|clear|enough)|unknown\b|unclear\b|uncertain\b"
    r"|(?:很?抱歉|对不起|作为(?:一个)?ai|我?(?:无法|不能|不知道|不确定|不清楚))",
    re.IGNORECASE,
)

YES_FIRST = re.compile(r"(?:yes|yeah|yep|correct|true)\b|是(?!否|不是)|有(?!没有)|对|存在|正确|可以|会|能")
NO_FIRST = re.compile(r"(?:no|nope|none|not|false|incorrect)\b|不|没|无|未|否|错")
YES_ANYWHERE, NO_ANYWHERE = re.compile(r"\byes\b"), re.compile(r"\bno\b")
BOTH = re.compile(r"(?:yes\s*(?:or|and|/)\s*no|no\s*(?:or|and|/)\s*yes)\b|是否|是不是|有没有|有无")
YES_WORDS = {"yes", "true", "是", "是的", "有", "对"}
NO_WORDS = {"no", "false", "不是", "否", "没有", "无", "不", "不对"}

NOT_DENIED = "".join(f"(?<!{word})" for word in ("not ", "not the ", "not an ", "not a ", "isn't ", "不", "不是"))
WHOLE_LETTER = re.compile(r"(?:(?:option|choice|letter|answer|选项|选择|选)\s*:?\s*)?\(?([a-z])\)?(?:\s*选项)?")
LEADING_LETTER = re.compile(r"[\s*_]*(?:\(([A-Za-z])\)|([A-Za-z])[*_]*\s*[.):、])")
NAMED_LETTER = re.compile(
    rf"{NOT_DENIED}(?:\b(?:option|choice|letter|answer)\s*:?|选项|选择|选)\s*[*_\"']*\(?([A-Za-z])(?![A-Za-z0-9-])"
    r"|\b(?:is|be|choose|select|pick|with)\s*:?\s*[*_\"']*([A-Z])(?![A-Za-z0-9-])"
    rf"|{NOT_DENIED}\(([A-Za-z])\)|([A-Z])\s*选项"
)


def fold(text: str) -> str:
    """Text with its full-width forms and typographic apostrophes made plain, and runs of white space made one space."""
    return " ".join(unicodedata.normalize("NFKC", text).replace("\u2019", "'").split())


def normalise(text: str) -> str:
    """The form in which two answers are compared for an exact match.

    Lower case, full-width forms made plain, white space collapsed, quotes, brackets and punctuation at the two ends
    removed, and an article dropped where it leads. Articles elsewhere stay, unlike in SQuAD, so that "hepatitis A" is
    not "hepatitis"; so do signs such as "-" and "<", which change a measurement.
    """
    return LEADING_ARTICLE.sub("", fold(text).lower().strip(OUTER_MARKS))


def final_answer(reply: str) -> str:
    r"""What a reply gives as its answer.

    Thoughts in <think> are removed; then, the first that is there: what the last \boxed{…} holds, the last <answer>,
    what follows the last "answer is", "answer:" or "答案:" (if something does), or all of it. White space at both ends
    is removed.
    """
    reply = THOUGHT.sub("", reply).strip()
    boxed = _boxed(reply)
    if boxed is not None:
        return boxed
    tagged = ANSWER_TAG.findall(reply)
    if tagged:
        return tagged[-1].strip()
    announced = ANNOUNCEMENT.split(unicodedata.normalize("NFKC", reply))
    return announced[-1].strip() or reply if len(announced) > 1 else reply


def _boxed(reply: str) -> str | None:
    r"""What the last closed \boxed{…} holds, without a \text{…} around it; None if there is none."""
    start = reply.rfind("\\boxed{")
    if start < 0:
        return None
    depth, first = 1, start + len("\\boxed{")
    for index in range(first, len(reply)):
        depth += {"{": 1, "}": -1}.get(reply[index], 0)
        if depth == 0:
            return re.sub(r"^\\text\{(.*)\}$", r"\1", reply[first:index].strip()).strip()
    return None


def is_refusal(answer: str) -> bool:
    """Whether an answer begins by declining: "I cannot tell", "Sorry", "It cannot be determined", "无法判断"."""
    return REFUSAL.match(fold(answer).strip(OUTER_MARKS)) is not None


def yes_or_no(reply: str) -> bool | None:
    """Whether a reply says yes or no; None if neither, both, or a refusal.

    The first word decides ("Yes, there is no fracture" is yes, "No evidence of fracture" is no, "没有" is no). Without
    one, "yes" or "no" decides where only one of them stands in the reply ("There is no fracture" is no).
    """
    answer = final_answer(reply)
    if is_refusal(answer):
        return None
    said = normalise(answer)
    if BOTH.match(said):
        return None
    if YES_FIRST.match(said):
        return True
    if NO_FIRST.match(said):
        return False
    yes, no = YES_ANYWHERE.search(said), NO_ANYWHERE.search(said)
    return bool(yes) if bool(yes) != bool(no) else None


def true_yes_or_no(answer: str) -> bool | None:
    """What a benchmark's own answer says if it is yes or no and nothing else ("Yes", "否"); None for other answers."""
    answer = normalise(answer)
    return True if answer in YES_WORDS else False if answer in NO_WORDS else None


def choice_letter(reply: str, choices: Sequence[str] = ()) -> str | None:
    """The capital letter of the choice that a reply names; None if none, several, or a refusal.

    In this order: the reply's first line is a letter ("b", "(B)", "选B"); the reply is the text of a choice; it starts
    with a letter ("B. liver"); it names one ("option B", "I think it is B"); it holds the text of one choice as whole
    words. Choices may carry their letters ("A. liver").

    Args:
        choices: their texts in the order of their letters; empty if unknown, then any letter is taken.
    """
    letters = string.ascii_uppercase[: len(choices)] if choices else string.ascii_uppercase
    texts = {
        letter: normalise(re.sub(rf"^\s*\(?{letter}\s*[.:)、]", "", fold(choice)))
        for letter, choice in zip(letters, choices, strict=False)
    }
    answer = final_answer(reply)
    # Folded but not normalised: "a" must not be taken for an article.
    alone = WHOLE_LETTER.fullmatch(fold(answer.partition("\n")[0]).lower().strip(OUTER_MARKS))
    if alone and alone[1].upper() in letters:
        return alone[1].upper()
    said, answer = normalise(answer), fold(answer)
    for letter, text in texts.items():
        if text and text == said:
            return letter
    if is_refusal(answer):
        return None
    leading = LEADING_LETTER.match(answer)
    for found in (
        leading.groups() if leading else (),
        [group for match in NAMED_LETTER.findall(answer) for group in match],
        _texts_within(said, texts),
    ):
        named = {letter.upper() for letter in found if letter} & set(letters)
        if named:
            return named.pop() if len(named) == 1 else None
    return None


def _texts_within(said: str, texts: dict[str, str]) -> list[str]:
    """Letters of the choices whose texts stand in what was said as whole words, and not only inside a longer one."""
    spans = {
        letter: [
            match.span()
            for match in re.finditer(rf"{NOT_DENIED}(?<![a-z0-9])(?<!\d\.){re.escape(text)}(?![a-z0-9]|\.\d)", said)
        ]
        for letter, text in texts.items()
        if text
    }
    every = [span for found in spans.values() for span in found]

    def inside_a_longer_one(low: int, high: int) -> bool:
        return any(start <= low and high <= end and end - start > high - low for start, end in every)

    return [letter for letter, found in spans.items() if any(not inside_a_longer_one(*span) for span in found)]
