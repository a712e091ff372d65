# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Talks with the page in headless Chromium: upload, ask, follow up, stop, edit, retry, compare, download, leave.

OMNIV_MED_SCREENSHOTS names a folder for a picture of each state.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.demo_server import started
from tests.helpers.page_visits import IN_CHROMIUM, chromium, nano, playwright
from tests.helpers.paths import ROOT

VOLUME = ROOT / "examples" / "media" / "ct_volume.nii.gz"
PICTURE = ROOT / "examples" / "media" / "xray.png"
PATIENCE = 240_000
"""Milliseconds; the machine may be busy with other work."""
pytestmark = IN_CHROMIUM


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Address and temporary folder of the demo with the Nano."""
    folder = tmp_path_factory.mktemp("demo")
    with started(folder, "-m", "demo", "--model", str(nano(folder / "hub_model"))) as (address, _, _):
        yield address, folder


@pytest.fixture(scope="module")
def browser() -> Iterator[playwright.Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def page(browser: playwright.Browser, demo: tuple[str, Path]) -> Iterator[playwright.Page]:
    """The page as a new visitor sees it; whatever it reports as an error fails the test."""
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    page.set_default_timeout(PATIENCE)
    failures: list[str] = []
    page.on("pageerror", lambda error: failures.append(str(error)))
    page.goto(demo[0])
    page.locator("#question textarea").wait_for()
    yield page
    page.close()
    assert failures == []


def picture(page: playwright.Page, name: str, full: bool = True) -> None:
    folder = os.environ.get("OMNIV_MED_SCREENSHOTS")
    if folder:
        page.wait_for_timeout(500)
        page.screenshot(path=Path(folder) / f"chat_{name}.png", full_page=full)


def load(page: playwright.Page, path: Path, number: int) -> None:
    """Uploads a file and waits until it is there."""
    page.locator("#files input[type=file]").set_input_files(path)
    page.get_by_role("radio", name=re.compile(f"File {number}: ")).wait_for()


def ask(page: playwright.Page, question: str) -> None:
    page.locator("#question textarea").fill(question)
    page.locator("#question textarea").press("Enter")


def answered(page: playwright.Page, count: int) -> str:
    """Waits for the answer number `count` to be complete; returns its figures."""
    page.wait_for_function(
        """(count) => {
            const answers = document.querySelectorAll("#chat .answer .sure");
            const figures = document.querySelector("#status")?.textContent ?? "";
            return answers.length === count && /tokens in/.test(figures) && !/…|stopped/.test(figures);
        }""",
        arg=count,
    )
    page.wait_for_timeout(300)
    return page.locator("#status").inner_text()


def words(page: playwright.Page) -> list[str]:
    """All messages of the chat."""
    return page.locator("#chat .message").all_inner_texts()


def number(figures: str, pattern: str) -> float:
    return float(re.search(pattern, figures)[1])


def test_upload_ask_follow_up_compare_and_download(page, demo):
    load(page, VOLUME, 1)
    page.locator("#suggestions").get_by_text("In which plane is this volume?").wait_for()
    picture(page, "loaded")
    page.locator("#suggestions").get_by_text("Which imaging modality is this?").click()
    first = answered(page, 1)
    picture(page, "answer")
    ask(page, "Which part of the body is shown?")
    second = answered(page, 2)
    assert number(second, r"(\d+) computed before") > 0.8 * number(first, r"prompt of (\d+)")
    picture(page, "follow_up")

    ask(page, "Is there a lesion?")
    answered(page, 3)
    card = page.locator("#chat .answer").last
    card.get_by_role("button", name="Compare").click()
    card.get_by_text("All tokens").wait_for()
    page.wait_for_function("document.querySelectorAll('#chat .answer .row .sure').length === 2")
    pruned, unpruned = (number(row.inner_text(), r"(\d+) visual tokens") for row in card.locator(".row").all())
    assert pruned < unpruned
    picture(page, "compare")

    with page.expect_download() as download:
        page.get_by_role("button", name="Save as JSON").click()
    saved = json.loads(Path(download.value.path()).read_text())
    assert download.value.suggested_filename == "conversation.json"
    assert len(saved["conversation"]) == 3 and set(saved["conversation"][2]["answers"]) == {"pruned", "unpruned"}
    with page.expect_download() as download:
        page.get_by_role("button", name="Save as Markdown").click()
    markdown = Path(download.value.path()).read_text()
    assert "## Is there a lesion?" in markdown and str(demo[1]) not in markdown + json.dumps(saved)


def test_stop_retry_edit_undo_and_new_conversation(page):
    ask(page, "What is computed tomography used for? Explain in many words.")
    page.wait_for_function("(document.querySelector('#chat .message.bot')?.textContent ?? '').length > 30")
    page.get_by_role("button", name="Stop", exact=True).click()
    page.locator("#chat").get_by_text("(stopped)").wait_for()
    stopped = words(page)[-1]
    picture(page, "stopped")
    page.wait_for_timeout(1500)
    assert words(page)[-1] == stopped, "no word comes after a stop"

    page.locator("#chat").get_by_role("button", name="Retry").last.click()
    page.wait_for_function("!document.querySelector('#chat').textContent.includes('(stopped)')")
    page.wait_for_function("(document.querySelector('#chat .message.bot')?.textContent ?? '').length > 30")
    page.get_by_role("button", name="Stop", exact=True).click()
    page.locator("#chat").get_by_text("(stopped)").wait_for()

    page.locator("#chat .message.user").first.hover()
    page.locator("#chat").get_by_role("button", name="Edit").first.click()
    page.locator("#chat textarea").first.fill("Say hello.")
    page.locator("#chat").get_by_role("button", name="Submit").first.click()
    answered(page, 1)
    assert "Say hello." in words(page)[0]
    picture(page, "edited")

    page.locator("#chat").get_by_role("button", name="Undo").last.click()
    page.wait_for_function("document.querySelector('#question textarea').value === 'Say hello.'")
    assert words(page) == []
    ask(page, "Say hello.")
    answered(page, 1)
    page.get_by_role("button", name="New conversation").click()
    page.wait_for_function("document.querySelectorAll('#chat .message').length === 0")


def test_several_files_a_wrong_file_and_what_a_visitor_leaves(page, demo, tmp_path):
    load(page, VOLUME, 1)
    load(page, PICTURE, 2)
    ask(page, "Which imaging modality is this?")
    answered(page, 1)
    assert "File 1: volume, 14 slices · File 2: image" in words(page)[0]
    page.get_by_role("radio", name=re.compile("File 1")).check(force=True)
    page.locator("#suggestions").get_by_text("In which plane is this volume?").wait_for()
    (tmp_path / "DOE_JANE.nii").write_text("This is no NIfTI file.\n" * 40)
    page.locator("#files input[type=file]").set_input_files(tmp_path / "DOE_JANE.nii")
    page.get_by_text("not a known medical image").first.wait_for()
    load(page, PICTURE, 3)
    page.get_by_role("button", name="Remove File 3: image").click(force=True)
    page.get_by_role("radio", name=re.compile("File 3")).wait_for(state="detached")
    picture(page, "two_files")

    (sessions,) = demo[1].glob("omniv_med_sessions_*")
    assert len(list(sessions.rglob("file*"))) == 2
    page.goto("about:blank")
    deadline = time.monotonic() + 30
    while list(sessions.rglob("file*")) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not list(sessions.rglob("file*")), "files are deleted when the page is closed"


def test_an_example_brings_its_question_and_the_answer_shows_where_it_looked(page):
    page.locator("#samples .card", has_text="MR head").click()
    page.get_by_role("radio", name=re.compile("File 1: volume")).wait_for()
    page.wait_for_function("document.querySelector('#question textarea').value === 'Which part of the body is shown?'")
    page.get_by_role("button", name="Ask", exact=True).click()
    page.locator("#chat .message.user", has_text="Which part of the body is shown?").wait_for()
    answered(page, 1)
    picture(page, "example", full=False)
    page.get_by_role("button", name="Where did it look?").click()
    page.locator("#viewer [value=weight]:checked").wait_for(state="attached")
    picture(page, "evidence")


def test_a_question_appears_at_once_and_a_file_that_comes_meanwhile_joins_the_next_one(page):
    load(page, VOLUME, 1)
    ask(page, "Which part of the body is shown?")
    page.locator("#chat .message.user", has_text="Which part of the body").wait_for()
    load(page, PICTURE, 2)
    ask(page, "Which imaging modality is this?")
    page.locator("#chat .message.user", has_text="Which imaging modality").wait_for()
    answered(page, 2)
    shown = "\n".join(words(page))
    assert "File 1: volume, 14 slices · File 2" not in shown
    assert shown.index("Which part of the body") < shown.index("File 2: image") < shown.index("Which imaging modality")


def test_a_question_that_waits_is_shown_with_its_place_in_line(browser, page, demo):
    other = browser.new_page()
    other.set_default_timeout(PATIENCE)
    other.goto(demo[0])
    other.locator("#question textarea").wait_for()
    ask(page, "What is computed tomography used for? Explain in many words.")
    page.wait_for_function("(document.querySelector('#chat .message.bot')?.textContent ?? '').length > 1")
    other.locator("#question textarea").fill("Say hello.")
    other.locator("#question textarea").press("Enter")
    other.locator("#chat .message.user", has_text="Say hello.").wait_for()
    other.locator("#status", has_text="2nd in line").wait_for()
    page.get_by_role("button", name="Stop", exact=True).click()
    answered(other, 1)
    other.close()
