# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""What the page and the API do with the model: read files, prune them, stream answers, and find an answer's evidence.

Each medium of a conversation is encoded once, and what the language model computed for the unchanged beginning of the
prompt is used again: for a further question nearly all of it, after an edit the part before the edit.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import spaces
import torch
from spaces.config import Config as SpacesConfig
from transformers import AutoModelForImageTextToText, AutoProcessor, BatchFeature

from demo.service.bounded_memory import BoundedMemory
from demo.service.conversation_cache import ConversationCache
from demo.service.dialogue import Answer, Turn
from demo.service.evidence import Evidence, occlusion_evidence
from demo.service.freed_memory import return_freed_memory
from demo.service.generation import SECONDS_BETWEEN_CHECKS, Generation, Request
from demo.service.measured import read_measured
from demo.service.pruning_settings import PruningSettings
from demo.service.reading_choice import AS_FOUND, ReadingChoice
from hub_model.isolated_reading_omniv_med import IsolatedReader
from hub_model.number_format_omniv_med import preferred_dtype

if TYPE_CHECKING:
    from hub_model.media_omniv_med import Clip
    from hub_model.processing_omniv_med import OmniVMedProcessor, ProcessedClip


class Assistant:
    """The processor and the model, shared by all visitors.

    Of its visitors it holds only `memory`: what it computed for their conversations, bounded, and forgotten with
    `memory.drop`. On ZeroGPU every question runs in a process of its own, so there it remembers nothing, and a further
    question takes as long as the first.

    Without a GPU the model computes in the processor's preferred number format; on a GPU in the one it was saved in.

    Args:
        model_id: a folder or a Hub id.
        max_frames: the largest number of frames of a clip; by default the processor's.
        read_seconds: how long reading one file may take.
        most_remembered, most_remembered_bytes: bounds of `memory`.
        is_present: whether an owner's page is still open (`BoundedMemory`).

    Raises:
        ValueError, OSError: from transformers, when the model cannot be loaded.
    """

    def __init__(
        self,
        model_id: str,
        *,
        max_frames: int | None = None,
        read_seconds: float = 60.0,
        most_remembered: int = 32,
        most_remembered_bytes: int = 2 * 2**30,
        is_present: Callable[[str], bool] = lambda owner: True,
    ) -> None:
        self.name = Path(model_id).name if Path(model_id).is_dir() else model_id
        self.measured = read_measured(model_id)
        load_processor: Callable[..., OmniVMedProcessor] = AutoProcessor.from_pretrained
        self.processor = load_processor(model_id, trust_remote_code=True)
        dtype = "auto" if torch.cuda.is_available() else preferred_dtype()
        # Any, because transformers' annotations of `to` and `generate` fit no model.
        load_model: Callable[..., Any] = AutoModelForImageTextToText.from_pretrained
        self.model = load_model(model_id, trust_remote_code=True, dtype=dtype).eval()
        self.processor.max_frames = max_frames or self.processor.max_frames
        self.defaults = PruningSettings.defaults(self.processor, self.model.config)
        self.reader = IsolatedReader(time_limit=read_seconds)
        self.remembers = not SpacesConfig.zero_gpu
        self.memory: BoundedMemory[ConversationCache] = BoundedMemory(
            most_remembered, most_remembered_bytes, is_present
        )
        self.model_is_free = threading.Lock()
        # Bound methods, so that a Space sends only their arguments to the process that has the GPU, and not the model.
        self.answer = spaces.GPU(self._answer)
        self.find_evidence = spaces.GPU(self._find_evidence)

    @property
    def description(self) -> str:
        """The model, its number format and where it runs, for the operator: "hub_model in bfloat16 on the CPU"."""
        place = "GPU" if torch.cuda.is_available() else "CPU"
        return f"{self.name} in {str(self.model.dtype).removeprefix('torch.')} on the {place}"

    def read(
        self,
        source: str | Path | list[Path],
        choice: ReadingChoice = AS_FOUND,
        progress: Callable[[int, int], None] | None = None,
    ) -> Clip:
        """Reads a file or a `data:` URI, or several files as one DICOM series or the frames of a video.

        Files are decoded in a separate process, because strangers upload them.

        Raises:
            ValueError: when the files cannot be read; the message is for the visitor.
        """
        return self._load(source, choice, progress=progress)

    def read_in_window(self, source: list[Path], choice: ReadingChoice, width: float, level: float) -> Clip:
        """Reads a CT again in one window, its width and level in HU: grey frames.

        Raises:
            ValueError: when the files cannot be read; the message is for the visitor.
        """
        return self._load(source, choice, windows=[(width, level)] * 3)

    def _load(self, source: str | Path | list[Path], choice: ReadingChoice, **options: Any) -> Clip:
        if isinstance(source, list) and len(source) == 1:
            source = source[0]
        options |= {"max_frames": self.processor.max_frames, "fps": self.processor.fps, "plane": choice.plane}
        if choice.series is not None:
            options["series"] = choice.series
        return self.reader.load_clip(source, **options)

    def prune(self, clip: Clip, settings: PruningSettings) -> ProcessedClip:
        """Prunes a clip.

        Raises:
            ValueError: for a setting that is impossible for this clip.
        """
        return self.processor.process_clip(clip, **settings.options())

    def prompt(self, turns: Sequence[Turn]) -> str:
        """The conversation in the model's template, with one media token for each medium.

        The template's own special tokens are removed from what visitors write, so that nobody can imitate them.
        """
        conversation: list[dict[str, Any]] = []
        for turn in turns:
            media = [{"type": medium.clip.kind} for medium in turn.media]
            question = {"type": "text", "text": self._without_special_tokens(turn.question)}
            answer = {"type": "text", "text": self._without_special_tokens(turn.answer)}
            conversation.append({"role": "user", "content": [*media, question]})
            conversation.append({"role": "assistant", "content": [answer]})
        prompt: str = self.processor.apply_chat_template(conversation[:-1], add_generation_prompt=True, tokenize=False)
        return prompt

    def _without_special_tokens(self, text: str) -> str:
        for token in self.processor.tokenizer.added_tokens_decoder.values():
            if token.special:
                text = text.replace(token.content, "")
        return text

    def inputs(self, turns: Sequence[Turn], settings: PruningSettings) -> tuple[BatchFeature, list[ProcessedClip]]:
        """The processor's inputs of a conversation up to its last answer, and the `ProcessedClip`s in them."""
        processed = [self.prune(medium.clip, settings) for turn in turns for medium in turn.media]
        return self.processor(text=self.prompt(turns), clips=processed), processed

    def _answer(
        self, turns: Sequence[Turn], settings: PruningSettings, owner: str | None = None, name: str = "conversation"
    ) -> Iterator[Answer]:
        """Answers the last turn; yields the answer so far, again and again, until it is complete.

        Closing the generator stops the model at its next token.

        Args:
            turns: the conversation, the question last.
            settings: how media are pruned, and at which stage, in this request alone.
            owner, name: under which `memory` keeps what was computed; without an owner it keeps nothing.

        Raises:
            ValueError: for a conversation that has grown too long; the message is for the visitor.
        """
        request = Request(turns, settings, owner if self.remembers else None, name)
        updates: queue.Queue[Answer | Exception] = queue.Queue()
        stop = threading.Event()

        def work() -> None:
            try:
                Generation(self, request, updates.put, stop).run()
            except Exception as error:  # whatever it is, it belongs to the thread that waits for words
                updates.put(error)
            return_freed_memory()

        threading.Thread(target=work, daemon=True).start()
        answer = Answer()
        try:
            while not answer.complete:
                # A stop arrives at the yield, so yield even while no new word comes.
                answer = _newest(updates, SECONDS_BETWEEN_CHECKS) or answer
                yield answer
        finally:
            stop.set()  # without waiting for the thread: Gradio closes generators in the loop that serves everybody

    def _find_evidence(
        self,
        inputs: BatchFeature,
        media: Sequence[ProcessedClip],
        answer_ids: Sequence[int],
        settings: PruningSettings,
    ) -> Evidence:
        """Finds which parts of the media an answer depends on; waits until no answer is computed.

        Args:
            inputs, media: as `inputs` returned them for the conversation.
            answer_ids: the answer's tokens.
            settings: of the answer.

        Raises:
            ValueError: without an answer or a medium; the message is for the visitor.
        """
        with self.model_is_free:
            self.model.to("cuda" if torch.cuda.is_available() else "cpu")
            return occlusion_evidence(self.model, inputs, media, answer_ids, settings.stage)


def _newest(updates: queue.Queue[Answer | Exception], seconds: float) -> Answer | None:
    """The newest answer in the queue, after waiting for one; None if none comes. Raises an error in the queue."""
    newest = None
    try:
        update = updates.get(timeout=seconds)
        while True:
            if isinstance(update, Exception):
                raise update
            newest = update
            update = updates.get_nowait()
    except queue.Empty:
        return newest
