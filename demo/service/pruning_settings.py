# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""How a visitor wants media pruned, and what that means for the processor and the model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypedDict, cast

from hub_model.configuration_omniv_med import PRUNE_STAGES, PruneStage
from hub_model.token_pruning_omniv_med import LARGEST_DISTANCE, PruneRule, check_rule

if TYPE_CHECKING:
    from hub_model.configuration_omniv_med import OmniVMedConfig, OmniVMedVisionConfig
    from hub_model.processing_omniv_med import OmniVMedProcessor

Budget = Literal["none", "share", "number"]
"""What limits the tokens of a clip: nothing, a share of them, or a number."""


class ProcessorOptions(TypedDict):
    """The options of `OmniVMedProcessor.process_clip` that are about pruning."""

    prune_rule: PruneRule
    prune_threshold: float
    peak_threshold: float | None
    keep_ratio: float | None
    max_visual_tokens: int | None


@dataclass(frozen=True)
class PruningSettings:
    """What a visitor chose.

    Attributes:
        rule, threshold, peak_threshold, keep_ratio, max_visual_tokens: the processor's options `prune_rule`,
            `prune_threshold` and so on; None has the guard follow the threshold, and sets no budget.
        stage: the model's argument `prune_stage`.
    """

    rule: PruneRule
    threshold: float
    peak_threshold: float | None
    keep_ratio: float | None
    max_visual_tokens: int | None
    stage: PruneStage

    @classmethod
    def defaults(cls, processor: OmniVMedProcessor, config: OmniVMedConfig) -> PruningSettings:
        """The loaded model's own settings."""
        return cls(
            rule=processor.prune_rule,
            threshold=processor.prune_threshold,
            peak_threshold=processor.peak_threshold,
            keep_ratio=processor.keep_ratio,
            max_visual_tokens=processor.max_visual_tokens,
            stage=cast(PruneStage, cast("OmniVMedVisionConfig", config.vision_config).prune_stage),
        )

    @classmethod
    def from_choices(
        cls,
        *,
        rule: PruneRule,
        threshold: float,
        guard: bool,
        peak_threshold: float,
        budget: Budget,
        share: float,
        number: float | None,
        stage: PruneStage,
    ) -> PruningSettings:
        """Makes the settings from the controls of the page.

        Args:
            rule, threshold, stage: as in the attributes.
            guard: whether the guard of small lesions is set by hand, to which `peak_threshold`.
            budget: which of `share` (percent of the tokens) and `number` (of tokens) limits a clip.

        Raises:
            ValueError: when the budget is a number of tokens and that is missing or below 1.
        """
        if budget == "number" and (number is None or number < 1):
            raise ValueError("The budget must be at least 1 token; enter a larger number.")
        return cls(
            rule=rule,
            threshold=threshold,
            peak_threshold=peak_threshold if guard else None,
            keep_ratio=share / 100 if budget == "share" else None,
            max_visual_tokens=int(number) if budget == "number" and number is not None else None,
            stage=stage,
        )

    def changed_by_client(self, *, rule: Any, threshold: Any, keep_ratio: Any, stage: Any) -> PruningSettings:
        """These settings with the values that a client of the API sent; a `keep_ratio` of 1 sets no budget.

        Raises:
            ValueError: for a value of the wrong type or out of range.
        """
        check_rule(rule)
        if stage not in PRUNE_STAGES:
            raise ValueError(f"stage is one of {', '.join(PRUNE_STAGES)}.")
        if not _is_number(threshold) or not 0 <= threshold <= LARGEST_DISTANCE:
            raise ValueError(f"threshold is a number from 0 to {LARGEST_DISTANCE:g}.")
        if not _is_number(keep_ratio) or not 0 < keep_ratio <= 1:
            raise ValueError("keep_ratio is a number above 0 and at most 1, which sets no budget.")
        budget = None if keep_ratio == 1 else keep_ratio
        return replace(self, rule=rule, threshold=threshold, keep_ratio=budget, stage=stage)

    def unpruned(self) -> PruningSettings:
        """The settings to compare with: all tokens are kept."""
        return replace(self, rule="none", keep_ratio=None, max_visual_tokens=None)

    def options(self) -> ProcessorOptions:
        """The keyword arguments of `processor.process_clip`.

        A budget is never exceeded, which the rule that keeps everything cannot promise, so that rule gets none.
        """
        has_budget = self.rule != "none"
        return {
            "prune_rule": self.rule,
            "prune_threshold": self.threshold,
            "peak_threshold": self.peak_threshold,
            "keep_ratio": self.keep_ratio if has_budget else None,
            "max_visual_tokens": self.max_visual_tokens if has_budget else None,
        }


def _is_number(value: object) -> bool:
    """Whether a JSON value is a number; Python counts booleans as such."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)
