# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Answers questions about generated samples that were never trained on, and says how often the model is right.

`python -m evaluation.generated_split --samples 400 --json OUT.json` makes the samples from a seed of its own, of the
modalities that the Nano was trained on (train/configs/nano/pretrain.yaml), asks one random question about each, and
reports exact matches per task and per modality, each with its count, a 95 % interval (Wilson 1927) and the share of the
most frequent answer to the same kind of question.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import yaml
from scipy.stats import binomtest
from tqdm import tqdm
from transformers import AutoModelForImageTextToText, AutoProcessor

from train.data.phantoms import KINDS_OF, Sample, generate
from train.data.pool import to_clip
from train.data.questions import Question, questions

ROOT = Path(__file__).resolve().parents[1]
HELD_OUT_SEED = 1_000_003
"""Not the seed of any training pool."""
LONGEST_ANSWER = 8


@dataclass(frozen=True)
class Answered:
    """One question about one sample, and what the model said."""

    modality: str
    kind: str
    question: Question
    prediction: str

    @property
    def right(self) -> bool:
        """Exact match but for case, outer white space and a final full stop."""
        return self.prediction.strip().rstrip(".").lower() == self.question.answer.lower()


def held_out(count: int) -> list[tuple[Sample, Question]]:
    """Samples that take turns in modality and kind, each with one of its questions."""
    settings = yaml.safe_load((ROOT / "train/configs/nano/pretrain.yaml").read_text(encoding="utf-8"))
    kinds = [(modality, kind) for modality in settings["modalities"] for kind in KINDS_OF[modality]]
    drawn = []
    for index in range(count):
        rng = np.random.default_rng((HELD_OUT_SEED, index))
        sample = generate(*kinds[index % len(kinds)], rng)
        asked = questions(sample.facts, sample.kind, rng)
        drawn.append((sample, asked[int(rng.integers(len(asked)))]))
    return drawn


@torch.inference_mode()
def answer(model, processor, drawn: list[tuple[Sample, Question]], batch_size: int) -> list[Answered]:
    """Greedy answers in left-padded batches."""
    answered = []
    for start in tqdm(range(0, len(drawn), batch_size), desc="Answering", unit="batch"):
        batch = drawn[start : start + batch_size]
        chats = [
            [
                {
                    "role": "user",
                    "content": [{"type": s.kind, s.kind: to_clip(s)}, {"type": "text", "text": q.question}],
                }
            ]
            for s, q in batch
        ]
        inputs = processor.apply_chat_template(chats, add_generation_prompt=True, tokenize=True, return_dict=True)
        output = model.generate(**inputs.to(model.device), max_new_tokens=LONGEST_ANSWER, do_sample=False)
        texts = processor.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        answered += [Answered(s.facts["modality"], s.kind, q, t) for (s, q), t in zip(batch, texts, strict=True)]
    return answered


def wilson_interval(right: int, count: int) -> tuple[float, float]:
    """95 % interval of a proportion."""
    interval = binomtest(right, count).proportion_ci(confidence_level=0.95, method="wilson")
    return float(interval.low), float(interval.high)


def accuracy(answered: list[Answered]) -> dict[str, float | int | list[float]]:
    """Share of right answers, its count and interval, and the share of the most frequent true answer."""
    right = sum(one.right for one in answered)
    majority = Counter(one.question.answer for one in answered).most_common(1)[0][1]
    return {
        "accuracy": right / len(answered),
        "interval": list(wilson_interval(right, len(answered))),
        "count": len(answered),
        "most_frequent_answer": majority / len(answered),
    }


def report(answered: list[Answered]) -> dict[str, dict]:
    """Accuracy over all, per task, per modality and per kind of clip.

    Open and yes/no questions of a task stand apart, and so does naming the modality from naming contrast or stain.
    """

    def task(one: Answered) -> str:
        if one.question.answer in ("yes", "no"):
            return f"{one.question.task}, yes/no"
        return "modality named" if one.question.answer == one.modality else f"{one.question.task}, open"

    def split(key) -> dict[str, dict]:
        groups: dict[str, list[Answered]] = {}
        for one in answered:
            groups.setdefault(key(one), []).append(one)
        return {name: accuracy(group) for name, group in sorted(groups.items())}

    return {
        "all": accuracy(answered),
        "task": split(task),
        "modality": split(lambda one: one.modality),
        "kind": split(lambda one: one.kind),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=str(ROOT / "hub_model"), help="folder or Hub id (default: hub_model)")
    parser.add_argument("--samples", type=int, default=400, help="number of samples, one question each")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--json", type=Path, help="where the figures are written")
    parser.add_argument("--answers", type=Path, help="where every question and answer is written, as JSON Lines")
    arguments = parser.parse_args()
    processor = AutoProcessor.from_pretrained(arguments.model, trust_remote_code=True)
    model = AutoModelForImageTextToText.from_pretrained(arguments.model, trust_remote_code=True).eval()
    answered = answer(model, processor, held_out(arguments.samples), arguments.batch_size)
    result = report(answered)
    for group in ("task", "modality", "kind"):
        for name, figures in {"all": result["all"], **result[group]}.items():
            low, high = figures["interval"]
            print(
                f"{name:42s} {figures['accuracy']:6.1%}  [{low:.1%}, {high:.1%}]  n={figures['count']:<5d}"
                f" most frequent answer {figures['most_frequent_answer']:.1%}"
            )
        print()
    if arguments.json:
        arguments.json.write_text(json.dumps({"seed": HELD_OUT_SEED, **result}, indent=1) + "\n", encoding="utf-8")
    if arguments.answers:
        rows = [
            {"modality": one.modality, "kind": one.kind, **asdict(one.question), "prediction": one.prediction}
            for one in answered
        ]
        arguments.answers.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    main()
