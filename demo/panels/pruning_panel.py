# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The pruning controls of the page, what they mean for the processor, and the numbers that come of them."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr
import torch

from demo.service.cost import Cost, estimate

LARGEST_THRESHOLD = 0.3
LARGEST_PEAK_THRESHOLD = 1.0
RULES = [("last kept token (ours)", "anchor"), ("previous frame (as published)", "previous"), ("keep all", "none")]
BUDGETS = [("none", "none"), ("share of the tokens", "share"), ("number of tokens", "number")]
STAGES = [("language model", "language"), ("encoder too", "encoder")]
ABOUT_THRESHOLD = "How far a removed token may lie from its stand-in on average; 0.1 is 5 % of the grey scale."


@dataclass(frozen=True)
class PruningSettings:
    """What a visitor chose.

    Attributes:
        rule, threshold, peak_threshold, keep_ratio, max_visual_tokens: as the processor's options `prune_rule`,
            `prune_threshold` and so on; None switches the guard or the budget off.
        stage: "language" or "encoder", the model's `vision_config.prune_stage` for this visitor's requests
            (`demo.service.stage.at_stage`).
    """

    rule: str
    threshold: float
    peak_threshold: float | None
    keep_ratio: float | None
    max_visual_tokens: int | None
    stage: str

    @classmethod
    def defaults(cls, assistant: Any) -> PruningSettings:
        """Those of the model that is loaded."""
        processor = assistant.processor
        return cls(
            processor.prune_rule,
            processor.prune_threshold,
            processor.peak_threshold,
            processor.keep_ratio,
            processor.max_visual_tokens,
            assistant.model.config.vision_config.prune_stage,
        )

    @classmethod
    def from_controls(
        cls,
        rule: str,
        threshold: float,
        guard: bool,
        peak_threshold: float,
        budget: str,
        share: float,
        number: float | None,
        stage: str,
    ) -> PruningSettings:
        """From the values of `PruningPanel.controls`, in their order.

        Raises:
            ValueError: for a number of tokens that is none.
        """
        if budget == "number" and (number is None or number < 1):
            raise ValueError("The budget is a number of tokens, at least 1.")
        return cls(
            rule,
            threshold,
            peak_threshold if guard else None,
            share / 100 if budget == "share" else None,
            int(number) if budget == "number" else None,
            stage,
        )

    def options(self) -> dict[str, Any]:
        """The keyword arguments of `processor.process_clip`.

        A budget is never exceeded, which the rule that keeps everything cannot promise; it goes without one.
        """
        budgets = self.rule != "none"
        return {
            "prune_rule": self.rule,
            "prune_threshold": self.threshold,
            "peak_threshold": self.peak_threshold,
            "keep_ratio": self.keep_ratio if budgets else None,
            "max_visual_tokens": self.max_visual_tokens if budgets else None,
        }


@dataclass(frozen=True)
class PruningPanel:
    """The controls as Gradio components; `controls` gives them in the order of `PruningSettings.from_controls`."""

    rule: gr.Radio
    threshold: gr.Slider
    guard: gr.Checkbox
    peak_threshold: gr.Slider
    budget: gr.Radio
    share: gr.Slider
    number: gr.Number
    stage: gr.Radio

    @property
    def controls(self) -> list[gr.components.Component]:
        return [
            self.rule,
            self.threshold,
            self.guard,
            self.peak_threshold,
            self.budget,
            self.share,
            self.number,
            self.stage,
        ]


def build_panel(defaults: PruningSettings) -> PruningPanel:
    """Places the controls, at the model's defaults; the two budgets show themselves when they are chosen."""
    budget_kind = "share" if defaults.keep_ratio else "number" if defaults.max_visual_tokens else "none"
    threshold = gr.Slider(
        0, LARGEST_THRESHOLD, defaults.threshold, step=0.005, label="Pruning threshold", info=ABOUT_THRESHOLD
    )
    with gr.Accordion("Rule, guard, budget, stage", open=False):
        rule = gr.Radio(RULES, value=defaults.rule, label="A token is removed when it repeats the …")
        guard = gr.Checkbox(
            defaults.peak_threshold is not None,
            label="Guard small lesions",
            info="Keeps a token also when one small block in it changes more than the guard's threshold.",
        )
        peak_threshold = gr.Slider(
            0.05,
            LARGEST_PEAK_THRESHOLD,
            defaults.peak_threshold or 0.3,
            step=0.01,
            label="Guard's threshold",
        )
        budget = gr.Radio(
            BUDGETS, value=budget_kind, label="Budget", info="Raises the thresholds as little as meets it."
        )
        share = gr.Slider(
            1,
            100,
            100 * (defaults.keep_ratio or 0.25),
            step=1,
            label="Keep at most (%)",
            visible=budget_kind == "share",
        )
        number = gr.Number(
            defaults.max_visual_tokens or 64,
            label="Keep at most (visual tokens)",
            minimum=1,
            precision=0,
            visible=budget_kind == "number",
        )
        stage = gr.Radio(
            STAGES,
            value=defaults.stage,
            label="Removed tokens are left out of the …",
            info="“Encoder too” does not encode them either, which saves more and changes what the kept ones know.",
        )
    budget.change(
        lambda kind: (gr.update(visible=kind == "share"), gr.update(visible=kind == "number")),
        budget,
        [share, number],
        api_visibility="private",
        show_progress="hidden",
        queue=False,
    )
    return PruningPanel(rule, threshold, guard, peak_threshold, budget, share, number, stage)


def in_units(amount: float, unit: str) -> str:
    """An amount with a decimal prefix and three digits: 12300000 FLOP becomes "12.3 MFLOP"."""
    for prefix in ("", "k", "M", "G", "T"):
        if amount < 999.5:
            return f"{amount:.3g} {prefix}{unit}"
        amount /= 1000
    return f"{amount:.3g} P{unit}"


def saved_share(before: float, after: float) -> str:
    """By which share a cost went down, or up, in percent."""
    percent = round(100 * (after / before - 1))
    return f"{percent:+d} %".replace("-", "−").replace("+0", "0")


def _tile(words: str, figure: str, detail: str, main: bool = False) -> str:
    kind = "tile main" if main else "tile"
    return (
        f'<div class="{kind}"><dt>{escape(words)}</dt><dd><strong>{escape(figure)}</strong>'
        f"<span>{escape(detail)}</span></dd></div>"
    )


def numbers(processed: Any, stage: str, config: Any, dtype: torch.dtype) -> str:
    """The tiles with tokens, reduction, worst error, compute and memory, as HTML.

    Args:
        processed: a `ProcessedClip`.
        stage, config, dtype: as for `demo.service.cost.estimate`.
    """
    pruned = processed.pruned
    before, after = estimate(config, processed, stage, dtype)
    if len(pruned.keep_mask) == 1:
        tiles = [
            _tile("Visual tokens", str(processed.tokens_before), "all kept: one picture repeats nothing", main=True),
            *_costs(before, None),
        ]
    else:
        change = "fewer" if processed.reduction >= 0 else "more"
        tiles = [
            _tile(
                "Tokens",
                f"{processed.tokens_before} → {processed.tokens_after}",
                f"{processed.label_tokens} for position labels",
                main=True,
            ),
            _tile(
                "Reduction", f"{abs(100 * processed.reduction):.1f} %", f"{change} tokens, labels counted", main=True
            ),
            _tile(
                "Worst error",
                f"{pruned.worst_error:.3f}",
                "nothing is removed" if pruned.keep_mask.all() else f"at threshold {pruned.threshold:.3g}",
            ),
            *_costs(before, after),
        ]
    kind = "tiles" if len(tiles) == 6 else "tiles few"
    return (
        f'<dl class="{kind}" aria-live="polite" aria-label="What pruning does">{"".join(tiles)}</dl>'
        "<p>Compute and memory are estimates from the model's configuration.</p>"
    )


def _costs(before: Cost, after: Cost | None) -> list[str]:
    """The tiles of compute and memory, estimates; without `after`, what the clip costs as it is."""
    kinds = [
        ("Encoder compute", "encoder", "FLOP"),
        ("Language compute", "language", "FLOP"),
        ("Key-value cache", "cache", "B"),
    ]
    tiles = []
    for words, name, unit in kinds:
        first = getattr(before, name)
        if after is None:
            tiles.append(
                _tile(words, in_units(first, unit), "until the first word" if unit == "FLOP" else "of this file")
            )
        else:
            then = getattr(after, name)
            tiles.append(_tile(words, saved_share(first, then), f"{in_units(first, unit)} → {in_units(then, unit)}"))
    return tiles
