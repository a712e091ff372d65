# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""`transformers serve` as users start it, on loopback: what it answers, and what it must not open."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from tests.helpers.loopback import answers, free_port
from tests.helpers.paths import ROOT
from tests.helpers.waiting import wait_until

pytestmark = pytest.mark.slow

MEDIA = ROOT / "examples" / "media"
VOLUME, VIDEO, PICTURE = (MEDIA / name for name in ("ct_volume.nii.gz", "ultrasound.mp4", "xray.png"))
NEW_TOKENS = 8
CLIENTS = 8


def data_uri(content: bytes) -> str:
    return f"data:application/octet-stream;base64,{base64.b64encode(content).decode()}"


def message(*parts: tuple[str, str], question: str = "What is shown?") -> list[dict[str, Any]]:
    """One user's turn: media as (content type, address), then the question."""
    content: list[dict[str, Any]] = [{"type": kind, kind: {"url": address}} for kind, address in parts]
    return [{"role": "user", "content": [*content, {"type": "text", "text": question}]}]


@pytest.fixture(scope="module")
def served(tiny, tmp_path_factory) -> Iterator[tuple[openai.OpenAI, str]]:
    """A client of a server with a tiny model, and the model's name there."""
    port, log = free_port(), tmp_path_factory.mktemp("serve") / "log.txt"
    command = [str(Path(sys.executable).parent / "transformers"), "serve", str(tiny), "--trust-remote-code"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    with log.open("w") as output:
        process = subprocess.Popen(
            command, env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}, stdout=output, stderr=output
        )
    try:
        wait_until(lambda: answers(f"http://127.0.0.1:{port}/health"), process)
        yield openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none"), str(tiny)
    finally:
        process.terminate()
        process.wait()


def ask(served: tuple[openai.OpenAI, str], messages: list[dict[str, Any]], **options: Any) -> str:
    client, model = served
    reply = client.chat.completions.create(
        model=model, messages=messages, max_tokens=NEW_TOKENS, temperature=0, **options
    )
    return reply.choices[0].message.content


@pytest.fixture(scope="module")
def expected(tiny):
    """What `generate` answers about (kind, file) and a question."""
    processor = AutoProcessor.from_pretrained(tiny, trust_remote_code=True)
    model = AutoModelForImageTextToText.from_pretrained(tiny, trust_remote_code=True)

    def answer(kind: str, path: Path, question: str = "What is shown?") -> str:
        content = [{"type": kind, "path": str(path)}, {"type": "text", "text": question}]
        inputs = processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=True, return_dict=True
        )
        with torch.inference_mode():
            new = model.generate(**inputs, max_new_tokens=NEW_TOKENS, do_sample=False)[
                0, inputs["input_ids"].shape[1] :
            ]
        return processor.decode(new, skip_special_tokens=True)

    return answer


@pytest.mark.parametrize(
    ("part", "kind", "path"),
    [("image_url", "image", PICTURE), ("video_url", "video", VIDEO), ("video_url", "volume", VOLUME)],
)
def test_pictures_videos_and_volumes_are_answered_as_generate_does(served, expected, part, kind, path) -> None:
    assert ask(served, message((part, data_uri(path.read_bytes())))) == expected(kind, path)


def test_an_answer_can_be_streamed(served, expected) -> None:
    client, model = served
    chunks = client.chat.completions.create(
        model=model,
        messages=message(("image_url", data_uri(PICTURE.read_bytes()))),
        max_tokens=NEW_TOKENS,
        temperature=0,
        stream=True,
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == expected("image", PICTURE)


@pytest.mark.parametrize("address", [str(PICTURE), f"file://{PICTURE}", data_uri(b"no picture at all")])
def test_files_of_the_server_and_broken_ones_are_refused_and_the_server_lives_on(served, expected, address) -> None:
    with pytest.raises(openai.APIStatusError):
        ask(served, message(("image_url", address)))
    assert ask(served, message(("image_url", data_uri(PICTURE.read_bytes())))) == expected("image", PICTURE)


def test_many_clients_each_get_the_answer_to_their_own_question(served, expected) -> None:
    questions = [f"What is shown in part {number}?" for number in range(CLIENTS)]
    picture = data_uri(PICTURE.read_bytes())
    with ThreadPoolExecutor(CLIENTS) as clients:
        found = clients.map(lambda asked: ask(served, message(("image_url", picture), question=asked)), questions)
        assert list(found) == [expected("image", PICTURE, asked) for asked in questions]
