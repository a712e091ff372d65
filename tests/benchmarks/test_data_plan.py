# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The plan of the full build: every source of its configuration, files as they are, sums that hold."""

from __future__ import annotations

import yaml

from benchmarks import data_engine
from data_engine.build import BuildConfig
from data_engine.generated import NAME
from hub_model.media_omniv_med import load_clip


def test_every_source_of_the_full_set_is_planned():
    config = BuildConfig.read(data_engine.INSTRUCT)
    shares = yaml.safe_load(data_engine.INSTRUCT.read_text(encoding="utf-8"))["shares"]["source"]
    assert set(shares) == {one.name for one in config.sources} | {NAME}
    assert set(data_engine.FILES_OF) == {one.name for one in config.sources}
    assert abs(sum(shares.values()) - 1) < 1e-9


def test_files_are_of_the_kind_they_stand_for(tmp_path):
    for name, files in data_engine.FILES_OF.items():
        path = tmp_path / name
        path.write_bytes(files.make(0))
        assert load_clip(path, kind=files.kind).kind == files.kind


def test_a_plan_adds_up(monkeypatch):
    monkeypatch.setattr(data_engine, "REPEATS", 1)
    rows = data_engine.plan()
    assert abs(sum(row["records"] for row in rows) - 252_000) <= len(rows)
    for row in rows:
        hours = row["media"] / row["media_per_second"] / 3600
        assert abs(hours - row["core_hours"]) <= 1e-3 * max(hours, 1)
    total = data_engine.table(rows).splitlines()[-1]
    assert f"{sum(row['disk_gb'] for row in rows):.1f} GB" in total
