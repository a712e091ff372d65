# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Serves the demo for tests: in a process of its own, as users start it, or in this one, where its insides are seen."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from demo.api import app_options
from demo.panels.page import build_page
from demo.service.assistant import Assistant
from demo.service.sessions import Sessions
from demo.service.studies import Studies
from tests.helpers.loopback import answers, free_port
from tests.helpers.paths import ROOT
from tests.helpers.waiting import PATIENCE, wait_until


@dataclass
class Served:
    """A demo of this process: where it is, and what it is made of."""

    address: str
    assistant: Assistant
    sessions: Sessions
    page: gr.Blocks


@contextmanager
def served_here(
    model: Path, folder: Path, queue: int = 64, largest_upload: int = 1 << 24, archives: Path | None = None
) -> Iterator[Served]:
    """The demo in a thread of this process, with its uploads in `folder`."""
    before = os.environ.get("GRADIO_TEMP_DIR")
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    sessions = Sessions()
    assistant = Assistant(str(model), is_present=sessions.is_open)
    page = build_page(assistant, sessions, archives and Studies(archives, largest_upload))
    try:
        _, address, _ = page.queue(max_size=queue).launch(
            server_name="127.0.0.1",
            server_port=free_port(),
            prevent_thread_lock=True,
            quiet=True,
            share=False,
            mcp_server=True,
            max_file_size=largest_upload,
            app_kwargs=app_options(largest_upload),
        )
        yield Served(address, assistant, sessions, page)
    finally:
        page.close()
        assistant.reader.close()
        sessions.close()
        os.environ.pop("GRADIO_TEMP_DIR")
        if before is not None:
            os.environ["GRADIO_TEMP_DIR"] = before


@contextmanager
def started(folder: Path, *command: str, **environment: str) -> Iterator[tuple[str, Path, subprocess.Popen]]:
    """A demo in a process of its own, without the internet: its address, the file with all that it prints, and it."""
    port, log = free_port(), folder / "log.txt"
    settings: dict[str, Any] = {"HF_HUB_OFFLINE": "1", "GRADIO_SERVER_PORT": str(port), "TMPDIR": str(folder)}
    settings |= {"GRADIO_SERVER_NAME": "127.0.0.1", "GRADIO_TEMP_DIR": str(folder / "uploads"), **environment}
    with open(log, "w") as output:
        process = subprocess.Popen(
            [sys.executable, *command], cwd=ROOT, env={**os.environ, **settings}, stdout=output, stderr=output
        )
    address = f"http://127.0.0.1:{port}/"
    try:
        wait_for(address, process, log)
        yield address, log, process
    finally:
        process.terminate()
        process.wait(timeout=PATIENCE)


def wait_for(address: str, process: subprocess.Popen, log: Path) -> None:
    """Returns when the page answers; fails with the demo's output when it does not."""
    try:
        wait_until(lambda: answers(address), process)
    except AssertionError as error:
        pytest.fail(f"The demo did not start. {error}\n{log.read_text()}")
