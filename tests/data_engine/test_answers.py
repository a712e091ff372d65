# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""How a reply is read: letters, choices, yes and no, announcements, refusals and silence, in English and Chinese."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_engine.answers import choice_letter, final_answer, is_refusal, normalise, true_yes_or_no, yes_or_no

ORGANS = ["liver", "spleen", "left kidney", "kidney"]


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("left lung", "left lung"),
        ("  left lung\n", "left lung"),
        ("The answer is left lung", "left lung"),
        ("The final answer is: left lung.", "left lung."),
        ("I see it. **Answer:** left lung", "left lung"),
        ("**Answer**: left lung", "left lung"),
        ("Answer: right. No, answer: left lung", "left lung"),
        (r"So it is \boxed{left lung}.", "left lung"),
        (r"\boxed{B} is wrong, \boxed{\text{left lung}}", "left lung"),
        (r"\boxed{x^{2}}", "x^{2}"),
        ("<think>Is it the answer: right?</think>left lung", "left lung"),
        ("<think>cut off in the middle", ""),
        ("<answer>left lung</answer>", "left lung"),
        ("答案:左肺", "左肺"),
        ("答案\uff1a左肺", "左肺"),
        ("答案是左肺", "左肺"),
        ("正确答案为:左肺", "左肺"),
        ("What is the answer:", "What is the answer:"),
        (r"\boxed{never closed", r"\boxed{never closed"),
        ("", ""),
    ],
)
def test_the_final_answer_of_a_reply(reply: str, answer: str) -> None:
    assert final_answer(reply) == answer


@pytest.mark.parametrize(
    "reply",
    [
        "B", "b", "B.", "(B)", "(b)", " **B** ", "B. spleen", "B) spleen", "(B) the spleen", "B: spleen", "b. spleen",
        "The answer is B", "The answer is B.", "The correct answer is (B).", "Answer: B", "Answer: **B**", "Answer B",
        "answer: b\nBecause A is too large.", "B\nBecause it lies on the left.", "Option B", "option b is right",
        "I think it is B because of its place.", "I choose B", "Not A, but (B)", "It is option B, not option A.",
        r"\boxed{B}", r"\boxed{\text{B}}", "<think>A or C?</think>B", "<answer>B</answer>",
        "spleen", "Spleen.", "The spleen", "It is the spleen.", "The answer is spleen",
        "This is not the liver but the spleen.",
        "答案:B", "答案\uff1aB", "答案是B", "选B", "选择B。", "选项B", "B选项", "应选(B)",
    ],
)  # fmt: skip
def test_replies_that_name_the_second_choice(reply: str) -> None:
    assert choice_letter(reply, ORGANS) == "B"


@pytest.mark.parametrize(
    "reply",
    [
        "", "   ", "E", "the heart", "A or B", "A and B are both possible", "option A or option B",
        "liver or spleen", "I cannot tell from this image.", "I'm sorry, I can't help with B.", "As an AI, I choose B",
        "It cannot be determined whether it is B", "无法判断", "A chest radiograph", "It is not the spleen.", "不选B",
    ],
)  # fmt: skip
def test_replies_that_name_no_choice_or_several(reply: str) -> None:
    assert choice_letter(reply, ORGANS) is None


@pytest.mark.parametrize(
    ("reply", "choices", "letter"),
    [
        ("left kidney", ORGANS, "C"),
        ("This is the left kidney", ORGANS, "C"),
        ("kidney", ORGANS, "D"),
        ("A", ORGANS, "A"),
        ("a", ORGANS, "A"),
        ("It is A", ORGANS, "A"),
        ("spleen", ["A: liver", "B: spleen"], "B"),
        ("B. spleen", ["A. liver", "B. spleen"], "B"),
        ("2.5 cm", ["2", "2.5 cm", "5 cm"], "B"),
        ("about 2.5 cm", ["2", "2.5 cm", "5"], "B"),
        ("Cannot be determined", ["CT", "MRI", "Cannot be determined"], "C"),
        ("vitamin B deficiency", ["scurvy", "beriberi"], None),
        ("这是一张CT图像", ["MRI", "CT", "X光"], "B"),
        ("左肺", ["右肺", "左肺"], "B"),
        ("B. spleen", [], "B"),
        ("spleen", [], None),
        # Panels of a figure as choices: a letter is the letter of a choice, unless no choice has it.
        ("A", ["B", "A"], "A"),
        ("C", ["B", "C"], "B"),
    ],
)
def test_choices_with_letters_numbers_and_within_each_other(reply: str, choices: list[str], letter: str | None) -> None:
    assert choice_letter(reply, choices) == letter


@pytest.mark.parametrize(
    "reply",
    [
        "yes", "Yes.", "YES", "yes, there is", "Yes, there is no fracture beside it.", "The answer is yes",
        "Answer: Yes.",
        r"\boxed{yes}", "True", "It shows a nodule, so yes.", "是", "是的。", "有", "有结节", "对", "存在", "答案:是",
    ],
)  # fmt: skip
def test_replies_that_say_yes(reply: str) -> None:
    assert yes_or_no(reply) is True


@pytest.mark.parametrize(
    "reply",
    [
        "no", "No.", "NO", "no, it does not", "No evidence of fracture", "There is no fracture.", "None", "Not seen",
        "The answer is no", r"\boxed{No}", "False", "否", "不是", "没有", "没有,没有结节", "无",
        "未见异常", "不存在", "答案:否",
    ],
)  # fmt: skip
def test_replies_that_say_no(reply: str) -> None:
    assert yes_or_no(reply) is False


@pytest.mark.parametrize(
    "reply",
    [
        "", " .", "maybe", "yes or no", "No or yes?", "A nodule is seen.", "nodule", "normal", "yesterday",
        "I cannot say yes or no", "I'm not sure", "I don\u2019t know", "Not sure, no", "Unable to determine",
        "Sorry, no image was given", "是否有结节", "有没有", "无法判断", "不知道", "不确定", "对不起,看不清",
    ],
)  # fmt: skip
def test_replies_that_say_neither_both_or_nothing(reply: str) -> None:
    assert yes_or_no(reply) is None


@pytest.mark.parametrize(
    ("answer", "truth"),
    [
        ("Yes", True),
        (" no ", False),
        ("否", False),
        ("没有", False),
        ("有", True),
        ("left", None),
        ("no fracture", None),
    ],
)
def test_only_a_bare_yes_or_no_makes_a_question_a_yes_or_no_question(answer: str, truth: bool | None) -> None:
    assert true_yes_or_no(answer) is truth


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("The left lung.", "left lung"),
        ("  A   Fracture!", "fracture"),
        ('"CT"', "ct"),
        ("\uff23\uff34。", "ct"),
        ("hepatitis A", "hepatitis a"),
        ("A", "a"),
        ("-2 mm", "-2 mm"),
        ("< 5 %", "< 5 %"),
        ("T1-weighted", "t1-weighted"),
        ("左肺。", "左肺"),
    ],
)
def test_the_form_in_which_answers_are_compared(text: str, form: str) -> None:
    assert normalise(text) == form


@pytest.mark.parametrize("reply", ["I cannot answer that.", "As an AI model, I", "作为一个AI", "很抱歉", "Unclear."])
def test_refusals(reply: str) -> None:
    assert is_refusal(reply)


@pytest.mark.parametrize("reply", ["CT", "no", "The cannula", "Iatrogenic", "无"])
def test_answers_are_no_refusals(reply: str) -> None:
    assert not is_refusal(reply)


@given(st.text(max_size=60), st.lists(st.text(max_size=12), max_size=6))
def test_any_text_is_read_without_an_error(reply: str, choices: list[str]) -> None:
    assert yes_or_no(reply) in (True, False, None)
    letter = choice_letter(reply, choices)
    assert letter is None or not choices or letter in "ABCDEF"[: len(choices)]


@given(st.lists(st.text("abcdefgh ", min_size=4, max_size=10).filter(lambda t: len(t.split()) > 1), max_size=5))
def test_every_choice_is_found_by_its_own_text_or_that_of_an_equal_one(choices: list[str]) -> None:
    for choice in choices:
        letter = choice_letter(choice, choices)
        assert letter is not None and normalise(choices[ord(letter) - ord("A")]) == normalise(choice)
