# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""A conversation as the chat shows it: questions, and answers with how sure they are and what one can do with them.

Gradio's chat removes from HTML all that could run, and every attribute but a few. So the exchange that a button belongs
to is a class of the button (`chat.js`).
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Collection, Sequence
from html import escape
from typing import TypedDict

from demo.service.dialogue import PRUNED, UNPRUNED, Answer, Arm, Exchange

WAITING = '<p class="said waiting">…</p>'
"""Stands in the chat until the first word comes."""
DECLINED = "The model is not sure enough to answer."
NOT_RATED = "Confidence: not known without a file"


class Message(TypedDict):
    """One message of a chat."""

    role: str
    content: str


def messages(exchanges: Sequence[Exchange], with_evidence: Collection[int]) -> list[Message]:
    """The conversation as a chat shows it; a question's files are a message of their own before it.

    Args:
        with_evidence: numbers of the files in which evidence can be shown: they are still loaded, and in files of their
            kinds it was measured to lie on findings. An answer offers it if all files asked about up to there are such.
    """
    shown: list[Message] = []
    files: set[int] = set()
    for number, exchange in enumerate(exchanges):
        files.update(exchange.files)
        if exchange.labels:
            shown.append({"role": "user", "content": "*" + " · ".join(exchange.labels) + "*"})
        shown.append({"role": "user", "content": exchange.question})
        answered = card(exchange, number, bool(files), files.issubset(with_evidence))
        shown.append({"role": "assistant", "content": answered})
    return shown


def words(exchanges: Sequence[Exchange]) -> str:
    """What a browser keeps of a conversation, as JSON: no more than it shows, and nothing of the files themselves.

    A list of {`question`, `files`, what the page calls those that came with it, `answers`: [{`text`, `detail`}]}.
    """
    kept = []
    for exchange in exchanges:
        answers = [
            {"text": answer.text or "(no answer)", "detail": _detail(exchange, arm, answer)}
            for arm, answer in exchange.answers.items()
        ]
        if exchange.problem and not answers:
            answers = [{"text": f"Not answered: {exchange.problem}", "detail": ""}]
        kept.append({"question": exchange.question, "files": " · ".join(exchange.labels), "answers": answers})
    return json.dumps(kept, ensure_ascii=False)


def _detail(exchange: Exchange, arm: Arm, answer: Answer) -> str:
    """Which of two answers this is, how sure it is, and whether it is whole, in words."""
    details = ["pruned" if arm == PRUNED else "all tokens"] if len(exchange.answers) > 1 else []
    if not answer.complete:
        details.append("stopped" if exchange.stopped else "unfinished")
    elif answer.confidence is not None:
        details.append(f"confidence {answer.confidence:.0%}")
    return ", ".join(details)


def exchange_at(exchanges: Sequence[Exchange], index: int) -> tuple[int, bool]:
    """Which exchange a message of `messages` belongs to, and whether the message is its question."""
    for number, exchange in enumerate(exchanges):
        length = 2 + bool(exchange.labels)
        if index < length:
            return number, index == length - 2
        index -= length
    raise IndexError("There is no such message.")


def card(exchange: Exchange, number: int, with_files: bool, with_evidence: bool) -> str:
    """The answers of an exchange as HTML.

    Args:
        number: counts the exchanges of the conversation from 0.
        with_files: whether the conversation has files up to there, so that there is something to prune and to look at.
        with_evidence: whether evidence can be shown in all of them.
    """
    pruned, unpruned = exchange.answers.get(PRUNED), exchange.answers.get(UNPRUNED)
    if pruned is None or not pruned.complete:
        return f'<div class="answer">{_unfinished(exchange, pruned)}</div>'
    if unpruned is None:
        body = _said(pruned)
    else:
        body = _row("Pruned", pruned, unpruned, exchange) + _row("All tokens", unpruned, pruned, exchange)
    tools = ""
    if with_files:
        compare = "" if unpruned is not None else _button("compare", number, "Compare")
        look = _button("look", number, "Where did it look?") if with_evidence else ""
        tools = f'<p class="tools">{compare}{look}</p>' if compare or look else ""
    kind = "answer declined" if pruned.declined else "answer"
    return f'<div class="{kind}">{body}{tools}</div>'


def _unfinished(exchange: Exchange, answer: Answer | None) -> str:
    text = escape(answer.text) if answer else ""
    if exchange.problem:
        return f'<p class="problem"><b>Not answered:</b> {escape(exchange.problem)}</p>'
    if exchange.stopped:
        return f'<p class="said">{text} <i>(stopped)</i></p>'
    return f'<p class="said">{text}</p>' if text else WAITING


def _said(answer: Answer) -> str:
    """The words of a complete answer, and how sure it is."""
    return f'<p class="said">{escape(answer.text) or "<i>(no answer)</i>"}</p>{_likeliest(answer)}{_confidence(answer)}'


def _likeliest(answer: Answer) -> str:
    if not answer.likeliest:
        return ""
    return f'<p class="likeliest">Likeliest, but not sure enough: {escape(answer.likeliest)}</p>'


def _confidence(answer: Answer) -> str:
    if answer.confidence is None:
        return f'<p class="sure">{NOT_RATED if not answer.visual_tokens else "Confidence: not known"}</p>'
    reason = f"{DECLINED} " if answer.declined else ""
    percent = round(100 * answer.confidence)
    level = "high" if percent >= 80 else "middle" if percent >= 50 else "low"
    return f'<p class="sure {level}">{reason}<b>Confidence: {percent} %</b></p>'


def _row(name: str, answer: Answer, other: Answer, exchange: Exchange) -> str:
    """One row of a comparison: an answer, what differs from the other one marked, and what it took."""
    if not answer.complete:
        text = escape(exchange.problem) or (
            f"{escape(answer.text)} (stopped)" if exchange.stopped else escape(answer.text)
        )
        return f'<div class="row"><p class="arm">{name}</p><p class="said">{text or "…"}</p></div>'
    text = marked(answer.text, other.text) if other.complete else escape(answer.text)
    took = f"{answer.visual_tokens:,} visual tokens · {answer.seconds:.2f} s"
    said = f'<p class="said">{text}</p>{_likeliest(answer)}{_confidence(answer)}'
    return f'<div class="row"><p class="arm">{name} <span>{took}</span></p>{said}</div>'


def marked(text: str, other: str) -> str:
    """A text as HTML in which the words that another text lacks are marked."""
    words, others = text.split(), other.split()
    pieces = []
    for kind, start, stop, _, _ in difflib.SequenceMatcher(None, words, others, autojunk=False).get_opcodes():
        piece = escape(" ".join(words[start:stop]))
        if piece:
            pieces.append(piece if kind == "equal" else f"<mark>{piece}</mark>")
    return " ".join(pieces)


def _button(action: str, number: int, words: str) -> str:
    return f'<button type="button" class="{action} exchange-{number}">{words}</button>'
