# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The recipe: what is scored and trained, what a checkpoint restores, and that assembly gives the trained model."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from hub_model.media_omniv_med import Clip
from train.assemble import ADDED_TOKENS, ROOT
from train.data.conversations import (
    IGNORED,
    Conversation,
    ConversationCollator,
    ConversationDataset,
    Mixture,
    encode_conversation,
)
from train.data.phantoms import KINDS_OF, MODALITIES, Sample, generate
from train.data.pool import PoolPlan, SamplePool, build_pool, make_sample
from train.data.text_replay import PROMPTS, replay_conversations
from train.stage import StageConfig, export_trained, run_stage, with_lora
from train.trained_tensors import load_parts, merge_lora, read_trained_tensors

STAGE = StageConfig(
    seed=3,
    steps=4,
    batch_size=2,
    learning_rates={"encoder": 1e-2, "projector": 1e-2, "language": 1e-2, "embeddings": 1e-2},
    lora_rank=2,
    mixture=Mixture(image=0.5, clip=0.3, text=0.2, captions=0.3),
    pruning={"prune_rule": "anchor", "prune_threshold": 0.1},
    checkpoint_steps=2,
)
TEXTS = [Conversation((("What is two and two?", "Four."),))]


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    """One seeded sample of every modality and kind."""
    return [generate(name, kind, np.random.default_rng(5)) for name in MODALITIES for kind in KINDS_OF[name]]


@pytest.fixture
def added_tokens(tokenizer) -> list[int]:
    return tokenizer.convert_tokens_to_ids(list(ADDED_TOKENS))


def film_conversation(film) -> Conversation:
    clip = Clip(film(frames=3), "video", np.arange(3.0), source_frames=3)
    return Conversation((("Which modality?", "ultrasound"), ("Is it moving?", "yes")), clip)


def test_only_the_answers_and_their_end_tokens_are_scored(processor, film) -> None:
    item = encode_conversation(film_conversation(film), processor)
    scored = processor.tokenizer.decode(item["labels"][item["labels"] != IGNORED])
    assert scored == "ultrasound<|im_end|>\nyes<|im_end|>\n"


def test_a_training_prompt_is_the_prompt_of_inference(processor, film) -> None:
    conversation = film_conversation(film)
    question = [{"type": "video", "video": conversation.clip}, {"type": "text", "text": conversation.turns[0][0]}]
    prompt = processor.apply_chat_template(
        [{"role": "user", "content": question}], add_generation_prompt=True, tokenize=True, return_dict=True
    )
    item = encode_conversation(conversation, processor)
    length = prompt["input_ids"].shape[1]
    assert torch.equal(item["input_ids"][:length], prompt["input_ids"][0])
    assert torch.equal(item["pixel_values"], prompt["pixel_values"])


def test_collating_keeps_each_conversation_and_packs_its_media(processor, film, model) -> None:
    items = [encode_conversation(film_conversation(film), processor), encode_conversation(TEXTS[0], processor)]
    batch = ConversationCollator(processor.tokenizer.pad_token_id)(items)
    assert batch["attention_mask"].sum(dim=1).tolist() == [len(item["input_ids"]) for item in items]
    labels = batch.pop("labels")
    together = model(**batch).logits
    alone = model(input_ids=items[1]["input_ids"][None]).logits
    torch.testing.assert_close(together[1, : alone.shape[1]], alone[0], atol=1e-4, rtol=1e-4)
    assert (labels[1, alone.shape[1] :] == IGNORED).all()


def test_an_item_depends_on_seed_and_index_alone(processor, samples) -> None:
    def dataset(seed: int) -> ConversationDataset:
        return ConversationDataset(samples, TEXTS, STAGE.mixture, processor, length=50, seed=seed)

    first, again, other = dataset(1), dataset(1), dataset(2)
    assert torch.equal(first[7]["input_ids"], again[7]["input_ids"])
    assert any(first.conversation(i).turns != other.conversation(i).turns for i in range(5))


def test_the_mixture_is_drawn_as_configured(processor, samples) -> None:
    data = ConversationDataset(samples, TEXTS, STAGE.mixture, processor, length=600, seed=0)
    drawn = [data.conversation(index) for index in range(600)]
    kinds = ["text" if one.clip is None else "image" if one.clip.kind == "image" else "clip" for one in drawn]
    for kind in ("image", "clip", "text"):
        share = getattr(STAGE.mixture, kind)
        assert abs(kinds.count(kind) / 600 - share) < 4 * (share * (1 - share) / 600) ** 0.5


def test_a_rate_of_zero_freezes_a_part_and_the_language_model_itself_never_moves(
    make_model, processor, samples, added_tokens, tmp_path
) -> None:
    model = with_lora(make_model(), STAGE.lora_rank, added_tokens, start=None)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    config = dataclasses.replace(
        STAGE, learning_rates={"encoder": 0.0, "projector": 1e-2, "language": 0.0, "embeddings": 1e-2}
    )
    run_stage(model, processor, {"samples": samples, "texts": TEXTS}, config, tmp_path)
    moved = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved
    assert all("projector." in name or "trainable_tokens_delta" in name for name in moved)


def test_assembling_the_exported_tensors_gives_the_trained_model(
    make_model, processor, samples, added_tokens, tmp_path
) -> None:
    trained = with_lora(make_model(), STAGE.lora_rank, added_tokens, start=None)
    run_stage(trained, processor, {"samples": samples, "texts": TEXTS}, STAGE, tmp_path / "run")
    export_trained(trained, tmp_path / "trained.safetensors")

    tensors, scaling = read_trained_tensors(tmp_path / "trained.safetensors")
    assembled = make_model()
    load_parts(assembled, tensors)
    merge_lora(assembled, tensors, scaling)
    resumed = with_lora(make_model(), STAGE.lora_rank, added_tokens, start=tmp_path / "trained.safetensors")

    item = encode_conversation(
        Conversation((("What?", "CT"),), Clip(samples[0].frames, "image", np.zeros(1))), processor
    )
    inputs = {name: tensor for name, tensor in item.items() if name != "labels"} | {
        "input_ids": item["input_ids"][None]
    }
    with torch.no_grad():
        # The wrapped model itself still computes in bfloat16 after training; the model inside does not.
        wanted = trained.eval().get_base_model()(**inputs).logits
        # The file holds float16, so two thousandths of the largest logit are what rounding can do.
        tolerance = {"atol": 2e-3 * float(wanted.abs().max()), "rtol": 0.0}
        torch.testing.assert_close(assembled(**inputs).logits, wanted, **tolerance)
        torch.testing.assert_close(resumed.eval()(**inputs).logits, wanted, **tolerance)
        assert not torch.allclose(make_model()(**inputs).logits, wanted, **tolerance)


class InterruptedTrainingError(RuntimeError):
    """Stands for a killed process."""


class FailingSamples(list):
    """Samples that interrupt training on their last access."""

    accesses_left = 5

    def __getitem__(self, index):
        if not isinstance(index, slice) and self.armed:
            self.accesses_left -= 1
            if self.accesses_left < 0:
                raise InterruptedTrainingError
        return super().__getitem__(index)

    armed = False


def test_an_interrupted_stage_goes_on_to_the_same_weights(
    make_model, processor, samples, added_tokens, tmp_path
) -> None:
    config = dataclasses.replace(STAGE, steps=6, mixture=Mixture(image=1.0, clip=0.0, text=0.0, captions=1.0))

    def fresh():
        torch.manual_seed(1)
        return with_lora(make_model(), config.lora_rank, added_tokens, start=None)

    whole = fresh()
    run_stage(whole, processor, {"samples": samples, "texts": TEXTS}, config, tmp_path / "whole")

    failing = FailingSamples(samples)
    stopped = fresh()
    dataset_scan = len(samples)  # the dataset looks at every sample once to sort the kinds
    failing.armed, failing.accesses_left = True, dataset_scan + 9
    with pytest.raises(InterruptedTrainingError):
        run_stage(stopped, processor, {"samples": failing, "texts": TEXTS}, config, tmp_path / "stopped")
    resumed = fresh()
    run_stage(resumed, processor, {"samples": samples, "texts": TEXTS}, config, tmp_path / "stopped")
    for (name, wanted), got in zip(whole.named_parameters(), resumed.parameters(), strict=True):
        torch.testing.assert_close(got, wanted, msg=name)


def test_a_stage_file_with_an_unknown_option_is_refused(tmp_path: Path) -> None:
    text = (ROOT / "train" / "configs" / "nano" / "stage1.yaml").read_text(encoding="utf-8")
    wrong = tmp_path / "stage1.yaml"
    wrong.write_text(text.replace("prune_threshold", "prune_treshold"), encoding="utf-8")
    with pytest.raises(ValueError, match="prune_treshold"):
        StageConfig.read(wrong)


@pytest.mark.parametrize("stage", ["stage1", "stage2", "stage3"])
def test_the_stage_files_can_be_read(stage: str) -> None:
    mixture = StageConfig.read(ROOT / "train" / "configs" / "nano" / f"{stage}.yaml").mixture
    assert mixture.image + mixture.clip + mixture.text == pytest.approx(1.0)


def test_a_pool_is_repeatable_resumes_and_refuses_another_plan(tmp_path: Path) -> None:
    plan = PoolPlan(seed=4, images=18, clips=6)
    build_pool(tmp_path, plan, processes=1)
    pool = SamplePool(tmp_path)
    assert [pool[i].kind for i in range(len(pool))].count("image") == 18
    for index in (0, 11, 20):
        fresh = make_sample(plan, index)
        np.testing.assert_array_equal(pool[index].frames, fresh.frames)
        assert pool[index].facts == fresh.facts
    shard = next(tmp_path.glob("shard-?????.npz"))
    before = shard.read_bytes()
    shard.unlink()
    build_pool(tmp_path, plan, processes=1)
    assert shard.read_bytes() == before
    with pytest.raises(ValueError, match="another plan"):
        build_pool(tmp_path, PoolPlan(seed=5, images=18, clips=6), processes=1)


def test_text_replay_answers_by_the_model_itself_and_ends_with_whole_sentences(model, processor, tmp_path) -> None:
    path = tmp_path / "replay.json"
    generated = replay_conversations(model, processor, path)
    assert [one.turns[0][0] for one in generated] == list(PROMPTS)
    assert replay_conversations(None, None, path) == generated  # read back, no model needed
