# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Scaling: the fit finds a law again, the runs go on where they were, the costs are those that a hand computes."""

from __future__ import annotations

import json
import runpy
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data_engine.records import to_record
from tests.helpers.paths import ROOT
from tests.helpers.training_fixtures import QUESTIONS_PER_MEDIUM, write_set
from train.config import ConfigError, StageConfig
from train.conversation_loss import ConversationLoss
from train.dataset.conversations import Conversation, encode_conversation, pack
from train.dataset.prepared_media import MediaCache
from train.memory.plan import PlannedBatch, read_architecture
from train.packed_attention import PACKED
from train.scaling import costs, runs, summary
from train.scaling.flops import step_flops
from train.scaling.law import FittedLaw, Law, draws, fit, leave_one_out, mean_losses

pytestmark = pytest.mark.usefixtures("one_thread")
PARAMETERS, SAMPLES = (one.ravel() for one in np.meshgrid([3e5, 1.5e6, 7e6], [2400.0, 4800.0, 9600.0]))
LAW = Law(floor=0.4, of_parameters=12.0, alpha=0.25, of_samples=90.0, beta=0.55)


# The law


@settings(max_examples=15)
@given(
    floor=st.floats(0.1, 1.0),
    shares=st.tuples(st.floats(0.2, 0.8), st.floats(0.2, 0.8)),
    exponents=st.tuples(st.floats(0.2, 0.8), st.floats(0.2, 0.8)),
)
def test_without_noise_the_law_is_found_again(floor, shares, exponents):
    (of_n, of_d), (alpha, beta) = shares, exponents
    law = Law(floor, of_n * PARAMETERS.mean() ** alpha, alpha, of_d * SAMPLES.mean() ** beta, beta)
    losses = law(PARAMETERS, SAMPLES)
    found = fit(PARAMETERS, SAMPLES, losses)
    np.testing.assert_allclose(found(PARAMETERS, SAMPLES), losses, rtol=1e-4)
    assert (found.alpha, found.beta) == pytest.approx((alpha, beta), abs=0.05)


def test_with_noise_what_is_predicted_is_near_and_the_intervals_hold_the_exponents():
    rng = np.random.default_rng(0)
    tokens = rng.integers(5, 40, 400)
    # A conversation is hard or easy for every model, and a little more so for one than for another.
    hardness = rng.lognormal(0.0, 0.5, len(tokens))
    hardness /= (hardness * tokens).sum() / tokens.sum()
    sums = LAW(PARAMETERS, SAMPLES)[:, None] * hardness * tokens * rng.lognormal(0.0, 0.1, (9, len(tokens)))
    fitted = FittedLaw.of(PARAMETERS, SAMPLES, sums, tokens, redraws=60)
    for name, (low, high) in fitted.intervals().items():
        assert low <= getattr(fitted.law, name) <= high, name
    low, high = fitted.intervals()["beta"]
    assert low < LAW.beta < high
    assert fitted.error < 0.02
    assert np.abs(leave_one_out(PARAMETERS, SAMPLES, mean_losses(sums, tokens))).max() < 0.1
    loss, low, high = fitted.predict(PARAMETERS[-1], SAMPLES[-1])
    assert low < loss < high


def test_a_run_that_is_left_out_does_not_help_to_predict_it():
    losses = LAW(PARAMETERS, SAMPLES)
    errors = leave_one_out(PARAMETERS, SAMPLES, losses)
    np.testing.assert_allclose(errors, 0.0, atol=1e-3)
    losses[-1] *= 2
    assert leave_one_out(PARAMETERS, SAMPLES, losses)[-1] == pytest.approx(-0.5, abs=1e-3)


def test_long_answers_count_by_their_tokens_and_draws_are_the_same_for_all_runs():
    sums, tokens = np.array([[10.0, 1.0], [20.0, 2.0]]), np.array([9, 1])
    assert mean_losses(sums, tokens).tolist() == [1.1, 2.2]
    assert mean_losses(sums, tokens, np.array([1, 1])).tolist() == [1.0, 2.0]
    assert [one.tolist() for one in draws(5, 3)] == [one.tolist() for one in draws(5, 3)]


# The runs


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("built")
    for seed, split in enumerate(("train", "validation")):
        write_set(folder, split, seed)
    return folder


@pytest.fixture
def short(monkeypatch) -> None:
    """Two sizes, both tiny, on few pictures."""
    sizes = runs.Size("small", 32, 1, 32, 1), runs.Size("large", 64, 1, 32, 1)
    monkeypatch.setattr(runs, "SIZES", sizes)
    monkeypatch.setattr(runs, "SHARES", (0.5, 1.0))
    monkeypatch.setattr(runs, "CONVERSATIONS", 8)
    monkeypatch.setattr(summary, "REDRAWS", 8)


def test_the_command_trains_measures_fits_and_repeats_nothing(built, short, tmp_path, monkeypatch, capsys):
    report, figure = tmp_path / "scaling.json", tmp_path / "scaling.png"
    arguments = ["--data", str(built), "--runs", str(tmp_path / "runs"), "--json", str(report), "--figure", str(figure)]
    monkeypatch.setattr("sys.argv", ["scaling", *arguments])
    runpy.run_module("train.scaling", run_name="__main__")
    printed = capsys.readouterr().out
    found = json.loads(report.read_text(encoding="utf-8"))
    assert len(found["runs"]) == 4 + len(summary.MORE_SEEDS)
    assert [row["samples"] for row in found["runs"][:4]] == [4 * QUESTIONS_PER_MEDIUM] * 2 + [
        8 * QUESTIONS_PER_MEDIUM
    ] * 2
    assert found["runs"][0]["parameters"] < found["runs"][1]["parameters"]
    for row in found["runs"]:
        assert 0 < row["low"] <= row["loss"] <= row["high"] < 1.2 * np.log(50_000)
    assert found["held_out"]["conversations"] == 12
    assert len(found["leave_one_out"]) == 4
    assert all("not evidence" in one["worth"] for one in found["extrapolated"])
    assert "predicted from the other" in printed
    assert figure.read_bytes().startswith(b"\x89PNG")
    assert not list((tmp_path / "runs").glob("*/stage/checkpoint-*"))

    def refuse(*_):
        raise AssertionError("a run that is done was trained again")

    monkeypatch.setattr(runs, "run_stage", refuse)
    runpy.run_module("train.scaling", run_name="__main__")
    again = json.loads(report.read_text(encoding="utf-8"))
    assert again == found


def test_a_folder_with_a_run_of_another_configuration_is_refused(built, short, tmp_path):
    run = runs.Run(runs.SIZES[0], 0.5)
    done = runs.measured_run(run, built, tmp_path, 8)
    assert runs.measured_run(run, built, tmp_path, 8) == done
    with pytest.raises(ConfigError, match="another configuration"):
        runs.measured_run(run, built, tmp_path, 12)
    with pytest.raises(ConfigError, match="12 media"):
        runs.measured_run(run, built, tmp_path, 100)


def test_smaller_parts_lie_within_larger_ones(built, tmp_path):
    for count in (3, 6):
        assert runs.write_part(built, tmp_path / str(count), count) == (count * QUESTIONS_PER_MEDIUM, count)
    small, large = ((tmp_path / name / "train.jsonl").read_text().splitlines() for name in ("3", "6"))
    assert large[: len(small)] == small
    record = json.loads(small[0])
    assert (tmp_path / "3" / record["media"][0]["path"]).is_file()


def test_the_held_out_loss_is_that_of_the_recipe_without_its_weights(make_model, processor, built):
    model = make_model()
    model.config.text_config._attn_implementation = PACKED
    records = [json.loads(line) for line in (built / "validation.jsonl").read_text().splitlines()][:3]
    media = MediaCache(processor, None, 1.0)
    items = []
    for record in records:
        one = to_record(record, "record")
        clips = tuple(media.prepare(medium, built) for medium in one.media)
        turn = (one.conversations[0].content, one.conversations[1].content)
        items.append(encode_conversation(Conversation((turn,), clips, (one.media[0].type,)), processor, separate=True))
    sums, tokens = runs.summed_losses(model, pack(items))
    for item, total, count in zip(items, sums, tokens, strict=True):
        assert int((item["labels"] != -100).sum()) == count
        # The recipe's loss of one answer weighs its n tokens by 1/√n and divides by n.
        weighted = ConversationLoss(model)(**pack([item]))["loss"]
        torch.testing.assert_close(total, weighted.detach() * count**1.5, rtol=1e-4, atol=1e-4)


# The costs


def test_hours_are_operations_over_what_a_gpu_does():
    assert costs.gpu_hours(3.6e18, peak=1e15, utilisation=0.5) == pytest.approx(2.0)


def test_conversations_are_counted_by_medium():
    rows = [
        {"source": "pmc-vqa", "records": 300, "media": 200, "disk_gb": 1.0},  # 1.5 a picture: one conversation each
        {"source": "slake", "records": 700, "media": 100, "disk_gb": 1.0},  # 7 a picture: three conversations
        {"source": "mimic-cxr", "records": 60, "media": 100, "disk_gb": 1.0},  # two pictures or one in a record
        {"source": "m3d-vqa-open", "records": 50, "media": 10, "disk_gb": 0.0},  # another source's files
        {"source": "phantoms", "records": 3000, "media": 1000, "disk_gb": 1.0},
    ]
    found = costs.amounts_of(rows, questions=3, reports_alone=False)
    assert found["2d"].conversations == pytest.approx(200 + 300 + 60 + 750)
    assert found["2d"].images == pytest.approx((200 + 300 + 100 + 750) / 1310)
    assert (found["3d"].conversations, found["3d"].media) == pytest.approx((20 + 143, 143))
    reports = costs.amounts_of(rows, questions=3, reports_alone=True)
    assert reports["2d"].conversations == pytest.approx(60 + 0.75 * 0.16 * 3000)


def test_every_source_of_the_full_set_has_a_dimension():
    planned = json.loads((ROOT / "benchmarks/results/data_engine.json").read_text(encoding="utf-8"))["results"]
    assert {row["source"] for row in planned} == costs.DIMENSION_OF.keys() | {costs.GENERATED}
    assert abs(sum(row["records"] for row in planned) - summary.FULL_SAMPLES) < len(planned)


def test_the_media_of_a_conversation_have_the_sources_shapes():
    path = ROOT / "train/configs/1.5b/stage3.yaml"
    stage, architecture = StageConfig.read(path), read_architecture(path)
    words = costs.Words(text=100.0, scored=20.0, label=4.0, kept=0.5, conversations=1)
    volume = costs.mean_batch("3d", words, stage, architecture)
    # 256 pixels are 9.1 tokens of 28 pixels.
    assert (volume.frames, volume.frame_tokens, volume.visual) == (32, 81, 32 * 81 // 2)
    assert volume.length == 32 * 81 // 2 + 100 + 32 * 4
    assert costs.mean_batch("video", words, stage, architecture).visual == 3072
    picture = costs.mean_batch("2d", costs.Words(100.0, 20.0, 0.0, 1.0, 1), stage, architecture)
    assert (picture.patches, picture.length) == (1024, 356)


@pytest.mark.parametrize("recomputed", [False, True])
def test_operations_are_those_that_a_hand_counts(recomputed):
    """Text alone through a language model of two layers: 2 operations a weight and token forwards, twice that back."""
    path = ROOT / "train/configs/1.5b/stage2.yaml"
    stage = StageConfig.read(path, [f"gradient_checkpointing={str(recomputed).lower()}"])
    architecture = read_architecture(path)
    for part in ("text_config", "vision_config"):
        architecture[part]["num_hidden_layers"] = 2
    text = architecture["text_config"]
    hidden = text["hidden_size"]
    shared = text["num_key_value_heads"] * hidden // text["num_attention_heads"]
    weights = 2 * hidden * (hidden + shared) + 3 * hidden * text["intermediate_size"]

    def by_hand(length: int, scored: int) -> int:
        layers = 2 * 2 * (weights * length + 2 * length**2 * hidden)
        # A layer's last product is not computed again: nothing in the backward pass needs what it gives.
        again = layers - 2 * 2 * hidden * text["intermediate_size"] * length if recomputed else 0
        return 3 * layers + again + 3 * 2 * scored * hidden * text["vocab_size"]

    def counted(length: int, scored: int) -> int:
        return step_flops(architecture, stage, PlannedBatch(1, length, 0, scored, 0, 1, 1, True))

    # The difference leaves out the encoder, which a batch without media passes with one patch.
    assert counted(64, 8) - counted(16, 4) == pytest.approx(by_hand(64, 8) - by_hand(16, 4), rel=1e-6)


def test_the_plan_of_costs_adds_up(built, tmp_path, monkeypatch, capsys):
    shallow = json.loads((ROOT / "train/configs/1.5b/model.json").read_text(encoding="utf-8"))
    for part in ("text_config", "vision_config"):
        shallow[part]["num_hidden_layers"] = 1
    monkeypatch.setattr(costs, "SIZES", ("1.5b",))
    monkeypatch.setattr(costs, "CONFIGS", tmp_path)
    shutil.copytree(ROOT / "train/configs/1.5b", tmp_path / "1.5b")
    (tmp_path / "1.5b" / "model.json").write_text(json.dumps(shallow), encoding="utf-8")
    out = tmp_path / "costs.json"
    planned = str(ROOT / "benchmarks/results/data_engine.json")
    monkeypatch.setattr("sys.argv", ["costs", "--data", str(built), "--set-plan", planned, "--json", str(out)])
    costs.main()
    printed, found = capsys.readouterr().out, json.loads(out.read_text(encoding="utf-8"))
    (model,) = found["models"]
    assert model["flops"] == pytest.approx(sum(one["flops"] for one in found["stages"]))
    best, worst = model["gpu_hours"]["H100 SXM"]
    assert worst / best == pytest.approx(5 / 3)
    assert best == pytest.approx(model["flops"] / (0.5 * 989.4e12) / 3600)
    for one in found["stages"]:
        assert one["checkpoint_bytes"] == 36 * one["trained"]
        assert set(one["flops_of_a_conversation"]) == set(one["tokens_of_a_conversation"])
    assert all(line in printed for line in costs.ASSUMPTIONS)
