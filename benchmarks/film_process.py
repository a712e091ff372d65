# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The process that asks about one film for `benchmarks.long_film`, and what it shares with those who start it.

Nothing is imported here that answering does not need: it would count as memory that an hour of film takes.
"""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging

from benchmarks.end_to_end.measuring import Clock
from benchmarks.memory import resident

MINUTES = (5, 15, 30, 60)
TOKEN_BUDGET = 1800
"""Visual tokens of a film at most, whatever its length: 30 for each minute of an hour."""
QUESTION = "Which imaging modality is this?"
NEW_TOKENS = 16
PROMPT_AT_ONCE = 256
"""Tokens of the prompt that go through the language model together; a long prompt's activations would need more memory
than its cache."""
STAGES = ("read", "prune", "encode", "first token", "answer")


def load(model_folder: Path) -> tuple[Any, Any]:
    """The processor and the model in a folder, and all that reading a film imports, so that no clock sees that."""
    import av  # noqa: F401 - here, as whoever starts such a process needs none of this

    import hub_model.media_omniv_med  # noqa: F401
    from hub_model.modeling_omniv_med import OmniVMedForConditionalGeneration
    from hub_model.processing_omniv_med import OmniVMedProcessor

    model = OmniVMedForConditionalGeneration.from_pretrained(model_folder, trust_remote_code=True, dtype=torch.float32)
    return OmniVMedProcessor.from_pretrained(model_folder, trust_remote_code=True), model.eval()


def question_prompt(processor: Any, question: str) -> str:
    """A question about one film as the model is asked it, the film's place left open."""
    parts = [{"type": "video"}, {"type": "text", "text": question}]
    return processor.apply_chat_template(
        [{"role": "user", "content": parts}], add_generation_prompt=True, tokenize=False
    )


def counts(keep: torch.Tensor, threshold: float, prompt_tokens: int, context: int) -> dict[str, Any]:
    """What of a film with kept tokens (frames, tokens of a frame) was asked about.

    Raises:
        ValueError: where prompt and answer together do not fit into the model's context.
    """
    if prompt_tokens + NEW_TOKENS > context:
        raise ValueError(f"The prompt has {prompt_tokens} tokens, and the model's context {context}.")
    return {
        "frames": len(keep),
        "frames_kept": int(keep.any(dim=1).sum()),
        "tokens": keep.numel(),
        "visual_tokens": int(keep.sum()),
        "prompt_tokens": prompt_tokens,
        "threshold": threshold,
    }


def measure(path: Path, model_folder: Path, threads: int) -> dict[str, Any]:
    """Asks the model in a folder about one film: seconds of each stage, counts, the answer, and the largest memory.

    Returns:
        "seconds" of each of `STAGES`, and "total_s" of all; "frames" read, and "frames_kept", those that keep a token;
        "tokens" before and "visual_tokens" after pruning; "prompt_tokens"; the pruning "threshold"; "peak_bytes"; the
        "answer".

    Raises:
        ValueError: where prompt and answer together do not fit into the model's context.
    """
    torch.set_num_threads(threads)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    processor, model = load(model_folder)
    marks = [time.perf_counter()]

    def note_the_last(done: int, count: int) -> None:
        if done == count:
            marks.append(time.perf_counter())

    film = processor.process_film(
        path, note_the_last, fps=1.0, max_frames=60 * max(MINUTES), max_visual_tokens=TOKEN_BUDGET
    )
    inputs = processor(text=question_prompt(processor, QUESTION), clips=[film])
    marks.append(time.perf_counter())
    encoded = model.encode_in_pieces(inputs)
    marks.append(time.perf_counter())
    words = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    length, context = words["input_ids"].shape[1], model.config.text_config.max_position_embeddings
    found = counts(film.pruned.keep_mask, film.pruned.threshold, length, context)
    del film, inputs  # the pixels, which take more memory than all that is left to do
    clock = Clock()
    output = model.generate(
        **words,
        mm_encoder_outputs=encoded,
        prefill_chunk_size=PROMPT_AT_ONCE,
        do_sample=False,
        max_new_tokens=NEW_TOKENS,
        streamer=clock,
    )
    marks += [clock.arrivals[1], time.perf_counter()]
    seconds = [end - start for start, end in itertools.pairwise(marks)]
    (answer,) = processor.batch_decode(output[:, length:], skip_special_tokens=True)
    found |= {"seconds": dict(zip(STAGES, seconds, strict=True)), "total_s": marks[-1] - marks[0]}
    return found | {"peak_bytes": resident("VmHWM"), "answer": answer.strip()}
