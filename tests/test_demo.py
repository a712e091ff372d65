# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Goes through the page as a visitor's browser does: the real app in a process of its own, without the internet."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError

from demo.page import WAITING, plain_turns

ROOT = Path(__file__).resolve().parents[1]
VOLUME = ROOT / "examples" / "media" / "ct_volume.nii.gz"
START_SECONDS = 240
"""Far more than the page needs, because other work may share the machine."""


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Address of the running app, and the file with all that it prints."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = tmp_path_factory.mktemp("demo")
    log = folder / "log.txt"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "GRADIO_SERVER_PORT": str(port)}
    environment |= {"GRADIO_SERVER_NAME": "127.0.0.1", "GRADIO_TEMP_DIR": str(folder / "uploads")}
    with open(log, "w") as output:
        process = subprocess.Popen([sys.executable, "app.py"], cwd=ROOT, env=environment, stdout=output, stderr=output)
    address = f"http://127.0.0.1:{port}/"
    try:
        wait_for(address, process, log)
        yield address, log
    finally:
        process.terminate()
        process.wait(timeout=30)


def wait_for(address: str, process: subprocess.Popen, log: Path) -> None:
    """Returns when the page answers; fails with the app's output when it does not."""
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        if process.poll() is not None:
            break
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except OSError:
            time.sleep(0.5)
    pytest.fail(f"The app did not start:\n{log.read_text()}")


@pytest.fixture(scope="module")
def page(app: tuple[str, Path]) -> Client:
    """A visitor; the session keeps what was loaded."""
    return Client(app[0], verbose=False)


def read(page: Client, *paths: Path, threshold: float = 0.1) -> tuple[Any, ...]:
    """Loads files; returns the viewer, the summary and the chat."""
    return page.predict([handle_file(path) for path in paths], threshold, api_name="/read")


def test_page_asks_no_other_server(app):
    html = urllib.request.urlopen(app[0], timeout=30).read().decode()
    loaded = re.findall(
        r"""(?:<(?:script|link|img)[^>]*(?:src|href)=|@import\s*|url\()["']?(https?://[^"')>\s]+)""", html
    )
    assert [url for url in loaded if not url.startswith(app[0])] == []
    assert "fonts.googleapis" not in html


def test_upload_overlay_and_streamed_answer(page):
    viewer, summary, chat = read(page, VOLUME)
    assert viewer["value"]["frames"] == 14
    assert viewer["value"]["sprite"].startswith("data:image/webp;base64,")
    assert viewer["value"]["positions"][0] == "0.0 mm"
    tokens = 14 * viewer["value"]["grid"][0] * viewer["value"]["grid"][1]
    kept = viewer["props"]["pruning"]["kept"]
    assert set(viewer) == {"value", "props", "__type__"}, "nothing of the server's objects is sent"
    assert len(kept) == tokens and set(kept) == {"0", "1"}
    assert re.search(rf"14 of 14 frames · {tokens} → \d+ tokens · .* worst error 0\.\d+ at threshold 0\.1", summary)
    assert "CT windows" in summary
    assert chat == []

    again, summary = page.predict(0.0, api_name="/prune")
    assert "sprite" not in str(again), "the slices are not sent again"
    assert again["props"]["pruning"]["kept"].count("1") > kept.count("1")
    assert "threshold 0" in summary

    job = page.submit("Which imaging modality is this?", [], api_name="/ask")
    updates = list(job)
    assert len(updates) > 3, "the answer comes in pieces"
    question, chat = updates[-1]
    assert question == ""
    assert [message["role"] for message in chat] == ["user", "assistant"]


def first_words(page: Client, question: str, history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Asks, stops as soon as a word has come, and returns the chat at that moment."""
    job = page.submit(question, history, api_name="/ask")
    for _, chat in job:
        if text(chat[-1]) != WAITING:
            job.cancel()
            return chat
    pytest.fail("The answer ended without a word.")


def text(message: dict[str, Any]) -> str:
    """The words of a message, which gradio keeps in parts."""
    content = message["content"]
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


def test_a_stopped_answer_makes_way_for_the_next_question(page):
    chat = first_words(page, "Describe everything you see.", [])
    followed = first_words(page, "And in one word?", chat)  # answers are made one at a time, so this one would wait
    assert [message["role"] for message in followed] == ["user", "assistant"] * 2


def test_a_wrong_file_gives_a_sentence_and_empties_the_page(page, app, tmp_path):
    (tmp_path / "DOE_JANE_secret.nii").write_text("This is no NIfTI file.\n" * 40)
    viewer, summary, chat = read(page, tmp_path / "DOE_JANE_secret.nii")
    assert viewer["value"] is None
    assert summary.startswith("**Not loaded:** DOE_JANE_secret.nii is not a known medical image")
    assert chat == []
    log = app[1].read_text()
    assert "DOE_JANE" not in log and "Traceback" not in log


def test_an_empty_question_gives_a_sentence(page):
    with pytest.raises(AppError, match="Write a question first"):
        page.predict("  ", [], api_name="/ask")


def test_questions_without_an_answer_are_left_out_of_the_next_prompt():
    part = [{"type": "text", "text": "One?"}]
    history = [{"role": "user", "content": part}, {"role": "assistant", "content": "Yes."}]
    stopped = [{"role": "user", "content": "Two?"}, {"role": "assistant", "content": WAITING}]
    assert plain_turns(history + stopped) == [{"role": "user", "content": "One?"}, history[1]]
