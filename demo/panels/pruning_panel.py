# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The pruning controls of the page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gradio as gr
from gradio.components import Component

from demo.service.pruning_settings import PruningSettings
from hub_model.token_pruning_omniv_med import PRUNE_RULES, RULE_WORDS

END_OF_SLIDER, END_OF_GUARD_SLIDER = 0.3, 1.0
"""Above these thresholds hardly anything is kept; the API takes larger ones."""
RULES = [(RULE_WORDS[rule], rule) for rule in PRUNE_RULES]
BUDGETS = [("none", "none"), ("share of the tokens", "share"), ("number of tokens", "number")]
STAGES = [("language model", "language"), ("encoder too", "encoder")]
ABOUT_THRESHOLD = "How far a removed token may lie from its stand-in on average; 0.1 is 5 % of the grey scale."


class PruningPanel:
    """The controls, placed in the layout block around the call and set to the model's defaults.

    Event handlers take `controls` as inputs in a set, so that Gradio passes them a dictionary of values by component;
    `settings` makes the settings from it.
    """

    def __init__(self, defaults: PruningSettings) -> None:
        budget = "share" if defaults.keep_ratio else "number" if defaults.max_visual_tokens else "none"
        self._controls: dict[str, Any] = {
            "threshold": gr.Slider(
                0, END_OF_SLIDER, defaults.threshold, step=0.005, label="Pruning threshold", info=ABOUT_THRESHOLD
            )
        }
        with gr.Accordion("Rule, guard, budget, stage", open=False):
            self._controls |= {
                "rule": gr.Radio(RULES, value=defaults.rule, label="A token is removed when it repeats the …"),
                "guard": gr.Checkbox(
                    defaults.peak_threshold is not None,
                    label="Set the guard of small lesions by hand",
                    info="A token is also kept when one small block in it changes more than the guard's threshold. "
                    "By itself the guard follows the pruning threshold, at three times as much.",
                ),
                "peak_threshold": gr.Slider(
                    0.05, END_OF_GUARD_SLIDER, defaults.peak_threshold or 0.3, step=0.01, label="Guard's threshold"
                ),
                "budget": gr.Radio(
                    BUDGETS, value=budget, label="Budget", info="Raises the thresholds only as far as it must."
                ),
                "share": gr.Slider(
                    1,
                    100,
                    100 * (defaults.keep_ratio or 0.25),
                    step=1,
                    label="Keep at most (%)",
                    visible=budget == "share",
                ),
                "number": gr.Number(
                    defaults.max_visual_tokens or 64,
                    label="Keep at most (visual tokens)",
                    minimum=1,
                    precision=0,
                    visible=budget == "number",
                ),
                "stage": gr.Radio(
                    STAGES,
                    value=defaults.stage,
                    label="Removed tokens are left out of the …",
                    info="“Encoder too” does not encode them either: this saves more, and the kept tokens know less.",
                ),
            }
        self._controls["budget"].change(
            self._show_budget,
            self._controls["budget"],
            [self._controls["share"], self._controls["number"]],
            api_visibility="private",
            show_progress="hidden",
            queue=False,
        )

    @property
    def changes(self) -> list[Any]:
        """The events in which a control changes."""
        return [control.change for control in self._controls.values()]

    @property
    def controls(self) -> set[Component]:
        return set(self._controls.values())

    def settings(self, values: Mapping[Component, Any]) -> PruningSettings:
        """The settings that the controls show.

        Args:
            values: of the controls, and of any other components.

        Raises:
            ValueError: for a budget below 1 token.
        """
        return PruningSettings.from_choices(**{name: values[control] for name, control in self._controls.items()})

    @staticmethod
    def _show_budget(kind: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """Shows the control of the chosen budget."""
        return gr.update(visible=kind == "share"), gr.update(visible=kind == "number")
