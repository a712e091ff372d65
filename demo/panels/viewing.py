# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The viewing half of the page: the slices, what pruning does with them, and where the answer's attention lay."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from html import escape
from typing import Any

import gradio as gr
import spaces

from demo.panels.charts import kept_chart
from demo.panels.pruning_panel import PruningPanel, PruningSettings, build_panel, numbers
from demo.panels.viewer import make_viewer, show, show_evidence, show_frames, show_pruning
from demo.panels.volume_view import make_volume_view, show_mask, show_volume
from demo.service.evidence import Evidence, attention_evidence
from hub_model.media_omniv_med import CT_PRESETS, CT_WINDOWS

KEEP_SECONDS = 3600
"""After which what was read is forgotten."""
AS_GIVEN = "as the model gets it: three windows as red, green and blue"
CHANNELS = {
    f"{name}, {width:g}/{level:g}": index
    for index, (name, (width, level)) in enumerate(
        zip(("bone to lung", "soft tissue", "brain"), CT_WINDOWS, strict=True)
    )
}
"""The three windows that a CT is read in, by the channel they are in."""
PRESETS = {f"{name}, {width:g}/{level:g} (reads again)": name for name, (width, level) in CT_PRESETS.items()}
STYLE = """<style>
.gradio-container { --body-text-color-subdued: #5b6472; --block-info-text-color: #5b6472; }
.dark .gradio-container, .dark { --body-text-color-subdued: #a7b0bd; --block-info-text-color: #a7b0bd; }
#numbers, #viewer, #volume, #facts, #kept_chart { padding: 0; border-width: 0; }
#numbers .html-container, #viewer .html-container, #volume .html-container { padding: 0; }
#numbers p { margin: 4px 2px 0; font-size: 12px; color: var(--body-text-color-subdued); }
#numbers .tiles { display: flex; flex-wrap: wrap; gap: 8px; margin: 0; }
#numbers .tile { flex: 1 1 30%; min-width: 128px; box-sizing: border-box; padding: 8px 12px;
  border-radius: 10px; background: var(--background-fill-secondary);
  border: 1px solid var(--border-color-primary); }
#numbers .few .tile { flex-basis: 20%; }
#numbers .tile.main { border-color: #14b8a6; }
#numbers dt, #numbers span { font-size: 12px; color: var(--body-text-color-subdued); }
#numbers dd { margin: 0; }
#numbers strong { display: block; font-size: 20px; line-height: 1.3; white-space: nowrap; }
#numbers .main strong { color: #0f766e; }
.dark #numbers .main strong { color: #2dd4bf; }
#numbers .problem { padding: 8px 12px; border: 1px solid #dc2626; border-radius: 10px; }
#facts { font-size: var(--text-sm); }
#facts ul { margin: 4px 0 0; padding-left: 18px; }
#facts .badges span { display: inline-block; margin: 0 6px 4px 0; padding: 1px 8px; border-radius: 999px;
  border: 1px solid var(--border-color-primary); }
#kept_chart { background: none; }
#kept_chart .modebar { display: none; }
#words label { padding: 2px 8px; }
</style>"""


@dataclass(frozen=True)
class Shown:
    """One medium as a visitor sees it now.

    Attributes:
        paths: the uploaded files it was read from.
        processed: the clip as pruned, a `ProcessedClip`.
        settings: how it was pruned; `settings.stage` is the model's stage for requests about it.
    """

    paths: tuple[str, ...]
    processed: Any
    settings: PruningSettings

    def pruned_as(self, settings: PruningSettings, processor: Any) -> Shown:
        """The same clip, pruned in another way; the file is not read again.

        Raises:
            ValueError: for a setting that is impossible for this clip.
        """
        if replace(settings, stage=self.settings.stage) == self.settings:
            return replace(self, settings=settings)
        processed = processor.process_clip(self.processed.clip, **settings.options())
        return Shown(self.paths, processed, settings)


def facts(processed: Any) -> str:
    """What the file is, as HTML: kind, size, spacing and what reading chose; nothing about the patient."""
    clip = processed.clip
    count, height, width = clip.frames.shape[:3]
    frames = "" if clip.kind == "image" else f"{count} of {clip.source_frames} {clip.kind} frames"
    if clip.kind == "volume":
        frames = f"{count} of {clip.source_frames} slices"
    spacing = (
        f"{clip.pixel_spacing[0]:.3g} × {clip.pixel_spacing[1]:.3g} mm per pixel" if all(clip.pixel_spacing) else ""
    )
    length = f"{clip.positions[-1] - clip.positions[0]:.4g} {clip.unit} long" if count > 1 and clip.unit else ""
    if clip.kind == "volume" and not spacing:
        length = ""
    badges = [clip.kind, clip.modality, frames, f"{width} × {height} pixels", spacing, length]
    badges.append(f"{processed.grid[0]} × {processed.grid[1]} tokens a frame")
    spans = "".join(f"<span>{escape(words)}</span>" for words in badges if words)
    notes = "".join(f"<li>{escape(note)}</li>" for note in processed.notes)
    return f'<div class="badges">{spans}</div><ul>{notes}</ul>'


@dataclass(frozen=True)
class Viewing:
    """The components of the viewing half, for whoever wires the page.

    Attributes:
        shown: the state with the `Shown` that is shown, or None.
        panel: the pruning controls.
        outputs: the components that `updates` fills, without `shown`.
        updates: makes the values of `outputs` for a `Shown`; for None empties them, and says the problem that is given.
        explain: the button that asks for the evidence of the last answer.
        explained: the components that `show_words` fills.
        show_words: makes the values of `explained` for an `Evidence`, the `ProcessedClip`s of the conversation in
            their order, and the index of the one that is shown.
    """

    shown: gr.State
    panel: PruningPanel
    outputs: list[gr.components.Component]
    updates: Callable[..., tuple[Any, ...]]
    explain: gr.Button
    explained: list[gr.components.Component]
    show_words: Callable[[Evidence, Sequence[Any], int], tuple[Any, ...]]


def is_ct(processed: Any) -> bool:
    """Whether a clip was read in the three CT windows, by what reading it noted."""
    return any(note.startswith("CT windows") for note in processed.clip.notes)


def make_explainer(assistant: Any) -> Callable[..., Evidence]:
    """`attention_evidence` of the assistant's model, on the GPU in a Space."""

    def explain(inputs: Any, answer_ids: Sequence[int], stage: str) -> Evidence:
        return attention_evidence(assistant.model, assistant.processor.tokenizer, inputs, answer_ids, stage)

    return spaces.GPU(explain)


def build_viewing(assistant: Any) -> Viewing:
    """Places the viewing half and wires what happens inside it; call it within a layout block.

    What happens around it is the caller's: reading files into `shown` and `outputs`, and asking for evidence.
    """
    processor, model = assistant.processor, assistant.model

    def tiles(shown: Shown) -> str:
        return numbers(shown.processed, shown.settings.stage, model.config, model.dtype)

    def updates(shown: Shown | None, problem: str = "") -> tuple[Any, ...]:
        no_words = gr.update(choices=[], value=[], visible=False)
        if shown is None:
            hidden = gr.update(visible=False)
            told = f'<p class="problem" role="alert"><b>Not loaded:</b> {escape(problem)}</p>' if problem else ""
            return show(None), show_volume(None), told, "", hidden, hidden, None, no_words
        processed = shown.processed
        figure = kept_chart(processed)
        chart = gr.update(value=figure, visible=figure is not None)
        windows = gr.update(value=AS_GIVEN, visible=is_ct(processed))
        # The volume is sent when its tab is opened: few visitors do, and it is the largest message of all.
        return show(processed), show_volume(None), tiles(shown), facts(processed), chart, windows, None, no_words

    def prune(shown: Shown | None, in_space: bool, *values: Any) -> tuple[Any, ...]:
        """Prunes the shown clip again, by the controls."""
        if shown is None:
            return (gr.skip(),) * 8
        try:
            changed = shown.pruned_as(PruningSettings.from_controls(*values), processor)
        except ValueError as error:
            raise gr.Error(str(error), print_exception=False) from None
        processed = changed.processed
        picture = show_pruning(processed, resized=processed.grid != shown.processed.grid)
        volume = show_mask(processed) if in_space else gr.skip()
        no_words = gr.update(choices=[], value=[], visible=False)  # their attention was on tokens pruned otherwise
        return changed, picture, volume, tiles(changed), facts(processed), kept_chart(processed), None, no_words

    def change_window(shown: Shown | None, name: str) -> Any:
        """Shows the slices in another CT window; what the model gets stays as it is."""
        if shown is None:
            return gr.skip()
        clip = shown.processed.clip
        if name in CHANNELS:
            return show_frames(clip, clip.frames[..., [CHANNELS[name]] * 3])
        if name not in PRESETS:
            return show_frames(clip, clip.frames)
        source = shown.paths[0] if len(shown.paths) == 1 else list(shown.paths)
        try:
            again = assistant.reader.load_clip(
                source, max_frames=processor.max_frames, fps=processor.fps, windows=PRESETS[name]
            )
        except ValueError as error:
            raise gr.Error(str(error), print_exception=False) from None
        return show_frames(clip, again.frames)

    def place_volume(shown: Shown | None, in_space: bool) -> Any:
        """Shows another file in 3D, too, where that is what the visitor looks at."""
        return show_volume(shown and shown.processed) if in_space else gr.skip()

    def show_words(found: Evidence, media: Sequence[Any], index: int) -> tuple[Any, ...]:
        choices = [(word, place) for place, word in enumerate(found.words)]
        every = list(range(len(choices)))
        return (found, tuple(media), index), gr.update(choices=choices, value=every, visible=True)

    def mark(
        explained: tuple[Evidence, tuple[Any, ...], int] | None, chosen: list[int], shown: Shown | None
    ) -> dict[str, Any]:
        """Draws the attention of the chosen words."""
        if explained is None or shown is None or not chosen:
            return show_evidence(None)
        found, media, index = explained
        if media[index].grid != shown.processed.grid:
            message = "The answer was given about frames of another size; ask again with the present budget."
            raise gr.Error(message, print_exception=False)
        return show_evidence(found.on_tokens(chosen, media)[index])

    shown, explained = gr.State(time_to_live=KEEP_SECONDS), gr.State(time_to_live=KEEP_SECONDS)
    in_space = gr.State(False)
    gr.HTML(STYLE, visible="hidden")
    tiles_html = gr.HTML(elem_id="numbers")
    with gr.Tabs():
        with gr.Tab("Slices") as plane:
            viewer = make_viewer()
            window = gr.Dropdown(
                [AS_GIVEN, *CHANNELS, *PRESETS],
                value=AS_GIVEN,
                label="Window (width/level in HU), for your eyes only",
                visible=False,
                elem_id="window",
            )
        with gr.Tab("Planes and 3D") as space:
            volume = make_volume_view()
    panel = build_panel(PruningSettings.defaults(assistant))
    chart = gr.Plot(show_label=False, elem_id="kept_chart", visible=False)
    with gr.Accordion("Evidence: where did the answer look?", open=False):
        gr.Markdown(
            "Attention of the answer's words on the tokens, averaged over heads and layers. "
            "**A hint, not an explanation:** it shows where the model looked, not why it answered so."
        )
        explain = gr.Button("Show the evidence of the last answer", size="sm")
        words = gr.CheckboxGroup([], label="Words of the answer", visible=False, elem_id="words")
    with gr.Accordion("About this file", open=False):
        about = gr.HTML(elem_id="facts")

    quiet = {"show_progress": "hidden", "api_visibility": "private"}
    gr.on(
        [control.change for control in panel.controls],
        prune,
        [shown, in_space, *panel.controls],
        [shown, viewer, volume, tiles_html, about, chart, explained, words],
        trigger_mode="always_last",
        **quiet,
    )
    viewer.change(place_volume, [shown, in_space], volume, **quiet)
    space.select(lambda shown: (True, show_volume(shown and shown.processed)), shown, [in_space, volume], **quiet)
    plane.select(lambda: False, None, in_space, queue=False, **quiet)
    window.input(change_window, [shown, window], viewer, api_visibility="private")
    words.change(mark, [explained, words, shown], viewer, **quiet)
    outputs = [viewer, volume, tiles_html, about, chart, window, explained, words]
    return Viewing(shown, panel, outputs, updates, explain, [explained, words], show_words)
