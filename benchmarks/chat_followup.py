# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Time to the first token of a conversation's first question and of those that follow, as the demo answers them.

    python -m benchmarks.chat_followup --json benchmarks/results/chat_followup.json

One conversation about a file. From a question to its first token a visitor waits, with the first one, for pruning and
encoding the file, for the language model's pass through the prompt, and for the answer's first token; with further
ones, for template, tokenizer, and the pass through what is new. Each conversation is held several times; figures are
medians. Beside them the same further questions with nothing remembered, once.

Not in the first question, although the visitor waits for it, is reading the file: the page does that when the file is
loaded, before there is a question, so it is a figure of its own. Gradio, the network and other visitors are not in
either. "One pass" is how long the language model alone takes for as many tokens as a further question has, after as
many as came before: no further question can be sooner, so where it is not a tenth of the first one's time, nothing
that is remembered can make it so.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from transformers import DynamicCache

from benchmarks.encoder import MNI152
from benchmarks.report import write_json
from data_engine.tables import markdown_table
from demo.service.assistant import Assistant
from demo.service.dialogue import Answer, Medium, Turn
from demo.service.pruning_settings import PruningSettings

ROOT = Path(__file__).resolve().parents[1]
FILES = {"MNI152 T1 average (nilearn)": Path(MNI152), "chest CT, generated": ROOT / "examples/media/ct_volume.nii.gz"}
QUESTIONS = ("Which imaging modality is this?", "Which part of the body is shown?", "Is there a lesion?")


def ask(assistant: Assistant, turns: list[Turn], settings: PruningSettings, owner: str | None) -> Answer:
    """The complete answer to the last turn."""
    *_, answer = assistant.answer(turns, settings, owner)
    return answer


def seconds_to_first_token(answer: Answer) -> float:
    """Of a complete answer, which has a first token."""
    assert answer.seconds_to_first_token is not None
    return answer.seconds_to_first_token


def converse(assistant: Assistant, medium: Medium, settings: PruningSettings, owner: str | None) -> list[Answer]:
    """All questions in one conversation."""
    turns: list[Turn] = []
    answers = []
    for number, question in enumerate(QUESTIONS):
        turns.append(Turn(question, () if number else (medium,)))
        answers.append(ask(assistant, turns, settings, owner))
        turns[-1] = replace(turns[-1], answer=answers[-1].text)
    if owner is not None:
        assistant.memory.drop(owner)
    return answers


@torch.inference_mode()
def one_pass(assistant: Assistant, before: int, new: int, repeats: int) -> float:
    """Seconds of the model for `new` tokens of text after `before` others that it remembers; the median."""
    model = assistant.model
    tokens = torch.arange(before + new, device=model.device)[None] % model.config.text_config.vocab_size
    tokens[tokens == model.config.image_token_id] = 0
    cache = DynamicCache(config=model.config.text_config)
    model.model(input_ids=tokens[:, :before], past_key_values=cache, use_cache=True)
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        model(input_ids=tokens[:, before:], past_key_values=cache, use_cache=True, logits_to_keep=1)
        seconds.append(time.perf_counter() - start)
        cache.crop(-new)
    return median(seconds)


def measure(assistant: Assistant, file: Path, settings: PruningSettings, repeats: int) -> dict[str, Any]:
    """The figures of one file at one setting."""
    start = time.perf_counter()
    clip = assistant.read(file)
    reading = time.perf_counter() - start
    medium = Medium("file", clip)
    runs = {
        "remembered": [converse(assistant, medium, settings, "benchmark") for _ in range(repeats)],
        "anew": [converse(assistant, medium, settings, None)],
    }
    texts = {tuple(answer.text for answer in run) for side in runs.values() for run in side}
    seconds = {
        side: [median(seconds_to_first_token(run[number]) for run in of_side) for number in range(len(QUESTIONS))]
        for side, of_side in runs.items()
    }
    first, *further = seconds["remembered"]
    last = runs["remembered"][0]
    reused, computed = last[-1].reused_tokens, last[-1].prompt_tokens - last[-1].reused_tokens
    return {
        "seconds_to_read": reading,
        "frames": len(clip.frames),
        "seconds_to_first_token": seconds,
        "times_faster": first / median(further),
        "seconds_of_one_pass": one_pass(assistant, reused, computed, 2 * repeats + 1),
        "prompt_tokens": [answer.prompt_tokens for answer in last],
        "computed_tokens": [answer.prompt_tokens - answer.reused_tokens for answer in last],
        "visual_tokens": last[0].visual_tokens,
        "same_answers": len(texts) == 1,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True, help="file to write the figures to")
    parser.add_argument("--model", default=str(ROOT / "hub_model"), help="folder or Hub id (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="conversations about each file (default: %(default)s)")
    arguments = parser.parse_args()
    assistant = Assistant(arguments.model)
    rows, table = {}, []
    for name, file in FILES.items():
        for pruning, rule in (("pruned", assistant.defaults.rule), ("without pruning", "none")):
            row = measure(assistant, file, replace(assistant.defaults, rule=rule), arguments.repeats)
            rows[f"{name}, {pruning}"] = row
            first, *further = row["seconds_to_first_token"]["remembered"]
            table.append(
                [
                    name,
                    pruning,
                    f"{row['prompt_tokens'][0]} tokens",
                    f"{first:.2f} s",
                    f"{median(further):.3f} s",
                    f"{row['seconds_of_one_pass']:.3f} s",
                    f"{median(row['seconds_to_first_token']['anew'][1:]):.2f} s",
                    f"{row['times_faster']:.0f}×",
                ]
            )
    write_json(arguments.json, "chat_followup", {"repeats": arguments.repeats, "rows": rows})
    print(
        markdown_table(
            [
                "file",
                "pruning",
                "first prompt",
                "first question",
                "further ones",
                "one pass",
                "further, nothing remembered",
                "faster",
            ],
            table,
        )
    )


if __name__ == "__main__":
    main()
