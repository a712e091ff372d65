# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The viewing half of the page in headless Chromium: what a visitor sees, scrolls, drags and types."""

from __future__ import annotations

import base64
import io
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from transformers import AutoProcessor

from hub_model.media_omniv_med import load_clip
from tests.helpers.demo_server import started
from tests.helpers.paths import ROOT

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = playwright.expect
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-sync"]
SHORT, LONG = 20_000, 120_000
"""Milliseconds for what takes one, and for what computes; other work may share the machine."""
CT, XRAY = (ROOT / "examples" / "media" / name for name in ("ct_volume.nii.gz", "xray.png"))

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed (apt-get install -y chromium)"),
]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of the running demo."""
    with started(tmp_path_factory.mktemp("demo"), "-m", "demo") as (address, _, _):
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[playwright.Browser]:
    with playwright.sync_playwright() as tools:
        chromium = tools.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: playwright.Browser, address: str) -> Iterator[playwright.Page]:
    """A visitor's page; errors of our JavaScript and requests to other servers fail the test."""
    context = browser.new_context(viewport={"width": 1360, "height": 1000})
    page = context.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda request: problems.append(request.url) if is_elsewhere(request.url, address) else None)
    page.goto(address)
    page.set_default_timeout(SHORT)
    expect(page.locator("#viewer .hint")).to_be_visible(timeout=LONG)
    yield page
    context.close()
    assert problems == []


@pytest.fixture(scope="module")
def processed_ct() -> Any:
    """The CT as the demo prunes it at first."""
    processor = AutoProcessor.from_pretrained(str(ROOT / "hub_model"), trust_remote_code=True)
    return processor.process_clip(load_clip(CT))


def is_elsewhere(url: str, address: str) -> bool:
    return not url.startswith((address, "data:", "blob:"))


def upload(page: playwright.Page, path: Path) -> None:
    page.locator("#files input[type=file]").set_input_files(path)
    expect(page.locator("#viewer .stage")).to_be_visible(timeout=LONG)


def picture(page: playwright.Page, canvas: str = "picture") -> str:
    """What a canvas of the viewer holds, to compare."""
    return page.locator(f"#viewer canvas.{canvas}").evaluate("canvas => canvas.toDataURL()")


def seen(page: playwright.Page) -> bytes:
    """What a visitor sees of the slice, to compare."""
    return page.locator("#viewer .stage").screenshot()


def position(page: playwright.Page) -> int:
    words = page.locator("#viewer output").inner_text()
    return int(re.search(r"(?:Slice|Frame) (\d+) of", words)[1])


def mode(page: playwright.Page, name: str) -> None:
    page.locator("#viewer .modes").get_by_text(name, exact=True).click()


def test_a_visitor_goes_through_the_slices(page):
    upload(page, CT)
    expect(page.locator("#viewer output")).to_contain_text("of 14")
    start, before = position(page), picture(page)
    stage = page.locator("#viewer .stage")
    stage.hover()
    page.mouse.wheel(0, 100)
    page.wait_for_function(
        "before => document.querySelector('#viewer output').innerText.includes(before)", arg=f"{start + 1} of"
    )
    assert picture(page) != before
    stage.focus()
    for key, place in (("Home", 1), ("ArrowRight", 2), ("End", 14), ("ArrowUp", 13)):
        page.keyboard.press(key)
        assert position(page) == place
    page.locator("#viewer input.slice").fill("4")
    assert position(page) == 5
    strip = page.locator("#viewer input.slice")
    box = strip.bounding_box()
    strip.click(position={"x": box["width"] * 13.5 / 14, "y": 10})
    assert position(page) == 14, "a click on a small picture shows its slice"
    strip.click(position={"x": 3, "y": 10})
    assert position(page) == 1
    page.keyboard.press("ArrowRight")
    assert position(page) == 2, "and the strip has keys, too"
    page.keyboard.press("Home")
    label = page.locator("#viewer canvas.picture").get_attribute("aria-label")
    assert re.fullmatch(r"Slice 1 of 14 · 0\.0 mm · 16 of 16 tokens kept", label)
    page.get_by_role("button", name="Play").click()
    page.wait_for_function("!document.querySelector('#viewer output').innerText.includes('Slice 1 of')")
    bars = page.locator("#kept_chart .barlayer .point path")
    expect(bars.first).to_be_visible(timeout=SHORT)
    page.get_by_role("button", name="Play").click()
    bars.nth(9).hover(force=True)
    page.wait_for_timeout(200)  # the chart finds the bar under the pointer a little later
    bars.nth(9).click(force=True)
    expect(page.locator("#viewer output")).to_contain_text("Slice 10 of 14")


def test_settings_change_the_numbers_and_the_picture_without_reading_again(page):
    upload(page, CT)
    numbers, veil = page.locator("#numbers"), picture(page, "overlay")
    before = numbers.inner_text()
    uploads = []
    page.on("request", lambda request: uploads.append(request.url) if "upload" in request.url else None)
    threshold = page.get_by_role("spinbutton", name="Pruning threshold")
    threshold.fill("0.25")
    threshold.press("Enter")
    expect(numbers).not_to_have_text(before)
    expect(numbers).to_contain_text("at threshold 0.25")
    page.get_by_text("Rule, guard, budget, stage").click()
    page.get_by_label("keep all").check()
    expect(numbers).to_contain_text("nothing is removed")
    expect(page.locator("#viewer output")).to_contain_text("16 of 16 tokens kept")
    page.wait_for_function(
        "before => document.querySelector('#viewer canvas.overlay').toDataURL() !== before", arg=veil
    )
    page.get_by_label("last kept token (ours)").check()
    page.get_by_label("number of tokens").check()
    expect(numbers).to_contain_text(re.compile(r"224 → \d+"))
    encoder = numbers.locator(".tile", has_text="Encoder compute").inner_text()
    page.get_by_label("encoder too").check()
    expect(numbers.locator(".tile", has_text="Encoder compute")).not_to_have_text(encoder)
    assert uploads == []


def test_the_wipe_and_the_heatmap(page):
    upload(page, CT)
    mode(page, "Plain")
    plain = seen(page)
    mode(page, "Reconstruction")
    expect(page.get_by_text("this is all the language model receives")).to_be_visible()
    expect(page.locator("#viewer label.opacity")).to_be_hidden()
    half, slice_before = seen(page), position(page)
    box = page.locator("#viewer .stage").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 50)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 4, box["y"] + 50, steps=4)
    page.mouse.up()
    assert float(page.locator("[name=wipe]").input_value()) == pytest.approx(25, abs=1)
    quarter = seen(page)
    assert len({plain, half, quarter}) == 3
    page.keyboard.press("ArrowRight")
    assert float(page.locator("[name=wipe]").input_value()) > 25 and position(page) == slice_before
    mode(page, "Score heatmap")
    expect(page.locator("#viewer .legend")).to_contain_text("threshold")
    expect(page.locator("#viewer .in-wipe").first).to_be_hidden()
    strong = seen(page)
    page.locator("#viewer .opacity input").fill("10")
    weak = seen(page)
    assert weak != strong
    page.locator("#viewer [name=brightness]").fill("200")
    assert seen(page) != weak
    page.locator("#viewer [name=brightness]").fill("100")
    mode(page, "Plain")
    assert seen(page) == plain


def test_the_reconstruction_is_what_the_processor_reconstructs(page, processed_ct):
    """The browser puts it together of the encoder's slices; Python does so in another way."""
    upload(page, CT)
    mode(page, "Reconstruction")
    page.locator("#viewer .stage").focus()
    page.keyboard.press("Home")
    assert processed_ct.reduction > 0.1
    for frame, encoded in zip(processed_ct.reconstructed_frames(), processed_ct.shown_frames(), strict=True):
        uri = picture(page, "overlay")
        drawn = np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))).convert("RGB")).astype(int)
        assert drawn.shape == frame.shape
        error = np.abs(drawn - frame).mean()
        assert error < 8, "WebP changes a little"
        assert (frame == encoded).all() or error < np.abs(drawn - encoded).mean()
        page.keyboard.press("ArrowRight")


def test_another_window_changes_the_picture_alone(page):
    upload(page, CT)
    before, numbers, veil = picture(page), page.locator("#numbers").inner_text(), picture(page, "overlay")
    for name in ("soft tissue, 350/40", "lung, 1500/-600"):
        page.locator("#window input").click()
        page.get_by_role("option", name=name).click()
        page.wait_for_function(
            "before => document.querySelector('#viewer canvas.picture').toDataURL() !== before", arg=before
        )
        before = picture(page)
    assert page.locator("#numbers").inner_text() == numbers
    assert picture(page, "overlay") == veil


def test_planes_and_3d_of_a_small_volume(page):
    upload(page, CT)
    page.get_by_role("tab", name="Planes and 3D").click()
    shown = "Number(document.querySelector('#volume [data-shown], #volume[data-shown]')?.dataset.shown ?? 0)"
    page.wait_for_function(f"{shown} > 0", timeout=LONG)
    expect(page.locator("#volume canvas")).to_be_visible()
    expect(page.locator("#volume .hint")).to_be_hidden()
    steps = page.evaluate(shown)
    threshold = page.get_by_role("spinbutton", name="Pruning threshold")
    threshold.fill("0.2")
    threshold.press("Enter")
    page.wait_for_function(f"{shown} > {steps}", timeout=LONG)
    page.locator("#files input[type=file]").set_input_files(XRAY)
    expect(page.locator("#volume .hint")).to_contain_text("this is an image", timeout=LONG)
    expect(page.locator("#volume canvas")).to_be_hidden()
    page.get_by_role("tab", name="Slices").click()
    expect(page.locator("#viewer .stage")).to_be_visible()


def test_a_browser_that_cannot_draw_volumes_says_so_and_draws_the_next_one_where_it_can(page):
    page.evaluate(
        """() => {
            const real = HTMLCanvasElement.prototype.getContext;
            HTMLCanvasElement.prototype.getContext = function (kind, ...rest) {
                return kind === "webgl2" && !window.webglIsBack ? null : real.call(this, kind, ...rest);
            };
        }"""
    )
    upload(page, CT)
    page.get_by_role("tab", name="Planes and 3D").click()
    expect(page.locator("#volume .hint")).to_contain_text("need WebGL 2", timeout=LONG)
    expect(page.locator("#volume canvas")).to_be_hidden()
    page.evaluate("window.webglIsBack = true")
    threshold = page.get_by_role("spinbutton", name="Pruning threshold")
    threshold.fill("0.2")
    threshold.press("Enter")
    expect(page.locator("#volume canvas")).to_be_visible(timeout=LONG)
    expect(page.locator("#volume .hint")).to_be_hidden()


def test_evidence_of_an_answer(page):
    upload(page, CT)
    question = page.locator("#question textarea")
    question.fill("Which imaging modality is this?")
    question.press("Enter")
    page.wait_for_function("/tokens in/.test(document.querySelector('#status')?.textContent)", timeout=LONG)
    page.get_by_text("Evidence: where did the answer look?").click()
    page.get_by_role("button", name="Show the evidence").click()
    words = page.locator("#words input[type=checkbox]")
    expect(words.first).to_be_checked(timeout=LONG)
    expect(page.locator("#viewer .legend")).to_contain_text("A hint, not an explanation")
    assert page.locator("#viewer [value=weight]").is_checked()
    words.first.uncheck()
    expect(page.locator("#viewer label.with-evidence")).to_be_hidden(timeout=SHORT)


def test_a_file_that_cannot_be_read_is_a_sentence(page, tmp_path):
    (tmp_path / "scan.nii").write_text("no scan\n" * 99)
    page.locator("#files input[type=file]").set_input_files(tmp_path / "scan.nii")
    expect(page.locator("#numbers [role=alert]")).to_contain_text("not a known medical image", timeout=LONG)
    expect(page.locator("#viewer .hint")).to_be_visible()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_phone_needs_no_sideways_scrolling_and_every_control_has_a_name(browser, address, theme):
    context = browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True)
    page = context.new_page()
    page.goto(f"{address}?__theme={theme}")
    page.locator("#files input[type=file]").wait_for(state="attached", timeout=LONG)
    upload(page, XRAY)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    nameless = page.evaluate(
        """() => [...document.querySelectorAll("#viewer input, #viewer button, #viewer [role], #volume input")].filter(
             (item) => !(item.ariaLabel || item.closest("label")?.innerText.trim() || item.innerText.trim())
           ).map((item) => item.outerHTML)"""
    )
    assert nameless == []
    assert page.evaluate("document.querySelector('.dark') !== null") == (theme == "dark")
    context.close()
