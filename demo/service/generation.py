# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""One answer in the making: encodes the media, reads the prompt in pieces, generates, and stops when asked to."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import LogitsProcessorList, StoppingCriteria, StoppingCriteriaList, TextStreamer
from transformers.modeling_outputs import BaseModelOutputWithPooling

from demo.service.conversation_cache import ConversationCache, EncodedMedium
from demo.service.dialogue import Answer, Medium, Turn
from demo.service.pruning_settings import PruningSettings
from hub_model.answering_omniv_med import AnswerCalibration, GreedyLogProbabilities, judge_generated
from hub_model.prompt_omniv_med import fill_placeholders

if TYPE_CHECKING:
    from demo.service.assistant import Assistant

MAX_NEW_TOKENS = 128
SECONDS_BETWEEN_CHECKS = 0.25
"""How soon a stop is noticed while no new word comes."""
PREFILL_TOKENS = 256
"""Tokens of a prompt that are computed at once; a stop is noticed between two such pieces."""


@dataclass(frozen=True)
class Request:
    """A question to the model.

    Attributes:
        turns: the conversation, the question last.
        settings: how media are pruned, and at which stage.
        owner, name: under which the assistant keeps what it computed for the next question; without an owner it keeps
            nothing.
    """

    turns: Sequence[Turn]
    settings: PruningSettings
    owner: str | None = None
    name: str = "conversation"


class StopWhenSet(StoppingCriteria):
    """Ends a generation as soon as an event is set."""

    def __init__(self, event: threading.Event) -> None:
        self.event = event

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        return torch.full((len(input_ids),), self.event.is_set(), device=input_ids.device)


class AnswerStreamer(TextStreamer):
    """Reports an answer's text and tokens as they come; transformers' streamer decides where words end."""

    def __init__(self, tokenizer: Any, report: Callable[..., None]) -> None:
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self.report = report
        self.text = ""
        self.tokens: list[int] = []

    def put(self, value: torch.Tensor) -> None:
        if not self.next_tokens_are_prompt:
            self.tokens += value.tolist()
            self.report(token_ids=tuple(self.tokens))
        super().put(value)  # type: ignore[no-untyped-call]

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        self.text += text
        self.report(text=self.text)


class StoppedError(Exception):
    """Nobody waits for the answer any more."""


class Generation:
    """Answers one request in the thread that calls `run`.

    Args:
        assistant: whose model answers.
        request: what is asked.
        report: gets the answer whenever there is more of it.
        stop: ends the generation when it is set.
    """

    def __init__(
        self, assistant: Assistant, request: Request, report: Callable[[Answer], None], stop: threading.Event
    ) -> None:
        self.assistant, self.model, self.processor = assistant, assistant.model, assistant.processor
        self.request, self.stop = request, stop
        self._report = report
        self.so_far = Answer()
        self.start = time.perf_counter()

    def report(self, **changes: Any) -> None:
        """Reports the answer with these changes."""
        seconds = time.perf_counter() - self.start
        if changes.get("token_ids") and self.so_far.seconds_to_first_token is None:
            changes["seconds_to_first_token"] = seconds
        self.so_far = replace(self.so_far, seconds=seconds, **changes)
        self._report(self.so_far)

    def check(self) -> None:
        """Raises `StoppedError` if nobody waits any more."""
        if self.stop.is_set():
            raise StoppedError

    @torch.inference_mode()
    def run(self) -> None:
        """Waits until the model is free and answers; keeps what was computed even after a stop or a failure.

        Raises:
            ValueError: for a conversation that has grown too long; the message is for the visitor.
        """
        model_is_free, memory = self.assistant.model_is_free, self.assistant.memory
        owner, name = self.request.owner, self.request.name
        while not model_is_free.acquire(timeout=SECONDS_BETWEEN_CHECKS):
            if self.stop.is_set():
                return
        try:
            self.start = time.perf_counter()
            self.model.to("cuda" if torch.cuda.is_available() else "cpu")
            cache = memory.take(owner, name) if owner else None
            cache = cache or ConversationCache.empty(self.model.config.text_config)
            try:
                self._generate(cache)
            except StoppedError:
                pass
            finally:
                if owner and cache.is_consistent:
                    memory.put(owner, name, cache, cache.bytes)
        finally:
            model_is_free.release()
        if not self.stop.is_set():
            self.report(step="", text=self.so_far.text.strip())

    def _generate(self, cache: ConversationCache) -> None:
        encoded = self._encode_media(cache)
        ids, sequence = self._tokenize(encoded)
        longest = self.model.config.text_config.max_position_embeddings
        if len(ids) + MAX_NEW_TOKENS > longest:
            raise ValueError("The conversation is too long for the model; clear it, or prune more.")
        # The last token of the prompt is always computed: the first token of the answer follows from it.
        reused = cache.keep_shared(sequence[:-1])
        self.report(
            visual_tokens=sum(item.tokens for item in encoded),
            visual_tokens_unpruned=sum(item.tokens_unpruned for item in encoded),
            prompt_tokens=len(ids),
            reused_tokens=reused,
        )
        self._prefill(ids, sequence, encoded, cache)
        self.report(step="Answering")
        watched = GreedyLogProbabilities()
        output = self.model.generate(
            input_ids=ids[None],
            attention_mask=torch.ones_like(ids[None]),
            past_key_values=cache.keys_and_values,
            max_new_tokens=MAX_NEW_TOKENS,
            do_sample=False,
            logits_processor=LogitsProcessorList([watched]),
            streamer=AnswerStreamer(self.processor.tokenizer, self.report),
            stopping_criteria=StoppingCriteriaList([StopWhenSet(self.stop)]),
        )
        answered = output[0, len(ids) :].cpu().numpy()
        computed = cache.keys_and_values.get_seq_length()  # all but the last token
        cache.sequence = np.concatenate([sequence, answered])[:computed]
        if encoded and not self.stop.is_set():
            self._judge(watched, output[:, len(ids) :])

    def _judge(self, watched: GreedyLogProbabilities, answered: torch.Tensor) -> None:
        """Reports how sure a complete answer about media is; one that is not sure enough becomes a declined one."""
        if AnswerCalibration.of(self.model.config) is None:
            return
        judged = judge_generated(self.model, self.so_far.text, answered, watched, about_media=True)
        self.report(
            text=judged.text,
            confidence=judged.confidence,
            declined=judged.declined,
            likeliest=judged.likeliest if judged.declined else None,
        )

    def _encode_media(self, cache: ConversationCache) -> list[EncodedMedium]:
        """The media of all turns in their order; encodes those that the cache lacks, and drops from it all others."""
        media = [medium for turn in self.request.turns for medium in turn.media]
        wanted = {}
        for number, medium in enumerate(media, 1):
            self.check()
            key = (medium.key, self.request.settings)
            if key not in cache.encoded:
                self.report(step=f"Encoding file {number} of {len(media)}" if len(media) > 1 else "Encoding the file")
                cache.encoded[key] = self._encode(medium)
            wanted[key] = cache.encoded[key]
        cache.encoded = wanted
        return [wanted[medium.key, self.request.settings] for medium in media]

    def _encode(self, medium: Medium) -> EncodedMedium:
        processed = self.assistant.prune(medium.clip, self.request.settings)
        self.check()
        inputs = self.processor.visual_inputs([processed])
        inputs = {name: tensor.to(self.model.device) for name, tensor in inputs.items()}
        outputs = self.model.get_image_features(**inputs, prune_stage=self.request.settings.stage, return_dict=True)
        return EncodedMedium(
            text=self.processor.placeholder_text(processed),
            features=outputs.pooler_output[0],
            tokens=processed.tokens_after,
            tokens_unpruned=processed.tokens_before,
        )

    def _tokenize(self, encoded: Sequence[EncodedMedium]) -> tuple[torch.Tensor, npt.NDArray[np.int64]]:
        """The prompt as token ids, int64 (length,), and the same as `ConversationCache.sequence` has it."""
        prompt = self.assistant.prompt(self.request.turns)
        (text,) = fill_placeholders([prompt], [item.text for item in encoded])
        ids = np.array(self.processor.tokenizer(text)["input_ids"], dtype=np.int64)
        sequence = ids.copy()
        numbers = [np.full(len(item.features), -item.number) for item in encoded]
        sequence[ids == self.processor.image_token_id] = np.concatenate([np.zeros(0, np.int64), *numbers])
        return torch.from_numpy(ids).to(self.model.device), sequence

    def _prefill(
        self,
        ids: torch.Tensor,
        sequence: npt.NDArray[np.int64],
        encoded: Sequence[EncodedMedium],
        cache: ConversationCache,
    ) -> None:
        """Computes the prompt piece by piece up to the text at its end, which `generate` takes at once."""
        is_visual = sequence < 0
        after_media = int(is_visual.nonzero()[0][-1]) + 1 if is_visual.any() else 0
        start, end = len(cache.sequence), max(after_media, len(ids) - PREFILL_TOKENS)
        visual = torch.cat([item.features for item in encoded]) if encoded else None
        while start < end:
            self.check()
            self.report(step=f"Reading the prompt, {start} of {end} tokens")
            stop = min(start + PREFILL_TOKENS, end)
            first, last = int(is_visual[:start].sum()), int(is_visual[:stop].sum())
            images = None
            if visual is not None and last > first:
                features: Any = (visual[first:last],)  # one tensor for each medium, though here they are joined
                images = {"image": BaseModelOutputWithPooling(pooler_output=features)}
            self.model.model(
                input_ids=ids[None, start:stop],
                past_key_values=cache.keys_and_values,
                use_cache=True,
                mm_encoder_outputs=images,
            )
            cache.sequence = sequence[:stop]
            start = stop
