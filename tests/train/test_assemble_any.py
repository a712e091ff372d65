# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Any SigLIP-like encoder and any causal language model become one folder, and the large recipes run on it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
    PreTrainedTokenizerFast,
)

from hub_model.configuration_omniv_med import OmniVMedVisionConfig
from hub_model.modeling_omniv_med import OmniVMedForConditionalGeneration, OmniVMedVisionModel
from tests.helpers.paths import ROOT
from tests.helpers.tiny_models import PATCH_SIZE, TINY_TEXT, TINY_VISION
from tests.helpers.tokenizers import small_tokenizer_settings
from tests.helpers.training_fixtures import write_set
from train.checkpoints.assemble import ADDED_TOKENS, TURN_TOKENS, assemble_from, main
from train.checkpoints.joining import join
from train.checkpoints.vision_encoder import CheckpointError, load_vision_encoder
from train.config import StageConfig
from train.stage import build_stage, build_trainer, run_stage
from train.trainable_parts import part_of

pytestmark = pytest.mark.usefixtures("one_thread")
OPTIONS = {"min_frame_tokens": 4, "max_frame_tokens": 12}


def plain_tokenizer(without: tuple[str, ...]) -> PreTrainedTokenizerFast:
    """A small tokenizer without some of its tokens."""
    settings = small_tokenizer_settings()
    settings["added_tokens"] = [token for token in settings["added_tokens"] if token["content"] not in without]
    for token in without:
        settings["model"]["vocab"].pop(token, None)
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(settings)))


def write_language_model(folder: Path, kind: str = "qwen2", tied: bool = True, spare_rows: int = 0) -> Path:
    """A tiny random language model with its tokenizer; real ones have spare rows in their embeddings."""
    torch.manual_seed(1)
    tokenizer = plain_tokenizer(ADDED_TOKENS)
    tokenizer.pad_token = tokenizer.eos_token = "<|im_end|>"
    config = AutoConfig.for_model(
        kind, vocab_size=len(tokenizer) + spare_rows, head_dim=8, tie_word_embeddings=tied, **TINY_TEXT
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_vision_model(folder: Path, prefix: str = "", field: str | None = None) -> OmniVMedVisionModel:
    """A tiny random encoder in the layout of one of the public checkpoints."""
    torch.manual_seed(2)
    config = OmniVMedVisionConfig(**TINY_VISION)
    encoder = OmniVMedVisionModel._from_config(config).eval()
    folder.mkdir(parents=True)
    fields = {name: getattr(config, name) for name in (*TINY_VISION, "hidden_act", "layer_norm_eps")}
    text = {"hidden_size": 7}
    (folder / "config.json").write_text(json.dumps(fields if field is None else text | {field: fields}))
    tensors = {prefix + name: tensor for name, tensor in encoder.state_dict().items()}
    save_file(tensors | ({"lm_head.weight": torch.zeros(3)} if field else {}), folder / "model.safetensors")
    return encoder


@torch.no_grad()
@pytest.mark.parametrize(
    ("prefix", "field"),
    [
        ("", None),
        ("model.vision_model.", "vision_config"),
        ("model.vision_encoder.", "vision_encoder_config"),
        ("model.vision_encoder.vision_encoder.", "vision_encoder_config"),
    ],
    ids=["SigLIP-NaViT", "transformers", "VideoLLaMA3", "older Hulu-Med"],
)
def test_the_encoder_of_each_public_layout_is_found(tmp_path, prefix, field) -> None:
    encoder = write_vision_model(tmp_path / "vision", prefix, field)
    loaded = load_vision_encoder(str(tmp_path / "vision")).eval()
    pixels = torch.randn(8, 3 * PATCH_SIZE**2)
    inputs = (pixels, torch.tensor([[1, 2, 4]]), torch.tensor([2]))
    assert torch.equal(loaded(*inputs).last_hidden_state, encoder(*inputs).last_hidden_state)


def test_what_is_no_such_encoder_is_said(tmp_path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        load_vision_encoder(str(tmp_path / "empty"))
    write_vision_model(tmp_path / "other", prefix="tower.")
    with pytest.raises(CheckpointError, match="SigLIP-like"):
        load_vision_encoder(str(tmp_path / "other"))
    write_vision_model(tmp_path / "short")
    tensors = load_file(tmp_path / "short" / "model.safetensors")
    tensors.pop("post_layernorm.weight")
    save_file(tensors, tmp_path / "short" / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"lacks tensors .* post_layernorm\.weight"):
        load_vision_encoder(str(tmp_path / "short"))


def in_memory(vision: Path, language: Path, out: Path) -> None:
    assemble_from(str(vision), str(language), None, out, OPTIONS)


def file_by_file(vision: Path, language: Path, out: Path) -> None:
    join(str(vision), str(language), out, torch.float32, OPTIONS, lambda sentence: None)


@pytest.mark.parametrize("put_together", [in_memory, file_by_file])
@pytest.mark.parametrize(("kind", "tied", "spare"), [("qwen2", True, 0), ("qwen2", False, 64), ("llama", False, 0)])
def test_the_folder_holds_both_models_as_they_were(tmp_path, kind, tied, spare, picture, put_together) -> None:
    encoder = write_vision_model(tmp_path / "vision")
    language = write_language_model(tmp_path / "language", kind, tied, spare)
    put_together(tmp_path / "vision", language, tmp_path / "out")
    model = OmniVMedForConditionalGeneration.from_pretrained(tmp_path / "out").eval()
    processor = AutoProcessor.from_pretrained(tmp_path / "out", trust_remote_code=True)
    assert {
        n: t for n, t in encoder.state_dict().items() if not torch.equal(t, model.model.vision_model.state_dict()[n])
    } == {}
    words = torch.arange(10)[None]
    alone = AutoModelForCausalLM.from_pretrained(language).eval()
    known = alone.get_input_embeddings().num_embeddings - spare
    with torch.no_grad():
        logits = model(words).logits
        torch.testing.assert_close(logits[..., :known], alone(words).logits[..., :known], atol=1e-4, rtol=1e-4)
    assert (model.lm_head.weight is model.get_input_embeddings().weight) == tied
    assert len(processor.tokenizer) == model.get_input_embeddings().num_embeddings == known + 3
    whole = AutoModelForImageTextToText.from_pretrained(tmp_path / "out", trust_remote_code=True)
    content = [{"type": "image", "image": picture()}, {"type": "text", "text": "What?"}]
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=True, return_dict=True
    )
    assert whole.generate(**inputs, max_new_tokens=3, do_sample=False).shape[1] > inputs["input_ids"].shape[1]


@pytest.mark.parametrize("put_together", [in_memory, file_by_file])
def test_a_language_model_without_marks_of_turns_gets_them(tmp_path, put_together) -> None:
    write_vision_model(tmp_path / "vision")
    language = write_language_model(tmp_path / "language")
    tokenizer = plain_tokenizer((*ADDED_TOKENS, *TURN_TOKENS))
    tokenizer.save_pretrained(language)
    put_together(tmp_path / "vision", language, tmp_path / "out")
    model = OmniVMedForConditionalGeneration.from_pretrained(tmp_path / "out")
    processor = AutoProcessor.from_pretrained(tmp_path / "out", trust_remote_code=True)
    end = processor.tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert model.generation_config.eos_token_id == end
    assert processor.tokenizer("<|im_end|>", add_special_tokens=False).input_ids == [end]


@pytest.mark.parametrize(("tied", "spare"), [(True, 0), (False, 64)])
def test_file_by_file_gives_the_weights_that_transformers_gives(tmp_path, tied, spare) -> None:
    """But for the projector, which is drawn at random, at the same scale."""
    write_vision_model(tmp_path / "vision", "model.vision_encoder.", "vision_encoder_config")
    language = write_language_model(tmp_path / "language", "qwen2", tied, spare)
    states = []
    for number, put_together in enumerate((in_memory, file_by_file)):
        put_together(tmp_path / "vision", language, tmp_path / str(number))
        states.append(OmniVMedForConditionalGeneration.from_pretrained(tmp_path / str(number)).state_dict())
    whole, ours = states
    assert whole.keys() == ours.keys()
    for name, tensor in whole.items():
        if "projector" in name:
            torch.testing.assert_close(ours[name].std(), tensor.std(), rtol=0.2, atol=1e-6)
        else:
            torch.testing.assert_close(ours[name], tensor, rtol=1e-5, atol=1e-7)


def test_a_join_that_was_stopped_goes_on_to_the_same_folder(tmp_path) -> None:
    write_vision_model(tmp_path / "vision")
    language = write_language_model(tmp_path / "language")

    def stop(sentence: str) -> None:
        raise KeyboardInterrupt

    sources = (str(tmp_path / "vision"), str(language))
    with pytest.raises(KeyboardInterrupt):
        join(*sources, tmp_path / "out", torch.bfloat16, OPTIONS, stop)
    (first,) = (tmp_path / "out").glob("model*.safetensors")
    written = first.stat().st_mtime_ns
    sentences: list[str] = []
    join(*sources, tmp_path / "out", torch.bfloat16, OPTIONS, sentences.append)
    assert [sentence.endswith("finished already.") for sentence in sentences] == [True, False, False]
    assert first.stat().st_mtime_ns == written
    join(*sources, tmp_path / "again" / "out", torch.bfloat16, OPTIONS, sentences.append)
    for file in (tmp_path / "again" / "out").iterdir():
        assert (tmp_path / "out" / file.name).read_bytes() == file.read_bytes(), file.name
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert yaml.safe_load(card.split("---")[1])["base_model"] == ["vision", "language"]


def test_a_language_model_of_other_names_is_refused_before_anything_is_written(tmp_path) -> None:
    write_vision_model(tmp_path / "vision")
    language = write_language_model(tmp_path / "language")
    tensors = load_file(language / "model.safetensors")
    save_file({f"transformer.{name}": tensor for name, tensor in tensors.items()}, language / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"no model\.embed_tokens\.weight; train\.checkpoints\.assemble"):
        file_by_file(tmp_path / "vision", language, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command_says_what_is_wrong(tmp_path, monkeypatch) -> None:
    full = tmp_path / "full"
    full.mkdir()
    (full / "file").write_text("")
    line = ["assemble", "--vision", str(tmp_path), "--language", str(tmp_path), "--output", str(full)]
    monkeypatch.setattr(sys, "argv", line)
    with pytest.raises(SystemExit, match="is not empty"):
        main()


@pytest.mark.parametrize(("size", "tied"), [("1.5b", True), ("7b", False)])
def test_the_large_recipes_run_stage_by_stage_on_stand_ins(tmp_path, size, tied) -> None:
    """Tiny models of the same architectures: an untied head in the 7B, a tied one in the 1.5B."""
    write_vision_model(tmp_path / "vision")
    language = write_language_model(tmp_path / "language", "qwen2", tied)
    model, data = tmp_path / "model", tmp_path / "data"
    assemble_from(str(tmp_path / "vision"), str(language), None, model, OPTIONS)
    for split in ("train", "validation"):
        write_set(data, split)
    replay = tmp_path / "replay.json"
    replay.write_text(json.dumps([["What is two and two?", "Four."]]))
    results: dict[str, Path] = {}
    for name in ("stage1", "stage2", "stage3"):
        path = ROOT / "train" / "configs" / size / f"{name}.yaml"
        original = StageConfig.read(path)
        changes = [f"data.folders=[{data}]", "data.cache=null", "data.workers=0", "epochs=null", "steps=1"]
        changes += [f"output={tmp_path / name}", "gradient_accumulation=1", "bf16=false", "evaluation.records=2"]
        changes += [f"model={results['stage2'] if name == 'stage3' else model}"]
        if original.start is not None:
            assert original.start.parent.name == "stage1"
            changes.append(f"start={results['stage1']}")
        if original.data.text_replay is not None:
            changes.append(f"data.text_replay={replay}")
        config = StageConfig.read(path, changes)
        stage = build_stage(config)
        build_trainer(stage, config)
        moving = {part_of(n) for n, p in stage.model.named_parameters() if p.requires_grad}
        assert moving == {part for part, rate in original.learning_rates.items() if rate > 0}
        assert config.trains_language_model_in_full == (name != "stage1")
        results[name] = run_stage(config)
    trained = OmniVMedForConditionalGeneration.from_pretrained(results["stage3"])
    before = OmniVMedForConditionalGeneration.from_pretrained(model)
    assert (trained.lm_head.weight is trained.get_input_embeddings().weight) == tied
    for name, parameter in trained.named_parameters():
        assert parameter.isfinite().all(), name
    assert not torch.equal(trained.lm_head.weight, before.lm_head.weight)
