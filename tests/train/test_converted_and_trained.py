# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""What becomes better with another project's weights here, seen on a converted small model that was trained a while.

Random weights answer alike whatever they see; after some steps on films, volumes and pictures of one colour each the
answers depend on the medium, so that what mixes media up, or prunes what matters, would be seen in them.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from benchmarks.encoder import peak_memory
from data_engine.records import Record
from tests.helpers.foreign_models import write_foreign
from tests.helpers.paths import ROOT
from tests.helpers.tiny_models import PATCH_SIZE
from tests.helpers.training_fixtures import write_set
from train.checkpoints.conversion import convert
from train.config import StageConfig
from train.stage import last_whole_checkpoint, run_stage

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]
STEPS = 60
QUESTION = "Which colour?"
GREEDY = {"max_new_tokens": 4, "do_sample": False}


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> SimpleNamespace:
    """The converted model after training in full with pruning on, the reference that it came from, and unseen media."""
    folder = tmp_path_factory.mktemp("trained")
    theirs = write_foreign(folder / "theirs")
    convert(str(folder / "theirs"), folder / "ours", None, lambda sentence: None)
    write_set(folder / "data", "train", seed=0)
    unseen = write_set(folder / "data", "validation", seed=1)
    changes = [f"data.folders=[{folder / 'data'}]", f"model={folder / 'ours'}", f"output={folder / 'stage'}"]
    changes += ["data.cache=null", "data.workers=0", "data.text_replay=null", "data.separate_questions=true"]
    changes += ["data.shares={2d: 0.4, 3d: 0.3, video: 0.3}", "epochs=null", f"steps={STEPS}", "batch_size=4"]
    changes += ["gradient_accumulation=1", "gradient_checkpointing=false", "bf16=false", "log_every=1"]
    changes += [f"learning_rates.{part}=0.003" for part in ("encoder", "projector", "language", "embeddings")]
    changes += ["evaluation.records=2", f"evaluation.every={STEPS}", f"checkpoint_every={STEPS}"]
    output = run_stage(StageConfig.read(ROOT / "train" / "configs" / "7b" / "stage3.yaml", changes))
    state = json.loads((last_whole_checkpoint(folder / "stage") / "trainer_state.json").read_text(encoding="utf-8"))
    return SimpleNamespace(
        model=AutoModelForImageTextToText.from_pretrained(output, trust_remote_code=True).eval(),
        processor=AutoProcessor.from_pretrained(output, trust_remote_code=True),
        theirs=theirs,
        losses=[entry["loss"] for entry in state["log_history"] if "loss" in entry],
        records=two_of_each([one for one in unseen if one.conversations[0].content == QUESTION]),
        data=folder / "data",
    )


def two_of_each(records: list[Record]) -> list[Record]:
    """Two records about pictures, two about volumes, two about videos, in turns."""
    of_kind = [[one for one in records if one.media[0].type == kind][:2] for kind in ("image", "volume", "video")]
    return [record for records in zip(*of_kind, strict=True) for record in records]


def conversation(record: Record, data: Path) -> list[dict[str, Any]]:
    """The question of a record about its medium."""
    (medium,) = record.media
    content = [{"type": medium.type, "path": str(data / medium.path)}, {"type": "text", "text": QUESTION}]
    return [{"role": "user", "content": content}]


def prepare(trained: SimpleNamespace, records: list[Record], **options: Any) -> dict[str, torch.Tensor]:
    conversations = [conversation(record, trained.data) for record in records]
    return trained.processor.apply_chat_template(
        conversations, add_generation_prompt=True, tokenize=True, return_dict=True, processor_kwargs=options
    )


def answers(trained: SimpleNamespace, inputs: dict[str, torch.Tensor]) -> list[str]:
    new = trained.model.generate(**inputs, **GREEDY)[:, inputs["input_ids"].shape[1] :]
    return trained.processor.batch_decode(new, skip_special_tokens=True)


def test_it_learned_to_look(trained) -> None:
    assert sum(trained.losses[-10:]) < 0.5 * sum(trained.losses[:10])
    assert len(set(answers(trained, prepare(trained, trained.records)))) > 1


@torch.no_grad()
def test_in_a_batch_of_mixed_media_each_answers_as_alone(trained) -> None:
    batch = prepare(trained, trained.records)
    logits = trained.model(**batch).logits[:, -1]
    together = answers(trained, batch)
    for number, record in enumerate(trained.records):
        alone = prepare(trained, [record])
        torch.testing.assert_close(trained.model(**alone).logits[0, -1], logits[number], atol=1e-3, rtol=0)
        assert answers(trained, alone) == together[number : number + 1]


def clip(frames: int, side: int) -> dict[str, torch.Tensor]:
    """A random clip, `side` patches wide and high."""
    return {
        "pixel_values": torch.randn(frames * side**2, 3 * PATCH_SIZE**2),
        "grid_thw": torch.tensor([[frames, side, side]]),
        "merge_sizes": torch.tensor([2]),
    }


@torch.no_grad()
def test_the_encoder_s_memory_does_not_grow_with_the_frames(trained) -> None:
    """Beyond its output. transformers' class holds all frames at once."""
    growth = {}
    for name, model in (("ours", trained.model), ("theirs", trained.theirs)):
        encoder = model.model.vision_model
        encoder(**clip(2, 16))  # what is made once is not counted
        peaks = []
        for frames in (64, 256):
            inputs = clip(frames, 16)
            output = encoder(**inputs).last_hidden_state.nbytes
            peaks.append(peak_memory(lambda inputs=inputs, encoder=encoder: encoder(**inputs)) - output)
        growth[name] = peaks[1] / peaks[0]
    assert growth["ours"] < 1.02
    assert growth["theirs"] > 3.9


def test_pruning_is_bounded(trained) -> None:
    """No removed token is further than the threshold from what stands for it."""
    for record in trained.records:
        read = trained.processor.load(trained.data / record.media[0].path)
        pruned = trained.processor.process_clip(read, prune_threshold=0.1).pruned
        gone = ~pruned.keep_mask
        assert gone.any() == (record.media[0].type != "image")
        assert (pruned.errors[gone] <= pruned.threshold).all()
