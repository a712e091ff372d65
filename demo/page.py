# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The Gradio page: load a medium, see what is pruned at which threshold, ask about it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from demo.assistant import Assistant
from demo.viewer import make_viewer, show, show_pruning

SAMPLES = Path(__file__).resolve().parents[1] / "examples" / "media"
EXAMPLES = {"Chest CT": "ct_volume.nii.gz", "Heart ultrasound": "ultrasound.mp4", "Chest X-ray": "xray.png"}
FIRST_QUESTION = "Which imaging modality is this?"
KEEP_SECONDS = 3600
"""After which uploads and what was read from them are deleted."""
LARGEST_THRESHOLD = 0.3
WAITING = "…"
"""Stands in the chat until the first word comes."""

INTRODUCTION = """# OmniV-Med
Ask about a medical image, volume or video, and see which visual tokens repeat what was already seen.

**For research only.** This is no medical device and must not be used for diagnosis or treatment; answers can be wrong.
Load only data that names no patient.
"""
ABOUT_THRESHOLD = (
    "Largest mean difference of a removed token, in pixel values of [-1, 1]: 0.1 is 5 % of the grey scale. "
    "0 removes only exact repeats."
)


def summary(processed: Any) -> str:
    """What was read and what pruning did with it, as Markdown."""
    clip, pruned = processed.clip, processed.pruned
    count, all_of_them = len(clip.frames), clip.source_frames
    parts = [f"**{clip.kind.capitalize()}**", f"{count} of {all_of_them} frames" if clip.kind != "image" else ""]
    if clip.kind == "image" and count == 1:
        parts.append(f"{processed.tokens_before} tokens, all kept: a single picture repeats nothing")
    else:
        change = "fewer" if processed.reduction >= 0 else "more"
        parts.append(f"{processed.tokens_before} → {processed.tokens_after} tokens")
        parts.append(f"{abs(100 * processed.reduction):.1f} % {change}, position labels counted")
        parts.append(f"worst error {pruned.worst_error:.3f} at threshold {pruned.threshold:.3g}")
    lines = [" · ".join(part for part in parts if part), ""]
    return "\n".join([*lines, *(f"- {note}" for note in processed.notes)])


def plain_turns(history: list[dict[str, Any]]) -> list[dict[str, str]]:
    """The chat as roles and texts (gradio keeps lists of parts), without questions stopped before their first word."""
    turns = []
    for message in history:
        content = message["content"]
        if not isinstance(content, str):
            content = "".join(part if isinstance(part, str) else part.get("text", "") for part in content)
        if content == WAITING:
            turns.pop()
        else:
            turns.append({"role": message["role"], "content": content})
    return turns


def build_page(assistant: Assistant) -> gr.Blocks:
    """The page around one assistant."""

    def read(files: list[str] | None, threshold: float) -> tuple[Any, ...]:
        """Reads the files; gives the state, the viewer, the summary and an empty chat."""
        if not files:
            return None, show(None), "", []
        try:
            processed = assistant.read(files, threshold)
        except ValueError as error:
            return None, show(None), f"**Not loaded:** {error}", []
        return processed, show(processed), summary(processed), []

    def prune(processed: Any, threshold: float) -> tuple[Any, ...]:
        """Prunes what was read again, at another threshold."""
        if processed is None:
            return gr.skip(), gr.skip(), gr.skip()
        processed = assistant.prune(processed.clip, threshold)
        return processed, show_pruning(processed), summary(processed)

    def ask(question: str, history: list[dict[str, Any]], processed: Any) -> Iterator[tuple[str, list[dict[str, Any]]]]:
        """Adds the question and, word by word, the answer to the chat; empties the question's box."""
        if not question.strip():
            raise gr.Error("Write a question first.", print_exception=False)
        turns = [*plain_turns(history), {"role": "user", "content": question.strip()}]
        try:
            inputs = assistant.prepare(turns, processed)
        except ValueError as error:
            raise gr.Error(str(error), print_exception=False) from None
        yield "", [*turns, {"role": "assistant", "content": WAITING}]
        answer = ""
        try:
            for answer in assistant.generate(inputs):
                yield "", [*turns, {"role": "assistant", "content": answer or WAITING}]
        except Exception as error:  # such as a lack of memory: the visitor gets a sentence, the log the rest
            raise gr.Error("The model failed while answering; try again, with fewer tokens if it goes on.") from error
        yield "", [*turns, {"role": "assistant", "content": answer.strip() or "(no answer)"}]

    with gr.Blocks(title="OmniV-Med", analytics_enabled=False, delete_cache=(KEEP_SECONDS, KEEP_SECONDS)) as page:
        loaded = gr.State(time_to_live=KEEP_SECONDS)
        # Placed further down; the samples above it fill it in.
        question = gr.Textbox(label="Question", value=FIRST_QUESTION, max_lines=4, submit_btn="Ask", render=False)
        gr.Markdown(INTRODUCTION)
        with gr.Row():
            with gr.Column(min_width=320):
                files = gr.File(
                    label="Image, DICOM, NIfTI, NRRD, zip or video; or all files of one DICOM series",
                    file_count="multiple",
                    height=180,
                )
                gr.Examples(
                    examples=[[[str(SAMPLES / name)], FIRST_QUESTION] for name in EXAMPLES.values()],
                    example_labels=list(EXAMPLES),
                    inputs=[files, question],
                    label="Generated samples",
                )
                viewer = make_viewer()
                about = gr.Markdown(elem_id="summary")
                threshold = gr.Slider(
                    0,
                    LARGEST_THRESHOLD,
                    value=assistant.processor.prune_threshold,
                    step=0.005,
                    label="Pruning threshold",
                    info=ABOUT_THRESHOLD,
                )
            with gr.Column(min_width=320):
                chat = gr.Chatbot(label="Conversation", height=460, buttons=["copy"])
                question.render()
                with gr.Row():
                    stop = gr.Button("Stop")
                    clear = gr.Button("Clear the conversation")

        files.change(read, [files, threshold], [loaded, viewer, about, chat], api_name="read")
        threshold.change(
            prune,
            [loaded, threshold],
            [loaded, viewer, about],
            trigger_mode="always_last",
            show_progress="hidden",
            api_name="prune",
        )
        asking = question.submit(ask, [question, chat, loaded], [question, chat], concurrency_limit=1, api_name="ask")
        stop.click(None, cancels=[asking], api_visibility="private")
        clear.click(lambda: [], None, chat, cancels=[asking], api_visibility="private")
    return page
