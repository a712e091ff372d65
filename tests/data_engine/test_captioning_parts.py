# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The parts of captioning by rejection sampling that need no server: judgements, the ledger, items, pictures."""

from __future__ import annotations

import base64
import io
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - the name all of its documentation uses
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from data_engine.captioning.config import CaptionError, RecordsSource, Sampling
from data_engine.captioning.frames import data_uri, media_parts
from data_engine.captioning.items import Item, list_items
from data_engine.captioning.judging import (
    CRITERIA,
    Candidate,
    JudgementError,
    Verdict,
    decide,
    parse_judgement,
)
from data_engine.captioning.ledger import Entry, Ledger, request_key
from data_engine.captioning.statistics import exact_agreement, weighted_kappa
from data_engine.records import Medium, Record, Turn, write_jsonl


def answer_of(relevance: Any = 4, fluency: Any = 4, accuracy: Any = 4) -> str:
    scores = {"relevance": relevance, "fluency": fluency, "accuracy": accuracy}
    return json.dumps({name: {"score": score, "reason": "Because."} for name, score in scores.items()})


# Judgements


@given(st.tuples(*[st.integers(1, 5)] * 3), st.sampled_from(["{}", "```json\n{}\n```", "<think>{{1}}</think>Here: {}"]))
def test_scores_of_one_to_five_are_read_whatever_stands_around_them(scores: tuple[int, int, int], around: str) -> None:
    assert parse_judgement(around.format(answer_of(*scores))).scores == dict(zip(CRITERIA, scores, strict=True))


@pytest.mark.parametrize(
    ("answer", "names"),
    [
        ("All is well.", "no JSON object"),
        ("{all is well}", "JSON"),
        (answer_of(accuracy=6), "accuracy.score"),
        (answer_of(fluency=0), "fluency.score"),
        (answer_of(relevance="4"), "relevance.score"),
        (answer_of(relevance=4.5), "relevance.score"),
        (answer_of(relevance=True), "relevance.score"),
        (answer_of().replace('"Because."', '""'), "reason"),
        (answer_of().replace("accuracy", "precision"), "accuracy"),
        (answer_of()[:-1] + ', "overall": 4}', "overall"),
    ],
)
def test_any_other_answer_is_refused_and_the_judge_told_what_is_wrong(answer: str, names: str) -> None:
    with pytest.raises(JudgementError, match=re.escape(names)):
        parse_judgement(answer)


def candidate(number: int, *scores: tuple[int, int, int] | None) -> Candidate:
    """A candidate with a verdict for each triple; None is one that failed."""
    judgements = [triple and parse_judgement(answer_of(*triple)) for triple in scores]
    return Candidate(number, "A caption.", tuple(Verdict(f"judge {i}", one) for i, one in enumerate(judgements)))


TRIPLES = st.tuples(*[st.integers(1, 5)] * 3)


@given(st.lists(st.tuples(TRIPLES, st.none() | TRIPLES), min_size=1, max_size=5), st.floats(1, 5))
def test_the_best_candidate_is_kept_if_it_reaches_the_threshold(judged: list, threshold: float) -> None:
    candidates = [candidate(number, *pair) for number, pair in enumerate(judged)]
    means = [None if None in pair else sum(pair[0] + pair[1]) / 6 for pair in judged]
    assert [one.score for one in candidates] == means
    best = max((mean for mean in means if mean is not None), default=0)
    chosen = decide("item", candidates, threshold).chosen
    assert (chosen is None) == (best < threshold)
    assert chosen is None or chosen.number == means.index(best)


def test_a_candidate_that_one_judge_could_not_score_is_never_kept() -> None:
    assert decide("item", [candidate(0, (5, 5, 5), None), Candidate(1, "")], 1.0).chosen is None


def test_kappa_follows_its_formula() -> None:
    pairs = Counter({(1, 2): 3, (4, 4): 5, (5, 3): 2, (2, 2): 4})
    first, second = np.array(list(pairs.elements())).T
    distance = (first[:, None] - second[None, :]) ** 2
    expected = 1 - np.mean((first - second) ** 2) / distance.mean()  # Cohen (1968): observed over expected by chance
    assert weighted_kappa(pairs) == pytest.approx(expected, abs=1e-4)
    assert exact_agreement(pairs) == pytest.approx(9 / 14, abs=1e-4)
    assert weighted_kappa(Counter({(5, 5): 9})) is None and weighted_kappa(Counter()) is None


# The ledger


def entry(number: int) -> Entry:
    return Entry(
        key=request_key(number=number),
        item="item",
        role="judge",
        model="m",
        answer=f"Answer {number}\nof two lines, äöü.",
        finish_reason="stop",
        input_tokens=10,
        output_tokens=2,
        cost=0.5,
        seconds=1.0,
    )


def test_a_ledger_gives_back_what_was_written(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.jsonl") as ledger:
        for number in range(3):
            ledger.append(entry(number))
    with Ledger(tmp_path / "ledger.jsonl") as ledger:
        assert [ledger.get(entry(number).key) for number in range(3)] == [entry(number) for number in range(3)]
        assert ledger.get(request_key(number=3)) is None
        assert (ledger.totals.requests, ledger.totals.input_tokens, ledger.totals.cost) == (3, 30, 1.5)


@given(st.data())
def test_a_torn_last_line_is_dropped_and_the_next_one_is_whole(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("ledger") / "ledger.jsonl"
    with Ledger(path) as ledger:
        ledger.append(entry(0))
        ledger.append(entry(1))
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    path.write_bytes(whole[: data.draw(st.integers(first, len(whole) - 1))])
    with Ledger(path) as ledger:
        assert ledger.get(entry(0).key) == entry(0) and ledger.get(entry(1).key) is None
        ledger.append(entry(1))
    assert path.read_bytes() == whole


def test_a_damaged_line_in_the_middle_is_named_not_dropped(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    path.write_text(entry(0).model_dump_json() + "\n{}\n" + entry(1).model_dump_json() + "\n")
    with pytest.raises(CaptionError, match="line 2 is damaged"):
        Ledger(path)


def test_two_runs_do_not_share_a_ledger(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.jsonl"), pytest.raises(CaptionError, match="Another run"):
        Ledger(tmp_path / "ledger.jsonl")


# Items and pictures


def record(number: int, path: str, question: str, answer: str, **fields: Any) -> Record:
    values = {
        "id": f"source/train/{number}",
        "dimension": "3d",
        "modality": "CT",
        "task": "anatomy recognition",
        "media": (Medium(type="volume", path=path),),
        "conversations": (
            Turn(role="user", content=f"<media>\n{question}"),
            Turn(role="assistant", content=answer),
        ),
        "source": "source",
        "license": "CC0-1.0",
        "split": "train",
    }
    return Record(**{**values, **fields})


def test_records_of_one_medium_become_one_item_with_their_answers_as_facts(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    records = [
        record(0, "media/a.nii.gz", "Which organ?", "The liver."),
        record(1, "media/b.nii.gz", "Which organ?", "The lung."),
        record(2, "media/a.nii.gz", "Which plane?", "Axial."),
        record(3, "media/a.nii.gz", 'Does "A kidney." fit?', "no", task="image-text matching"),
    ]
    write_jsonl(records, path)
    first, second = list_items([RecordsSource(kind="records", path=path)])
    assert (first.id, first.kind, first.files) == ("source/train/0/caption", "volume", [tmp_path / "media/a.nii.gz"])
    assert first.facts == (
        "The modality is CT.",
        "Asked 'Which organ?', the source answers 'The liver.'.",
        "Asked 'Which plane?', the source answers 'Axial.'.",
    )
    assert second.facts[1:] == ("Asked 'Which organ?', the source answers 'The lung.'.",)
    assert second.stored == ["source/b.nii.gz"]


def pictures_of(parts: list[dict[str, Any]]) -> list[Image.Image]:
    urls = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
    return [Image.open(io.BytesIO(base64.b64decode(url.split(",", 1)[1]))) for url in urls]


def test_slices_are_sent_in_order_after_their_places_in_one_ct_window(tmp_path: Path) -> None:
    # Slice z has z * 20 HU all over; the window from 0 to 100 HU maps that to 51 grey levels a slice.
    values = np.repeat(np.arange(5, dtype=np.int16) * 20, 64).reshape(5, 8, 8)
    image = sitk.GetImageFromArray(values)
    image.SetSpacing((1.0, 1.0, 2.5))
    sitk.WriteImage(image, str(tmp_path / "ct.nii.gz"))
    media = (Medium(type="volume", path="ct.nii.gz"),)
    item = Item("item", tmp_path, media, (), "CT", "source", "CC0-1.0", "train")
    parts = media_parts(item, Sampling(frames=3, ct_window=(100.0, 50.0)))
    assert [part["type"] for part in parts] == ["text", "image_url"] * 3
    words = [part["text"] for part in parts[::2]]
    assert words == ["Slice 1 of 3, at 0.0 mm:", "Slice 2 of 3, at 5.0 mm:", "Slice 3 of 3, at 10.0 mm:"]
    shown = [np.asarray(picture) for picture in pictures_of(parts)]
    assert [frame.shape for frame in shown] == [(8, 8, 3)] * 3
    assert [sorted(np.unique(frame)) for frame in shown] == [[0], [102], [204]]


def test_media_that_belong_together_are_told_apart(tmp_path: Path) -> None:
    for name in "ab":
        Image.new("L", (8, 8), ord(name)).save(tmp_path / f"{name}.png")
    media = tuple(Medium(type="image", path=f"{name}.png") for name in "ab")
    parts = media_parts(Item("item", tmp_path, media, (), "X-ray", "source", "CC0-1.0", "train"), Sampling())
    assert [part["text"] for part in parts[::2]] == ["Image 1 of 2. Image:", "Image 2 of 2. Image:"]
    assert [picture.getpixel((0, 0))[0] for picture in pictures_of(parts)] == [ord("a"), ord("b")]


@given(st.integers(1, 200), st.integers(1, 200), st.sampled_from(["PNG", "JPEG"]))
def test_frames_are_made_smaller_never_larger(height: int, width: int, file_format: str) -> None:
    url = data_uri(np.zeros((height, width, 3), np.uint8), 56, file_format)
    size = pictures_of([{"type": "image_url", "image_url": {"url": url}}])[0].size
    assert max(size) == min(max(height, width), 56)
