# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""llama.cpp in the place of the language model's layers: the same answers, and one sentence for what cannot be.

llama.cpp holds weights and its cache in float16, so logits differ by that rounding; torch is the reference.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from examples.ask import main
from hub_model.answering_omniv_med import answer
from hub_model.llama_cpp_omniv_med import LlamaCppDecoder, OmniVMedWithLlamaCpp
from hub_model.modeling_omniv_med import OmniVMedForConditionalGeneration
from hub_model.processing_omniv_med import OmniVMedProcessor
from tests.helpers.paths import HUB_MODEL, ROOT
from train.checkpoints.language_model_gguf import write

pytestmark = pytest.mark.usefixtures("one_thread")
needs_llama_cpp = pytest.mark.skipif(
    importlib.util.find_spec("llama_cpp") is None, reason="llama-cpp-python is not installed"
)
TOLERANCE = 0.05
"""Largest difference of two logits, as a share of their spread over the vocabulary."""
MEDIA = ROOT / "examples" / "media"


@pytest.fixture(scope="module")
def tiny_file(tiny, tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    write(tiny, file)
    return file


@pytest.fixture(scope="module")
def small(tiny, tiny_file) -> OmniVMedWithLlamaCpp:
    return OmniVMedWithLlamaCpp.from_pretrained(tiny, gguf=tiny_file).eval()


@pytest.fixture(scope="module")
def reference(tiny) -> OmniVMedForConditionalGeneration:
    return OmniVMedForConditionalGeneration.from_pretrained(tiny).eval()


@pytest.fixture
def messages(film) -> list[dict]:
    content = [{"type": "video", "video": film()}, {"type": "text", "text": "What is it?"}]
    return [{"role": "user", "content": content}]


def inputs_of(processor, messages):
    return processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=True)


def assert_close(found: torch.Tensor, wanted: torch.Tensor) -> None:
    assert found.shape == wanted.shape
    assert float((found - wanted).abs().max()) <= TOLERANCE * float(wanted.std())


def test_without_the_package_one_sentence_says_how_to_install_it(monkeypatch, tmp_path, capfd) -> None:
    monkeypatch.setitem(sys.modules, "llama_cpp", None)  # as if it were not installed
    with pytest.raises(ImportError, match=r"pip install 'llama-cpp-python"):
        LlamaCppDecoder(tmp_path / "any.gguf")
    assert main(["none", "Who are you?", "--gguf", str(tmp_path / "any.gguf")]) == 2
    output, errors = capfd.readouterr()
    assert output == ""
    assert errors == "ask: --gguf needs llama-cpp-python; pip install -e '.[llama-cpp]' brings it.\n"


@needs_llama_cpp
@torch.inference_mode()
def test_logits_are_torchs_at_every_position_of_a_prompt_with_media(small, reference, processor, messages) -> None:
    inputs = inputs_of(processor, messages)
    assert_close(small(**inputs).logits, reference(**inputs).logits)


@needs_llama_cpp
@torch.inference_mode()
def test_a_prompt_read_in_pieces_gives_the_logits_of_one_read_whole(small, reference) -> None:
    generator = np.random.default_rng(0)
    embeddings = generator.normal(size=(12, small.decoder.width)).astype(np.float32)
    whole = small.decoder.logits(embeddings)
    pieces = [small.decoder.logits(embeddings[:5]), small.decoder.logits(embeddings[5:], first=5)]
    np.testing.assert_allclose(np.concatenate(pieces), whole, atol=TOLERANCE * whole.std())
    # Going back forgets what lay beyond.
    again = small.decoder.logits(embeddings[3:], first=3)
    np.testing.assert_allclose(again, whole[3:], atol=TOLERANCE * whole.std())


@needs_llama_cpp
def test_answers_and_confidences_are_torchs(small, reference, processor, messages) -> None:
    for options in ({}, {"prune_rule": "none"}):
        found = answer(small, processor, messages, max_new_tokens=8, **options)
        wanted = answer(reference, processor, messages, max_new_tokens=8, **options)
        assert found.text == wanted.text
        assert found.confidence == pytest.approx(wanted.confidence, abs=0.01)


@needs_llama_cpp
def test_what_generate_is_told_holds_biases_among_it(small, reference, processor, messages) -> None:
    inputs = inputs_of(processor, messages)
    plain = small.generate(**inputs, max_new_tokens=4, min_new_tokens=4, do_sample=False)
    unwanted = int(plain[0, inputs["input_ids"].shape[1]])
    told = {"sequence_bias": [[[unwanted], -100.0]], "max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False}
    biased = small.generate(**inputs, **told)
    assert unwanted not in biased[0, inputs["input_ids"].shape[1] :]
    assert torch.equal(biased, reference.generate(**inputs, **told))


@needs_llama_cpp
def test_several_conversations_at_once_are_refused(small, processor) -> None:
    ids = torch.ones((2, 3), dtype=torch.int64)
    with pytest.raises(ValueError, match="one conversation at a time"):
        small(input_ids=ids)
    with pytest.raises(ValueError, match="one conversation at a time"):
        small(input_ids=ids[:1], attention_mask=torch.tensor([[0, 1, 1]]))


@needs_llama_cpp
def test_what_does_not_follow_or_fit_is_refused(small) -> None:
    decoder = small.decoder
    embeddings = np.zeros((2, decoder.width), np.float32)
    decoder.logits(embeddings)
    with pytest.raises(ValueError, match="does not follow"):
        decoder.logits(embeddings, first=3)
    with pytest.raises(ValueError, match=f"more than {decoder.longest} tokens"):
        decoder.logits(np.zeros((decoder.longest + 1, decoder.width), np.float32))
    with pytest.raises(ValueError, match="wide"):
        decoder.logits(embeddings[:, 1:])


@needs_llama_cpp
def test_a_file_of_another_checkpoint_is_refused(tiny, tiny_file, tmp_path) -> None:
    for file in tiny.iterdir():
        if file.is_file() and file.suffix != ".safetensors":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    tensors = load_file(tiny / "model.safetensors")
    tensors["model.language_model.embed_tokens.weight"][0] += 1
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"tiny\.gguf holds another language model"):
        OmniVMedWithLlamaCpp.from_pretrained(tmp_path, gguf=tiny_file)


@needs_llama_cpp
def test_what_is_no_gguf_file_is_told_in_one_sentence(tmp_path, capfd) -> None:
    file = tmp_path / "text.gguf"
    file.write_text("This is no GGUF file.", encoding="utf-8")
    with pytest.raises(ValueError, match=r"text\.gguf is no GGUF file"):
        LlamaCppDecoder(file)
    assert capfd.readouterr() == ("", "")  # llama.cpp says much of its own


@needs_llama_cpp
@pytest.mark.slow
def test_the_nano_answers_about_the_samples_as_in_torch(tmp_path) -> None:
    """Words and confidences, for a picture, a volume and a video."""
    write(HUB_MODEL, tmp_path / "nano.gguf")
    processor = OmniVMedProcessor.from_pretrained(HUB_MODEL, trust_remote_code=True)
    reference = OmniVMedForConditionalGeneration.from_pretrained(HUB_MODEL, dtype=torch.float32).eval()
    found = OmniVMedWithLlamaCpp.from_pretrained(HUB_MODEL, gguf=tmp_path / "nano.gguf", dtype=torch.float32).eval()
    for kind, name in (("image", "xray.png"), ("volume", "ct_volume.nii.gz"), ("video", "ultrasound.mp4")):
        content = [{"type": kind, kind: str(MEDIA / name)}, {"type": "text", "text": "Which imaging modality is this?"}]
        asked = [{"role": "user", "content": content}]
        ours, theirs = (answer(model, processor, asked, max_new_tokens=8) for model in (found, reference))
        assert ours.text == theirs.text
        assert ours.confidence == pytest.approx(theirs.confidence, abs=0.01)
