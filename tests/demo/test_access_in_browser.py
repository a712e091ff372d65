# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The page for everybody, in headless Chromium: axe-core's rules, the keyboard, a screen reader's news, thumbs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.helpers.demo_server import started
from tests.helpers.page_visits import CT, IN_CHROMIUM, LONG, chromium, expect, playwright, settings, upload, visit
from tests.helpers.paths import ROOT

pytestmark = IN_CHROMIUM
AXE = ROOT / "node_modules" / "axe-core" / "axe.min.js"
SMALLEST_TARGET = 28
"""Pixels; a thumb should hit it."""
CONTROLS = """() => {
    const all = document.querySelectorAll(
        ":is(a[href], button, input, select, textarea, summary, [tabindex='0'], [role=tab])");
    const seen = [...all].filter((each) => {
        const target = each.closest("label") ?? each, box = target.getBoundingClientRect();
        return target.checkVisibility({ visibilityProperty: true }) && !each.disabled
            && !each.closest("[aria-hidden=true]") && box.width > 0 && box.height > 0
            && box.right > 0 && box.left < innerWidth;
    });
    const groups = new Set(seen.filter(({ type, checked }) => type === "radio" && checked).map(({ name }) => name));
    window.controls = seen.filter((each) => each.type !== "radio" || each.checked || !groups.has(each.name));
    const words = (each) => each.ariaLabel || (each.closest("label") ?? each).textContent.trim() || each.outerHTML;
    return window.controls.map((each) => {
        const { width, height } = (each.closest("label") ?? each).getBoundingClientRect();
        return { name: `${each.tagName} ${words(each).slice(0, 120)}`, width, height };
    });
}"""
"""All controls that can be seen and used, of a group of radio buttons the chosen one, and the size of their targets."""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of the running demo."""
    with started(tmp_path_factory.mktemp("demo"), "-m", "demo") as (address, _, _):
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[playwright.Browser]:
    with chromium() as browser:
        yield browser


def ask(page: playwright.Page) -> None:
    """Loads a file and asks about it."""
    upload(page, CT)
    page.locator("#question textarea").fill("Which imaging modality is this?")
    page.locator("#question textarea").press("Enter")
    expect(page.locator("#chat .answer .sure")).to_contain_text("Confidence", timeout=LONG)


def violations(page: playwright.Page) -> list[str]:
    """What axe-core finds, each rule with the elements that break it."""
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found: list[dict[str, Any]] = page.evaluate("axe.run(document).then(({ violations }) => violations)")
    return [f"{each['id']}: {[node['target'] for node in each['nodes']]}" for each in found]


@pytest.mark.skipif(not AXE.exists(), reason="axe-core is not installed (npm ci)")
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", [(1440, 900), (390, 844)], ids=["desktop", "phone"])
def test_axe_finds_nothing_before_and_after_a_file_in_settings_and_on_the_second_page(browser, address, size, theme):
    with visit(browser, address, size, theme) as page:
        assert violations(page) == []
        ask(page)
        assert violations(page) == []
        settings(page)
        page.get_by_text("Rule, guard, budget, stage").click()
        assert violations(page) == []
        page.goto(f"{address}about?__theme={theme}")
        expect(page.get_by_role("heading", name="What to trust")).to_be_visible(timeout=LONG)
        assert violations(page) == []


@pytest.mark.parametrize("asked", [False, True], ids=["before a file", "after an answer"])
def test_the_tab_key_reaches_every_control(browser, address, asked):
    with visit(browser, address) as page:
        if asked:
            ask(page)
            page.locator("#viewer .more summary").click()
        names = [each["name"] for each in page.evaluate(CONTROLS)]
        reached: set[int] = set()
        page.evaluate("document.activeElement.blur()")
        for _ in range(2 * len(names) + 20):
            page.keyboard.press("Tab")
            reached.add(page.evaluate("window.controls.indexOf(document.activeElement)"))
        assert [name for place, name in enumerate(names) if place not in reached] == []


def test_an_answer_is_news_for_a_screen_reader_and_a_failure_an_alert(browser, address):
    with visit(browser, address) as page:
        ask(page)
        answer = page.locator("#chat .answer .said")
        assert answer.evaluate("said => said.closest('[aria-live=polite], [role=log]') !== null")
        page.evaluate("window.gradio_config.max_file_size = 1")
        page.locator("#files input[type=file]").set_input_files(CT)
        expect(page.get_by_role("alert").filter(has_text="Not uploaded")).to_be_visible()


def small_targets(page: playwright.Page) -> list[dict[str, Any]]:
    return [each for each in page.evaluate(CONTROLS) if min(each["width"], each["height"]) < SMALLEST_TARGET]


def test_on_a_phone_every_target_fits_a_thumb(browser, address):
    with visit(browser, address, (390, 844)) as page:
        assert small_targets(page) == []
        ask(page)
        page.locator("#viewer .more summary").click()
        assert small_targets(page) == []
        page.locator("#viewer .more summary").click()
        settings(page)
        page.get_by_text("Rule, guard, budget, stage").click()
        expect(page.get_by_label("keep all")).to_be_visible()
        assert small_targets(page) == []
