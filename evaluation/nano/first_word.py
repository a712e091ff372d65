# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""How readily a model says that a picture is not medical: a bias on the first word of that sentence, fitted.

A model that was trained on few such pictures knows more about them than its likeliest answer says: the sentence's first
word comes close to winning on pictures that are not medical, and nowhere near on others. So its logit is raised, by
`sequence_bias` of the generation configuration, which whatever calls `generate` follows. How far, the validation split
says: far enough for nearly all pictures that are not medical, but no farther than a few answerable questions allow.
Where both leave room, the bias lies in the middle, because users bring pictures of kinds that the split does not have.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from transformers import LogitsProcessor

from data_engine.records import Reply
from data_engine.unanswerable import NOT_MEDICAL

if TYPE_CHECKING:
    from hub_model.processing_omniv_med import OmniVMedProcessor

RECOGNISED = 0.98
"""Share of the pictures that are not medical for which the bias should be large enough."""
TAKEN_WRONGLY = 0.01
"""Share of the answerable questions whose answer the bias may change at most."""
FILE, FIELD = "generation_config.json", "sequence_bias"


def first_word(processor: OmniVMedProcessor) -> int:
    """Id of the first token of "This is not a medical image."."""
    return int(processor.tokenizer(NOT_MEDICAL, add_special_tokens=False).input_ids[0])


class FirstWordMargin(LogitsProcessor):
    """Keeps by how much one token's logit exceeds all others at the first step of `generate`; changes nothing.

    Attributes:
        margins: one an answer, after the first step.
    """

    def __init__(self, token: int):
        self.token = token
        self.margins: list[float] = []

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        if not self.margins:
            others = scores.float().clone()
            others[:, self.token] = float("-inf")
            self.margins = (scores[:, self.token].float() - others.amax(dim=-1)).tolist()
        return scores


def fit_bias(margins: Sequence[float], replies: Sequence[Reply]) -> float:
    """What to add to the first word's logit, 0 or more.

    Args:
        margins: of a validation split's answers without a bias.
        replies: what the right reply to each does.

    Raises:
        ValueError: a split without pictures that are not medical, or without answerable questions.
    """
    of = {kind: [m for m, r in zip(margins, replies, strict=True) if r == kind] for kind in ("not medical", "answer")}
    if not all(of.values()):
        raise ValueError("The validation split needs answerable questions, and pictures that are not medical.")
    enough = -float(np.quantile(of["not medical"], 1 - RECOGNISED, method="lower"))
    allowed = -float(np.quantile(of["answer"], 1 - TAKEN_WRONGLY, method="higher"))
    return max((enough + allowed) / 2 if enough < allowed else allowed, 0.0)


def read_bias(folder: Path) -> list:
    """The biases in the generation configuration of a model's folder, as they stand there."""
    path = folder / FILE
    return (json.loads(path.read_text(encoding="utf-8")).get(FIELD) if path.is_file() else None) or []


def write_bias(folder: Path, token: int, bias: float) -> None:
    """Puts a bias into the generation configuration of a model's folder, in the place of what stands there."""
    path = folder / FILE
    config = json.loads(path.read_text(encoding="utf-8"))
    config[FIELD] = [[[token], round(bias, 3)]]
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
