# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Clip art and photographs become class folders that the photographs' adapter reads."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_engine import everyday_pictures
from data_engine.adapters.not_medical import photograph_rows


def picture(path: Path, seed: int, side: int = 40) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 4), dtype=np.uint8)).save(path)


@pytest.fixture
def laid_out(tmp_path) -> Path:
    for number in range(30):
        picture(tmp_path / "art" / "animals" / f"{number}.png", number)
    picture(tmp_path / "art" / "people" / "clothing" / "shirt.png", 50)
    picture(tmp_path / "art" / "science" / "medicine" / "bottle.png", 51)
    picture(tmp_path / "art" / "icons" / "tiny.png", 52, side=8)
    for number in range(10):
        picture(tmp_path / "walls" / f"{number}.png", 100 + number, side=90)
    everyday_pictures.lay_out(tmp_path / "art", [tmp_path / "walls"], tmp_path / "out")
    return tmp_path / "out"


def test_the_adapter_reads_what_was_laid_out_and_each_photograph_lies_in_one_split(laid_out) -> None:
    rows = [row.values["entry"]["file"] for row in photograph_rows(laid_out)]
    splits = {row.values["entry"]["file"]: row.values["split"] for row in photograph_rows(laid_out)}
    assert len(rows) == 30 + 10 * everyday_pictures.PARTS_OF_A_PHOTOGRAPH
    assert set(splits.values()) == {"train", "validation"}
    photographs: dict[str, set[str]] = {}
    for file, split in splits.items():
        if file.startswith("photograph"):
            photographs.setdefault(Path(file).stem.split("-")[0], set()).add(split)
    assert len(photographs) == 10
    assert all(len(one) == 1 for one in photographs.values())


def test_clothing_medicine_and_what_is_too_small_are_left_out(laid_out) -> None:
    assert len(list((laid_out / "clip-art").iterdir())) + len(list((laid_out / "clip-art-validation").iterdir())) == 30


def test_some_pictures_are_grey_and_all_are_the_same_the_next_time(laid_out, tmp_path) -> None:
    again = tmp_path / "again"
    everyday_pictures.lay_out(tmp_path / "art", [tmp_path / "walls"], again)
    grey = 0
    for path in laid_out.rglob("*.png"):
        one, other = (np.asarray(Image.open(file)) for file in (path, again / path.relative_to(laid_out)))
        assert np.array_equal(one, other)
        grey += np.array_equal(one[..., 0], one[..., 1])
    assert 0.1 < grey / len(list(laid_out.rglob("*.png"))) < 0.6


def test_a_category_gives_no_more_than_its_share(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(everyday_pictures, "OF_A_CATEGORY", 4)
    for number in range(12):
        picture(tmp_path / "animals" / f"{number}.png", number)
    picture(tmp_path / "food" / "apple.png", 20)
    counts = everyday_pictures.lay_out(tmp_path, [], tmp_path.parent / "out")
    assert sum(counts.values()) == 5


def test_empty_folders_are_refused_in_a_sentence(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(
        sys, "argv", ["everyday_pictures", "--photographs", str(tmp_path), "--out", str(tmp_path / "o")]
    )
    with pytest.raises(SystemExit, match="no pictures in these folders"):
        everyday_pictures.main()


def test_a_picture_that_cannot_be_read_is_passed_over_and_named(tmp_path, capsys, monkeypatch) -> None:
    picture(tmp_path / "animals" / "cat.png", 1)
    picture(tmp_path / "animals" / "huge.png", 2, side=90)
    (tmp_path / "animals" / "torn.png").write_bytes(b"no picture")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2000)
    assert sum(everyday_pictures.lay_out(tmp_path, [], tmp_path.parent / "out").values()) == 1
    named = {line.split(":")[0].rpartition("/")[2] for line in capsys.readouterr().err.splitlines()}
    assert named == {"huge.png", "torn.png"}
