# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Muon and AdamW as one optimizer: each does to its own parameters what it does alone, and a saved run goes on."""

from __future__ import annotations

import copy

import torch
from torch import nn

from train.nano.muon import MuonWithAdamW

RATE, DECAY = 1e-3, 0.05


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.Linear(8, 6))


def together(net: nn.Module) -> MuonWithAdamW:
    matrices = [p for p in net.parameters() if p.ndim == 2]
    return MuonWithAdamW(matrices, [p for p in net.parameters() if p.ndim != 2], RATE, DECAY)


def train(net: nn.Module, optimizers: list[torch.optim.Optimizer], steps: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        inputs = torch.randn(16, 6, generator=generator)
        (net(inputs) - inputs.flip(1)).square().mean().backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()


def test_each_parameter_goes_where_its_own_optimizer_alone_takes_it() -> None:
    one, two = network(), network()
    train(one, [together(one)], 5, seed=1)
    matrices = [p for p in two.parameters() if p.ndim == 2]
    vectors = [p for p in two.parameters() if p.ndim != 2]
    muon = torch.optim.Muon(matrices, lr=2 * RATE, weight_decay=DECAY, adjust_lr_fn="match_rms_adamw")
    train(two, [muon, torch.optim.AdamW(vectors, lr=RATE, weight_decay=0.0)], 5, seed=1)
    for mine, theirs in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_a_schedule_reaches_all_parameters_and_survives_a_checkpoint() -> None:
    net = network()
    optimizer = together(net)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)
    train(net, [optimizer], 3, seed=1)
    schedule.step()
    assert [group["lr"] for group in optimizer.param_groups] == [RATE, RATE / 2, RATE / 2]

    resumed = copy.deepcopy(net)
    again = together(resumed)
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert [group["lr"] for group in again.param_groups] == [group["lr"] for group in optimizer.param_groups]
    train(net, [optimizer], 3, seed=2)
    train(resumed, [again], 3, seed=2)
    for mine, theirs in zip(net.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(mine, theirs)
