# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""What the server is compared with: transformers' `generate`, one by one and in static batches.

It runs in a process of its own, with this project's environment, so that its memory is nobody else's. A batch's files
are read one after the other, as the README's lines do it, and all of its requests count from its start: they came at
once, as those of as many clients.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from transformers import LogitsProcessor, LogitsProcessorList
from transformers.utils import logging

from benchmarks.serving_clients import QUESTION, Workload
from benchmarks.serving_figures import Reply
from hub_model.modeling_omniv_med import OmniVMedForConditionalGeneration
from hub_model.processing_omniv_med import OmniVMedProcessor


class FirstToken(LogitsProcessor):
    """Notes when the logits of the first token are there, and leaves them as they are."""

    def __init__(self) -> None:
        self.time: float | None = None

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        if self.time is None:
            self.time = time.perf_counter()
        return scores


class Generator:
    """Model and processor, as `from_pretrained` gives them.

    Args:
        model: folder.
        dtype: the number format, as torch calls it.
        new_tokens: of each answer.
    """

    def __init__(self, model: str, dtype: str, new_tokens: int) -> None:
        self._processor: Any = OmniVMedProcessor.from_pretrained(model, trust_remote_code=True)
        self._model: Any = OmniVMedForConditionalGeneration.from_pretrained(
            model, trust_remote_code=True, dtype=getattr(torch, dtype)
        ).eval()
        self._new_tokens = new_tokens

    def answer(self, workload: Workload, numbers: Sequence[int]) -> list[Reply]:
        """Answers about files of a workload in one batch; numbers are counted round and round."""
        files = [number % len(workload.files) for number in numbers]
        content = [{"type": workload.kind}, {"type": "text", "text": QUESTION}]
        messages = [[{"role": "user", "content": content}] for _ in files]
        start, first = time.perf_counter(), FirstToken()
        prompts = self._processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        clips = [{"source": workload.files[file], "kind": workload.kind} for file in files]
        options = dict(workload.options)
        stage = options.pop("prune_stage", None)
        inputs = self._processor(prompts, clips, return_tensors="pt", **options)
        with torch.inference_mode():
            output = self._model.generate(
                **inputs,
                prune_stage=stage,
                max_new_tokens=self._new_tokens,
                min_new_tokens=self._new_tokens,
                do_sample=False,
                logits_processor=LogitsProcessorList([first]),
            )
        new = output[:, inputs["input_ids"].shape[1] :]
        texts = self._processor.batch_decode(new, skip_special_tokens=True)
        end, lengths = time.perf_counter(), inputs["attention_mask"].sum(dim=1).tolist()
        begun = (end if first.time is None else first.time) - start
        return [
            Reply(file, begun, end - start, text.strip(), length)
            for file, text, length in zip(files, texts, lengths, strict=True)
        ]


_generator: Generator | None = None
"""Of this process, if it is the peer's."""


def _load(model: str, dtype: str, new_tokens: int) -> None:
    global _generator
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    _generator = Generator(model, dtype, new_tokens)


def _answer_for(workload: Workload, batch: int, seconds: float) -> tuple[list[Reply], float]:
    """Answers in batches of so many until the time is over; at least one."""
    assert _generator is not None
    replies: list[Reply] = []
    start = time.perf_counter()
    while not replies or time.perf_counter() - start < seconds:
        replies += _generator.answer(workload, range(len(replies), len(replies) + batch))
    return replies, time.perf_counter() - start


@dataclass(frozen=True)
class Peer:
    """`generate` in a process of its own, whose number is `process`."""

    process: int
    _pool: ProcessPoolExecutor

    def answer_for(self, workload: Workload, batch: int, seconds: float) -> tuple[list[Reply], float]:
        """The answers of a turn, and the seconds that it took.

        Args:
            workload: what is asked about.
            batch: how many requests are answered together.
            seconds: how long batches are begun; one is always answered.
        """
        return self._pool.submit(_answer_for, workload, batch, seconds).result()


@contextmanager
def running_peer(model: str, dtype: str, new_tokens: int) -> Iterator[Peer]:
    """The peer, with its model loaded."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context, _load, (model, dtype, new_tokens)) as pool:
        yield Peer(pool.submit(os.getpid).result(), pool)
