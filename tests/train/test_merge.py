# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Merging: the folder computes what model and adapter computed, and loads by itself through the Auto classes."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor

from hub_model.modeling_omniv_med import OmniVMedForConditionalGeneration
from train.checkpoints.assemble import AUTO_MAP, HUB_MODEL
from train.checkpoints.merge import main

pytestmark = pytest.mark.usefixtures("one_thread")
TARGETS = r".*(language_model.*|vision_model.*)\.(q_proj|v_proj)|.*projector\.readout\.0"
QUESTION = "Which imaging modality is this?"


def adapted(tiny, vocabulary: int):
    """The tiny model with random factors in encoder, projector and language model, and three trained tokens."""
    torch.manual_seed(1)
    settings = LoraConfig(
        r=4, lora_alpha=8, target_modules=TARGETS, trainable_token_indices=list(range(vocabulary - 3, vocabulary))
    )
    model = get_peft_model(OmniVMedForConditionalGeneration.from_pretrained(tiny), settings)
    for name, parameter in model.named_parameters():
        if "lora_B" in name or "trainable_tokens" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return model.eval()


@pytest.fixture
def merge(monkeypatch) -> Callable[..., None]:
    """Calls the command with these arguments."""

    def call(*arguments) -> None:
        monkeypatch.setattr("sys.argv", ["merge", *map(str, arguments)])
        main()

    return call


def test_the_merged_folder_gives_the_logits_of_model_and_adapter(tiny, tokenizer, film, tmp_path, merge) -> None:
    model = adapted(tiny, len(tokenizer))
    model.save_pretrained(tmp_path / "adapter")
    merge("--model", tiny, "--adapter", tmp_path / "adapter", "--out", tmp_path / "merged")

    processor = AutoProcessor.from_pretrained(tmp_path / "merged", trust_remote_code=True)
    content = [{"type": "video", "video": film()}, {"type": "text", "text": QUESTION}]
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=True, return_dict=True
    )
    with torch.no_grad():
        wanted = model(**inputs).logits
        before = OmniVMedForConditionalGeneration.from_pretrained(tiny)(**inputs).logits
        for auto in (AutoModelForImageTextToText, AutoModelForCausalLM):
            got = auto.from_pretrained(tmp_path / "merged", trust_remote_code=True)(**inputs).logits
            torch.testing.assert_close(got, wanted, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(before, wanted, atol=1e-2)


def test_the_merged_folder_is_complete_and_has_no_adapter_left(tiny, tokenizer, tmp_path, merge) -> None:
    adapted(tiny, len(tokenizer)).save_pretrained(tmp_path / "adapter")
    merge("--model", tiny, "--adapter", tmp_path / "adapter", "--out", tmp_path / "merged")
    names = {path.name for path in (tmp_path / "merged").iterdir()}
    assert {code.name for code in HUB_MODEL.glob("*_omniv_med.py")} <= names
    assert {"tokenizer.json", "chat_template.jinja", "processor_config.json", "generation_config.json"} <= names
    assert not any("adapter" in name for name in names)
    assert json.loads((tmp_path / "merged" / "config.json").read_text())["auto_map"] == AUTO_MAP


@pytest.mark.parametrize("wrong", ["no model", "no adapter", "other model", "taken"])
def test_what_cannot_be_merged_is_refused_in_one_sentence(tiny, tokenizer, tmp_path, merge, wrong) -> None:
    adapter, base, out = tmp_path / "adapter", tiny, tmp_path / "merged"
    if wrong == "no model":
        base = tmp_path
    elif wrong == "taken":
        out.mkdir()
    if wrong == "other model":
        model = adapted(tiny, len(tokenizer))
        model.save_pretrained(adapter)
        settings = adapter / "adapter_config.json"
        settings.write_text(settings.read_text().replace('"r": 4', '"r": 5'))
    with pytest.raises(SystemExit, match=r"^Error: [^\n]+$"):
        merge("--model", base, "--adapter", adapter, "--out", out)
    assert wrong == "taken" or not out.exists()
