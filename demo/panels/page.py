# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The Gradio page: load media, see what is pruned at which threshold, and ask about them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.components import Component

from demo.api import ClosedBlocks, add_endpoints
from demo.panels.chat import ChatPanel
from demo.panels.errors import CONNECTION_LOST, errors_for_visitors
from demo.panels.queues import MODEL, MOST_READING, READING
from demo.panels.viewing import ViewingPanel
from demo.service.assistant import Assistant
from demo.service.conversation import Conversation
from demo.service.dialogue import PRUNED
from demo.service.errors import message_for_visitor
from demo.service.pruning_settings import PruningSettings
from demo.service.samples import examples
from demo.service.sessions import LoadedFile, Session, Sessions
from demo.service.shown import Shown
from demo.service.suggestions import suggestions

UPLOAD_SECONDS = 600
"""After which Gradio's copies of uploads are deleted; what a visitor loaded lies in a folder of its session."""
INTRODUCTION = """# OmniV-Med
Ask about a medical image, volume or video, and see which visual tokens repeat what the model has already seen.

**For research only.** This is not a medical device. Do not use it for diagnosis or treatment; answers can be wrong.
Load only files that do not identify a patient.
"""
Values = Mapping[Component, Any]
"""The values of an event's inputs, by their components."""
Updates = tuple[Any, ...]
"""The values for an event's outputs, in their order."""


def build_page(assistant: Assistant, sessions: Sessions) -> gr.Blocks:
    """The page around one assistant.

    Args:
        sessions: hold the visitors' files; the page ends a session when its tab is closed.
    """
    return Page(assistant, sessions).blocks


class Page:
    """The page's files and the two panels; connects them with each other.

    Attributes:
        blocks: what Gradio serves.
    """

    def __init__(self, assistant: Assistant, sessions: Sessions) -> None:
        self._assistant, self._sessions = assistant, sessions
        self._conversation = Conversation(assistant, sessions)
        self._samples = list(examples())
        with ClosedBlocks(title="OmniV-Med", analytics_enabled=False, delete_cache=(60, UPLOAD_SECONDS)) as self.blocks:
            self._place()
            self._connect()
            add_endpoints(assistant)

    def _place(self) -> None:
        gr.Markdown(INTRODUCTION)
        with gr.Row():
            with gr.Column(scale=3, min_width=320):
                self._upload = gr.File(
                    label="Image, DICOM, NIfTI, NRRD, zip or video; or all files of one DICOM series",
                    file_count="multiple",
                    height=170,
                    elem_id="files",
                )
                self._sample = gr.Dataset(
                    label="Examples",
                    components=[gr.Textbox(visible=False)],
                    samples=[[label] for label, _ in self._samples],
                    type="index",
                    layout="gallery",
                    elem_id="samples",
                )
                with gr.Row():
                    self._chosen = gr.Radio(
                        [],
                        label="Files; new ones come with the next question",
                        visible=False,
                        scale=4,
                        elem_id="chosen",
                    )
                    self._remove = gr.Button("Remove this file", visible=False, scale=1, min_width=140, size="sm")
                self._viewing = ViewingPanel(self._assistant)
            with gr.Column(scale=2, min_width=320):
                self._chat = ChatPanel(self._conversation, self._viewing.panel)

    def _connect(self) -> None:
        controls = self._viewing.panel.controls
        shown: list[Component] = [self._chosen, self._remove, self._chat.suggestions, *self._viewing.outputs]
        private: dict[str, Any] = {"api_visibility": "private"}
        reading: dict[str, Any] = {**private, "concurrency_limit": MOST_READING, "concurrency_id": READING}
        loading: dict[str, Any] = {**reading, "show_progress_on": self._upload}
        self._upload.upload(self.load_uploads, {self._upload, *controls}, [self._upload, *shown], **loading)
        self._sample.click(self.load_sample, {self._sample, *controls}, [self._upload, *shown], **loading)
        choosing: dict[str, Any] = {**reading, "show_progress_on": self._chosen}
        self._chosen.input(self.show_file, {self._chosen, *controls}, shown, **choosing)
        self._remove.click(self.remove_file, {self._chosen, *controls}, shown, **choosing)
        self._viewing.explain.click(
            self.explain, self._chosen, self._viewing.explained, concurrency_limit=1, concurrency_id=MODEL, **private
        )
        self.blocks.unload(self.leave)

    def load_uploads(
        self,
        request: gr.Request,
        values: Values,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 - Gradio looks for it here
    ) -> Updates:
        """Reads uploads as one medium and shows it."""
        uploads = [Path(upload) for upload in values[self._upload] or []]
        return self._load(self._session(request), uploads, values, progress)

    def load_sample(
        self,
        request: gr.Request,
        values: Values,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> Updates:
        """Reads an example and shows it."""
        _, path = self._samples[values[self._sample]]
        return self._load(self._session(request), [path], values, progress)

    def show_file(self, request: gr.Request, values: Values) -> Updates:
        """Shows another of the loaded files."""
        session = self._session(request)
        with errors_for_visitors():
            file = session.file(values[self._chosen])
            if file is None:
                raise ValueError(CONNECTION_LOST)
            return self._display(session, file, self._viewing.panel.settings(values))

    def remove_file(self, request: gr.Request, values: Values) -> Updates:
        """Removes the shown file and shows the last of the others; keeps a file that came with a question."""
        session = self._session(request)
        file = session.file(values[self._chosen])
        with errors_for_visitors():
            settings = self._viewing.panel.settings(values)
            if file is not None and file not in self._conversation.pending(session):
                gr.Warning("This file belongs to a question; start a new conversation to go on without it.")
                return self._display(session, file, settings)
            if file is not None:
                self._sessions.remove(session, file)
            return self._display(session, session.files[-1] if session.files else None, settings)

    def explain(self, request: gr.Request, number: int | None) -> Updates:
        """Finds the evidence of the last answer in the file that is shown."""
        session = self._session(request)
        with errors_for_visitors():
            exchange = session.exchanges[-1] if session.exchanges else None
            answer = exchange.answers.get(PRUNED) if exchange else None
            if exchange is None or answer is None or not answer.token_ids:
                raise ValueError("Load a file and ask about it first.")
            turns = self._conversation.turns(session, exchange, PRUNED)
            keys = [medium.key for turn in turns for medium in turn.media]
            if str(number) not in keys:
                raise ValueError("The shown file is not part of the conversation yet; ask about it first.")
            inputs, media = self._assistant.inputs(turns, exchange.settings)
            evidence = self._assistant.find_evidence(inputs, answer.token_ids, exchange.settings)
            return self._viewing.display_evidence(evidence, media, keys.index(str(number)))

    def leave(self, request: gr.Request) -> None:
        """Forgets a visitor."""
        key = str(request.session_hash)
        self._sessions.end(key)
        self._assistant.memory.drop(key)
        self.blocks.state_holder.delete_state(key)  # Gradio itself keeps it for an hour

    def _session(self, request: gr.Request) -> Session:
        return self._sessions.open(str(request.session_hash))

    def _load(self, session: Session, uploads: list[Path], values: Values, progress: gr.Progress) -> Updates:
        """Reads files as one medium and shows it; empties the box that files are dropped into."""

        def read(paths: list[Path]) -> Any:
            progress(0, desc="Reading the file")
            return self._assistant.read(paths, lambda done, total: progress((done, total), desc="Reading the file"))

        file = None
        try:
            settings = self._viewing.panel.settings(values)
            file = self._sessions.load(session, uploads, read)
            return None, *self._display(session, file, settings)
        except Exception as error:  # whatever it is, the visitor gets a sentence
            if file is not None:
                self._sessions.remove(session, file)
            problem = message_for_visitor(error)
            if not session.files:
                return None, *self._display(session, None, problem=problem)
            gr.Warning(f"Not loaded: {problem}", duration=None)
            unchanged = (gr.skip() for _ in (*self._choice(session, None), *self._viewing.outputs))
            return None, *unchanged

    def _display(
        self, session: Session, file: LoadedFile | None, settings: PruningSettings | None = None, problem: str = ""
    ) -> Updates:
        """The values that show a file, or that show none and state the problem, if any.

        Raises:
            ValueError: when the file cannot be read again or pruned under these settings.
        """
        shown = None
        if file is not None and settings is not None:
            clip = self._sessions.clip(session, file, self._assistant.read)
            shown = Shown(file.paths, self._assistant.prune(clip, settings), settings)
        return *self._choice(session, file), *self._viewing.display(shown, problem)

    def _choice(self, session: Session, file: LoadedFile | None) -> Updates:
        """The values of the list of files, the button that removes one, and the suggestions for it."""
        choices = [(each.label, each.number) for each in session.files]
        removable = file is not None and file in self._conversation.pending(session)
        return (
            gr.update(choices=choices, value=file and file.number, visible=bool(choices)),
            gr.update(visible=removable),
            gr.update(samples=[[question] for question in suggestions(file)]),
        )
