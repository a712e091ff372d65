# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""A folder loads by itself: every Auto class, in a fresh process that knows nothing of this repository, offline."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor, PreTrainedTokenizerFast

from hub_model.modeling_omniv_med import OmniVMedForConditionalGeneration
from tests.helpers.paths import HUB_MODEL
from tests.helpers.tiny_models import PROCESSOR_OPTIONS
from tests.helpers.waiting import PATIENCE
from train.checkpoints.assemble import write_configuration

CLASSES = {
    "AutoConfig": "OmniVMedConfig",
    "AutoProcessor": "OmniVMedProcessor",
    "AutoModel": "OmniVMedModel",
    "AutoModelForImageTextToText": "OmniVMedForConditionalGeneration",
    "AutoModelForCausalLM": "OmniVMedForConditionalGeneration",
    "AutoModelForMultimodalLM": "OmniVMedForConditionalGeneration",
}

PROGRAM = """
import sys

import numpy as np
import torch
import transformers

assert "hub_model" not in sys.modules
folder, classes = sys.argv[1], {classes!r}
image = np.random.default_rng(0).integers(0, 256, (24, 16, 3), dtype=np.uint8)
content = [{{"type": "image", "image": image}}, {{"type": "text", "text": "What is it?"}}]
processor = transformers.AutoProcessor.from_pretrained(folder, trust_remote_code=True)
inputs = processor.apply_chat_template(
    [{{"role": "user", "content": content}}], add_generation_prompt=True, tokenize=True, return_dict=True,
    return_tensors="pt",
)
answers, weights = set(), []
for name, expected in classes.items():
    loaded = getattr(transformers, name).from_pretrained(folder, trust_remote_code=True)
    assert type(loaded).__name__ == expected, (name, type(loaded))
    assert type(loaded).__module__.startswith("transformers_modules."), type(loaded).__module__
    if expected == "OmniVMedModel":
        with torch.no_grad():
            assert loaded(**inputs).last_hidden_state.shape == (*inputs["input_ids"].shape, 32)
        weights.append(loaded.projector.readout[0].weight)
    if expected == "OmniVMedForConditionalGeneration":
        ids = loaded.generate(**inputs, max_new_tokens=5, min_new_tokens=5)[:, inputs["input_ids"].shape[1]:]
        answers.add(processor.batch_decode(ids, skip_special_tokens=True)[0])
        weights.append(loaded.model.projector.readout[0].weight)
assert len(answers) == 1, answers
assert all(torch.equal(weight, weights[0]) for weight in weights)
assert "hub_model" not in sys.modules
print("ANSWER", answers.pop())
"""


@pytest.fixture
def folder(
    tmp_path: Path,
    tokenizer: PreTrainedTokenizerFast,
    make_model: Callable[..., OmniVMedForConditionalGeneration],
) -> Path:
    """A tiny model as the assembly writes it, with all of the code."""
    model = make_model()
    write_configuration(tmp_path / "tiny", model, tokenizer, PROCESSOR_OPTIONS)
    model.save_pretrained(tmp_path / "tiny")
    return tmp_path / "tiny"


def run_elsewhere(folder: Path, working_directory: Path) -> str:
    """Runs the program away from the repository, and returns what it prints."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(working_directory / "modules")}
    environment |= {"OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(classes=CLASSES), str(folder)],
        cwd=working_directory,
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_every_auto_class_loads_a_folder_away_from_the_repository(folder, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    assert "ANSWER" in run_elsewhere(folder, elsewhere)


def test_a_loaded_model_can_be_saved_and_loaded_again(folder, tmp_path, model):
    loaded = AutoModelForImageTextToText.from_pretrained(folder, trust_remote_code=True)
    copy = tmp_path / "copy"
    loaded.save_pretrained(copy)
    AutoProcessor.from_pretrained(folder, trust_remote_code=True).save_pretrained(copy)
    again = AutoModelForImageTextToText.from_pretrained(copy, trust_remote_code=True)
    assert AutoProcessor.from_pretrained(copy, trust_remote_code=True).max_frames == PROCESSOR_OPTIONS["max_frames"]
    assert set(again.config.auto_map) == set(CLASSES)
    state = model.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in again.state_dict().items())


def test_the_nano_loads_and_answers(picture):
    # Assembled by `make model`; what it answers, the benchmarks judge.
    model = AutoModelForImageTextToText.from_pretrained(HUB_MODEL, trust_remote_code=True).eval()
    processor = AutoProcessor.from_pretrained(HUB_MODEL, trust_remote_code=True)
    content = [{"type": "image", "image": picture(0, 64, 64)}, {"type": "text", "text": "What is it?"}]
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    assert int((inputs["input_ids"] == model.config.image_token_id).sum()) == int(inputs["keep_mask"].sum())
    answer = model.generate(**inputs, max_new_tokens=3, min_new_tokens=3)[:, inputs["input_ids"].shape[1] :]
    assert answer.shape == (1, 3)
    assert isinstance(processor.batch_decode(answer, skip_special_tokens=True)[0], str)
    assert model.lm_head.weight is model.get_input_embeddings().weight
