# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Rejection sampling of captions: candidates from the generator, verdicts from the judges, a decision for each item."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from data_engine.captioning import prompts
from data_engine.captioning.client import ChatClient, ItemError
from data_engine.captioning.config import CaptionConfig, Judge
from data_engine.captioning.frames import media_digest, media_parts
from data_engine.captioning.items import Item
from data_engine.captioning.judging import (
    Candidate,
    Decision,
    JudgementError,
    Verdict,
    decide,
    parse_judgement,
    without_reasoning,
)

Result = TypeVar("Result")
UNFINISHED = ("length", "content_filter")
"""Finish reasons of an answer that ends in the middle."""


async def _all(tasks: Sequence[Coroutine[Any, Any, Result]]) -> list[Result]:
    """Results in order. After an error the others are waited for: they are paid for, and belong into the ledger."""
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    errors = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    if errors:
        raise next((error for error in errors if not isinstance(error, ItemError)), errors[0])
    return [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]


class Pictures:
    """The frames of an item as parts of a message, read in a thread, once, and only if something has to be sent."""

    def __init__(self, item: Item, config: CaptionConfig):
        self.item, self.config = item, config
        self._reading: asyncio.Task[list[dict[str, Any]]] | None = None

    async def parts(self) -> list[dict[str, Any]]:
        """Raises `ItemError` for a medium that cannot be read."""
        if self._reading is None:
            self._reading = asyncio.create_task(asyncio.to_thread(media_parts, self.item, self.config.sampling))
        try:
            return await self._reading
        except ValueError as error:  # MediaError, which says what is wrong without patient data
            raise ItemError(f"{self.item.id}: {error}") from None


class RejectionSampler:
    """Decides items, one at a time or several at once."""

    def __init__(self, config: CaptionConfig, client: ChatClient):
        self.config, self.client = config, client

    async def decide(self, item: Item) -> Decision:
        """Asks for all candidates and verdicts.

        Raises:
            ItemError: the item cannot be read, or a request failed for good.
            CaptionError: no item can be decided now.
        """
        try:
            digest = await asyncio.to_thread(media_digest, item.files)
        except OSError as error:
            raise ItemError(f"{item.id}: a file cannot be read ({error.strerror}).") from None
        shown = {"media": digest, "sampling": self.config.sampling.model_dump(), "facts": item.facts}
        pictures = Pictures(item, self.config)
        numbers = range(self.config.candidates)
        candidates = await _all([self._candidate(item, number, pictures, shown) for number in numbers])
        return decide(item.id, candidates, self.config.threshold)

    async def _candidate(self, item: Item, number: int, pictures: Pictures, shown: dict[str, Any]) -> Candidate:
        async def messages() -> list[prompts.Message]:
            return prompts.generator_messages(item, await pictures.parts())

        # The number is in the key by its seed.
        entry = await self.client.ask(self.config.generator, item.id, "generator", shown, messages, number)
        caption = "" if entry.finish_reason in UNFINISHED else without_reasoning(entry.answer)
        if not caption:
            return Candidate(number, caption)
        verdicts = await _all([self._verdict(item, caption, judge, pictures, shown) for judge in self.config.judges])
        return Candidate(number, caption, tuple(verdicts))

    async def _verdict(
        self, item: Item, caption: str, judge: Judge, pictures: Pictures, shown: dict[str, Any]
    ) -> Verdict:
        async def messages() -> list[prompts.Message]:
            return prompts.judge_messages(item, caption, await pictures.parts() if judge.sees_media else None)

        async def repair() -> list[prompts.Message]:
            return prompts.repair_messages(await messages(), entry.answer, str(problem))

        depends_on = {
            **shown,
            "sees_media": judge.sees_media,
            "caption": hashlib.sha256(caption.encode()).hexdigest(),
        }
        entry = await self.client.ask(judge, item.id, "judge", depends_on, messages)
        try:
            return Verdict(judge.model, parse_judgement(entry.answer))
        except JudgementError as error:
            problem = error
        second = await self.client.ask(judge, item.id, "repair", depends_on, repair)
        try:
            return Verdict(judge.model, parse_judgement(second.answer), str(problem))
        except JudgementError as error:
            return Verdict(judge.model, None, str(error))


async def decide_all(
    items: Sequence[Item],
    sampler: RejectionSampler,
    concurrent: int,
    finished: Callable[[int, Decision | ItemError], None],
) -> None:
    """Decides items, some of them at a time; `finished` gets the place of each in the list and what became of it.

    Raises:
        CaptionError: what ended the run; requests that were in flight have been waited for.
    """
    waiting = iter(enumerate(items))

    async def work() -> None:
        for place, item in waiting:
            try:
                finished(place, await sampler.decide(item))
            except ItemError as error:
                finished(place, error)
            except Exception as error:
                sampler.client.end(error)
                raise

    await _all([work() for _ in range(min(concurrent, len(items)))])
