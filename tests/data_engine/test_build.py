# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Building the set: stopped and resumed with the same bytes, on either engine, with broken rows and leaks told."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from data_engine import build as build_module
from data_engine.build import CHUNK_ROWS, BuildConfig, BuildError, build
from data_engine.leak_check import LeakError
from data_engine.records import read_records, stream
from hub_model.media_omniv_med import load_clip
from tests.helpers.paths import ROOT
from tests.helpers.waiting import wait_until


def write_config(folder: Path, **fields) -> Path:
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump({"title": "A small set", "seed": 5, "on_leak": "drop"} | fields), encoding="utf-8")
    return path


SAMPLES = {"train": 6, "validation": 2, "test": 4}
"""One chunk, in which every kind of sample takes long; pictures that are there already make two more in no time."""
PICTURES = CHUNK_ROWS


def make_slake(folder: Path, pictures: int = 3) -> Path:
    """Two training questions about each picture, two of them broken, and a test question about the first picture."""
    source = folder / "slake"
    rows = []
    for number in range(pictures):
        path = source / "imgs" / f"xmlab{number}" / "source.jpg"
        path.parent.mkdir(parents=True)
        grains = np.random.default_rng(number).integers(0, 256, (8, 8), dtype=np.uint8)
        Image.fromarray(grains).resize((128, 128), Image.Resampling.BICUBIC).save(path, quality=95)
        for question in ("Which organ is the largest here?", "Is the picture of the chest?"):
            rows.append(
                {
                    "img_id": number,
                    "img_name": f"xmlab{number}/source.jpg",
                    "question": question,
                    "answer": "Liver" if question.startswith("Which") else "No",
                    "q_lang": "en",
                    "location": "Abdomen",
                    "modality": "CT",
                    "answer_type": "OPEN" if question.startswith("Which") else "CLOSED",
                    "base_type": "vqa",
                    "content_type": "Organ",
                    "qid": len(rows),
                    "triple": ["vhead", "_", "_"],
                }
            )
    rows[1]["answer"] = ""
    rows[3]["img_name"] = "nowhere/source.jpg"
    (source / "train.json").write_text(json.dumps(rows))
    (source / "validate.json").write_text("[]")
    (source / "test.json").write_text(json.dumps([rows[0] | {"qid": 99}]))
    return source


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> tuple[Path, Path]:
    """A configuration and the set that it gives when nothing disturbs the build."""
    folder = tmp_path_factory.mktemp("small")
    make_slake(folder, PICTURES)
    config = write_config(folder, generated=SAMPLES, sources=[{"name": "slake", "path": "slake"}])
    build(BuildConfig.read(config), folder / "set", "local", 2)
    return config, folder / "set"


def test_a_built_set_reads_back_and_its_media_open(small):
    _, folder = small
    for split, samples in SAMPLES.items():
        records = list(read_records(folder / f"{split}.jsonl"))
        generated = [record for record in records if record.source == "phantoms"]
        assert 2 * samples < len(generated) <= 3 * samples
        assert len({record.id for record in records}) == len(records)
        assert {record.split for record in records} == {split}
        for record in records[::15]:
            medium = record.media[0]
            clip = load_clip(folder / medium.path, spacing=medium.spacing)
            assert clip.kind == medium.type
    assert len(list(stream([folder / "train.jsonl"]))) == len(list(read_records(folder / "train.jsonl")))


def test_the_card_and_the_statistics_say_what_is_there(small):
    _, folder = small
    records = [
        record for split in ("train", "validation", "test") for record in read_records(folder / f"{split}.jsonl")
    ]
    summary = json.loads((folder / "statistics.json").read_text())
    assert summary["records"] == len(records) == sum(summary["split"].values())
    assert sum(sum(row.values()) for row in summary["modality_by_task"].values()) == len(records)
    card = (folder / "README.md").read_text()
    front = yaml.safe_load(card.split("---")[1])
    assert [one["split"] for one in front["configs"][0]["data_files"]] == ["train", "validation", "test"]
    assert f"{len(records):,} conversations" in card
    for name in ("modality_by_task", "shares", "lengths"):
        assert Image.open(folder / "figures" / f"{name}.png").size[0] > 500
    assert not (folder / ".build").exists()


def test_a_finished_build_is_left_as_it_is(small):
    config, folder = small
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    build(BuildConfig.read(config), folder, "local", 2)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_killed_and_resumed_gives_the_same_bytes(small, tmp_path):
    config, whole = small
    with pytest.raises(ValueError, match="The engine is one of"):
        build(BuildConfig.read(config), tmp_path / "set", "none", 1)  # lists all chunks, and converts none
    (chunks,) = tmp_path.glob("set/.build/*slake/")
    blocked = chunks / "000001.part"
    os.mkfifo(blocked)  # whoever writes the second chunk of pictures waits for a reader that never comes
    command = [sys.executable, "-m", "data_engine.build", "--config", str(config), "--out", str(tmp_path / "set")]
    process = subprocess.Popen(
        [*command, "--processes", "1"], cwd=ROOT, start_new_session=True, stderr=subprocess.DEVNULL
    )
    wait_until((chunks / "000000.jsonl").exists, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    blocked.unlink()
    assert not (tmp_path / "set" / "train.jsonl").exists()
    subprocess.run([*command, "--processes", "2"], cwd=ROOT, check=True, capture_output=True)
    assert contents(tmp_path / "set") == contents(whole)


@pytest.mark.slow
def test_ray_gives_the_same_bytes_as_local_processes(small, tmp_path):
    config, whole = small
    build(BuildConfig.read(config), tmp_path / "set", "ray", 2)
    assert contents(tmp_path / "set") == contents(whole)


def test_broken_rows_are_listed_and_a_leak_stops_the_build_with_a_list(tmp_path, monkeypatch):
    make_slake(tmp_path)
    source = {"name": "slake", "path": "slake"}
    config = write_config(tmp_path, sources=[source], benchmarks=[source], on_leak="stop")
    with pytest.raises(LeakError, match=r"leaks\.jsonl"):
        build(BuildConfig.read(config), tmp_path / "set", "local", 1)
    broken = [json.loads(line) for line in (tmp_path / "set" / "broken.jsonl").read_text().splitlines()]
    assert {one["source"] for one in broken} == {"slake"}
    assert [one["where"] for one in broken] == ["train.json, entry 2", "train.json, entry 4"]
    hits = [json.loads(line) for line in (tmp_path / "set" / "leaks.jsonl").read_text().splitlines()]
    assert "exact image" in {hit["kind"] for hit in hits}

    config = write_config(tmp_path, sources=[source], benchmarks=[source], on_leak="drop")
    converted = []
    monkeypatch.setattr(
        build_module, "run_tasks", lambda engine, function, left, processes: converted.extend(left) or []
    )
    summary = build(BuildConfig.read(config), tmp_path / "set", "local", 1)
    assert not converted, "what was converted before the build stopped is used again"
    assert summary["records"] == 3, "of six, two are broken and one shows a picture of the test split"


def test_a_limit_draws_training_rows_by_the_seed(tmp_path):
    make_slake(tmp_path)

    def ids(seed: int) -> list[str]:
        config = write_config(tmp_path, seed=seed, sources=[{"name": "slake", "path": "slake", "limit": 3}])
        rows = build_module.limited_rows(BuildConfig.read(config).sources[0], seed)
        return [row.where for row in rows]

    assert len(ids(0)) == 3
    assert ids(0) == ids(0)
    assert len({tuple(ids(seed)) for seed in range(6)}) > 1


def test_parquet_holds_the_same_records(small, tmp_path):
    config, folder = small
    fields = yaml.safe_load(config.read_text(encoding="utf-8")) | {"format": "parquet"}
    build(BuildConfig.read(write_config(tmp_path, **fields), config.parent), tmp_path / "set", "local", 1)
    for split in SAMPLES:
        assert list(read_records(tmp_path / "set" / f"{split}-00000.parquet")) == list(
            read_records(folder / f"{split}.jsonl")
        )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"generated": {"train": "many"}}, "generated.train"),
        ({"shares": {"colour": {"red": 1}}}, "colour"),
        ({"format": "csv"}, "format"),
        ({"speed": 1}, "speed"),
        ({"sources": [{"name": "nowhere", "path": "."}]}, "nowhere"),
        ({"sources": [{"name": "slake", "path": "missing"}]}, "missing"),
    ],
)
def test_a_wrong_configuration_is_told_in_one_sentence(tmp_path, fields, message):
    with pytest.raises(ValueError, match=message) as caught:
        build(BuildConfig.read(write_config(tmp_path, **fields)), tmp_path / "set", "local", 1)
    assert "\n" not in str(caught.value)


def test_another_builds_folder_is_not_overwritten(small, tmp_path):
    _, folder = small
    other = write_config(tmp_path, generated={"test": 1})
    with pytest.raises(BuildError, match="choose an empty folder"):
        build(BuildConfig.read(other), folder, "local", 1)
    with pytest.raises(BuildError, match="cannot be read"):
        BuildConfig.read(tmp_path / "missing.yaml")


def test_the_command_ends_with_a_sentence(tmp_path, monkeypatch):
    config = write_config(tmp_path, generated={"test": 2})
    command = [sys.executable, "-m", "data_engine.build", "--config", str(config), "--out", str(tmp_path / "set")]
    done = subprocess.run([*command, "--processes", "1"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "records (" in done.stdout
    monkeypatch.setattr(sys, "argv", [*command[2:-1], str(tmp_path)])
    with pytest.raises(SystemExit, match="choose an empty folder"):
        build_module.main()


def test_a_chunk_is_converted_once(small, tmp_path, monkeypatch):
    """Chunks that are done are not given to a worker again."""
    config, _ = small
    tasks = build_module.list_rows(BuildConfig.read(config), tmp_path)
    build_module.convert(tasks[:1], "local", 1)
    stamp = tasks[0].done.stat().st_mtime_ns
    given = []
    monkeypatch.setattr(build_module, "run_tasks", lambda engine, function, left, processes: given.extend(left) or [])
    build_module.convert(tasks, "local", 1)
    assert given == tasks[1:]
    assert tasks[0].done.stat().st_mtime_ns == stamp
