# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""A visitor's conversation: which files and turns belong to a question, asking it, asking again, and how it reads."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import TypedDict

from demo.service.assistant import Assistant
from demo.service.dialogue import PRUNED, UNPRUNED, Answer, Arm, Exchange, Medium, Turn
from demo.service.errors import message_for_visitor
from demo.service.pruning_settings import PruningSettings
from demo.service.sessions import LoadedFile, Session, Sessions

ARMS: tuple[Arm, Arm] = (PRUNED, UNPRUNED)


class Message(TypedDict):
    """One message of a chat."""

    role: str
    content: str


def messages(exchanges: Sequence[Exchange], arm: Arm) -> list[Message]:
    """The conversation as a chat shows it; a question's files are a message of their own before it."""
    shown: list[Message] = []
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


class Conversation:
    """Asks the questions of all visitors, each in the conversation of its session."""

    def __init__(self, assistant: Assistant, sessions: Sessions) -> None:
        self.assistant, self.sessions = assistant, sessions

    def pending(self, session: Session) -> list[LoadedFile]:
        """The files that have come with no question yet; the next question takes them."""
        sent = {number for exchange in session.exchanges for number in exchange.files}
        return [file for file in session.files if file.number not in sent]

    def turns(self, session: Session, last: Exchange, arm: Arm) -> list[Turn]:
        """The conversation up to a question, as the model gets it.

        Questions without an answer are left out; their files go to the next question.

        Raises:
            ValueError: when a file cannot be read again; the message is for the visitor.
        """
        turns: list[Turn] = []
        carried: tuple[int, ...] = ()
        for exchange in session.exchanges:
            numbers = (*carried, *exchange.files)
            answer = "" if exchange is last else exchange.text(arm)
            if exchange is not last and not answer:
                carried = numbers
                continue
            media = tuple(self._medium(session, file) for file in session.files if file.number in numbers)
            turns.append(Turn(exchange.question, media, answer))
            if exchange is last:
                break
            carried = ()
        return turns

    def _medium(self, session: Session, file: LoadedFile) -> Medium:
        return Medium(str(file.number), self.sessions.clip(session, file, self.assistant.read))

    def begin(self, session: Session, question: str, settings: PruningSettings) -> Exchange:
        """Adds a question with the files that are pending.

        Raises:
            ValueError: for an empty question.
        """
        question = _checked(question)
        files = self.pending(session)
        numbers, labels = tuple(file.number for file in files), tuple(file.label for file in files)
        exchange = Exchange(question, numbers, labels, settings)
        session.exchanges.append(exchange)
        session.asked += 1
        return exchange

    def again(self, session: Session, number: int, question: str, settings: PruningSettings) -> Exchange:
        """Replaces an earlier question, by the same one or another, and forgets what came after it.

        Raises:
            ValueError: for an empty question.
        """
        question = _checked(question)
        old = session.exchanges[number]
        exchange = Exchange(question, old.files, old.labels, settings)
        session.exchanges[number:] = [exchange]
        return exchange

    def run(self, session: Session, exchange: Exchange, compare: bool) -> Generator[None, None, None]:
        """Answers a question, without pruning too if `compare`; yields whenever `exchange` has changed."""
        try:
            for arm in ARMS if compare else ARMS[:1]:
                exchange.answers[arm] = Answer(step="Reading the file" if exchange.files else "Waiting for the model")
                yield
                turns, settings = self.turns(session, exchange, arm), exchange.settings_of(arm)
                for answer in self.assistant.answer(turns, settings, session.key, arm):
                    exchange.answers[arm] = answer
                    yield
        except GeneratorExit:
            exchange.stopped = True
            raise
        except Exception as error:  # whatever it is, the visitor gets a sentence
            exchange.problem = message_for_visitor(error)
            yield


def _checked(question: str) -> str:
    if not question.strip():
        raise ValueError("Write a question first.")
    return question.strip()
