# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""What tests/train/test_sharding.py runs on every process: a stage under FSDP2 or DeepSpeed, over gloo on a CPU.

    accelerate launch --config_file CONFIG -m tests.helpers.sharded_process STAGE

Both engines run on CPUs, but accelerate looks for a GPU before it turns to them, and is told here that it found one.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import DistributedType
from torch.distributed.tensor import DTensor

import train.stage
from train.config import StageConfig


def take_gloo_for_a_gpu() -> None:
    """Makes accelerate do on a CPU what it does where there are GPUs."""
    initialise = PartialState.__init__

    def initialise_as_on_a_gpu(self: PartialState, cpu: bool = False, backend: str | None = None, **rest: Any) -> None:
        initialise(self, cpu=False, **rest)

    PartialState.__init__ = initialise_as_on_a_gpu
    PartialState._prepare_backend = lambda *_: ("gloo", DistributedType.MULTI_GPU)


class WitnessedTrainer(train.stage.StageTrainer):
    """The stage's trainer, which writes down the wrapper it ended with and how much of the momentum is kept here.

    Its processes save one after the other, the first one first: what any other one writes over its file would be seen.
    """

    def _save(self, *args: Any, **kwargs: Any) -> None:
        if not self.is_world_process_zero():
            torch.distributed.barrier()
        super()._save(*args, **kwargs)
        if self.is_world_process_zero():
            torch.distributed.barrier()

    def train(self, *args: Any, **kwargs: Any) -> Any:
        result = super().train(*args, **kwargs)
        optimizer = self.optimizer
        while hasattr(optimizer, "optimizer"):  # accelerate's and DeepSpeed's lie around torch's own
            optimizer = optimizer.optimizer
        momentum = [state["exp_avg"] for state in optimizer.state.values()]
        here = sum(one.to_local().numel() if isinstance(one, DTensor) else one.numel() for one in momentum)
        seen = {"wrapper": type(self.model_wrapped).__name__, "momentum": here}
        path = Path(self.args.output_dir) / f"process.{self.args.process_index}.json"
        path.write_text(json.dumps(seen), encoding="utf-8")
        return result


def main() -> None:
    torch.set_num_threads(1)
    take_gloo_for_a_gpu()
    train.stage.StageTrainer = WitnessedTrainer
    train.stage.run_stage(StageConfig.read(Path(sys.argv[1])))


if __name__ == "__main__":
    main()
