# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Captions by rejection sampling, against real servers on loopback that look at the pictures they are sent."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import yaml

from data_engine.caption import run
from data_engine.captioning.config import CaptionConfig, CaptionError, FolderSource, RecordsSource
from data_engine.captioning.items import list_items
from data_engine.records import read_jsonl
from hub_model.media_omniv_med import load_clip
from tests.helpers.chat_server import RELEASED
from tests.helpers.loopback import answers, free_port
from tests.helpers.paths import ROOT
from tests.helpers.waiting import PATIENCE, wait_until

LEVELS = (40, 90, 140)
"""Grey levels of the three videos."""
CANDIDATES = 2
REQUESTS = len(LEVELS) * CANDIDATES * 3
"""Of a whole run: each candidate is written once and judged twice."""


# What the tests are made of


def film(path: Path, level: int) -> Path:
    """Twelve frames of one grey level in 1.2 s."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        for _ in range(12):
            frame = np.full((48, 64, 3), level, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


class Server:
    """`tests/helpers/chat_server.py` in a process of its own."""

    def __init__(self, log: Path):
        self.log, self.port, self.process = log, 0, None

    def start(self, *options: Any) -> Server:
        """Starts it, on the port that it had before."""
        command = [sys.executable, "-m", "tests.helpers.chat_server", "--log", str(self.log)]
        command += ["--port", str(self.port), *map(str, options)]
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        self.port = int(self.process.stdout.readline())
        return self

    def stop(self) -> None:
        if self.process:
            self.process.kill()
            self.process.communicate()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def requests(self) -> list[dict[str, Any]]:
        """All that were answered so far."""
        return [json.loads(line) for line in self.log.read_text().splitlines()] if self.log.exists() else []


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path / "requests.jsonl")
    yield server
    server.stop()


@pytest.fixture(scope="session")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three videos."""
    folder = tmp_path_factory.mktemp("films")
    for number, level in enumerate(LEVELS):
        film(folder / f"{number}.mp4", level)
    return folder


@pytest.fixture
def configure(tmp_path: Path, server: Server, films: Path) -> Callable[..., Path]:
    """Writes a configuration for the server; keyword arguments replace its fields."""

    def write(**fields: Any) -> Path:
        values = {
            "generator": {
                "base_url": server.url,
                "model": "generator",
                "input_price": 1.0,
                "output_price": 10.0,
            },
            "judges": [{"base_url": server.url, "model": "strict"}, {"base_url": server.url, "model": "lenient"}],
            "sources": [
                {"kind": "folder", "path": str(films), "name": "films", "license": "CC0-1.0", "modality": "endoscopy"}
            ],
            "sampling": {"frames": 3},
            "candidates": CANDIDATES,
            "max_concurrent": 4,
            **fields,
        }
        path = tmp_path / "captions.yaml"
        path.write_text(yaml.safe_dump(values), encoding="utf-8")
        return path

    return write


def as_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


# Sources and configurations


def test_sources_that_clash_are_refused(tmp_path: Path, films: Path) -> None:
    source = FolderSource(kind="folder", path=films, name="films", license="CC0-1.0")
    assert [item.id for item in list_items([source])] == [f"films/{number}.mp4/caption" for number in range(3)]
    with pytest.raises(CaptionError, match="twice"):
        list_items([source, source])
    with pytest.raises(CaptionError, match="holds no videos"):
        list_items([source.model_copy(update={"path": tmp_path})])
    with pytest.raises(CaptionError, match="cannot be read"):
        list_items([RecordsSource(kind="records", path=tmp_path / "none.jsonl")])


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({"threshold": 7}, "threshold"),
        ({"candidate": 3}, "candidate"),
        ({"judges": []}, "judges"),
        ({"judges": [{"base_url": "http://a/v1", "model": "a"}] * 2}, "judges are the same model"),
        ({"generator": {"base_url": "localhost", "model": "a"}}, "generator.base_url"),
        ({"sources": [{"kind": "web", "path": "x"}]}, "sources"),
    ],
)
def test_a_wrong_configuration_is_told_with_the_field(
    configure: Callable[..., Path], fields: dict[str, Any], names: str
) -> None:
    with pytest.raises(CaptionError, match=names):
        CaptionConfig.read(configure(**fields))


def test_a_key_that_is_not_there_is_told_before_anything_is_sent(
    configure: Callable[..., Path], server: Server, tmp_path: Path
) -> None:
    server.start()
    generator = {"base_url": server.url, "model": "generator", "api_key_env": "CAPTION_TEST_KEY"}
    with pytest.raises(CaptionError, match="CAPTION_TEST_KEY"):
        run(configure(generator=generator), tmp_path / "out", None)
    assert server.requests == []


# Whole runs


def test_the_right_caption_of_each_video_is_kept(
    configure: Callable[..., Path], server: Server, tmp_path: Path
) -> None:
    server.start()
    out = tmp_path / "out"
    figures = run(configure(), out, None)
    records = list(read_jsonl(out / "captions.jsonl"))
    assert [record.id for record in records] == [f"films/{number}.mp4/caption" for number in range(3)]
    for record, level in zip(records, LEVELS, strict=True):
        claimed = re.fullmatch(r"Grey levels (\d+), (\d+), (\d+) at 0\.0 s, 0\.\d s, 1\.1 s\.", record.answer)
        assert all(abs(int(value) - level) < 4 for value in claimed.groups())
        assert (record.dimension, record.modality, record.task, record.split) == (
            "video",
            "endoscopy",
            "report generation and captioning",
            "train",
        )
        assert load_clip(out / record.media[0].path).kind == "video"

    # Candidate 0 is 60 grey levels wrong, candidate 1 is right.
    for row in rows(out / "decisions.jsonl"):
        assert row["chosen"] == 1
        assert [one["score"] for one in row["candidates"]] == [pytest.approx((5 + 5 + 1 + 5 + 5 + 2) / 6), 5.0]
        assert row["candidates"][0]["verdicts"][0]["accuracy"] == {"score": 1, "reason": "It is worth 1."}

    assert figures == as_json(out / "statistics.json")
    assert (figures["accepted"], figures["rejected"], figures["failed"], figures["acceptance"]) == (3, 0, 0, 1.0)
    assert figures["judges"]["lenient"] == {
        "asked": 6,
        "asked_again": 0,
        "failed": 0,
        "mean_scores": {"relevance": 5.0, "fluency": 5.0, "accuracy": 3.5},
    }
    assert figures["agreement"]["strict / lenient"]["accuracy"]["exact"] == 0.5
    # Three pairs each of (1, 2) and (5, 5): observed distance 1/2, by chance (1 + 16 + 9 + 0) / 4.
    kappa = figures["agreement"]["strict / lenient"]["accuracy"]["weighted_kappa"]
    assert kappa == pytest.approx(1 - 0.5 / 6.5, abs=1e-4)
    assert figures["agreement"]["strict / lenient"]["fluency"] == {"scored": 6, "exact": 1.0, "weighted_kappa": None}
    spent = figures["spent"]
    assert (spent["requests"], spent["uncounted"]) == (REQUESTS, 0)
    assert (spent["input_tokens"], spent["output_tokens"]) == (REQUESTS * 350, REQUESTS * 20)
    assert spent["cost"] == pytest.approx(6 * (350 * 1 + 20 * 10) / 1e6)  # only the generator has prices

    assert all(one["pictures"] == 3 and one["sizes"] == [[64, 48]] * 3 for one in server.requests)
    assert all(one["places"][0] == "Frame 1 of 3, at 0.0 s:" for one in server.requests)
    assert sorted({one["seed"] for one in server.requests if one["model"] == "generator"}) == [0, 1]
    assert 1 < max(one["in_flight"] for one in server.requests) <= 4


def test_another_threshold_costs_nothing(configure: Callable[..., Path], server: Server, tmp_path: Path) -> None:
    server.start()
    out, wrong_only = tmp_path / "out", {"candidates": 1}  # the first candidate scores 3.83
    assert run(configure(**wrong_only, threshold=3.8), out, None)["accepted"] == 3
    before = (out / "ledger.jsonl").read_bytes()
    assert run(configure(**wrong_only, threshold=3.9), out, None)["rejected"] == 3
    assert (out / "captions.jsonl").read_text() == ""
    assert (out / "ledger.jsonl").read_bytes() == before
    assert len(server.requests) == 9
    run(configure(**wrong_only, seed=1), out, None)
    assert len(server.requests) == 18


def test_a_judge_without_eyes_gets_the_facts_and_no_pictures(
    configure: Callable[..., Path], server: Server, tmp_path: Path
) -> None:
    server.start()
    judges = [{"base_url": server.url, "model": "text-only", "sees_media": False}]
    figures = run(configure(judges=judges), tmp_path / "out", 1)
    seen = {one["model"]: one["pictures"] for one in server.requests}
    assert seen == {"generator": 3, "text-only": 0}
    assert figures["judges"]["text-only"]["mean_scores"]["relevance"] == 5.0  # it is 4 where the modality is not told
    assert (figures["items"], figures["agreement"]) == (1, {})


def test_equal_files_and_equal_captions_are_paid_once(
    configure: Callable[..., Path], server: Server, films: Path, tmp_path: Path
) -> None:
    server.start()
    twins = tmp_path / "twins"
    twins.mkdir()
    for name in "ab":
        (twins / f"{name}.mp4").write_bytes((films / "0.mp4").read_bytes())
    sources = [{"kind": "folder", "path": str(twins), "name": "twins", "license": "CC0-1.0", "modality": "endoscopy"}]
    # The server's candidates 0 and 4 are the same words, so four judgements are enough for two of each.
    figures = run(configure(sources=sources, candidates=5), tmp_path / "out", None)
    assert figures["accepted"] == 2
    assert Counter(one["model"] for one in server.requests) == {"generator": 5, "strict": 4, "lenient": 4}


# Trouble


def test_refusals_and_crashes_of_a_server_are_waited_out(
    configure: Callable[..., Path], server: Server, tmp_path: Path
) -> None:
    server.start("--fail", 429, 500, 503, 408)
    figures = run(configure(), tmp_path / "out", None)
    assert (figures["accepted"], figures["spent"]["requests"]) == (3, REQUESTS)
    statuses = Counter(one["status"] for one in server.requests)
    assert statuses == {200: REQUESTS, 429: 1, 500: 1, 503: 1, 408: 1}


def test_a_judgement_is_repaired_once(configure: Callable[..., Path], server: Server, tmp_path: Path) -> None:
    server.start("--garble", 1)
    figures = run(configure(max_concurrent=1), tmp_path / "out", 1)
    assert figures["judges"]["strict"] | {"mean_scores": None} == {
        "asked": 2,
        "asked_again": 1,
        "failed": 0,
        "mean_scores": None,
    }
    assert [row["role"] for row in rows(tmp_path / "out" / "ledger.jsonl")].count("repair") == 1
    assert figures["accepted"] == 1


def test_a_judgement_that_stays_broken_counts_as_failed(
    configure: Callable[..., Path], server: Server, tmp_path: Path
) -> None:
    server.start("--garble", 100)
    out = tmp_path / "out"
    figures = run(configure(candidates=1), out, 1)
    assert (figures["accepted"], figures["rejected"]) == (0, 1)
    assert figures["candidates"] == {"asked for": 1, "without a caption": 0, "without a score": 1}
    assert [figures["judges"][judge]["failed"] for judge in ("strict", "lenient")] == [1, 1]
    verdict = rows(out / "decisions.jsonl")[0]["candidates"][0]["verdicts"][0]
    assert "fluency.score" in verdict["failed"]
    assert len(server.requests) == 5  # one caption, and two tries of each judge, never a third
    run(configure(candidates=1), out, 1)
    assert len(server.requests) == 5


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (400, "generator answered HTTP 400."),
        (200, "{url} did not answer with a chat completion; check base_url."),
    ],
)
def test_a_request_without_a_proper_answer_fails_its_item_only(
    configure: Callable[..., Path], server: Server, tmp_path: Path, status: int, reason: str
) -> None:
    server.start("--fail", status)
    out = tmp_path / "out"
    figures = run(configure(max_concurrent=1), out, None)
    assert (figures["accepted"], figures["failed"]) == (2, 1)
    # The server quotes what it was sent; the error does not.
    reason = f"films/0.mp4/caption: {reason.format(url=server.url)}"
    assert figures["failures"] == {"films/0.mp4/caption": reason}
    figures = run(configure(max_concurrent=1), out, None)
    assert (figures["accepted"], figures["failed"], figures["spent"]["requests"]) == (3, 0, REQUESTS)


@pytest.mark.parametrize(
    ("options", "fields", "names"),
    [
        (("--key", "secret"), {}, "refuses the key"),
        (("--fail", 404), {"max_concurrent": 1}, "no model generator"),
        (("--fail", *[429] * 9), {"max_retries": 0}, "429"),
        (("--die-after", 0), {"max_retries": 1}, "cannot be reached"),
    ],
)
def test_what_would_fail_every_request_ends_the_run(
    configure: Callable[..., Path], server: Server, tmp_path: Path, options: tuple, fields: dict, names: str
) -> None:
    server.start(*options)
    with pytest.raises(CaptionError, match=names):
        run(configure(**fields), tmp_path / "out", None)
    assert as_json(tmp_path / "out" / "statistics.json")["accepted"] == 0


def test_a_file_that_is_no_video_fails_its_item_only(
    configure: Callable[..., Path], server: Server, films: Path, tmp_path: Path
) -> None:
    server.start()
    folder = tmp_path / "mixed"
    folder.mkdir()
    (folder / "good.mp4").write_bytes((films / "0.mp4").read_bytes())
    (folder / "bad.mp4").write_bytes(b"Jane Doe, born 1950" * 100)
    sources = [{"kind": "folder", "path": str(folder), "name": "mixed", "license": "CC0-1.0"}]
    figures = run(configure(sources=sources), tmp_path / "out", None)
    assert (figures["accepted"], list(figures["failures"])) == (1, ["mixed/bad.mp4/caption"])
    assert "Jane" not in json.dumps(figures)


def test_a_server_that_dies_and_comes_back_is_survived(
    configure: Callable[..., Path], server: Server, tmp_path: Path
) -> None:
    server.start("--die-after", 6)
    config, dead = configure(max_retries=1000), server.process

    def bring_back() -> None:
        dead.wait()
        server.start()

    helper = threading.Thread(target=bring_back)
    helper.start()
    try:
        figures = run(config, tmp_path / "out", None)
    finally:
        helper.join()
    assert dead.returncode == 1
    assert (figures["accepted"], figures["failed"], figures["spent"]["requests"]) == (3, 0, REQUESTS)


def command(config: Path, out: Path) -> subprocess.Popen[str]:
    """The command as a user gives it who has told the openai library to log everything."""
    arguments = [sys.executable, "-m", "data_engine.caption", "--config", str(config), "--out", str(out)]
    environment = {**os.environ, "OPENAI_LOG": "debug"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(arguments, cwd=ROOT, env=environment, text=True, **pipes)


def lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_killed_run_goes_on_without_paying_twice(
    configure: Callable[..., Path], server: Server, tmp_path: Path
) -> None:
    held = tmp_path / "held"
    held.mkdir()
    server.start("--hold", held, "--hold-from", 5)
    config, out = configure(max_concurrent=2), tmp_path / "out"
    killed = command(config, out)
    wait_until(lambda: lines(out / "ledger.jsonl") == 5 and files(held) == {"5", "6"}, killed)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert not (out / "statistics.json").exists()
    (held / RELEASED).touch()  # the server ends what it had begun
    wait_until(lambda: len(server.requests) == 7)
    paid, answered = lines(out / "ledger.jsonl"), server.requests
    assert paid == 5  # those in flight are the only loss

    words, errors = command(config, out).communicate(timeout=PATIENCE)
    assert "3 of 3 items have a caption" in words and "18 requests, 6,300 + 360 tokens" in words, errors
    assert re.search(r"accepted=100%.*tokens=[\d,]+.*cost=0\.00.*agree=\d+%", errors)
    assert "Grey" not in words + errors and "base64" not in errors  # neither captions nor pictures
    again = server.requests[len(answered) :]
    assert len(again) == REQUESTS - paid
    repeated = Counter(one["hash"] for one in again) & Counter(one["hash"] for one in answered)
    assert repeated.total() == len(answered) - paid
    # A run that was never killed writes the same.
    run(config, tmp_path / "other", None)
    for name in ("captions.jsonl", "decisions.jsonl"):
        assert (out / name).read_bytes() == (tmp_path / "other" / name).read_bytes()


def test_ctrl_c_waits_for_what_is_paid_for(configure: Callable[..., Path], server: Server, tmp_path: Path) -> None:
    held = tmp_path / "held"
    held.mkdir()
    server.start("--hold", held, "--hold-from", 3)
    config, out = configure(max_concurrent=3), tmp_path / "out"
    stopped = command(config, out)
    wait_until(lambda: lines(out / "ledger.jsonl") == 3 and files(held) == {"3", "4", "5"}, stopped)
    stopped.send_signal(signal.SIGINT)
    (held / RELEASED).touch()
    _, errors = stopped.communicate(timeout=PATIENCE)
    assert stopped.returncode == 1
    assert errors.strip().endswith("Stopped; the same command goes on from here.")
    assert len(server.requests) == (out / "ledger.jsonl").read_bytes().count(b"\n") < REQUESTS


# A real model


@pytest.mark.slow
def test_transformers_serve_captions_real_frames(tmp_path: Path) -> None:
    """The Nano writes what it can; as a judge it is too small, and that must come out as failed judgements."""
    model = str(ROOT / "hub_model")
    port = free_port()
    arguments = [str(Path(sys.executable).parent / "transformers"), "serve", "--trust-remote-code"]
    arguments += ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu", model]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    with (tmp_path / "serve.log").open("w") as log:
        serve = subprocess.Popen(arguments, env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        wait_until(lambda: answers(f"http://127.0.0.1:{port}/health"), serve)
        endpoint = {"base_url": f"http://127.0.0.1:{port}/v1", "model": model, "max_tokens": 120}
        values = {
            "generator": endpoint,
            "judges": [endpoint],
            "sources": [
                {
                    "kind": "folder",
                    "path": str(ROOT / "examples" / "media"),
                    "name": "examples",
                    "license": "Apache-2.0",
                }
            ],
            "candidates": 1,
            "max_concurrent": 1,
            "timeout": PATIENCE,
            "max_retries": 1,
        }
        config = tmp_path / "captions.yaml"
        for frames in (1, 3):
            config.write_text(yaml.safe_dump(values | {"sampling": {"frames": frames}}), encoding="utf-8")
            figures = run(config, tmp_path / "out", 1)
            assert figures["failed"] == 0, figures["failures"]
            assert figures["accepted"] + figures["rejected"] == 1
            # A caption that does not come to an end is not judged.
            assert figures["judges"][model]["asked"] + figures["candidates"]["without a caption"] == 1
    finally:
        serve.kill()
        serve.wait()
    one, three = [row for row in rows(tmp_path / "out" / "ledger.jsonl") if row["role"] == "generator"]
    assert one["answer"].strip() and 0 < one["output_tokens"] <= 120
    # The pictures reached the model: more of them are more tokens than the words beside them ("Frame 1 of 3, ...").
    assert three["input_tokens"] - one["input_tokens"] > 2 * 16
