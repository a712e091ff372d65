# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Our pruner on transformers' own Qwen2.5-VL and Qwen3-VL, random and small.

The processors of these models need torchvision for videos, so their outputs are written here: patches in the order and
normalisation of `Qwen2VLVideoProcessor`, prompts as `replace_video_token` of each writes them.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from hub_model.qwen_vl_pruning_omniv_med import VISION_END, VISION_START, PrunedPrompt, prune_prompt, video_tokens
from hub_model.token_pruning_omniv_med import prune_tokens
from hub_model.visual_processing_omniv_med import frames_to_tokens
from tests.helpers.foreign_models import foreign_tokenizer

pytestmark = pytest.mark.usefixtures("one_thread")

PATCH, MERGE, TOGETHER = 4, 2, 2
TEXT = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 1024,
    "initializer_range": 0.3,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]},
}
VISION = {
    "depth": 3,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_heads": 2,
    "patch_size": PATCH,
    "spatial_merge_size": MERGE,
    "temporal_patch_size": TOGETHER,
    "out_hidden_size": 32,
    "initializer_range": 0.3,
}
MODELS = ("Qwen2.5-VL", "Qwen3-VL")


@pytest.fixture(scope="module", params=MODELS)
def qwen(request) -> SimpleNamespace:
    """A model, what its processor would have, and its name."""
    tokenizer = foreign_tokenizer("<|image_pad|>")
    tokenizer.padding_side = "left"
    tokens = {f"{kind}_token_id": tokenizer.convert_tokens_to_ids(f"<|{kind}_pad|>") for kind in ("image", "video")}
    ids = tokens | {
        "vision_start_token_id": tokenizer.convert_tokens_to_ids(VISION_START),
        "vision_end_token_id": tokenizer.convert_tokens_to_ids(VISION_END),
    }
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    text = TEXT | ends | {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    torch.manual_seed(5)
    model: Any
    if request.param == "Qwen2.5-VL":
        vision = VISION | {"window_size": 16, "fullatt_block_indexes": [1], "tokens_per_second": 2}
        model = Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=text, vision_config=vision, **ids))
    else:
        vision = VISION | {"deepstack_visual_indexes": [0, 1], "num_position_embeddings": 64}
        model = Qwen3VLForConditionalGeneration(Qwen3VLConfig(text_config=text, vision_config=vision, **ids))
    sizes = {"patch_size": PATCH, "merge_size": MERGE, "temporal_patch_size": TOGETHER}
    video_processor = SimpleNamespace(image_mean=OPENAI_CLIP_MEAN, image_std=OPENAI_CLIP_STD, **sizes)
    processor = SimpleNamespace(tokenizer=tokenizer, video_processor=video_processor, **tokens)
    return SimpleNamespace(model=model.eval(), processor=processor, name=request.param)


def cut(frames: np.ndarray) -> tuple[torch.Tensor, list[int]]:
    """Patches of frames (T, H, W, 3) as `Qwen2VLVideoProcessor` gives them, and their grid."""
    mean, deviation = (np.array(one, np.float32) for one in (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD))
    values = torch.from_numpy((frames.astype(np.float32) / 255 - mean) / deviation).permute(0, 3, 1, 2)
    times, rows, columns = len(frames) // TOGETHER, frames.shape[1] // PATCH, frames.shape[2] // PATCH
    split = values.reshape(times, TOGETHER, 3, rows // MERGE, MERGE, PATCH, columns // MERGE, MERGE, PATCH)
    patches = split.permute(0, 3, 6, 4, 7, 2, 1, 5, 8).reshape(times * rows * columns, -1)
    return patches, [times, rows, columns]


def process(qwen: SimpleNamespace, *conversations: list) -> dict[str, Any]:
    """What the processor would give for conversations of texts, pictures (arrays of 3 axes) and videos (of 4)."""
    tokenizer = qwen.processor.tokenizer
    media: dict[str, list] = {"image": [], "video": []}
    texts = []
    for parts in conversations:
        text = "<|im_start|>user\n"
        for part in parts:
            if isinstance(part, str):
                text += part
                continue
            kind = "image" if part.ndim == 3 else "video"
            patches, grid = cut(np.stack([part] * TOGETHER) if part.ndim == 3 else part)
            media[kind].append((patches, grid))
            count = grid[1] * grid[2] // MERGE**2
            pads = f"<|{kind}_pad|>" * count
            if kind == "image" or qwen.name == "Qwen2.5-VL":
                text += VISION_START + pads * grid[0] + VISION_END
            else:
                text += "".join(
                    f"<{time + 0.5:.1f} seconds>{VISION_START}{pads}{VISION_END}" for time in range(grid[0])
                )
        texts.append(text + "<|im_end|>\n<|im_start|>assistant\n")
    inputs = dict(tokenizer(texts, padding=True, return_tensors="pt"))
    types = torch.zeros_like(inputs["input_ids"])
    for number, kind in enumerate(("image", "video"), 1):
        types[inputs["input_ids"] == getattr(qwen.processor, f"{kind}_token_id")] = number
        if media[kind]:
            pixels = "pixel_values" if kind == "image" else "pixel_values_videos"
            inputs[pixels] = torch.cat([patches for patches, _ in media[kind]])
            inputs[f"{kind}_grid_thw"] = torch.tensor([grid for _, grid in media[kind]])
    if media["video"] and qwen.name == "Qwen2.5-VL":
        inputs["second_per_grid_ts"] = torch.tensor([1.0] * len(media["video"]))
    return {name: value for name, value in inputs.items() if name != "token_type_ids"} | {"mm_token_type_ids": types}


def changing_film(seed: int = 0, frames: int = 8) -> np.ndarray:
    """A noisy picture that stands still, but for one corner, which changes once: (frames, 24, 16, 3)."""
    generator = np.random.default_rng(seed)
    film = np.repeat(generator.integers(0, 256, (1, 24, 16, 3), dtype=np.uint8), frames, axis=0)
    film[5:, :8, :8] = generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return film


@pytest.fixture
def batch(qwen, picture) -> dict[str, Any]:
    """A video; a picture, text and another video; text alone."""
    return process(
        qwen,
        [changing_film(), "What moves?"],
        [picture(3), "before, and after ", changing_film(4, 6), "What is the difference between these two?"],
        ["Two and two?"],
    )


@torch.no_grad()
def test_with_everything_kept_it_is_the_untouched_model_bit_for_bit(qwen, batch) -> None:
    pruned = prune_prompt(qwen.processor, batch, rule="none")
    assert torch.equal(pruned.input_ids, batch["input_ids"])
    ours, theirs = qwen.model(**pruned.for_model(qwen.model)).logits, qwen.model(**batch).logits
    attended = batch["attention_mask"].bool()
    assert torch.equal(ours[attended], theirs[attended])


@pytest.mark.parametrize("settings", [{}, {"num_beams": 3}, {"num_beams": 3, "num_return_sequences": 2}])
def test_with_everything_kept_answers_are_the_untouched_model_s(qwen, batch, settings) -> None:
    pruned = prune_prompt(qwen.processor, batch, rule="none")
    greedy = {"max_new_tokens": 8, "do_sample": False} | settings
    ours = qwen.model.generate(**pruned.for_model(qwen.model), **greedy)
    assert torch.equal(ours, qwen.model.generate(**batch, **greedy))


@torch.no_grad()
def masked_logits(qwen: SimpleNamespace, inputs: dict[str, Any], pruned: PrunedPrompt) -> torch.Tensor:
    """Logits of the whole prompt with the removed tokens in it, which no other token sees."""
    whole = prune_prompt(qwen.processor, inputs, rule="none").for_model(qwen.model)
    return qwen.model(**whole | {"attention_mask": pruned.kept.long()}).logits


@torch.no_grad()
def test_a_pruned_prompt_is_the_whole_one_with_the_removed_tokens_masked_out(qwen, batch) -> None:
    """Every token that stays has the logits, so the positions and the deep-stack features, that it had."""
    pruned = prune_prompt(qwen.processor, batch)
    assert 0 < pruned.reduction < 1
    assert all(not video.keep_mask.all() for video in pruned.videos)
    ours = qwen.model(**pruned.for_model(qwen.model)).logits[pruned.attention_mask.bool()]
    theirs = masked_logits(qwen, batch, pruned)[pruned.kept]
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)
    untouched = qwen.model(**batch).logits[pruned.kept]
    assert (ours - untouched).abs().max() > 1e-2


@pytest.mark.parametrize("settings", [{}, {"num_beams": 3}])
def test_in_a_batch_each_answers_as_alone(qwen, picture, settings) -> None:
    conversations = [
        [changing_film(), "What moves?"],
        [picture(3), "before, and after ", changing_film(4, 6), "What is the difference between these two?"],
        ["Two and two?"],
    ]
    generation = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False} | settings

    def answers(*chosen: list) -> torch.Tensor:
        pruned = prune_prompt(qwen.processor, process(qwen, *chosen))
        return qwen.model.generate(**pruned.for_model(qwen.model), **generation)[:, pruned.input_ids.shape[1] :]

    together = answers(*conversations)
    for row, conversation in zip(together, conversations, strict=True):
        assert torch.equal(row, answers(conversation)[0])


def test_a_temporal_patch_that_keeps_nothing_leaves_the_prompt_with_its_time(qwen) -> None:
    still = np.repeat(changing_film()[:1], 6, axis=0)
    pruned = prune_prompt(qwen.processor, process(qwen, [still, "What?"]))
    text = qwen.processor.tokenizer.decode(pruned.input_ids[0])
    assert text.count("<|video_pad|>") == 6
    assert text.count(VISION_START) == text.count(VISION_END) == 1
    assert text.count("seconds") == (1 if qwen.name == "Qwen3-VL" else 0)
    assert text.endswith("What?<|im_end|>\n<|im_start|>assistant\n")


def test_pictures_stay_whole_and_so_does_a_prompt_without_videos(qwen, picture) -> None:
    inputs = process(qwen, [picture(1), picture(1), "Are they the same?"])
    pruned = prune_prompt(qwen.processor, inputs)
    assert torch.equal(pruned.input_ids, inputs["input_ids"])
    assert pruned.reduction == 0


def test_the_same_prompt_may_be_asked_again(qwen, batch) -> None:
    """`generate` with beams changes what it is given; the pruned prompt is not."""
    pruned = prune_prompt(qwen.processor, batch)
    beams = {"num_beams": 2, "max_new_tokens": 3, "do_sample": False}
    first = qwen.model.generate(**pruned.for_model(qwen.model), **beams)
    assert torch.equal(first, qwen.model.generate(**pruned.for_model(qwen.model), **beams))


def test_pixels_of_another_prompt_are_refused(qwen) -> None:
    inputs = process(qwen, [changing_film(), "What?"])
    longer = process(qwen, [changing_film(frames=10), "What?"])
    mixed = inputs | {name: longer[name] for name in ("pixel_values_videos", "video_grid_thw")}
    with pytest.raises(ValueError, match="24 placeholders of videos, but the pixels give 30 tokens"):
        prune_prompt(qwen.processor, mixed)


# The mask


def test_their_pixels_come_back_as_ours(qwen) -> None:
    """Each frame of a temporal patch has the tokens that our own processor cuts."""
    film = changing_film()
    (tokens,) = video_tokens(qwen.processor.video_processor, process(qwen, [film]))
    ours = frames_to_tokens(film, 3, 2, PATCH, MERGE)
    assert tokens.shape == (4, 6, MERGE**2 * TOGETHER, 3, PATCH, PATCH)
    pairs = tokens.unflatten(2, (MERGE**2, TOGETHER)).permute(0, 3, 1, 2, 4, 5, 6).flatten(0, 1)
    torch.testing.assert_close(pairs, ours, atol=1e-5, rtol=0)


@given(st.integers(0, 2**16), st.floats(0.02, 0.4), st.integers(1, 6))
def test_what_is_removed_is_within_the_threshold_of_what_stands_for_it(seed, threshold, steps) -> None:
    """On slow change, which comparing with the frame before would let drift away."""
    generator = np.random.default_rng(seed)
    start, end = generator.integers(0, 256, (2, 16, 16, 3))
    weights = np.linspace(0, 1, 2 * steps)[:, None, None, None]
    film = (start * (1 - weights) + end * weights).astype(np.uint8)
    patches, grid = cut(film)
    processor = SimpleNamespace(
        patch_size=PATCH,
        merge_size=MERGE,
        temporal_patch_size=TOGETHER,
        image_mean=OPENAI_CLIP_MEAN,
        image_std=OPENAI_CLIP_STD,
    )
    inputs = {"pixel_values_videos": patches, "video_grid_thw": torch.tensor([grid])}
    (tokens,) = video_tokens(processor, inputs)
    pruned = prune_tokens(tokens, threshold=threshold)
    shown = torch.from_numpy(film).float() / 127.5 - 1
    shown = shown.view(steps, TOGETHER, 2, 8, 2, 8, 3).permute(0, 2, 4, 1, 3, 5, 6).reshape(steps, 4, -1)
    for step, place in (~pruned.keep_mask).nonzero().tolist():
        stand_in = int(pruned.stand_in[step, place])
        assert (shown[step, place] - shown[stand_in, place]).abs().mean() <= threshold + 1e-5
