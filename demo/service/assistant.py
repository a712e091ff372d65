# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""What the page and the API do with the model: read files, prune them, and stream answers.

A conversation's media are encoded once, and what the language model computed for the part of the prompt that did not
change is used again: for a further question nearly all, after an edit as much as comes before it.
"""

from __future__ import annotations

import itertools
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import spaces
import torch
from spaces.config import Config as SpacesConfig
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    BatchFeature,
    DynamicCache,
    StoppingCriteria,
    StoppingCriteriaList,
    TextStreamer,
)
from transformers.modeling_outputs import BaseModelOutputWithPooling

from demo.panels.pruning_panel import PruningSettings
from demo.service.sessions import BoundedMemory
from demo.service.stage import at_stage
from hub_model.isolated_reading_omniv_med import IsolatedReader

MAX_NEW_TOKENS = 128
SECONDS_BETWEEN_CHECKS = 0.25
"""How soon a stop is noticed while no new word comes."""
PREFILL_TOKENS = 256
"""Tokens of a prompt that are computed at once; between these pieces a stop is noticed."""


@dataclass(frozen=True)
class Medium:
    """A clip in a conversation; `key` tells it from the owner's others, as long as the conversation lasts."""

    key: str
    clip: Any


@dataclass(frozen=True)
class Turn:
    """One question about media that come with it, and its answer, "" for the last one."""

    question: str
    media: tuple[Medium, ...] = ()
    answer: str = ""


@dataclass(frozen=True)
class Answer:
    """An answer so far.

    Attributes:
        text: the words.
        step: what the model is doing, for the page; "" when the answer is complete.
        token_ids: the answer's tokens.
        visual_tokens: tokens of all media in the prompt, position labels counted, and without pruning.
        prompt_tokens: length of the prompt, and how much of it was computed before.
        seconds_to_first_token: from the moment the model was free for this question; None before it.
        seconds: until now, from the same moment.
    """

    text: str = ""
    step: str = "Waiting for the model"
    token_ids: tuple[int, ...] = ()
    visual_tokens: int = 0
    visual_tokens_unpruned: int = 0
    prompt_tokens: int = 0
    reused_tokens: int = 0
    seconds_to_first_token: float | None = None
    seconds: float = 0.0

    @property
    def complete(self) -> bool:
        return not self.step


@dataclass(frozen=True)
class EncodedMedium:
    """A medium as the language model takes it.

    Attributes:
        number: stands for its tokens in `Remembered.sequence`; no two have the same.
        text: position labels and placeholders.
        features: (kept tokens, hidden), the projected visual tokens.
        tokens, tokens_unpruned: how many it takes in the prompt, and would without pruning.
    """

    number: int
    text: str
    features: torch.Tensor
    tokens: int
    tokens_unpruned: int


@dataclass
class Remembered:
    """What was computed for a conversation.

    Attributes:
        sequence: int64 (length,), the tokens that `cache` holds; those of a medium as minus its number.
        cache: the language model's keys and values.
        encoded: the media, by their key and the settings of pruning.
    """

    sequence: np.ndarray
    cache: DynamicCache
    encoded: dict[tuple[str, PruningSettings], EncodedMedium]

    @property
    def bytes(self) -> int:
        layers = [layer for layer in self.cache.layers if layer.is_initialized]
        tensors = [tensor for layer in layers for tensor in (layer.keys, layer.values)]
        return sum(tensor.nbytes for tensor in (*tensors, *(item.features for item in self.encoded.values())))

    def keep(self, sequence: np.ndarray) -> int:
        """Cuts the cache down to what it shares with the beginning of `sequence`; returns that length."""
        length = min(len(self.sequence), len(sequence))
        differs = np.flatnonzero(self.sequence[:length] != sequence[:length])
        shared = int(differs[0]) if len(differs) else length
        try:
            self.cache.crop(shared - len(self.sequence))
        except RuntimeError:  # a language model with sliding windows cannot go back beyond them
            self.cache.reset()
            shared = 0
        self.sequence = self.sequence[:shared]
        return shared


class StopWhenSet(StoppingCriteria):
    """Ends a generation as soon as an event is set."""

    def __init__(self, event: threading.Event) -> None:
        self.event = event

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        return torch.full((len(input_ids),), self.event.is_set(), device=input_ids.device)


class AnswerStreamer(TextStreamer):
    """Reports an answer's words, tokens and times as they come; transformers' part is where words end."""

    def __init__(self, tokenizer: Any, report: Callable[..., None]) -> None:
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self.report, self.text, self.tokens = report, "", []

    def put(self, value: torch.Tensor) -> None:
        if not self.next_tokens_are_prompt:
            self.tokens += value.tolist()
            self.report(token_ids=tuple(self.tokens))
        super().put(value)

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        self.text += text
        self.report(text=self.text)


class _Stopped(Exception):  # noqa: N818 - no error, the visitor asked for it
    """Nobody waits for the answer any more."""


class Assistant:
    """The processor and the model, shared by all visitors.

    Of theirs it holds `memory` only: what was computed for their conversations, bounded, and forgotten with
    `memory.drop`. On ZeroGPU every question runs in a process of its own, so there nothing is remembered, and a further
    question takes as long as the first.

    Args:
        model_id: a folder or a Hub id.
        max_frames: frames of a clip at most; the processor's number by default.
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
        self.processor = AutoProcessor.from_pretrained(model_id, trust_remote_code=True)
        self.model = AutoModelForImageTextToText.from_pretrained(model_id, trust_remote_code=True).eval()
        self.processor.max_frames = max_frames or self.processor.max_frames
        self.defaults = PruningSettings.defaults(self)
        self.reader = IsolatedReader(time_limit=read_seconds)
        self.remembers = not SpacesConfig.zero_gpu
        self.memory: BoundedMemory[Remembered] = BoundedMemory(most_remembered, most_remembered_bytes, is_present)
        self._numbers = itertools.count(1)
        self._model_is_free = threading.Lock()
        # A closure, so that only the arguments are sent to the process that has the GPU in a Space, and not the model.
        self.answer = spaces.GPU(self._answer)

    def read(
        self, source: str | Path | Sequence[str | Path], progress: Callable[[int, int], None] | None = None
    ) -> Any:
        """Reads one file, or several as one DICOM series or the frames of a video, as a `Clip`.

        Strangers upload them, so they are decoded in a process of its own.

        Raises:
            ValueError: the sentence for the user, when the files cannot be read.
        """
        if isinstance(source, Sequence) and not isinstance(source, str) and len(source) == 1:
            source = source[0]
        return self.reader.load_clip(
            source, max_frames=self.processor.max_frames, fps=self.processor.fps, progress=progress
        )

    def prune(self, clip: Any, settings: PruningSettings) -> Any:
        """The clip as a `ProcessedClip`."""
        return self.processor.process_clip(clip, **settings.options())

    def prompt(self, turns: Sequence[Turn]) -> str:
        """The conversation in the model's template, a media token for each medium.

        What visitors write cannot be taken for the template's own marks: those are left out of it.
        """
        messages = []
        for turn in turns:
            media = [{"type": medium.clip.kind} for medium in turn.media]
            question = {"type": "text", "text": self._plain(turn.question)}
            messages.append({"role": "user", "content": [*media, question]})
            messages.append({"role": "assistant", "content": [{"type": "text", "text": self._plain(turn.answer)}]})
        return self.processor.apply_chat_template(messages[:-1], add_generation_prompt=True, tokenize=False)

    def _plain(self, text: str) -> str:
        """Text without the tokenizer's special tokens."""
        for token in self.processor.tokenizer.added_tokens_decoder.values():
            if token.special:
                text = text.replace(token.content, "")
        return text

    def inputs(self, turns: Sequence[Turn], settings: PruningSettings) -> tuple[BatchFeature, list[Any]]:
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
            settings: how media are pruned, and at which stage; they are this request's alone.
            owner, name: under which it is remembered what was computed; nothing is without an owner.

        Raises:
            ValueError: the sentence for the visitor, such as for a conversation that has grown too long.
        """
        updates: queue.Queue[Answer | Exception] = queue.Queue()
        stop = threading.Event()

        def work() -> None:
            try:
                _Generation(self, turns, settings, owner if self.remembers else None, name, updates.put, stop).run()
            except Exception as error:  # whatever it is, it belongs to the thread that waits for words
                updates.put(error)

        threading.Thread(target=work, daemon=True).start()
        answer = Answer()
        try:
            while not answer.complete:
                try:
                    update = updates.get(timeout=SECONDS_BETWEEN_CHECKS)
                    while not updates.empty():  # only the newest counts, unless it is an error
                        update = update if isinstance(update, Exception) else updates.get()
                        if isinstance(update, Exception):
                            break
                except queue.Empty:
                    update = answer  # a stop arrives at the yield below, so it is reached even while no word comes
                if isinstance(update, Exception):
                    raise update
                answer = update
                yield answer
        finally:
            stop.set()  # without waiting for the thread: gradio closes generators in the loop that serves everybody


class _Generation:
    """One answer in the making, in a thread of its own; arguments as `Assistant.answer` has them."""

    def __init__(
        self,
        assistant: Assistant,
        turns: Sequence[Turn],
        settings: PruningSettings,
        owner: str | None,
        name: str,
        report: Callable[[Answer], None],
        stop: threading.Event,
    ) -> None:
        self.assistant, self.model, self.processor = assistant, assistant.model, assistant.processor
        self.turns, self.settings, self.owner, self.name = turns, settings, owner, name
        self._report, self.stop = report, stop
        self.so_far = Answer()
        self.start = time.perf_counter()

    def report(self, **changes: Any) -> None:
        """Sends the answer with these changes."""
        seconds = time.perf_counter() - self.start
        if changes.get("token_ids") and self.so_far.seconds_to_first_token is None:
            changes["seconds_to_first_token"] = seconds
        self.so_far = replace(self.so_far, seconds=seconds, **changes)
        self._report(self.so_far)

    def check(self) -> None:
        """Raises `_Stopped` where nobody waits any more."""
        if self.stop.is_set():
            raise _Stopped

    @torch.inference_mode()
    def run(self) -> None:
        """Waits for the model and answers; what was computed is remembered also where it is stopped or fails."""
        free = self.assistant._model_is_free
        while not free.acquire(timeout=SECONDS_BETWEEN_CHECKS):
            if self.stop.is_set():
                return
        memory = self.assistant.memory
        remembered = memory.take(self.owner, self.name) if self.owner else None
        try:
            self.start = time.perf_counter()
            self.model.to("cuda" if torch.cuda.is_available() else "cpu")
            if remembered is None:
                remembered = Remembered(np.zeros(0, np.int64), DynamicCache(config=self.model.config.text_config), {})
            self._generate(remembered)
        except _Stopped:
            pass
        finally:
            if self.owner and remembered is not None and len(remembered.sequence) == remembered.cache.get_seq_length():
                memory.put(self.owner, self.name, remembered, remembered.bytes)
            free.release()
        if not self.stop.is_set():
            self.report(step="", text=self.so_far.text.strip())

    def _generate(self, remembered: Remembered) -> None:
        media = [medium for turn in self.turns for medium in turn.media]
        encoded = []
        for number, medium in enumerate(media, 1):
            self.check()
            key = (medium.key, self.settings)
            if key not in remembered.encoded:
                self.report(step=f"Encoding file {number} of {len(media)}" if len(media) > 1 else "Encoding the file")
                remembered.encoded[key] = self._encode(medium)
            encoded.append(remembered.encoded[key])
        wanted = {(medium.key, self.settings) for medium in media}
        remembered.encoded = {key: item for key, item in remembered.encoded.items() if key in wanted}

        ids, sequence = self._tokenize(encoded)
        longest = self.model.config.text_config.max_position_embeddings
        if len(ids) + MAX_NEW_TOKENS > longest:
            raise ValueError("The conversation is too long for the model; clear it, or prune more.")
        reused = remembered.keep(sequence[:-1])  # the last token is computed anyway: the first answer token follows it
        self.report(
            visual_tokens=sum(item.tokens for item in encoded),
            visual_tokens_unpruned=sum(item.tokens_unpruned for item in encoded),
            prompt_tokens=len(ids),
            reused_tokens=reused,
        )
        self._prefill(ids, sequence, encoded, remembered)
        self.report(step="Answering")
        output = self.model.generate(
            input_ids=ids[None],
            attention_mask=torch.ones_like(ids[None]),
            past_key_values=remembered.cache,
            max_new_tokens=MAX_NEW_TOKENS,
            do_sample=False,
            streamer=AnswerStreamer(self.processor.tokenizer, self.report),
            stopping_criteria=StoppingCriteriaList([StopWhenSet(self.stop)]),
        )
        answered = output[0, len(ids) :].cpu().numpy()
        remembered.sequence = np.concatenate([sequence, answered])[: remembered.cache.get_seq_length()]

    def _encode(self, medium: Medium) -> EncodedMedium:
        processed = self.assistant.prune(medium.clip, self.settings)
        self.check()
        inputs = self.processor.visual_inputs([processed])
        inputs = {name: tensor.to(self.model.device) for name, tensor in inputs.items()}
        features = at_stage(self.model, self.settings.stage).get_image_features(**inputs, return_dict=True)
        return EncodedMedium(
            next(self.assistant._numbers),
            self.processor.placeholder_text(processed),
            features.pooler_output[0],
            processed.tokens_after,
            processed.tokens_before,
        )

    def _tokenize(self, encoded: Sequence[EncodedMedium]) -> tuple[torch.Tensor, np.ndarray]:
        """The prompt as token ids int64 (length,), and the same with media told apart (`Remembered.sequence`)."""
        first, *rest = self.assistant.prompt(self.turns).split(self.processor.image_token)
        text = first + "".join(item.text + piece for item, piece in zip(encoded, rest, strict=True))
        ids = np.array(self.processor.tokenizer(text)["input_ids"], dtype=np.int64)
        sequence = ids.copy()
        numbers = [np.full(len(item.features), -item.number) for item in encoded]
        sequence[ids == self.processor.image_token_id] = np.concatenate([np.zeros(0, np.int64), *numbers])
        return torch.from_numpy(ids).to(self.model.device), sequence

    def _prefill(
        self, ids: torch.Tensor, sequence: np.ndarray, encoded: Sequence[EncodedMedium], remembered: Remembered
    ) -> None:
        """Brings the cache up to the text at the prompt's end, which `generate` takes in one piece."""
        is_visual = sequence < 0
        after_media = int(is_visual.nonzero()[0][-1]) + 1 if is_visual.any() else 0
        start, end = len(remembered.sequence), max(after_media, len(ids) - PREFILL_TOKENS)
        visual = torch.cat([item.features for item in encoded]) if encoded else None
        while start < end:
            self.check()
            self.report(step=f"Reading the prompt, {start} of {end} tokens")
            stop = min(start + PREFILL_TOKENS, end)
            first, last = int(is_visual[:start].sum()), int(is_visual[:stop].sum())
            images = (
                {"image": BaseModelOutputWithPooling(pooler_output=(visual[first:last],))} if last > first else None
            )
            self.model.model(
                input_ids=ids[None, start:stop],
                past_key_values=remembered.cache,
                use_cache=True,
                mm_encoder_outputs=images,
            )
            remembered.sequence = sequence[:stop]
            start = stop
