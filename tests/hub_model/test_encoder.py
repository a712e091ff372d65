# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The encoder by itself: patches and tokens, the third axis, windows of frames."""

from __future__ import annotations

import pytest
import torch

from hub_model.configuration_omniv_med import OmniVMedVisionConfig
from hub_model.modeling_omniv_med import (
    OmniVMedVisionModel,
)
from hub_model.vision_layers_omniv_med import OmniVMedVisionRotaryEmbedding
from tests.helpers.encoders import (
    MIXED_GRIDS,
    VISION,
    clips,
    encode,
    encoder,
    patch_positions,
)

pytestmark = pytest.mark.usefixtures("one_thread")


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
