# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Our side: the reader, the pruner, the processor and the model, as the README calls them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast

from benchmarks.end_to_end.cases import (
    CLIP_TOKENS,
    FRAME_TOKENS,
    HUB_MODEL,
    MERGE_SIZE,
    PATCH_SIZE,
    QUESTION,
    Case,
    Run,
    weights_folder,
)
from hub_model.clip_omniv_med import Clip
from hub_model.modeling_omniv_med import OmniVMedForConditionalGeneration
from hub_model.processing_omniv_med import OmniVMedProcessor


class Ours:
    """Asks about one case, without pruning ("none") or with a `prune_stage`."""

    def __init__(self, run: Run, folder: Path) -> None:
        weights = weights_folder(folder, run.side, run.dtype)
        self.model: Any = OmniVMedForConditionalGeneration.from_pretrained(weights, dtype=getattr(torch, run.dtype))
        self.model.eval()
        fewest, most = FRAME_TOKENS
        self._processor = OmniVMedProcessor(
            PreTrainedTokenizerFast.from_pretrained(HUB_MODEL),
            chat_template=(HUB_MODEL / "chat_template.jinja").read_text(encoding="utf-8"),
            patch_size=PATCH_SIZE,
            merge_size=MERGE_SIZE,
            min_frame_tokens=fewest,
            max_frame_tokens=most,
            max_clip_tokens=CLIP_TOKENS,
            max_frames=run.case.frames,
            prune_rule="none" if run.side == "none" else "anchor",
        )
        self._stage = "language" if run.side == "none" else run.side

    def read(self, path: Path, case: Case) -> Clip:
        """The file's frames."""
        window = {} if case.window is None else {"windows": [case.window]}
        return self._processor.load(path, kind=case.kind, **window)

    def prepare(self, clip: Clip) -> tuple[dict[str, Any], torch.Tensor, tuple[int, int]]:
        """What `generate` takes, the kept tokens (frames, tokens), and rows and columns of tokens in a frame."""
        processed = self._processor.process_clip(clip)
        parts = [{"type": clip.kind}, {"type": "text", "text": QUESTION}]
        prompt = self._processor.apply_chat_template(
            [{"role": "user", "content": parts}], add_generation_prompt=True, tokenize=False
        )
        inputs = self._processor(text=prompt, clips=[processed])
        return {**inputs, "prune_stage": self._stage}, processed.pruned.keep_mask, processed.grid
