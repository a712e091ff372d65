# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Two real processes over gloo train as one does: the same losses on the same conversations, halved between them.

Once through accelerate with the configuration for FSDP2, which it silently runs as DistributedDataParallel where there
is no GPU, and once with torch's own fully_shard on the layers that the model names. NCCL and GPUs are not touched here.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from data_engine.records import write_jsonl
from tests.helpers.paths import ROOT
from tests.helpers.stage_files import BATCH, STEPS, TOLERANCE, stage_file
from tests.helpers.training_fixtures import write_set
from tests.helpers.two_process_launch import launch_two
from tests.helpers.two_processes import by_hand, under_trainer
from train.config import StageConfig

pytestmark = pytest.mark.usefixtures("one_thread")
CONFIG = ROOT / "train" / "configs" / "accelerate" / "fsdp2.yaml"


@pytest.fixture(scope="module")
def runs(tiny, tmp_path_factory) -> dict[str, Any]:
    """Results of one process with the whole batch, and of each of two processes with half of it."""
    folder = tmp_path_factory.mktemp("two")
    data = folder / "data"
    records = write_set(data, "train", seed=0)
    # One question instead of three about every third medium, so that the halves of a batch differ in scored tokens.
    write_jsonl(
        [one for one in records if int(one.id.split("/")[2]) % 3 or one.id.endswith("/2")], data / "train.jsonl"
    )
    whole = {
        "trainer": under_trainer(StageConfig.read(stage_file(folder, "one", tiny, data, BATCH, {"rank": 2}))),
        "fully_shard": by_hand(StageConfig.read(stage_file(folder, "one_full", tiny, data, BATCH, None)), 1, 0),
    }
    halves = [
        stage_file(folder, "two", tiny, data, BATCH // 2, {"rank": 2}),
        stage_file(folder, "two_full", tiny, data, BATCH // 2, None),
    ]
    arguments = [*map(str, halves), str(folder / "result")]
    launch_two(CONFIG, "tests.helpers.two_processes", arguments, ("--mixed_precision", "no"), ACCELERATE_USE_CPU="true")
    each = [json.loads((folder / f"result.{rank}.json").read_text(encoding="utf-8")) for rank in range(2)]
    return {"one": whole, "two": each}


@pytest.mark.parametrize("way", ["trainer", "fully_shard"])
def test_two_processes_have_the_losses_of_one(runs, way) -> None:
    wanted = runs["one"][way]["losses"]
    assert len(wanted) == STEPS
    assert max(wanted) - min(wanted) > 100 * TOLERANCE  # it learns, so equal losses mean equal updates
    for process in runs["two"]:
        assert process[way]["losses"] == pytest.approx(wanted, abs=TOLERANCE)


def test_gradient_norms_are_those_of_one_process(runs) -> None:
    wanted = runs["one"]["trainer"]["gradient_norms"]
    for process in runs["two"]:
        assert process["trainer"]["gradient_norms"] == pytest.approx(wanted, rel=1e-3)


@pytest.mark.parametrize("way", ["trainer", "fully_shard"])
def test_the_halves_are_uneven_mixed_and_pruned(runs, way) -> None:
    first, second = (process[way]["received"] for process in runs["two"])
    together = runs["one"][way]["received"]
    assert any(a["scored"] != b["scored"] for a, b in zip(first, second, strict=True))
    for a, b, whole in zip(first, second, together, strict=True):
        assert a["scored"] + b["scored"] == whole["scored"]
        assert a["frames"] + b["frames"] == whole["frames"]
        assert min(a["pruned"], b["pruned"]) > 0
        assert 1 in whole["frames"]
        assert max(whole["frames"]) > 1


def test_accelerate_runs_distributed_data_parallel_where_there_is_no_gpu(runs) -> None:
    assert {process["backend"] for process in runs["two"]} == {"gloo"}
    assert {process["trainer"]["wrapper"] for process in runs["two"]} == {"DistributedDataParallel"}
    assert runs["one"]["trainer"]["wrapper"] == "ConversationLoss"


def test_every_trained_parameter_is_sharded_and_every_named_layer_by_itself(runs) -> None:
    for process in runs["two"]:
        assert process["fully_shard"]["layers"] == 4  # two of the encoder, two of the language model
        assert process["fully_shard"]["sharded"] == process["fully_shard"]["trained"] > 20


def test_a_sharded_model_is_restored_from_whole_tensors(runs) -> None:
    for process in runs["two"]:
        assert process["fully_shard"]["next_loss_restored"] == pytest.approx(process["fully_shard"]["next_loss"])
