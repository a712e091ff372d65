# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Asking a model a benchmark: stopped and resumed, in one process or two, unreadable media told, pruning passed on."""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)

from data_engine.adapters.base import MediaStore
from data_engine.generated import SamplePlan, records_of
from data_engine.ledger import Ledger
from data_engine.records import REPORTS, write_jsonl
from evaluation import run as run_module
from evaluation.benchmarks import read_benchmark
from evaluation.run import ask_all, load, longest_answer, parse_pruning
from tests.helpers.loopback import free_port
from tests.helpers.paths import ROOT
from tests.helpers.waiting import PATIENCE

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """A built test split; one of its pictures is damaged."""
    folder = tmp_path_factory.mktemp("built")
    store = MediaStore(folder)
    write_jsonl(
        (r for index in range(5) for r in records_of(SamplePlan(1, "test", index), store)), folder / "test.jsonl"
    )
    damaged = folder / "media/phantoms/test/000/000003.png"
    damaged.write_bytes(damaged.read_bytes()[:200])
    return folder


def command(tiny: Path, data: Path, out: Path, *more: str) -> list[str]:
    options = {"--model": tiny, "--benchmark": "generated", "--data": data, "--out": out}
    return ["evaluation.run", *(str(word) for option in options.items() for word in option), *more]


def execute(launcher: list[str], arguments: list[str]) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        [*launcher, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=PATIENCE
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory, tiny, data) -> Path:
    """The result of a run in one process that nothing disturbed."""
    out = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys, "argv", command(tiny, data, out))
        run_module.main()
    return out


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_every_question_is_answered_and_unreadable_media_count_as_wrong(whole, data):
    settings, *answered = rows(whole / "predictions.jsonl")
    assert settings["settings"]["benchmark"] == "generated"
    assert len(answered) == len(rows(data / "test.jsonl"))
    damaged = [row for row in answered if row["image"].endswith("000003.png")]
    assert damaged
    assert all(row["prediction"] == "" and row["error"] for row in damaged)
    assert not any("error" in row for row in answered if row not in damaged)
    scores = json.loads((whole / "scores.json").read_text())
    assert scores["n_open"] + scores["n_closed"] + scores["n_choice"] == len(answered)
    assert [one["id"] for one in scores["unreadable_media"]] == [row["id"] for row in damaged]


@pytest.mark.slow
def test_two_processes_of_accelerate_give_the_same_answers(whole, tiny, data, tmp_path):
    launcher = [str(Path(sys.executable).parent / "accelerate"), "launch", "--multi_gpu", "--num_processes", "2"]
    launcher += ["--num_machines", "1", "--main_process_port", str(free_port())]
    launcher += ["--mixed_precision", "no", "--dynamo_backend", "no", "-m"]
    done = execute(launcher, command(tiny, data, tmp_path))
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in tmp_path.glob("part-*")) == ["part-000.jsonl", "part-001.jsonl"]
    assert (tmp_path / "predictions.jsonl").read_text() == (whole / "predictions.jsonl").read_text()
    assert (tmp_path / "scores.json").read_text() == (whole / "scores.json").read_text()


def test_a_run_goes_on_where_it_was_stopped_and_asks_nothing_twice(whole, tiny, data, tmp_path, monkeypatch):
    questions, _ = read_benchmark("generated", data, tmp_path, None)
    begun = (whole / "part-000.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (tmp_path / "part-000.jsonl").write_text("".join(begun[:5]) + begun[5][:20], encoding="utf-8")
    asked = []
    generate = run_module.generate
    monkeypatch.setattr(
        run_module, "generate", lambda m, p, batch, *a: asked.extend(batch) or generate(m, p, batch, *a)
    )
    model, processor = load(str(tiny), {}, "cpu")
    with Ledger(tmp_path / "part-000.jsonl", json.loads(begun[0])["settings"]) as ledger:
        ask_all(model, processor, questions, ledger, benchmark="generated", prompts="plain", batch_size=3)
    assert not {one.id for one in asked} & {json.loads(line)["id"] for line in begun[1:5]}
    settings, *answered = rows(tmp_path / "part-000.jsonl")
    in_order = sorted(answered, key=lambda row: [one.id for one in questions].index(row["id"]))
    assert [settings, *in_order] == rows(whole / "predictions.jsonl")


def test_a_blind_run_asks_the_same_questions_about_other_media(tiny, data, tmp_path, monkeypatch):
    shutil.copytree(data / "media", tmp_path / "media")
    kept = [row for row in rows(data / "test.jsonl") if row["dimension"] == "2d"]
    pictures = tmp_path / "pictures.jsonl"
    pictures.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
    monkeypatch.setattr(sys, "argv", command(tiny, pictures, tmp_path / "out", "--blind"))
    run_module.main()
    settings, *blind = rows(tmp_path / "out/predictions.jsonl")
    assert settings["settings"]["blind"] is True
    assert [row["id"] for row in blind] == [row["id"] for row in kept]
    for row, true in zip(blind, kept, strict=True):
        assert (row["question"], row["answer"]) == tuple(turn["content"] for turn in true["conversations"])
        assert row["image"] != true["media"][0]["path"]


def test_one_volume_alone_has_no_blind_baseline(tiny, data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", command(tiny, data, tmp_path, "--blind", "--limit", "5"))
    with pytest.raises(SystemExit) as caught:
        run_module.main()
    assert "Only one sample has the media" in str(caught.value)


def test_only_reports_may_be_long(data, tmp_path):
    asked, _ = read_benchmark("generated", data, tmp_path, None)
    lengths = {one.task: longest_answer("generated", one) for one in asked}
    report = next(one for one in asked if one.task == REPORTS)
    assert lengths.pop(REPORTS) == 64
    assert set(lengths.values()) == {16}
    assert (longest_answer("m3d-cap", report), longest_answer("vqa-rad", report)) == (512, 96)
    assert longest_answer("vqa-rad", next(one for one in asked if one.task != REPORTS)) == 32


@pytest.fixture(scope="module")
def neighbour(tmp_path_factory, tokenizer) -> Path:
    """A tiny LLaVA with random weights: another family's model, which reads images through its own processor."""
    folder = tmp_path_factory.mktemp("llava")
    words = copy.deepcopy(tokenizer)
    words.add_special_tokens({"additional_special_tokens": ["<image>"]})
    words.padding_side = "right"
    template = (
        "{% for m in messages %}{% for c in m['content'] %}"
        "{% if c['type'] == 'image' %}<image>{% else %}{{ c['text'] }}{% endif %}{% endfor %}{% endfor %}"
    )
    pixels = CLIPImageProcessorPil(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
    LlavaProcessor(
        image_processor=pixels,
        tokenizer=words,
        patch_size=14,
        vision_feature_select_strategy="default",
        chat_template=template,
        num_additional_image_tokens=1,
    ).save_pretrained(folder)
    small = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2, "initializer_range": 0.5}
    torch.manual_seed(0)
    LlavaForConditionalGeneration(
        LlavaConfig(
            vision_config=CLIPVisionConfig(num_hidden_layers=2, image_size=28, patch_size=14, **small),
            text_config=LlamaConfig(
                vocab_size=len(words), num_hidden_layers=1, bos_token_id=1, eos_token_id=2, pad_token_id=2, **small
            ),
            image_token_id=words.convert_tokens_to_ids("<image>"),
        )
    ).save_pretrained(folder)
    return folder


def test_a_neighbours_model_is_asked_by_the_same_command_and_batches_change_nothing(neighbour, data, tmp_path):
    asked = [one for one in read_benchmark("generated", data, tmp_path, None)[0] if one.dimension == "2d"]
    asked = [one for one in asked if not one.media[0].path.endswith("000003.png")][:4]
    model, processor = load(str(neighbour), {}, "cpu")
    together = run_module.generate(model, processor, asked, "plain", 6)
    alone = [run_module.generate(model, processor, [one], "plain", 6)[0] for one in asked]
    assert together == alone
    assert len({length for _, length in together}) > 1, "prompts of one length would need no padding"


def test_pruning_reaches_the_processor_and_leaves_the_configuration_as_it_is(tiny):
    model, processor = load(
        str(tiny), parse_pruning(["prune_rule=none", "keep_ratio=0.5", "prune_stage=encoder"]), "cpu"
    )
    assert (processor.prune_rule, processor.keep_ratio) == ("none", 0.5)
    assert model.config.vision_config.prune_stage == "language"


@pytest.mark.parametrize("stage", ["language", "encoder"])
def test_the_stage_reaches_the_encoder(tiny, data, tmp_path, monkeypatch, stage):
    """Tokens removed before the encoder leave it fewer patches; those removed after it leave it all."""
    asked = [one for one in read_benchmark("generated", data, tmp_path, None)[0] if one.dimension == "3d"][:2]
    model, processor = load(str(tiny), {"keep_ratio": 0.4}, "cpu")
    encoded = []
    model.model.vision_model.embeddings.register_forward_hook(lambda module, inputs, output: encoded.append(output))
    run_module.generate(model, processor, asked, "plain", 2, stage)
    clip = processor.process_clip(processor.load(str(asked[0].folder / asked[0].media[0].path)))
    tokens = clip.pruned.keep_mask.numel() if stage == "language" else int(clip.pruned.keep_mask.sum())
    assert sum(map(len, encoded)) == tokens * processor.merge_size**2


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--pruning", "keep_ratio"], "NAME=VALUE"),
        (["--pruning", "colour=red"], "no pruning option 'colour'"),
        (["--pruning", "prune_stage=late"], "prune_stage is one of language, encoder, not 'late'"),
        (["--data", "/nowhere"], "no folder"),
    ],
)
def test_what_a_user_can_mend_is_said_in_one_sentence(tiny, data, tmp_path, more, message, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", command(tiny, data, tmp_path, *more))
    with pytest.raises(SystemExit) as caught:
        run_module.main()
    assert message in str(caught.value)


def test_other_settings_do_not_go_on_with_an_earlier_run(whole, tiny, data, monkeypatch):
    monkeypatch.setattr(sys, "argv", command(tiny, data, whole, "--pruning", "prune_rule=none"))
    with pytest.raises(SystemExit, match="was begun with"):
        run_module.main()
