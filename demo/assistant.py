# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""What the page does with the model: reads files, prunes them again at other thresholds, streams answers."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import spaces
import torch
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    BatchFeature,
    StoppingCriteria,
    StoppingCriteriaList,
    TextIteratorStreamer,
)

from hub_model.isolated_reading_omniv_med import IsolatedReader

MAX_NEW_TOKENS = 128
SECONDS_BETWEEN_CHECKS = 0.25
"""How soon a stop is noticed while no new word comes."""


class StopWhenSet(StoppingCriteria):
    """Ends a generation as soon as an event is set."""

    def __init__(self, event: threading.Event) -> None:
        self.event = event

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        return torch.full((len(input_ids),), self.event.is_set(), device=input_ids.device)


class Assistant:
    """The processor and the model, shared by all visitors; holds nothing of theirs.

    Raises:
        ValueError, OSError: from transformers, when the model cannot be loaded.
    """

    def __init__(self, model_id: str) -> None:
        self.processor = AutoProcessor.from_pretrained(model_id, trust_remote_code=True)
        self.model = AutoModelForImageTextToText.from_pretrained(model_id, trust_remote_code=True).eval()
        self.reader = IsolatedReader()
        # A closure, so that only the inputs are sent to the process that has the GPU in a Space, and not the model.
        self.generate = spaces.GPU(self._generate)

    def read(self, paths: Sequence[str | Path], threshold: float) -> Any:
        """Reads one file, or several as one DICOM series or the frames of a video, and prunes it.

        Strangers upload them, so they are decoded in a process of its own.

        Raises:
            ValueError: the sentence for the user, when the files cannot be read.
        """
        source = paths[0] if len(paths) == 1 else list(paths)
        clip = self.reader.load_clip(source, max_frames=self.processor.max_frames, fps=self.processor.fps)
        return self.prune(clip, threshold)

    def prune(self, clip: Any, threshold: float) -> Any:
        """The clip as a `ProcessedClip`, at a threshold of the page."""
        return self.processor.process_clip(clip, prune_threshold=threshold)

    def prepare(self, turns: Sequence[dict[str, str]], processed: Any | None) -> BatchFeature:
        """The model's inputs for a conversation; the medium belongs to its first question.

        Args:
            turns: {"role", "content"} in order, the last one the question.
            processed: the `ProcessedClip` that the conversation is about, or None.

        Raises:
            ValueError: when the conversation has grown too long for the model.
        """
        messages = [{"role": turn["role"], "content": [{"type": "text", "text": turn["content"]}]} for turn in turns]
        if processed is not None:
            messages[0]["content"].insert(0, {"type": processed.clip.kind})
        prompt = self.processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        inputs = self.processor(text=prompt, clips=[] if processed is None else [processed])
        longest = self.model.config.text_config.max_position_embeddings
        if inputs["input_ids"].shape[1] + MAX_NEW_TOKENS > longest:
            raise ValueError("The conversation is too long for the model; clear it, or raise the threshold.")
        return inputs

    def _generate(self, inputs: BatchFeature) -> Iterator[str]:
        """Yields the answer so far, again and again, until it is complete or the caller closes the generator."""
        model = self.model.to("cuda" if torch.cuda.is_available() else "cpu")
        streamer = TextIteratorStreamer(
            self.processor.tokenizer, skip_prompt=True, timeout=SECONDS_BETWEEN_CHECKS, skip_special_tokens=True
        )
        stop, failures = threading.Event(), []

        def work() -> None:
            try:
                model.generate(
                    **inputs.to(model.device),
                    max_new_tokens=MAX_NEW_TOKENS,
                    do_sample=False,
                    streamer=streamer,
                    stopping_criteria=StoppingCriteriaList([StopWhenSet(stop)]),
                )
            except Exception as error:  # whatever it is, it belongs to the thread that waits for words
                failures.append(error)
                streamer.end()

        worker = threading.Thread(target=work, daemon=True)
        worker.start()
        text = ""
        try:
            while True:
                try:
                    text += next(streamer)
                except queue.Empty:
                    pass  # a stop arrives at the yield below, so it is reached even while no word comes
                except StopIteration:
                    break
                yield text
        finally:
            stop.set()  # without waiting for the thread: gradio closes generators in the loop that serves everybody
        if failures:
            raise failures[0]
