# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Conversations with media become model inputs: placeholders, labels, options, batches, errors, files, pipelines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import BatchFeature, PreTrainedTokenizerFast, pipeline

from hub_model.media_omniv_med import Clip
from hub_model.modeling_omniv_med import OmniVMedForConditionalGeneration
from hub_model.processing_omniv_med import MAX_LABELS, OmniVMedProcessor
from hub_model.prompt_omniv_med import MEDIA_TOKEN
from tests.helpers.tiny_models import PROCESSOR_OPTIONS

pytestmark = pytest.mark.usefixtures("one_thread")

Message = dict[str, Any]


def message(*parts: Any) -> list[Message]:
    """One user message: strings are text, arrays are images, pairs are (type, medium)."""
    content = []
    for part in parts:
        if isinstance(part, str):
            content.append({"type": "text", "text": part})
        elif isinstance(part, tuple):
            content.append({"type": part[0], part[0]: part[1]})
        else:
            content.append({"type": "image", "image": part})
    return [{"role": "user", "content": content}]


def apply(processor: OmniVMedProcessor, messages: list, **options: Any) -> BatchFeature:
    return processor.apply_chat_template(
        messages,
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs=options,
    )


def changing_clip(frames: int, kind: str = "volume", spacing: float = 2.5) -> Clip:
    """A clip of noise, in which nothing repeats."""
    pixels = np.random.default_rng(frames).integers(0, 256, (frames, 24, 16, 3), dtype=np.uint8)
    positions = np.arange(frames) * spacing
    return Clip(pixels, kind, positions, (1.0, 1.0) if kind == "volume" else (0.0, 0.0), frames)


def still_clip(frames: int, changes: tuple[int, ...] = ()) -> Clip:
    """A volume whose frames repeat, but for those in `changes`, which begin something new at every place."""
    shades = np.cumsum([t in changes for t in range(frames)]) * 60 % 256
    pixels = np.zeros((frames, 24, 16, 3), np.uint8) + shades.astype(np.uint8)[:, None, None, None]
    return Clip(pixels, "volume", np.arange(frames) * 2.5, (1.0, 1.0), frames)


def placeholders(inputs: BatchFeature, processor: OmniVMedProcessor) -> int:
    return int((inputs["input_ids"] == processor.image_token_id).sum())


# Placeholders and labels


def test_every_kind_gets_one_placeholder_for_each_kept_token(processor, picture, film):
    volume = np.zeros((4, 16, 16), np.float32)
    volume[2:] = np.random.default_rng(0).normal(size=(16, 16))
    for part in (picture(), ("video", film()), ("volume", volume)):
        inputs = apply(processor, message(part, "What is it?"))
        assert placeholders(inputs, processor) == int(inputs["keep_mask"].sum())
        frames, rows, columns = inputs["grid_thw"][0].tolist()
        assert len(inputs["keep_mask"]) == frames * rows * columns // 4
        assert inputs["pixel_values"].shape == (frames * rows * columns, 3 * 4 * 4)
        assert len(inputs["frame_positions"]) == frames
        assert inputs["merge_sizes"].tolist() == [2]


def test_the_prompt_reads_as_the_template_says_behind_who_answers(processor, tokenizer, picture):
    inputs = apply(processor, message("Before.", picture(), "After."))
    system, rest = tokenizer.decode(inputs["input_ids"][0]).split("<|im_end|>\n", 1)
    assert system.startswith("<|im_start|>system\nYou are OmniV-Med") and "not a physician" in system
    assert rest == (
        f"<|im_start|>user\nBefore.<|vision_start|>{MEDIA_TOKEN * 6}<|vision_end|>After.<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_a_system_message_of_the_user_s_own_stands_in_the_place_of_the_default_one(processor, tokenizer):
    own = [{"role": "system", "content": "Answer in one word."}, {"role": "user", "content": "What is it?"}]
    text = processor.apply_chat_template(own, tokenize=False)
    assert text == "<|im_start|>system\nAnswer in one word.<|im_end|>\n<|im_start|>user\nWhat is it?<|im_end|>\n"


def test_only_frames_that_keep_tokens_are_labelled(processor):
    processed = processor.process_clip(still_clip(6, changes=(3,)))
    assert processed.labels == ("0.0 mm", "", "", "7.5 mm", "", "")
    assert processor.placeholder_text(processed) == f"0.0 mm{MEDIA_TOKEN * 6}7.5 mm{MEDIA_TOKEN * 6}"


@pytest.mark.parametrize(("kind", "label"), [("volume", "2.5 mm"), ("video", "2.5 s"), ("image", "")])
def test_labels_are_in_the_unit_of_the_kind(processor, kind, label):
    assert processor.process_clip(changing_clip(2, kind)).labels[1] == label


def test_the_wording_of_labels_is_an_option(tokenizer):
    wording = {"video_label": "Time {position}s:", "volume_label": "", "frame_separator": ",", "max_labels": None}
    processor = OmniVMedProcessor(tokenizer, **PROCESSOR_OPTIONS, **wording)
    video = processor.process_clip(changing_clip(MAX_LABELS + 2, "video", 1.5))
    assert video.labels[:2] == ("Time 0.0s:", ",Time 1.5s:")
    assert all(label.startswith(",Time") for label in video.labels[1:])
    volume = processor.process_clip(still_clip(6, changes=(3,)))
    assert volume.labels == ("", "", "", ",", "", "")


def test_volumes_and_videos_may_have_larger_tokens_than_pictures(tokenizer, picture):
    options = PROCESSOR_OPTIONS | {"merge_size": 1, "max_frame_tokens": 24}
    processor = OmniVMedProcessor(tokenizer, **options, clip_merge_size=2)
    film = {"source": np.stack([picture(1), picture(2)]), "kind": "video"}
    inputs = processor(text=MEDIA_TOKEN * 2, clips=[picture(), film], prune_rule="none")
    assert inputs["merge_sizes"].tolist() == [1, 2]
    assert inputs["grid_thw"].tolist() == [[1, 6, 4], [2, 6, 4]]
    assert inputs["keep_mask"].numel() == placeholders(inputs, processor) == 24 + 2 * 6


@pytest.mark.parametrize("frames", [1, 2, 3, 7, 50])
def test_all_frames_of_a_clip_share_its_tokens(tokenizer, frames):
    processor = OmniVMedProcessor(tokenizer, **PROCESSOR_OPTIONS, max_clip_tokens=24)
    rows, columns = processor.process_clip(changing_clip(frames)).grid
    assert frames * rows * columns <= max(24, frames)
    assert rows * columns <= 12


def test_an_unknown_way_to_resize_is_refused(tokenizer):
    with pytest.raises(ValueError, match="resample must be one of"):
        OmniVMedProcessor(tokenizer, resample="nearest")


@pytest.mark.parametrize("frames", [MAX_LABELS, MAX_LABELS + 1, 2 * MAX_LABELS, 50])
def test_labels_of_long_clips_are_thinned_evenly(processor, frames):
    labels = processor.process_clip(changing_clip(frames)).labels
    labelled = [index for index, label in enumerate(labels) if label]
    assert MAX_LABELS / 2 < len(labelled) <= MAX_LABELS
    assert labelled[0] == 0
    assert len(set(np.diff(labelled))) == 1


def test_what_changes_after_a_still_stretch_has_its_label(processor):
    clip = still_clip(6 * MAX_LABELS, (41, 42, 43, 59))
    labels = processor.process_clip(clip).labels
    labelled = [index for index, label in enumerate(labels) if label]
    assert {0, 41, 59} <= set(labelled), "the first frame that is kept after a pause"
    assert 42 not in labelled and 43 not in labelled, "a label for each sixth of the frames is enough"


def test_frames_that_all_have_one_time_have_one_label(processor):
    clip = replace(changing_clip(20, "video"), positions=np.zeros(20))
    assert sum(map(bool, processor.process_clip(clip).labels)) == 1


@given(kept=st.lists(st.booleans(), min_size=1, max_size=80), step=st.floats(0.04, 30))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_clip_has_more_labels_than_are_allowed(processor, kept, step):
    positions = np.arange(len(kept)) * step
    clip = replace(changing_clip(len(kept), "video"), positions=positions)
    keep_mask = torch.tensor(kept)[:, None]
    keep_mask[0] = True
    labelled = [index for index, label in enumerate(processor._labels(clip, keep_mask)) if label]
    assert len(labelled) <= MAX_LABELS and labelled[0] == 0


@pytest.mark.parametrize("clip", [changing_clip(5), still_clip(9, (2, 6)), changing_clip(40, "video"), still_clip(1)])
def test_the_counted_tokens_are_those_in_the_prompt(processor, tokenizer, clip):
    processed = processor.process_clip(clip)
    ids = processor(text=f"<|vision_start|>{MEDIA_TOKEN}<|vision_end|>", clips=[processed])["input_ids"][0].tolist()
    begin, end = tokenizer.convert_tokens_to_ids(["<|vision_start|>", "<|vision_end|>"])
    assert ids.index(end) - ids.index(begin) - 1 == processed.tokens_after
    assert processed.tokens_before == len(clip.frames) * 6
    assert processed.tokens_after == int(processed.pruned.keep_mask.sum()) + processed.label_tokens
    assert processed.reduction == pytest.approx(1 - processed.tokens_after / processed.tokens_before)


def test_labels_are_charged_to_the_reduction(processor):
    processed = processor.process_clip(changing_clip(4))
    assert processed.pruned.keep_mask.all()
    assert processed.reduction < 0


def test_the_page_sees_frames_and_their_reconstruction(processor):
    processed = processor.process_clip(still_clip(4, changes=(2,)))
    assert processed.shown_frames().shape == (4, 24, 16, 3)
    assert np.array_equal(processed.reconstructed_frames(), processed.shown_frames())


def test_the_true_shape_of_the_body_is_kept(processor):
    clip = Clip(np.zeros((1, 16, 16, 3), np.uint8), "volume", np.zeros(1), (3.0, 1.0), 1)
    processed = processor.process_clip(clip)
    rows, columns = processed.grid
    assert rows > columns
    assert processed.patch_spacing == pytest.approx((48 * 16 / (rows * columns)) ** 0.5 / 2)


def test_a_video_has_no_spacing(processor):
    clip = Clip(np.zeros((1, 16, 16, 3), np.uint8), "video", np.zeros(1), (0.3, 0.3), 1)
    assert processor.process_clip(clip).patch_spacing == 0.0


# Several media, several conversations


def test_media_of_mixed_kinds_come_in_reading_order(processor, picture, film):
    conversation = message(("video", film(1, frames=3)), picture(2, 16, 16), "Compare.")
    conversation += [{"role": "assistant", "content": "With what?"}]
    conversation += message(("volume", changing_clip(2)), "This.")
    inputs = apply(processor, conversation)
    assert inputs["grid_thw"].tolist() == [[3, 6, 4], [1, 4, 4], [2, 6, 4]]
    assert inputs["frame_positions"].tolist() == [0.0, 1.0, 2.0, 0.0, 0.0, 2.5]
    alone = apply(processor, message(picture(2, 16, 16)))
    assert torch.equal(inputs["pixel_values"][72:88], alone["pixel_values"])
    text = processor.tokenizer.decode(inputs["input_ids"][0])
    assert text.index("2.0 s") < text.index("Compare.") < text.index("2.5 mm") < text.index("This.")


def test_a_batch_is_its_conversations_padded_on_the_left(processor, tokenizer, picture, film):
    conversations = [message("Only text."), message(picture(), "One?"), message(("video", film()), picture(1), "Two?")]
    together = apply(processor, conversations)
    alone = [apply(processor, conversation) for conversation in conversations]
    for row, mask, single in zip(together["input_ids"], together["attention_mask"], alone, strict=True):
        length = single["input_ids"].shape[1]
        assert torch.equal(row[-length:], single["input_ids"][0])
        assert mask.tolist() == [0] * (len(row) - length) + [1] * length
        assert (row[:-length] == tokenizer.pad_token_id).all()
    for name in ("pixel_values", "grid_thw", "keep_mask", "frame_positions"):
        assert torch.equal(together[name], torch.cat([single[name] for single in alone if name in single]))


def test_text_alone_has_no_visual_inputs(processor):
    for content in ("What is CT?", [{"type": "text", "text": "What is CT?"}]):
        inputs = apply(processor, [{"role": "user", "content": content}])
        assert set(inputs) == {"input_ids", "attention_mask"}


def test_a_medium_may_be_anything_that_can_be_read(processor, picture, tmp_path):
    path = tmp_path / "picture.png"
    Image.fromarray(picture()).save(path)
    expected = apply(processor, message(picture()))
    clip = processor.load(picture())
    for medium in (path, str(path), path.read_bytes(), Image.open(path), clip):
        assert torch.equal(apply(processor, message(("image", medium)))["pixel_values"], expected["pixel_values"])
    named = [{"role": "user", "content": [{"type": "image", "path": str(path)}]}]
    assert torch.equal(apply(processor, named)["pixel_values"], expected["pixel_values"])


def test_a_part_may_name_modality_and_spacing(processor):
    part = {"type": "volume", "volume": np.full((3, 16, 16), -1000, np.int16), "modality": "CT", "spacing": (5, 2, 2)}
    inputs = apply(processor, [{"role": "user", "content": [part]}])
    assert inputs["frame_positions"].tolist() == [0.0, 5.0, 10.0]
    assert inputs["patch_spacing"].tolist() == [8.0]
    assert (inputs["pixel_values"] < -0.75).all()  # air is near black in the bone window, black in the others


def test_images_and_videos_may_come_as_pipelines_pass_them(processor, picture, film):
    text = [f"A {MEDIA_TOKEN}", f"B {MEDIA_TOKEN}"]
    images = processor(text=text, images=[[picture(0)], [picture(1)]])
    assert images["grid_thw"].tolist() == [[1, 6, 4], [1, 6, 4]]
    videos = processor(text=text[0], videos=film())
    assert videos["grid_thw"].tolist() == [[4, 6, 4]]


def test_tensors_may_be_numpy_arrays(processor, picture):
    inputs = processor(text=MEDIA_TOKEN, images=picture(), return_tensors="np")
    assert isinstance(inputs["pixel_values"], np.ndarray)
    assert isinstance(inputs["input_ids"], np.ndarray)


# Options of one call


def drifting_clip() -> Clip:
    """A volume that brightens by 4 of 255 (0.031 in [-1, 1]) a slice."""
    pixels = np.zeros((20, 24, 16, 3), np.uint8) + (np.arange(20) * 4).astype(np.uint8)[:, None, None, None]
    return Clip(pixels, "volume", np.arange(20.0), (1.0, 1.0), 20)


@pytest.mark.parametrize(
    ("options", "frames_kept"),
    [
        ({}, 5),  # 0.1: every fourth
        ({"prune_threshold": 0.02}, 20),
        ({"prune_threshold": 0.05}, 10),
        ({"prune_rule": "previous"}, 1),
        ({"prune_rule": "none"}, 20),
        ({"prune_threshold": 1.0, "peak_threshold": 0.05}, 10),
        ({"keep_ratio": 0.1}, 2),
        ({"max_visual_tokens": 13}, 2),
        ({"max_visual_tokens": 6}, 1),
    ],
    ids=str,
)
def test_pruning_options_by_call(processor, options, frames_kept):
    inputs = apply(processor, message(("volume", drifting_clip())), **options)
    assert inputs["grid_thw"].tolist() == [[20, 6, 4]]
    assert int(inputs["keep_mask"].sum()) == 6 * frames_kept
    assert placeholders(inputs, processor) == 6 * frames_kept


@pytest.mark.parametrize(
    ("options", "grid", "most"), [({}, [1, 6, 4], 4), ({"max_visual_tokens": 2}, [1, 4, 2], 2)], ids=str
)
def test_a_single_picture_is_pruned_within_itself_and_a_budget_shrinks_it(processor, options, grid, most):
    pixels = np.zeros((24, 16, 3), np.uint8)
    pixels[8:, 8:] = np.arange(128, dtype=np.uint8).reshape(16, 8, 1) * 2
    clip = Clip(pixels[None], "image", np.zeros(1), (0.0, 0.0), 1)
    inputs = apply(processor, message(("image", clip)), prune_rule="spatial", **options)
    assert inputs["grid_thw"].tolist() == [grid]
    kept = int(inputs["keep_mask"].sum())
    assert 1 <= kept <= most
    assert placeholders(inputs, processor) == kept


def test_media_in_one_batch_are_pruned_as_if_alone(processor, film, picture):
    media = [("video", film(frames=5)), ("image", picture(seed=1)), ("image", picture(seed=2))]
    options = {"prune_rule": "spatial", "prune_threshold": 0.7}
    together = apply(processor, message(*media, "What?"), **options)["keep_mask"]
    alone = [apply(processor, message(medium, "What?"), **options)["keep_mask"] for medium in media]
    assert torch.equal(together, torch.cat(alone))
    assert not together.all()


@pytest.mark.parametrize("stage", ["language", "encoder"])
def test_a_model_answers_about_what_is_pruned_within_a_frame(processor, model, film, picture, stage):
    media = [("video", film(frames=5)), ("image", picture(seed=1))]
    inputs = apply(processor, message(*media, "What?"), prune_rule="spatial", prune_threshold=0.7)
    first = inputs["keep_mask"][: inputs["grid_thw"][0, 1:].prod() // 4]
    assert not first.all()
    with torch.no_grad():
        assert model(**inputs, prune_stage=stage).logits.isfinite().all()


@pytest.mark.parametrize("rule", ["anchor", "spatial"])
def test_every_step_of_the_threshold_changes_how_much_of_the_example_is_kept(processor, rule):
    wide = OmniVMedProcessor(processor.tokenizer, min_frame_tokens=16, max_frame_tokens=16, prune_rule=rule)
    clip = wide.load("examples/media/ct_volume.nii.gz")
    steps = [wide.process_clip(clip, prune_threshold=step / 50) for step in range(1, 16)]
    kept = [int(processed.pruned.keep_mask.sum()) for processed in steps]
    assert kept == sorted(set(kept), reverse=True)


def test_the_tighter_of_two_budgets_counts(processor):
    for ratio, budget in ((0.1, 100), (0.5, 12)):
        inputs = apply(processor, message(("volume", drifting_clip())), keep_ratio=ratio, max_visual_tokens=budget)
        assert int(inputs["keep_mask"].sum()) <= 12


@pytest.mark.parametrize(
    ("options", "frames"), [({"max_frames": 3}, 3), ({"fps": 2.0}, 20), ({"fps": 1.0}, 10), ({"num_frames": 4}, 4)]
)
def test_sampling_options_by_call(processor, film, options, frames):
    part = {"type": "video", "video": film(frames=20), "spacing": 0.5}
    inputs = apply(processor, [{"role": "user", "content": [part]}], **{"fps": 2.0, **options})
    assert inputs["grid_thw"][0, 0] == frames


@pytest.mark.parametrize("options", [{"max_visual_tokens": 4}, {"max_visual_tokens": 1}, {"keep_ratio": 0.05}], ids=str)
def test_a_budget_below_one_frame_lowers_the_resolution(processor, options):
    clip = changing_clip(6)
    budget = options.get("max_visual_tokens", 1)
    processed = processor.process_clip(clip, **options)
    rows, columns = processed.grid
    assert rows * columns <= budget
    assert int(processed.pruned.keep_mask.sum()) <= budget
    assert "Frames were reduced" in processed.notes[-1]
    inputs = apply(processor, message(("volume", clip)), **options)
    assert 1 <= placeholders(inputs, processor) <= budget


def test_options_of_a_call_do_not_stay(processor):
    before = apply(processor, message(("volume", drifting_clip())))
    apply(processor, message(("volume", drifting_clip())), prune_rule="none", max_frames=2)
    assert torch.equal(apply(processor, message(("volume", drifting_clip())))["keep_mask"], before["keep_mask"])


# Errors


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"prune_treshold": 0.2}, "prune_treshold"),
        ({"images_kwargs": {"max_frames": 2}}, "images_kwargs"),
        ({"prune_rule": "nearest"}, "nearest"),
        ({"keep_ratio": 0.0}, "keep_ratio"),
        ({"keep_ratio": 1.5}, "keep_ratio"),
        ({"max_visual_tokens": 0}, "max_visual_tokens"),
        ({"max_frames": 0}, "max_frames"),
        ({"max_frames": None}, "max_frames must be a number"),
        ({"fps": None}, "fps must be a number"),
        ({"fps": 0}, "fps"),
        ({"prune_rule": "none", "max_visual_tokens": 7}, "exceed 7"),
    ],
    ids=str,
)
def test_an_impossible_option_is_told(processor, film, options, words):
    with pytest.raises(ValueError, match=words):
        apply(processor, message(("video", film())), **options)


@pytest.mark.parametrize("text", [None, []])
def test_no_text_is_told(processor, text):
    with pytest.raises(ValueError, match="one prompt or more"):
        processor(text=text)


def test_an_unknown_option_is_told_without_media_too(processor):
    with pytest.raises(ValueError, match="visual options are prune_rule"):
        apply(processor, message("Hello."), prune_treshold=0.2)


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ({"type": "audio", "audio": "a.wav"}, "'audio' is not known"),
        ({"type": "image"}, "needs its file or array under the key 'image'"),
        ({"type": "volume", "image": "x.png"}, "under the key 'volume'"),
        ({"image": "x.png"}, "'type'"),
        ("x.png", "'type'"),
        ({"type": "image", "image": "no-such-file.png"}, "does not exist"),
        ({"type": "image", "image": "https://somewhere/x.png"}, "not fetched"),
    ],
    ids=str,
)
def test_wrong_content_is_told(processor, part, words):
    with pytest.raises(ValueError, match=words):
        apply(processor, [{"role": "user", "content": [part, {"type": "text", "text": "What is it?"}]}])


def test_a_placeholder_in_the_text_of_a_user_is_told(processor, picture):
    for parts in ([f"What is {MEDIA_TOKEN}?"], [picture(), f"What is {MEDIA_TOKEN}?"]):
        with pytest.raises(ValueError, match=r"media placeholders <\|media_pad\|>, but \d media"):
            apply(processor, message(*parts))


def test_media_without_a_placeholder_are_told(processor, picture):
    with pytest.raises(ValueError, match=r"0 media placeholders .* but 1 media"):
        processor(text="What is it?", images=picture())


def test_truncation_that_cuts_visual_tokens_is_told(processor, picture):
    with pytest.raises(ValueError, match="raise max_length or set max_visual_tokens"):
        apply(processor, message(picture()), truncation=True, max_length=8)
    assert apply(processor, message("word " * 99), truncation=True, max_length=8)["input_ids"].shape == (1, 8)


def test_audio_is_refused(processor):
    with pytest.raises(ValueError, match="audio"):
        processor(text="Listen.", audio=[np.zeros(10)])


# Files and pipelines


@pytest.fixture
def saved(
    tmp_path: Path,
    tokenizer: PreTrainedTokenizerFast,
    processor: OmniVMedProcessor,
    make_model: Callable[..., OmniVMedForConditionalGeneration],
) -> Path:
    """A folder with a tiny model and a processor whose every option differs from the default."""
    options = {"patch_size": 4, "merge_size": 2, "min_frame_tokens": 4, "max_frame_tokens": 12, "max_frames": 5}
    options |= {"fps": 2.5, "prune_rule": "previous", "prune_threshold": 0.2, "peak_threshold": 0.4}
    options |= {"keep_ratio": 0.5, "max_visual_tokens": 40}
    OmniVMedProcessor(tokenizer, chat_template=processor.chat_template, **options).save_pretrained(tmp_path)
    make_model(temporal_window=2, prune_stage="encoder").save_pretrained(tmp_path)
    return tmp_path


def test_a_processor_survives_its_files(saved, processor, film):
    loaded = OmniVMedProcessor.from_pretrained(saved)
    assert (loaded.max_frames, loaded.fps, loaded.prune_rule, loaded.prune_threshold) == (5, 2.5, "previous", 0.2)
    assert (loaded.peak_threshold, loaded.keep_ratio, loaded.max_visual_tokens) == (0.4, 0.5, 40)
    assert (loaded.patch_size, loaded.merge_size, loaded.min_frame_tokens, loaded.max_frame_tokens) == (4, 2, 4, 12)
    same = {"max_frames": 64, "fps": 1.0, "prune_rule": "anchor", "prune_threshold": 0.1, "peak_threshold": None}
    same |= {"keep_ratio": None, "max_visual_tokens": None}
    expected = apply(processor, message(("video", film()), "What?"))
    found = apply(loaded, message(("video", film()), "What?"), **same)
    assert set(found) == set(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_model_survives_its_files(saved, make_model, processor, film):
    loaded = OmniVMedForConditionalGeneration.from_pretrained(saved).eval()
    model = make_model(temporal_window=2, prune_stage="encoder")
    assert loaded.config.vision_config.temporal_window == 2
    assert loaded.lm_head.weight is loaded.get_input_embeddings().weight
    inputs = apply(processor, message(("video", film()), "What?"))
    with torch.no_grad():
        assert torch.equal(loaded(**inputs).logits, model(**inputs).logits)


def test_the_pipeline_of_transformers_answers(model, processor, picture):
    ask = pipeline("image-text-to-text", model=model, processor=processor)
    image = Image.fromarray(picture())
    chats = [message(("image", image), "What is it?"), message("And what is CT?")]
    options = {"max_new_tokens": 5, "min_new_tokens": 5}
    for chat, output in zip(chats, ask(chats, generate_kwargs=options, return_full_text=False), strict=True):
        inputs = apply(processor, chat)
        sequence = model.generate(**inputs, **options)[0, inputs["input_ids"].shape[1] :]
        assert output[0]["generated_text"] == processor.decode(sequence, skip_special_tokens=True)


def test_slices_without_a_known_spacing_are_not_labelled_in_millimetres(processor, film) -> None:
    known = processor.process_clip(processor.load(film(), kind="volume", spacing=(2.0, 1.0, 1.0)))
    unknown = processor.process_clip(processor.load(film(), kind="volume"))
    assert known.labels[0] == "0.0 mm"
    assert set(unknown.labels) == {""}
    assert unknown.label_tokens == 0
