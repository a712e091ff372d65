# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The model on tiny random weights: parity with VideoLlama3, the third axis, windows, pruning, training, generation."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AttentionInterface,
    VideoLlama3Config,
    VideoLlama3ForConditionalGeneration,
    VideoLlama3VisionConfig,
    VideoLlama3VisionModel,
)
from transformers.utils import output_capturing

from hub_model import modeling_omniv_med as modeling
from hub_model.configuration_omniv_med import OmniVMedConfig, OmniVMedVisionConfig
from hub_model.modeling_omniv_med import (
    OmniVMedForConditionalGeneration,
    OmniVMedVisionModel,
    OmniVMedVisionRotaryEmbedding,
    patch_positions,
)
from hub_model.processing_omniv_med import OmniVMedProcessor

pytestmark = pytest.mark.usefixtures("one_thread")

PATCH = 4
VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "patch_size": PATCH,
    "initializer_range": 0.2,
}
MEDIA_TOKEN_ID, VIDEO_TOKEN_ID = 5, 6
TEXT = {
    "model_type": "qwen2",
    "vocab_size": 60,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.2,
}
MIXED_GRIDS = ((1, 4, 6), (1, 2, 2), (1, 6, 4), (1, 4, 6))
Inputs = dict[str, torch.Tensor]


def clips(*grids: tuple[int, int, int], merge: int | list[int] = 2, seed: int = 0) -> Inputs:
    """Random patches of clips with these grids (frames, rows, columns)."""
    grid_thw = torch.tensor(grids)
    pixels = torch.randn(int(grid_thw.prod(1).sum()), 3 * PATCH**2, generator=torch.Generator().manual_seed(seed))
    merges = torch.tensor([merge] * len(grids) if isinstance(merge, int) else merge)
    return {"pixel_values": pixels, "grid_thw": grid_thw, "merge_sizes": merges}


def token_count(inputs: Inputs) -> int:
    return int((inputs["grid_thw"].prod(1) // inputs["merge_sizes"] ** 2).sum())


def random_keep_mask(inputs: Inputs, share: float = 0.5, seed: int = 1) -> torch.Tensor:
    return torch.rand(token_count(inputs), generator=torch.Generator().manual_seed(seed)) < share


def randomise(model: torch.nn.Module) -> None:
    """Moves every parameter, biases and norms too, so that none can be mixed up unseen."""
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)


def encoder(**changes: Any) -> OmniVMedVisionModel:
    """A tiny seeded encoder; equal sizes have equal weights, whatever else changes."""
    torch.manual_seed(0)
    model = OmniVMedVisionModel._from_config(OmniVMedVisionConfig(**(VISION | changes)))
    randomise(model)
    return model.eval()


@torch.no_grad()
def encode(model: OmniVMedVisionModel, inputs: Inputs, **more: torch.Tensor) -> torch.Tensor:
    return model(**inputs, **more).last_hidden_state


@torch.no_grad()
def encode_windows_one_by_one(
    model: OmniVMedVisionModel, inputs: Inputs, keep_mask: torch.Tensor | None = None
) -> torch.Tensor:
    """The specification: each window by itself, z counted through the whole clip, pruned patches taken out."""
    window, tokens, patch_start, token_start = model.config.temporal_window, [], 0, 0
    for (frames, rows, columns), merge in zip(inputs["grid_thw"].tolist(), inputs["merge_sizes"].tolist(), strict=True):
        for first in range(0, frames, window):
            count = min(window, frames - first)
            patches = inputs["pixel_values"][patch_start : patch_start + count * rows * columns]
            z, y, x = torch.meshgrid(
                torch.arange(first, first + count), torch.arange(rows), torch.arange(columns), indexing="ij"
            )
            positions = torch.stack([z, y, x], dim=-1).reshape(count, rows // merge, merge, columns // merge, merge, 3)
            positions = positions.transpose(2, 3).reshape(-1, 3)
            per_window = len(patches) // merge**2
            if keep_mask is not None:
                kept = keep_mask[token_start : token_start + per_window].repeat_interleave(merge**2)
                patches, positions = patches[kept], positions[kept]
            if len(patches):
                hidden = model.encoder(model.embeddings(patches)[None], model.rotary_pos_emb(positions[None]))
                tokens.append(model.post_layernorm(hidden[0]).view(-1, merge**2, hidden.shape[-1]).mean(1))
            patch_start += count * rows * columns
            token_start += per_window
    return torch.cat(tokens)


# Parity with VideoLlama3


@pytest.fixture(scope="module")
def their_encoder() -> VideoLlama3VisionModel:
    torch.manual_seed(0)
    model = VideoLlama3VisionModel._from_config(VideoLlama3VisionConfig(**VISION))
    randomise(model)
    return model.eval()


@pytest.mark.parametrize("merge", [1, 2, [2, 1, 2, 1]], ids=str)
@pytest.mark.parametrize("backend", ["sdpa", "eager"])
def test_the_encoder_equals_video_llama_3_on_images_of_different_grids(their_encoder, merge, backend):
    ours = OmniVMedVisionModel._from_config(OmniVMedVisionConfig(**VISION), attn_implementation=backend).eval()
    ours.load_state_dict(their_encoder.state_dict())
    inputs = clips(*MIXED_GRIDS, merge=merge)
    assert (encode(ours, inputs) - encode(their_encoder, inputs)).abs().max() <= 1e-5


def test_rotary_angles_equal_those_of_video_llama_3(their_encoder):
    seen = []
    handle = their_encoder.rotary_pos_emb.register_forward_hook(lambda module, inputs, output: seen.append(output))
    inputs = clips(*MIXED_GRIDS)
    encode(their_encoder, inputs)
    handle.remove()
    config = OmniVMedVisionConfig(**VISION)
    positions = patch_positions(inputs["grid_thw"], inputs["merge_sizes"], config)
    for ours, theirs in zip(OmniVMedVisionRotaryEmbedding(config)(positions), seen[0], strict=True):
        assert ours.shape == (len(inputs["pixel_values"]), 16)
        assert (ours - theirs).abs().max() <= 1e-6


@pytest.fixture(scope="module")
def model_pair() -> tuple[OmniVMedForConditionalGeneration, VideoLlama3ForConditionalGeneration]:
    """Our model and VideoLlama3 with the same weights; load_state_dict is strict."""
    torch.manual_seed(0)
    theirs = VideoLlama3ForConditionalGeneration(
        VideoLlama3Config(
            text_config=TEXT, vision_config=VISION, image_token_id=MEDIA_TOKEN_ID, video_token_id=VIDEO_TOKEN_ID
        )
    ).eval()
    randomise(theirs)
    ours = OmniVMedForConditionalGeneration(
        OmniVMedConfig(text_config=TEXT, vision_config=VISION, image_token_id=MEDIA_TOKEN_ID)
    ).eval()
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def prompt_around(*runs: int) -> torch.Tensor:
    """Token ids (1, length) with text before, between and after runs of media tokens."""
    ids = [10]
    for number, run in enumerate(runs):
        ids += [20 + number] + [MEDIA_TOKEN_ID] * run + [30 + number]
    return torch.tensor([[*ids, 11, 12]])


@torch.no_grad()
@pytest.mark.parametrize("grids", [MIXED_GRIDS[:1], MIXED_GRIDS], ids=["one image", "several images"])
def test_logits_equal_video_llama_3_on_images(model_pair, grids):
    ours, theirs = model_pair
    inputs, ids = clips(*grids), prompt_around(*(h * w // 4 for _, h, w in grids))
    expected = theirs(
        ids,
        pixel_values=inputs["pixel_values"],
        image_grid_thw=inputs["grid_thw"],
        image_merge_sizes=inputs["merge_sizes"],
    ).logits
    assert (ours(ids, **inputs).logits - expected).abs().max() <= 1e-4


@torch.no_grad()
def test_logits_equal_video_llama_3_on_a_video_with_pruned_tokens(model_pair):
    ours, theirs = model_pair
    inputs = clips((3, 4, 6))
    keep_mask = random_keep_mask(inputs)
    for mask in (None, keep_mask):
        ids = prompt_around(token_count(inputs) if mask is None else int(mask.sum()))
        expected = theirs(
            ids.masked_fill(ids == MEDIA_TOKEN_ID, VIDEO_TOKEN_ID),
            pixel_values_videos=inputs["pixel_values"],
            video_grid_thw=inputs["grid_thw"],
            video_merge_sizes=inputs["merge_sizes"],
            video_compression_mask=mask,
        ).logits
        # The placeholders' own embeddings are replaced, so that the two ids differ makes no difference.
        assert (ours(ids, **inputs, keep_mask=mask).logits - expected).abs().max() <= 1e-4


@torch.no_grad()
def test_logits_equal_video_llama_3_in_a_padded_batch(model_pair):
    ours, theirs = model_pair
    image, film = clips((1, 4, 6)), clips((3, 4, 4), seed=1)
    keep_mask = random_keep_mask(film)
    first, second = prompt_around(6), prompt_around(int(keep_mask.sum()))
    width = max(first.shape[1], second.shape[1]) + 2
    ids = torch.cat([torch.nn.functional.pad(part, (width - part.shape[1], 0)) for part in (first, second)])
    attention_mask = (ids != 0).long()
    their_ids = ids.clone()
    their_ids[1] = their_ids[1].masked_fill(ids[1] == MEDIA_TOKEN_ID, VIDEO_TOKEN_ID)
    expected = theirs(
        their_ids,
        attention_mask=attention_mask,
        pixel_values=image["pixel_values"],
        image_grid_thw=image["grid_thw"],
        image_merge_sizes=image["merge_sizes"],
        pixel_values_videos=film["pixel_values"],
        video_grid_thw=film["grid_thw"],
        video_merge_sizes=film["merge_sizes"],
        video_compression_mask=keep_mask,
    ).logits
    both = {name: torch.cat([image[name], film[name]]) for name in image}
    both["keep_mask"] = torch.cat([torch.ones(6, dtype=torch.bool), keep_mask])
    difference = ours(ids, attention_mask=attention_mask, **both).logits - expected
    assert difference[attention_mask.bool()].abs().max() <= 1e-4


# The encoder by itself


@pytest.mark.parametrize("patch_size", [4, 5, 14])
@pytest.mark.parametrize("stem_channels", [0, 8])
def test_any_patch_size_and_stem_give_one_vector_a_token(patch_size, stem_channels):
    model = encoder(patch_size=patch_size, stem_channels=stem_channels)
    inputs = {"grid_thw": torch.tensor([[2, 2, 4]]), "merge_sizes": torch.tensor([2])}
    inputs["pixel_values"] = torch.randn(16, 3 * patch_size**2)
    assert encode(model, inputs).shape == (4, 32)


def test_a_token_sees_no_other_clip():
    model, together = encoder(), clips(*MIXED_GRIDS)
    alone = {**clips(MIXED_GRIDS[0]), "pixel_values": together["pixel_values"][:24]}
    assert torch.allclose(encode(model, together)[:6], encode(model, alone), atol=1e-5)


def test_merging_equals_bilinear_downsampling():
    hidden = torch.randn(6 * 4, 8)  # blocks of 2×2, as the patches lie
    picture = hidden.view(3, 2, 2, 2, 8).transpose(1, 2).reshape(1, 6, 4, 8).permute(0, 3, 1, 2)
    expected = torch.nn.functional.interpolate(picture, size=(3, 2), mode="bilinear")[0].flatten(1).T
    merged = OmniVMedVisionModel._merge(hidden, torch.full((6,), 4))
    assert torch.allclose(merged, expected, atol=1e-6)


needs_onednn = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN")


@needs_onednn
@torch.no_grad()
def test_the_fused_feed_forward_block_equals_the_plain_one():
    mlp = encoder().encoder.layers[0].mlp
    states = torch.randn(3, 5, VISION["hidden_size"])
    assert mlp._can_fuse(states)
    fused = mlp(states)
    with torch.backends.mkldnn.flags(enabled=False, allow_tf32=False):
        assert not mlp._can_fuse(states)
        assert torch.allclose(fused, mlp(states), atol=1e-5)


@needs_onednn
def test_the_feed_forward_block_is_fused_only_where_nothing_else_can_be_meant():
    mlp = encoder().encoder.layers[0].mlp
    states = torch.randn(3, 5, VISION["hidden_size"])
    assert not mlp._can_fuse(states), "A gradient may be asked for."
    with torch.no_grad():
        assert not mlp._can_fuse(states.bfloat16())
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert not mlp._can_fuse(states)
        seen = []
        hook = mlp.activation_fn.register_forward_hook(lambda module, inputs, output: seen.append(output))
        mlp(states)
        assert len(seen) == 1, "A hook sees what it was put there to see."
        hook.remove()
        assert mlp._can_fuse(states)
        mlp.activation_fn = torch.nn.ReLU()
        assert torch.equal(mlp(states), mlp.fc2(mlp.fc1(states).relu()))


@pytest.mark.parametrize("unit", ["patch", "physical"])
def test_z_changes_nothing_inside_one_slice(unit):
    inputs = clips((3, 4, 6), (1, 2, 2))
    model, spacing = encoder(position_unit=unit), torch.tensor([2.5, 0.0])
    reference = encode(model, inputs, patch_spacing=spacing, frame_positions=torch.zeros(4))
    for positions in ([0.0, 5.0, 10.0, 0.0], [-1e4, 0.1, 7.77, 1e6]):
        encoded = encode(model, inputs, patch_spacing=spacing, frame_positions=torch.tensor(positions))
        assert torch.equal(encoded, reference)


@pytest.mark.parametrize("unit", ["patch", "physical"])
def test_a_single_frame_is_two_dimensional_in_a_wide_window_too(unit):
    inputs = clips((1, 4, 6)) | {"patch_spacing": torch.tensor([2.5])}
    flat = encode(encoder(position_unit=unit), inputs)
    for position in (0.0, 123.4):
        wide = encode(encoder(position_unit=unit, temporal_window=4), inputs, frame_positions=torch.tensor([position]))
        assert torch.equal(wide, flat)


def test_a_step_in_z_shows_inside_a_window():
    model, inputs = encoder(position_unit="physical", temporal_window=2), clips((2, 4, 4))
    near, far = (encode(model, inputs, frame_positions=torch.tensor([0.0, step])) for step in (0.0, 3.0))
    assert (near - far).abs().max() > 1e-2


@pytest.mark.parametrize("window", [1, 2, 3])
@torch.no_grad()
def test_windows_equal_one_attention_over_the_clip_with_the_other_windows_masked(window):
    model, inputs = encoder(temporal_window=window), clips((5, 4, 4))
    model.set_attn_implementation("eager")
    positions = patch_positions(inputs["grid_thw"], inputs["merge_sizes"], OmniVMedVisionConfig(**VISION))
    positions[:, 0] = torch.arange(5).repeat_interleave(16)  # z through the whole clip
    window_of_patch = positions[:, 0] // window
    mask = torch.where(window_of_patch[:, None] == window_of_patch, 0.0, torch.finfo(torch.float32).min)
    hidden = model.encoder(
        model.embeddings(inputs["pixel_values"])[None], model.rotary_pos_emb(positions[None]), mask[None, None]
    )
    expected = model._merge(model.post_layernorm(hidden[0]), torch.full((20,), 4))
    assert torch.allclose(encode(model, inputs), expected, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("shift", [(5.0, 0.0, 0.0), (0.0, -3.5, 8.0), (100.0, 40.0, -7.0)])
def test_a_shift_of_all_positions_changes_nothing(shift):
    model, inputs = encoder(temporal_window=2), clips((2, 4, 4))
    positions = patch_positions(inputs["grid_thw"], inputs["merge_sizes"], model.config)
    embeddings = model.embeddings(inputs["pixel_values"])[None]
    here, there = (
        model.encoder(embeddings, model.rotary_pos_emb(places[None]))
        for places in (positions, positions + torch.tensor(shift))
    )
    assert torch.allclose(here, there, atol=1e-4)


def test_frames_of_a_window_see_each_other_and_no_further():
    model, inputs = encoder(temporal_window=2), clips((4, 4, 4))
    changed = inputs | {"pixel_values": inputs["pixel_values"].clone()}
    changed["pixel_values"][:16] += 1  # the first frame
    difference = (encode(model, inputs) - encode(model, changed)).abs().view(4, -1).amax(1)
    assert (difference[:2] > 1e-3).all()
    assert (difference[2:] == 0).all()


@pytest.mark.parametrize("spacing", [0.0, 2.5], ids=["seconds", "millimetres"])
def test_a_shift_of_all_frames_changes_nothing(spacing):
    model, inputs = encoder(position_unit="physical", temporal_window=3), clips((5, 4, 4))
    inputs["patch_spacing"] = torch.tensor([spacing])
    positions = torch.tensor([0.0, 1.5, 3.0, 4.5, 6.0])
    reference = encode(model, inputs, frame_positions=positions)
    for shift in (-250.0, 1024.0):
        assert torch.allclose(encode(model, inputs, frame_positions=positions + shift), reference, atol=1e-5)


def test_one_body_at_two_spacings_has_the_same_angles():
    config = OmniVMedVisionConfig(**VISION, position_unit="physical", temporal_window=16)
    fine = patch_positions(
        torch.tensor([[6, 8, 8]]), torch.tensor([1]), config, torch.arange(6) * 1.5 + 40, torch.tensor([2.0])
    ).view(6, 8, 8, 3)
    coarse = patch_positions(
        torch.tensor([[3, 4, 4]]), torch.tensor([1]), config, torch.arange(3) * 3.0 - 7, torch.tensor([4.0])
    ).view(3, 4, 4, 3)
    rotary = OmniVMedVisionRotaryEmbedding(config)
    for a, b in zip(rotary(fine[::2, ::2, ::2]), rotary(coarse), strict=True):
        assert torch.allclose(a, b, atol=1e-6)
    assert fine[1, 1, 1].tolist() == pytest.approx([1.5 / 30, 2 / 30, 2 / 30])


def test_a_step_in_z_is_no_step_in_y_or_x():
    rotary = OmniVMedVisionRotaryEmbedding(OmniVMedVisionConfig(**VISION))
    cosines, _ = rotary(torch.eye(3))
    assert (torch.cdist(cosines, cosines) + 9 * torch.eye(3)).min() > 0.1


# Windows and pruning


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


RAGGED_GRIDS = ((30, 8, 8), (1, 4, 6), (7, 2, 2))


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


def test_an_unknown_stage_is_refused(model, processor, picture):
    with pytest.raises(ValueError, match=r"prune_stage must be one of .*, not 'late'"):
        encode(encoder(), clips((1, 2, 2)), prune_stage="late")
    with pytest.raises(ValueError, match=r"prune_stage must be one of .*, not 'late'"):
        generate(model, ask(processor, picture()), prune_stage="late")


# Attention backends


def test_xformers_without_the_package_says_so(monkeypatch):
    monkeypatch.setattr(modeling, "memory_efficient_attention", None)
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

    monkeypatch.setattr(modeling, "memory_efficient_attention", reference)
    # Other tests load the same file as remote code, and the last copy that was loaded is the one registered.
    monkeypatch.setitem(AttentionInterface._global_mapping, "xformers", modeling.xformers_attention_forward)
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
