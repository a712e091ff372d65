# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Requests to OpenAI-compatible servers: so many at once, again after a failure, never one that was answered."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from typing import Annotated, Any
from weakref import WeakValueDictionary

import openai
from openai import AsyncOpenAI
from pydantic import BaseModel, ConfigDict, Field

from data_engine.captioning.config import CaptionConfig, CaptionError, Endpoint
from data_engine.captioning.ledger import Entry, Ledger, Role, request_key
from data_engine.captioning.prompts import PROMPT_VERSION, Message

TOKENS_OF_A_PRICE = 1_000_000


class _Checked(BaseModel):
    model_config = ConfigDict(frozen=True, from_attributes=True)


class _Message(_Checked):
    content: str | None = None


class _Choice(_Checked):
    message: _Message
    finish_reason: str | None = None


class _Usage(_Checked):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _Answer(_Checked):
    """What is used of a chat completion; the library hands on whatever a server sends, checked or not."""

    choices: Annotated[list[_Choice], Field(min_length=1)]
    usage: _Usage | None = None


class ItemError(Exception):
    """An item that cannot be captioned in this run, in one sentence without anything of its contents."""


class ChatClient:
    """All requests of a run.

    A request that fails on its way, or is answered with 408, 409, 429 or 5xx, is sent again by the openai library,
    after waits that double up to 8 s, less a random part of up to a quarter (or as long as the server's Retry-After
    says). What then still fails ends the run if it would fail all requests alike, otherwise the item.

    Raises:
        CaptionError: an environment variable that should hold a key is not set.
    """

    def __init__(self, config: CaptionConfig, ledger: Ledger):
        self.ledger, self.seed = ledger, config.seed
        self._slots = asyncio.Semaphore(config.max_concurrent)
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._ended: Exception | None = None
        self._clients = {
            endpoint: AsyncOpenAI(
                base_url=endpoint.base_url,
                # An empty key would make the library look for OpenAI's own, and send it to this server.
                api_key=_api_key(endpoint),
                timeout=config.timeout,
                max_retries=config.max_retries,
            )
            for endpoint in (config.generator, *config.judges)
        }

    async def close(self) -> None:
        """Closes the connections."""
        for client in self._clients.values():
            await client.close()

    def end(self, reason: Exception) -> None:
        """Lets no more requests go out: they raise the reason. Those in flight go on; they are paid for anyway."""
        self._ended = self._ended or reason

    async def ask(
        self,
        endpoint: Endpoint,
        item_id: str,
        role: Role,
        depends_on: dict[str, Any],
        messages: Callable[[], Awaitable[list[Message]]],
        seed_offset: int = 0,
    ) -> Entry:
        """The answer to one request, from the ledger if it is there.

        Args:
            endpoint: of the configuration.
            item_id, role: for the ledger.
            depends_on: all that makes this request another one than the endpoint's other requests.
            messages: makes the messages; called only if they have to be sent.
            seed_offset: added to the run's seed.

        Raises:
            ItemError: this request failed for good.
            CaptionError: so would all others, or the run was ended.
        """
        options = {
            "model": endpoint.model,
            "temperature": endpoint.temperature,
            "max_tokens": endpoint.max_tokens,
            "seed": self.seed + seed_offset,
        }
        key = request_key(**options, role=role, prompts=PROMPT_VERSION, **depends_on)
        # Equal requests, of items with equal files or of equal candidates, wait for the first and take its answer.
        lock = self._locks.setdefault(key, asyncio.Lock())
        async with lock:
            if (known := self.ledger.get(key)) is not None:
                return known
            made = await messages()
            async with self._slots:
                if self._ended:
                    raise self._ended
                started = time.monotonic()
                answer = await self._send(endpoint, item_id, {**options, "messages": made})
                entry = _entry(key, item_id, role, endpoint, answer, time.monotonic() - started)
                try:
                    self.ledger.append(entry)
                except CaptionError as error:  # what cannot be written down must not be bought
                    self.end(error)
                    raise
            return entry

    async def _send(self, endpoint: Endpoint, item_id: str, request: dict[str, Any]) -> _Answer:
        name, server = endpoint.model, endpoint.base_url
        # What a server says of an error may quote the request, so only its status is passed on.
        try:
            completion = await self._clients[endpoint].chat.completions.create(**request)
            return _Answer.model_validate(completion)
        except openai.APITimeoutError:
            raise ItemError(f"{item_id}: {name} did not answer in time; raise timeout or lower frames.") from None
        except openai.APIConnectionError:
            raise self._fatal(f"{server} cannot be reached; start the server, then give the same command.") from None
        except (openai.AuthenticationError, openai.PermissionDeniedError):
            raise self._fatal(f"{server} refuses the key; check api_key_env of {name} and its variable.") from None
        except openai.NotFoundError:
            raise self._fatal(f"{server} has no model {name}; check base_url and model.") from None
        except openai.RateLimitError:
            raise self._fatal(f"{server} refuses more (HTTP 429); wait, or lower max_concurrent, and go on.") from None
        except openai.APIStatusError as error:
            raise ItemError(f"{item_id}: {name} answered HTTP {error.status_code}.") from None
        # ValueError is what the library makes of JSON that is cut short, and what the check makes of anything else.
        except (openai.OpenAIError, ValueError):
            message = f"{item_id}: {server} did not answer with a chat completion; check base_url."
            raise ItemError(message) from None

    def _fatal(self, message: str) -> Exception:
        """Ends the run; the reason is the first that did."""
        error = CaptionError(message)
        self.end(error)
        return self._ended or error


def _api_key(endpoint: Endpoint) -> str:
    if endpoint.api_key_env is None:
        return "none"
    key = os.environ.get(endpoint.api_key_env, "")
    if not key:
        raise CaptionError(f"The key of {endpoint.model} should be in the environment variable {endpoint.api_key_env}.")
    return key


def _entry(key: str, item_id: str, role: Role, endpoint: Endpoint, answer: _Answer, seconds: float) -> Entry:
    choice, usage = answer.choices[0], answer.usage or _Usage()
    paid = (usage.prompt_tokens or 0) * endpoint.input_price + (usage.completion_tokens or 0) * endpoint.output_price
    return Entry(
        key=key,
        item=item_id,
        role=role,
        model=endpoint.model,
        answer=choice.message.content or "",
        finish_reason=choice.finish_reason or "",
        input_tokens=usage.prompt_tokens,
        output_tokens=usage.completion_tokens,
        cost=paid / TOKENS_OF_A_PRICE,
        seconds=round(seconds, 3),
    )
