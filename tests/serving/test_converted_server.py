# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Another project's weights, converted, in a real vLLM server: a small random VideoLLaMA3 answers as `generate`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from benchmarks.vllm_process import NAME, running_vllm
from tests.helpers.foreign_models import write_foreign
from tests.helpers.served_media import KINDS, QUESTION, data_uri, prompt_of
from train.checkpoints.conversion import convert

pytest.importorskip("vllm", reason="runs in the environment of `make serving`")

NEW_TOKENS = 8
SIZES = {
    "hidden_size": 64,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "max_position_embeddings": 4096,
}
"""vLLM has no attention for heads narrower than 32 on a CPU, and the server is started for 4,096 tokens."""


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("converted")
    write_foreign(folder / "theirs", layout="videollama3", text_sizes=SIZES)
    convert(str(folder / "theirs"), folder / "ours", None, lambda sentence: None)
    return folder / "ours"


@pytest.fixture(scope="module")
def server(converted: Path) -> Iterator[openai.OpenAI]:
    with running_vllm(str(converted), "float32") as (address, _):
        yield openai.OpenAI(base_url=f"{address}v1", api_key="none", max_retries=0)


@pytest.mark.parametrize("stage", ["language", "encoder"])
@pytest.mark.parametrize("name", ["picture", "volume", "video"])
def test_converted_weights_answer_as_generate_does(converted, server, files, paths, name, stage) -> None:
    part, content = files[name]
    reply = server.chat.completions.create(
        model=NAME,
        messages=[
            {
                "role": "user",
                "content": [{"type": part, part: {"url": data_uri(content)}}, {"type": "text", "text": QUESTION}],
            }
        ],
        max_tokens=NEW_TOKENS,
        temperature=0,
        extra_body={"mm_processor_kwargs": {"prune_stage": stage}},
    )
    processor = AutoProcessor.from_pretrained(converted, trust_remote_code=True)
    model = AutoModelForImageTextToText.from_pretrained(converted, trust_remote_code=True).eval()
    inputs = processor(prompt_of(processor, (name,), QUESTION), [{"source": paths[name], "kind": KINDS[name]}])
    length = inputs["input_ids"].shape[1]
    with torch.inference_mode():
        new = model.generate(**inputs, prune_stage=stage, max_new_tokens=NEW_TOKENS, do_sample=False)
    expected = processor.decode(new[0, length:], skip_special_tokens=True)
    assert (reply.usage.prompt_tokens, reply.choices[0].message.content) == (length, expected)
