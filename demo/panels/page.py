# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The Gradio page: load media, see what is pruned at which threshold, and ask about them.

One screen: the viewing half at the left, the chat at the right, settings in a drawer. `browser/page.css` lays it out.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr
from gradio.components import Component, Navbar

from demo.api import ClosedBlocks, add_endpoints
from demo.panels.about import make_about
from demo.panels.archive import ArchivePanel
from demo.panels.chat import ChatPanel, pressed_exchange
from demo.panels.components import templates, text_of
from demo.panels.errors import CONNECTION_LOST, errors_for_visitors
from demo.panels.example_cards import make_cards
from demo.panels.files_box import make_files_box, sent_files
from demo.panels.pruning_panel import PruningPanel
from demo.panels.queues import MODEL, MOST_READING, READING
from demo.panels.rail import make_rail, show_files
from demo.panels.viewing import ViewingPanel
from demo.service.assistant import Assistant
from demo.service.conversation import Conversation
from demo.service.dialogue import PRUNED
from demo.service.errors import message_for_visitor
from demo.service.pruning_settings import PruningSettings
from demo.service.reading_choice import ReadingChoice
from demo.service.samples import examples
from demo.service.sessions import LoadedFile, Session, Sessions
from demo.service.shown import Shown
from demo.service.suggestions import suggestions
from demo.service.uploads import media_of
from demo.study_api import add_study_endpoints

if TYPE_CHECKING:
    from demo.service.studies import Studies

UPLOAD_SECONDS = 600
"""After which Gradio's copies of uploads are deleted; what a visitor loaded lies in a folder of its session."""
NOTICE = "For research only, not a medical device: answers can be wrong. Load no file that identifies a patient."
Values = Mapping[Component, Any]
"""The values of an event's inputs, by their components."""
Updates = tuple[Any, ...]
"""The values for an event's outputs, in their order."""


def build_page(assistant: Assistant, sessions: Sessions, studies: Studies | None = None) -> gr.Blocks:
    """The page around one assistant.

    Args:
        sessions: hold the visitors' files; the page ends a session when its tab is closed.
        studies: of the operator's archives, if there are any.
    """
    return Page(assistant, sessions, studies).blocks


class Page:
    """The page's files and its two halves; connects them with each other.

    Attributes:
        blocks: what Gradio serves.
    """

    def __init__(self, assistant: Assistant, sessions: Sessions, studies: Studies | None) -> None:
        self._assistant, self._sessions, self._studies = assistant, sessions, studies
        self._conversation = Conversation(assistant, sessions)
        self._examples = list(examples())
        with ClosedBlocks(
            title="OmniV-Med", analytics_enabled=False, delete_cache=(60, UPLOAD_SECONDS), fill_width=True
        ) as self.blocks:
            self._place()
            self._connect()
            add_endpoints(assistant)
            if studies is not None:
                add_study_endpoints(assistant, studies)
        with self.blocks.route("About", "about", show_in_navbar=False):
            make_about(assistant.description, assistant.measured.lines)

    def _place(self) -> None:
        Navbar(visible=False)
        gr.HTML(f"<style>{text_of('page.css')}</style>", visible="hidden")
        self._archive = None
        with gr.Sidebar(open=False, position="right", width=380, elem_id="settings"):
            if self._studies is not None:
                self._archive = ArchivePanel(self._studies)
            self._pruning = PruningPanel(self._assistant.defaults)
            chart = gr.Plot(show_label=False, elem_id="kept_chart", visible=False)
        gr.HTML(elem_id="top", **templates("header"))
        with gr.Row(elem_id="work"):
            with gr.Column(elem_id="see"):
                with gr.Column(elem_id="shelf"):
                    self._rail = make_rail()
                    self._files = make_files_box()
                self._cards = make_cards(self._examples)
                with gr.Column(elem_id="picture-side"):
                    self._viewing = ViewingPanel(self._assistant, self._pruning, chart)
            with gr.Column(elem_id="talk"):
                self._chat = ChatPanel(self._conversation, self._pruning)
                gr.Markdown(NOTICE, elem_id="notice")

    def _connect(self) -> None:
        controls = self._pruning.controls
        shown: list[Component] = [self._rail, self._chat.suggestions, *self._viewing.outputs]
        private: dict[str, Any] = {"api_visibility": "private"}
        reading: dict[str, Any] = {**private, "concurrency_limit": MOST_READING, "concurrency_id": READING}
        loading: dict[str, Any] = {**reading, "show_progress_on": self._files}
        self._files.sent(self.load_uploads, controls, shown, trigger_mode="multiple", **loading)
        if self._archive is not None:
            self._archive.load.click(self.load_series, {self._archive.series, *controls}, shown, **loading)
        self._cards.pick(self.load_sample, controls, [self._chat.question, *shown], **loading)
        choosing: dict[str, Any] = {**reading, "show_progress_on": self._rail}
        self._rail.choose(self.show_file, controls, shown, **choosing)
        self._rail.remove(self.remove_file, controls, shown, **choosing)
        self._viewing.slicing(self.slice_again, {self._viewing.shown, *controls}, shown, **choosing)
        self._chat.buttons.look(
            self.look,
            {self._viewing.shown, *controls},
            shown,
            concurrency_limit=1,
            concurrency_id=MODEL,
            **private,
        )
        self.blocks.unload(self.leave)

    def load_uploads(
        self,
        request: gr.Request,
        values: Values,
        event: gr.EventData,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 - Gradio looks for it here
    ) -> Updates:
        """Reads uploads, each as one medium or several as one, and shows the last of them."""
        session = self._session(request)
        with errors_for_visitors():
            media = media_of(sent_files(event))
        loaded = [self._load(session, paths, values, progress) for paths in media]
        return next((updates for updates in reversed(loaded) if updates), self._unchanged())

    def load_series(
        self,
        request: gr.Request,
        values: Values,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> Updates:
        """Fetches the chosen series of an archive and shows it."""
        with errors_for_visitors():
            if self._archive is None or self._studies is None or not values[self._archive.series]:
                raise ValueError("Choose a study and one of its series.")
            progress(0, desc="Fetching the series")
            with self._studies.files(values[self._archive.series]) as files:
                loaded = self._load(self._session(request), files, values, progress)
        return loaded or self._unchanged()

    def load_sample(
        self,
        request: gr.Request,
        values: Values,
        event: gr.EventData,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> Updates:
        """Reads an example and shows it; writes its question into the box for questions."""
        number = getattr(event, "index", None)
        with errors_for_visitors():
            if not isinstance(number, int) or not 0 <= number < len(self._examples):
                raise ValueError("There is no such example.")
            example = self._examples[number]
        updates = self._load(self._session(request), [example.path], values, progress)
        return (example.question, *updates) if updates else (gr.skip(), *self._unchanged())

    def show_file(self, request: gr.Request, values: Values, event: gr.EventData) -> Updates:
        """Shows another of the loaded files."""
        session = self._session(request)
        with errors_for_visitors():
            file = session.file(getattr(event, "number", None))
            if file is None:
                raise ValueError(CONNECTION_LOST)
            return self._display(session, file, self._pruning.settings(values))

    def remove_file(self, request: gr.Request, values: Values, event: gr.EventData) -> Updates:
        """Removes a file that came with no question yet, and shows the last of the others."""
        session = self._session(request)
        file = session.file(getattr(event, "number", None))
        with errors_for_visitors():
            settings = self._pruning.settings(values)
            if file is not None and file not in self._conversation.pending(session):
                raise ValueError("This file belongs to a question; start a new conversation to go on without it.")
            if file is not None:
                self._sessions.remove(session, file)
            return self._display(session, session.files[-1] if session.files else None, settings)

    def slice_again(self, request: gr.Request, values: Values, event: gr.EventData) -> Updates:
        """Reads another series or another plane of the shown file.

        It takes the file's place, unless a question was asked about it: then it is a file of its own, for the next one.
        """
        session, shown = self._session(request), values[self._viewing.shown]
        with errors_for_visitors():
            file = next((file for file in session.files if shown is not None and file.paths == shown.paths), None)
            if file is None:
                raise ValueError(CONNECTION_LOST)
            plane, series = (getattr(event, name, None) for name in ("plane", "series"))
            choice = file.choice.changed(plane, series, file.series)
            is_pending = file in self._conversation.pending(session)
            again = self._sessions.load_again(session, file, self._assistant.read, choice, is_pending)
            if is_pending:  # the model may remember the file as it was, from a question that was taken back
                self._assistant.memory.drop(session.key)
            return self._display(session, again, self._pruning.settings(values))

    def look(self, request: gr.Request, values: Values, event: gr.EventData) -> Updates:
        """Finds what an answer depends on; shows the file that it depends on most, if another one is shown."""
        session, shown = self._session(request), values[self._viewing.shown]
        with errors_for_visitors():
            exchange = pressed_exchange(session, event)
            turns = self._conversation.turns(session, exchange, PRUNED)
            keys = [medium.key for turn in turns for medium in turn.media]
            if not keys:
                raise ValueError("The model was asked without a file, so it looked at nothing.")
            inputs, media = self._assistant.inputs(turns, exchange.settings)
            token_ids = exchange.answers[PRUNED].token_ids
            evidence = self._assistant.find_evidence(inputs, media, token_ids, exchange.settings)
            medium = evidence.strongest.medium
            file, processed = session.file(int(keys[medium])), media[medium]
            if file is None:
                raise ValueError("The file of this answer is gone; load it again.")
            if shown is not None and shown.paths == file.paths and shown.processed.grid == processed.grid:
                others, updates = [gr.skip() for _ in self._choice(session, file)], self._viewing.unchanged()
            else:
                *others, updates = self._parts(session, file, exchange.settings)
            return *others, *self._viewing.with_evidence(updates, evidence, processed)

    def leave(self, request: gr.Request) -> None:
        """Forgets a visitor."""
        key = str(request.session_hash)
        self._sessions.end(key)
        self._assistant.memory.drop(key)
        # Gradio itself keeps what the page showed for an hour, and a copy of the page's description for ever.
        self.blocks.state_holder.delete_state(key)
        self.blocks.state_holder.session_data.pop(key, None)
        self.blocks.state_holder.time_last_used.pop(key, None)

    def _session(self, request: gr.Request) -> Session:
        return self._sessions.open(str(request.session_hash))

    def _load(self, session: Session, uploads: list[Path], values: Values, progress: gr.Progress) -> Updates | None:
        """Reads files as one medium; the values that show it, or None after telling the visitor why there are none."""

        def read(paths: list[Path], choice: ReadingChoice) -> Any:
            progress(0, desc="Reading the file")
            return self._assistant.read(
                paths, choice, lambda done, total: progress((done, total), desc="Reading the file")
            )

        file = None
        try:
            settings = self._pruning.settings(values)
            file = self._sessions.load(session, uploads, read)
            return self._display(session, file, settings)
        except Exception as error:  # whatever it is, the visitor gets a sentence
            if file is not None:
                self._sessions.remove(session, file)
            gr.Warning(f"Not loaded: {message_for_visitor(error)}", duration=None)
            return None

    def _display(self, session: Session, file: LoadedFile | None, settings: PruningSettings) -> Updates:
        """The values that show a file, or that show none.

        Raises:
            ValueError: when the file cannot be read again or pruned under these settings.
        """
        *others, updates = self._parts(session, file, settings)
        return *others, *updates

    def _parts(self, session: Session, file: LoadedFile | None, settings: PruningSettings) -> Updates:
        """As `_display`, with the values of the viewing half as one tuple at the end."""
        shown = None
        if file is not None:
            clip = self._sessions.clip(session, file, self._assistant.read)
            shown = Shown(file.paths, self._assistant.prune(clip, settings), settings, file.choice)
        return *self._choice(session, file), self._viewing.display(shown)

    def _choice(self, session: Session, file: LoadedFile | None) -> Updates:
        """The values of the rail, and of the suggestions for a file."""
        rail = show_files(session.files, file, self._conversation.pending(session))
        return rail, gr.update(
            samples=[[question] for question in suggestions(file, self._assistant.measured.answered)]
        )

    def _unchanged(self) -> Updates:
        """The values that leave what is shown."""
        return gr.skip(), gr.skip(), *self._viewing.unchanged()
