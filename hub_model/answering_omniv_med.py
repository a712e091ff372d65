# Copyright 2026 The OmniV-Med Authors. All rights reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""Answers that say how sure they are: greedy, with the calibrated probability that the answer is right.

    answered = answer(model, processor, messages)
    answered.text, answered.confidence, answered.declined, answered.likeliest

The probabilities of an answer's tokens say something about whether it is right, but not as a probability. A logistic
regression on them, fitted on a validation split (Platt scaling; Guo et al., arXiv 1706.04599, compare it with others),
turns them into one. Its coefficients and the threshold below which the model declines are `answer_calibration` of the
model's configuration; without it, the confidence is the uncalibrated mean probability and only the model itself
declines.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import LogitsProcessor, LogitsProcessorList

CANNOT_TELL = "I cannot tell from this image."
DECLINING_WORDS = ("i cannot tell", "this is not a medical image")
"""How the model's own answers begin where it declines, in lower case."""
SMALLEST_PROBABILITY = 1e-6
"""Probabilities are held this far from 0 and from 1, so that their log-odds stay finite."""
FEATURES = ("mean", "lowest", "length")
"""What the regression is given of an answer; see `features`."""


@dataclass(frozen=True)
class Answer:
    """What the model answers to a conversation.

    Attributes:
        text: the answer; `CANNOT_TELL` where the confidence is below the threshold.
        confidence: calibrated probability that `likeliest` is right, or that declining is, from 0 to 1. Without media,
            or without a calibration, it is the mean probability of the answer's tokens.
        declined: whether the answer says that it cannot be told, by the threshold or in the model's own words.
        likeliest: the model's answer, however unsure; None where the model itself declined.
    """

    text: str
    confidence: float
    declined: bool
    likeliest: str | None


@dataclass(frozen=True)
class AnswerCalibration:
    """A logistic regression from an answer's token probabilities to the probability that the answer is right.

    Attributes:
        weights: of `FEATURES`.
        bias: log-odds where all features are 0.
        threshold: confidence below which the model declines; 0 never does.
    """

    weights: tuple[float, ...]
    bias: float
    threshold: float = 0.0

    @classmethod
    def of(cls, config: Any) -> AnswerCalibration | None:
        """What a model's configuration holds; None where it holds none.

        Raises:
            ValueError: a calibration of other features.
        """
        held: Mapping[str, Any] | None = getattr(config, "answer_calibration", None)
        if held is None:
            return None
        if len(held["weights"]) != len(FEATURES):
            raise ValueError(f"answer_calibration needs {len(FEATURES)} weights, of {', '.join(FEATURES)}.")
        return cls(tuple(map(float, held["weights"])), float(held["bias"]), float(held["threshold"]))

    def confidence(self, log_probabilities: Sequence[float]) -> float:
        """Probability that an answer with these log-probabilities of its tokens is right."""
        terms = zip(self.weights, features(log_probabilities), strict=True)
        log_odds = self.bias + math.fsum(weight * value for weight, value in terms)
        return 1 / (1 + math.exp(-max(min(log_odds, 50.0), -50.0)))


def features(log_probabilities: Sequence[float]) -> tuple[float, float, float]:
    """Of an answer's tokens, its end included: log-odds of their mean and of the lowest probability, log of the count.

    The mean is the geometric one, which does not punish an answer for its length.

    Raises:
        ValueError: no tokens.
    """
    if not log_probabilities:
        raise ValueError("An answer has one token at least, the one that ends it.")
    mean = math.fsum(log_probabilities) / len(log_probabilities)
    return _log_odds(math.exp(mean)), _log_odds(math.exp(min(log_probabilities))), math.log(len(log_probabilities))


def _log_odds(probability: float) -> float:
    held = min(max(probability, SMALLEST_PROBABILITY), 1 - SMALLEST_PROBABILITY)
    return math.log(held / (1 - held))


class GreedyLogProbabilities(LogitsProcessor):
    """Keeps the log-probability of the likeliest token at every step of `generate`; changes nothing.

    Greedy decoding takes this token, so these are the probabilities of the answer, at the cost of one number a step.
    """

    def __init__(self) -> None:
        self.steps: list[torch.Tensor] = []

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        wide = scores.float()
        self.steps.append((wide.amax(dim=-1) - wide.logsumexp(dim=-1)).cpu())
        return scores

    def of_answers(self, generated: torch.Tensor, ends: Sequence[int]) -> list[list[float]]:
        """Log-probabilities of each answer's tokens up to and with the one that ends it.

        Args:
            generated: int64 (answers, steps), the new tokens alone.
            ends: ids that end an answer.
        """
        kept = torch.stack(self.steps, dim=1)[:, : generated.shape[1]]
        ended = torch.isin(generated.cpu(), torch.tensor(list(ends))).long()
        own = ended.cumsum(dim=1) - ended == 0
        return [row[mask].tolist() for row, mask in zip(kept, own, strict=True)]


def end_ids(model: Any) -> list[int]:
    """The ids at which `generate` ends an answer."""
    ends = model.generation_config.eos_token_id
    return list(ends) if isinstance(ends, (list, tuple)) else [] if ends is None else [ends]


def judge(text: str, log_probabilities: Sequence[float], calibration: AnswerCalibration | None) -> Answer:
    """An answer with its confidence, and in place of an unsure one that it cannot be told."""
    if calibration is None:
        confidence = math.exp(math.fsum(log_probabilities) / len(log_probabilities))
    else:
        confidence = calibration.confidence(log_probabilities)
    if text.lower().startswith(DECLINING_WORDS):
        return Answer(text, confidence, True, None)
    if calibration is not None and confidence < calibration.threshold:
        return Answer(CANNOT_TELL, confidence, True, text)
    return Answer(text, confidence, False, text)


def judge_generated(
    model: Any, text: str, generated: torch.Tensor, watched: GreedyLogProbabilities, about_media: bool
) -> Answer:
    """The one answer that `generate` gave, with its confidence.

    Args:
        model: whose configuration may hold a calibration.
        text: the answer's words.
        generated: int64 (1, steps), the new tokens alone.
        watched: that `generate` was given.
        about_media: whether there was a medium in the prompt. The calibration was fitted on answers about media, and
            says nothing of others.
    """
    (log_probabilities,) = watched.of_answers(generated, end_ids(model))
    return judge(text.strip(), log_probabilities, AnswerCalibration.of(model.config) if about_media else None)


@torch.inference_mode()
def answer(
    model: Any, processor: Any, messages: Sequence[Mapping[str, Any]], max_new_tokens: int = 64, **options: Any
) -> Answer:
    """Answers a conversation, and says how sure the answer is.

    Args:
        model, processor: as `from_pretrained` gives them.
        messages: one conversation that ends with a question.
        max_new_tokens: longest answer.
        options: visual options of the processor, such as `prune_threshold`.

    Raises:
        MediaError: for a medium that cannot be read.
        ValueError: for an impossible option.
    """
    inputs = processor.apply_chat_template(
        list(messages),
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        processor_kwargs={"return_tensors": "pt", **options},
    ).to(model.device)
    watched = GreedyLogProbabilities()
    output = model.generate(
        **inputs, max_new_tokens=max_new_tokens, do_sample=False, logits_processor=LogitsProcessorList([watched])
    )
    new = output[:, inputs["input_ids"].shape[1] :]
    (text,) = processor.batch_decode(new, skip_special_tokens=True)
    return judge_generated(model, text, new, watched, "pixel_values" in inputs)


__all__ = ["CANNOT_TELL", "Answer", "AnswerCalibration", "answer"]
