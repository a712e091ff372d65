# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Muon for the matrices between a network's layers and AdamW for all else, as one optimizer for the Trainer.

Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon; Liu et al., arXiv 2502.16982) steps along the
nearest orthogonal matrix to the momentum.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn


class MuonWithAdamW(torch.optim.Optimizer):
    """Two optimizers that step together.

    Args:
        matrices: parameters of two dimensions, for Muon.
        others: all other parameters, for AdamW; their own matrices (embeddings, classifiers) decay too.
        learning_rate: AdamW's. Muon's is twice that, its steps scaled to AdamW's root mean square (arXiv 2502.16982).
        weight_decay: of all matrices.
    """

    def __init__(
        self,
        matrices: Iterable[nn.Parameter],
        others: Iterable[nn.Parameter],
        learning_rate: float,
        weight_decay: float,
    ):
        others = list(others)
        self.parts: tuple[torch.optim.Optimizer, ...] = (
            torch.optim.Muon(
                list(matrices), lr=2 * learning_rate, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"
            ),
            torch.optim.AdamW(
                [
                    {"params": [p for p in others if p.ndim > 1], "weight_decay": weight_decay},
                    {"params": [p for p in others if p.ndim <= 1], "weight_decay": 0.0},
                ],
                lr=learning_rate,
            ),
        )
        self.defaults: dict[str, Any] = {"lr": learning_rate}

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of both, which schedulers set the rates of."""
        return [group for part in self.parts for group in part.param_groups]

    @property
    def state(self) -> dict[nn.Parameter, Any]:
        """The state of both, by parameter."""
        return {parameter: state for part in self.parts for parameter, state in part.state.items()}

    def step(self, closure: Callable[[], float] | None = None) -> None:
        """One step of both; gradients are there already, so `closure` is not called."""
        for part in self.parts:
            part.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forgets all gradients."""
        for part in self.parts:
            part.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """The state dictionaries of both."""
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes what `state_dict` gave."""
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
