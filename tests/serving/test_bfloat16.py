# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""A vLLM server in bfloat16 strays from float32's answers no further than transformers does in bfloat16.

serving/.venv/bin/python -m pytest --confcutdir tests/serving -m slow tests/serving/test_bfloat16.py
"""

from __future__ import annotations

from math import comb
from pathlib import Path
from typing import Any

import openai
import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from benchmarks.vllm_process import running_vllm
from tests.helpers.paths import HUB_MODEL
from tests.helpers.served_prompts import PROMPTS, ask_generate, ask_server

pytest.importorskip("vllm", reason="runs in the environment of `make serving`")

LEAST_PROBABILITY = 0.05
"""Of as many prompts or more that the server alone answers otherwise, were both sides alike; a sign test's level."""


def answers_of_generate(dtype: torch.dtype, paths: dict[str, Path]) -> list[str]:
    processor = AutoProcessor.from_pretrained(HUB_MODEL, trust_remote_code=True)
    model: Any = AutoModelForImageTextToText.from_pretrained(HUB_MODEL, trust_remote_code=True, dtype=dtype)
    return [ask_generate(model, processor, paths, asked)[1] for asked in PROMPTS]


@pytest.mark.slow
def test_the_server_strays_no_further_from_float32_than_transformers(files, paths) -> None:
    exact, theirs = (answers_of_generate(dtype, paths) for dtype in (torch.float32, torch.bfloat16))
    with running_vllm(str(HUB_MODEL), "bfloat16") as (address, _):
        server = openai.OpenAI(base_url=f"{address}v1", api_key="none", max_retries=0)
        ours = [ask_server(server, files, asked).choices[0].message.content for asked in PROMPTS]
    kept_by_server = sum(one == same for one, same in zip(ours, exact, strict=True))
    kept_by_transformers = sum(one == same for one, same in zip(theirs, exact, strict=True))
    print(f"as in float32, of {len(exact)}: server {kept_by_server}, transformers {kept_by_transformers}")
    only_server = sum(o != e and t == e for o, t, e in zip(ours, theirs, exact, strict=True))
    only_transformers = sum(t != e and o == e for o, t, e in zip(ours, theirs, exact, strict=True))
    differing = only_server + only_transformers
    by_chance = sum(comb(differing, more) for more in range(only_server, differing + 1)) / 2**differing
    assert by_chance > LEAST_PROBABILITY
    assert kept_by_server > len(exact) / 2, "most answers do not hang on rounding"
