# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Deduplication: the same words about the same or nearly the same media stay once, and nothing else is left out."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from data_engine.deduplication import Duplicate, deduplicate, normalised
from data_engine.fingerprints import Fingerprint, Fingerprinted, distance, fingerprint
from data_engine.phantoms import generate
from data_engine.records import DIMENSION_OF, Medium, Record, Turn


def look(bits: int) -> str:
    """A perceptual hash that differs from that of 0 in so many bits, none of the lowest frequencies."""
    return f"{(1 << bits) - 1:064x}"


def item(
    name: str,
    *words: str,
    files: tuple[str, ...] = ("a",),
    looks: tuple[str | None, ...] = (look(0),),
    kind: str = "image",
) -> Fingerprinted:
    """A record of questions and answers in turns about media with these bytes and looks."""
    words = words or ("What is shown?", "A cyst.")
    turns = tuple(Turn(role=("user", "assistant")[i % 2], content=said) for i, said in enumerate(words))
    media = tuple(Medium(type=kind, path=f"{name}-{i}") for i in range(len(files)))
    record = Record(
        id=name,
        dimension=DIMENSION_OF[kind],
        modality="CT",
        task="diagnosis",
        media=media,
        conversations=turns,
        source="a set",
        license="CC0-1.0",
        split="train",
    )
    return Fingerprinted(record, tuple(map(Fingerprint, files, looks)))


def dropped(*items: Fingerprinted) -> list[tuple[str, str, str]]:
    """(kept, dropped, kind) of the duplicates."""
    return [(one.kept_id, one.dropped_id, one.kind) for one in deduplicate(items)[1]]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Is this a CT?", " is  THIS a ct "),
        ("left-sided", "left sided"),
        ("<media>\nWhat is shown?", "What is shown <media>"),
        ("ﬁbrosis, 3 cm²", "fibrosis 3 cm2"),
        ("这是CT吗。", "这是 ct 吗"),
    ],
)
def test_case_punctuation_and_typography_do_not_count(one, other):
    assert normalised(one) == normalised(other)


@pytest.mark.parametrize(("one", "other"), [("> 5 mm", "< 5 mm"), ("T1", "T2"), ("1.5", "15"), ("是", "否"), ("+", "")])
def test_what_changes_the_meaning_counts(one, other):
    assert normalised(one) != normalised(other)


def test_the_first_of_exact_duplicates_is_kept():
    first, second, third = item("1"), item("2", "what is SHOWN", "a cyst"), item("3")
    kept, duplicates = deduplicate([first, second, third])
    assert kept == [first]
    assert duplicates == [Duplicate("1", "2", "exact"), Duplicate("1", "3", "exact")]


def test_the_first_of_near_duplicates_is_kept():
    assert dropped(item("1"), item("2", files=("b",), looks=(look(24),))) == [("1", "2", "near")]
    assert dropped(item("1"), item("2", files=("b",), looks=(look(25),))) == []


@pytest.mark.parametrize(
    "words",
    [
        ("What else is shown?", "A cyst."),
        ("What is shown?", "A mass."),
        ("What is shown?", "A cyst.", "Where?", "On the left."),
    ],
)
def test_other_words_about_the_same_picture_are_no_duplicate(words):
    assert dropped(item("1"), item("2", *words)) == []


def test_later_turns_count():
    talk = ("What is shown?", "A cyst.", "Where?")
    assert dropped(item("1", *talk, "Left."), item("2", *talk, "left")) == [("1", "2", "exact")]
    assert dropped(item("1", *talk, "Left."), item("2", *talk, "right")) == []


def test_all_media_must_match_in_their_order():
    far = "f" * 64
    pair = item("1", files=("a", "b"), looks=(look(0), far))
    assert dropped(pair, item("2", files=("c", "d"), looks=(look(3), far))) == [("1", "2", "near")]
    assert dropped(pair, item("2", files=("b", "a"), looks=(far, look(0)))) == []
    assert dropped(pair, item("2", files=("a",), looks=(look(0),))) == []
    assert dropped(pair, item("2", files=("c", "d"), looks=(look(3), look(0)))) == []


def test_nearly_empty_media_are_duplicates_only_as_the_same_bytes():
    assert dropped(item("1", looks=(None,)), item("2", files=("b",), looks=(None,))) == []
    assert dropped(item("1", looks=(None,)), item("2", looks=(None,))) == [("1", "2", "exact")]
    blank = item("1", files=("a", "b"), looks=(None, look(0)))
    assert dropped(blank, item("2", files=("a", "c"), looks=(None, look(1)))) == [("1", "2", "near")]
    assert dropped(blank, item("2", files=("c", "b"), looks=(None, look(0)))) == []


def test_an_image_is_no_duplicate_of_a_volume_that_looks_like_it():
    assert dropped(item("1"), item("2", files=("b",), kind="volume")) == []


def test_a_chain_of_small_changes_does_not_remove_what_is_unlike_all_that_stay():
    steps = [item(str(bits), files=(str(bits),), looks=(look(bits),)) for bits in (0, 20, 40)]
    assert dropped(*steps) == [("0", "20", "near")]


def test_a_picture_compressed_again_is_found(tmp_path):
    picture = Image.fromarray(generate("X-ray", "image", np.random.default_rng(5)).frames[0])
    other = Image.fromarray(generate("X-ray", "image", np.random.default_rng(6)).frames[0])
    picture.save(tmp_path / "1.png")
    (tmp_path / "2.png").write_bytes((tmp_path / "1.png").read_bytes())
    data = io.BytesIO()
    picture.save(data, "JPEG", quality=60)
    (tmp_path / "3.jpg").write_bytes(data.getvalue())
    other.save(tmp_path / "4.png")
    items = [
        Fingerprinted(item(name).record, (fingerprint(tmp_path / name, "image"),))
        for name in ("1.png", "2.png", "3.jpg", "4.png")
    ]
    assert dropped(*items) == [("1.png", "2.png", "exact"), ("1.png", "3.jpg", "near")]


looks_of_chance = st.one_of(st.none(), st.sampled_from([look(bits) for bits in (0, 10, 20, 30, 40, 50)]))
media_of_chance = st.lists(st.tuples(looks_of_chance, st.sampled_from("ab")), min_size=1, max_size=2)


@given(st.lists(st.tuples(media_of_chance, st.sampled_from(["yes", "no"])), max_size=12))
def test_it_keeps_what_comparing_each_with_all_that_are_kept_keeps(drawn):
    items = []
    for number, (shown, answer) in enumerate(drawn):
        # Equal bytes have equal looks.
        files, looks = tuple(f"{name}{one}" for one, name in shown), tuple(one for one, _ in shown)
        items.append(item(str(number), "Is it?", answer, files=files, looks=looks))

    def alike(one: Fingerprint, other: Fingerprint) -> bool:
        if one.perceptual is None or other.perceptual is None:
            return one.sha256 == other.sha256
        return distance(one.perceptual, other.perceptual) is not None

    expected: list[Fingerprinted] = []
    for new in items:
        if not any(
            old.record.answer == new.record.answer
            and len(old.fingerprints) == len(new.fingerprints)
            and all(map(alike, old.fingerprints, new.fingerprints))
            for old in expected
        ):
            expected.append(new)
    kept, duplicates = deduplicate(items)
    assert kept == expected
    assert {one.record.id for one in items} == {one.record.id for one in kept} | {one.dropped_id for one in duplicates}
    assert {one.kept_id for one in duplicates} <= {one.record.id for one in kept}
    assert deduplicate(kept) == (kept, [])
