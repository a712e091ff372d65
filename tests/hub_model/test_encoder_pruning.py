# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Windows, pruning before and after the encoder, and what is recorded of both."""

from __future__ import annotations

import math

import pytest
import torch
from transformers.utils import output_capturing

from benchmarks.encoder import peak_memory
from hub_model import modeling_omniv_med as modeling
from hub_model.modeling_omniv_med import (
    OmniVMedVisionModel,
)
from tests.helpers.encoders import (
    MIXED_GRIDS,
    RAGGED_GRIDS,
    VISION,
    Inputs,
    clips,
    encode,
    encode_windows_one_by_one,
    encoder,
    random_keep_mask,
    token_count,
)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("window", [1, 2, 3, 8])
@pytest.mark.parametrize("backend", ["sdpa", "eager"])
def test_windows_equal_masked_attention_over_all_patches(window, backend):
    model = encoder(temporal_window=window)
    model.set_attn_implementation(backend)
    frames, rows, columns = 7, 4, 6  # the last window of 2 and of 3 frames is ragged
    inputs = clips((frames, rows, columns), merge=1)
    z, y, x = torch.meshgrid(torch.arange(frames), torch.arange(rows), torch.arange(columns), indexing="ij")
    positions = torch.stack([z, y, x], dim=-1).reshape(1, -1, 3)
    window_of_patch = positions[0, :, 0] // window
    mask = torch.zeros(len(window_of_patch), len(window_of_patch))
    mask[window_of_patch[:, None] != window_of_patch] = float("-inf")
    with torch.no_grad():
        embedded = model.embeddings(inputs["pixel_values"])[None]
        hidden = model.encoder(embedded, model.rotary_pos_emb(positions), mask[None, None])
        expected = model.post_layernorm(hidden[0])
    assert torch.allclose(encode(model, inputs), expected, atol=1e-5)


@pytest.mark.parametrize("budget", [1, 30, 100])
@pytest.mark.parametrize("stage", ["language", "encoder"])
def test_the_patch_budget_of_a_step_changes_nothing(budget, stage):
    inputs = clips((5, 4, 6), *MIXED_GRIDS, (3, 8, 8))
    keep_mask = random_keep_mask(inputs)
    whole = encode(encoder(temporal_window=2, prune_stage=stage), inputs, keep_mask=keep_mask)
    stepwise = encode(
        encoder(temporal_window=2, prune_stage=stage, max_patches_per_step=budget), inputs, keep_mask=keep_mask
    )
    assert torch.allclose(stepwise, whole, atol=1e-5)


def test_no_step_takes_more_patches_than_its_budget():
    model, seen = encoder(max_patches_per_step=50), []
    model.embeddings.register_forward_hook(lambda module, inputs, output: seen.append(len(inputs[0])))
    encode(model, clips((9, 4, 4), (2, 2, 2)))
    assert sum(seen) == 9 * 16 + 2 * 4
    assert max(seen) <= 50


def peak_allocation(model: OmniVMedVisionModel, inputs: Inputs) -> int:
    """Most bytes that one pass holds at a time beyond its input and its output, counted by torch's allocator."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as recorded:
        output = encode(model, inputs)
    held, peak = 0, 0
    for event in recorded.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak - output.nbytes


@pytest.mark.parametrize("prune_stage", [None, "language", "encoder"], ids=["whole", "language", "encoder"])
@torch.no_grad()
def test_the_memory_of_a_long_clip_is_that_of_a_short_one_and_the_tokens_it_gives(prune_stage):
    """Of pruned tokens as many are kept as in the short one. The tokens themselves are not counted."""
    model, peaks, most = encoder(), [], 256
    for frames in (64, 256):
        inputs = clips((frames, 8, 8))
        if prune_stage is not None:
            keep_mask = torch.zeros(frames * 16, dtype=torch.bool)
            keep_mask[:: frames * 16 // most] = True
            inputs |= {"keep_mask": keep_mask, "prune_stage": prune_stage}
        output = model(**inputs).last_hidden_state
        assert len(output) == (frames * 16 if prune_stage is None else most)
        peaks.append(peak_memory(lambda inputs=inputs: model(**inputs)) - output.nbytes)
    assert peaks[1] < 1.1 * peaks[0]


def test_a_clip_eight_times_as_long_needs_no_more_memory_for_its_activations():
    model = encoder(max_patches_per_step=256, intermediate_size=256)
    encode(model, clips((2, 4, 4)))  # what is made once is not counted
    short, long = (peak_allocation(model, clips((frames, 8, 8))) for frames in (8, 64))
    assert short > 256 * 256 * 4
    assert long <= 1.2 * short
    unbounded = peak_allocation(encoder(max_patches_per_step=10**6, intermediate_size=256), clips((64, 8, 8)))
    assert unbounded > 4 * short


@pytest.mark.parametrize("window", [1, 2])
def test_pruning_for_the_language_model_leaves_out_tokens_and_changes_no_other(window):
    model, inputs = encoder(temporal_window=window), clips((5, 4, 6), (1, 2, 2))
    keep_mask = random_keep_mask(inputs)
    assert torch.equal(encode(model, inputs, keep_mask=keep_mask), encode(model, inputs)[keep_mask])


def test_pruning_nothing_in_the_encoder_changes_nothing():
    inputs = clips((5, 4, 6), *MIXED_GRIDS)
    keep_all = torch.ones(token_count(inputs), dtype=torch.bool)
    model = encoder(temporal_window=2, prune_stage="encoder")
    assert torch.equal(encode(model, inputs, keep_mask=keep_all), encode(model, inputs))


@pytest.mark.parametrize("merge", [2, [1, 2, 2]], ids=str)
@pytest.mark.parametrize("window", [1, 3])
@pytest.mark.parametrize("backend", ["sdpa", "eager"])
def test_pruning_in_the_encoder_equals_windows_one_by_one(window, backend, merge):
    model, inputs = encoder(temporal_window=window, prune_stage="encoder"), clips(*RAGGED_GRIDS, merge=merge)
    model.set_attn_implementation(backend)
    keep_mask = random_keep_mask(inputs, share=0.4)
    keep_mask[token_count(clips(RAGGED_GRIDS[0])) - 16 * 3 :][:16] = False  # one frame is gone as a whole
    expected = encode_windows_one_by_one(model, inputs, keep_mask)
    assert len(expected) == int(keep_mask.sum())
    assert torch.allclose(encode(model, inputs, keep_mask=keep_mask), expected, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("budget", [1, 16384])
def test_recorded_hidden_states_of_ragged_windows_are_in_patch_order(budget):
    changes = {"temporal_window": 2, "prune_stage": "encoder", "max_patches_per_step": budget}
    model, inputs = encoder(**changes), clips(*RAGGED_GRIDS)
    keep_mask = random_keep_mask(inputs, share=0.4)
    outputs = model(**inputs, keep_mask=keep_mask, output_hidden_states=True)
    assert len(outputs.hidden_states) == VISION["num_hidden_layers"] + 1
    kept_patches = inputs["pixel_values"][keep_mask.repeat_interleave(4)]
    assert torch.allclose(outputs.hidden_states[0], model.embeddings(kept_patches), atol=1e-5)
    last = model.post_layernorm(outputs.hidden_states[-1]).view(-1, 4, VISION["hidden_size"]).mean(1)
    assert torch.allclose(last, outputs.last_hidden_state, atol=1e-5)


@torch.no_grad()
def test_recorded_attentions_of_ragged_windows_are_in_the_order_of_the_clips():
    model, inputs = encoder(prune_stage="encoder"), clips(*RAGGED_GRIDS)
    model.set_attn_implementation("eager")
    keep_mask = random_keep_mask(inputs, share=0.4)
    together = model(**inputs, keep_mask=keep_mask, output_attentions=True).attentions[-1]
    first_window = patch = token = 0
    for grid in RAGGED_GRIDS:
        patches, tokens = math.prod(grid), math.prod(grid) // 4
        alone = clips(grid) | {"pixel_values": inputs["pixel_values"][patch : patch + patches]}
        weights = model(**alone, keep_mask=keep_mask[token : token + tokens], output_attentions=True).attentions[-1]
        length = weights.shape[-1]
        same = together[first_window : first_window + len(weights)]
        assert torch.allclose(same[:, :, :length, :length], weights, atol=1e-5)
        assert torch.allclose(same.sum((2, 3)), weights.sum((2, 3)), atol=1e-4)
        first_window, patch, token = first_window + len(weights), patch + patches, token + tokens
    assert first_window == len(together)


@torch.no_grad()
def test_nothing_is_recorded_unless_asked():
    outputs = encoder()(**clips(*RAGGED_GRIDS))
    assert outputs.hidden_states is None
    assert outputs.attentions is None


@pytest.mark.skipif(not hasattr(output_capturing, "selected_hidden_states"), reason="this transformers records all")
@torch.no_grad()
def test_one_layer_alone_can_be_recorded():
    model, inputs = encoder(temporal_window=2), clips(*RAGGED_GRIDS)
    every, one = (model(**inputs, output_hidden_states=asked).hidden_states for asked in (True, [-1]))
    assert one[:-1] == (None, None)
    assert torch.equal(one[-1], every[-1])


def test_the_ragged_windows_of_these_tests_are_padded():
    model, inputs, masks = encoder(prune_stage="encoder"), clips(*RAGGED_GRIDS), []
    model.encoder.register_forward_hook(lambda module, inputs, output: masks.append(inputs[2]))
    encode(model, inputs, keep_mask=random_keep_mask(inputs, share=0.4))
    assert any(mask is not None for mask in masks)
    assert len(masks) <= modeling.LENGTH_BUCKETS + 1


def test_pruned_patches_are_not_encoded():
    model, inputs = encoder(prune_stage="encoder"), clips((3, 4, 6))
    keep_mask = random_keep_mask(inputs)
    changed = inputs | {"pixel_values": inputs["pixel_values"].clone()}
    changed["pixel_values"][~keep_mask.repeat_interleave(4)] = 1e6
    assert torch.equal(encode(model, changed, keep_mask=keep_mask), encode(model, inputs, keep_mask=keep_mask))


@pytest.mark.parametrize("stage", ["language", "encoder"])
@pytest.mark.parametrize("default", ["language", "encoder"])
def test_the_stage_of_one_call_goes_before_the_configuration_and_does_not_change_it(default, stage):
    inputs = clips(*RAGGED_GRIDS)
    keep_mask = random_keep_mask(inputs, share=0.4)
    model, reference = (encoder(temporal_window=2, prune_stage=one) for one in (default, stage))
    assert torch.equal(
        encode(model, inputs, keep_mask=keep_mask, prune_stage=stage), encode(reference, inputs, keep_mask=keep_mask)
    )
    assert model.config.prune_stage == default
