# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""A small server of OpenAI's chat completions that looks at its pictures, for `test_captioning.py`.

It writes down the mean grey level of each picture, and judges such a caption by the pictures it is sent itself. It can
refuse, answer nonsense, hold its answers back, and die; each request is a line of its log.

python -m tests.helpers.chat_server --log requests.jsonl --port 0
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import io
import json
import os
import re
import threading
import time
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.helpers.json_server import JsonHandler

ERRORS_OF_CANDIDATES = (60, 0, 20, 90)
"""Grey levels that the caption of seed i, modulo 4, is wrong by."""
RELEASED = "released"
"""File in the folder of `--hold` that lets the held answers go; a request that waits leaves one named by its number."""


def parts_of(messages: list[dict[str, Any]]) -> tuple[str, list[Image.Image]]:
    """All words, and all pictures, decoded."""
    words, pictures = [], []
    for message in messages:
        parts = message["content"]
        for part in [{"type": "text", "text": parts}] if isinstance(parts, str) else parts:
            if part["type"] == "text":
                words.append(part["text"])
            else:
                head, data = part["image_url"]["url"].split(",", 1)
                assert re.fullmatch(r"data:image/(png|jpeg);base64", head), head
                picture = Image.open(io.BytesIO(base64.b64decode(data, validate=True)))
                assert picture.format.lower() == head[len("data:image/") : -len(";base64")]
                pictures.append(picture.convert("L"))
    return "\n".join(words), pictures


def write(words: str, levels: list[float], seed: int) -> str:
    """A caption: where each picture lies, and how grey it is, give or take."""
    places = re.findall(r"at ([\d.]+ (?:s|mm)):", words)
    wrong = ERRORS_OF_CANDIDATES[seed % len(ERRORS_OF_CANDIDATES)]
    return f"Grey levels {', '.join(f'{level + wrong:.0f}' for level in levels)} at {', '.join(places)}."


def judge(model: str, words: str, levels: list[float]) -> str:
    """Scores: accuracy by the distance of the caption from the pictures; a "lenient" model gives one more."""
    caption = re.search(r"<description>\s*Grey levels ([\d, ]+) at .*</description>", words, re.DOTALL)
    claimed = [float(level) for level in caption[1].split(",")]
    accuracy = 5
    if levels:
        worst = max(abs(a - b) for a, b in zip(claimed, levels, strict=True))
        accuracy = 5 if worst < 4 else 3 if worst < 30 else 1
    if model == "lenient":
        accuracy = min(accuracy + 1, 5)
    relevance = 5 if "The modality is endoscopy." in words else 4
    scores = {"relevance": relevance, "fluency": 5, "accuracy": accuracy}
    return json.dumps({name: {"score": score, "reason": f"It is worth {score}."} for name, score in scores.items()})


class Handler(JsonHandler):
    """One request; what all share is in the server's `options` and `state`."""

    def do_POST(self) -> None:
        body = self.body()
        options, state, lock = self.server.options, self.server.state, self.server.lock
        with lock:
            state["in_flight"] += 1
            number, in_flight = state["requests"], state["in_flight"]
            state["requests"] += 1
        if options.die_after is not None and number >= options.die_after:
            os._exit(1)
        if options.hold and number >= options.hold_from:
            (options.hold / str(number)).touch()
            while not (options.hold / RELEASED).exists():
                time.sleep(0.01)
        request = json.loads(body)
        words, pictures = parts_of(request["messages"])
        status, answer = self.answer(request, words, pictures, number)
        line = {
            "status": status,
            "model": request["model"],
            "seed": request["seed"],
            "hash": hashlib.sha256(body).hexdigest(),
            "pictures": len(pictures),
            "sizes": [picture.size for picture in pictures],
            "places": re.findall(r"^.*at [\d.]+ (?:s|mm):$", words, re.MULTILINE),
            "in_flight": in_flight,
        }
        with lock:
            with open(options.log, "a", encoding="utf-8") as log:
                log.write(json.dumps(line) + "\n")
            state["in_flight"] -= 1
        self.reply(answer, status)

    def answer(self, request: dict, words: str, pictures: list[Image.Image], number: int) -> tuple[int, dict]:
        """Status and body."""
        options, model = self.server.options, request["model"]
        if self.path != "/v1/chat/completions":
            return 404, {"error": {"message": "no such page"}}
        if options.key and self.headers["Authorization"] != f"Bearer {options.key}":
            return 401, {"error": {"message": "wrong key"}}
        if number < len(options.fail):
            return options.fail[number], {"error": {"message": words}}  # a server that quotes its input
        if (model == "text-only") == bool(pictures):
            return 400, {"error": {"message": "text for the one, pictures for the others"}}
        levels = [float(np.asarray(picture).mean()) for picture in pictures]
        if model == "generator":
            content = write(words, levels, request["seed"])
        else:
            content = judge(model, words, levels)
            with self.server.lock:
                if self.server.state["garbled"] < options.garble:
                    self.server.state["garbled"] += 1
                    content = content.replace('"score": 5', '"score": "excellent"')
        return 200, {
            "id": f"chatcmpl-{number}",
            "object": "chat.completion",
            "created": 0,
            "model": model,
            "choices": [
                {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content}},
            ],
            "usage": {"prompt_tokens": 50 + 100 * len(pictures), "completion_tokens": 20, "total_tokens": 0},
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, required=True, help="0 takes a free one; it is printed")
    parser.add_argument("--log", required=True, help="file of JSON Lines to append to")
    parser.add_argument("--key", default="", help="key that a client must send")
    parser.add_argument("--fail", type=int, nargs="*", default=[], help="HTTP status of the first answers")
    parser.add_argument("--garble", type=int, default=0, help="judgements, the first ones, that are wrong")
    parser.add_argument("--hold", type=Path, help="folder: answers wait until it holds a file 'released'")
    parser.add_argument("--hold-from", type=int, default=0, help="requests that are answered at once; the others wait")
    parser.add_argument("--die-after", type=int, help="requests after which the next one kills the server")
    options = parser.parse_args()
    ThreadingHTTPServer.request_queue_size = 64
    server = ThreadingHTTPServer(("127.0.0.1", options.port), Handler)
    server.options, server.lock = options, threading.Lock()
    server.state = {"requests": 0, "in_flight": 0, "garbled": 0}
    print(server.server_address[1], flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
