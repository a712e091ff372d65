# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The Gradio page: load a medium, see what is pruned at which threshold, ask about it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gradio as gr

from demo.assistant import Assistant
from demo.pruning_panel import PruningSettings
from demo.samples import examples
from demo.viewing import Shown, build_viewing, make_explainer

FIRST_QUESTION = "Which imaging modality is this?"
KEEP_SECONDS = 3600
"""After which uploads and what was read from them are deleted."""
WAITING = "…"
"""Stands in the chat until the first word comes."""

INTRODUCTION = """# OmniV-Med
Ask about a medical image, volume or video, and see which visual tokens repeat what was already seen.

**For research only.** This is no medical device and must not be used for diagnosis or treatment; answers can be wrong.
Load only data that names no patient.
"""


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
    find_evidence = make_explainer(assistant)

    def read(files: list[str] | None, *controls: Any) -> tuple[Any, ...]:
        """Reads the files; gives the state, the viewing half and an empty chat."""
        if not files:
            return None, *viewing.updates(None), []
        try:
            settings = PruningSettings.from_controls(*controls)
            clip = assistant.read(files, settings.threshold).clip
            shown = Shown(tuple(files), assistant.processor.process_clip(clip, **settings.options()), settings)
        except ValueError as error:
            return None, *viewing.updates(None, str(error)), []
        return shown, *viewing.updates(shown), []

    def explain(history: list[dict[str, Any]], shown: Shown | None) -> tuple[Any, ...]:
        """Looks for the evidence of the last answer."""
        turns = plain_turns(history)
        if shown is None or not turns:
            raise gr.Error("Load a file and ask about it first.", print_exception=False)
        inputs = assistant.prepare(turns[:-1], shown.processed)
        answer_ids = assistant.processor.tokenizer(turns[-1]["content"], add_special_tokens=False).input_ids
        try:
            found = find_evidence(inputs, answer_ids, shown.settings.stage)
        except ValueError as error:
            raise gr.Error(str(error), print_exception=False) from None
        return viewing.show_words(found, [shown.processed], 0)

    def ask(
        question: str, history: list[dict[str, Any]], shown: Shown | None
    ) -> Iterator[tuple[str, list[dict[str, Any]]]]:
        """Adds the question and, word by word, the answer to the chat; empties the question's box."""
        if not question.strip():
            raise gr.Error("Write a question first.", print_exception=False)
        turns = [*plain_turns(history), {"role": "user", "content": question.strip()}]
        try:
            inputs = assistant.prepare(turns, shown and shown.processed)
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
        # Placed further down; the samples above it fill it in.
        question = gr.Textbox(label="Question", value=FIRST_QUESTION, max_lines=4, submit_btn="Ask", render=False)
        gr.Markdown(INTRODUCTION)
        with gr.Row():
            with gr.Column(scale=3, min_width=320):
                files = gr.File(
                    label="Image, DICOM, NIfTI, NRRD, zip or video; or all files of one DICOM series",
                    file_count="multiple",
                    height=140,
                )
                labels, paths = zip(*examples(), strict=True)
                gr.Examples(
                    examples=[[[str(path)], FIRST_QUESTION] for path in paths],
                    example_labels=list(labels),
                    inputs=[files, question],
                    label="Examples",
                )
                viewing = build_viewing(assistant)
            with gr.Column(scale=2, min_width=320):
                chat = gr.Chatbot(label="Conversation", height=460, buttons=["copy"])
                question.render()
                with gr.Row():
                    stop = gr.Button("Stop")
                    clear = gr.Button("Clear the conversation")

        controls = viewing.panel.controls
        files.change(read, [files, *controls], [viewing.shown, *viewing.outputs, chat], api_name="read")
        asking = question.submit(
            ask, [question, chat, viewing.shown], [question, chat], concurrency_limit=1, api_name="ask"
        )
        viewing.explain.click(
            explain, [chat, viewing.shown], viewing.explained, concurrency_limit=1, api_visibility="private"
        )
        stop.click(None, cancels=[asking], api_visibility="private")
        clear.click(lambda: [], None, chat, cancels=[asking], api_visibility="private")
    return page
