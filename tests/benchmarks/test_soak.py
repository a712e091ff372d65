# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Many clients at once: what counts as lost and as mixed, and a short run of the whole."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.soak import SentAwayError, Tally, main


def test_an_answer_that_differs_is_mixed_one_that_fails_lost_and_a_full_queue_neither(monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    tally = Tally()

    def fail() -> tuple[str]:
        raise OSError("gone")

    def be_sent_away() -> tuple[str]:
        raise SentAwayError

    for question in (lambda: ("CT",), lambda: ("MR",), fail, be_sent_away):
        tally.ask("page", question, ("CT",))
    assert len(tally.seconds["page"]) == 2 and tally.sent_away == 1
    assert tally.mixed == ["page: ('MR',) in place of ('CT',)"]
    assert tally.lost == ["page: OSError: gone"]


@pytest.mark.slow
def test_clients_of_the_page_and_of_the_api_each_get_their_own_answer(tiny: Path, tmp_path: Path):
    main(["--model", str(tiny), "--clients", "6", "--seconds", "5", "--json", str(tmp_path / "soak.json")])
    results = json.loads((tmp_path / "soak.json").read_text())
    assert results["lost"] == results["mixed"] == []
    assert results["answers"]["page"] >= 3 and results["answers"]["api"] >= 3
    assert results["distinct_answers_alone"] == 6
