# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""A film that is read, cut and encoded in pieces gives what it gives whole, and holds less memory on the way."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from data_engine.sample_media import encode_video
from hub_model.media_omniv_med import MediaError
from hub_model.pruning_noise_omniv_med import estimate_noise, noise_frames, noise_of_pairs
from hub_model.token_pruning_omniv_med import FRAMES_AT_ONCE, StreamingPruner, prune_tokens

pytestmark = pytest.mark.usefixtures("one_thread")

FRAMES = 50
OPTIONS = {"max_frames": 60, "fps": 1.0}


@pytest.fixture(scope="module")
def path(tmp_path_factory, film) -> Path:
    """Fifty seconds at a frame a second, in which half of the frames change a corner."""
    shown = np.repeat(film(frames=FRAMES // 2, height=48, width=32), 2, axis=0)
    written = tmp_path_factory.mktemp("films") / "film.mp4"
    written.write_bytes(encode_video(shown, np.arange(FRAMES, dtype=np.float64), {"crf": "10"}))
    return written


@pytest.mark.parametrize("options", [{}, {"max_visual_tokens": 40}, {"keep_ratio": 0.2}, {"max_frames": 20}])
def test_a_film_in_pieces_is_the_film(processor, path, options):
    options = OPTIONS | options
    read = processor.load(path, max_frames=options["max_frames"], fps=1.0)
    whole = processor.process_clip(read, **options)
    seen: list[tuple[int, int]] = []
    film = processor.process_film(path, lambda *done: seen.append(done), **options)
    count = len(whole.clip.frames)
    assert seen == [(place, count) for place in range(1, count + 1)]
    assert film.tokens.dtype == torch.float16
    torch.testing.assert_close(film.tokens.float(), whole.tokens, atol=2**-11, rtol=0)
    assert (film.grid, film.notes, film.labels) == (whole.grid, whole.notes, whole.labels)
    assert torch.equal(film.pruned.keep_mask, whole.pruned.keep_mask)
    np.testing.assert_array_equal(film.clip.positions, whole.clip.positions)
    assert film.clip.frames.shape == (count, 1, 1, 3)


def test_what_is_no_video_file_is_processed_whole(processor, picture):
    film = processor.process_film(picture())
    assert film.clip.kind == "image" and film.tokens.dtype == torch.float32


def test_a_film_must_be_readable_and_its_options_known(processor, tmp_path):
    with pytest.raises(MediaError, match="does not exist"):
        processor.process_film(tmp_path / "none.mp4")
    with pytest.raises(ValueError, match="Unknown option"):
        processor.process_film(tmp_path / "none.mp4", max_token=3)


@pytest.mark.parametrize("stage", ["language", "encoder"])
def test_tokens_encoded_in_pieces_are_the_same(processor, make_model, path, stage, monkeypatch):
    """In pieces of three windows, with an image beside the film, and windows in which nothing is kept."""
    model = make_model(projector_context=True, temporal_window=4, convolutional_features=True)
    monkeypatch.setattr("hub_model.modeling_omniv_med.FRAMES_AT_ONCE", 12)
    film = processor.process_film(path, **OPTIONS)
    kept = torch.rand(film.pruned.keep_mask.shape, generator=torch.Generator().manual_seed(0)) < 0.5
    kept[4:12] = kept[40:44] = False
    film = replace(film, pruned=replace(film.pruned, keep_mask=kept))
    frame = processor.process_clip(processor.load(np.zeros((24, 16, 3), np.uint8)))
    media = processor.visual_inputs([frame, film])
    with torch.no_grad():
        whole = model.get_image_features(**{**media, "pixel_values": media["pixel_values"].float()}, prune_stage=stage)
    pieces = model.encode_in_pieces(media, stage)["image"].pooler_output
    assert [len(part) for part in pieces] == [len(part) for part in whole.pooler_output]
    for part, expected in zip(pieces, whole.pooler_output, strict=True):
        torch.testing.assert_close(part, expected, atol=1e-4, rtol=1e-4)


def test_the_answer_needs_no_pixels_any_more(processor, make_model, path):
    model = make_model()
    film = processor.process_film(path, **OPTIONS, max_visual_tokens=30)
    prompt = processor.apply_chat_template(
        [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "What is it?"}]}],
        add_generation_prompt=True,
        tokenize=False,
    )
    inputs = processor(text=prompt, clips=[film])
    words = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    encoded = model.encode_in_pieces(inputs)
    asked = {"do_sample": False, "max_new_tokens": 6}
    inputs["pixel_values"] = inputs["pixel_values"].float()
    whole = model.generate(**inputs, **asked)
    assert torch.equal(model.generate(**words, mm_encoder_outputs=encoded, **asked), whole)
    in_chunks = model.generate(**words, mm_encoder_outputs=encoded, prefill_chunk_size=8, **asked)
    assert torch.equal(in_chunks, whole)


def test_the_noise_of_pairs_is_that_of_the_clip():
    tokens = torch.rand(20, 4, 4, 3, 4, 4, generator=torch.Generator().manual_seed(0)) / 50
    pairs = [(tokens[frame], tokens[frame - 1]) for frame in noise_frames(20)]
    assert noise_of_pairs(pairs) == estimate_noise(tokens) > 0
    assert noise_frames(1) == [] and noise_of_pairs([]) == 0.0


def test_a_long_clip_is_pruned_in_spans_as_at_once():
    generator = torch.Generator().manual_seed(0)
    tokens = torch.rand(FRAMES_AT_ONCE + 40, 2, 1, 1, 4, 4, generator=generator).round(decimals=1)
    pruned = prune_tokens(tokens, threshold=0.3)
    at_once = StreamingPruner("anchor", 0.3).judge(tokens)
    assert torch.equal(pruned.keep_mask, at_once.keep_mask)
    assert torch.equal(pruned.stand_in, at_once.stand_in)
