# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""A small server of OpenAI's chat completions on loopback that answers with a model, as a vLLM server with our plugin.

It takes vLLM's options, reads each file as the plugin does, and gives the tokens' probabilities. It can refuse, keep
the probabilities for itself, and overlook the options.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForImageTextToText, AutoProcessor, LogitsProcessorList

from hub_model.answering_omniv_med import GreedyLogProbabilities, end_ids
from hub_model.media_omniv_med import load_clip
from tests.helpers.json_server import JsonHandler, in_background


class ModelServer(ThreadingHTTPServer):
    """The server; tests set its attributes.

    Args:
        folder: of the model.

    Attributes:
        statuses: HTTP status of the next requests, in place of their answers.
        gives_probabilities: whether it gives those of the tokens, where it is asked to.
        takes_options: whether it reads and prunes as a request says, or as it does anyway.
        keys: the header `Authorization` of each request.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.processor: Any = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
        self.model: Any = AutoModelForImageTextToText.from_pretrained(folder, trust_remote_code=True).eval()
        self.lock = threading.Lock()
        self.statuses: list[int] = []
        self.gives_probabilities = self.takes_options = True
        self.keys: list[str | None] = []

    @property
    def url(self) -> str:
        """What clients are told."""
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    @torch.inference_mode()
    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """The chat completion of a request with one file and one question."""
        medium, words = request["messages"][0]["content"]
        kind = medium["type"].removesuffix("_url")
        given = {"kind": "image"} if kind == "image" else {}
        pruning = {}
        if self.takes_options:
            given |= request.get("media_io_kwargs", {}).get(kind, {})
            pruning = request.get("mm_processor_kwargs", {})
        processor, model = self.processor, self.model
        sampling = {"max_frames": processor.max_frames, "fps": processor.fps}
        clip = processor.process_clip(load_clip(medium[f"{kind}_url"]["url"], **{**sampling, **given}), **pruning)
        messages = [{"role": "user", "content": [{"type": kind}, words]}]
        prompt = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        inputs, watched = processor(text=prompt, clips=[clip]), GreedyLogProbabilities()
        length = inputs["input_ids"].shape[1]
        output = model.generate(
            **inputs,
            max_new_tokens=request["max_tokens"],
            do_sample=False,
            logits_processor=LogitsProcessorList([watched]),
        )
        ends = end_ids(model)
        (probabilities,) = watched.of_answers(output[:, length:], ends)
        ids = output[0, length : length + len(probabilities)].tolist()
        tokens = [
            {"token": processor.decode([one]), "logprob": value, "bytes": None, "top_logprobs": []}
            for one, value in zip(ids, probabilities, strict=True)
        ]
        given_probabilities = {"content": tokens} if request.get("logprobs") and self.gives_probabilities else None
        choice = {
            "index": 0,
            "finish_reason": "stop" if ids[-1] in ends else "length",
            "message": {"role": "assistant", "content": processor.decode(ids, skip_special_tokens=True)},
            "logprobs": given_probabilities,
        }
        usage = {"prompt_tokens": length, "completion_tokens": len(ids), "total_tokens": length + len(ids)}
        return {
            "id": "1",
            "object": "chat.completion",
            "created": 0,
            "model": "tiny",
            "choices": [choice],
            "usage": usage,
        }


class Handler(JsonHandler):
    """One request."""

    server: ModelServer

    def do_GET(self) -> None:
        models = [{"id": "tiny", "object": "model", "created": 0, "owned_by": "vllm"}]
        self.reply({"object": "list", "data": models})

    def do_POST(self) -> None:
        request = json.loads(self.body())
        with self.server.lock:
            self.server.keys.append(self.headers["Authorization"])
            status = self.server.statuses.pop(0) if self.server.statuses else 200
            if status != 200:
                self.reply({"error": {"message": "not now"}}, status)
                return
            try:
                self.reply(self.server.answer(request))
            except ValueError as error:
                self.reply({"error": {"message": str(error)}}, 400)


@contextmanager
def model_server(folder: Path) -> Iterator[ModelServer]:
    """A server with a model, while the block lasts."""
    server = ModelServer(folder)
    with in_background(server):
        yield server
