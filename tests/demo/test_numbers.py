# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The settings of the page, and what it tells of a clip in numbers: costs, tiles, and the chart of kept tokens."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from demo.panels.charts import kept_chart
from demo.panels.tiles import in_units, saved_share, savings, tiles
from demo.service.cost import cache_bytes, convolutional_flops, encoder_flops, estimate, language_flops, projector_flops
from demo.service.pruning_settings import PruningSettings
from demo.service.shown import Shown
from hub_model.media_omniv_med import load_clip

CHOICES: dict[str, Any] = {
    "rule": "anchor",
    "threshold": 0.1,
    "guard": True,
    "peak_threshold": 0.3,
    "budget": "none",
    "share": 40,
    "number": 64,
    "stage": "language",
}
"""The controls of the page as a visitor finds them."""


@pytest.fixture(scope="module", autouse=True)
def in_one_thread(one_thread):
    """All models here are tiny."""


# Settings and numbers


def test_controls_become_the_processors_options():
    assert PruningSettings.from_choices(**CHOICES).options() == {
        "prune_rule": "anchor",
        "prune_threshold": 0.1,
        "peak_threshold": 0.3,
        "keep_ratio": None,
        "max_visual_tokens": None,
    }
    shared = PruningSettings.from_choices(**CHOICES | {"rule": "previous", "guard": False, "budget": "share"})
    assert (shared.rule, shared.peak_threshold) == ("previous", None)
    assert (shared.keep_ratio, shared.max_visual_tokens) == (0.4, None)
    counted = PruningSettings.from_choices(**CHOICES | {"budget": "number", "number": 64.0, "stage": "encoder"})
    assert (counted.keep_ratio, counted.max_visual_tokens, counted.stage) == (None, 64, "encoder")


@pytest.mark.parametrize("number", [None, 0])
def test_a_budget_of_no_tokens_is_a_sentence(number):
    with pytest.raises(ValueError, match="at least 1"):
        PruningSettings.from_choices(**CHOICES | {"budget": "number", "number": number})


def test_keeping_everything_goes_without_a_budget(processor, film_clip):
    settings = PruningSettings.from_choices(**CHOICES | {"rule": "none", "budget": "number", "number": 8})
    assert processor.process_clip(film_clip, **settings.options()).pruned.keep_mask.all()


def test_another_stage_prunes_nothing_again_and_other_settings_read_nothing_again(processor, processed):
    settings = PruningSettings.from_choices(**CHOICES)
    shown = Shown((Path("nowhere.mp4"),), processed, settings)
    other_stage = shown.pruned_as(replace(settings, stage="encoder"), processor)
    assert other_stage.processed is processed and other_stage.settings.stage == "encoder"
    stricter = shown.pruned_as(replace(settings, threshold=0.0, peak_threshold=None), processor)
    assert stricter.processed.clip is processed.clip
    assert stricter.processed.tokens_after >= processed.tokens_after


def flops(run) -> int:
    # With gradients, because torch counts neither oneDNN's product with its GELU nor fused attention of a CPU.
    with FlopCounterMode(display=False) as counter, torch.enable_grad():
        run()
    return counter.get_total_flops()


@pytest.mark.parametrize("tokens", [1, 37])
def test_prefill_estimate_is_what_torch_counts(make_model, tokens):
    language = make_model().model.language_model
    language.set_attn_implementation("eager")
    embeddings = torch.zeros(1, tokens, language.config.hidden_size)
    counted = flops(lambda: language(inputs_embeds=embeddings, use_cache=False))
    assert language_flops(language.config, tokens) == pytest.approx(counted, rel=0.01)


@pytest.mark.parametrize("stage", ["language", "encoder"])
@pytest.mark.parametrize(
    "parts",
    [{}, {"stem_channels": 3}, {"temporal_window": 4}, {"convolutional_features": True}, {"projector_context": True}],
    ids=str,
)
def test_encoder_estimate_is_what_torch_counts(make_model, processor, processed, parts, stage):
    model = make_model(**parts)
    model.set_attn_implementation({"vision_config": "eager"})
    inputs = processor.visual_inputs([processed])
    counted = flops(lambda: model.get_image_features(**inputs, prune_stage=stage))
    kept = processed.pruned.keep_mask.sum(dim=1)
    area = processed.tokens.shape[2]
    of_frame = processed.pruned.keep_mask.shape[1]
    patches = (kept if stage == "encoder" else torch.full_like(kept, of_frame)) * area
    estimated = encoder_flops(model.config.vision_config, patches.tolist())
    estimated += convolutional_flops(model.config.vision_config, int((patches > 0).sum()) * of_frame * area)
    estimated += projector_flops(model.config, int(kept.sum()), int((kept > 0).sum()))
    assert estimated == pytest.approx(counted, rel=0.02)


def test_cache_estimate_is_the_size_of_the_cache(model):
    embeddings = torch.zeros(1, 11, model.config.text_config.hidden_size)
    with torch.no_grad():
        cache = model.model.language_model(inputs_embeds=embeddings, use_cache=True).past_key_values
    size = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    assert cache_bytes(model.config.text_config, 11, 4) == size


def test_pruning_in_the_encoder_saves_encoding_and_the_language_stage_only_the_prompt(model, processed):
    for stage in ("language", "encoder"):
        before, after = estimate(model.config, processed, stage, torch.float32)
        assert after.language < before.language and after.cache < before.cache
        pixels = after.encoder / before.encoder
        assert pixels < 0.8 if stage == "encoder" else pixels > 0.9


def test_tiles_say_what_the_processor_says(model, processed):
    html = tiles(processed, "language", model.config, torch.float32)
    assert f"{processed.tokens_before} → {processed.tokens_after}" in html
    assert f"{abs(100 * processed.reduction):.1f} %" in html
    assert f"{processed.pruned.worst_error:.3f}" in html


def test_the_line_of_savings_says_what_the_tiles_say(model, processed):
    line = savings(processed, "language", model.config, torch.float32)
    before, after = estimate(model.config, processed, "language", torch.float32)
    shares = (processed.reduction, 1 - after.language / before.language)
    assert line == "{:.0f} % fewer tokens, {:.0f} % less language compute".format(*(100 * share for share in shares))


def test_a_single_picture_has_no_reduction(model, processor, picture):
    assert "all kept" in savings(processor.process_clip(load_clip(picture())), "language", model.config, torch.float32)
    html = tiles(processor.process_clip(load_clip(picture())), "language", model.config, torch.float32)
    assert "all kept" in html and "→" not in html


def test_amounts_have_three_digits_and_a_prefix():
    assert [in_units(amount, "B") for amount in (0, 999, 999.9, 12_300_000, 4.2e15)] == [
        "0 B",
        "999 B",
        "1 kB",
        "12.3 MB",
        "4.2 PB",
    ]
    assert [saved_share(200, after) for after in (50, 200, 220)] == ["−75 %", "0 %", "+10 %"]


# The chart


def test_chart_has_a_bar_for_each_frame(processed):
    kept, removed = kept_chart(processed).data
    assert list(kept.y) == processed.pruned.keep_mask.sum(dim=1).tolist()
    assert [one + other for one, other in zip(kept.y, removed.y, strict=True)] == [
        processed.pruned.keep_mask.shape[1]
    ] * 6
    assert kept.customdata[1] == "0.5 s"


def test_a_single_picture_has_no_chart(processor, picture):
    assert kept_chart(processor.process_clip(load_clip(picture()))) is None
