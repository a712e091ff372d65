# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""What the viewing half of the page sends to the browser: slices, kept tokens, numbers, chart, volume, evidence."""

from __future__ import annotations

import base64
import gzip
import io
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from demo.charts import kept_chart
from demo.evidence import attention_evidence, group_words
from demo.pruning_panel import PruningSettings, in_units, numbers, saved_share
from demo.samples import examples
from demo.savings import cache_bytes, encoder_flops, estimate, language_flops, projector_flops
from demo.stage import at_stage, twin
from demo.viewer import EVIDENCE_PERCENTILE, HIGHEST_SCORE, LARGEST_SHEET, evidence, pruning, sheet, show, slices
from demo.viewing import Shown, facts, is_ct
from demo.volume_view import KEPT, LARGEST_SIDE, NIIVUE, REMOVED, background, can_show, mask, show_volume
from hub_model.media_omniv_med import load_clip

CONTROLS = ("anchor", 0.1, True, 0.3, "none", 25, 64, "language")


@pytest.fixture(scope="module", autouse=True)
def in_one_thread(one_thread):
    """All models here are tiny."""


@pytest.fixture(scope="module")
def film_clip(film):
    return load_clip(film(frames=6), kind="video", spacing=0.5, fps=2.0)


@pytest.fixture(scope="module")
def processed(processor, film_clip):
    """Six frames, a moving square, so that some tokens are kept in each and most are removed."""
    return processor.process_clip(film_clip)


def picture_of(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))))


def volume_of(text: str) -> nibabel.Nifti1Image:
    return nibabel.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(text)))


# The viewer's messages


def test_every_frame_lies_in_the_sheet_where_the_message_says():
    frames = np.stack([np.full((10, 20, 3), 30 * index, np.uint8) for index in range(7)])
    message = sheet(frames, (40, 20))
    picture = picture_of(message["sprite"])
    for index in range(7):
        left, top = index % message["columns"] * 40, index // message["columns"] * 20
        assert np.abs(picture[top : top + 20, left : left + 40].astype(int) - 30 * index).max() <= 3


def test_a_long_clip_of_large_frames_is_sent_small_and_in_the_shape_of_the_body():
    clip = load_clip(np.zeros((128, 400, 400), np.uint8), kind="volume", spacing=(1.0, 2.0, 1.0), max_frames=128)
    message = slices(clip)
    assert message["frames"] == 128
    assert 128 * message["width"] * message["height"] <= 1.02 * LARGEST_SHEET
    assert message["height"] / message["width"] == pytest.approx(2, rel=0.02)
    assert picture_of(message["sprite"]).shape[0] <= 16383, "WebP takes no more"


def test_positions_are_written_only_where_the_file_has_them(film_clip):
    assert slices(film_clip)["positions"][:2] == ["0.0 s", "0.5 s"]
    no_spacing = load_clip(np.zeros((3, 16, 16), np.uint8), kind="volume")
    assert slices(no_spacing)["positions"] == ["", "", ""]


def test_pruning_message_rebuilds_the_reconstruction(processed):
    message = pruning(processed)
    keep = processed.pruned.keep_mask.numpy()
    assert message["kept"] == "".join("1" if flag else "0" for flag in keep.ravel())
    stand_in = np.frombuffer(base64.b64decode(message["stand_in"]), "<u2").reshape(keep.shape)
    tokens = processed.shown_frames()
    rows, columns = processed.grid
    split = (
        tokens.reshape(len(tokens), rows, 8, columns, 8, 3)
        .transpose(0, 1, 3, 2, 4, 5)
        .reshape(len(tokens), -1, 8, 8, 3)
    )
    drawn = split[stand_in, np.arange(rows * columns)]
    drawn = drawn.reshape(len(tokens), rows, columns, 8, 8, 3).transpose(0, 1, 3, 2, 4, 5).reshape(tokens.shape)
    assert (drawn == processed.reconstructed_frames()).all()


def test_score_message_tells_kept_from_removed(processor, film_clip):
    processed = processor.process_clip(film_clip, prune_rule="previous")  # ours removes known background above 1, too
    shades = np.frombuffer(base64.b64decode(pruning(processed)["score"]), np.uint8)
    kept = processed.pruned.keep_mask.flatten().numpy()
    threshold = 255 / HIGHEST_SCORE
    assert shades[kept].min() >= round(threshold) > shades[~kept].max()


def test_stand_ins_beyond_256_frames_are_sent_whole(processor):
    frames = np.repeat(np.random.default_rng(0).integers(0, 256, (1, 16, 16, 3), dtype=np.uint8), 300, axis=0)
    frames[290:] = 255 - frames[290:]
    clip = load_clip(frames, kind="video", spacing=1.0, max_frames=300)
    message = pruning(processor.process_clip(clip))
    assert np.frombuffer(base64.b64decode(message["stand_in"]), "<u2").max() == 290


def test_an_empty_viewer_has_no_message_left():
    update = show(None)
    assert (update["value"], update["model"], update["pruning"], update["evidence"]["weight"]) == (None, None, None, "")


def test_facts_name_kind_size_and_notes_and_escape_them(processed):
    odd = replace(processed, notes=("<b>odd</b> & more",))
    words = facts(odd)
    assert "video" in words and "6 of 6 video frames" in words and "16 × 24 pixels" in words
    assert "&lt;b&gt;odd&lt;/b&gt; &amp; more" in words


# Settings and numbers


def test_controls_become_the_processors_options():
    assert PruningSettings.from_controls(*CONTROLS).options() == {
        "prune_rule": "anchor",
        "prune_threshold": 0.1,
        "peak_threshold": 0.3,
        "keep_ratio": None,
        "max_visual_tokens": None,
    }
    shared = PruningSettings.from_controls("previous", 0.2, False, 0.3, "share", 40, 64, "encoder")
    assert (shared.peak_threshold, shared.keep_ratio, shared.max_visual_tokens) == (None, 0.4, None)
    counted = PruningSettings.from_controls("anchor", 0.2, False, 0.3, "number", 40, 64.0, "encoder")
    assert (counted.keep_ratio, counted.max_visual_tokens, counted.stage) == (None, 64, "encoder")


@pytest.mark.parametrize("number", [None, 0])
def test_a_budget_of_no_tokens_is_a_sentence(number):
    with pytest.raises(ValueError, match="at least 1"):
        PruningSettings.from_controls("anchor", 0.1, True, 0.3, "number", 40, number, "language")


def test_keeping_everything_goes_without_a_budget(processor, film_clip):
    settings = PruningSettings.from_controls("none", 0.1, True, 0.3, "number", 40, 8, "language")
    assert processor.process_clip(film_clip, **settings.options()).pruned.keep_mask.all()


def test_another_stage_prunes_nothing_again_and_other_settings_read_nothing_again(processor, processed):
    settings = PruningSettings.from_controls(*CONTROLS)
    shown = Shown(("nowhere.mp4",), processed, settings)
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
def test_prefill_estimate_is_what_torch_counts(model, tokens):
    language = twin(model.model.language_model)
    language.set_attn_implementation("eager")
    embeddings = torch.zeros(1, tokens, model.config.text_config.hidden_size)
    counted = flops(lambda: language(inputs_embeds=embeddings, use_cache=False))
    assert language_flops(model.config.text_config, tokens) == pytest.approx(counted, rel=0.01)


@pytest.mark.parametrize("stage", ["language", "encoder"])
@pytest.mark.parametrize("vision", [{}, {"stem_channels": 3}, {"temporal_window": 4}], ids=str)
def test_encoder_estimate_is_what_torch_counts(make_model, processor, processed, vision, stage):
    model = at_stage(make_model(**vision), stage)
    model.set_attn_implementation({"vision_config": "eager"})
    inputs = processor.visual_inputs([processed])
    counted = flops(lambda: model.get_image_features(**inputs))
    kept = processed.pruned.keep_mask.sum(dim=1)
    area = processed.tokens.shape[2]
    patches = (kept if stage == "encoder" else torch.full_like(kept, processed.pruned.keep_mask.shape[1])) * area
    estimated = encoder_flops(model.config.vision_config, patches.tolist())
    estimated += projector_flops(model.config, int(kept.sum()))
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


def test_numbers_say_what_the_processor_says(model, processed):
    html = numbers(processed, "language", model.config, torch.float32)
    assert f"{processed.tokens_before} → {processed.tokens_after}" in html
    assert f"{abs(100 * processed.reduction):.1f} %" in html
    assert f"{processed.pruned.worst_error:.3f}" in html


def test_a_single_picture_has_no_reduction(model, processor, picture):
    html = numbers(processor.process_clip(load_clip(picture())), "language", model.config, torch.float32)
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


# Planes and 3D


def asymmetric_volume(path: Path) -> np.ndarray:
    """Writes a scan with one bright block at the patient's left, front and head; returns its centre in LPS mm."""
    values = np.zeros((12, 20, 24), np.int16)  # z, y, x in LPS
    values[9:12, 0:5, 18:24] = 400
    image = sitk.GetImageFromArray(values)
    image.SetSpacing((2.0, 3.0, 4.0))
    sitk.WriteImage(image, str(path))
    return np.array([21.0, 2.0, 10.0]) * (2, 3, 4) - np.array([11.5, 9.5, 5.5]) * (2, 3, 4)


def test_the_volume_stands_as_the_patient_does(tmp_path, processor):
    centre = asymmetric_volume(tmp_path / "scan.nii.gz")
    processed = processor.process_clip(load_clip(tmp_path / "scan.nii.gz"))
    image = volume_of(background(processed.clip))
    values = np.asarray(image.dataobj)
    found = nibabel.affines.apply_affine(image.affine, np.argwhere(values > 128).mean(axis=0))
    assert found == pytest.approx(centre * (-1, -1, 1), abs=1.0), "NIfTI counts to the right and to the front"
    assert image.header.get_zooms() == pytest.approx((2, 3, 4))


def test_the_mask_covers_the_volume_and_holds_the_kept_tokens(tmp_path, processor):
    asymmetric_volume(tmp_path / "scan.nii.gz")
    processed = processor.process_clip(load_clip(tmp_path / "scan.nii.gz"))
    scan, tokens = volume_of(background(processed.clip)), volume_of(mask(processed))
    values = np.asarray(tokens.dataobj)
    assert (values == KEPT).sum() == int(processed.pruned.keep_mask.sum())
    assert set(np.unique(values)) == {KEPT, REMOVED}
    corners = [
        nibabel.affines.apply_affine(image.affine, [[-0.5] * 3, np.array(image.shape) - 0.5])
        for image in (scan, tokens)
    ]
    assert corners[0] == pytest.approx(corners[1])


def test_large_volumes_are_thinned_out(processor):
    clip = load_clip(np.zeros((140, 300, 140), np.uint8), kind="volume", spacing=(1.0, 1.0, 1.0), max_frames=140)
    assert volume_of(background(clip)).shape == (LARGEST_SIDE, LARGEST_SIDE, LARGEST_SIDE)
    assert volume_of(mask(processor.process_clip(clip))).shape[2] == LARGEST_SIDE


def test_only_volumes_with_millimetres_have_planes(processor, processed):
    no_spacing = processor.process_clip(load_clip(np.zeros((3, 16, 16), np.uint8), kind="volume"))
    assert not any(can_show(item) for item in (None, processed, no_spacing))
    assert show_volume(processed)["value"] is None


def test_niivue_comes_with_an_installed_package():
    assert NIIVUE.is_file() and b"Niivue" in NIIVUE.read_bytes()


# Evidence


@pytest.fixture(scope="module")
def question(processor, processed):
    messages = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "Which organ is this?"}]}]
    prompt = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    return processor(text=prompt, clips=[processed])


@pytest.mark.parametrize("stage", ["language", "encoder"])
@pytest.mark.parametrize("largest", [1 << 28, 1], ids=["at once", "in pieces"])
def test_weights_are_those_of_one_eager_pass_over_everything(
    make_model, processor, processed, question, stage, largest, monkeypatch
):
    monkeypatch.setattr("demo.evidence.LARGEST_ATTENTION", largest)
    answer = processor.tokenizer(" a beating heart", add_special_tokens=False).input_ids
    model = make_model()
    found = attention_evidence(model, processor.tokenizer, question, answer, stage)

    reference = make_model(prune_stage=stage)
    reference.set_attn_implementation("eager")
    ids = torch.cat([question["input_ids"], torch.tensor([answer])], dim=1)
    inputs = {name: value for name, value in question.items() if name not in ("input_ids", "attention_mask")}
    with torch.no_grad():
        layers = reference(input_ids=ids, output_attentions=True, **inputs).attentions
    length, visual = question["input_ids"].shape[1], ids[0] == model.config.image_token_id
    rows = torch.stack(layers)[:, 0, :, length - 1 : -1][..., visual].mean(dim=(0, 1)).numpy()
    assert found.words == ("a", "beating", "heart")
    pieces = [rows[places].mean(axis=0) for _, places in group_words(processor.tokenizer, answer)]
    assert found.weights == pytest.approx(np.stack(pieces), abs=1e-6)
    assert model.model.language_model.config._attn_implementation == "sdpa", "others' requests go on as before"


def test_removed_tokens_have_the_weight_of_their_stand_in(processor, model, processed, question):
    answer = processor.tokenizer(" one two", add_special_tokens=False).input_ids
    found = attention_evidence(model, processor.tokenizer, question, answer)
    (weights,) = found.on_tokens([0], [processed])
    assert weights.shape == (6, *processed.grid)
    keep, flat = processed.pruned.keep_mask.numpy(), weights.reshape(6, -1)
    assert flat[keep] == pytest.approx(found.weights[0])
    places = np.arange(keep.shape[1])
    assert (flat == flat[processed.pruned.stand_in.numpy(), places]).all()
    (every,) = found.on_tokens([], [processed])
    assert every == pytest.approx(sum(found.on_tokens([word], [processed])[0] for word in (0, 1)) / 2)


def test_each_medium_gets_its_own_weights(processor, model, processed, picture):
    other = processor.process_clip(load_clip(picture(seed=3)))
    parts = [{"type": "video"}, {"type": "image"}, {"type": "text", "text": "Compare."}]
    prompt = processor.apply_chat_template(
        [{"role": "user", "content": parts}], add_generation_prompt=True, tokenize=False
    )
    inputs = processor(text=prompt, clips=[processed, other])
    answer = processor.tokenizer("same", add_special_tokens=False).input_ids
    found = attention_evidence(model, processor.tokenizer, inputs, answer)
    first, second = found.on_tokens([], [processed, other])
    assert second.ravel() == pytest.approx(found.weights.mean(axis=0)[-second.size :])
    assert first.reshape(6, -1)[processed.pruned.keep_mask.numpy()] == pytest.approx(
        found.weights.mean(axis=0)[: -second.size]
    )


def test_words_are_told_apart_by_spaces_whatever_their_tokens(processor):
    # The end of the answer belongs to no word, and in the first text a token that is one space does not.
    for text in (" Multiple cysts, é and 12.5 mm", "X-ray", "naïve 肺 ok"):
        ids = [*processor.tokenizer(text, add_special_tokens=False).input_ids, processor.tokenizer.eos_token_id]
        groups = group_words(processor.tokenizer, ids)
        assert [word for word, _ in groups] == text.split()
        places = [place for _, of_word in groups for place in of_word]
        assert places == sorted(set(places)) and set(range(len(ids))) - set(places) <= {5, len(ids) - 1}


def test_evidence_without_an_answer_or_a_medium_is_a_sentence(processor, model, question):
    with pytest.raises(ValueError, match="no answer yet"):
        attention_evidence(model, processor.tokenizer, question, [])
    text = processor(text="Hello?")
    with pytest.raises(ValueError, match="load one"):
        attention_evidence(model, processor.tokenizer, text, [100])


def test_evidence_message_is_relative_to_the_strongest():
    weights = np.random.default_rng(0).random((4, 5, 5)).astype(np.float32)
    weights[2] *= 10
    message = evidence(weights)
    shades = np.frombuffer(base64.b64decode(message["weight"]), np.uint8).reshape(weights.shape)
    assert (shades == 255).mean() == pytest.approx(1 - EVIDENCE_PERCENTILE / 100, abs=0.02)
    assert int(np.argmax(message["in_frames"])) == 2 and max(message["in_frames"]) == 1
    assert evidence(np.zeros((2, 1, 1), np.float32))["in_frames"] == [0, 0]


# Twins


def test_a_twin_shares_every_weight_and_no_setting(model):
    other = at_stage(model, "encoder")
    assert [p.data_ptr() for p in other.parameters()] == [p.data_ptr() for p in model.parameters()]
    assert model.config.vision_config.prune_stage == model.model.vision_model.config.prune_stage == "language"
    assert at_stage(model, "language") is model
    with pytest.raises(ValueError, match="stage"):
        at_stage(model, "nowhere")


def test_a_twin_computes_what_a_model_of_its_stage_computes(make_model, processor, processed):
    inputs = processor.visual_inputs([processed])
    with torch.no_grad():
        twins = at_stage(make_model(), "encoder").get_image_features(**inputs).last_hidden_state
        own = make_model(prune_stage="encoder").get_image_features(**inputs).last_hidden_state
    assert torch.equal(twins, own)


# Files


def test_examples_exist():
    found = dict(examples())
    assert len(found) == 5 and all(path.is_file() for path in found.values())


def test_ct_is_known_by_its_windows(processor):
    ct, xray = (dict(examples())[name] for name in ("Chest CT · generated", "Chest X-ray · generated"))
    assert is_ct(SimpleNamespace(clip=load_clip(ct)))
    assert not is_ct(SimpleNamespace(clip=load_clip(xray)))
