# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""What pruning saves: one line, which opens into tiles of tokens, reduction, worst error, compute and memory."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

import torch

from demo.service.cost import Cost, estimate

if TYPE_CHECKING:
    from hub_model.configuration_omniv_med import OmniVMedConfig, PruneStage
    from hub_model.processing_omniv_med import ProcessedClip


def in_units(amount: float, unit: str) -> str:
    """An amount with a decimal prefix and three digits: 12300000 FLOP becomes "12.3 MFLOP"."""
    for prefix in ("", "k", "M", "G", "T"):
        if amount < 999.5:
            return f"{amount:.3g} {prefix}{unit}"
        amount /= 1000
    return f"{amount:.3g} P{unit}"


def saved_share(before: float, after: float) -> str:
    """By what share a cost fell or rose, in percent."""
    percent = round(100 * (after / before - 1))
    return f"{percent:+d} %".replace("-", "−").replace("+0", "0")


def savings(processed: ProcessedClip, stage: PruneStage, config: OmniVMedConfig, dtype: torch.dtype) -> str:
    """The line of savings as text; arguments as for `demo.service.cost.estimate`."""
    if len(processed.pruned.keep_mask) == 1:
        return f"{processed.tokens_before} visual tokens, all kept: one picture repeats nothing"
    before, after = estimate(config, processed, stage, dtype)
    tokens = f"{abs(processed.reduction):.0%} {'fewer' if processed.reduction >= 0 else 'more'} tokens"
    language = 1 - after.language / before.language
    return f"{tokens}, {abs(language):.0%} {'less' if language >= 0 else 'more'} language compute".replace("%", " %")


def tiles(processed: ProcessedClip, stage: PruneStage, config: OmniVMedConfig, dtype: torch.dtype) -> str:
    """The tiles of a pruned clip as HTML; arguments as for `demo.service.cost.estimate`."""
    pruned = processed.pruned
    before, after = estimate(config, processed, stage, dtype)
    if len(pruned.keep_mask) == 1:
        shown = [
            _tile("Visual tokens", str(processed.tokens_before), "all kept: one picture repeats nothing", main=True),
            *_cost_tiles(before, None),
        ]
    else:
        change = "fewer" if processed.reduction >= 0 else "more"
        shown = [
            _tile(
                "Tokens",
                f"{processed.tokens_before} → {processed.tokens_after}",
                f"{processed.label_tokens} for position labels",
                main=True,
            ),
            _tile(
                "Reduction", f"{abs(100 * processed.reduction):.1f} %", f"{change} tokens, labels included", main=True
            ),
            _tile(
                "Worst error",
                f"{pruned.worst_error:.3f}",
                "nothing is removed" if pruned.keep_mask.all() else f"at threshold {pruned.threshold:.3g}",
            ),
            *_cost_tiles(before, after),
        ]
    kind = "tiles" if len(shown) == 6 else "tiles few"
    return (
        f'<dl class="{kind}" aria-live="polite" aria-label="What pruning does">{"".join(shown)}</dl>'
        "<p>Compute and memory are estimates from the model's configuration.</p>"
    )


def _cost_tiles(before: Cost, after: Cost | None) -> list[str]:
    """The tiles of compute and memory; without `after`, they say what the unpruned clip costs."""
    kinds = (
        ("Encoder compute", "FLOP", lambda cost: cost.encoder),
        ("Language compute", "FLOP", lambda cost: cost.language),
        ("Key-value cache", "B", lambda cost: cost.cache),
    )
    shown = []
    for words, unit, part in kinds:
        first = part(before)
        if after is None:
            detail = "until the first word" if unit == "FLOP" else "for this file"
            shown.append(_tile(words, in_units(first, unit), detail))
        else:
            then = part(after)
            shown.append(_tile(words, saved_share(first, then), f"{in_units(first, unit)} → {in_units(then, unit)}"))
    return shown


def _tile(words: str, figure: str, detail: str, main: bool = False) -> str:
    kind = "tile main" if main else "tile"
    return (
        f'<div class="{kind}"><dt>{escape(words)}</dt><dd><strong>{escape(figure)}</strong>'
        f"<span>{escape(detail)}</span></dd></div>"
    )
