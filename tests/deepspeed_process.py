# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""What tests/test_deepspeed.py runs on every process: a stage under DeepSpeed, over gloo on a CPU.

    accelerate launch --config_file CONFIG -m tests.deepspeed_process STAGE

DeepSpeed itself runs there (`DS_ACCELERATOR=cpu`); accelerate looks for a GPU before it starts a process group for it,
and is told here that it has found one.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import DistributedType

from train.config import StageConfig
from train.stage import run_stage


def take_gloo_for_a_gpu() -> None:
    """Makes accelerate do on a CPU what it does where there are GPUs."""
    initialise = PartialState.__init__

    def initialise_as_on_a_gpu(self: PartialState, cpu: bool = False, backend: str | None = None, **rest: Any) -> None:
        initialise(self, cpu=False, **rest)

    PartialState.__init__ = initialise_as_on_a_gpu
    PartialState._prepare_backend = lambda *_: ("gloo", DistributedType.MULTI_GPU)


def main() -> None:
    torch.set_num_threads(1)
    take_gloo_for_a_gpu()
    run_stage(StageConfig.read(Path(sys.argv[1])))


if __name__ == "__main__":
    main()
