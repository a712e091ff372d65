# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The recipe: what a stage trains, its loss, what a kill costs (nothing), and that assembly gives the trained model."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch import nn
from transformers import PreTrainedTokenizerFast

from data_engine.build import BuildConfig
from hub_model.modeling_omniv_med import OmniVMedForConditionalGeneration
from hub_model.processing_omniv_med import OmniVMedProcessor
from tests.helpers.paths import ROOT
from tests.helpers.training_fixtures import write_set
from tests.helpers.waiting import wait_until
from train.added_token_embeddings import separate_added_token_embeddings
from train.checkpoints.trained_tensors import load_parts, merge_lora, read_trained_tensors
from train.config import ConfigError, StageConfig
from train.conversation_loss import ConversationLoss, answer_weights, summed_cross_entropy
from train.dataset.conversations import pack
from train.dataset.text_replay import PROMPTS, TOPICS, USEFUL, replay_conversations
from train.nano.run import CONFIGS, DATA_CONFIGS, STAGES, read_settings
from train.stage import (
    CHECKPOINT_FILE,
    TRAINED_FILE,
    added_tokens,
    build_stage,
    build_trainer,
    last_whole_checkpoint,
    run_stage,
)
from train.trainable_parts import keep_frozen_weights_in_bfloat16, part_of

pytestmark = pytest.mark.usefixtures("one_thread")
RATES = {"encoder": 1e-2, "projector": 1e-2, "language": 1e-2, "embeddings": 1e-2}


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("built")
    write_set(folder, "train", seed=0)
    write_set(folder, "validation", seed=1)
    return folder


@pytest.fixture
def make_config(tiny, built, tmp_path):
    """Builds a stage's configuration for the tiny model; keyword arguments change it."""

    def make(output: str = "run", **changes: Any) -> StageConfig:
        fields = {
            "output": tmp_path / output,
            "model": tiny,
            "seed": 3,
            "data": {"folders": [built], "shares": {"2d": 0.5, "3d": 0.25, "video": 0.25}},
            "learning_rates": RATES,
            "lora": {"rank": 2},
            "steps": 4,
            "batch_size": 4,
            "drop_visual_tokens": 0.3,
            "pruning": {"prune_rule": "anchor", "prune_threshold": 0.1},
            "bf16": False,
            "log_every": 1,
        }
        return StageConfig.model_validate(fields | changes)

    return make


def state_after(config: StageConfig) -> dict[str, torch.Tensor]:
    """Runs a stage; the tensors it left."""
    return load_file(run_stage(config))


def prompt_of(tiny: Path, built: Path) -> dict[str, torch.Tensor]:
    processor = OmniVMedProcessor.from_pretrained(tiny, trust_remote_code=True)
    content = [{"type": "image", "image": str(next((built / "media/train").glob("*.png")))}]
    content.append({"type": "text", "text": "Which colour?"})
    return processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=True, return_dict=True
    )


# What is trained


@pytest.mark.parametrize("trained", ["projector", "encoder", "language", "embeddings"])
def test_a_rate_of_zero_freezes_a_part(make_config, trained) -> None:
    config = make_config(learning_rates=dict.fromkeys(RATES, 0.0) | {trained: 1e-2}, steps=2)
    stage = build_stage(config)
    before = {name: parameter.detach().clone() for name, parameter in stage.model.named_parameters()}
    build_trainer(stage, config).train()
    moved = {name for name, parameter in stage.model.named_parameters() if not torch.equal(parameter, before[name])}
    assert moved
    assert {part_of(name) for name in moved} == {trained}
    assert all("lora_" in name or "added_embeddings" in name for name in moved if "language_model" in name)


def test_without_lora_the_language_model_is_trained_in_full_and_a_folder_is_left(make_config, built) -> None:
    config = make_config(lora=None, steps=2)
    stage = build_stage(config)
    before = {name: parameter.detach().clone() for name, parameter in stage.model.named_parameters()}
    folder = run_stage(config)
    model = OmniVMedForConditionalGeneration.from_pretrained(folder).eval()
    moved = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert {part_of(name) for name in moved} == set(RATES)
    assert any("q_proj" in name and "language_model" in name for name in moved)
    assert OmniVMedProcessor.from_pretrained(folder, trust_remote_code=True).max_frame_tokens == 16
    assert model(**prompt_of(folder, built)).logits.isfinite().all()


def test_the_stage_of_pruning_becomes_the_default_of_the_model_that_was_trained_with_it(make_config) -> None:
    folder = run_stage(make_config(lora=None, steps=1, prune_stage="encoder"))
    assert OmniVMedForConditionalGeneration.from_pretrained(folder).config.vision_config.prune_stage == "encoder"


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_added_embeddings_are_trained_as_they_would_be_among_the_others(make_model, tied) -> None:
    plain, split = make_model(), make_model()
    if not tied:
        for model in (plain, split):
            model.lm_head.weight = nn.Parameter(model.lm_head.weight.detach().clone())
    separate_added_token_embeddings(split, 3)
    words = split.get_input_embeddings().num_embeddings
    ids = torch.tensor([[5, words - 3, 7, words - 1, 9]])
    outputs = [model(input_ids=ids, labels=ids) for model in (plain, split)]
    torch.testing.assert_close(outputs[1].logits, outputs[0].logits)
    for output in outputs:
        output.loss.backward()
    wanted = plain.get_input_embeddings().weight.grad[-3:]
    torch.testing.assert_close(split.get_input_embeddings().added_embeddings.grad, wanted, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_frozen_weights_in_bfloat16_are_no_less_exact_than_autocast(make_model) -> None:
    ids = torch.arange(5, 45)[None]
    outputs = {}
    for way in ("float32", "autocast", "bfloat16"):
        model = make_model().requires_grad_(False)
        separate_added_token_embeddings(model, 3)
        if way == "bfloat16":
            keep_frozen_weights_in_bfloat16(model)
            assert model.model.vision_model.post_layernorm.weight.dtype == torch.float32
        with torch.autocast("cpu", torch.bfloat16, enabled=way != "float32"):
            outputs[way] = model(input_ids=ids).logits.float()
    errors = {way: (outputs[way] - outputs["float32"]).square().mean().sqrt() for way in ("autocast", "bfloat16")}
    assert 0 < errors["bfloat16"] < 2 * errors["autocast"] < 0.1 * outputs["float32"].std()


# The loss


def test_the_chunked_loss_and_its_gradients_are_those_of_the_plain_one() -> None:
    torch.manual_seed(0)
    hidden, head = torch.randn(50, 8, requires_grad=True), nn.Linear(8, 30)
    labels, weights = torch.randint(0, 30, (50,)), torch.rand(50)
    results = []
    for positions in (1000, 7):
        hidden.grad, head.weight.grad = None, None
        loss = summed_cross_entropy(head, hidden, labels, weights, positions)
        loss.backward()
        results.append((loss.detach(), hidden.grad.clone(), head.weight.grad.clone()))
    plain = (weights * nn.functional.cross_entropy(head(hidden), labels, reduction="none")).sum()
    torch.testing.assert_close(results[1], results[0])
    torch.testing.assert_close(results[1][0], plain.detach())


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 9)), min_size=1, max_size=5))
def test_an_answer_weighs_the_square_root_of_its_length(questions_and_answers) -> None:
    scored = torch.cat([torch.tensor([False] * asked + [True] * answer) for asked, answer in questions_and_answers])
    weights = answer_weights(scored).split([answer for _, answer in questions_and_answers])
    for part, (_, answer) in zip(weights, questions_and_answers, strict=True):
        assert float(part.sum()) == pytest.approx(answer**0.5)
        assert part.min() == part.max()


def test_long_sequences_never_have_all_their_logits(make_model) -> None:
    class Watched(nn.Linear):
        most = 0

        def forward(self, input):
            Watched.most = max(Watched.most, len(input))
            return super().forward(input)

    head = Watched(8, 30)
    summed_cross_entropy(
        head, torch.randn(50, 8, requires_grad=True), torch.zeros(50).long(), torch.ones(50), 7
    ).backward()
    assert Watched.most == 7


def test_accumulated_passes_make_the_step_that_one_pass_makes(make_config) -> None:
    whole = state_after(make_config("whole"))
    parts = state_after(make_config("parts", batch_size=1, gradient_accumulation=4))
    for name, tensor in whole.items():
        torch.testing.assert_close(parts[name], tensor, atol=2e-3, rtol=2e-2, msg=name)
    losses = [
        [e["loss"] for e in json.loads((path / "trainer_state.json").read_text())["log_history"] if "loss" in e]
        for path in (last_whole_checkpoint(make_config(name).output) for name in ("whole", "parts"))
    ]
    assert losses[1] == pytest.approx(losses[0], abs=1e-4)


def test_a_batch_of_text_alone_reaches_no_encoder_weight_but_all_take_part(make_config, tmp_path) -> None:
    replay = tmp_path / "replay.json"
    replay.write_text(json.dumps([["What is two and two?", "Four."]]))
    data = {"folders": [str(next(iter(make_config().data.folders)))], "shares": {"text": 1.0}, "text_replay": replay}
    stage = build_stage(make_config(data=data))
    item = stage.training[0]
    item.pop("unreadable")
    loss = ConversationLoss(stage.model).train()
    loss(**pack([item]))["loss"].backward()
    grads = {part_of(n): p.grad for n, p in stage.model.named_parameters() if p.requires_grad and p.grad is not None}
    assert all(p.grad is not None for p in stage.model.parameters() if p.requires_grad)
    assert not grads["encoder"].any()


def test_what_is_replayed_are_the_answers_of_the_model_as_it_was(make_config, tiny, tmp_path, monkeypatch) -> None:
    # A random model writes on to the last token; and several batches show as much as all 800 prompts.
    smaller = {"LONGEST_ANSWER": 6, "LONGEST_PROSE": 6, "BATCH_SIZE": 16}
    smaller |= {"PROMPTS": PROMPTS[:20], "USEFUL": USEFUL[:2], "TOPICS": TOPICS[:3]}
    for name, value in smaller.items():
        monkeypatch.setattr(f"train.dataset.text_replay.{name}", value)
    path = tmp_path / "replay.json"
    data = {"folders": make_config().data.folders, "shares": {"2d": 0.5, "text": 0.5}, "text_replay": path}
    stage = build_stage(make_config(data=data))
    model = OmniVMedForConditionalGeneration.from_pretrained(tiny).eval()
    assert replay_conversations(model, stage.processor, tmp_path / "own.json") == stage.training.in_memory["text"]


# Kill and resume


def command(config: StageConfig, tmp_path: Path) -> tuple[list[str], dict[str, str]]:
    """A stage as a process of its own."""
    path = tmp_path / f"{config.output.name}.yaml"
    path.write_text(yaml.safe_dump(json.loads(config.model_dump_json())), encoding="utf-8")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return [sys.executable, "-m", "train.run", "--config", str(path)], environment


def test_a_killed_and_resumed_run_has_the_losses_and_weights_of_one_never_killed(make_config, tmp_path) -> None:
    options = {"steps": 12, "checkpoint_every": 3, "evaluation": {"records": 4, "every": 4}}
    whole, killed = make_config("whole", **options), make_config("killed", **options)
    run_stage(whole)

    line, environment = command(killed, tmp_path)
    blocked = killed.output / "checkpoint-6" / CHECKPOINT_FILE
    blocked.parent.mkdir(parents=True)
    os.mkfifo(blocked)  # whoever writes the second checkpoint waits for a reader that never comes
    process = subprocess.Popen(line, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_until(lambda: last_whole_checkpoint(killed.output), process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    blocked.unlink()
    assert not (killed.output / TRAINED_FILE).exists()
    reached = json.loads((last_whole_checkpoint(killed.output) / "trainer_state.json").read_text())["global_step"]
    assert reached == 3

    subprocess.run(line, cwd=ROOT, env=environment, check=True, capture_output=True)
    histories = [
        json.loads((last_whole_checkpoint(one.output) / "trainer_state.json").read_text())["log_history"]
        for one in (whole, killed)
    ]
    for field in ("loss", "eval_loss", "grad_norm", "learning_rate"):
        values = [[(entry["step"], entry[field]) for entry in history if field in entry] for history in histories]
        assert values[1] == values[0], field
    first, second = (load_file(one.output / TRAINED_FILE) for one in (whole, killed))
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def test_half_a_checkpoint_is_not_gone_on_from(tmp_path) -> None:
    for step, text in ((3, '{"global_step": 3}'), (6, '{"global_step": 6'), (9, None)):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        if text is not None:
            (folder / "trainer_state.json").write_text(text)
    assert last_whole_checkpoint(tmp_path) == tmp_path / "checkpoint-3"


def test_a_checkpoint_without_all_trained_tensors_is_refused(make_config) -> None:
    config = make_config(steps=2, checkpoint_every=1)
    run_stage(config).unlink()
    newest = last_whole_checkpoint(config.output)
    saved = load_file(newest / CHECKPOINT_FILE)
    lost = saved.popitem()[0]
    save_file(saved, newest / CHECKPOINT_FILE)
    with pytest.raises(ConfigError, match=rf"lacks 1 of the trained tensors, such as {re.escape(lost)}"):
        run_stage(config)
    shutil.rmtree(newest)
    assert run_stage(config).exists(), "the run goes on from the checkpoint before"


def test_a_finished_run_is_left_alone_and_one_of_another_configuration_refused(make_config) -> None:
    result = run_stage(make_config(steps=1))
    written = result.stat().st_mtime_ns
    assert run_stage(make_config(steps=1)) == result
    assert result.stat().st_mtime_ns == written
    assert run_stage(make_config(steps=1, log_every=5)) == result  # what changes nothing may change
    with pytest.raises(ConfigError, match="another configuration"):
        run_stage(make_config(steps=2))


# From stage to stage, and into the model


def test_assembling_the_trained_tensors_gives_the_trained_model(make_config, tiny, built) -> None:
    config = make_config()
    torch.manual_seed(config.seed)
    stage = build_stage(config)
    build_trainer(stage, config).train()
    result = run_stage(make_config("again"))  # the same seed gives the same tensors
    tensors, scaling = read_trained_tensors(result)
    assembled = OmniVMedForConditionalGeneration.from_pretrained(tiny)
    load_parts(assembled, tensors)
    merge_lora(assembled, tensors, scaling)
    resumed = build_stage(make_config("next", start=result)).model
    inputs = prompt_of(tiny, built)
    with torch.no_grad():
        wanted = stage.model.eval()(**inputs).logits
        tolerance = {"atol": 2e-3 * float(wanted.abs().max()), "rtol": 0.0}  # the file holds float16
        torch.testing.assert_close(assembled.eval()(**inputs).logits, wanted, **tolerance)
        torch.testing.assert_close(resumed.eval()(**inputs).logits, wanted, **tolerance)
        assert not torch.allclose(
            OmniVMedForConditionalGeneration.from_pretrained(tiny)(**inputs).logits, wanted, **tolerance
        )


def test_stage_one_starts_from_encoder_and_projector_alone(make_config, make_model, tmp_path) -> None:
    donor = make_model()
    for parameter in donor.parameters():
        parameter.data.add_(0.1)
    start = tmp_path / "pretrained.safetensors"
    held = {n: t for n, t in donor.state_dict().items() if n.startswith(("model.vision_model.", "model.projector."))}
    save_file(held, start)
    stage = build_stage(make_config(lora=None, learning_rates=RATES | {"language": 0.0}, start=start))
    state = stage.model.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in held.items())
    save_file({name: tensor[..., :1].clone() for name, tensor in held.items()}, start)
    with pytest.raises(ValueError, match="another architecture"):
        build_stage(make_config(start=start))


def test_factors_of_another_rank_are_refused(make_config) -> None:
    result = run_stage(make_config("first", steps=1))
    with pytest.raises(ValueError, match="another rank"):
        build_stage(make_config(start=result, lora={"rank": 3}))
    with pytest.raises(ValueError, match="needs `lora`"):
        build_stage(make_config(start=result, lora=None, learning_rates=RATES | {"language": 0.0}))


def test_added_tokens_are_counted_at_the_end_of_the_vocabulary(tokenizer) -> None:
    assert added_tokens(tokenizer, len(tokenizer)) == 3
    assert added_tokens(tokenizer, len(tokenizer) + 64) == 0, "as in a converted model, which was trained with its own"
    with pytest.raises(ConfigError, match="assemble"):
        added_tokens(PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel({"CT": 0}, "CT"))), 1)


def test_a_run_leaves_a_figure_logs_and_its_speed(make_config) -> None:
    config = make_config(evaluation={"records": 4, "every": 2})
    run_stage(config)
    assert (config.output / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert list(config.output.rglob("events.out.tfevents*"))
    history = json.loads((last_whole_checkpoint(config.output) / "trainer_state.json").read_text())["log_history"]
    assert any(entry.get("tokens_per_second", 0) > 0 for entry in history)
    assert all(entry["unreadable_records"] == 0 for entry in history if "loss" in entry)


# Configuration


@pytest.mark.parametrize("path", sorted(ROOT.glob("train/configs/*/stage?.yaml")), ids=lambda p: "/".join(p.parts[-2:]))
def test_the_stage_files_can_be_followed(path: Path) -> None:
    config = StageConfig.read(path)
    number = int(path.stem[-1])
    assert config.output.name == path.stem
    assert config.learning_rates["projector"] > 0
    assert (config.data.shares.get("3d", 0) > 0) == (number != 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("stepz=3", "the field stepz is not known; known are .*steps"),
        ("data.sharez={}", "the field data.sharez is not known; known are .*shares"),
        ("data.shares={2d: 0.5}", "add up to 1"),
        ("data.shares={4d: 1.0}", "unknown share"),
        ("data.shares={text: 1.0}", "text_replay"),
        ("pruning={prune_treshold: 0.1}", "prune_treshold"),
        ("learning_rates={encoder: 1}", "one number each"),
        ("epochs=2", "either steps or epochs"),
        ("attention=flash_attention_2", "separate_questions"),
        ("steps", "name=value"),
    ],
)
def test_a_wrong_configuration_is_refused_in_a_sentence(change: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        StageConfig.read(ROOT / "train" / "configs" / "nano" / "stage1.yaml", [change])


def test_what_the_nano_asks_of_a_gpu_fits_its_stages_and_names_a_set_that_can_be_built() -> None:
    on_gpu, pretraining = (read_settings(name) for name in ("gpu", "pretrain"))
    stages = {name: StageConfig.read(CONFIGS / "nano" / f"{name}.yaml", on_gpu[name]) for name in STAGES}
    assert on_gpu.keys() == {*pretraining, *stages}
    assert all(on_gpu[part].keys() <= pretraining[part].keys() for part in pretraining)
    (folder,) = {folder for stage in stages.values() for folder in stage.data.folders}
    mini = BuildConfig.read(DATA_CONFIGS / "mini.yaml")
    larger = BuildConfig.read(DATA_CONFIGS / f"{folder.name}.yaml")
    assert (larger.seed, larger.generated["test"]) == (mini.seed, mini.generated["test"]), "the same test split"
    assert larger.generated["train"] > mini.generated["train"]
