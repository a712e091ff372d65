# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Encoder pre-training: what a sample teaches, and that facts are learned by classifiers and projector."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from data_engine.phantoms import Sample, generate
from train.dataset.conversations import IGNORED
from train.nano.pretrain import (
    STRUCTURE,
    EncoderWithHeads,
    PretrainConfig,
    SampleDataset,
    collate,
    pretrain,
    shown_frames,
    vary,
)

VOCABULARY = {"lesion": ["no", "yes"], "modality": ["CT", "OCT", "dermoscopy", "endoscopy"]}
VISION = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "patch_size": 14,
    "stem_channels": 8,
    "temporal_window": 4,
    "position_unit": "physical",
}


@pytest.fixture(scope="module")
def volume() -> Sample:
    return generate("CT", "volume", np.random.default_rng(1))


@pytest.fixture(scope="module")
def video() -> Sample:
    return generate("endoscopy", "video", np.random.default_rng(1))


def test_a_clip_shows_all_slices_of_a_volume_and_a_video_at_the_rate_of_the_processor(volume, video) -> None:
    assert len(shown_frames(volume)) == len(volume.frames)
    seconds = video.positions[shown_frames(video)]
    assert seconds[0] == video.positions[0]
    gap = float(np.median(np.diff(video.positions)))
    assert np.all(np.diff(seconds) >= 0.25 - gap - 1e-6)


def test_an_item_is_what_the_encoder_takes_and_depends_on_seed_and_index_alone(volume, video) -> None:
    dataset = SampleDataset([volume, video], VOCABULARY, 8, seed=4, clips=1.0)
    for index in range(8):
        item, again = dataset[index], dataset[index]
        frames, rows, columns = item["grid_thw"][0].tolist()
        assert item["pixel_values"].shape == (frames * rows * columns, 3 * 14 * 14)
        assert item["keep_mask"].shape == (frames * rows * columns // 4,)
        assert item["keep_mask"][: rows * columns // 4].all(), "the first frame is whole"
        assert float(item["pixel_values"].abs().max()) <= 1
        assert all(torch.equal(item[name], again[name]) for name in item)


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1), st.sampled_from((0, 255, None)))
def test_varied_frames_stay_in_range(seed, level) -> None:
    rng = np.random.default_rng(seed)
    frames = np.full((2, 30, 40, 3), level, np.uint8) if level is not None else rng.integers(0, 256, (2, 30, 40, 3))
    varied = vary(frames.astype(np.uint8), 42, 63, rng)
    assert varied.shape == (2, 3, 42, 63)
    assert varied.isfinite().all()
    assert float(varied.abs().max()) <= 1


@pytest.mark.parametrize("seed", range(12))
def test_where_a_lesion_is_said_to_be_follows_stretch_and_margins(seed) -> None:
    """A white square on black is its own map: however the picture is shown, its patches and the map agree."""
    cells = np.zeros((1, 16, 16), np.uint8)
    cells[0, 3:9, 8:13] = 255
    frames = np.repeat(np.kron(cells, np.ones((7, 7), np.uint8))[..., None], 3, axis=-1)
    sample = Sample(frames, "image", np.zeros(1), (1.0, 1.3), {"modality": "CT", "lesion": "yes"}, cells)
    item = SampleDataset([sample], VOCABULARY, 1, seed, clips=0.0)[0]
    brightness = item["pixel_values"].mean(dim=1)
    brightness = (brightness - brightness.min()) / (brightness.max() - brightness.min())
    assert torch.corrcoef(torch.stack([brightness, item["lesions"].flatten()]))[0, 1] > 0.97


def test_a_sample_that_does_not_say_where_its_lesion_lies_does_not_teach_it(make_model, tokenizer, video) -> None:
    nowhere = Sample(video.frames, video.kind, video.positions, video.pixel_spacing, video.facts, None)
    heads = EncoderWithHeads(make_model(**VISION), tokenizer, VOCABULARY).eval()
    outputs = heads(**collate([SampleDataset([nowhere], VOCABULARY, 1, seed=0, clips=1.0)[0]]))
    assert outputs["pointed"].tolist() == [IGNORED]
    outputs["loss"].backward()
    assert not heads.lesion_head.weight.grad.any()


@pytest.mark.parametrize("seed", range(6))
def test_a_token_shows_the_smallest_outlined_structure_that_holds_its_centre(seed) -> None:
    """A white square on black is what is outlined: bright tokens are named, dark ones lie in the body around it."""
    frames = np.zeros((1, 112, 112, 3), np.uint8)
    frames[:, 21:63, 56:91] = 255
    outlined = (("liver", (56 / 112, 21 / 112, 91 / 112, 63 / 112)), ("body", (0.0, 0.0, 1.0, 1.0)))
    sample = Sample(frames, "image", np.zeros(1), (0.0, 0.0), {"modality": "CT"}, structures=outlined)
    vocabulary = {**VOCABULARY, STRUCTURE: ["body", "liver"]}
    item = SampleDataset([sample], vocabulary, 1, seed, clips=0.0)[0]
    patches = item["pixel_values"].mean(dim=1).view(-1, 4).mean(dim=1)
    named = item["structures"]
    assert set(named.tolist()) <= {IGNORED, 0, 1}
    assert patches[named == 1].min() > patches[named == 0].median()
    assert (named == 1).any()


def test_structures_are_learned_token_by_token(make_model, tokenizer) -> None:
    frames = np.zeros((1, 112, 112, 3), np.uint8)
    frames[:, :, 56:] = 255
    halves = (("liver", (0.5, 0.0, 1.0, 1.0)), ("spleen", (0.0, 0.0, 0.5, 1.0)))
    sample = Sample(frames, "image", np.zeros(1), (0.0, 0.0), {"modality": "CT"}, structures=halves)
    vocabulary = {"modality": ["CT", "MRI"], STRUCTURE: ["liver", "spleen"]}
    torch.manual_seed(0)
    heads = EncoderWithHeads(make_model(**VISION), tokenizer, vocabulary)
    dataset = SampleDataset([sample], vocabulary, 60, 0, clips=0.0)
    optimizer = torch.optim.AdamW(heads.parameters(), lr=3e-3)
    for step in range(15):
        heads(**collate([dataset[4 * step + place] for place in range(4)]))["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
    named = heads.eval()(**collate([dataset[place] for place in range(4)]))["named"]
    assert named[named != IGNORED].float().mean() > 0.9


def test_a_missing_fact_is_not_scored_and_a_known_one_is_numbered(video) -> None:
    without = Sample(video.frames, video.kind, video.positions, video.pixel_spacing, {"modality": "endoscopy"})
    labels = SampleDataset([without], VOCABULARY, 1, seed=0, clips=1.0)[0]["labels"]
    assert labels.tolist() == [[IGNORED, 3]]


def test_a_token_that_is_a_word_is_read_as_that_word(make_model, tokenizer, video) -> None:
    model = make_model(**VISION)
    heads = EncoderWithHeads(model, tokenizer, VOCABULARY).eval()
    batch = collate([SampleDataset([video], VOCABULARY, 1, seed=0, clips=1.0)[0]])
    for place, expected in ((1, [1, None]), (4, [None, 2])):  # "abnormal", "dermoscopy"
        shown = heads.fact_embeddings.centre + heads.fact_embeddings.directions[place]
        model.model.projector.forward = lambda tokens, *_, shown=shown: shown.expand(len(tokens), -1)
        read = heads(**batch)["predictions"][0, 1].tolist()
        assert all(wanted in (None, got) for wanted, got in zip(expected, read, strict=True))


def test_what_a_token_says_beside_the_true_words_is_punished(make_model, tokenizer, video) -> None:
    heads = EncoderWithHeads(make_model(**VISION), tokenizer, VOCABULARY)
    labels, counts = torch.tensor([[1, 3], [IGNORED, 2]]), torch.tensor([2, 1])  # "abnormal", "endoscopy"; "dermoscopy"
    abnormal, dermoscopy, endoscopy = (heads.fact_embeddings.directions[place] for place in (1, 4, 5))
    mixture = torch.nn.functional.normalize(abnormal + 2 * endoscopy, dim=0)
    true = torch.stack([mixture, endoscopy, dermoscopy])
    unsaid = heads._unexplained_share(true, labels, counts)
    assert 0 <= unsaid < 0.1
    assert heads._unexplained_share(true.roll(1, dims=0), labels, counts) > unsaid + 0.2


@pytest.mark.slow
def test_pretraining_learns_to_tell_two_modalities_apart(make_model, tokenizer, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("train.nano.pretrain.HELD_OUT", 128)
    training = [generate(name, "image", np.random.default_rng(i)) for i in range(12) for name in ("OCT", "dermoscopy")]
    model = make_model(**VISION)
    before = model.model.projector.readout[0].weight.clone()
    config = PretrainConfig(
        seed=0, steps=150, projector_steps=15, batch_size=8, workers=1, learning_rate=5e-3, clips=0.0
    )
    pretrain(model, tokenizer, training, training, tmp_path, config)
    for part in ("encoder", "projector"):
        metrics = json.loads((tmp_path / part / "eval_results.json").read_text(encoding="utf-8"))
        for way in ("classified", "read"):
            assert metrics[f"eval_modality_{way}"] > 0.9 > 0.6 > metrics["eval_modality_majority"]
        assert 0 <= metrics["eval_pointing_game"] <= 1
    encoder = load_file(tmp_path / "encoder" / "checkpoint-150" / "model.safetensors")
    for name, tensor in model.model.vision_model.named_parameters():
        assert torch.equal(tensor, encoder[f"vision_model.{name}"]), "at the end the projector learns alone"
    assert not torch.equal(encoder["projector.readout.0.weight"], model.model.projector.readout[0].weight)
    again = make_model(**VISION)
    pretrain(again, tokenizer, training, training, tmp_path, config)
    for mine, theirs in zip(model.model.vision_model.parameters(), again.model.vision_model.parameters(), strict=True):
        assert torch.equal(mine, theirs), "a finished run goes on from its last checkpoint, which is its end"
    assert not torch.equal(before, model.model.projector.readout[0].weight)
