# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The benchmark of the conversion's memory, on a small model."""

from __future__ import annotations

import sys

import pytest

from benchmarks.convert_memory import DTYPES, MEGABYTE, measure
from hub_model.configuration_omniv_med import OmniVMedConfig
from tests.helpers.tiny_models import TINY_TEXT, TINY_VISION


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's counters")
def test_memory_rises_by_less_than_the_weights():
    """By far: a file of many tensors passes one after the other."""
    text = TINY_TEXT | {"model_type": "qwen2", "num_hidden_layers": 8, "vocab_size": 1000}
    text |= {"hidden_size": 512, "intermediate_size": 2048}
    rows = measure(OmniVMedConfig(text_config=text, vision_config=TINY_VISION), 32 * MEGABYTE)
    assert [row["weights"] for row in rows] == list(DTYPES)
    for row in rows:
        assert 0 < row["largest_read"] <= row["largest_written"]
        assert row["rise"] < row["largest_read"] + 8 * MEGABYTE
