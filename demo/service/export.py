# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Answers and conversations as text and JSON, for the page, its downloads and the API."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import datetime, timezone
from typing import TypedDict

from demo.service.dialogue import Answer
from demo.service.sessions import Session


class AnswerRecord(TypedDict):
    """An answer with its figures, as the API and the JSON download give it; seconds are rounded to milliseconds."""

    text: str
    confidence: float | None
    declined: bool
    likeliest: str | None
    complete: bool
    answer_tokens: int
    prompt_tokens: int
    prompt_tokens_computed_before: int
    visual_tokens: int
    visual_tokens_without_pruning: int
    seconds_to_first_token: float | None
    seconds: float


def figures(answer: Answer | None, stopped: bool = False) -> str:
    """What an answer took, or what the model is doing for it; "" without one."""
    if answer is None:
        return ""
    if not answer.complete and not answer.text:
        return "Stopped before the first word" if stopped else f"{answer.step} … {answer.seconds:.0f} s"
    parts = [] if answer.confidence is None else [f"confidence {answer.confidence:.0%}"]
    parts.append(f"{len(answer.token_ids)} tokens in {answer.seconds:.2f} s")
    if answer.seconds_to_first_token is not None:
        parts.append(f"first after {answer.seconds_to_first_token:.2f} s")
    prompt = f"prompt of {answer.prompt_tokens} tokens"
    if answer.visual_tokens:
        prompt += f", {answer.visual_tokens} visual"
    if answer.reused_tokens:
        prompt += f", {answer.reused_tokens} computed before"
    end = [] if answer.complete else ["stopped" if stopped else "…"]
    return " · ".join([*parts, prompt, *end])


def answer_record(answer: Answer) -> AnswerRecord:
    """An answer for JSON."""
    seconds = answer.seconds_to_first_token
    return {
        "text": answer.text,
        "confidence": None if answer.confidence is None else round(answer.confidence, 3),
        "declined": answer.declined,
        "likeliest": answer.likeliest,
        "complete": answer.complete,
        "answer_tokens": len(answer.token_ids),
        "prompt_tokens": answer.prompt_tokens,
        "prompt_tokens_computed_before": answer.reused_tokens,
        "visual_tokens": answer.visual_tokens,
        "visual_tokens_without_pruning": answer.visual_tokens_unpruned,
        "seconds_to_first_token": None if seconds is None else round(seconds, 3),
        "seconds": round(answer.seconds, 3),
    }


def as_json(session: Session, model: str) -> str:
    """The conversation with everything that it depended on, but no paths and no names of files."""
    files = [
        {"number": file.number, "kind": file.kind, "frames": file.frames, "notes": list(file.notes)}
        for file in session.files
    ]
    exchanges = [
        {
            "question": exchange.question,
            "files": list(exchange.files),
            "pruning": asdict(exchange.settings),
            "answers": {arm: answer_record(answer) for arm, answer in exchange.answers.items()},
            **({"problem": exchange.problem} if exchange.problem else {}),
        }
        for exchange in session.exchanges
    ]
    saved = datetime.now(timezone.utc).isoformat(timespec="seconds")
    content = {"model": model, "saved": saved, "files": files, "conversation": exchanges}
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def as_markdown(session: Session, model: str) -> str:
    """The conversation for reading."""
    lines = ["# Conversation with OmniV-Med", "", f"Model: {model}. For research only; answers can be wrong.", ""]
    for file in session.files:
        lines += [f"- {file.label}", *(f"  - {note}" for note in file.notes)]
    for exchange in session.exchanges:
        lines += ["", f"## {' '.join(exchange.question.split())}", ""]
        if exchange.labels:
            lines += [f"With {'; '.join(exchange.labels)}.", ""]
        for arm, answer in exchange.answers.items():
            pruning = asdict(exchange.settings_of(arm))
            settings = ", ".join(f"{name} {value}" for name, value in pruning.items() if value is not None)
            guess = [f"Likeliest, but not sure enough: {answer.likeliest}", ""] if answer.likeliest else []
            lines += [answer.text or "(no answer)", "", *guess, f"*{figures(answer)} · pruning: {settings}*", ""]
        if exchange.problem:
            lines += [f"Not answered: {exchange.problem}", ""]
    return "\n".join(lines).rstrip() + "\n"
