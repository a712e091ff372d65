# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Prompts that a vLLM server and `generate` are both asked, to compare their greedy answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import openai
import torch

from benchmarks.vllm_process import NAME
from tests.helpers.served_media import KINDS, QUESTION, data_uri, prompt_of

NEW_TOKENS = 16
QUESTIONS = (QUESTION, "Which part of the body is shown?", "Is there a lesion? Describe what you see.")


@dataclass(frozen=True)
class Asked:
    """One prompt: files by name, a question, and options in the two places that vLLM has for them."""

    names: tuple[str, ...]
    question: str = QUESTION
    reading: dict[str, Any] = field(default_factory=dict)
    pruning: dict[str, Any] = field(default_factory=dict)
    stage: str = "language"


PROMPTS = [
    Asked(names, question, reading, pruning, stage)
    for names, reading, pruning in (
        (("picture",), {}, {}),
        (("slice",), {}, {}),
        (("volume",), {}, {}),
        (("volume",), {"plane": "coronal", "windows": ["lung"]}, {"keep_ratio": 0.4}),
        (("nrrd",), {"max_frames": 6}, {"prune_threshold": 0.02}),
        (("series",), {}, {}),
        (("video",), {}, {}),
        (("video",), {"fps": 2}, {"max_visual_tokens": 60}),
        (("picture", "volume", "video"), {}, {}),
    )
    for question in QUESTIONS
    for stage in ("language", "encoder")
]


def ask_server(
    server: openai.OpenAI, files: Mapping[str, tuple[str, bytes]], asked: Asked, model: str = NAME, **options: Any
) -> Any:
    """The server's reply to a prompt. `files`: as `files_to_send` gives them."""
    content = [{"type": files[name][0], files[name][0]: {"url": data_uri(files[name][1])}} for name in asked.names]
    extra = {"mm_processor_kwargs": {**asked.pruning, "prune_stage": asked.stage}} if asked.names else {}
    if asked.reading:
        extra["media_io_kwargs"] = {"image": asked.reading, "video": asked.reading}
    return server.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": [*content, {"type": "text", "text": asked.question}]}],
        max_tokens=NEW_TOKENS,
        temperature=0,
        extra_body=extra,
        **options,
    )


def ask_generate(model: Any, processor: Any, paths: Mapping[str, Path], asked: Asked) -> tuple[int, str]:
    """What `generate` answers, after the number of tokens in the prompt. `paths`: the same files on the disk."""
    clips = [{"source": paths[name], "kind": KINDS[name], **asked.reading} for name in asked.names]
    inputs = processor(prompt_of(processor, asked.names, asked.question), clips, **asked.pruning)
    length = inputs["input_ids"].shape[1]
    with torch.inference_mode():
        new = model.generate(**inputs, prune_stage=asked.stage, max_new_tokens=NEW_TOKENS, do_sample=False)
    return length, processor.decode(new[0, length:], skip_special_tokens=True)
