# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The fine-tuning example on a tiny model: a folder of one's own goes in, a model and a table come out."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from data_engine.records import read_records
from examples.finetune.__main__ import build_records, finetune, table
from examples.finetune.example_data import COUNTS, TEAMS, write_example
from hub_model.modeling_omniv_med import OmniVMedForConditionalGeneration
from tests.helpers.training_fixtures import write_set

pytestmark = pytest.mark.usefixtures("one_thread")
QUICK = ["steps=2", "batch_size=2", "bf16=false", "lora.rank=2"]


@pytest.fixture
def own_folder(tmp_path, picture) -> Path:
    """Conversations in LLaVA's format about a few pictures."""
    folder = tmp_path / "own"
    for split, count in (("train", 4), ("test", 2)):
        (folder / split).mkdir(parents=True)
        lines = []
        for number in range(count):
            name = f"{split}/{number}.png"
            Image.fromarray(picture(seed=number + 10 * (split == "test"), height=64, width=64)).save(folder / name)
            said = [{"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "noise"}]
            lines.append(json.dumps({"image": name, "conversations": said}))
        (folder / f"{split}.jsonl").write_text("\n".join(lines))
    return folder


def test_a_folder_of_ones_own_gives_a_model_and_a_table(tiny, own_folder, tmp_path) -> None:
    shown = finetune(own_folder, tiny, tmp_path / "out", QUICK)
    assert shown.splitlines()[2].startswith("| What is it? | 2 | ")
    before = OmniVMedForConditionalGeneration.from_pretrained(tiny)
    after = OmniVMedForConditionalGeneration.from_pretrained(tmp_path / "out" / "merged")
    name = "model.language_model.layers.0.self_attn.q_proj.weight"
    assert not torch.equal(after.state_dict()[name], before.state_dict()[name])
    assert finetune(own_folder, tiny, tmp_path / "out", QUICK) == shown  # done already


def test_records_are_taken_as_they_are_volumes_too(tiny, tmp_path) -> None:
    folder = tmp_path / "records"
    write_set(folder)
    assert build_records(folder, tmp_path / "unused") == folder
    assert not (tmp_path / "unused").exists()
    assert finetune(folder, tiny, tmp_path / "out", QUICK) == ""  # there is no test split to ask
    assert (tmp_path / "out" / "merged" / "model.safetensors").exists()


def test_the_example_writes_pictures_that_the_data_engine_takes(tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(COUNTS, "train", 8)
    monkeypatch.setitem(COUNTS, "test", 4)
    write_example(tmp_path / "example")
    records = build_records(tmp_path / "example", tmp_path / "data")
    answers = [record.answer for record in read_records(records / "train.jsonl")]
    assert sorted(answers) == sorted([*TEAMS, *TEAMS.values()] * 2)
    assert len(list(read_records(records / "test.jsonl"))) == 8
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="conversations"):
        build_records(tmp_path / "empty", tmp_path / "none")
    shutil.rmtree(tmp_path / "example")


def test_the_table_has_a_line_for_each_question() -> None:
    lines = table({"A?": (1, 4), "B?": (2, 2)}, {"A?": (4, 4), "B?": (1, 2)}).splitlines()
    assert lines[2:] == ["| A? | 4 | 25% | 100% |", "| B? | 2 | 100% | 50% |"]
