# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The record of OmniV-Med-Instruct: what it accepts, what it says of errors, and that its file formats agree."""

from __future__ import annotations

import json
from typing import get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_engine.records import (
    MODALITIES,
    SPLITS,
    TASKS,
    Medium,
    Record,
    RecordError,
    Reply,
    Turn,
    read_jsonl,
    read_records,
    stream,
    write_jsonl,
    write_parquet,
)

words = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), min_size=1, max_size=30).filter(
    lambda text: "<media>" not in text
)


@st.composite
def records(draw) -> Record:
    kinds = draw(st.lists(st.sampled_from(["image", "volume", "video"]), min_size=1, max_size=3))
    dimension = "video" if "video" in kinds else "3d" if "volume" in kinds else "2d"

    def spacing(kind: str) -> tuple[float, ...] | None:
        return draw(st.none() | st.tuples(*[st.floats(0.1, 10)] * (3 if kind == "volume" else 2)))

    turns = []
    for _ in range(draw(st.integers(1, 3))):
        turns += [Turn(role="user", content=draw(words)), Turn(role="assistant", content=draw(words))]
    return Record(
        id=draw(words),
        dimension=dimension,
        modality=draw(st.sampled_from([*MODALITIES, "unknown"])),
        task=draw(st.sampled_from(TASKS)),
        media=tuple(Medium(type=kind, path=f"media/{i}.png", spacing=spacing(kind)) for i, kind in enumerate(kinds)),
        conversations=tuple(turns),
        source="test",
        license="CC0-1.0",
        split=draw(st.sampled_from(SPLITS)),
        language=draw(st.sampled_from(["en", "zh"])),
        reply=draw(st.sampled_from(get_args(Reply))),
    )


GOOD = {
    "id": "a/train/1",
    "dimension": "2d",
    "modality": "CT",
    "task": "diagnosis",
    "media": [{"type": "image", "path": "images/a.png"}],
    "conversations": [{"role": "user", "content": "What is it?"}, {"role": "assistant", "content": "A cyst."}],
    "source": "a",
    "license": "CC0-1.0",
    "split": "train",
}


def test_fourteen_modalities_and_eleven_tasks():
    assert len(MODALITIES) == 14
    assert len(TASKS) == 11
    assert "unknown" not in MODALITIES


@settings(max_examples=30, suppress_health_check=list(HealthCheck))
@given(st.lists(records(), min_size=1, max_size=4))
def test_both_file_formats_give_back_what_was_written(tmp_path, written):
    path = tmp_path / "set.jsonl"
    assert write_jsonl(written, path) == len(written)
    (shard,) = write_parquet(written, tmp_path, "set")
    assert list(read_records(path)) == written
    assert list(read_records(shard)) == written


def test_a_set_streams_through_datasets_with_the_same_rows(tmp_path):
    first = Record.model_validate(GOOD)
    second = Record.model_validate(
        GOOD
        | {"id": "b", "dimension": "3d", "media": [{"type": "volume", "path": "v.npy", "spacing": [5.0, 1.0, 1.0]}]}
    )
    path = tmp_path / "set.jsonl"
    write_jsonl([first, second], path)
    for paths in ([path], write_parquet([first, second], tmp_path, "set")):
        rows = list(stream(paths))
        assert [Record.model_validate(row) for row in rows] == [first, second]


def test_parquet_is_cut_into_shards(tmp_path, monkeypatch):
    monkeypatch.setattr("data_engine.records.ROWS_PER_PARQUET_SHARD", 2)
    written = [Record.model_validate(GOOD | {"id": str(number)}) for number in range(5)]
    paths = write_parquet(written, tmp_path, "train")
    assert [path.name for path in paths] == [f"train-{shard:05d}.parquet" for shard in range(3)]
    assert [record for path in paths for record in read_records(path)] == written


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"modality": "tricorder"}, "modality"),
        ({"task": "guessing"}, "task"),
        ({"media": []}, "media"),
        ({"media": [{"type": "image", "path": "/etc/passwd"}]}, "relative"),
        ({"media": [{"type": "image", "path": "../a.png"}]}, "relative"),
        ({"media": [{"type": "image", "path": "C:\\a.png"}]}, "relative"),
        ({"media": [{"type": "image", "path": "a.png", "spacing": [1, 1, 1]}]}, "spacing of image must be 2"),
        ({"dimension": "3d"}, "dimension '3d', but the media are '2d'"),
        ({"conversations": GOOD["conversations"][:1]}, "conversations"),
        ({"conversations": GOOD["conversations"][::-1]}, "take turns"),
        ({"conversations": [{"role": "user", "content": "<media><media>?"}, GOOD["conversations"][1]]}, "placeholders"),
        ({"colour": "red"}, "colour"),
        ({"version": 2}, "newer"),
    ],
)
def test_a_wrong_record_is_refused_with_its_line_and_field(tmp_path, change, message):
    path = tmp_path / "set.jsonl"
    path.write_text(json.dumps(GOOD) + "\n\n" + json.dumps(GOOD | change) + "\n", encoding="utf-8")
    with pytest.raises(RecordError, match=r"set\.jsonl, line 3: ") as caught:
        list(read_jsonl(path))
    assert message in str(caught.value)


def test_a_line_that_is_not_json_and_a_file_of_another_kind_are_refused(tmp_path):
    path = tmp_path / "set.jsonl"
    path.write_text(json.dumps(GOOD) + "\n{broken\n", encoding="utf-8")
    with pytest.raises(RecordError, match="line 2: not JSON"):
        list(read_jsonl(path))
    path.write_text("[]\n", encoding="utf-8")
    with pytest.raises(RecordError, match="line 1"):
        list(read_jsonl(path))
    with pytest.raises(RecordError, match=r"jsonl and \.parquet"):
        read_records(tmp_path / "set.csv")


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "set.jsonl"
    write_jsonl([Record.model_validate(GOOD)], path)
    before = path.read_bytes()

    def broken():
        yield Record.model_validate(GOOD)
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_jsonl(broken(), path)
    assert path.read_bytes() == before


def test_question_and_answer_leave_placeholders_out():
    row = GOOD | {"conversations": [{"role": "user", "content": "<media>\nWhere?"}, GOOD["conversations"][1]]}
    record = Record.model_validate(row)
    assert (record.question, record.answer) == ("Where?", "A cyst.")
