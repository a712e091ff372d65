# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Configurations are read strictly, with the line of what is wrong; files appear whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_engine.files import YamlError, line_of, read_yaml, write_atomically


def test_fields_are_read(tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text("seed: 3\ndata: {folders: [a, b]}\n", encoding="utf-8")
    assert read_yaml(tmp_path / "one.yaml") == {"seed": 3, "data": {"folders": ["a", "b"]}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed: 3\nsteps: [1, 2\n", r"is not YAML \(line 3"),
        ("seed: 3\ndata:\n  cache: a\n  cache: b\n", r"line 4: 'cache' is given twice"),
        ("when: !!python/name:os.system\n", "line 1"),
        ("- seed\n", "holds no fields"),
        ("", "holds no fields"),
        (b"\xff\xfe\x00", "not text in UTF-8"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path: Path, text: str | bytes, message: str) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(YamlError, match=message):
        read_yaml(path)


@pytest.mark.parametrize(
    ("place", "line"),
    [
        (("seed",), 1),
        (("data", "folders"), 4),
        (("data", "folders", 1), 6),
        (("data", "folders", 1, "name"), 7),
        (("data", "cache"), 3),
        (("seed", "nothing"), 1),
        ((), 1),
    ],
)
def test_a_field_has_a_line_and_a_missing_one_that_of_its_holder(tmp_path: Path, place: tuple, line: int) -> None:
    path = tmp_path / "one.yaml"
    path.write_text("seed: 3\n\ndata:\n  folders:\n    - {path: a}\n    - path: b\n      name: c\n", encoding="utf-8")
    assert line_of(path, place) == line


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(YamlError, match=r"nowhere\.yaml cannot be read; check its path"):
        read_yaml(tmp_path / "nowhere.yaml")


def test_a_file_appears_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    path.write_text("old", encoding="utf-8")
    with write_atomically(path) as part:
        part.write_text("new", encoding="utf-8")
        assert path.read_text(encoding="utf-8") == "old"
    assert path.read_text(encoding="utf-8") == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    path.write_text("old", encoding="utf-8")
    with pytest.raises(OSError, match="full"), write_atomically(path) as part:
        part.write_text("half", encoding="utf-8")
        raise OSError("the disk is full")
    assert path.read_text(encoding="utf-8") == "old"
    assert list(tmp_path.iterdir()) == [path]
