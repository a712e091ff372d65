# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The memory plan: its formula against what a step on fake tensors allocates, and what the command says.

Layers have their full width, so that every kind of tensor has its full size; the quick tests have few of them, the slow
ones all. What only a GPU adds (fragments, workspaces) is measured by the test marked gpu.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.helpers.paths import ROOT
from train.config import StageConfig
from train.memory.measurement import measure_step
from train.memory.plan import (
    STRATEGIES,
    MemoryPlan,
    ParameterCounts,
    PlannedBatch,
    advice,
    build_module,
    main,
    memory_size,
    model_config,
    plan,
    plan_stage,
    read_architecture,
)

pytestmark = pytest.mark.usefixtures("one_thread")
CONFIGS = ROOT / "train" / "configs"
TOLERANCE = 0.10
DEVICES = 8


@pytest.fixture
def run(monkeypatch, capsys) -> Callable[..., str]:
    """Calls the command with these arguments; gives what it prints."""

    def call(*arguments) -> str:
        monkeypatch.chdir(ROOT)
        monkeypatch.setattr("sys.argv", ["memory_plan", *map(str, arguments)])
        main()
        return capsys.readouterr().out

    return call


def shallow(size: str, layers: int) -> dict:
    """A size's shapes with a few layers in encoder and language model."""
    architecture = copy.deepcopy(read_architecture(CONFIGS / size / "stage3.yaml"))
    for part in ("text_config", "vision_config"):
        architecture[part]["num_hidden_layers"] = layers
    return architecture


def stage_of(size: str, stage: int, *changes: str) -> StageConfig:
    return StageConfig.read(CONFIGS / size / f"stage{stage}.yaml", changes)


def planned_and_measured(architecture: dict, stage: StageConfig, strategy: str) -> tuple[MemoryPlan, int]:
    """The plan, and the peak of the same step on fake tensors (with DDP's buckets, which do not run on these)."""
    batch = PlannedBatch.of(stage, architecture)
    with torch.device("meta"):
        module = build_module(architecture, stage)
    found = plan(module, batch, stage, strategy, DEVICES)
    tensors = batch.tensors(1, 3 * model_config(architecture).vision_config.patch_size ** 2)
    measured = measure_step(lambda: build_module(architecture, stage), tensors, DEVICES, strategy == "fsdp2")
    return found, measured.total + (found.gathered if strategy == "ddp" else 0)


@pytest.mark.parametrize(
    ("size", "stage", "strategy", "changes"),
    [
        ("1.5b", 1, "fsdp2", ()),
        pytest.param("1.5b", 3, "ddp", ("lora={rank: 64}",), marks=pytest.mark.slow),
        pytest.param("7b", 2, "fsdp2", (), marks=pytest.mark.slow),
        pytest.param("1.5b", 3, "fsdp2", (), marks=pytest.mark.slow),
        pytest.param("1.5b", 3, "ddp", (), marks=pytest.mark.slow),
        pytest.param("1.5b", 3, "fsdp2", ("data.separate_questions=true",), marks=pytest.mark.slow),
        pytest.param("1.5b", 3, "fsdp2", ("gradient_checkpointing=false",), marks=pytest.mark.slow),
        pytest.param("1.5b", 3, "ddp", ("gradient_checkpointing=false",), marks=pytest.mark.slow),
        pytest.param("7b", 3, "fsdp2", (), marks=pytest.mark.slow),
    ],
)
def test_the_formula_agrees_with_a_step_on_fake_tensors(size, stage, strategy, changes) -> None:
    found, measured = planned_and_measured(shallow(size, 2), stage_of(size, stage, *changes), strategy)
    assert found.total == pytest.approx(measured, rel=TOLERANCE)


@pytest.mark.slow
@pytest.mark.parametrize("size", ["1.5b", "7b"])
def test_the_formula_agrees_at_full_size(size) -> None:
    architecture = read_architecture(CONFIGS / size / "stage3.yaml")
    found, measured = planned_and_measured(architecture, stage_of(size, 3), "fsdp2")
    assert found.total == pytest.approx(measured, rel=TOLERANCE)


def test_what_lies_there_all_the_time_is_exact() -> None:
    stage, architecture = stage_of("1.5b", 3), shallow("1.5b", 2)
    with torch.device("meta"):
        module = build_module(architecture, stage)
    numbers = sum(parameter.numel() for parameter in module.parameters())
    batch = PlannedBatch.of(stage, architecture)
    alone, shared = (plan(module, batch, stage, strategy, DEVICES) for strategy in ("ddp", "fsdp2"))
    assert (alone.weights, alone.gradients, alone.optimizer) == (4 * numbers, 4 * numbers, 8 * numbers)
    for name in ("weights", "gradients", "optimizer"):
        assert getattr(shared, name) == getattr(alone, name) // DEVICES
    zero2, zero3 = (plan(module, batch, stage, strategy, DEVICES) for strategy in ("zero2", "zero3"))
    assert zero2.weights == 2 * numbers
    assert zero3.weights == 2 * numbers // DEVICES
    assert zero2.optimizer == zero3.optimizer == 12 * numbers // DEVICES


def test_lora_leaves_gradients_and_states_of_the_factors_encoder_and_projector_alone() -> None:
    architecture = shallow("1.5b", 2)
    with torch.device("meta"):
        full = ParameterCounts.of(build_module(architecture, stage_of("1.5b", 3)))
        factors = ParameterCounts.of(build_module(architecture, stage_of("1.5b", 3, "lora={rank: 8}")))
    assert full.trained == full.all
    assert full.frozen_bytes == 0
    assert factors.trained < full.trained / 4
    assert factors.vocabulary == 0


def test_the_full_models_have_the_sizes_they_are_named_for() -> None:
    for size, low, high in (("1.5b", 1.9e9, 2.0e9), ("7b", 8.0e9, 8.1e9)):  # with an encoder of 0.4 · 10⁹
        with torch.device("meta"):
            module = build_module(read_architecture(CONFIGS / size / "x.yaml"), stage_of(size, 3))
        assert low < ParameterCounts.of(module).all < high


def test_the_paper_s_claim_fits_by_sharding_and_not_by_copies(run) -> None:
    printed = run("--config", "train/configs/1.5b/stage3.yaml", "--device-memory", "24GB")
    verdict = {line.split(" | ")[1]: line.split(" | ")[-2] for line in printed.splitlines() if "stage3 |" in line}
    assert verdict == {"ddp": "no", "fsdp2": "yes", "zero2": "yes", "zero3": "yes"}
    assert "does not fit. Any of: --strategy fsdp2" in printed


def test_advice_names_what_is_not_done_yet() -> None:
    stage = stage_of("7b", 3, "gradient_checkpointing=false")
    changes = advice(stage, PlannedBatch.of(stage, read_architecture(CONFIGS / "7b" / "stage3.yaml")), "fsdp2")
    assert changes[0] == "gradient_checkpointing: true"
    assert changes[1].startswith("batch_size: 1")


@pytest.mark.parametrize(("text", "size"), [("24GB", 24 * 10**9), ("80 GiB", 80 * 2**30), ("512mb", 512 * 10**6)])
def test_memory_is_read_with_its_unit(text, size) -> None:
    assert memory_size(text) == size


def test_plans_are_added_to_those_that_a_file_holds(run, tmp_path) -> None:
    out = tmp_path / "plans.json"
    for strategy in ("ddp", "fsdp2", "ddp"):
        arguments = ["--config", "train/configs/1.5b/stage1.yaml", "--device-memory", "24GB", "--json", out]
        run(*arguments, "--strategy", strategy)
    plans = json.loads(out.read_text(encoding="utf-8"))["plans"]
    assert [row["strategy"] for row in plans] == ["fsdp2", "ddp"]


def test_the_document_and_the_file_of_figures_hold_todays_plan(monkeypatch) -> None:
    monkeypatch.chdir(ROOT)
    found = re.findall(r"^\| (1\.5|7)B, stage (\d).*?\| (.*) \|$", Path("docs/training.md").read_text("utf-8"), re.M)
    table = {(f"{size}b", stage): cells.split(" | ") for size, stage, cells in found}
    plans = json.loads(Path("benchmarks/results/memory_plan.json").read_text("utf-8"))["plans"]
    kept = {(row["config"], row["strategy"]): row for row in plans}
    for size, memory in (("1.5b", "24GB"), ("7b", "80GB")):
        for stage in "123":
            config = Path(f"train/configs/{size}/stage{stage}.yaml")
            rows = plan_stage(config, STRATEGIES, DEVICES, memory_size(memory), measure=False)
            for row, cell in zip(json.loads(json.dumps(rows)), table[size, stage], strict=True):
                old = kept[row["config"], row["strategy"]]
                assert old == {**old, **row}
                gigabytes = f"{row['with_reserve'] / 1e9:.1f}"
                assert cell == (gigabytes if row["fits"] else f"**{gigabytes}**")


def test_a_stage_without_shapes_beside_it_is_refused(run, tmp_path) -> None:
    lonely = tmp_path / "stage3.yaml"
    lonely.write_text((CONFIGS / "1.5b" / "stage3.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    with pytest.raises(SystemExit, match=r"^Error: .*model\.json is missing"):
        run("--config", lonely, "--device-memory", "24GB")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize(("stage", "changes"), [(1, ()), (3, ("lora={rank: 64}",))])
def test_a_real_step_of_the_1_5b_architecture_stays_under_24_gigabytes(stage, changes) -> None:
    """Random weights, one GPU, and so without DDP's buckets: the frozen language model in bfloat16, or LoRA factors."""
    cap = 24 * 10**9
    config, architecture = stage_of("1.5b", stage, *changes), read_architecture(CONFIGS / "1.5b" / "stage3.yaml")
    batch = PlannedBatch.of(config, architecture)
    with torch.device("meta"):
        found = plan(build_module(architecture, config), batch, config, "ddp", 1)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    torch.cuda.set_per_process_memory_fraction(cap / torch.cuda.get_device_properties(0).total_memory)
    try:
        with torch.device("cuda"):
            module = build_module(architecture, config)
        inputs = {
            name: torch.zeros_like(value, device="cuda") if value.is_meta else value.cuda()
            for name, value in batch.tensors(1, 588).items()
        }
        optimizer = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], fused=True)
        for _ in range(2):  # the second pass finds states and gradients there
            with torch.autocast("cuda", dtype=torch.bfloat16):
                loss = module(**inputs)["loss"]
            loss.backward()
            optimizer.step()
        assert loss.isfinite()
        assert torch.cuda.max_memory_allocated() == pytest.approx(found.total - found.gathered, rel=0.15)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
