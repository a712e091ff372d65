# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The engine of a batch run on a server of the model: OpenAI's chat completions, as vLLM and transformers serve them.

Each series is read and pruned on this machine, too, without the model's weights: for the facts of its rows, and for the
length of its prompt. By that a server is found out that reads or prunes otherwise, and its answer does not count.
"""

from __future__ import annotations

import base64
import io
import math
import os
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import openai
from pydantic import BaseModel, ConfigDict, Field
from transformers import GenerationConfig

from clinic.archive_media import Downloads
from clinic.engines import Settings, ahead
from clinic.model import ModelFolder
from clinic.questions import Question
from clinic.tasks import Rows, Task, read, rows_of
from hub_model.answering_omniv_med import Answer, AnswerCalibration, judge
from hub_model.isolated_reading_omniv_med import IsolatedReader

KEY = "OMNIV_MED_SERVER_KEY"
"""Environment variable with the key, where the server wants one."""
SERIES_AT_ONCE = 4
"""Series that are read and asked about at the same time. Each is in memory whole, as its server will read it."""
RETRIES, SECONDS = 5, 600.0
"""How often a request is sent again, and how long it may take."""
LONGEST_SENTENCE = 500
"""Characters that are kept of what a server says is wrong."""
NO_CONFIDENCE = "the server gives no token probabilities: no confidence, and nothing declined for want of it"
"""A note of rows without one."""


class ServerError(ValueError):
    """A server that answers no request, in one sentence."""


class RefusedError(ValueError):
    """A request that gets no answer, in one sentence."""


class _Checked(BaseModel):
    model_config = ConfigDict(frozen=True, from_attributes=True)


class _Message(_Checked):
    content: str | None = None


class _Token(_Checked):
    token: str
    logprob: float


class _Tokens(_Checked):
    content: list[_Token] | None = None


class _Choice(_Checked):
    message: _Message
    finish_reason: str | None = None
    logprobs: _Tokens | None = None


class _Usage(_Checked):
    prompt_tokens: int


class Reply(_Checked):
    """What is used of a chat completion; the library hands on whatever a server sends, checked or not."""

    choices: Annotated[list[_Choice], Field(min_length=1)]
    usage: _Usage | None = None

    @property
    def text(self) -> str:
        """The answer."""
        return (self.choices[0].message.content or "").strip()

    def log_probabilities(self, ends: Sequence[str]) -> list[float] | None:
        """Those of the answer's tokens, its end included; None where the server does not give all of them.

        Args:
            ends: the tokens that end an answer.
        """
        first = self.choices[0]
        tokens = (first.logprobs and first.logprobs.content) or []
        ended = first.finish_reason == "stop"
        if not tokens or (ended and tokens[-1].token not in ends):
            return None
        return [one.logprob for one in tokens]


class Server:
    """Requests to a server; threads may share it.

    A request that fails on its way, or is answered with 408, 409, 429 or 5xx, is sent again by the openai library,
    after waits that double up to 8 s.

    Args:
        url: up to "/v1".
        model: what the model is called, where the server does not say.

    Attributes:
        is_vllm: whether vLLM's options are understood; transformers' are, otherwise.

    Raises:
        ServerError: it does not answer.
    """

    def __init__(self, url: str, model: str) -> None:
        self._url = url
        # An empty key would make the library look for OpenAI's own, and send it to this server.
        key = os.environ.get(KEY) or "none"
        self._client = openai.OpenAI(base_url=url, api_key=key, timeout=SECONDS, max_retries=RETRIES)
        served = self._served_by_vllm()
        self.is_vllm = bool(served)
        self._model = served or model

    def close(self) -> None:
        """Closes the connections."""
        self._client.close()

    def _served_by_vllm(self) -> str:
        """The model that a vLLM server names first; "" for other servers, whose lists tell nothing, if there is one."""
        with self._told():
            try:
                listed = self._client.with_options(max_retries=1).models.list().data
            except (openai.NotFoundError, openai.InternalServerError):
                return ""
            return next((one.id for one in listed if one.owned_by == "vllm"), "")

    def ask(self, medium: Mapping[str, Any], words: str, max_new_tokens: int, options: Mapping[str, Any]) -> Reply:
        """The greedy answer to a question about a medium.

        Args:
            medium: the part of the message that holds it.
            words: the question.
            max_new_tokens: longest answer.
            options: fields of the request that OpenAI's schema lacks.

        Raises:
            RefusedError: there is no answer to this request.
            ServerError: there is none to any.
        """
        content: Any = [medium, {"type": "text", "text": words}]
        with self._told():
            completion = self._client.chat.completions.create(
                model=self._model,
                messages=[{"role": "user", "content": content}],
                max_tokens=max_new_tokens,
                temperature=0,
                logprobs=True,
                top_logprobs=0,
                extra_body=dict(options),
            )
            return Reply.model_validate(completion)

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Around a request: whatever goes wrong, in one sentence."""
        try:
            yield
        except openai.APITimeoutError:
            raise RefusedError(f"The server did not answer within {SECONDS:.0f} s.") from None
        except openai.APIConnectionError:
            raise ServerError(f"{self._url} cannot be reached; start the server, then give the same command.") from None
        except (openai.AuthenticationError, openai.PermissionDeniedError):
            raise ServerError(f"{self._url} refuses the key; check the environment variable {KEY}.") from None
        except openai.NotFoundError:
            raise ServerError(f"{self._url} is no address of chat completions; it ends in /v1, usually.") from None
        except openai.RateLimitError:
            raise ServerError(f"{self._url} takes no more requests (HTTP 429); wait, and go on.") from None
        except openai.APIStatusError as error:
            if error.status_code >= 500:
                sentence = f"The server fails with HTTP {error.status_code}, {RETRIES + 1} times; its log may say why."
            else:
                sentence = _sentence_of(error)
            raise RefusedError(sentence) from None
        # ValueError is what the library makes of JSON that is cut short, and what the check makes of anything else.
        except (openai.OpenAIError, ValueError):
            raise RefusedError("The server did not answer with a chat completion; check --server.") from None


def _sentence_of(error: openai.APIStatusError) -> str:
    """What a server says of a request that it refuses: vLLM in `message`, transformers in `detail`."""
    body = error.body if isinstance(error.body, dict) else {}
    said = str(body.get("message") or body.get("detail") or "").strip()
    return said.splitlines()[0][:LONGEST_SENTENCE] if said else f"The server refuses it with HTTP {error.status_code}."


def data_uri(files: str | Sequence[str]) -> str:
    """Files as one `data:` URI: a file as it is, those of a series or of a folder as a zip, under numbers for names.

    Raises:
        ValueError: a file that cannot be read any more.
    """
    paths = [Path(files)] if isinstance(files, str) else [Path(one) for one in files]
    if len(paths) == 1 and paths[0].is_dir():
        paths = sorted(path for path in paths[0].rglob("*") if path.is_file())
    try:
        if len(paths) == 1:
            content = paths[0].read_bytes()
        else:
            packed = io.BytesIO()
            with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
                for number, path in enumerate(paths):
                    archive.writestr(f"{number:06d}", path.read_bytes())
            content = packed.getvalue()
    except OSError as error:
        raise ValueError(f"A file cannot be read any more: {error.strerror or error}.") from None
    return f"data:application/octet-stream;base64,{base64.b64encode(content).decode()}"


@dataclass(frozen=True)
class ServerEngine:
    """Answers by requests, one for each question.

    Attributes:
        server: what is asked.
        model: the folder of what it serves.
        ends: the tokens that end an answer.
        reader, work: what reads, and how.
    """

    server: Server
    model: ModelFolder
    ends: Sequence[str]
    reader: IsolatedReader
    work: Settings

    @property
    def group(self) -> int:
        """As `Engine`: who else asks decides which requests a server batches, so there is no group to keep."""
        return 1

    def settings(self) -> dict[str, Any]:
        """As `Engine`; what the server computes in, it does not say."""
        return {**self.model.settings(), "dtype": "the server's"}

    def answered(self, groups: Sequence[Sequence[Task]]) -> Iterator[tuple[Task, Rows]]:
        """As `Engine`, in order, several at once."""
        tasks = [task for group in groups for task in group]
        with self.work.downloads(tasks) as downloads:
            yield from ahead(lambda task: self._rows(task, downloads), tasks, SERIES_AT_ONCE, 2 * SERIES_AT_ONCE)

    def _rows(self, task: Task, downloads: Downloads) -> Rows:
        """Reads a series and asks about it."""
        one = read(task, self.reader, downloads, self.model, self.work.thumbnails, data_uri)
        if one.error:
            return rows_of(task, [], one.error, {}, one.seconds)
        start = time.perf_counter()
        try:
            answers = self._ask(task, one.processed, one.made)
        except RefusedError as refused:
            return rows_of(task, [], str(refused), {}, one.seconds + time.perf_counter() - start)
        facts = self.model.facts(one.processed)
        if any(math.isnan(answer.confidence) for answer in answers):
            facts["notes"].append(NO_CONFIDENCE)
        return rows_of(task, answers, "", facts, one.seconds + time.perf_counter() - start)

    def _ask(self, task: Task, processed: Any, uri: str) -> list[Answer]:
        """The answers about a pruned clip whose files are in a URI."""
        kind = "image" if processed.clip.kind == "image" else "video"
        medium = {"type": f"{kind}_url", f"{kind}_url": {"url": uri}}
        options, questions = self._options(kind, task), task.group.questions
        lengths = self.model.prompt_lengths(processed, [one.ask for one in questions])
        answers = []
        for question, length in zip(questions, lengths, strict=True):
            reply = self.server.ask(medium, question.ask, self.work.max_new_tokens, options)
            if reply.usage is not None and reply.usage.prompt_tokens != length:
                raise RefusedError(
                    f"The server's prompt has {reply.usage.prompt_tokens} tokens, not {length}: it reads or prunes the "
                    "series otherwise. Check that it serves the model of --model, with the same defaults."
                )
            answers.append(self._judged(question, reply))
        return answers

    def _options(self, kind: str, task: Task) -> dict[str, Any]:
        """How a request says how its file is read and pruned. vLLM takes such options only if its operator lets it."""
        reading, pruning = task.reading, dict(task.group.pruning)
        if self.server.is_vllm:
            named = {"media_io_kwargs": {kind: reading} if reading else {}, "mm_processor_kwargs": pruning}
            return {name: value for name, value in named.items() if value}
        sampling = self.model.sampling()
        if unknown := sorted(reading.keys() - sampling.keys()):
            raise RefusedError(f"transformers serve takes no {unknown[0]} for a file; vLLM does, see docs/serving.md.")
        return {"chat_template_kwargs": {"processor_kwargs": {**sampling, **reading, **pruning}}}

    def _judged(self, question: Question, reply: Reply) -> Answer:
        """An answer with its confidence, as `answer_questions` computes it; NaN where the server gives too little."""
        known = reply.log_probabilities(self.ends)
        if known is None and question.confidence is not None:
            raise RefusedError(
                "The server gives no token probabilities, so nothing can be declined below a confidence; leave "
                "`confidence` out of the questions, or ask vLLM."
            )
        if known is None:
            return replace(judge(reply.text, [0.0], None), confidence=math.nan)
        calibration = AnswerCalibration.of(self.model.config)
        if calibration is not None and question.confidence is not None:
            calibration = replace(calibration, threshold=question.confidence)
        return judge(reply.text, known, calibration)


@contextmanager
def server_engine(url: str, model: str, work: Settings) -> Iterator[ServerEngine]:
    """An engine on a server, with this machine's reading processes while the block lasts.

    Args:
        url: of the server, up to "/v1".
        model: what it serves: a folder, or an id on the Hub.
        work: how.

    Raises:
        ModelError: a model that cannot be used.
        ServerError: a server that does not answer.
    """
    with work.reader() as reader:
        reader.start()
        folder = ModelFolder(model)
        ends = np.atleast_1d(GenerationConfig.from_pretrained(folder.folder).eos_token_id).tolist()
        server = Server(url, model)
        try:
            yield ServerEngine(server, folder, folder.processor.tokenizer.convert_ids_to_tokens(ends), reader, work)
        finally:
            server.close()
