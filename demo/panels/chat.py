# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The chat of the page: streamed answers, with and without pruning, which visitors can stop, edit, repeat and save."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any

import gradio as gr
from gradio.blocks import Block
from gradio.components import Component

from demo.panels.answers import exchange_at, messages, words
from demo.panels.components import templates
from demo.panels.errors import CONNECTION_LOST, errors_for_visitors, visible_error
from demo.panels.pruning_panel import PruningPanel
from demo.panels.queues import MODEL
from demo.service.conversation import Conversation
from demo.service.dialogue import PRUNED, UNPRUNED, Answer, Exchange
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
TOO_BUSY = "The server could not take the question; try again in a moment."
Values = Mapping[Component, Any]
"""The values of an event's inputs, by their components."""
Updates = tuple[Any, ...]
"""The values for an event's outputs, in their order."""


class ChatPanel:
    """The chat, placed in the layout block around the call.

    A question is taken in two steps. The first comes at once: it checks the question, fixes the files that come with
    it, and shows it. The second waits for the model. So a file that is loaded meanwhile belongs to the next question.

    Args:
        conversation: asks the questions.
        panel: says how media are pruned for a question at the time it is asked.

    Attributes:
        question: the box that questions are typed into.
        suggestions: the questions that the page suggests.
        chat: the conversation.
        buttons: tells which button of an answer was pressed, by its events `compare` and `look`.
    """

    def __init__(self, conversation: Conversation, panel: PruningPanel) -> None:
        self._conversation, self._panel = conversation, panel
        self._place()
        self._answers = [self.chat, self._status, self._stop, *self._with_conversation, self._earlier]
        self._connect()

    def _place(self) -> None:
        with gr.Row(elem_id="talk-tools"):
            self._clear = gr.Button("New conversation", min_width=60, size="sm", interactive=False)
            self._save_json = gr.Button("Save as JSON", min_width=60, size="sm", interactive=False)
            self._save_markdown = gr.Button("Save as Markdown", min_width=60, size="sm", interactive=False)
        self._with_conversation = [self._clear, self._save_json, self._save_markdown]
        self._earlier = gr.HTML(value="[]", elem_id="earlier", **templates("earlier"))
        self.chat = gr.Chatbot(
            show_label=False,
            height=200,  # the style sheet makes it as tall as there is room
            buttons=[],
            editable="user",
            placeholder="Load a file, or ask a question without one.",
            elem_id="chat",
        )
        self._status = gr.Markdown(elem_id="status")
        self.suggestions = gr.Dataset(
            show_label=False,
            components=[gr.Textbox(visible=False)],
            samples=[[question] for question in suggestions(None, {})],
            layout="gallery",
            elem_id="suggestions",
        )
        with gr.Row(elem_id="composer"):
            self.question = gr.Textbox(
                show_label=False,
                label="Question",
                placeholder="Ask about your file",
                max_lines=4,
                submit_btn="Ask",
                scale=1,
                elem_id="question",
            )
            self._stop = gr.Button("Stop", min_width=64, size="sm", scale=0, interactive=False, elem_id="stop")
        self.buttons = gr.HTML(visible="hidden", **templates("chat"))
        self._packed = gr.Textbox(visible="hidden", show_label=False, elem_id="packed")

    def _connect(self) -> None:
        outputs: list[Component] = [self.question, *self._answers]
        inputs: set[Block] = {self.chat, *self._panel.controls}
        private: dict[str, Any] = {"api_visibility": "private"}
        at_once: dict[str, Any] = {**private, "queue": False, "show_progress": "hidden"}
        answering: dict[str, Any] = {**private, "concurrency_limit": 1, "concurrency_id": MODEL}
        # The status shows the place in the queue while a question waits.
        answering |= {"show_progress": "minimal", "show_progress_on": self._status, "trigger_mode": "multiple"}

        comparing = self.buttons.compare(self.compare, None, self._answers, **answering)
        running: list[Any] = [comparing]
        for event, take, more in (
            (self.question.submit, self.ask, {self.question}),
            (self.suggestions.click, self.ask_suggestion, {self.suggestions}),
            (self.chat.retry, self.retry, set()),
            (self.chat.edit, self.edit, set()),
        ):
            again = take in (self.retry, self.edit)
            taken = event(take, {*inputs, *more}, outputs, cancels=running[:] if again else None, **at_once)
            asked = taken.success(self.answer, None, self._answers, **answering)
            asked.failure(self.after_failure, None, self._answers, **at_once)
            running.append(asked)
        self._stop.click(self.after_stop, None, self._answers, cancels=running, **at_once)
        self.chat.undo(self.undo, {self.chat}, outputs, cancels=running, **at_once)
        for clearing in (self.chat.clear, self._clear.click):
            clearing(self.new_conversation, None, outputs, cancels=running, **at_once)
        for button, name, kind, write in (
            (self._save_json, "conversation.json", "application/json", as_json),
            (self._save_markdown, "conversation.md", "text/markdown", as_markdown),
        ):
            pack = button.click(self._saver(name, kind, write), None, self._packed, **at_once)
            pack.success(None, self._packed, None, js=SAVE_IN_BROWSER, api_visibility="private")

    def view(self, session: Session, status: str | None = None) -> Updates:
        """What the chat, the line under it and the buttons show of a session, and what the browser keeps of it.

        Args:
            status: the line; by default what the model is doing, or what the last answer took.
        """
        exchanges = session.exchanges
        if status is None:
            status = _figures(exchanges)
        busy = any(exchange.waits or exchange.is_answering for exchange in exchanges)
        with_conversation = (gr.update(interactive=bool(exchanges)) for _ in self._with_conversation)
        kinds = self._conversation.assistant.measured.shows_findings
        shown = messages(exchanges, {file.number for file in session.files if file.kind in kinds})
        return shown, status, gr.update(interactive=busy), *with_conversation, words(exchanges)

    def _session(self, request: gr.Request) -> Session:
        return self._conversation.sessions.open(str(request.session_hash))

    def _continued_session(self, request: gr.Request, values: Values) -> Session:
        """The visitor's session; an error if it ended because the connection was lost for a while."""
        session = self._session(request)
        if values[self.chat] and not session.asked:
            raise visible_error(CONNECTION_LOST)
        return session

    def _taken(self, session: Session, question: str = "") -> Updates:
        """Shows a question at once, with its place in line."""
        place = self._conversation.place(session)
        return question, *self.view(session, "Waiting for the model" if place == 1 else f"{ordinal(place)} in line")

    def _begin(self, request: gr.Request, question: str, values: Values) -> Updates:
        session = self._continued_session(request, values)
        with errors_for_visitors():
            self._conversation.begin(session, question, self._panel.settings(values))
        return self._taken(session)

    def ask(self, request: gr.Request, values: Values) -> Updates:
        """Takes the typed question and empties its box."""
        return self._begin(request, values[self.question], values)

    def ask_suggestion(self, request: gr.Request, values: Values) -> Updates:
        """Takes a suggested question."""
        return self._begin(request, values[self.suggestions][0], values)

    def retry(self, request: gr.Request, data: gr.RetryData, values: Values) -> Updates:
        """Takes a question again with the present settings."""
        session = self._continued_session(request, values)
        number, _ = exchange_at(session.exchanges, _index(data))
        with errors_for_visitors():
            question, settings = session.exchanges[number].question, self._panel.settings(values)
            self._conversation.again(session, number, question, settings)
        return self._taken(session)

    def edit(self, request: gr.Request, data: gr.EditData, values: Values) -> Updates:
        """Takes an edited question instead of the first one."""
        session = self._continued_session(request, values)
        number, is_question = exchange_at(session.exchanges, _index(data))
        try:
            if not is_question:
                raise ValueError("A question's files cannot be changed; start a new conversation with other files.")
            settings = self._panel.settings(values)
            self._conversation.again(session, number, plain_text(data.value), settings)
        except ValueError as error:
            gr.Warning(str(error))
            return "", *self.view(session)  # undoes the edit in the chat
        return self._taken(session)

    def answer(self, request: gr.Request) -> Iterator[Updates]:
        """Streams the answer to the first question that waits."""
        session = self._session(request)
        exchange = self._conversation.waiting(session)
        if exchange is None:
            yield self.view(session)
        else:
            yield from self._stream(session, self._conversation.run(session, exchange))

    def compare(self, request: gr.Request, event: gr.EventData) -> Iterator[Updates]:
        """Answers a question a second time, without pruning, for the two to be compared."""
        session, exchange = self._pressed(request, event)
        yield from self._stream(session, self._conversation.run(session, exchange, UNPRUNED))

    def _pressed(self, request: gr.Request, event: gr.EventData) -> tuple[Session, Exchange]:
        session = self._session(request)
        with errors_for_visitors():
            return session, pressed_exchange(session, event)

    def _stream(self, session: Session, steps: Generator[None, None, None]) -> Iterator[Updates]:
        try:
            for _ in steps:
                yield self.view(session)
        finally:
            steps.close()

    def undo(self, request: gr.Request, values: Values) -> Updates:
        """Takes the last question back into its box."""
        session = self._continued_session(request, values)
        question = session.exchanges.pop().question if session.exchanges else ""
        return question, *self.view(session)

    def new_conversation(self, request: gr.Request) -> Updates:
        """Forgets the conversation; its files stay and come with the next question."""
        session = self._session(request)
        session.exchanges.clear()
        *shown, _ = self.view(session)
        return "", *shown, "null"  # what the browser kept goes, too

    def after_stop(self, request: gr.Request) -> Updates:
        """Marks the answers that the visitor stopped."""
        session = self._session(request)
        self._conversation.stop(session)
        return self.view(session)

    def after_failure(self, request: gr.Request) -> Updates:
        """Says that a question was not taken to the model, as when the queue is full."""
        session = self._session(request)
        self._conversation.refuse(session, TOO_BUSY)
        return self.view(session)

    def _saver(self, name: str, kind: str, write: Callable[[Session, str], str]) -> Callable[[gr.Request], str]:
        """Makes the handler that packs the conversation as a file for `SAVE_IN_BROWSER`."""

        def save(request: gr.Request) -> str:
            session = self._session(request)
            if not session.exchanges:
                raise visible_error("There is no conversation yet; ask a question first.")
            return json.dumps([name, kind, write(session, self._conversation.assistant.name)])

        return save


def pressed_exchange(session: Session, event: gr.EventData) -> Exchange:
    """The answered exchange whose button was pressed.

    Raises:
        ValueError: when there is none, as after an edit in between.
    """
    number = getattr(event, "exchange", None)
    exchange = session.exchanges[number] if isinstance(number, int) and 0 <= number < len(session.exchanges) else None
    if exchange is None or not (exchange.answers.get(PRUNED) or Answer()).complete:
        raise ValueError("This answer is no longer part of the conversation.")
    return exchange


def ordinal(number: int) -> str:
    """A place in a line: 2 becomes "2nd"."""
    ending = "th" if 10 <= number % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def _figures(exchanges: Sequence[Exchange]) -> str:
    """What the model is doing, or what the last answer took."""
    for exchange in exchanges:
        if exchange.is_answering:
            return figures(next(answer for answer in exchange.answers.values() if not answer.complete))
    last = exchanges[-1] if exchanges else None
    return figures(last.answers.get(PRUNED), last.stopped) if last else ""


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
