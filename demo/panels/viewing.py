# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The viewing half of the page: the slices, what pruning does to them, and what an answer depends on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import gradio as gr
from gradio.components import Component

from demo.panels.charts import kept_chart
from demo.panels.components import templates
from demo.panels.errors import errors_for_visitors
from demo.panels.facts import facts
from demo.panels.pruning_panel import PruningPanel
from demo.panels.queues import MOST_READING, READING
from demo.panels.tiles import savings, tiles
from demo.panels.viewer import make_viewer, show, show_evidence, show_pruning, show_window
from demo.panels.volume_view import make_volume_view, show_mask, show_volume
from demo.service.assistant import Assistant
from demo.service.evidence import Evidence
from demo.service.shown import Shown
from demo.service.windows import chosen_window, fitting_window, in_window, is_ct

if TYPE_CHECKING:
    from hub_model.processing_omniv_med import ProcessedClip

KEEP_SECONDS = 3600
"""After which Gradio forgets what a visitor saw last."""
Update = dict[str, Any]
"""What `gr.update` and `gr.skip` return."""


class ViewingPanel:
    """The viewing half, placed in the layout block around the call, with everything that happens inside it connected.

    The page connects the rest: what reads files and shows them in `outputs`, and what looks for evidence.

    Args:
        panel: the pruning controls.
        chart: where the kept tokens of each slice are drawn.

    Attributes:
        shown: the medium that is shown, a `Shown` or None.
        outputs: the components that show a medium; `display` makes their values.
        slicing: the event of a visitor who wants another `series` or another `plane` of the file.
    """

    def __init__(self, assistant: Assistant, panel: PruningPanel, chart: gr.Plot) -> None:
        self._assistant, self._panel, self._chart = assistant, panel, chart
        self._place()
        self.outputs: list[Component] = [
            self.shown,
            self._viewer,
            self._volume,
            self._numbers,
            self._chart,
        ]
        self.slicing = self._viewer.slicing
        self._connect()

    def _place(self) -> None:
        self.shown = gr.State(time_to_live=KEEP_SECONDS)
        self._in_space = gr.State(False)
        with gr.Tabs(elem_id="views"):
            with gr.Tab("Slices") as self._slices_tab:
                self._viewer = make_viewer()
            with gr.Tab("Planes and 3D") as self._space_tab:
                self._volume = make_volume_view()
        self._numbers = gr.HTML(value="", more="", elem_id="numbers", **templates("numbers"))

    def _connect(self) -> None:
        private: dict[str, Any] = {"api_visibility": "private"}
        quiet: dict[str, Any] = {**private, "show_progress": "hidden"}
        gr.on(
            self._panel.changes,
            self.prune,
            {self.shown, self._in_space, *self._panel.controls},
            [self.shown, self._viewer, self._volume, self._numbers],
            trigger_mode="always_last",
            queue=False,  # it takes less time than a place in the queue
            **quiet,
        ).then(self._draw_chart, self.shown, self._chart, queue=False, **quiet)
        self._viewer.change(self.follow_in_space, [self.shown, self._in_space], self._volume, **quiet)
        self._space_tab.select(self.open_space, self.shown, [self._in_space, self._volume], **quiet)
        self._slices_tab.select(lambda: False, None, self._in_space, queue=False, **quiet)
        self._viewer.window(
            self.change_window,
            self.shown,
            self._viewer,
            trigger_mode="always_last",
            concurrency_limit=MOST_READING,
            concurrency_id=READING,
            **quiet,
        )

    def display(self, shown: Shown | None) -> tuple[Any, ...]:
        """The values of `outputs` that show a medium; for None they empty the panel."""
        if shown is None:
            values = [show(None), show_volume(None), gr.update(value="", more=""), gr.update(visible=False)]
            return None, *values
        processed, clip = shown.processed, shown.processed.clip
        window = fitting_window(clip.frames) if is_ct(clip) else None
        grey = in_window(clip.frames, window) if window else None
        # The volume is sent only when its tab is opened: few visitors do, and it is the largest message of all.
        values = [show(processed, window, grey), show_volume(None), self._numbers_of(shown), self._chart_of(shown)]
        return shown, *values

    def unchanged(self) -> tuple[Any, ...]:
        """The values of `outputs` that leave what is shown."""
        return tuple(gr.skip() for _ in self.outputs)

    def with_evidence(self, updates: Sequence[Any], evidence: Evidence, processed: ProcessedClip) -> tuple[Any, ...]:
        """The values of `outputs` that show the evidence of an answer in the medium that it depends on most.

        Args:
            updates: values of `outputs` that show this medium, or leave it.
            processed: the medium as the answer was given about it.
        """
        weights = evidence.on_tokens(evidence.strongest.medium, processed)
        state, viewer, *others = updates
        return state, {**viewer, **show_evidence(weights, evidence.frame)}, *others

    def _numbers_of(self, shown: Shown) -> Update:
        model = self._assistant.model
        arguments = (shown.processed, shown.settings.stage, model.config, model.dtype)
        return gr.update(value=savings(*arguments), more=tiles(*arguments) + facts(shown.processed))

    def _draw_chart(self, shown: Shown | None) -> Update:
        """Draws the chart after the slices: it takes a browser as long as these, and fewer visitors look at it."""
        return self._chart_of(shown) if shown else gr.skip()

    def _chart_of(self, shown: Shown) -> Update:
        figure = kept_chart(shown.processed)
        return gr.update(value=figure, visible=figure is not None)

    def prune(self, values: Mapping[Component, Any]) -> tuple[Any, ...]:
        """Prunes the shown clip again, as the controls say; the chart follows."""
        shown: Shown | None = values[self.shown]
        if shown is None:
            return self.unchanged()[:-1]
        with errors_for_visitors():
            changed = shown.pruned_as(self._panel.settings(values), self._assistant.processor)
        processed = changed.processed
        slices = show_pruning(processed, resized=processed.grid != shown.processed.grid)
        volume = show_mask(processed) if values[self._in_space] else gr.skip()
        return changed, slices, volume, self._numbers_of(changed)

    def change_window(self, shown: Shown | None, event: gr.EventData) -> Update:
        """Shows the slices of a CT in another window; what the model gets does not change."""
        if shown is None or not is_ct(shown.processed.clip):
            return gr.skip()
        clip = shown.processed.clip
        with errors_for_visitors():
            window = chosen_window(getattr(event, "width", None), getattr(event, "level", None))
            if window.is_known:
                return show_window(clip, window, in_window(clip.frames, window))
            again = self._assistant.read_in_window(list(shown.paths), shown.choice, window.width, window.level)
            return show_window(clip, window, again.frames[..., 0])

    def follow_in_space(self, shown: Shown | None, in_space: bool) -> Update:
        """Shows another file in 3D too, if the visitor is looking at planes and 3D."""
        return show_volume(shown.processed if shown else None) if in_space else gr.skip()

    def open_space(self, shown: Shown | None) -> tuple[bool, Update]:
        """Sends the volume when its tab is opened."""
        return True, show_volume(shown.processed if shown else None)
