# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The language model as a GGUF file: transformers' own reader gets the same model back, and the rest is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable

import pytest
import torch
from transformers import AutoModelForCausalLM

from hub_model.modeling_omniv_med import OmniVMedForConditionalGeneration
from train.checkpoints.language_model_gguf import main

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def write(monkeypatch) -> Callable[..., None]:
    """Calls the command with these arguments."""

    def call(*arguments) -> None:
        monkeypatch.setattr("sys.argv", ["language_model_gguf", *map(str, arguments)])
        main()

    return call


@torch.no_grad()
def test_transformers_reads_the_same_language_model_back(tiny, tmp_path, write) -> None:
    write("--model", tiny, "--out", tmp_path / "tiny.gguf")
    read = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="tiny.gguf", dtype=torch.float32)
    model = OmniVMedForConditionalGeneration.from_pretrained(tiny)
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.gguf"]
    ids = torch.arange(20).unsqueeze(0)
    wanted = model(input_ids=ids).logits
    torch.testing.assert_close(read(input_ids=ids).logits, wanted, atol=0.05, rtol=0.01)
    assert wanted.std() > 1


def test_matrices_are_float16_and_vectors_float32(tiny, tmp_path, write) -> None:
    import gguf

    write("--model", tiny, "--out", tmp_path / "tiny.gguf")
    tensors = gguf.GGUFReader(tmp_path / "tiny.gguf").tensors
    assert {(len(tensor.shape), tensor.tensor_type.name) for tensor in tensors} == {(1, "F32"), (2, "F16")}


@pytest.mark.parametrize(
    ("wrong", "said"), [("no model", "no config.json"), ("qwen2", "'qwen2'"), ("name", "ends in .gguf")]
)
def test_what_cannot_be_written_is_refused_in_one_sentence(tiny, tmp_path, write, wrong, said) -> None:
    folder, out = tmp_path / "model", tmp_path / ("out.bin" if wrong == "name" else "out.gguf")
    shutil.copytree(tiny, folder)
    if wrong == "no model":
        (folder / "config.json").unlink()
    if wrong == "qwen2":
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        config["text_config"]["model_type"] = "qwen2"
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(SystemExit, match=r"^Error: ") as ended:
        write("--model", folder, "--out", out)
    assert said in str(ended.value)
    assert not out.exists()
