# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""A conversation as the chat shows it: what an answer's card holds, and what differs in a comparison."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demo.panels.answers import card, marked, messages, words
from demo.panels.chat import ordinal
from demo.service.dialogue import PRUNED, UNPRUNED, Answer, Exchange
from demo.service.pruning_settings import PruningSettings

SETTINGS = PruningSettings("anchor", 0.1, 0.3, None, None, "language")
SURE = Answer("a nodule", step="", visual_tokens=40, seconds=1.2, confidence=0.87)
UNSURE = Answer(
    "I cannot tell from this image.", step="", visual_tokens=40, confidence=0.31, declined=True, likeliest="a <cyst>"
)


def exchange(*answers: Answer, files: tuple[int, ...] = (1,), **more: object) -> Exchange:
    arms = dict(zip((PRUNED, UNPRUNED), answers, strict=False))
    return Exchange("What is it?", files, tuple(f"File {number}" for number in files), SETTINGS, arms, **more)


class Elements(HTMLParser):
    """The classes of all elements, and whether every element is closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.classes: list[str] = []
        self.open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.classes += (dict(attrs).get("class") or "").split()
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def classes(html: str) -> list[str]:
    elements = Elements(html)
    assert elements.open == []
    return elements.classes


def test_every_answer_about_a_file_has_its_confidence_and_two_buttons():
    shown = card(exchange(SURE), 3, with_files=True, with_evidence=True)
    assert "Confidence: 87 %" in shown
    assert {"compare", "look", "exchange-3"} <= set(classes(shown)) and "declined" not in classes(shown)


def test_without_a_file_there_is_nothing_to_compare_or_to_look_at():
    shown = card(exchange(Answer("Hello.", step=""), files=()), 0, with_files=False, with_evidence=True)
    assert not {"compare", "look"} & set(classes(shown)) and "not known" in shown
    first, second = [
        each["content"]
        for each in messages([exchange(SURE), exchange(SURE, files=())], {1})
        if each["role"] == "assistant"
    ]
    assert "exchange-0" in first and "exchange-1" in second, "a further question is about the same files"


def test_evidence_is_offered_while_all_files_asked_about_can_show_it():
    exchanges = [exchange(SURE), exchange(SURE, files=(2,)), exchange(SURE, files=(3,))]
    answers = [each["content"] for each in messages(exchanges, {1, 2}) if each["role"] == "assistant"]
    assert ["look" in classes(answer) for answer in answers] == [True, True, False]
    answers = [each["content"] for each in messages(exchanges, {2, 3}) if each["role"] == "assistant"]
    assert not any("look" in classes(answer) for answer in answers), "the first file is gone from the conversation"


def test_evidence_that_was_not_measured_to_lie_on_findings_is_not_offered():
    shown = card(exchange(SURE), 0, with_files=True, with_evidence=False)
    assert "compare" in classes(shown) and "look" not in classes(shown)
    compared = card(exchange(SURE, SURE), 0, with_files=True, with_evidence=False)
    assert "tools" not in classes(compared), "no empty row of buttons"


def test_the_browser_keeps_words_and_nothing_else():
    asked = [
        exchange(SURE),
        exchange(SURE, Answer("a large nodule", step="", confidence=0.7)),
        exchange(Answer("a no", step="Answering"), stopped=True, files=()),
        exchange(problem="It is full."),
    ]
    kept = json.loads(words(asked))
    assert kept[0] == {
        "question": "What is it?",
        "files": "File 1",
        "answers": [{"text": "a nodule", "detail": "confidence 87%"}],
    }
    assert [answer["detail"] for answer in kept[1]["answers"]] == [
        "pruned, confidence 87%",
        "all tokens, confidence 70%",
    ]
    assert kept[2]["answers"] == [{"text": "a no", "detail": "stopped"}] and kept[2]["files"] == ""
    assert kept[3]["answers"] == [{"text": "Not answered: It is full.", "detail": ""}]


def test_a_declined_answer_looks_different_and_says_what_it_would_have_been():
    shown = card(exchange(UNSURE), 0, with_files=True, with_evidence=True)
    assert "declined" in classes(shown) and "not sure enough: a &lt;cyst&gt;" in shown and "31 %" in shown


def test_a_comparison_is_two_rows_of_one_card_with_the_differences_marked():
    other = Answer("a large nodule", step="", visual_tokens=224, seconds=3.4, confidence=0.7)
    shown = card(exchange(SURE, other), 0, with_files=True, with_evidence=True)
    assert classes(shown).count("row") == 2 and classes(shown).count("answer") == 1
    assert "<mark>large</mark>" in shown and "40 visual tokens" in shown and "224 visual tokens" in shown
    assert "compare" not in classes(shown) and "look" in classes(shown)
    running = card(exchange(SURE, Answer("a la", step="Answering")), 0, with_files=True, with_evidence=True)
    assert "<mark>" not in running and classes(running).count("row") == 2


@pytest.mark.parametrize(
    ("more", "said"), [({"stopped": True}, "(stopped)"), ({"problem": "It is <b>full</b>."}, "It is &lt;b&gt;full")]
)
def test_what_was_not_answered_says_so(more, said):
    shown = card(exchange(**more), 0, with_files=True, with_evidence=True)
    assert said in shown and not {"compare", "look"} & set(classes(shown))
    assert said in card(exchange(SURE, Answer("a", step="Answering"), **more), 0, with_files=True, with_evidence=True)


@given(text=st.text("ab <&", max_size=12), other=st.text("ab <&", max_size=12))
def test_marks_change_no_word_and_equal_answers_have_none(text, other):
    shown = marked(text, other)
    plain = re.sub("</?mark>", "", shown).replace("&lt;", "<").replace("&amp;", "&")
    assert plain.split() == text.split()
    assert "<mark>" not in marked(text, text)


def test_places_in_line_are_written_as_they_are_said():
    assert [ordinal(number) for number in (1, 2, 3, 4, 11, 12, 13, 21, 22, 101, 111)] == [
        "1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "22nd", "101st", "111th",
    ]  # fmt: skip
