# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Views of boxed pictures: what was boxed goes with its box, is never cut, and lies elsewhere from view to view."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from data_engine import boxed_views
from data_engine.adapters.base import MediaStore
from data_engine.adapters.labelled_pictures import records, rows
from data_engine.boxed_views import VIEWS, lay_out, view

SIZE = (60, 48)
MARKED = (200, 60, 20)


def picture(box: tuple[float, float, float, float]) -> Image.Image:
    """Black but for the box."""
    drawn = Image.new("RGB", SIZE)
    left, top, right, bottom = (round(edge * side) for edge, side in zip(box, (*SIZE, *SIZE), strict=True))
    drawn.paste(MARKED, (left, top, right, bottom))
    return drawn


def boxes_of() -> st.SearchStrategy[tuple[float, float, float, float]]:
    def spans(side: int) -> st.SearchStrategy[tuple[float, float]]:
        edges = st.lists(st.integers(0, side), min_size=2, max_size=2, unique=True).map(sorted)
        return edges.map(lambda pair: (pair[0] / side, pair[1] / side))

    return st.tuples(spans(SIZE[0]), spans(SIZE[1])).map(lambda two: (two[0][0], two[1][0], two[0][1], two[1][1]))


@given(boxes_of(), st.integers(0, 10_000))
def test_the_box_goes_with_what_it_holds(box, seed) -> None:
    cut, [(left, top, right, bottom)] = view(picture(box), [box], np.random.default_rng(seed))
    marked = np.asarray(cut)[..., 0] > 0
    rows_seen, columns_seen = marked.any(axis=1).nonzero()[0], marked.any(axis=0).nonzero()[0]
    found = (columns_seen[0], rows_seen[0], columns_seen[-1] + 1, rows_seen[-1] + 1)
    assert np.abs(np.array(found) - np.array([left, top, right, bottom]) * np.tile(cut.size, 2)).max() < 0.1
    width, height = (round((box[place + 2] - box[place]) * SIZE[place]) for place in (0, 1))
    assert marked.sum() == width * height, "nothing of it is cut off"


def test_it_lies_in_every_quadrant_in_some_view() -> None:
    rng, seen = np.random.default_rng(0), set()
    box = (0.1, 0.1, 0.3, 0.3)
    for _ in range(60):
        _, [(left, top, right, bottom)] = view(picture(box), [box], rng)
        seen.add((left + right > 1, top + bottom > 1))
    assert len(seen) == 4


@pytest.fixture
def real(tmp_path) -> Path:
    lines = [
        {
            "file": "polyp.png",
            "source": "kvasir",
            "split": "train",
            "finding": "polyp",
            "boxes": [[0.1, 0.1, 0.4, 0.4]],
        },
        {
            "file": "other.png",
            "source": "kvasir",
            "split": "train",
            "finding": "polyp",
            "boxes": [[0.6, 0.5, 0.9, 0.8]],
        },
        {"file": "copy.png", "source": "kvasir", "split": "train", "finding": "polyp", "boxes": [[0.1, 0.1, 0.4, 0.4]]},
        {"file": "held.png", "source": "kvasir", "split": "test", "finding": "polyp", "boxes": [[0.1, 0.1, 0.4, 0.4]]},
        {"file": "none.png", "source": "kvasir", "split": "train", "finding": "no polyp", "boxes": []},
        {"file": "plain.png", "source": "kvasir", "split": "train", "finding": "polyp"},
    ]
    for number, line in enumerate(lines):
        coarse = np.random.default_rng(number).integers(0, 256, (6, 6, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize(SIZE, Image.Resampling.BICUBIC).save(tmp_path / str(line["file"]))
        line |= {"modality": "endoscopy", "license": "CC-BY-4.0", "group": line["file"], "anatomy": "colon"}
    (tmp_path / "images.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    Image.open(tmp_path / "held.png").resize((80, 64)).save(tmp_path / "copy.png")
    return tmp_path


def test_views_are_labelled_pictures_for_training_that_are_asked_for_places(real) -> None:
    counts = lay_out(real, real / "views")
    assert counts == {"kvasir-views": 2 * VIEWS}
    listed = list(rows(real / "views"))
    assert {row.values["split"] for row in listed} == {"train"}
    assert {row.values["entry"]["group"] for row in listed} == {"polyp.png", "other.png"}, "no view leaves its group"
    store = MediaStore(real / "set")
    made = [record for row in listed for record in records(row, real / "views", store)]
    assert {record.license for record in made} == {"CC-BY-4.0"}
    assert "localization" in {record.task for record in made}
    assert not {"diagnosis", "abnormality detection"} & {record.task for record in made}


def test_a_picture_that_looks_like_one_of_the_test_has_no_views(real) -> None:
    """The build leaves such a picture out itself, but would not know a view of it."""
    lay_out(real, real / "views")
    assert not [path for path in (real / "views").rglob("*.jpg") if path.name.startswith("copy")]


def test_views_are_the_same_the_next_time(real) -> None:
    lay_out(real, real / "one")
    lay_out(real, real / "two")
    for path in sorted((real / "one").rglob("*.*")):
        assert path.read_bytes() == (real / "two" / path.relative_to(real / "one")).read_bytes()


def test_without_boxes_there_is_one_sentence(real, monkeypatch, capsys) -> None:
    lines = [json.loads(line) | {"boxes": []} for line in (real / "images.jsonl").read_text().splitlines()]
    (real / "images.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    monkeypatch.setattr("sys.argv", ["boxed_views", "--real", str(real), "--out", str(real / "views")])
    with pytest.raises(
        SystemExit, match=r"^Error: No picture for training in .*images\.jsonl has boxes and is its own\.$"
    ):
        boxed_views.main()
