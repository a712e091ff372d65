# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The viewing half of the page: the slices, what pruning does to them, and where the answer's attention lay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import gradio as gr
from gradio.components import Component

from demo.panels.charts import kept_chart
from demo.panels.components import stylesheet
from demo.panels.errors import errors_for_visitors, visible_error
from demo.panels.facts import facts
from demo.panels.pruning_panel import PruningPanel
from demo.panels.tiles import tiles
from demo.panels.viewer import make_viewer, show, show_evidence, show_frames, show_pruning
from demo.panels.volume_view import make_volume_view, show_mask, show_volume
from demo.service.assistant import Assistant
from demo.service.evidence import Evidence
from demo.service.shown import Shown
from hub_model.media_omniv_med import CT_PRESETS, CT_WINDOWS

if TYPE_CHECKING:
    from hub_model.processing_omniv_med import ProcessedClip

KEEP_SECONDS = 3600
"""After which Gradio forgets what a visitor saw last."""
AS_GIVEN = "as the model gets it: three windows as red, green and blue"
CHANNELS = {
    f"{name}, {width:g}/{level:g}": index
    for index, (name, (width, level)) in enumerate(
        zip(("bone to lung", "soft tissue", "brain"), CT_WINDOWS, strict=True)
    )
}
"""The channel that holds each of the three windows that a CT is read in."""
PRESETS = {f"{name}, {width:g}/{level:g} (reads again)": name for name, (width, level) in CT_PRESETS.items()}
Update = dict[str, Any]
"""What `gr.update` and `gr.skip` return."""


@dataclass(frozen=True)
class Explained:
    """The evidence of an answer, the media of its conversation in their order, and which of them is shown."""

    evidence: Evidence
    media: tuple[ProcessedClip, ...]
    index: int


class ViewingPanel:
    """The viewing half, placed in the layout block around the call, with everything that happens inside it connected.

    The page connects the rest: what reads files and shows them in `outputs`, and what looks for evidence.

    Attributes:
        panel: the pruning controls.
        outputs: the components that show a medium; `display` makes their values.
        explain: the button that asks for the evidence of the last answer.
        explained: the components that show evidence; `display_evidence` makes their values.
    """

    def __init__(self, assistant: Assistant) -> None:
        self._assistant = assistant
        self._place()
        self.explained: list[Component] = [self._evidence, self._words]
        self.outputs: list[Component] = [
            self._shown,
            self._viewer,
            self._volume,
            self._tiles,
            self._facts,
            self._chart,
            self._window,
            *self.explained,
        ]
        self._connect()

    def _place(self) -> None:
        self._shown, self._evidence = gr.State(time_to_live=KEEP_SECONDS), gr.State(time_to_live=KEEP_SECONDS)
        self._in_space = gr.State(False)
        gr.HTML(f"<style>{stylesheet('page')}</style>", visible="hidden")
        self._tiles = gr.HTML(elem_id="numbers")
        with gr.Tabs():
            with gr.Tab("Slices") as self._slices_tab:
                self._viewer = make_viewer()
                self._window = gr.Dropdown(
                    [AS_GIVEN, *CHANNELS, *PRESETS],
                    value=AS_GIVEN,
                    label="Window (width/level in HU), for your eyes only",
                    visible=False,
                    elem_id="window",
                )
            with gr.Tab("Planes and 3D") as self._space_tab:
                self._volume = make_volume_view()
        self.panel = PruningPanel(self._assistant.defaults)
        self._chart = gr.Plot(show_label=False, elem_id="kept_chart", visible=False)
        with gr.Accordion("Evidence: where did the answer look?", open=False):
            gr.Markdown(
                "Attention of the answer's words on the tokens, averaged over heads and layers. "
                "**A hint, not an explanation:** it shows where the model looked, not why it answered so."
            )
            self.explain = gr.Button("Show the evidence of the last answer", size="sm")
            self._words = gr.CheckboxGroup([], label="Words of the answer", visible=False, elem_id="words")
        with gr.Accordion("About this file", open=False):
            self._facts = gr.HTML(elem_id="facts")

    def _connect(self) -> None:
        private: dict[str, Any] = {"api_visibility": "private"}
        quiet: dict[str, Any] = {**private, "show_progress": "hidden"}
        gr.on(
            self.panel.changes,
            self.prune,
            {self._shown, self._in_space, *self.panel.controls},
            self.outputs,
            trigger_mode="always_last",
            **quiet,
        )
        self._viewer.change(self.follow_in_space, [self._shown, self._in_space], self._volume, **quiet)
        self._space_tab.select(self.open_space, self._shown, [self._in_space, self._volume], **quiet)
        self._slices_tab.select(lambda: False, None, self._in_space, queue=False, **quiet)
        self._window.input(self.change_window, [self._shown, self._window], self._viewer, **private)
        self._words.change(self.mark, [self._evidence, self._words, self._shown], self._viewer, **quiet)

    def display(self, shown: Shown | None, problem: str = "") -> tuple[Any, ...]:
        """The values of `outputs` that show a medium; for None they empty the panel and state the problem, if any."""
        if shown is None:
            alert = f'<p class="problem" role="alert"><b>Not loaded:</b> {escape(problem)}</p>' if problem else ""
            values = [show(None), show_volume(None), alert, "", gr.update(visible=False), gr.update(visible=False)]
            return None, *values, *self._no_evidence()
        processed = shown.processed
        # The volume is sent only when its tab is opened: few visitors do, and it is the largest message of all.
        values = [show(processed), show_volume(None), self._tiles_of(shown), facts(processed), self._chart_of(shown)]
        return shown, *values, gr.update(value=AS_GIVEN, visible=shown.is_ct), *self._no_evidence()

    def display_evidence(self, evidence: Evidence, media: Sequence[ProcessedClip], index: int) -> tuple[Any, ...]:
        """The values of `explained`: the words of the answer, all of them chosen.

        Args:
            media: the conversation's media in their order.
            index: which of them is shown.
        """
        choices = [(word, place) for place, word in enumerate(evidence.words)]
        chosen = list(range(len(choices)))
        return Explained(evidence, tuple(media), index), gr.update(choices=choices, value=chosen, visible=True)

    def _no_evidence(self) -> tuple[None, Update]:
        return None, gr.update(choices=[], value=[], visible=False)

    def _tiles_of(self, shown: Shown) -> str:
        model = self._assistant.model
        return tiles(shown.processed, shown.settings.stage, model.config, model.dtype)

    def _chart_of(self, shown: Shown) -> Update:
        figure = kept_chart(shown.processed)
        return gr.update(value=figure, visible=figure is not None)

    def prune(self, values: Mapping[Component, Any]) -> tuple[Any, ...]:
        """Prunes the shown clip again, as the controls say."""
        shown: Shown | None = values[self._shown]
        if shown is None:
            return tuple(gr.skip() for _ in self.outputs)
        with errors_for_visitors():
            changed = shown.pruned_as(self.panel.settings(values), self._assistant.processor)
        processed = changed.processed
        slices = show_pruning(processed, resized=processed.grid != shown.processed.grid)
        volume = show_mask(processed) if values[self._in_space] else gr.skip()
        drawn = [slices, volume, self._tiles_of(changed), facts(processed), self._chart_of(changed)]
        # The evidence goes, because its attention lay on tokens that were pruned differently.
        return changed, *drawn, gr.skip(), *self._no_evidence()

    def change_window(self, shown: Shown | None, name: str) -> Update:
        """Shows the slices in another CT window; what the model gets does not change."""
        if shown is None:
            return gr.skip()
        clip = shown.processed.clip
        if name in CHANNELS:
            return show_frames(clip, clip.frames[..., [CHANNELS[name]] * 3])
        if name not in PRESETS:
            return show_frames(clip, clip.frames)
        with errors_for_visitors():
            return show_frames(clip, self._assistant.read_in_window(list(shown.paths), PRESETS[name]).frames)

    def follow_in_space(self, shown: Shown | None, in_space: bool) -> Update:
        """Shows another file in 3D too, if the visitor is looking at planes and 3D."""
        return show_volume(shown and shown.processed) if in_space else gr.skip()

    def open_space(self, shown: Shown | None) -> tuple[bool, Update]:
        """Sends the volume when its tab is opened."""
        return True, show_volume(shown and shown.processed)

    def mark(self, explained: Explained | None, chosen: list[int], shown: Shown | None) -> Update:
        """Draws the attention of the chosen words."""
        if explained is None or shown is None or not chosen:
            return show_evidence(None)
        if explained.media[explained.index].grid != shown.processed.grid:
            raise visible_error("The answer was given about frames of another size; ask again with the present budget.")
        return show_evidence(explained.evidence.on_tokens(chosen, explained.media)[explained.index])
