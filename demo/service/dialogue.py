# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The data of a conversation: media and turns as the model gets them, answers as it streams them, and exchanges, which
pair a visitor's question with its answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, Literal

from demo.service.pruning_settings import PruningSettings

if TYPE_CHECKING:
    from hub_model.media_omniv_med import Clip

Arm = Literal["pruned", "unpruned"]
"""One of the two answers to a question that the page compares."""
PRUNED: Arm = "pruned"
UNPRUNED: Arm = "unpruned"


@dataclass(frozen=True)
class Medium:
    """A clip in a conversation; `key` distinguishes it from the visitor's other clips."""

    key: str
    clip: Clip


@dataclass(frozen=True)
class Turn:
    """One question, the media that come with it, and its answer, which is "" for the last question."""

    question: str
    media: tuple[Medium, ...] = ()
    answer: str = ""


@dataclass(frozen=True)
class Answer:
    """An answer so far.

    Attributes:
        text: its words; "I cannot tell from this image." where the confidence is below the model's threshold.
        step: what the model is doing, for the page; "" when the answer is complete.
        token_ids: its tokens.
        visual_tokens, visual_tokens_unpruned: tokens of all media in the prompt, position labels included, and how many
            there would be without pruning.
        prompt_tokens, reused_tokens: length of the prompt, and how much of it was computed before.
        seconds_to_first_token: from the moment the model was free for this question; None before the first token.
        seconds: from the same moment until now.
        confidence: calibrated probability that the answer is right, from 0 to 1; None before the answer is complete,
            and where nothing calibrated it: without media, or with a model without calibration.
        declined: whether the answer says that it cannot be told.
        likeliest: what the model would have answered, where it declined because it was not sure enough.
    """

    text: str = ""
    step: str = "Waiting for the model"
    token_ids: tuple[int, ...] = ()
    visual_tokens: int = 0
    visual_tokens_unpruned: int = 0
    prompt_tokens: int = 0
    reused_tokens: int = 0
    seconds_to_first_token: float | None = None
    seconds: float = 0.0
    confidence: float | None = None
    declined: bool = False
    likeliest: str | None = None

    @property
    def complete(self) -> bool:
        return not self.step


@dataclass
class Exchange:
    """A question and its answers.

    Attributes:
        question: as the visitor asked it.
        files, labels: numbers of the files that came with it, and what the page calls them.
        settings: how media are pruned for it.
        answers: the answers asked for so far.
        started: whether the model has been asked.
        problem: why there is no answer, in one sentence, or "".
        stopped: whether the visitor stopped it.
    """

    question: str
    files: tuple[int, ...]
    labels: tuple[str, ...]
    settings: PruningSettings
    answers: dict[Arm, Answer] = field(default_factory=dict)
    started: bool = False
    problem: str = ""
    stopped: bool = False
    _changing: Lock = field(default_factory=Lock, repr=False, compare=False)

    def take(self, arm: Arm, answer: Answer) -> bool:
        """Takes an answer so far; False, and nothing changes, once the exchange is stopped."""
        with self._changing:
            if not self.stopped:
                self.answers[arm] = answer
            return not self.stopped

    def stop(self) -> None:
        """Stops what is not answered: no word comes after this."""
        with self._changing:
            self.stopped = self.stopped or self.waits or self.is_answering

    def settings_of(self, arm: Arm) -> PruningSettings:
        """How media are pruned for one of the answers."""
        return self.settings if arm == PRUNED else self.settings.unpruned()

    def text(self, arm: Arm) -> str:
        """The answer as the model reads it in later turns; an arm that was not asked takes the pruned one's."""
        answer = self.answers.get(arm) or self.answers.get(PRUNED)
        return answer.text if answer else ""

    @property
    def waits(self) -> bool:
        """Whether the model has yet to be asked."""
        return not (self.started or self.problem or self.stopped)

    @property
    def is_answering(self) -> bool:
        """Whether an answer is in the making."""
        open_now = any(not answer.complete for answer in self.answers.values())
        return open_now and not (self.problem or self.stopped)
