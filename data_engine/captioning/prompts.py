# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""What the generator and the judges are asked, word for word. The criteria are the paper's, the wording is ours."""

from __future__ import annotations

import hashlib
from typing import Any

from data_engine.captioning.items import Item

GENERATOR_ROLE = "You are an experienced physician. You describe medical images, scans and videos for teaching."
GENERATOR_TASK = """\
Describe this {kind} in a paragraph of two to six sentences: modality, anatomy and view, what is normal, what is not, \
instruments and actions if there are any, and in a video what changes. Say only what can be seen or what the \
known facts say. Do not speak of frames, slice numbers, known facts or these instructions. \
Answer with the description alone."""
JUDGE_ROLE = "You are a strict examiner of descriptions of medical images, scans and videos."
JUDGE_TASK = """\
Score this description of the {kind}:

<description>
{caption}
</description>

Give each criterion a whole number from 1 (very poor) to 5 (excellent), and the reason in one sentence.
relevance: it says what matters medically in this {kind}, and nothing that is beside the point.
fluency: its language is correct, clear and in good order.
accuracy: {accuracy}

Answer with one JSON object of exactly this form and nothing else:
{{"relevance": {{"score": 3, "reason": "..."}}, "fluency": {{"score": 3, "reason": "..."}}, \
"accuracy": {{"score": 3, "reason": "..."}}}}"""
ACCURACY_SEEN = "every statement agrees with the pictures and with the known facts; one that is wrong gives 2 at most."
ACCURACY_UNSEEN = (
    "you are not shown the {kind}; every statement agrees with the known facts and with medical knowledge; "
    "one that is wrong gives 2 at most."
)
FACTS = "Known facts:\n{facts}"
NO_FACTS = "Nothing is known about the {kind} beforehand."
PICTURES = "The {kind}, in order:"
REPAIR = "That answer cannot be used: {problem} Answer again, with the JSON object alone."

PROMPT_VERSION = hashlib.sha256(
    "\n".join(
        [
            *(GENERATOR_ROLE, GENERATOR_TASK, JUDGE_ROLE, JUDGE_TASK, ACCURACY_SEEN, ACCURACY_UNSEEN),
            *(FACTS, NO_FACTS, PICTURES, REPAIR),
        ]
    ).encode()
).hexdigest()[:12]
"""Changes with any word above, so that an answer to other words is never taken for an answer to these."""

Message = dict[str, Any]
"""A message of OpenAI's chat completions: "role", and "content" as text or parts."""


def _text(words: str) -> dict[str, str]:
    return {"type": "text", "text": words}


def _known(item: Item) -> str:
    if not item.facts:
        return NO_FACTS.format(kind=item.kind)
    return FACTS.format(facts="\n".join(f"- {fact}" for fact in item.facts))


def generator_messages(item: Item, pictures: list[dict[str, Any]]) -> list[Message]:
    """Asks for a caption; `pictures` are the parts of `frames.media_parts`."""
    content = [
        _text(PICTURES.format(kind=item.kind)),
        *pictures,
        _text(f"{_known(item)}\n\n{GENERATOR_TASK.format(kind=item.kind)}"),
    ]
    return [{"role": "system", "content": GENERATOR_ROLE}, {"role": "user", "content": content}]


def judge_messages(item: Item, caption: str, pictures: list[dict[str, Any]] | None) -> list[Message]:
    """Asks for scores of a caption; without pictures for a judge that reads text only."""
    accuracy = (ACCURACY_UNSEEN if pictures is None else ACCURACY_SEEN).format(kind=item.kind)
    task = f"{_known(item)}\n\n{JUDGE_TASK.format(kind=item.kind, caption=caption, accuracy=accuracy)}"
    content: Any = task
    if pictures is not None:
        content = [_text(PICTURES.format(kind=item.kind)), *pictures, _text(task)]
    return [{"role": "system", "content": JUDGE_ROLE}, {"role": "user", "content": content}]


def repair_messages(asked: list[Message], answer: str, problem: str) -> list[Message]:
    """Asks once more, with what is wrong with the answer."""
    return [
        *asked,
        {"role": "assistant", "content": answer},
        {"role": "user", "content": REPAIR.format(problem=problem)},
    ]
