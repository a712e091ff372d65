# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The benchmark of serving: its figures, its files and the mixture of its soak, and a short run of the whole."""

from __future__ import annotations

import gzip
import io
import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from benchmarks import serving, serving_clients, serving_soak
from benchmarks.serving_clients import RefusedError, Workload, ask_again_and_again, message, relabelled, workloads_in
from benchmarks.serving_figures import (
    IN_BATCHES,
    ONE_BY_ONE,
    PICTURES,
    PRUNED,
    PRUNED_EARLY,
    SERVER,
    UNPRUNED,
    Cell,
    Reply,
    Turn,
    goals,
    goals_table,
    ratios,
    row_of,
    rows_of,
    table,
)
from benchmarks.serving_peers import Generator
from benchmarks.serving_soak import ASKS, BAD_FILE, HANGS_UP, Tally, bad_request, role_of
from benchmarks.vllm_process import ENVIRONMENT, metric_in, suspended
from tests.helpers.paths import HUB_MODEL

MIB = 100.0


def turn(count: int, seconds: float, text: str = "CT", peak: float = MIB) -> Turn:
    """Answers about files 0, 1, …, whose first tokens came after 1, 2, … seconds."""
    return Turn([Reply(number, number + 1.0, seconds, text, 50) for number in range(count)], seconds, peak)


# Figures.


def test_a_row_has_the_median_rate_the_percentiles_of_all_turns_and_the_largest_memory():
    row = row_of(Cell(PICTURES, SERVER, 8), [turn(2, 1, peak=300), turn(4, 4), turn(3, 1)], {})
    assert row["requests_per_second"] == 2, "of 2, 1 and 3"
    assert row["requests"] == 9
    assert row["peak_mib"] == 300
    first = [1, 2, 1, 2, 3, 4, 1, 2, 3]
    assert (row["first_token_p50_s"], row["first_token_p95_s"]) == (2, pytest.approx(np.percentile(first, 95)))
    assert [held["first_token_s"] for held in row["turns"]] == [[1, 2], [1, 2, 3, 4], [1, 2, 3]]


def test_answers_are_compared_with_those_that_generate_gave_one_by_one_to_the_same_files():
    rows = rows_of(
        {
            Cell(PICTURES, ONE_BY_ONE, 1): [turn(2, 1, "CT")],
            Cell(PICTURES, SERVER, 1): [turn(3, 1, "CT"), turn(1, 1, "MR")],
            Cell(PRUNED, SERVER, 1): [turn(1, 1, "CT")],
        }
    )
    assert [(row["same_answers"], row["compared_answers"]) for row in rows] == [(2, 2), (2, 3), (0, 0)]


def test_ratios_are_of_the_server_over_each_peer_and_of_pruned_volumes_over_unpruned_ones():
    rows = rows_of(
        {
            Cell(PRUNED, ONE_BY_ONE, 1): [turn(1, 1)],
            Cell(PRUNED, IN_BATCHES, 8): [turn(2, 1)],
            Cell(PRUNED, SERVER, 1): [turn(3, 1)],
            Cell(PRUNED, SERVER, 8): [turn(6, 1)],
            Cell(PRUNED_EARLY, SERVER, 8): [turn(8, 1)],
            Cell(UNPRUNED, ONE_BY_ONE, 1): [turn(1, 2)],
            Cell(UNPRUNED, SERVER, 8): [turn(2, 1)],
        }
    )
    found = ratios(rows)
    assert found == {
        "server_over_one_by_one": {PRUNED: {1: 3, 8: 6}, UNPRUNED: {8: 4}},
        "server_over_static_batches": {PRUNED: {1: 1.5, 8: 3}},
        "pruned_over_unpruned": {ONE_BY_ONE: {1: 2}, SERVER: {8: 3}},
        "pruned_before_the_encoder_over_unpruned": {SERVER: {8: 4}},
    }
    assert [(one["ratio"], one["of"], one["goal"], one["measured"]) for one in goals(found)] == [
        ("server_over_one_by_one", PRUNED, 4, 6),
        ("server_over_one_by_one", UNPRUNED, 4, 4),
        ("pruned_over_unpruned", SERVER, 2, 3),
        ("pruned_before_the_encoder_over_unpruned", SERVER, 2, 4),
    ]
    assert "| vLLM server | 8 | 6.00 |" in table(rows)
    assert "| 4.0× | 6.00× |" in goals_table(goals(found))


def test_goals_are_for_eight_clients():
    assert goals({"server_over_one_by_one": {PICTURES: {1: 9.0, 16: 9.0}}}) == []


# Files and clients.


@pytest.fixture(scope="module")
def workloads(tmp_path_factory: pytest.TempPathFactory) -> list[Workload]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("benchmarks.generated_studies.SLICES", 3)
        patch.setattr("benchmarks.generated_studies.PIXELS", 64)
        return workloads_in(tmp_path_factory.mktemp("files"), 2)


def test_pictures_and_volumes_differ_and_both_sides_are_told_how_to_prune(workloads):
    pictures, pruned, early, unpruned = workloads
    assert len({file.read_bytes() for file in (*pictures.files, *pruned.files)}) == 4
    assert pruned.files == early.files == unpruned.files
    assert [one.options for one in (pruned, early, unpruned)] == [
        {},
        {"prune_stage": "encoder"},
        {"prune_rule": "none"},
    ]


def test_a_new_label_changes_the_bytes_of_a_file_and_not_what_it_shows(workloads):
    pictures, volumes, *_ = workloads
    for content, pixels in (
        (pictures.files[0].read_bytes(), lambda found: np.asarray(Image.open(io.BytesIO(found))).tobytes()),
        (volumes.files[0].read_bytes(), gzip.decompress),
    ):
        labelled = [relabelled(content, label) for label in (1, 2, 1)]
        assert labelled[0] == labelled[2] != labelled[1]
        assert pixels(labelled[0]) == pixels(labelled[1]) == pixels(content)


def test_requests_about_one_file_never_have_the_same_bytes(workloads):
    asking = serving_clients.Asking(new_tokens=5)
    first, again = (asking.request(workloads[1], number) for number in (0, 2))
    part = first["messages"][0]["content"][0]
    assert part["type"] == "video_url"
    assert part["video_url"] != again["messages"][0]["content"][0]["video_url"]
    assert first["max_tokens"] == first["min_tokens"] == 5


def test_each_client_asks_at_least_once_and_a_failure_ends_the_turn():
    asked: list[int] = []
    seconds = ask_again_and_again("http://127.0.0.1:9/", 3, 0, lambda client, number: asked.append(number))
    assert sorted(asked) == [0, 1, 2] and seconds > 0

    def fail(client: object, number: int) -> None:
        raise RuntimeError("no answer")

    with pytest.raises(RuntimeError, match="no answer"):
        ask_again_and_again("http://127.0.0.1:9/", 2, 3600, fail)


def test_generate_answers_files_alone_and_in_a_batch_alike(workloads, tiny, one_thread):
    generator = Generator(str(tiny), "float32", 3)
    for workload in workloads:
        batch = generator.answer(workload, [0, 1, 2])
        alone = [generator.answer(workload, [number])[0] for number in (0, 1)]
        assert [reply.file for reply in batch] == [0, 1, 0]
        for one, other in zip((*alone, alone[0]), batch, strict=True):
            assert (one.text, one.prompt_tokens) == (other.text, other.prompt_tokens)
        assert all(0 < reply.first_token < reply.seconds for reply in batch)


# The server's process.


def test_a_suspended_process_stops_and_goes_on():
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy:
        process = psutil.Process(busy.pid)
        with suspended(busy.pid):
            while process.status() != psutil.STATUS_STOPPED:
                time.sleep(0.01)
        while process.status() == psutil.STATUS_STOPPED:
            time.sleep(0.01)
        busy.kill()


def test_a_counter_is_summed_over_its_labels():
    text = '# HELP hits words\nhits{a="1"} 3.0\nhits{a="2"} 2e1\nhits_created{a="1"} 9.0\nplain 4.0\n'
    assert (metric_in(text, "hits"), metric_in(text, "plain"), metric_in(text, "none")) == (23, 4, 0)


def test_without_the_environment_a_sentence_says_how_to_make_it(tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.vllm_process.ENVIRONMENT", tmp_path)
    monkeypatch.setattr("benchmarks.generated_studies.SLICES", 2)
    monkeypatch.setattr(serving, "FILES", 1)
    with pytest.raises(SystemExit, match="run `make serving` first"):
        serving.main(["--json", str(tmp_path / "out.json"), "--soak", "1"])


# The soak.


def test_of_ten_requests_one_brings_a_bad_file_and_one_hangs_up():
    assert Counter(map(role_of, range(1000))) == {ASKS: 800, BAD_FILE: 100, HANGS_UP: 100}


def test_bad_files_are_bad_in_four_ways():
    bad = [number for number in range(40) if role_of(number) == BAD_FILE]
    requests = [bad_request(number, b"volume", 4) for number in bad]
    assert len({json.dumps(request) for request in requests}) == 4
    assert (
        requests[1]["messages"] == message("video_url", "data:application/octet-stream;base64,dm9s", 4, {})["messages"]
    )


def test_a_request_is_lost_unless_it_ends_as_it_should():
    tally = Tally()

    def refuse(status: int) -> str:
        raise RefusedError(status, "no")

    def break_off() -> str:
        raise OSError("gone")

    tally.note(ASKS, lambda: "CT", "CT")
    tally.note(ASKS, lambda: "MR", "CT")
    tally.note(BAD_FILE, lambda: refuse(400))
    tally.note(HANGS_UP, lambda: "")
    assert tally.done == {ASKS: 2, BAD_FILE: 1, HANGS_UP: 1} and tally.lost == []
    assert tally.differ == ["'MR' in place of 'CT'"]

    tally.note(BAD_FILE, lambda: refuse(500))
    tally.note(BAD_FILE, lambda: "CT")
    tally.note(ASKS, lambda: refuse(400), "CT")
    tally.note(HANGS_UP, break_off)
    assert tally.lost == [
        "bad file: 500: no",
        "bad file: it was answered",
        "asks: 400: no",
        "hangs up: OSError: gone",
    ]


@pytest.mark.slow
@pytest.mark.skipif(not (ENVIRONMENT / ".installed").exists(), reason="`make serving` was not run")
@pytest.mark.skipif(not (HUB_MODEL / "model.safetensors").exists(), reason="`make model` was not run")
def test_server_and_peers_answer_alike_and_no_request_is_lost(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("benchmarks.generated_studies.SLICES", 6)
    for name, value in (("FILES", 2), ("NEW_TOKENS", 4)):
        monkeypatch.setattr(serving, name, value)
    monkeypatch.setattr(serving_soak, "CLIENTS", 10)  # each asks at least once, so every role is played
    out = tmp_path / "serving.json"
    serving.main(["--json", str(out), "--clients", "2", "--rounds", "1", "--seconds", "1"])
    results = json.loads(out.read_text())
    assert len(results["rows"]) == 12
    assert all(row["same_answers"] == row["compared_answers"] > 0 for row in results["rows"])
    assert results["ratios"]["server_over_one_by_one"].keys() == {PICTURES, PRUNED, PRUNED_EARLY, UNPRUNED}
    assert results["cache_hits"]["media"] == 0

    serving.main(["--json", str(out), "--soak", "1"])
    results = json.loads(out.read_text())
    assert results["lost"] == [] and results["done"].keys() == {ASKS, BAD_FILE, HANGS_UP}
