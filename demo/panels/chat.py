# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The chat of the page: streamed answers, with and without pruning, which visitors can stop, edit, repeat and save."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import gradio as gr
from gradio.blocks import Block
from gradio.components import Component

from demo.panels.errors import CONNECTION_LOST, errors_for_visitors, visible_error
from demo.panels.pruning_panel import PruningPanel
from demo.panels.queues import MODEL
from demo.service.conversation import Conversation, exchange_at, messages
from demo.service.dialogue import PRUNED, UNPRUNED, Exchange
from demo.service.export import as_json, as_markdown, figures
from demo.service.sessions import Session
from demo.service.suggestions import suggestions

SAVE_IN_BROWSER = """(packed) => {
    const [name, type, text] = JSON.parse(packed), link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}"""
Values = Mapping[Component, Any]
"""The values of an event's inputs, by their components."""
Updates = tuple[Any, ...]
"""The values for an event's outputs, in their order."""


class ChatPanel:
    """The chat, placed in the layout block around the call.

    Args:
        conversation: asks the questions.
        panel: says how media are pruned for a question at the time it is asked.

    Attributes:
        question: the box that questions are typed into.
        suggestions: the questions that the page suggests.
        chat: the conversation.
    """

    def __init__(self, conversation: Conversation, panel: PruningPanel) -> None:
        self._conversation, self._panel = conversation, panel
        self._place()
        self._answers = [self.chat, self._other_chat, self._status, self._other_status]
        self._connect()

    def _place(self) -> None:
        with gr.Row():
            with gr.Column(min_width=200):
                self.chat = gr.Chatbot(
                    label="Conversation",
                    height=420,
                    buttons=["copy", "copy_all"],
                    editable="user",
                    placeholder="Load a file, or ask a question without one.",
                    elem_id="chat",
                )
                self._status = gr.Markdown(elem_id="status")
            with gr.Column(min_width=200, visible=False) as self._other_column:
                self._other_chat = gr.Chatbot(
                    label="Without pruning", height=420, buttons=["copy"], elem_id="chat-unpruned"
                )
                self._other_status = gr.Markdown(elem_id="status-unpruned")
        self.suggestions = gr.Dataset(
            label="Suggested questions",
            components=[gr.Textbox(visible=False)],
            samples=[[question] for question in suggestions(None)],
            layout="gallery",
            elem_id="suggestions",
        )
        self.question = gr.Textbox(
            label="Question",
            placeholder="Ask about your file",
            max_lines=4,
            submit_btn="Ask",
            elem_id="question",
        )
        with gr.Row():
            self._stop = gr.Button("Stop", min_width=100, size="sm")
            self._clear = gr.Button("New conversation", min_width=100, size="sm")
        with gr.Row():
            self._save_json = gr.Button("Save as JSON", min_width=100, size="sm")
            self._save_markdown = gr.Button("Save as Markdown", min_width=100, size="sm")
        self._compare = gr.Checkbox(
            label="A/B: answer twice, with and without pruning",
            info="Side by side, with seconds and tokens. The second answer starts when the first is complete.",
            elem_id="compare",
        )
        self._packed = gr.Textbox(visible="hidden", show_label=False, elem_id="packed")

    def _connect(self) -> None:
        outputs: list[Component] = [self.question, *self._answers]
        inputs: set[Block] = {self.chat, self._compare, *self._panel.controls}
        private: dict[str, Any] = {"api_visibility": "private"}
        answering: dict[str, Any] = {**private, "concurrency_limit": 1, "concurrency_id": MODEL}
        # The status shows the place in the queue while a question waits.
        answering |= {"show_progress": "minimal", "show_progress_on": self._status}
        at_once: dict[str, Any] = {**private, "queue": False, "show_progress": "hidden"}

        running: list[Any] = [
            self.question.submit(self.ask, {self.question, *inputs}, outputs, **answering),
            self.suggestions.click(self.ask_suggestion, {self.suggestions, *inputs}, outputs, **answering),
        ]
        running.append(self.chat.retry(self.retry, inputs, outputs, cancels=running[:], **answering))
        running.append(self.chat.edit(self.edit, inputs, outputs, cancels=running[:], **answering))
        self._stop.click(self.after_stop, None, self._answers, cancels=running, **at_once)
        self.chat.undo(self.undo, {self.chat}, outputs, cancels=running, **at_once)
        for clearing in (self.chat.clear, self._clear.click):
            clearing(self.new_conversation, None, outputs, cancels=running, **at_once)
        self._compare.change(lambda on: gr.update(visible=on), self._compare, self._other_column, **at_once)
        for button, name, kind, write in (
            (self._save_json, "conversation.json", "application/json", as_json),
            (self._save_markdown, "conversation.md", "text/markdown", as_markdown),
        ):
            pack = button.click(self._saver(name, kind, write), None, self._packed, **at_once)
            pack.success(None, self._packed, None, js=SAVE_IN_BROWSER, api_visibility="private")

    def view(self, session: Session) -> Updates:
        """What the two chats and the lines under them show of a session."""
        last = session.exchanges[-1] if session.exchanges else None
        answers = last.answers if last else {}
        stopped = last is not None and last.stopped
        return (
            messages(session.exchanges, PRUNED),
            messages(session.exchanges, UNPRUNED),
            figures(answers.get(PRUNED), stopped),
            figures(answers.get(UNPRUNED), stopped),
        )

    def _session(self, request: gr.Request) -> Session:
        return self._conversation.sessions.open(str(request.session_hash))

    def _continued_session(self, request: gr.Request, values: Values) -> Session:
        """The visitor's session; an error if it ended because the connection was lost for a while."""
        session = self._session(request)
        if values[self.chat] and not session.asked:
            raise visible_error(CONNECTION_LOST)
        return session

    def _stream(self, session: Session, exchange: Exchange, values: Values) -> Iterator[Updates]:
        steps = self._conversation.run(session, exchange, values[self._compare])
        try:
            for _ in steps:
                yield "", *self.view(session)
        finally:
            steps.close()

    def _ask(self, request: gr.Request, question: str, values: Values) -> Iterator[Updates]:
        session = self._continued_session(request, values)
        with errors_for_visitors():
            exchange = self._conversation.begin(session, question, self._panel.settings(values))
        yield from self._stream(session, exchange, values)

    def ask(self, request: gr.Request, values: Values) -> Iterator[Updates]:
        """Asks the typed question and streams the answers; empties the question's box."""
        yield from self._ask(request, values[self.question], values)

    def ask_suggestion(self, request: gr.Request, values: Values) -> Iterator[Updates]:
        """Asks a suggested question."""
        yield from self._ask(request, values[self.suggestions][0], values)

    def retry(self, request: gr.Request, data: gr.RetryData, values: Values) -> Iterator[Updates]:
        """Asks a question again with the present settings."""
        session = self._continued_session(request, values)
        number, _ = exchange_at(session.exchanges, _index(data))
        with errors_for_visitors():
            question, settings = session.exchanges[number].question, self._panel.settings(values)
            exchange = self._conversation.again(session, number, question, settings)
        yield from self._stream(session, exchange, values)

    def edit(self, request: gr.Request, data: gr.EditData, values: Values) -> Iterator[Updates]:
        """Replaces a question by an edited one."""
        session = self._continued_session(request, values)
        number, is_question = exchange_at(session.exchanges, _index(data))
        try:
            if not is_question:
                raise ValueError("A question's files cannot be changed; start a new conversation with other files.")
            settings = self._panel.settings(values)
            exchange = self._conversation.again(session, number, plain_text(data.value), settings)
        except ValueError as error:
            gr.Warning(str(error))
            yield "", *self.view(session)  # undoes the edit in the chat
            return
        yield from self._stream(session, exchange, values)

    def undo(self, request: gr.Request, values: Values) -> Updates:
        """Takes the last question back into its box."""
        session = self._continued_session(request, values)
        question = session.exchanges.pop().question if session.exchanges else ""
        return question, *self.view(session)

    def new_conversation(self, request: gr.Request) -> Updates:
        """Forgets the conversation; its files stay and come with the next question."""
        session = self._session(request)
        session.exchanges.clear()
        return "", *self.view(session)

    def after_stop(self, request: gr.Request) -> Updates:
        """Marks the answer that the visitor stopped."""
        session = self._session(request)
        if session.exchanges and not all(answer.complete for answer in session.exchanges[-1].answers.values()):
            session.exchanges[-1].stopped = True
        return self.view(session)

    def _saver(self, name: str, kind: str, write: Callable[[Session, str], str]) -> Callable[[gr.Request], str]:
        """Makes the handler that packs the conversation as a file for `SAVE_IN_BROWSER`."""

        def save(request: gr.Request) -> str:
            session = self._session(request)
            if not session.exchanges:
                raise visible_error("There is no conversation yet; ask a question first.")
            return json.dumps([name, kind, write(session, self._conversation.assistant.name)])

        return save


def _index(data: gr.RetryData | gr.EditData) -> int:
    """The index of the message; Gradio gives a pair only in its old format of chats."""
    assert isinstance(data.index, int)
    return data.index


def plain_text(value: Any) -> str:
    """The words of a message, which Gradio gives as text or as a list of parts."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        return plain_text(value.get("text", ""))
    return "".join(plain_text(part) for part in value or [])
