# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Visits the page in headless Chromium. OMNIV_MED_SCREENSHOTS names a folder for pictures of what a visitor sees."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks.chromium import FLAGS, TO_INSTALL, chromium_path
from demo.service.measured import EVIDENCE, METRICS, MODEL
from tests.helpers.paths import ROOT

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = playwright.expect
CHROMIUM = chromium_path()
SHORT, LONG = 60_000, 240_000
"""Milliseconds for what takes one, and for what computes; other work may share the machine."""
CT, XRAY = (ROOT / "examples" / "media" / name for name in ("ct_volume.nii.gz", "xray.png"))
WINDOWS = [(1440, 900), (1280, 720), (390, 844)]
"""Sizes of a desktop's, a laptop's and a phone's window."""
IN_CHROMIUM = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason=TO_INSTALL),
]
"""The marks of all tests that visit the page."""
expect.set_options(timeout=SHORT)


@contextmanager
def chromium() -> Iterator[playwright.Browser]:
    """A browser without a window."""
    with playwright.sync_playwright() as tools:
        browser = tools.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


def nano(folder: Path, shows_findings: bool = True) -> Path:
    """The Nano as if its evidence had been measured to lie on findings, or not: links to its files in `folder`."""
    folder.mkdir()
    for file in (ROOT / "hub_model").iterdir():
        if file.is_file() and file.name != EVIDENCE:
            (folder / file.name).symlink_to(file)
    model = json.loads((folder / METRICS).read_text(encoding="utf-8"))[MODEL]
    kinds = ["image", "volume", "video"] if shows_findings else []
    evidence = {MODEL: model, "sets": {}, "shows_findings": kinds}
    (folder / EVIDENCE).write_text(json.dumps(evidence), encoding="utf-8")
    return folder


@contextmanager
def visit(
    browser: playwright.Browser, address: str, size: tuple[int, int] = (1360, 900), theme: str = "light", view: str = ""
) -> Iterator[playwright.Page]:
    """A visitor's page; errors of our JavaScript and requests to other servers fail the test."""
    width, height = size
    context = browser.new_context(viewport={"width": width, "height": height}, has_touch=width < 500)
    page = context.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda request: problems.append(request.url) if is_elsewhere(request.url, address) else None)
    page.set_default_timeout(LONG)
    page.goto(f"{address}?__theme={theme}{view}")
    expect(page.locator("#samples .card").first).to_be_attached(timeout=LONG)
    expect(page.locator("#question textarea")).to_be_visible(timeout=LONG)
    page.set_default_timeout(SHORT)
    yield page
    context.close()
    assert problems == []


def is_elsewhere(url: str, address: str) -> bool:
    return not url.startswith((address, "data:", "blob:"))


def upload(page: playwright.Page, *paths: Path) -> None:
    """Chooses files in the box, and waits until the viewer shows one."""
    page.locator("#files input[type=file]").set_input_files(list(paths))
    expect(page.locator("#viewer .stage")).to_be_visible(timeout=LONG)


def settings(page: playwright.Page) -> None:
    """Opens the drawer."""
    page.get_by_role("button", name="Settings", exact=True).click()
    expect(page.get_by_role("spinbutton", name="Pruning threshold")).to_be_in_viewport()


def screenshot(page: playwright.Page, name: str) -> None:
    """Keeps a picture of the page, if OMNIV_MED_SCREENSHOTS names a folder for them."""
    folder = os.environ.get("OMNIV_MED_SCREENSHOTS")
    if folder:
        page.wait_for_timeout(800)
        page.screenshot(path=Path(folder) / f"page_{name}.png")
