# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The Gradio page: load media, see what is pruned at which threshold, ask about them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from demo.api import MOST_READING, READING, ClosedBlocks, add_endpoints
from demo.panels.chat import MODEL, PRUNED, Conversation, build_chat, suggestions
from demo.panels.pruning_panel import PruningSettings
from demo.panels.viewing import Shown, build_viewing, make_explainer
from demo.service.assistant import Assistant
from demo.service.errors import in_one_sentence, sentence
from demo.service.samples import examples
from demo.service.sessions import LoadedFile, Session, Sessions

UPLOAD_SECONDS = 600
"""After which Gradio's copies of uploads are deleted; what a visitor loaded lies in a folder of its session."""
INTRODUCTION = """# OmniV-Med
Ask about a medical image, volume or video, and see which visual tokens repeat what was already seen.

**For research only.** This is no medical device and must not be used for diagnosis or treatment; answers can be wrong.
Load only data that names no patient.
"""


def build_page(assistant: Assistant, sessions: Sessions) -> gr.Blocks:
    """The page around one assistant.

    Args:
        sessions: where visitors' files are; the page ends a session when its tab is closed.
    """
    find_evidence = make_explainer(assistant)
    conversation = Conversation(assistant, sessions)
    samples = list(examples())

    def choice(session: Session, file: LoadedFile | None) -> tuple[Any, ...]:
        """The updates of the list of files and of what belongs to the file that is shown."""
        choices = [(each.label, each.number) for each in session.files]
        pending = file is not None and file in conversation.pending(session)
        return (
            gr.update(choices=choices, value=file and file.number, visible=bool(choices)),
            gr.update(visible=pending),
            gr.update(samples=[[idea] for idea in suggestions(file)]),
        )

    def shown_as(session: Session, file: LoadedFile, values: tuple[Any, ...]) -> Shown:
        settings = PruningSettings.from_controls(*values)
        processed = assistant.prune(sessions.clip(session, file, assistant.read), settings)
        return Shown(tuple(str(path) for path in file.paths), processed, settings)

    def load(session: Session, uploads: list[Path], values: tuple[Any, ...], progress: gr.Progress) -> tuple[Any, ...]:
        """Reads files as one medium, and shows it; empties the box that files are dropped into."""

        def read(paths: list[Path]) -> Any:
            progress(0, desc="Reading the file")
            return assistant.read(paths, lambda done, total: progress((done, total), desc="Reading the file"))

        file = None
        try:
            file = sessions.load(session, uploads, read)
            shown = shown_as(session, file, values)
        except Exception as error:
            if file is not None:
                sessions.remove(session, file)
            if session.files:  # what is shown stays
                gr.Warning(f"Not loaded: {sentence(error)}", duration=None)
                return None, *(gr.skip() for _ in (*selection, *display))
            return None, *choice(session, None), None, *viewing.updates(None, sentence(error))
        return None, *choice(session, file), shown, *viewing.updates(shown)

    # Gradio fills in the progress by its place, so it stands before the values of the controls.
    def load_uploads(
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
        uploads: list[str] | None = None,
        *values: Any,
    ) -> tuple[Any, ...]:
        session = sessions.open(request.session_hash)
        return load(session, [Path(upload) for upload in uploads or []], values, progress)

    def load_sample(
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
        index: int = 0,
        *values: Any,
    ) -> tuple[Any, ...]:
        return load(sessions.open(request.session_hash), [samples[index][1]], values, progress)

    def show_file(request: gr.Request, number: int, *values: Any) -> tuple[Any, ...]:
        """Shows another of the loaded files."""
        session = sessions.open(request.session_hash)
        file = session.file(number)
        with in_one_sentence():
            if file is None:
                raise ValueError("The connection was lost, and your files were deleted; reload the page.")
            shown = shown_as(session, file, values)
        return *choice(session, file), shown, *viewing.updates(shown)

    def remove_file(request: gr.Request, number: int | None, *values: Any) -> tuple[Any, ...]:
        """Takes the shown file away, where no question came with it yet, and shows the one before it."""
        session = sessions.open(request.session_hash)
        file = session.file(number)
        if file is not None and file not in conversation.pending(session):
            gr.Warning("A question came with this file; only a new conversation can do without it.")
            return show_file(request, file.number, *values)
        if file is not None:
            sessions.remove(session, file)
        if not session.files:
            return *choice(session, None), None, *viewing.updates(None)
        return show_file(request, session.files[-1].number, *values)

    def explain(request: gr.Request, number: int | None) -> tuple[Any, ...]:
        """Looks for the evidence of the last answer in the file that is shown."""
        session = sessions.open(request.session_hash)
        with in_one_sentence():
            exchange = session.exchanges[-1] if session.exchanges else None
            answer = exchange and exchange.answers.get(PRUNED)
            if not answer or not answer.token_ids:
                raise ValueError("Load a file and ask about it first.")
            turns = conversation.turns(session, exchange, PRUNED)
            keys = [medium.key for turn in turns for medium in turn.media]
            if str(number) not in keys:
                raise ValueError("The shown file is not part of the conversation yet; ask about it first.")
            inputs, media = assistant.inputs(turns, exchange.settings)
            found = find_evidence(inputs, answer.token_ids, exchange.settings.stage)
            return viewing.show_words(found, media, keys.index(str(number)))

    def leave(request: gr.Request) -> None:
        """Forgets a visitor."""
        sessions.end(request.session_hash)
        assistant.memory.drop(request.session_hash)
        page.state_holder.delete_state(request.session_hash)  # Gradio itself keeps it for an hour

    with ClosedBlocks(title="OmniV-Med", analytics_enabled=False, delete_cache=(60, UPLOAD_SECONDS)) as page:
        gr.Markdown(INTRODUCTION)
        with gr.Row():
            with gr.Column(scale=3, min_width=320):
                files = gr.File(
                    label="Image, DICOM, NIfTI, NRRD, zip or video; or all files of one DICOM series",
                    file_count="multiple",
                    height=170,
                    elem_id="files",
                )
                sample = gr.Dataset(
                    label="Examples",
                    components=[gr.Textbox(visible=False)],
                    samples=[[label] for label, _ in samples],
                    type="index",
                    layout="gallery",
                    elem_id="samples",
                )
                with gr.Row():
                    chosen = gr.Radio([], label="Files; new ones come with the next question", visible=False, scale=4)
                    remove = gr.Button("Remove this file", visible=False, scale=1, min_width=140, size="sm")
                viewing = build_viewing(assistant)
            with gr.Column(scale=2, min_width=320):
                chat = build_chat(assistant, sessions, viewing.panel)

        controls = viewing.panel.controls
        selection = [chosen, remove, chat.suggestions]
        display = [viewing.shown, *viewing.outputs]
        reading: dict[str, Any] = {
            "api_visibility": "private",
            "concurrency_limit": MOST_READING,
            "concurrency_id": READING,
        }
        loading = {**reading, "show_progress_on": files}
        files.upload(load_uploads, [files, *controls], [files, *selection, *display], **loading)
        sample.click(load_sample, [sample, *controls], [files, *selection, *display], **loading)
        choosing = {**reading, "show_progress_on": chosen}
        chosen.input(show_file, [chosen, *controls], [*selection, *display], **choosing)
        remove.click(remove_file, [chosen, *controls], [*selection, *display], **choosing)
        viewing.explain.click(
            explain, chosen, viewing.explained, api_visibility="private", concurrency_limit=1, concurrency_id=MODEL
        )
        page.unload(leave)
        add_endpoints(assistant)
    return page
