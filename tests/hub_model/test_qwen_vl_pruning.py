# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Our pruner on transformers' own Qwen2.5-VL and Qwen3-VL, random and small."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hub_model.qwen_vl_pruning_omniv_med import VISION_END, VISION_START, PrunedPrompt, prune_prompt, video_tokens
from hub_model.token_pruning_omniv_med import GUARD_RATIO, prune_tokens
from hub_model.visual_processing_omniv_med import frames_to_tokens
from tests.helpers.qwen_vl import MERGE, MODELS, PATCH, TOGETHER, VIDEO_PROCESSOR, QwenProcessor, cut, qwen_model

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module", params=MODELS)
def qwen(request) -> SimpleNamespace:
    """A model and its processor."""
    processor = QwenProcessor(request.param)
    return SimpleNamespace(model=qwen_model(processor), processor=processor, name=request.param)


def process(qwen: SimpleNamespace, *conversations: list) -> dict[str, Any]:
    """The processor's inputs for conversations of texts, pictures (arrays of 3 axes) and videos (of 4)."""
    texts, images, videos = [], [], []
    for parts in conversations:
        content = []
        for part in parts:
            if isinstance(part, str):
                content.append({"type": "text", "text": part})
            else:
                kind, media = ("image", images) if part.ndim == 3 else ("video", videos)
                content.append({"type": kind})
                media.append(part)
        texts.append(qwen.processor.apply_chat_template([{"role": "user", "content": content}]))
    return dict(qwen.processor(text=texts, images=images, videos=videos))


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


@pytest.mark.parametrize("threshold", [0.05, 0.1, 0.3])
def test_the_guard_follows_the_threshold(qwen, batch, threshold) -> None:
    followed, said = (prune_prompt(qwen.processor, batch, threshold, peak) for peak in (None, GUARD_RATIO * threshold))
    assert torch.equal(followed.input_ids, said.input_ids)


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
    inputs = {"pixel_values_videos": patches, "video_grid_thw": torch.tensor([grid])}
    (tokens,) = video_tokens(VIDEO_PROCESSOR, inputs)
    pruned = prune_tokens(tokens, threshold=threshold)
    shown = torch.from_numpy(film).float() / 127.5 - 1
    shown = shown.view(steps, TOGETHER, 2, 8, 2, 8, 3).permute(0, 2, 4, 1, 3, 5, 6).reshape(steps, 4, -1)
    for step, place in (~pruned.keep_mask).nonzero().tolist():
        stand_in = shown.flatten(0, 1)[pruned.stand_in[step, place]]
        assert (shown[step, place] - stand_in).abs().mean() <= threshold + 1e-5
