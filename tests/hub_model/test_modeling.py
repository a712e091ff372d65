# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The whole model on tiny random weights: attention backends, training, generation, configuration."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AttentionInterface,
)

from hub_model import vision_layers_omniv_med as layers
from hub_model.configuration_omniv_med import OmniVMedConfig, OmniVMedVisionConfig
from hub_model.modeling_omniv_med import (
    OmniVMedForConditionalGeneration,
)
from hub_model.processing_omniv_med import OmniVMedProcessor
from tests.helpers.encoders import (
    RAGGED_GRIDS,
    TEXT,
    VISION,
    Inputs,
    clips,
    encode,
    encoder,
    random_keep_mask,
)

pytestmark = pytest.mark.usefixtures("one_thread")

# Attention backends


def test_xformers_without_the_package_says_so(monkeypatch):
    monkeypatch.setattr(layers, "memory_efficient_attention", None)
    model = encoder()
    model.set_attn_implementation("xformers")
    with pytest.raises(ImportError, match="pip install xformers"):
        encode(model, clips((1, 2, 2)))


def test_xformers_gets_its_own_layout(monkeypatch):
    def reference(query, key, value, attn_bias=None, p=0.0, scale=None):
        """What xformers documents: (batch, length, heads, head dim), bias (batch, heads, length, length)."""
        scores = torch.einsum("bqhd,bkhd->bhqk", query, key) * scale
        if attn_bias is not None:
            assert attn_bias.shape == scores.shape
            scores = scores + attn_bias
        return torch.einsum("bhqk,bkhd->bqhd", scores.softmax(-1), value)

    monkeypatch.setattr(layers, "memory_efficient_attention", reference)
    # Other tests load the same file as remote code, and the last copy that was loaded is the one registered.
    monkeypatch.setitem(AttentionInterface._global_mapping, "xformers", layers.xformers_attention_forward)
    model, inputs = encoder(prune_stage="encoder"), clips(*RAGGED_GRIDS)
    keep_mask = random_keep_mask(inputs, share=0.4)
    expected = encode(model, inputs, keep_mask=keep_mask)
    model.set_attn_implementation("xformers")
    assert torch.allclose(encode(model, inputs, keep_mask=keep_mask), expected, atol=1e-5)


@torch.no_grad()
def test_the_backend_of_the_encoder_is_its_own_choice(make_model):
    model = make_model()
    model.set_attn_implementation({"vision_config": "eager"})
    assert model.model.vision_model.config._attn_implementation == "eager"
    assert model.model.language_model.config._attn_implementation == "sdpa"


# Training


def training_batch(processor: OmniVMedProcessor, model: torch.nn.Module, image: np.ndarray) -> Inputs:
    inputs = ask(processor, image)
    labels = inputs["input_ids"].clone()
    labels[labels == model.config.image_token_id] = -100
    return {**inputs, "labels": labels}


@pytest.mark.parametrize("stage", ["language", "encoder"])
def test_gradients_reach_every_part(make_model, processor, picture, stage):
    model = make_model(prune_stage=stage, stem_channels=4).train()
    model(**training_batch(processor, model, picture())).loss.backward()
    for name, parameter in model.named_parameters():
        # Attention weights do not change when all keys move by one vector, so that bias alone has no gradient.
        if "k_proj.bias" not in name:
            assert parameter.grad is not None, name
            assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_gives_the_same_gradients(make_model, processor, picture, reentrant):
    gradients = []
    for checkpointing in (False, True):
        model = make_model(temporal_window=2).train()
        if checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
            model.enable_input_require_grads()
            assert model.model.vision_model.encoder.layers[0].gradient_checkpointing
        model(**training_batch(processor, model, picture())).loss.backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    for name, gradient in gradients[0].items():
        assert gradients[1][name] is not None, name
        assert torch.allclose(gradient, gradients[1][name], atol=1e-5, rtol=1e-4), name


@torch.no_grad()
def test_the_loss_is_the_mean_over_the_labelled_tokens(model, processor, picture):
    batch = training_batch(processor, model, picture())
    output = model(**batch)
    scored = batch["labels"][:, 1:] != -100
    expected = torch.nn.functional.cross_entropy(output.logits[:, :-1][scored], batch["labels"][:, 1:][scored])
    assert torch.allclose(output.loss, expected, atol=1e-5)


# Answers


def ask(processor: OmniVMedProcessor, *media: np.ndarray | str, text: str = "What is it?", **options: Any) -> Inputs:
    """The inputs of one question about images (H, W, 3), films (T, H, W, 3) and volumes (T, H, W)."""
    return processor.apply_chat_template(
        conversation(*media, text=text),
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs=options,
    )


def conversation(*media: np.ndarray, text: str = "What is it?") -> list[dict[str, Any]]:
    parts = []
    for medium in media:
        kind = {2: "image", 3: "image" if medium.shape[-1] == 3 else "volume", 4: "video"}[medium.ndim]
        parts.append({"type": kind, kind: medium})
    return [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]


def generate(model: torch.nn.Module, inputs: Inputs, tokens: int = 6, **options: Any) -> torch.Tensor:
    """Greedy by default, always `tokens` long; (sequences, tokens) without the prompt."""
    sequences = model.generate(**inputs, max_new_tokens=tokens, min_new_tokens=tokens, **options)
    return sequences[:, inputs["input_ids"].shape[1] :]


@pytest.fixture
def questions(picture, film) -> list[list[dict[str, Any]]]:
    """Conversations of every shape: text alone, one image, two media of two kinds, a volume."""
    volume = np.random.default_rng(5).normal(size=(3, 16, 16)).astype(np.float32)
    return [
        conversation(text="What is CT used for?"),
        conversation(picture(1)),
        conversation(picture(2, 16, 24), film(3), text="Which of the two moves, and where?"),
        conversation(volume, text="Why?"),
    ]


def batch(processor: OmniVMedProcessor, conversations: list[list[dict[str, Any]]]) -> Inputs:
    return processor.apply_chat_template(
        conversations, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )


def test_answers_depend_on_the_picture(model, processor, picture):
    # What all the tests below rest on.
    answers = {tuple(generate(model, ask(processor, picture(seed)))[0].tolist()) for seed in range(4)}
    assert len(answers) > 1


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}], ids=["greedy", "beams"])
@pytest.mark.parametrize("stage", ["language", "encoder"])
def test_a_mixed_batch_is_answered_as_each_alone(make_model, processor, questions, stage, options):
    model = make_model(prune_stage=stage)
    together = batch(processor, questions)
    assert not together["keep_mask"].all()
    assert (together["attention_mask"][:, 0] == 0).any()
    answers = generate(model, together, **options)
    for question, answer in zip(questions, answers, strict=True):
        assert torch.equal(generate(model, batch(processor, [question]), **options)[0], answer)


@pytest.mark.parametrize(
    "options",
    [{}, {"num_beams": 3}, {"use_cache": False}, {"cache_implementation": "static"}, {"prefill_chunk_size": 5}],
    ids=["greedy", "beams", "no cache", "static cache", "prefill in chunks"],
)
@pytest.mark.parametrize("stage", ["language", "encoder"])
def test_generate_takes_the_stage(make_model, processor, questions, stage, options):
    together = batch(processor, questions)
    models = {default: make_model(prune_stage=default, temporal_window=4) for default in ("language", "encoder")}
    other = next(model for default, model in models.items() if default != stage)
    assert torch.equal(
        generate(other, together, prune_stage=stage, **options), generate(models[stage], together, **options)
    )


@torch.no_grad()
def test_the_stage_reaches_the_encoder_through_the_whole_model(make_model, processor, film):
    inputs = ask(processor, film(), film(1))
    assert not inputs["keep_mask"].all()
    model, reference = (make_model(prune_stage=stage, temporal_window=4) for stage in ("language", "encoder"))
    pruned = model(**inputs, prune_stage="encoder")
    assert torch.equal(pruned.logits, reference(**inputs).logits)
    assert not torch.allclose(pruned.image_hidden_states, model(**inputs).image_hidden_states, atol=1e-3)


def test_an_unknown_stage_is_refused(model, processor, picture):
    with pytest.raises(ValueError, match=r"prune_stage must be one of .*, not 'late'"):
        encode(encoder(), clips((1, 2, 2)), prune_stage="late")
    with pytest.raises(ValueError, match=r"prune_stage must be one of .*, not 'late'"):
        generate(model, ask(processor, picture()), prune_stage="late")


def test_beams_equal_a_search_by_hand(model, processor, picture):
    inputs = ask(processor, picture(1))
    found = generate(model, inputs, tokens=2, num_beams=4, length_penalty=0.0)
    candidates = []
    with torch.no_grad():
        first = model(**inputs).logits[0, -1].log_softmax(-1)
        first[model.generation_config.eos_token_id] = float("-inf")
        for token in first.topk(4).indices:
            ids = torch.cat([inputs["input_ids"], token.view(1, 1)], dim=1)
            longer = {**inputs, "input_ids": ids, "attention_mask": torch.ones_like(ids)}
            second = model(**longer).logits[0, -1].log_softmax(-1)
            second[model.generation_config.eos_token_id] = float("-inf")
            best = second.argmax()
            candidates.append((float(first[token] + second[best]), [int(token), int(best)]))
    assert found[0].tolist() == max(candidates)[1]


def test_several_sequences_for_each_question(model, processor, questions):
    together = batch(processor, questions)
    greedy = generate(model, together)
    drawn = generate(model, together, do_sample=True, top_k=1, num_return_sequences=2)
    assert torch.equal(drawn, greedy.repeat_interleave(2, dim=0))
    beams = generate(model, together, num_beams=3, num_return_sequences=3)
    assert torch.equal(beams[::3], generate(model, together, num_beams=3))


def test_a_static_cache_gives_the_same_answers(model, processor, questions):
    together = batch(processor, questions)
    assert torch.equal(generate(model, together, cache_implementation="static"), generate(model, together))


def test_no_cache_gives_the_same_answers(model, processor, questions):
    together = batch(processor, questions)
    assert torch.equal(generate(model, together, use_cache=False), generate(model, together))


@pytest.mark.parametrize("stage", ["language", "encoder"])
def test_a_further_question_needs_only_the_cache(make_model, processor, picture, film, tokenizer, stage):
    model, inputs = make_model(temporal_window=4), ask(processor, picture(1), film(2))
    first = model.generate(
        **inputs, prune_stage=stage, max_new_tokens=4, min_new_tokens=4, return_dict_in_generate=True
    )
    more = tokenizer("<|im_end|>\n<|im_start|>user\nAnd why?<|im_end|>\n<|im_start|>assistant\n", return_tensors="pt")
    ids = torch.cat([first.sequences, more["input_ids"]], dim=1)
    text = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    recomputed = generate(model, {**inputs, **text}, prune_stage=stage)
    continued = generate(model, text, prune_stage=stage, past_key_values=first.past_key_values)
    assert torch.equal(continued, recomputed)


@torch.no_grad()
def test_embeddings_may_stand_for_ids(model, processor, picture):
    inputs = ask(processor, picture())
    visual = {name: value for name, value in inputs.items() if name != "input_ids"}
    embedded = model(inputs_embeds=model.get_input_embeddings()(inputs["input_ids"]), **visual)
    assert torch.equal(embedded.logits, model(**inputs).logits)


@torch.no_grad()
@pytest.mark.parametrize("change", [-1, 1])
def test_placeholders_and_visual_tokens_must_agree(model, processor, picture, change):
    inputs = ask(processor, picture())
    ids = inputs["input_ids"].clone()
    placeholders = (ids == model.config.image_token_id).nonzero()[:, 1]
    ids[0, placeholders[0] if change < 0 else -1] = 40 if change < 0 else model.config.image_token_id
    count = len(placeholders)
    with pytest.raises(ValueError, match=f"{count + change} visual placeholders, but the media gave {count} tokens"):
        model(**{**inputs, "input_ids": ids})


@torch.no_grad()
def test_features_come_by_clip(model, processor, picture, film):
    inputs = ask(processor, picture(), film())
    names = ("pixel_values", "grid_thw", "merge_sizes", "keep_mask", "frame_positions", "patch_spacing")
    features = model.get_image_features(**{name: inputs[name] for name in names})
    tokens = (inputs["grid_thw"].prod(1) // 4).tolist()
    kept = [int(mask.sum()) for mask in inputs["keep_mask"].split(tokens)]
    assert [len(part) for part in features.pooler_output] == kept
    assert torch.allclose(model(**inputs).image_hidden_states, torch.cat(features.pooler_output), atol=1e-6)


# Configuration


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"position_unit": "mm"}, "position_unit"),
        ({"prune_stage": "late"}, "prune_stage"),
        ({"hidden_size": 36}, "4"),
        ({"temporal_window": 0}, "temporal_window"),
        ({"reference_length": 0.0}, "reference_length"),
        ({"max_patches_per_step": 0}, "max_patches_per_step"),
    ],
)
def test_an_impossible_configuration_is_told(changes, word):
    with pytest.raises(ValueError, match=word):
        OmniVMedVisionConfig(**(VISION | changes))


def test_a_configuration_survives_its_file(tmp_path):
    config = OmniVMedConfig(text_config=TEXT, vision_config=VISION | {"temporal_window": 3}, image_token_id=7)
    config.save_pretrained(tmp_path)
    loaded = OmniVMedConfig.from_pretrained(tmp_path)
    assert loaded.vision_config.to_dict() == config.vision_config.to_dict()
    assert loaded.text_config.to_dict() == config.text_config.to_dict()
    assert loaded.image_token_id == 7


def test_tied_embeddings_are_taken_over_from_the_language_model():
    for tied in (False, True):
        config = OmniVMedConfig(text_config=TEXT | {"tie_word_embeddings": tied}, vision_config=VISION)
        model = OmniVMedForConditionalGeneration(config)
        assert (model.lm_head.weight is model.get_input_embeddings().weight) == tied


def test_the_encoder_runs_in_half_precision():
    model, inputs = encoder(temporal_window=2, prune_stage="encoder").to(torch.bfloat16), clips(*RAGGED_GRIDS)
    encoded = encode(model, inputs, keep_mask=random_keep_mask(inputs, share=0.4))
    assert encoded.dtype == torch.bfloat16
    assert encoded.isfinite().all()
