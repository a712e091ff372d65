# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Assembly on tiny language models: new embeddings, trained tensors, LoRA, the written folder, when it is skipped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from hub_model.configuration_omniv_med import OmniVMedVisionConfig
from hub_model.modeling_omniv_med import OmniVMedForConditionalGeneration
from hub_model.processing_omniv_med import OmniVMedProcessor
from hub_model.prompt_omniv_med import MEDIA_TOKEN
from tests.helpers.paths import HUB_MODEL
from tests.helpers.tiny_models import TINY_TEXT, TINY_VISION
from train.checkpoints import assemble as assembly
from train.checkpoints.assemble import (
    ADDED_TOKENS,
    AUTO_MAP,
    add_media_tokens,
    assemble,
    build_model,
    write_configuration,
)
from train.checkpoints.trained_tensors import (
    ADDED_TOKEN_EMBEDDINGS,
    TRAINED_PARTS,
    load_parts,
    merge_lora,
    read_trained_tensors,
    save_trained_tensors,
)

pytestmark = pytest.mark.usefixtures("one_thread")

KINDS = ("llama", "qwen2", "qwen3")
WORDS = 300
MEDIA_TOKEN_ID = WORDS + 1


def language_model(kind: str = "llama", vocabulary: int = WORDS, tied: bool = True) -> PreTrainedModel:
    """A tiny random causal language model."""
    torch.manual_seed(1)
    config = AutoConfig.for_model(kind, vocab_size=vocabulary, head_dim=8, tie_word_embeddings=tied, **TINY_TEXT)
    return AutoModelForCausalLM.from_config(config).eval()


def whole_model(kind: str = "llama", tied: bool = True) -> OmniVMedForConditionalGeneration:
    """A tiny model with the three added tokens."""
    torch.manual_seed(2)
    return build_model(language_model(kind, WORDS + 3, tied), OmniVMedVisionConfig(**TINY_VISION), MEDIA_TOKEN_ID)


@pytest.fixture
def plain_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer of the language model, before the vision tokens are added."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(HUB_MODEL)
    settings = json.loads(tokenizer.backend_tokenizer.to_str())
    settings["added_tokens"] = [token for token in settings["added_tokens"] if token["content"] not in ADDED_TOKENS]
    backend = type(tokenizer.backend_tokenizer).from_str(json.dumps(settings))
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<|im_start|>", eos_token="<|im_end|>", pad_token="<|im_end|>"
    )


# Building


@torch.no_grad()
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_language_model_stays_what_it_was(kind, tied):
    words = torch.arange(10)[None]
    alone = language_model(kind, WORDS + 3, tied)
    model = whole_model(kind, tied).eval()
    assert torch.allclose(model(words).logits, alone(words).logits, atol=1e-5)
    assert (model.lm_head.weight is model.get_input_embeddings().weight) == tied
    assert model.config.image_token_id == MEDIA_TOKEN_ID
    assert model.dtype == torch.float32


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_a_built_model_sees(kind):
    model = whole_model(kind)
    ids = torch.tensor([[1, *[MEDIA_TOKEN_ID] * 2, 2]])
    grid = {"grid_thw": torch.tensor([[1, 2, 4]]), "merge_sizes": torch.tensor([2])}
    first, second = (model(ids, pixel_values=torch.randn(8, 48), **grid).logits for _ in range(2))
    assert first.shape == (1, 4, WORDS + 3)
    assert (first - second).abs().max() > 1e-3


@torch.no_grad()
def test_visual_tokens_start_as_loud_as_words():
    model = whole_model()
    pixels = torch.randn(4 * 64, 48)
    features = model.get_image_features(pixels, torch.tensor([[4, 8, 8]]), torch.tensor([2]))
    embedding_norm = (
        features.pooler_output[0].square().mean().sqrt() / model.get_input_embeddings().weight.square().mean().sqrt()
    )
    assert 1 / 3 < float(embedding_norm) < 3


def test_new_tokens_start_at_the_mean_of_the_words(plain_tokenizer):
    words = len(plain_tokenizer)
    model = language_model(vocabulary=words)
    before = model.get_input_embeddings().weight.detach().clone()
    add_media_tokens(model, plain_tokenizer)
    after = model.get_input_embeddings().weight
    assert plain_tokenizer.convert_tokens_to_ids(list(ADDED_TOKENS)) == [words, words + 1, words + 2]
    assert after.shape[0] == words + 3 == model.config.vocab_size
    assert torch.equal(after[:words], before)
    assert torch.allclose(after[words:], before.mean(0).expand(3, -1), atol=1e-7)
    assert plain_tokenizer(f"a{MEDIA_TOKEN}{MEDIA_TOKEN}b", add_special_tokens=False).input_ids[1:3] == [words + 1] * 2


# Trained tensors


def trained_tensors(model: OmniVMedForConditionalGeneration) -> tuple[dict, dict, torch.Tensor]:
    """Random parts, LoRA factors of two modules, and new rows, such as float16 keeps them."""
    torch.manual_seed(4)
    state = {name: tensor for name, tensor in model.state_dict().items() if name.startswith(TRAINED_PARTS)}
    parts = {name: torch.randn_like(tensor).half().float() for name, tensor in state.items()}
    lora = {}
    for name in ("self_attn.q_proj", "self_attn.v_proj"):
        module = f"model.language_model.layers.1.{name}"
        outputs, inputs = model.get_submodule(module).weight.shape
        lora[f"{module}.lora_A"] = torch.randn(4, inputs).half().float()
        lora[f"{module}.lora_B"] = torch.randn(outputs, 4).half().float()
    return parts, lora, torch.randn(3, 32).half().float()


def test_trained_tensors_go_to_a_file_and_into_a_model(tmp_path):
    model = whole_model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    parts, lora, rows = trained_tensors(model)
    save_trained_tensors(tmp_path / "new" / "trained.safetensors", parts, lora, rows, scaling=0.5)
    tensors, scaling = read_trained_tensors(tmp_path / "new" / "trained.safetensors")
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["trained.safetensors"]
    assert scaling == 0.5
    load_parts(model, tensors)
    merge_lora(model, tensors, scaling)
    embeddings = ("lm_head.weight", "model.language_model.embed_tokens.weight")
    for name, tensor in model.state_dict().items():
        module = name.removesuffix(".weight")
        if name in parts:
            expected = parts[name]
        elif f"{module}.lora_A" in lora:
            expected = before[name] + 0.5 * lora[f"{module}.lora_B"] @ lora[f"{module}.lora_A"]
        elif name in embeddings:
            expected = torch.cat([before[name][:-3], rows])
        else:
            expected = before[name]
        assert torch.allclose(tensor, expected, atol=1e-5), name
    assert tensors[ADDED_TOKEN_EMBEDDINGS].dtype == torch.float32


def test_merging_equals_peft(tmp_path):
    torch.manual_seed(5)
    config = LoraConfig(r=4, lora_alpha=6, target_modules=r"model\.language_model\..*\.(q_proj|v_proj)")
    adapted = get_peft_model(whole_model(), config)
    lora = {}
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn_like(parameter).half().float()
            lora[name.removeprefix("base_model.model.").removesuffix(".default.weight")] = parameter.data
    assert len(lora) == 8
    expected = {name: tensor.clone() for name, tensor in adapted.merge_and_unload().state_dict().items()}
    model = whole_model()
    parts, _, _ = trained_tensors(model)
    rows = model.get_input_embeddings().weight[-3:].half().float()
    save_trained_tensors(tmp_path / "trained.safetensors", parts, lora, rows, scaling=1.5)
    merge_lora(model, *read_trained_tensors(tmp_path / "trained.safetensors"))
    assert all(torch.allclose(tensor, expected[name], atol=1e-5) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("change", [{"hidden_size": 64}, {"num_hidden_layers": 3}, {"stem_channels": 4}], ids=str)
def test_tensors_of_another_architecture_are_refused(change):
    parts, lora, rows = trained_tensors(whole_model())
    other = build_model(language_model(), OmniVMedVisionConfig(**(TINY_VISION | change)), MEDIA_TOKEN_ID)
    before = {name: tensor.clone() for name, tensor in other.state_dict().items()}
    with pytest.raises(ValueError, match="another architecture"):
        load_parts(other, parts | lora | {ADDED_TOKEN_EMBEDDINGS: rows})
    assert all(torch.equal(tensor, before[name]) for name, tensor in other.state_dict().items())


# The written folder


def test_the_folder_names_every_auto_class_and_holds_all_code(tmp_path, model, tokenizer, processor):
    write_configuration(tmp_path, model, tokenizer, {"patch_size": 4, "max_frames": 9})
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["auto_map"] == AUTO_MAP
    assert config["architectures"] == ["OmniVMedForConditionalGeneration"]
    for name in ("processor_config.json", "tokenizer_config.json"):
        assert json.loads((tmp_path / name).read_text())["auto_map"] == {"AutoProcessor": AUTO_MAP["AutoProcessor"]}
    for file in HUB_MODEL.glob("*_omniv_med.py"):
        assert (tmp_path / file.name).read_bytes() == file.read_bytes()
    loaded = OmniVMedProcessor.from_pretrained(tmp_path)
    assert (loaded.patch_size, loaded.max_frames) == (4, 9)
    assert loaded.chat_template == processor.chat_template


def test_the_committed_configuration_fits_the_committed_code():
    config = json.loads((HUB_MODEL / "config.json").read_text())
    assert config["auto_map"] == AUTO_MAP
    for module in {entry.split(".")[0] for entry in AUTO_MAP.values()}:
        assert (HUB_MODEL / f"{module}.py").exists()
    for name, value in assembly.NANO_VISION.items():
        assert config["vision_config"][name] == value
    tensors, _ = read_trained_tensors(assembly.TRAINED)
    convolutional = any(name.startswith(assembly.CONVOLUTIONAL) for name in tensors)
    assert config["vision_config"].get("convolutional_features", False) is convolutional
    settings = json.loads((HUB_MODEL / "processor_config.json").read_text())
    sizes = assembly.NANO_OF_REAL_PICTURES if convolutional else assembly.NANO_PROCESSOR
    for name, value in sizes.items():
        assert settings[name] == value


# When it is skipped


@pytest.fixture
def nano(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plain_tokenizer: PreTrainedTokenizerFast) -> list[str]:
    """Puts a tiny language model in the place of the real one and a small encoder in front; counts the loads."""
    loads = []

    def load(cache: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
        loads.append(str(cache))
        vocabulary = PreTrainedTokenizerFast(
            tokenizer_object=plain_tokenizer.backend_tokenizer,
            bos_token="<|im_start|>",
            eos_token="<|im_end|>",
            pad_token="<|im_end|>",
        )
        return language_model(vocabulary=49152), vocabulary

    monkeypatch.setattr(assembly, "load_language_model", load)
    monkeypatch.setattr(assembly, "NANO_VISION", TINY_VISION)
    monkeypatch.setattr(assembly, "TRAINED", tmp_path / "trained.safetensors")
    return loads


def test_a_folder_that_is_up_to_date_is_left_alone(tmp_path, nano):
    folder = tmp_path / "out"
    assert assemble(folder)
    weights = (folder / "model.safetensors").read_bytes()
    assert not assemble(folder)
    assert len(nano) == 1
    model = OmniVMedForConditionalGeneration.from_pretrained(folder)
    assert len(model.get_input_embeddings().weight) == 49155
    assert not [file for file in folder.iterdir() if file.is_dir()]

    (folder / "model.safetensors").unlink()
    assert assemble(folder)
    assert (folder / "model.safetensors").read_bytes() == weights


def test_what_the_weights_depend_on_makes_them_anew(tmp_path, nano, monkeypatch):
    folder = tmp_path / "out"
    assemble(folder)

    torch.manual_seed(0)
    model, _ = assembly.fresh_nano()
    parts, lora, rows = trained_tensors(model)
    save_trained_tensors(assembly.TRAINED, parts, lora, rows, scaling=1.0)
    assert assemble(folder)
    trained = OmniVMedForConditionalGeneration.from_pretrained(folder)
    assert torch.equal(trained.get_input_embeddings().weight[-3:], rows)
    assert torch.equal(trained.model.projector.readout[0].weight, parts["model.projector.readout.0.weight"])
    assert not assemble(folder)

    with (folder / "model.safetensors").open("ab") as file:
        file.write(b"damage")
    assert assemble(folder)

    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    assert assemble(folder)

    monkeypatch.setattr(assembly, "SMOLLM2", type("Release", (), {"gguf_sha256": "0" * 64}))
    assert assemble(folder)
    assert not assemble(folder)


def test_trained_tensors_of_another_shape_of_the_nano_bring_their_configuration(tmp_path, nano, monkeypatch):
    folder = tmp_path / "out"
    monkeypatch.setattr(assembly, "NANO_VISION", TINY_VISION | {"patch_size": 16, "num_channels": 3})
    for convolutional, context, tokens in ((True, False, 64), (True, True, 64), (False, False, 16)):
        torch.manual_seed(0)
        model, _ = assembly.fresh_nano(projector_context=context, convolutional_features=convolutional)
        parts, lora, rows = trained_tensors(model)
        save_trained_tensors(assembly.TRAINED, parts, lora, rows, scaling=1.0)
        assert assemble(folder)
        loaded = OmniVMedForConditionalGeneration.from_pretrained(folder)
        assert (loaded.model.vision_model.convolutional_features is not None) is convolutional
        assert (loaded.model.projector.context is not None) is context
        assert OmniVMedProcessor.from_pretrained(folder).max_frame_tokens == tokens
        assert not assemble(folder)


def test_an_interrupted_assembly_is_done_again(tmp_path, nano, monkeypatch):
    folder = tmp_path / "out"

    def stop(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as interrupted:
        interrupted.setattr(OmniVMedForConditionalGeneration, "save_pretrained", stop)
        with pytest.raises(KeyboardInterrupt):
            assemble(folder)
    assert not (folder / "model.safetensors").exists()
    assert assemble(folder)
    assert not assemble(folder)
