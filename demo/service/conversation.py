# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""A visitor's conversation: which files and turns belong to a question, asking it, asking again, and how it reads."""

from __future__ import annotations

from collections.abc import Generator

from demo.service.assistant import Assistant
from demo.service.dialogue import PRUNED, Answer, Arm, Exchange, Medium, Turn
from demo.service.errors import message_for_visitor
from demo.service.pruning_settings import PruningSettings
from demo.service.sessions import LoadedFile, Session, Sessions


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

    def waiting(self, session: Session) -> Exchange | None:
        """The first question that the model has yet to be asked."""
        return next((exchange for exchange in session.exchanges if exchange.waits), None)

    def place(self, session: Session) -> int:
        """How many questions of all visitors are asked and not yet answered, the session's last one included."""
        open_now = (exchange for each in self.sessions.all() for exchange in each.exchanges)
        return max(sum(exchange.waits or exchange.is_answering for exchange in open_now), 1)

    def run(self, session: Session, exchange: Exchange, arm: Arm = PRUNED) -> Generator[None, None, None]:
        """Answers a question, with or without pruning; yields whenever `exchange` has changed."""
        exchange.started, exchange.stopped, exchange.problem = True, False, ""
        try:
            exchange.answers[arm] = Answer(step="Reading the file" if exchange.files else "Waiting for the model")
            yield
            turns, settings = self.turns(session, exchange, arm), exchange.settings_of(arm)
            for answer in self.assistant.answer(turns, settings, session.key, arm):
                if not exchange.take(arm, answer):
                    return
                yield
        except GeneratorExit:
            exchange.stopped = True
            raise
        except Exception as error:  # whatever it is, the visitor gets a sentence
            exchange.problem = message_for_visitor(error)
            yield

    def stop(self, session: Session) -> None:
        """Marks every question that is not answered as stopped."""
        for exchange in session.exchanges:
            exchange.stop()

    def refuse(self, session: Session, problem: str) -> None:
        """Marks the last question that waits as not answered for that reason."""
        waiting = [exchange for exchange in session.exchanges if exchange.waits]
        if waiting:
            waiting[-1].problem = problem


def _checked(question: str) -> str:
    if not question.strip():
        raise ValueError("Write a question first.")
    return question.strip()
