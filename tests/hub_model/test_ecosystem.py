# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The model with what surrounds it: precisions, backends, torch.compile, device maps, FSDP, LoRA on any part."""

from __future__ import annotations

import shutil
from typing import Any

import pytest
import torch
from accelerate import FullyShardedDataParallelPlugin
from peft import LoraConfig, get_peft_model
from transformers.utils import is_flash_attn_2_available

from hub_model.modeling_omniv_med import OmniVMedForConditionalGeneration
from hub_model.vision_layers_omniv_med import OmniVMedVisionEncoderLayer

pytestmark = pytest.mark.usefixtures("one_thread")


ROUNDING = 1e-4
"""Of logits up to 5; two orders of arithmetic, such as the encoder's fused and plain GELU, differ by 2e-5 here."""


@pytest.fixture(scope="module")
def inputs(processor, picture, film) -> dict[str, Any]:
    """A padded batch: one picture; a film with pruned tokens and a picture."""
    conversations = []
    for parts in (
        [{"type": "image", "image": picture(1)}],
        [{"type": "video", "video": film(2)}, {"type": "image", "image": picture(3)}],
    ):
        conversations.append([{"role": "user", "content": [*parts, {"type": "text", "text": "What is it?"}]}])
    encoded = processor.apply_chat_template(
        conversations, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    assert not encoded["keep_mask"].all()
    assert (encoded["attention_mask"] == 0).any()
    return dict(encoded)


@torch.no_grad()
def logits(model: torch.nn.Module, inputs: dict[str, Any]) -> torch.Tensor:
    """Logits (tokens, vocabulary) where there is no padding, float32."""
    return model(**inputs).logits[inputs["attention_mask"].bool()].float()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.1), (torch.float16, 0.02)], ids=str)
def test_half_precision_stays_near_single_precision(make_model, inputs, dtype, tolerance):
    exact = logits(make_model(prune_stage="encoder"), inputs)
    half = logits(make_model(prune_stage="encoder").to(dtype), inputs)
    assert half.isfinite().all()
    assert (half - exact).abs().mean() <= tolerance * exact.abs().mean()


def test_rotary_angles_are_single_precision_in_a_half_precision_model(make_model):
    rotary = make_model().to(torch.bfloat16).model.vision_model.rotary_pos_emb
    assert rotary(torch.tensor([[300.0, 7.0, 1.0]]))[0].dtype == torch.float32


def test_eager_attention_equals_sdpa(make_model, inputs):
    model = make_model(prune_stage="encoder")
    expected = logits(model, inputs)
    model.set_attn_implementation("eager")
    assert torch.allclose(logits(model, inputs), expected, atol=ROUNDING)


@pytest.mark.skipif(is_flash_attn_2_available(), reason="flash-attn is installed")
def test_flash_attention_without_the_package_names_it(make_model, tmp_path):
    make_model().save_pretrained(tmp_path)
    with pytest.raises(ImportError, match=r"flash[-_]attn"):
        OmniVMedForConditionalGeneration.from_pretrained(
            tmp_path, attn_implementation={"vision_config": "flash_attention_2"}
        )


@pytest.mark.parametrize(
    "backend",
    ["eager", pytest.param("aot_eager", marks=pytest.mark.slow), pytest.param("inductor", marks=pytest.mark.slow)],
)
@pytest.mark.parametrize("part", ["encoder", "language_model"])
def test_compiled_parts_give_the_same_logits_without_graph_breaks(make_model, inputs, part, backend):
    model = make_model(temporal_window=2, prune_stage="encoder")
    expected = logits(model, inputs)
    if backend == "inductor" and shutil.which("g++") is None:
        pytest.skip("inductor compiles C++, and g++ is not installed")
    # The parts that are worth compiling; what surrounds them (window batches, positions) is bookkeeping on sizes.
    compiled = model.model.vision_model.encoder if part == "encoder" else model.model.language_model
    torch.compiler.reset()
    compiled.compile(backend=backend, fullgraph=part == "encoder", dynamic=True)
    assert torch.allclose(logits(model, inputs), expected, atol=ROUNDING)
    torch.compiler.reset()


def test_a_checkpoint_loads_with_an_automatic_device_map(make_model, inputs, tmp_path):
    model = make_model()
    model.save_pretrained(tmp_path)
    loaded = OmniVMedForConditionalGeneration.from_pretrained(tmp_path, device_map="auto")
    assert torch.equal(logits(loaded.eval(), inputs), logits(model, inputs))


def test_layers_may_be_offloaded_to_disk(make_model, inputs, tmp_path):
    model = make_model()
    model.save_pretrained(tmp_path / "model")
    places = {
        "model.vision_model": "disk",
        "model.projector": "cpu",
        "model.language_model": "cpu",
        "lm_head": "cpu",
    }
    loaded = OmniVMedForConditionalGeneration.from_pretrained(
        tmp_path / "model", device_map=places, offload_folder=tmp_path / "offload"
    )
    assert next(loaded.model.vision_model.parameters()).device.type == "meta"
    assert torch.allclose(logits(loaded.eval(), inputs), logits(model, inputs), atol=ROUNDING)


def test_fully_sharded_training_wraps_the_layers_of_both_transformers(make_model):
    model = make_model()
    names = set(model._no_split_modules)
    assert names == {"OmniVMedVisionEncoderLayer", "LlamaDecoderLayer"}
    plugin = FullyShardedDataParallelPlugin(
        auto_wrap_policy="transformer_based_wrap", transformer_cls_names_to_wrap=sorted(names)
    )
    plugin.set_auto_wrap_policy(model)
    wrapped = plugin.auto_wrap_policy.keywords["transformer_layer_cls"]
    assert OmniVMedVisionEncoderLayer in wrapped
    assert type(model.model.language_model.layers[0]) in wrapped


@pytest.mark.parametrize(
    ("targets", "part"),
    [
        (r"model\.vision_model\..*(q_proj|v_proj|fc1)", "vision_model"),
        (r"model\.projector\..*", "projector"),
        (r"model\.language_model\..*(q_proj|v_proj)", "language_model"),
        ("all-linear", ""),
    ],
    ids=["encoder", "projector", "language model", "all"],
)
def test_lora_trains_any_part_and_merges(make_model, inputs, targets, part):
    model = make_model()
    module_names = {name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    if part == "projector":
        targets = [name for name in module_names if "projector" in name]
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=targets, init_lora_weights=False))
    labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)
    adapted.train()
    adapted(**inputs, labels=labels).loss.backward()
    trained = {name for name, parameter in adapted.named_parameters() if parameter.grad is not None}
    assert trained
    assert all("lora_" in name and part in name for name in trained)
    adapted.eval()
    expected = logits(adapted, inputs)
    torch.testing.assert_close(logits(adapted.merge_and_unload(), inputs), expected, atol=5e-4, rtol=0)
