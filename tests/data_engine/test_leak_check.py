# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The leak check: every kind of planted leak is found, and sets that share nothing raise no alarm."""

from __future__ import annotations

import hashlib
import json
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from rapidfuzz import fuzz

from data_engine.fingerprints import Fingerprint, Fingerprinted, perceptual_hash
from data_engine.leak_check import NEAR_SCORE, TEMPLATE_TIMES, Hit, LeakError, leaks, stop_on_leaks, write_hits
from data_engine.phantoms import MODALITIES, generate
from data_engine.questions import caption_question, matching_question, questions
from data_engine.records import DIMENSION_OF, Medium, Record, Turn

PICTURES = {"train": 22, "test": 8}
"""Of each modality."""
SPECIFIC = "What is the most likely diagnosis of the ring-enhancing mass in the left temporal lobe of this patient?"


def item(
    name: str,
    *words: str,
    source: str = "a set",
    file: str | None = None,
    look: str | None = None,
    kind: str = "image",
) -> Fingerprinted:
    """A record of questions and answers in turns about one medium, by default nearly empty and unlike all others."""
    words = words or ("What is shown?", "A cyst.")
    record = Record(
        id=name,
        dimension=DIMENSION_OF[kind],
        modality="CT",
        task="diagnosis",
        media=(Medium(type=kind, path=f"{name}.file"),),
        conversations=tuple(Turn(role=("user", "assistant")[i % 2], content=said) for i, said in enumerate(words)),
        source=source,
        license="CC0-1.0",
        split="train",
    )
    return Fingerprinted(record, (Fingerprint(file or name, look),))


def look(bits: int) -> str:
    """A perceptual hash that differs from that of 0 in so many bits, none of the lowest frequencies."""
    return f"{(1 << bits) - 1:064x}"


def kinds(train: list[Fingerprinted], benchmarks: list[Fingerprinted]) -> list[str]:
    """The kinds of the hits."""
    return [hit.kind for hit in leaks(train, benchmarks)]


def generated(split: str, place: int) -> list[Fingerprinted]:
    """All questions, a caption and a matching question about PICTURES phantoms of every modality."""
    items = []
    for modality in MODALITIES:
        for picture in range(PICTURES[split]):
            rng = np.random.default_rng([23, place, picture])
            sample = generate(modality, "image", rng)
            mark = Fingerprint(hashlib.sha256(sample.frames.tobytes()).hexdigest(), perceptual_hash(sample.frames))
            asked = questions(sample.facts, "image", rng)
            asked += [caption_question(sample.facts, "image", rng), matching_question(sample.facts, "image", rng)]
            for number, one in enumerate(asked):
                new = item(f"{split}/{modality}/{picture}/{number}", one.question, one.answer, source="phantoms")
                items.append(Fingerprinted(new.record, (mark,)))
    return items


@pytest.fixture(scope="module")
def train() -> list[Fingerprinted]:
    """A generated training split."""
    return generated("train", 0)


@pytest.fixture(scope="module")
def tested() -> list[Fingerprinted]:
    """A generated test split."""
    return generated("test", 1)


def test_generated_sets_that_share_nothing_raise_no_alarm(train, tested):
    assert len(MODALITIES) * PICTURES["train"] >= 300
    assert len(train) > 1000
    assert len(tested) > 300
    assert leaks(train, tested) == []


STEMS = (
    "Which plane does this CT scan belong to?",
    "What is the phase of this CT scan?",
    "What abnormality is seen in the {organ}?",
    "Where in the {organ} is the {finding} located?",
    "What is the likely diagnosis of the {finding} in the {organ}?",
    "Which of the following best describes the {finding} in the {organ} on this scan?",
    "What type of abnormality is present in the {side} {organ}?",
)
ORGANS = ("liver", "kidney", "spleen", "lung", "heart", "stomach", "colon", "bladder", "brain", "aorta")
FINDINGS = (
    "cyst",
    "mass",
    "haemangioma",
    "abscess",
    "metastasis",
    "adenoma",
    "effusion",
    "stenosis",
    "infarct",
    "nodule",
)


def choice_question(rng: random.Random) -> tuple[str, str]:
    """A made-up question with four choices, and the right one, in the words of M3D-VQA."""
    names = {"organ": rng.choice(ORGANS), "finding": rng.choice(FINDINGS), "side": rng.choice(["left", "right"])}
    choices = [f"{letter}. {finding}" for letter, finding in zip("ABCD", rng.sample(FINDINGS, 4), strict=True)]
    return f"{rng.choice(STEMS).format(**names)} Choices: {' '.join(choices)}", rng.choice(choices)


@pytest.mark.parametrize(("many", "few"), [(300, 300), (3000, 500)])
def test_choice_questions_in_common_wordings_raise_no_alarm(many, few):
    rng = random.Random(many)
    train = [item(f"train/{i}", *choice_question(rng)) for i in range(many)]
    benchmark = [item(f"test/{i}", *choice_question(rng)) for i in range(few)]
    assert leaks(train, benchmark) == []


def test_every_kind_of_planted_leak_is_found_and_nothing_else(train, tested):
    copied = next(one for one in tested if "/X-ray/0/" in one.record.id)
    frame = generate("MRI", "image", np.random.default_rng([23, 1, 0])).frames[0]
    smaller = np.asarray(Image.fromarray(frame).resize((80, 80), Image.Resampling.LANCZOS))[None]
    original = next(one for one in tested if "/MRI/0/" in one.record.id)
    planted = [
        Fingerprinted(tested[7].record, (Fingerprint("another file", None),)),
        Fingerprinted(item("new/1").record, copied.fingerprints),
        Fingerprinted(item("new/2").record, (Fingerprint("a resized copy", perceptual_hash(smaller)),)),
        item("new/3", SPECIFIC.replace("most likely", "likely"), "Glioblastoma."),
    ]
    benchmark = [*tested, item("test/specific", SPECIFIC, "glioblastoma", source="another benchmark")]
    hits = leaks([*train, *planted], benchmark)
    assert [(hit.kind, hit.train_id, hit.benchmark) for hit in hits] == [
        ("id", tested[7].record.id, "phantoms"),
        ("exact image", "new/1", "phantoms"),
        ("near image", "new/2", "phantoms"),
        ("near question", "new/3", "another benchmark"),
    ]
    assert hits[1].benchmark_id == copied.record.id
    assert hits[2].benchmark_id == original.record.id
    assert 0 <= hits[2].distance <= 24
    assert NEAR_SCORE <= hits[3].score < 100


def test_an_id_counts_within_its_source_only():
    assert kinds([item("7", file="a")], [item("7", file="b")]) == ["id"]
    assert kinds([item("7", file="a", source="another set")], [item("7", file="b")]) == []


def test_nearly_empty_pictures_leak_only_as_the_same_bytes():
    assert kinds([item("1")], [item("2")]) == []
    assert kinds([item("1", file="blank")], [item("2", file="blank")]) == ["exact image"]


def test_a_near_picture_leaks_whatever_is_asked_and_only_of_the_same_kind():
    benchmark = [item("2", "Which organ?", "The lung.", look=look(0))]
    assert leaks([item("1", look=look(24))], benchmark) == [Hit("near image", "1", "a set", "2", distance=24)]
    assert kinds([item("1", look=look(25))], benchmark) == []
    assert kinds([item("1", look=look(0), kind="volume")], benchmark) == []


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        (SPECIFIC, "glioblastoma"),
        (SPECIFIC.upper(), "Glioblastoma!"),
        ("The ring-enhancing mass in the left temporal lobe: what is this patient's likely diagnosis?", "glioblastoma"),
    ],
)
def test_a_specific_question_with_its_answer_leaks_in_any_order_of_words(question, answer):
    assert kinds([item("1", question, answer)], [item("2", SPECIFIC, "glioblastoma")]) == ["near question"]


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        (SPECIFIC, "abscess"),
        ("What is the most likely diagnosis?", "glioblastoma"),
        (SPECIFIC + " And what is the second mass, in the right occipital lobe, that enhances less?", "glioblastoma"),
    ],
)
def test_another_answer_or_question_is_no_leak(question, answer):
    assert kinds([item("1", question, answer)], [item("2", SPECIFIC, "glioblastoma")]) == []


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("Is this a CT of the chest?", "a CT of the chest"),
        (SPECIFIC, "Yes."),
        (SPECIFIC, "B"),
        (SPECIFIC, "3"),
        ("这张图像中左侧颞叶的环形强化肿块最可能是什么疾病呢", "没有"),
        ("图中有哪些器官", "肝脏"),
    ],
)
def test_short_questions_and_answers_that_chance_gives_are_no_leak(question, answer):
    assert kinds([item("1", question, answer)], [item("2", question, answer)]) == []


def test_chinese_questions_are_compared_too():
    words = ("这张图像中左侧颞叶的环形强化肿块最可能是什么疾病呢", "胶质母细胞瘤")
    assert kinds([item("1", *words)], [item("2", *words)]) == ["near question"]


def test_choices_in_another_order_still_leak():
    stem = "Which of these best explains the wedge-shaped lesion?"
    ours = item("1", f"{stem} Choices: A. infarct B. cyst C. abscess D. mass", "A. infarct")
    theirs = item("2", f"{stem} Choices: A. mass B. infarct C. cyst D. abscess", "B. infarct")
    assert kinds([ours], [theirs]) == ["near question"]


@pytest.mark.parametrize("others", [TEMPLATE_TIMES - 2, TEMPLATE_TIMES - 1])
def test_what_is_asked_of_many_pictures_is_a_template(others):
    lobes = ["frontal", "occipital", "parietal", "insular", "limbic"]
    asked = [item(f"other/{lobe}", SPECIFIC.replace("temporal", lobe), "metastasis") for lobe in lobes[:others]]
    hits = kinds([item("1", SPECIFIC, "glioblastoma"), *asked], [item("2", SPECIFIC, "glioblastoma")])
    assert hits == (["near question"] if others + 2 <= TEMPLATE_TIMES else [])


def test_later_turns_are_compared():
    talk = item("1", "What is shown?", "An MRI.", SPECIFIC, "glioblastoma")
    assert kinds([talk], [item("2", SPECIFIC, "glioblastoma")]) == ["near question"]


def test_one_hit_for_each_record_and_benchmark_the_surest_first():
    train = [
        item("words", SPECIFIC, "glioblastoma", file="x"),
        item("close", file="y", look=look(3)),
        item("closer", file="z", look=look(1)),
        item("all", SPECIFIC, "glioblastoma", file="a", look=look(0)),
    ]
    first = item("1", SPECIFIC, "glioblastoma", file="a", look=look(0), source="first")
    second = item("2", file="b", look=look(0), source="second")
    hits = leaks(train, [second, first])
    assert [(hit.kind, hit.train_id, hit.benchmark) for hit in hits] == [
        ("exact image", "all", "first"),
        ("near image", "all", "second"),
        ("near image", "closer", "first"),
        ("near image", "closer", "second"),
        ("near image", "close", "first"),
        ("near image", "close", "second"),
        ("near question", "words", "first"),
    ]
    assert leaks(reversed(train), iter([first, second])) == hits


@given(st.permutations(SPECIFIC.rstrip("?").lower().replace("-", " ").split()), st.integers(0, 5))
def test_the_score_is_that_of_rapidfuzz(words, left_out):
    question = " ".join(words[left_out:])
    hits = leaks([item("1", question, "glioblastoma")], [item("2", " ".join(words), "glioblastoma")])
    score = fuzz.token_sort_ratio(question, " ".join(words))
    if score >= NEAR_SCORE:
        assert hits[0].score == pytest.approx(score, abs=0.1)
    else:
        assert hits == []


def test_leaks_stop_with_a_sentence_and_a_list(tmp_path):
    hits = [Hit("exact image", f"train/{i}", "SLAKE", f"test/{i}") for i in range(5)]
    with pytest.raises(
        LeakError, match=r"^5 training records .*train/0 \(exact image of test/0 in SLAKE\).*leaks\.jsonl"
    ):
        stop_on_leaks(hits, tmp_path / "leaks.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "leaks.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [Hit(**row) for row in rows] == hits


def test_without_leaks_the_list_is_empty_and_nothing_stops(tmp_path):
    path = tmp_path / "leaks.jsonl"
    write_hits([Hit("id", "1", "SLAKE", "1")], path)
    stop_on_leaks([], path)
    assert path.read_text() == ""
