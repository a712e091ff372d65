# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The model that answers a batch run, and the versions that its answers are cited with."""

from __future__ import annotations

import copy
import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

from clinic.questions import Question, Questions
from hub_model.answering_omniv_med import Answer
from hub_model.clip_omniv_med import Clip
from hub_model.number_format_omniv_med import preferred_dtype
from hub_model.prompt_omniv_med import fill_placeholders
from hub_model.shared_media_omniv_med import MediumQuestions, answer_questions, longest_prompt
from train.checkpoints.fingerprint import fingerprint

ROOT = Path(__file__).resolve().parents[1]
CODE = ("hub_model/*.py", "clinic/*.py", "data_engine/answers.py")
"""What reads media and answers: a change in it may change a result."""
BATCH_TOKENS = 16384
"""Padded tokens of a batch; the key-value cache of as many takes 0.7 GB with the Nano, 0.9 GB with a 7B in bfloat16."""
SIMILAR = 0.75
"""Prompts this share as long as the longest one share its batch: a quarter of its work at most is padding."""


class ModelError(ValueError):
    """A model that cannot be used, in one sentence."""


def code_version() -> str:
    """SHA-256 of the code that reads media and answers, its first 16 digits."""
    digest = hashlib.sha256()
    for path in sorted(path for pattern in CODE for path in ROOT.glob(pattern)):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def batches(lengths: Mapping[int, int], questions: Sequence[int]) -> list[list[int]]:
    """Which media are answered together: those of similar length, as many as fit in `BATCH_TOKENS`.

    Args:
        lengths: number of a medium -> tokens of its longest prompt.
        questions: how many there are about each medium, by its number.
    """
    found: list[list[int]] = []
    longest = rows = 0
    for number in sorted(lengths, key=lambda one: -lengths[one]):
        rows += questions[number]
        if not found or lengths[number] < SIMILAR * longest or rows * longest > BATCH_TOKENS:
            found.append([])
            longest, rows = lengths[number], questions[number]
        found[-1].append(number)
    return found


@contextmanager
def _one_sentence(name: str) -> Iterator[None]:
    """Around the loading of a model: `ModelError` for whatever its libraries raise."""
    try:
        yield
    except Exception as error:  # of many classes: missing, damaged, from another project, or not reachable
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(f"The model {name} cannot be loaded: {reason}") from None


def _dtype() -> torch.dtype:
    """What this machine computes in."""
    return torch.float32 if torch.cuda.is_available() else preferred_dtype()


def check_thresholds(questions: Questions, settings: Mapping[str, Any]) -> None:
    """Raises `ModelError` for a threshold that a model with these settings cannot keep."""
    if settings["calibration"] is None and any(one.confidence is not None for one in questions.questions):
        raise ModelError("The model's confidence is not calibrated; leave `confidence` out of the questions.")


class ModelFolder:
    """A model's processor and versions, without its weights: what reads, sizes and prunes for it.

    Args:
        name: a folder, or an id on the Hub.

    Attributes:
        folder: where it lies.
        processor: as `from_pretrained` gives it.
        config: likewise.
        version: fingerprint of the weights and settings.

    Raises:
        ModelError: it cannot be loaded, or is none of this project's.
    """

    def __init__(self, name: str) -> None:
        with _one_sentence(name):
            self.folder = Path(name) if Path(name).is_dir() else Path(snapshot_download(name))
            self.version = fingerprint(self.folder)
            self.config: Any = AutoConfig.from_pretrained(self.folder, trust_remote_code=True)
            self.processor: Any = AutoProcessor.from_pretrained(self.folder, trust_remote_code=True)
        if not hasattr(self.processor, "process_clip"):
            raise ModelError(f"The model {name} is not an OmniV-Med model.")
        # A tokenizer cannot pad in one thread while it encodes in another, so those that prune have their own.
        self._pruner = copy.deepcopy(self.processor)

    def settings(self) -> dict[str, Any]:
        """What answers depend on, as JSON values: a run does not go on with others."""
        calibration = getattr(self.config, "answer_calibration", None)
        return {
            "model": self.version,
            "code": code_version(),
            "calibration": json.dumps(calibration, sort_keys=True) if calibration else None,
            "dtype": str(_dtype()).removeprefix("torch."),
        }

    def sampling(self) -> dict[str, Any]:
        """The arguments of `load_clip` where nobody gives others."""
        return {"max_frames": self.processor.max_frames, "fps": self.processor.fps}

    def prune(self, clip: Clip, options: Mapping[str, Any]) -> Any:
        """Sizes and prunes a clip; other threads may do so at the same time.

        The result waits for its batch without the frames as they were read, which take far more memory than its tokens.
        """
        processed = self._pruner.process_clip(clip, **options)
        return replace(processed, clip=replace(clip, frames=clip.frames[:, :1, :1].copy()))

    def prompt_lengths(self, processed: Any, words: Sequence[str]) -> list[int]:
        """How many tokens the prompt of each question about a pruned clip has."""
        prompts = MediumQuestions(processed, words, [None] * len(words)).prompts(self.processor)
        filled = fill_placeholders(prompts, [self.processor.placeholder_text(processed)] * len(words))
        return [len(ids) for ids in self.processor.tokenizer(filled).input_ids]

    def facts(self, processed: Any) -> dict[str, Any]:
        """What rows say of a prepared series: what was read, and its visual tokens."""
        return {
            "kind": processed.clip.kind,
            "modality": processed.clip.modality,
            "frames": len(processed.clip.frames),
            "source_frames": processed.clip.source_frames,
            "tokens_kept": int(processed.pruned.keep_mask.sum()),
            "tokens_total": processed.tokens_before,
            "notes": list(processed.notes),
        }


class LocalModel(ModelFolder):
    """A model on this machine, on its GPU if it has one; as `ModelFolder`, with its weights."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        with _one_sentence(name):
            model: Any = AutoModelForImageTextToText.from_pretrained(
                self.folder, trust_remote_code=True, dtype=_dtype()
            )
        self._model = model.to("cuda" if torch.cuda.is_available() else "cpu").eval()

    def answer(
        self, media: Sequence[tuple[Any, Sequence[Question]]], max_new_tokens: int
    ) -> list[tuple[list[Answer], str, float]]:
        """Answers questions about pruned clips, those with prompts of similar length together.

        Args:
            media: each clip with the questions about it.
            max_new_tokens: longest answer.

        Returns:
            For each clip its answers, or none and the sentence that says why; and its share of the seconds.
        """
        asked = [
            MediumQuestions(one, [q.ask for q in questions], [q.confidence for q in questions])
            for one, questions in media
        ]
        given: dict[int, tuple[list[Answer], str, float]] = {}
        lengths = {}
        for number, one in enumerate(asked):
            try:
                lengths[number] = longest_prompt(self._model, self.processor, one, max_new_tokens)
            except ValueError as refused:
                given[number] = [], str(refused), 0.0
        for batch in batches(lengths, [len(one.questions) for one in asked]):
            start = time.perf_counter()
            answers = answer_questions(self._model, self.processor, [asked[n] for n in batch], max_new_tokens)
            seconds = (time.perf_counter() - start) / len(batch)
            given |= {number: (held, "", seconds) for number, held in zip(batch, answers, strict=True)}
        return [given[number] for number in range(len(asked))]
