# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Measures the memory of a training step at full size without the memory: the real model on fake tensors.

Every operation of forward, backward and optimizer step runs on tensors that have a shape but no storage, in a process
group of any size that sends nothing; PyTorch's own trackers (torch.distributed._tools) count what would be allocated.
So the figure has what a formula forgets: copies of autocast, recomputation, buffers that live longer than one thinks.
It lacks what only a device has: the allocator's rounding and fragmentation, the kernels' workspaces, CUDA and NCCL.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist
from accelerate import FullyShardedDataParallelPlugin
from accelerate.utils.fsdp_utils import fsdp2_prepare_model
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.distributed._tools.fsdp2_mem_tracker import FSDPMemTracker
from torch.distributed._tools.mem_tracker import MemTracker
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import TorchDispatchMode

from train import packed_attention

INDEXING = (torch.ops.aten.index, torch.ops.aten.index_put, torch.ops.aten.index_put_)
CATEGORIES = {
    "Parameter": "weights",
    "Sharded Param": "weights",
    "Gradient": "gradients",
    "Sharded Grad": "gradients",
    "Optstate": "optimizer",
    "OptState": "optimizer",
    "Unsharded Param": "gathered",
    "Unsharded Grad": "gathered",
    "All Gather": "gathered",
    "Reduce Scatter": "gathered",
}
"""The trackers' kinds of tensors under the plan's names; every other kind is activations."""


@dataclass(frozen=True)
class MeasuredStep:
    """Bytes of one device at the moment when they were most.

    Attributes:
        total: peak over forward, backward and optimizer step.
        parts: what of it was weights, gradients, optimizer, gathered and activations.
    """

    total: int
    parts: dict[str, int]


class RealMasks(TorchDispatchMode):
    """Lets a real boolean mask index a fake tensor: how many elements it selects is known, but fake tensors cannot ask.

    Masks and token ids stay real, so that the model's own shapes (windows, kept tokens, scored positions) come out.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if func.overloadpacket in INDEXING:
            indices: list[torch.Tensor | None] = []
            for index in args[1]:
                is_real_mask = index is not None and index.dtype == torch.bool and not isinstance(index, FakeTensor)
                indices += index.nonzero(as_tuple=True) if is_real_mask else [index]
            args = (args[0], indices, *args[2:])
        return func(*args, **(kwargs or {}))


class _StepTracker(MemTracker):
    """The tracker of plain models, which wants to hook the gradient of frozen parameters too, where there is none."""

    def __init__(self, model: nn.Module):
        super().__init__()
        no_hook = SimpleNamespace(remove=lambda: None)
        for parameter in model.parameters():
            if not parameter.requires_grad:
                self._param_to_grad_hook_handles[parameter] = (no_hook, no_hook)


@contextmanager
def fake_process_group(devices: int) -> Iterator[None]:
    """A process group of `devices` ranks, of which this process is the first, that sends and receives nothing."""
    dist.init_process_group("fake", rank=0, world_size=devices, store=FakeStore())
    try:
        yield
    finally:
        dist.destroy_process_group()


def shard(model: nn.Module, mesh: DeviceMesh) -> nn.Module:
    """Shards a model exactly as accelerate's FSDP2 with bf16 does, wrapping by the model's own layer names."""
    plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2, auto_wrap_policy="transformer_based_wrap", cpu_ram_efficient_loading=False
    )
    plugin.set_mixed_precision("bf16")
    accelerator = SimpleNamespace(
        state=SimpleNamespace(fsdp_plugin=plugin),
        torch_device_mesh=mesh,
        parallelism_config=SimpleNamespace(fsdp_dim_names=mesh.mesh_dim_names),
        mixed_precision="bf16",
        is_main_process=False,
    )
    return fsdp2_prepare_model(accelerator, model)


def make_fake(model: nn.Module) -> None:
    """Turns parameters and buffers on the meta device into fake ones on a CPU, in place, within a fake mode.

    Not built as fake ones from the start, because PEFT moves its factors, which fake parameters do not allow.
    """
    made: dict[int, torch.Tensor] = {}
    for module in model.modules():
        for tensors in (module._parameters, module._buffers):
            for name, tensor in tensors.items():
                if tensor is None:
                    continue
                if id(tensor) not in made:
                    fake = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")
                    is_parameter = isinstance(tensor, nn.Parameter)
                    made[id(tensor)] = nn.Parameter(fake, tensor.requires_grad) if is_parameter else fake
                tensors[name] = made[id(tensor)]


def measure_step(
    build: Callable[[], nn.Module],
    inputs: dict[str, torch.Tensor],
    devices: int,
    sharded: bool,
) -> MeasuredStep:
    """Runs one micro-batch, gradients of an earlier one kept, and the optimizer step, in bf16 autocast.

    Args:
        build: makes the module whose output holds the `loss`; called where every tensor is on the meta device.
        inputs: the batch; tensors on the meta device become fake, all others stay real.
        devices: ranks of the process group.
        sharded: FSDP2 over the devices; otherwise one device's plain model, as inside DistributedDataParallel, whose
            buckets are not counted (its reducer cannot run on fake tensors).

    Returns:
        `MeasuredStep` of the first rank.
    """
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with fake_process_group(devices):
        mesh = init_device_mesh("cpu", (devices,), mesh_dim_names=("fsdp",))
        with torch.device("meta"):
            model = build()
        with mode:
            make_fake(model)
            model = shard(model, mesh) if sharded else model
            batch = {
                name: torch.empty(value.shape, dtype=value.dtype) if value.is_meta else value
                for name, value in inputs.items()
            }
            trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
            optimizer = torch.optim.AdamW(trained, weight_decay=0.0, fused=True)
            for parameter in trained:
                parameter.grad = torch.zeros_like(parameter)
            optimizer.step()  # makes its states
        images = [value for value in batch.values() if isinstance(value, FakeTensor)]
        if sharded:
            tracker: FSDPMemTracker | _StepTracker = FSDPMemTracker(model, optimizer)
            tracker.track_inputs(tuple(images))
        else:
            tracker = _StepTracker(model)
            tracker.track_external(model, optimizer, *images)
        # On a CPU packed attention keeps whole matrices; what is asked about is a GPU, whose kernel keeps none.
        as_on_a_gpu = patch.object(packed_attention, "_matrix_products", packed_attention._scaled_dot_product)
        with tracker, RealMasks(), as_on_a_gpu:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = model(**batch)["loss"]
            loss.backward()
            optimizer.step()
        (peak,) = tracker.get_tracker_snapshot("peak").values()
    parts: dict[str, int] = {}
    total = 0
    for kind, size in peak.items():
        if str(kind) == "Total":
            total = int(size)
            continue
        part = CATEGORIES.get(getattr(kind, "value", str(kind)), "activations")
        parts[part] = parts.get(part, 0) + int(size)
    return MeasuredStep(total, parts)
