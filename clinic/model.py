# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The model that answers a batch run, and the versions that its answers are cited with."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from transformers import AutoModelForImageTextToText, AutoProcessor

from clinic.questions import Question, Questions
from hub_model.answering_omniv_med import Answer
from hub_model.clip_omniv_med import Clip
from hub_model.number_format_omniv_med import preferred_dtype
from hub_model.shared_media_omniv_med import answer_questions
from train.checkpoints.fingerprint import fingerprint

ROOT = Path(__file__).resolve().parents[1]
CODE = ("hub_model/*.py", "clinic/*.py", "data_engine/answers.py")
"""What reads media and answers: a change in it may change a result."""


class ModelError(ValueError):
    """A model that cannot be used, in one sentence."""


def code_version() -> str:
    """SHA-256 of the code that reads media and answers, its first 16 digits."""
    digest = hashlib.sha256()
    for path in sorted(path for pattern in CODE for path in ROOT.glob(pattern)):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


class LocalModel:
    """A model on this machine, on its GPU if it has one.

    Args:
        name: a folder, or an id on the Hub.

    Attributes:
        version: fingerprint of the weights and settings.

    Raises:
        ModelError: it cannot be loaded, or is none of this project's.
    """

    def __init__(self, name: str) -> None:
        on_gpu = torch.cuda.is_available()
        dtype = torch.float32 if on_gpu else preferred_dtype()
        try:
            folder = Path(name) if Path(name).is_dir() else Path(snapshot_download(name))
            self.version = fingerprint(folder)
            self._processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
            model: Any = AutoModelForImageTextToText.from_pretrained(folder, trust_remote_code=True, dtype=dtype)
        except Exception as error:  # of many classes: missing, damaged, from another project, or not reachable
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ModelError(f"The model {name} cannot be loaded: {reason}") from None
        if not hasattr(self._processor, "process_clip"):
            raise ModelError(f"The model {name} is not an OmniV-Med model.")
        self._model = model.to("cuda" if on_gpu else "cpu").eval()
        # A tokenizer cannot pad in one thread while it encodes in another, so those that prune have their own.
        self._pruner = copy.deepcopy(self._processor)

    def settings(self) -> dict[str, Any]:
        """What its answers depend on, as JSON values: a run does not go on with others."""
        calibration = getattr(self._model.config, "answer_calibration", None)
        return {
            "model": self.version,
            "calibration": json.dumps(calibration, sort_keys=True) if calibration else None,
            "dtype": str(self._model.dtype).removeprefix("torch."),
        }

    def sampling(self) -> dict[str, Any]:
        """The arguments of `load_clip` where nobody gives others."""
        return {"max_frames": self._processor.max_frames, "fps": self._processor.fps}

    def prune(self, clip: Clip, options: Mapping[str, Any]) -> Any:
        """Sizes and prunes a clip; other threads may do so at the same time."""
        return self._pruner.process_clip(clip, **options)

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

    def answer(self, processed: Any, questions: Sequence[Question], max_new_tokens: int) -> list[Answer]:
        """Answers questions about one pruned clip.

        Raises:
            ValueError: a prompt that is too long for the model, or a threshold for a model without calibration.
        """
        words, thresholds = [one.ask for one in questions], [one.confidence for one in questions]
        return answer_questions(self._model, self._processor, processed, words, thresholds, max_new_tokens)

    def check(self, questions: Questions) -> None:
        """Raises `ModelError` for a threshold that the model cannot keep."""
        asked = questions.questions
        if self.settings()["calibration"] is None and any(one.confidence is not None for one in asked):
            raise ModelError("The model's confidence is not calibrated; leave `confidence` out of the questions.")
