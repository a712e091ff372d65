# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""What test_two_processes.py runs on every process: a stage under accelerate, then the same under fully_shard.

accelerate launch --config_file CONFIG -m tests.helpers.two_processes STAGE_A STAGE_B OUT
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from accelerate import PartialState
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from tests.helpers.stage_files import STEPS
from train.config import StageConfig
from train.conversation_loss import ConversationLoss
from train.dataset.conversations import IGNORED
from train.stage import Stage, StageTrainer, build_stage, build_trainer, collate, load_trained

LEARNING_RATE = 1e-2


class RecordingTrainer(StageTrainer):
    """The stage's trainer, which also notes what this process got: scored tokens, clips, kept and pruned tokens."""

    def compute_loss(self, model, inputs, *args, **kwargs):
        self.received.append(received(inputs))
        return super().compute_loss(model, inputs, *args, **kwargs)


def received(batch: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """What a batch holds, in figures."""
    return {
        "scored": int((batch["labels"] != IGNORED).sum()),
        "frames": batch["grid_thw"][:, 0].tolist(),
        "pruned": int((~batch["keep_mask"]).sum()),
    }


def under_trainer(config: StageConfig) -> dict[str, Any]:
    """Trains the stage by its own trainer; losses, the type of the wrapper, and what this process received."""
    torch.manual_seed(config.seed)
    trainer = build_trainer(build_stage(config), config)
    trainer.__class__, trainer.received = RecordingTrainer, []
    trainer.train()
    return {
        "losses": [entry["loss"] for entry in trainer.state.log_history if "loss" in entry],
        "gradient_norms": [entry["grad_norm"] for entry in trainer.state.log_history if "grad_norm" in entry],
        "wrapper": type(trainer.model_wrapped).__name__,
        "received": trainer.received,
    }


def shard(module: ConversationLoss, processes: int) -> int:
    """fully_shard on every layer that the model names, then on the rest; returns how many layers there were."""
    mesh = init_device_mesh("cpu", (processes,))
    layers = [layer for layer in module.modules() if type(layer).__name__ in module._no_split_modules]
    for layer in layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(module, mesh=mesh)
    return len(layers)


def by_hand(config: StageConfig, processes: int, rank: int) -> dict[str, Any]:
    """Trains the stage by a loop of its own, sharded where there are several processes; losses of the whole batch."""
    torch.manual_seed(config.seed)
    stage: Stage = build_stage(config)
    module = ConversationLoss(stage.model).train()
    layers = shard(module, processes) if processes > 1 else 0
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    sharded = sum(isinstance(parameter, DTensor) for parameter in trained)
    optimizer = torch.optim.AdamW(trained, lr=LEARNING_RATE, weight_decay=0.0)
    losses, seen = [], []
    for step in range(STEPS):
        first = (step * processes + rank) * config.batch_size
        batch = collate([stage.training[item] for item in range(first, first + config.batch_size)])
        batch.pop("unreadable")
        seen.append(received(batch))
        scored = torch.tensor(float(seen[-1]["scored"]))
        if processes > 1:
            dist.all_reduce(scored)
        loss = module(**batch, num_items_in_batch=scored)["loss"]
        # Gradients are averaged over the processes, and this loss is a share of a sum.
        (loss * processes).backward()
        optimizer.step()
        optimizer.zero_grad()
        total = loss.detach().clone()
        if processes > 1:
            dist.all_reduce(total)
        losses.append(float(total))
    result = {"losses": losses, "received": seen, "layers": layers, "trained": len(trained), "sharded": sharded}
    if processes > 1:
        result["next_loss"], result["next_loss_restored"] = (
            float(one(**batch)["loss"].detach()) for one in (module, restored(module, config, processes))
        )
    return result


def restored(module: ConversationLoss, config: StageConfig, processes: int) -> ConversationLoss:
    """A fresh sharded model that got the trained tensors of another one, whole, as from a checkpoint."""
    options = StateDictOptions(full_state_dict=True, cpu_offload=False)
    state = get_model_state_dict(module, options=options)
    fresh = ConversationLoss(build_stage(config).model).train()
    shard(fresh, processes)
    load_trained(fresh, state)
    return fresh


def main() -> None:
    stage_for_trainer, stage_by_hand, out = sys.argv[1:]
    torch.set_num_threads(1)
    first = under_trainer(StageConfig.read(Path(stage_for_trainer)))
    state = PartialState()
    second = by_hand(StageConfig.read(Path(stage_by_hand)), state.num_processes, state.process_index)
    result = {"trainer": first, "fully_shard": second, "backend": state.backend}
    Path(out).with_suffix(f".{state.process_index}.json").write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    main()
