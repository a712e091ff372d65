# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""How long a visitor waits: two visits to the page of a tiny model."""

from __future__ import annotations

import json

import pytest

from tests.helpers.page_visits import IN_CHROMIUM

pytestmark = IN_CHROMIUM


def test_the_first_slice_and_the_new_picture_are_waited_for(tiny, tmp_path, monkeypatch):
    from benchmarks import page  # it needs Playwright, without which this module is skipped

    monkeypatch.setattr("sys.argv", ["page", "--model", str(tiny), "--repeats", "2", "--json", str(tmp_path / "out")])
    page.main()
    results = json.loads((tmp_path / "out").read_text())
    assert results["slices"] == 181
    waits = results["waits"]
    assert list(waits) == [page.FIRST_SLICE, page.REDRAW, page.ALONE]
    assert all(0 < row["first_quartile_s"] <= row["median_s"] <= row["third_quartile_s"] for row in waits.values())


def test_without_a_browser_a_sentence_says_what_to_install(monkeypatch):
    from benchmarks import page

    monkeypatch.setattr("benchmarks.chromium.BROWSERS", ("no-such-browser",))
    monkeypatch.setattr("sys.argv", ["page"])
    with pytest.raises(SystemExit, match="Chromium is not installed"):
        page.main()
