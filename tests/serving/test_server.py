# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""A real vLLM server on loopback with the Nano, asked through the OpenAI client as users ask it.

In float32 every greedy answer must be the one that transformers' `generate` gives for the same files and options.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import openai
import psutil
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForImageTextToText, AutoProcessor

from benchmarks.vllm_process import running_vllm
from tests.helpers.paths import HUB_MODEL
from tests.helpers.served_media import MEDIA, QUESTION, data_uri
from tests.helpers.served_prompts import PROMPTS, Asked, ask_generate, ask_server

pytest.importorskip("vllm", reason="runs in the environment of `make serving`")

CLIENTS = 8
ADAPTER = "adapter"


@pytest.fixture(scope="module")
def model() -> Any:
    return AutoModelForImageTextToText.from_pretrained(HUB_MODEL, trust_remote_code=True)


@pytest.fixture(scope="module")
def adapter(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA adapter of the language model with random weights, as training saves them."""
    folder = tmp_path_factory.mktemp("lora") / ADAPTER
    modules = r".*language_model.*\.(q_proj|v_proj|down_proj)"
    torch.manual_seed(0)
    adapted = get_peft_model(model, LoraConfig(r=4, lora_alpha=64, target_modules=modules, init_lora_weights=False))
    adapted.save_pretrained(folder)
    adapted.unload()
    return folder


@pytest.fixture(scope="module")
def server(adapter: Path) -> Iterator[openai.OpenAI]:
    """A client of the server, started as docs/serving.md says."""
    loras = ("--enable-lora", "--lora-modules", f"{ADAPTER}={adapter}")
    with running_vllm(str(HUB_MODEL), "float32", *loras) as (address, process):
        yield openai.OpenAI(base_url=f"{address}v1", api_key="none", max_retries=0)
        assert psutil.Process(process).status() != psutil.STATUS_ZOMBIE  # it has not ended by itself


@pytest.fixture(scope="module")
def ask(server: openai.OpenAI, files: dict[str, tuple[str, bytes]]) -> Callable[..., Any]:
    """Sends a prompt and gives the server's reply."""
    return partial(ask_server, server, files)


@pytest.fixture(scope="module")
def expected(model: Any, paths: dict[str, Path]) -> Callable[..., tuple[int, str]]:
    """What `generate` answers, after the number of tokens in the prompt."""
    processor = AutoProcessor.from_pretrained(HUB_MODEL, trust_remote_code=True)

    def generate(asked: Asked, model: Any = model) -> tuple[int, str]:
        return ask_generate(model, processor, paths, asked)

    return generate


def test_greedy_answers_are_those_of_generate(ask, expected) -> None:
    assert len(PROMPTS) >= 50
    differ = []
    for asked in PROMPTS:
        reply, (length, answer) = ask(asked), expected(asked)
        if (reply.usage.prompt_tokens, reply.choices[0].message.content) != (length, answer):
            differ.append((asked, reply.usage.prompt_tokens, reply.choices[0].message.content, length, answer))
    assert differ == []


def test_text_alone_is_answered_too(ask, expected) -> None:
    asked = Asked((), "What is computed tomography used for?")
    reply = ask(asked)
    assert (reply.usage.prompt_tokens, reply.choices[0].message.content) == expected(asked)


def test_many_clients_each_get_the_answer_to_their_own_question(ask, expected) -> None:
    prompts = [
        Asked((name,), f"What is shown in part {number}?")
        for number, name in enumerate(["picture", "volume", "video", "series"] * 4)
    ]
    with ThreadPoolExecutor(CLIENTS) as clients:
        found = [reply.choices[0].message.content for reply in clients.map(ask, prompts)]
    assert found == [expected(asked)[1] for asked in prompts]


def test_an_answer_can_be_streamed(ask, expected) -> None:
    asked = Asked(("video", "picture"))
    chunks = list(ask(asked, stream=True))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == expected(asked)[1]
    assert len(chunks) > 2


def test_a_lora_adapter_answers_as_its_own_model(ask, expected, model, adapter) -> None:
    prompts = (Asked(("picture",)), Asked(("volume",)), Asked(("video",), stage="encoder"))
    adapted = PeftModel.from_pretrained(model, adapter)
    answers = [expected(asked, adapted.get_base_model())[1] for asked in prompts]
    adapted.unload()
    replies = [ask(asked, model=ADAPTER).choices[0].message.content for asked in prompts]
    # Random weights may end in half a character, for which transformers writes marks and vLLM nothing.
    assert replies == [answer.rstrip("\ufffd") for answer in answers]
    plain = [ask(asked).choices[0].message.content for asked in prompts]
    assert replies != plain, "a random adapter changes some answers, if not all"


@pytest.mark.parametrize(
    ("kind", "url", "sentence"),
    [
        ("image_url", data_uri(b"no picture at all"), "not a known medical image"),
        (
            "video_url",
            data_uri((MEDIA / "ct_volume.nii.gz").read_bytes()[:500]),
            "damaged|cut off|truncated|incomplete",
        ),
        ("image_url", "data:image/png;base64,%%%", "not valid base64"),
        ("image_url", (MEDIA / "xray.png").as_uri(), "opens neither addresses nor its own files"),
        ("video_url", str(MEDIA / "ultrasound.mp4"), "opens neither addresses nor its own files"),
        ("image_url", "http://127.0.0.1:9/picture.png", "opens neither addresses nor its own files"),
        ("volume", "data:;base64,AAAA", "volume"),
    ],
)
def test_what_cannot_be_read_is_a_400_with_its_sentence_and_the_server_lives_on(
    server, ask, expected, kind, url, sentence
) -> None:
    content = [{"type": kind, kind: {"url": url}}, {"type": "text", "text": QUESTION}]
    with pytest.raises(openai.BadRequestError, match=sentence):
        server.chat.completions.create(model="omniv-med", messages=[{"role": "user", "content": content}])
    asked = Asked(("picture",))
    assert ask(asked).choices[0].message.content == expected(asked)[1]


def test_an_option_that_means_nothing_is_a_400(ask) -> None:
    for asked in (Asked(("volume",), reading={"plane": "oblique"}), Asked(("volume",), pruning={"keep_ratio": 7})):
        with pytest.raises(openai.BadRequestError, match=r"plane must be|keep_ratio must"):
            ask(asked)
