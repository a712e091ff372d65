# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Encoder and model give VideoLlama3's outputs for pictures, pruned videos and padded batches of its weights."""

from __future__ import annotations

import pytest
import torch
from transformers import (
    VideoLlama3Config,
    VideoLlama3ForConditionalGeneration,
    VideoLlama3VisionConfig,
    VideoLlama3VisionModel,
)

from hub_model.configuration_omniv_med import OmniVMedConfig, OmniVMedVisionConfig
from hub_model.modeling_omniv_med import (
    OmniVMedForConditionalGeneration,
    OmniVMedVisionModel,
)
from hub_model.vision_layers_omniv_med import OmniVMedVisionRotaryEmbedding
from tests.helpers.encoders import (
    MEDIA_TOKEN_ID,
    MIXED_GRIDS,
    TEXT,
    VIDEO_TOKEN_ID,
    VISION,
    clips,
    encode,
    patch_positions,
    random_keep_mask,
    randomise,
    token_count,
)

pytestmark = pytest.mark.usefixtures("one_thread")


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
