# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The conversation of the page: streamed answers, with and without pruning, which can be stopped, edited and saved."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from typing import Any

import gradio as gr

from demo.panels.pruning_panel import PruningPanel, PruningSettings
from demo.service.assistant import Answer, Assistant, Medium, Turn
from demo.service.errors import in_one_sentence, sentence
from demo.service.sessions import LoadedFile, Session, Sessions

PRUNED, UNPRUNED = "pruned", "unpruned"
"""The two answers to a question that are compared."""
MODEL = "model"
"""Gradio's concurrency group of all that runs the model: one at a time."""
WAITING = "…"
"""Stands in the chat until the first word comes."""
FIRST_QUESTION = "Which imaging modality is this?"
GENERAL_QUESTION = "What is computed tomography used for?"
FACTS_ASKED = {
    "modality": FIRST_QUESTION,
    "region": "Which part of the body is shown?",
    "plane": "In which plane is this {kind}?",
    "contrast": "Which contrast or sequence is this?",
    "stain": "Which stain was used?",
    "motion": "What motion is seen?",
    "lesion": "Is there a lesion?",
    "finding": "What abnormality is seen?",
    "location": "In which quadrant of the {kind} is the abnormality?",
    "side": "On which side is the lesion?",
    "eye": "Is this the left or the right eye?",
    "breast": "Is this the left or the right breast?",
    "count": "How many lesions can be seen?",
    "size": "What is the size of the lesion?",
    "severity": "What is the grade of the lesion?",
    "report": "Describe this {kind}.",
}
"""What the training's questions ask for, in one of their wordings (data_engine/questions.py)."""
FACTS_OF_KIND = {
    "image": ("modality", "region", "lesion", "finding", "location", "count", "size", "report"),
    "volume": ("modality", "region", "plane", "lesion", "finding", "side", "count", "report"),
    "video": ("modality", "region", "motion", "lesion", "finding", "report"),
}
FACTS_OF_MODALITY = {
    "CT": ("plane", "contrast"),
    "MR": ("plane", "contrast"),
    "PT": ("plane",),
    "SM": ("stain", "count"),
    "OP": ("eye", "severity"),
    "MG": ("breast", "severity"),
}
"""DICOM modality code -> what is asked about it before the rest: tomography, slide microscopy, fundus, mammography."""
MOST_SUGGESTIONS = 6
SAVE_IN_BROWSER = """(packed) => {
    const [name, type, text] = JSON.parse(packed), link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}"""


@dataclass
class Exchange:
    """A question and its answers.

    Attributes:
        question: as asked.
        files, labels: numbers of the files that came with it, and what the page calls them.
        settings: of pruning.
        answers: by `PRUNED` and `UNPRUNED`, as far as they were asked for.
        problem: the sentence why there is no answer, or "".
        stopped: whether the visitor stopped it.
    """

    question: str
    files: tuple[int, ...]
    labels: tuple[str, ...]
    settings: PruningSettings
    answers: dict[str, Answer] = field(default_factory=dict)
    problem: str = ""
    stopped: bool = False

    def text(self, arm: str) -> str:
        """The answer of one arm as the model is told of it later; what was never asked there, as the other said it."""
        answer = self.answers.get(arm) or self.answers.get(PRUNED)
        return answer.text if answer else ""

    def shown(self, arm: str) -> str:
        """What stands in the chat."""
        answer = self.answers.get(arm)
        if self.problem and not (answer and answer.complete):
            return f"**Not answered:** {self.problem}"
        if answer is None:
            return WAITING if arm == PRUNED and not self.stopped else "*(not asked without pruning)*"
        if answer.complete:
            return answer.text or "*(no answer)*"
        return f"{answer.text} *(stopped)*".strip() if self.stopped else answer.text or WAITING


def suggestions(file: LoadedFile | None) -> list[str]:
    """Questions that fit a file and that the model was trained for; without a file, one about words alone."""
    if file is None:
        return [GENERAL_QUESTION]
    first = ("modality", *FACTS_OF_MODALITY.get(file.modality, ()))
    of_kind = [fact for fact in FACTS_OF_KIND[file.kind] if fact not in first]
    if file.modality in FACTS_OF_MODALITY or file.kind != "volume":
        of_kind = [fact for fact in of_kind if fact != "plane"]
    facts = [*first, *of_kind][:MOST_SUGGESTIONS]
    return [FACTS_ASKED[fact].format(kind=file.kind) for fact in facts]


def messages(exchanges: Sequence[Exchange], arm: str) -> list[dict[str, Any]]:
    """The conversation as Gradio's chat shows it; files are a message of their own before the question."""
    shown = []
    for exchange in exchanges:
        if exchange.labels:
            shown.append({"role": "user", "content": "*" + " · ".join(exchange.labels) + "*"})
        shown.append({"role": "user", "content": exchange.question})
        shown.append({"role": "assistant", "content": exchange.shown(arm)})
    return shown


def exchange_at(exchanges: Sequence[Exchange], index: int) -> tuple[int, bool]:
    """Which exchange a message of `messages` belongs to, and whether the message is its question."""
    for number, exchange in enumerate(exchanges):
        length = 2 + bool(exchange.labels)
        if index < length:
            return number, index == length - 2
        index -= length
    raise IndexError("There is no such message.")


def figures(answer: Answer | None, stopped: bool = False) -> str:
    """What an answer took, or what is being done for it."""
    if answer is None:
        return ""
    if not answer.complete and not answer.text:
        return "Stopped before the first word" if stopped else f"{answer.step} … {answer.seconds:.0f} s"
    parts = [f"{len(answer.token_ids)} tokens in {answer.seconds:.2f} s"]
    if answer.seconds_to_first_token is not None:
        parts.append(f"the first after {answer.seconds_to_first_token:.2f} s")
    prompt = f"prompt of {answer.prompt_tokens} tokens"
    if answer.visual_tokens:
        prompt += f", {answer.visual_tokens} of them visual"
    if answer.reused_tokens:
        prompt += f", {answer.reused_tokens} computed before"
    end = [] if answer.complete else ["stopped" if stopped else "…"]
    return " · ".join([*parts, prompt, *end])


def answer_as_json(answer: Answer) -> dict[str, Any]:
    """An answer with its figures, for the download and the API."""
    seconds = answer.seconds_to_first_token
    return {
        "text": answer.text,
        "complete": answer.complete,
        "answer_tokens": len(answer.token_ids),
        "prompt_tokens": answer.prompt_tokens,
        "prompt_tokens_computed_before": answer.reused_tokens,
        "visual_tokens": answer.visual_tokens,
        "visual_tokens_without_pruning": answer.visual_tokens_unpruned,
        "seconds_to_first_token": None if seconds is None else round(seconds, 3),
        "seconds": round(answer.seconds, 3),
    }


def as_json(session: Session, model: str) -> str:
    """The conversation with everything that it depended on; no paths and no names of files."""
    files = [
        {"number": file.number, "kind": file.kind, "frames": file.frames, "notes": list(file.notes)}
        for file in session.files
    ]
    exchanges = [
        {
            "question": exchange.question,
            "files": list(exchange.files),
            "pruning": asdict(exchange.settings),
            "answers": {arm: answer_as_json(answer) for arm, answer in exchange.answers.items()},
            **({"problem": exchange.problem} if exchange.problem else {}),
        }
        for exchange in session.exchanges
    ]
    saved = datetime.now(timezone.utc).isoformat(timespec="seconds")
    content = {"model": model, "saved": saved, "files": files, "conversation": exchanges}
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def as_markdown(session: Session, model: str) -> str:
    """The conversation to read."""
    lines = ["# Conversation with OmniV-Med", "", f"Model: {model}. For research only; answers can be wrong.", ""]
    for file in session.files:
        lines += [f"- {file.label}", *(f"  - {note}" for note in file.notes)]
    for exchange in session.exchanges:
        lines += ["", f"## {' '.join(exchange.question.split())}", ""]
        if exchange.labels:
            lines += [f"With {'; '.join(exchange.labels)}.", ""]
        for arm, answer in exchange.answers.items():
            pruning = asdict(exchange.settings if arm == PRUNED else unpruned(exchange.settings))
            settings = ", ".join(f"{name} {value}" for name, value in pruning.items() if value is not None)
            lines += [answer.text or "(no answer)", "", f"*{figures(answer)} · pruning: {settings}*", ""]
        if exchange.problem:
            lines += [f"Not answered: {exchange.problem}", ""]
    return "\n".join(lines).rstrip() + "\n"


def unpruned(settings: PruningSettings) -> PruningSettings:
    """The settings to compare with: all tokens are kept."""
    return replace(settings, rule="none", keep_ratio=None, max_visual_tokens=None)


class Conversation:
    """What the buttons of the chat do, on the sessions of all visitors."""

    def __init__(self, assistant: Assistant, sessions: Sessions) -> None:
        self.assistant, self.sessions = assistant, sessions

    def pending(self, session: Session) -> list[LoadedFile]:
        """The files that no question came with yet; the next one takes them."""
        sent = {number for exchange in session.exchanges for number in exchange.files}
        return [file for file in session.files if file.number not in sent]

    def turns(self, session: Session, last: Exchange, arm: str) -> list[Turn]:
        """The conversation up to a question, as the model is asked; questions without an answer are left out,
        their files go to the next one.

        Raises:
            ValueError: the sentence for the visitor, where a file cannot be read again.
        """
        turns, carried = [], ()
        for exchange in session.exchanges:
            files = (*carried, *exchange.files)
            answer = "" if exchange is last else exchange.text(arm)
            if exchange is not last and not answer:
                carried = files
                continue
            media = tuple(self._medium(session, session.file(number)) for number in files)
            turns.append(Turn(exchange.question, media, answer))
            if exchange is last:
                break
            carried = ()
        return turns

    def _medium(self, session: Session, file: LoadedFile) -> Medium:
        return Medium(str(file.number), self.sessions.clip(session, file, self.assistant.read))

    def begin(self, session: Session, question: str, settings: PruningSettings) -> Exchange:
        """Adds a question, with the files that wait for one.

        Raises:
            ValueError: for an empty question.
        """
        if not question.strip():
            raise ValueError("Write a question first.")
        files = self.pending(session)
        numbers, labels = tuple(file.number for file in files), tuple(file.label for file in files)
        exchange = Exchange(question.strip(), numbers, labels, settings)
        session.exchanges.append(exchange)
        session.asked += 1
        return exchange

    def run(self, session: Session, exchange: Exchange, compare: bool) -> Iterator[None]:
        """Answers a question, once or twice; yields whenever `exchange` has more of it."""
        try:
            for arm in (PRUNED, UNPRUNED) if compare else (PRUNED,):
                settings = exchange.settings if arm == PRUNED else unpruned(exchange.settings)
                exchange.answers[arm] = Answer(step="Reading the file" if exchange.files else "Waiting for the model")
                yield
                for answer in self.assistant.answer(self.turns(session, exchange, arm), settings, session.key, arm):
                    exchange.answers[arm] = answer
                    yield
        except GeneratorExit:
            exchange.stopped = True
            raise
        except Exception as error:  # whatever it is, the visitor gets a sentence
            exchange.problem = sentence(error)
            yield

    def again(self, session: Session, number: int, question: str, settings: PruningSettings) -> Exchange:
        """Asks an earlier question anew, or another one in its place; what came after it is forgotten."""
        if not question.strip():
            raise ValueError("Write a question first.")
        old = session.exchanges[number]
        exchange = Exchange(question.strip(), old.files, old.labels, settings)
        session.exchanges[number:] = [exchange]
        return exchange


@dataclass(frozen=True)
class ChatPanel:
    """The chat's components that the rest of the page uses.

    Attributes:
        answered: the components that change with an answer, in the order of `ChatPanel.view`.
        busy: the events that answer, for what must cancel them.
    """

    question: gr.Textbox
    suggestions: gr.Dataset
    chat: gr.Chatbot
    answered: list[gr.components.Component]
    busy: list[Any]


def view(session: Session) -> tuple[Any, ...]:
    """The updates of `ChatPanel.answered`."""
    last = session.exchanges[-1] if session.exchanges else None
    answers = last.answers if last else {}
    return (
        messages(session.exchanges, PRUNED),
        messages(session.exchanges, UNPRUNED),
        figures(answers.get(PRUNED), last is not None and last.stopped),
        figures(answers.get(UNPRUNED), last is not None and last.stopped),
    )


def plain_text(value: Any) -> str:
    """The words of a message, which Gradio gives as text or as a list of parts."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        return plain_text(value.get("text", ""))
    return "".join(plain_text(part) for part in value or [])


def build_chat(assistant: Assistant, sessions: Sessions, panel: PruningPanel) -> ChatPanel:
    """Places the chat and connects it; pruning is as the panel's controls say when a question is asked."""
    conversation = Conversation(assistant, sessions)
    with gr.Row():
        with gr.Column(min_width=200):
            chat = gr.Chatbot(
                label="Conversation",
                height=420,
                buttons=["copy", "copy_all"],
                editable="user",
                placeholder="Load a file, or ask about words alone.",
                elem_id="chat",
            )
            status = gr.Markdown(elem_id="status")
        with gr.Column(min_width=200, visible=False) as other_column:
            other = gr.Chatbot(label="Without pruning", height=420, buttons=["copy"], elem_id="chat-unpruned")
            other_status = gr.Markdown(elem_id="status-unpruned")
    ideas = gr.Dataset(
        label="Suggested questions",
        components=[gr.Textbox(visible=False)],
        samples=[[idea] for idea in suggestions(None)],
        layout="gallery",
        elem_id="suggestions",
    )
    question = gr.Textbox(
        label="Question",
        placeholder="Ask about what you loaded",
        max_lines=4,
        submit_btn="Ask",
        elem_id="question",
    )
    with gr.Row():
        stop = gr.Button("Stop", min_width=100, size="sm")
        clear = gr.Button("New conversation", min_width=100, size="sm")
    with gr.Row():
        save_json = gr.Button("Save as JSON", min_width=100, size="sm")
        save_markdown = gr.Button("Save as Markdown", min_width=100, size="sm")
    compare = gr.Checkbox(
        label="A/B: answer twice, with and without pruning",
        info="Side by side, with seconds and tokens; the second answer starts when the first is complete.",
        elem_id="compare",
    )
    packed = gr.Textbox(visible="hidden", show_label=False, elem_id="packed")
    answered = [chat, other, status, other_status]

    def stream(session: Session, exchange: Exchange, compare: bool) -> Iterator[tuple[Any, ...]]:
        steps = conversation.run(session, exchange, compare)
        try:
            for _ in steps:
                yield "", *view(session)
        finally:
            steps.close()

    def settings_from(values: tuple[Any, ...]) -> PruningSettings:
        with in_one_sentence():
            return PruningSettings.from_controls(*values)

    def session_of(request: gr.Request, history: list[Any]) -> Session:
        """The visitor's session; it is gone where the connection was lost for a while."""
        session = sessions.open(request.session_hash)
        if history and not session.asked:
            raise gr.Error(
                "The connection was lost, and your files were deleted; reload the page.", print_exception=False
            )
        return session

    def ask(
        request: gr.Request, text: str, history: list[Any], compare: bool, *values: Any
    ) -> Iterator[tuple[Any, ...]]:
        """Adds a question and, word by word, its answers; empties the question's box."""
        session = session_of(request, history)
        with in_one_sentence():
            exchange = conversation.begin(session, text, settings_from(values))
        yield from stream(session, exchange, compare)

    def ask_idea(
        request: gr.Request, idea: list[str], history: list[Any], compare: bool, *values: Any
    ) -> Iterator[tuple[Any, ...]]:
        yield from ask(request, idea[0], history, compare, *values)

    def retry(
        request: gr.Request, data: gr.RetryData, history: list[Any], compare: bool, *values: Any
    ) -> Iterator[tuple[Any, ...]]:
        """Asks a question again, with pruning as it is set now."""
        session = session_of(request, history)
        number, _ = exchange_at(session.exchanges, data.index)
        exchange = conversation.again(session, number, session.exchanges[number].question, settings_from(values))
        yield from stream(session, exchange, compare)

    def edit(
        request: gr.Request, data: gr.EditData, history: list[Any], compare: bool, *values: Any
    ) -> Iterator[tuple[Any, ...]]:
        """Asks an edited question in the place of the old one."""
        session = session_of(request, history)
        number, is_question = exchange_at(session.exchanges, data.index)
        if not is_question:
            gr.Warning("The files of a question cannot be edited; start a new conversation with others.")
            yield "", *view(session)
            return
        try:
            exchange = conversation.again(session, number, plain_text(data.value), settings_from(values))
        except ValueError as error:
            gr.Warning(str(error))
            yield "", *view(session)
            return
        yield from stream(session, exchange, compare)

    def undo(request: gr.Request, history: list[Any]) -> tuple[Any, ...]:
        """Takes the last question back into its box."""
        session = session_of(request, history)
        question = session.exchanges.pop().question if session.exchanges else ""
        return question, *view(session)

    def new_conversation(request: gr.Request) -> tuple[Any, ...]:
        """Forgets the conversation; the files stay and come with its first question."""
        session = sessions.open(request.session_hash)
        session.exchanges.clear()
        return "", *view(session)

    def after_stop(request: gr.Request) -> tuple[Any, ...]:
        session = sessions.open(request.session_hash)
        if session.exchanges and not all(answer.complete for answer in session.exchanges[-1].answers.values()):
            session.exchanges[-1].stopped = True
        return view(session)

    def pack(name: str, kind: str, write: Any) -> Any:
        def save(request: gr.Request) -> str:
            session = sessions.open(request.session_hash)
            if not session.exchanges:
                raise gr.Error("There is no conversation yet; ask something first.", print_exception=False)
            return json.dumps([name, kind, write(session, assistant.name)])

        return save

    asked = [question, *answered]
    inputs = [chat, compare, *panel.controls]
    private: dict[str, Any] = {"api_visibility": "private"}
    answering: dict[str, Any] = {**private, "concurrency_limit": 1, "concurrency_id": MODEL}
    answering |= {"show_progress": "minimal", "show_progress_on": status}  # the place in the queue, while it waits
    busy = [
        question.submit(ask, [question, *inputs], asked, **answering),
        ideas.click(ask_idea, [ideas, *inputs], asked, **answering),
    ]
    busy.append(chat.retry(retry, inputs, asked, cancels=busy[:], **answering))
    busy.append(chat.edit(edit, inputs, asked, cancels=busy[:], **answering))
    at_once: dict[str, Any] = {**private, "queue": False, "show_progress": "hidden"}
    stop.click(after_stop, None, answered, cancels=busy, **at_once)
    chat.undo(undo, chat, asked, cancels=busy, **at_once)
    chat.clear(new_conversation, None, asked, cancels=busy, **at_once)
    clear.click(new_conversation, None, asked, cancels=busy, **at_once)
    compare.change(lambda on: gr.update(visible=on), compare, other_column, **at_once)
    for button, name, kind, write in (
        (save_json, "conversation.json", "application/json", as_json),
        (save_markdown, "conversation.md", "text/markdown", as_markdown),
    ):
        saved = button.click(pack(name, kind, write), None, packed, **at_once)
        saved.success(None, packed, None, js=SAVE_IN_BROWSER, api_visibility="private")
    return ChatPanel(question, ideas, chat, answered, busy)
