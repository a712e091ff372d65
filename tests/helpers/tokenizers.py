# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The Nano's tokenizer with a small vocabulary: written and read in a fiftieth of the time, for tests that do both."""

from __future__ import annotations

import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from tests.helpers.paths import HUB_MODEL

SMALL_VOCABULARY = 1000
TOKENIZER_FILE, SETTINGS_FILE = "tokenizer.json", "tokenizer_config.json"


@cache
def _small() -> str:
    settings = json.loads((HUB_MODEL / TOKENIZER_FILE).read_text(encoding="utf-8"))
    model = settings["model"]
    model["vocab"] = {token: number for token, number in model["vocab"].items() if number < SMALL_VOCABULARY}
    model["merges"] = [pair for pair in model["merges"] if {*pair, "".join(pair)} <= model["vocab"].keys()]
    following = SMALL_VOCABULARY
    for token in settings["added_tokens"]:
        if token["id"] >= SMALL_VOCABULARY:
            token["id"], following = following, following + 1
    return json.dumps(settings)


def small_tokenizer_settings() -> dict[str, Any]:
    """What `tokenizer.json` holds, with the first thousand tokens alone and those of vision after them.

    All bytes are among them, so every text can be written, in more tokens than the Nano needs.
    """
    return json.loads(_small())


def small_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """The Nano's tokenizer with this vocabulary and all of its other settings, from an empty folder."""
    (folder / TOKENIZER_FILE).write_text(_small(), encoding="utf-8")
    shutil.copy(HUB_MODEL / SETTINGS_FILE, folder)
    return PreTrainedTokenizerFast.from_pretrained(folder)
