# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The viewing half of the page in headless Chromium: what a visitor sees, scrolls, drags and types."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image
from transformers import AutoProcessor

from hub_model.media_omniv_med import load_clip
from tests.helpers.demo_server import started
from tests.helpers.page_visits import (
    CT,
    IN_CHROMIUM,
    LONG,
    SHORT,
    WINDOWS,
    XRAY,
    chromium,
    expect,
    nano,
    playwright,
    screenshot,
    settings,
    upload,
    visit,
)
from tests.helpers.paths import ROOT

pytestmark = IN_CHROMIUM


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of the running demo."""
    folder = tmp_path_factory.mktemp("demo")
    with started(folder, "-m", "demo", "--model", str(nano(folder / "hub_model"))) as (address, _, _):
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[playwright.Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def page(browser: playwright.Browser, address: str) -> Iterator[playwright.Page]:
    with visit(browser, address) as page:
        yield page


@pytest.fixture(scope="module")
def processed_ct() -> Any:
    """The CT as the demo prunes it at first."""
    processor = AutoProcessor.from_pretrained(str(ROOT / "hub_model"), trust_remote_code=True)
    return processor.process_clip(load_clip(CT))


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


def box(page: playwright.Page, name: str) -> dict[str, float]:
    """Where the part with that id lies in the window."""
    found = page.locator(f"#{name}").bounding_box()
    assert found is not None, name
    return found


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", WINDOWS, ids=lambda size: "{}x{}".format(*size))
def test_the_page_fits_the_window_before_and_after_a_scan_is_loaded(browser, address, size, theme):
    width, height = size
    is_phone = width < 768
    with visit(browser, address, size, theme) as page:
        expect(page.locator("#samples .card")).to_have_count(5)
        expect(page.locator("#files")).to_be_in_viewport()
        expect(page.locator("#question textarea")).to_be_in_viewport()
        screenshot(page, f"empty_{width}_{theme}")
        page.locator("#samples .card").nth(2).click()
        expect(page.locator("#viewer .stage")).to_be_visible(timeout=LONG)
        expect(page.locator("#question textarea")).to_have_value("In which plane is this volume?", timeout=LONG)
        page.wait_for_timeout(1000)
        screenshot(page, f"scan_{width}_{theme}")
        assert page.evaluate("[document.documentElement.scrollWidth, document.documentElement.scrollHeight]") == [
            width, height
        ], "nothing scrolls"  # fmt: skip
        viewer, composer, rail = box(page, "viewer"), box(page, "composer"), box(page, "rail")
        assert viewer["y"] <= 160
        assert composer["y"] > 0 and composer["y"] + composer["height"] <= height
        expect(page.locator("#composer")).to_be_in_viewport(ratio=1)
        expect(page.get_by_role("radio", name="File 1: volume, 14 slices")).to_be_checked()
        stage = page.locator("#viewer .stage").bounding_box()
        if is_phone:
            assert rail["y"] < viewer["y"] and viewer["y"] + viewer["height"] <= 0.55 * height
            assert composer["y"] > viewer["y"] + viewer["height"] and stage["height"] > 0.2 * height
        else:
            assert rail["x"] + rail["width"] <= viewer["x"] and viewer["x"] + viewer["width"] <= composer["x"]
            assert stage["width"] > 0.4 * width and stage["height"] > 0.5 * height
        settings(page)
        assert box(page, "settings")["x"] >= 0
        screenshot(page, f"settings_{width}_{theme}")
        nameless = page.evaluate(
            """() => [...document.querySelectorAll(
                 ":is(#viewer, #rail, #volume) :is(input, button, select, [role])")].filter(
                 (item) => !(item.ariaLabel || item.closest("label")?.textContent.trim() || item.textContent.trim())
               ).map((item) => item.outerHTML)"""
        )
        assert nameless == []
        assert page.evaluate("document.querySelector('.dark') !== null") == (theme == "dark")


def test_the_address_of_the_api_opens_its_description(browser, address):
    with visit(browser, address, view="&view=api") as page:
        expect(page.get_by_text("ask_about_file").first).to_be_visible(timeout=LONG)


def test_the_second_page_says_what_the_model_is(browser, address):
    page = browser.new_page()
    page.goto(f"{address}about", timeout=LONG)
    expect(page.get_by_role("heading", name="What to trust")).to_be_visible(timeout=LONG)
    page.close()


def test_controls_that_have_nothing_to_act_on_are_disabled(page):
    for name in ("Stop", "New conversation", "Save as JSON", "Save as Markdown"):
        expect(page.get_by_role("button", name=name, exact=True)).to_be_disabled()
    upload(page, XRAY)
    expect(page.get_by_role("button", name="Ruler")).to_be_disabled()
    expect(page.locator("#viewer .play")).to_be_hidden()
    expect(page.locator("#viewer .windows")).to_be_hidden()


def test_two_pictures_at_once_are_two_files_and_one_can_go(page):
    page.locator("#files input[type=file]").set_input_files([CT, XRAY])
    expect(page.get_by_role("radio", name=re.compile("File [12]:"))).to_have_count(2, timeout=LONG)
    expect(page.get_by_role("radio", name="File 2: image")).to_be_checked()
    page.get_by_role("radio", name="File 1: volume, 14 slices").check(force=True)
    expect(page.locator("#viewer output")).to_contain_text("of 14", timeout=LONG)
    page.get_by_role("button", name="Remove File 1: volume, 14 slices").click(force=True)
    expect(page.get_by_role("radio", name=re.compile("File [12]:"))).to_have_count(1, timeout=LONG)


def test_a_picture_that_is_dropped_or_pasted_anywhere_is_loaded(page):
    page.evaluate(
        """([bytes]) => {
            const data = new DataTransfer();
            data.items.add(new File([Uint8Array.from(atob(bytes), (each) => each.charCodeAt(0))], "xray.png"));
            document.querySelector("#question textarea").dispatchEvent(
                new ClipboardEvent("paste", { clipboardData: data, bubbles: true }));
            window.dropped = data;
        }""",
        [base64.b64encode(XRAY.read_bytes()).decode()],
    )
    expect(page.locator("#viewer .stage")).to_be_visible(timeout=LONG)
    page.evaluate(
        """() => document.querySelector("#viewer .stage").dispatchEvent(
             new DragEvent("drop", { dataTransfer: window.dropped, bubbles: true, cancelable: true }))"""
    )
    expect(page.get_by_role("radio", name="File 2: image")).to_be_checked(timeout=LONG)


def test_a_ct_is_grey_and_the_pointer_reads_hounsfield_units_and_millimetres(page):
    upload(page, CT)
    values = page.locator("#viewer canvas.picture").evaluate(
        "canvas => [...canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data]"
    )
    pixels = np.array(values).reshape(-1, 4)[:, :3]
    assert np.ptp(pixels, axis=1).max() <= 4, "WebP changes a little"
    for letter, side in zip("APRL", ("top", "bottom", "left", "right"), strict=True):
        expect(page.locator(f"#viewer .letter.{side}")).to_have_text(letter)
    stage = page.locator("#viewer .stage").bounding_box()
    middle = (stage["x"] + stage["width"] / 2, stage["y"] + stage["height"] / 2)
    page.mouse.move(*middle)
    expect(page.locator("#viewer .value")).to_have_text(re.compile(r"[≈≤≥] −?\d+ HU"))
    page.get_by_role("button", name="Ruler").click()
    page.mouse.move(*middle)
    page.mouse.down()
    page.mouse.move(middle[0] + 60, middle[1], steps=3)
    page.mouse.up()
    film = page.locator("#viewer .film").bounding_box()
    length = float(page.locator("#viewer .ruler text").text_content().removesuffix(" mm"))
    clip = load_clip(CT)
    assert length == pytest.approx(60 / film["width"] * clip.pixel_spacing[1] * clip.frames.shape[2], rel=0.03)


def test_zoom_follows_the_pointer_and_a_double_click_resets_it(page):
    upload(page, CT)
    film = page.locator("#viewer .film")
    before, stage = film.bounding_box(), page.locator("#viewer .stage").bounding_box()
    page.mouse.move(stage["x"] + 100, stage["y"] + 100)
    page.keyboard.down("Control")
    page.mouse.wheel(0, -200)
    page.keyboard.up("Control")
    page.wait_for_function("document.querySelector('#viewer .stage').classList.contains('zoomed')")
    after = film.bounding_box()
    assert after["width"] > 1.5 * before["width"]
    share = (stage["x"] + 100 - before["x"]) / before["width"]
    assert (stage["x"] + 100 - after["x"]) / after["width"] == pytest.approx(share, abs=0.01)
    page.mouse.down()
    page.mouse.move(stage["x"] + 140, stage["y"] + 100, steps=2)
    page.mouse.up()
    assert film.bounding_box()["x"] == pytest.approx(after["x"] + 40, abs=2)
    page.locator("#viewer .stage").dblclick()
    assert film.bounding_box()["width"] == pytest.approx(before["width"], abs=1)


def test_dragging_with_the_right_button_changes_the_window(page):
    upload(page, CT)
    grey, before = page.locator("#viewer .grey"), picture(page)
    expect(grey).to_have_text("W 1500 L −600 HU")
    stage = page.locator("#viewer .stage").bounding_box()
    page.mouse.move(stage["x"] + 200, stage["y"] + 100)
    page.mouse.down(button="right")
    page.mouse.move(stage["x"] + 120, stage["y"] + 150, steps=4)
    page.mouse.up(button="right")
    expect(grey).not_to_have_text("W 1500 L −600 HU")
    page.wait_for_function(
        "before => document.querySelector('#viewer canvas.picture').toDataURL() !== before", arg=before, timeout=LONG
    )


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
    settings(page)
    bars = page.locator("#kept_chart .barlayer .point path")
    expect(bars.first).to_be_visible(timeout=SHORT)
    page.locator("#viewer .play").click()
    bars.nth(9).hover(force=True)
    page.wait_for_timeout(200)  # the chart finds the bar under the pointer a little later
    bars.nth(9).click(force=True)
    expect(page.locator("#viewer output")).to_contain_text("Slice 10 of 14")


def test_settings_change_the_numbers_and_the_picture_without_reading_again(page):
    upload(page, CT)
    numbers, veil = page.locator("#numbers"), picture(page, "overlay")
    uploads = []
    page.on("request", lambda request: uploads.append(request.url) if "upload" in request.url else None)
    numbers.locator("summary").click()
    before = numbers.inner_text()
    settings(page)
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


def test_the_wipe_and_the_scores(page):
    upload(page, CT)
    mode(page, "Off")
    plain = seen(page)
    mode(page, "Model sees")
    expect(page.get_by_text("all that the model receives")).to_be_visible()
    whole, slice_before = seen(page), position(page)
    film = page.locator("#viewer .film").bounding_box()
    page.mouse.move(film["x"] + 2, film["y"] + 50)
    page.mouse.down()
    page.mouse.move(film["x"] + film["width"] / 4, film["y"] + 50, steps=4)
    page.mouse.up()
    assert float(page.locator("[name=wipe]").input_value()) == pytest.approx(25, abs=2)
    quarter = seen(page)
    assert len({plain, whole, quarter}) == 3
    page.keyboard.press("ArrowRight")
    assert float(page.locator("[name=wipe]").input_value()) > 25 and position(page) == slice_before
    mode(page, "Kept")
    expect(page.locator("#viewer .legend")).to_contain_text("Tinted: the model reuses an earlier")
    tinted = picture(page, "overlay")
    page.locator("#viewer .more summary").click()
    page.get_by_label("Colour the tokens by their scores").check()
    expect(page.locator("#viewer .in-wipe").first).to_be_hidden()
    assert picture(page, "overlay") != tinted
    page.get_by_label("Colour the tokens by their scores").uncheck()
    page.locator("#viewer .more summary").click()
    mode(page, "Off")
    page.mouse.move(0, 0)
    assert seen(page) == plain


def test_the_reconstruction_is_what_the_processor_reconstructs(page, processed_ct):
    """The browser puts it together of the encoder's slices; Python does so in another way."""
    upload(page, CT)
    mode(page, "Model sees")
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
    for name in ("brain 80/40", "bone 1800/400", "model's green: 350/40"):
        page.locator("#viewer .windows").select_option(label=name)
        page.wait_for_function(
            "before => document.querySelector('#viewer canvas.picture').toDataURL() !== before",
            arg=before,
            timeout=LONG,
        )
        before = picture(page)
        assert page.locator("#viewer .windows").evaluate("list => list.selectedOptions[0].text") == name
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
    settings(page)
    threshold = page.get_by_role("spinbutton", name="Pruning threshold")
    threshold.fill("0.2")
    threshold.press("Enter")
    page.wait_for_function(f"{shown} > {steps}", timeout=LONG)
    page.locator("#files input[type=file]").set_input_files(XRAY)
    expect(page.locator("#volume .hint")).to_contain_text("this is an image", timeout=LONG)
    expect(page.locator("#volume canvas")).to_be_hidden()
    page.get_by_role("tab", name="Slices").click()
    expect(page.locator("#viewer .stage")).to_be_visible()


def test_slices_planes_and_3d_share_one_crosshair(page):
    upload(page, CT)
    expect(page.locator("#viewer .cross")).to_be_hidden()
    page.locator("#viewer .stage").focus()
    page.keyboard.press("Home")
    film = page.locator("#viewer .film").bounding_box()
    page.mouse.click(film["x"] + film["width"] * 0.25, film["y"] + film["height"] * 0.4)
    expect(page.locator("#viewer .cross")).to_be_visible()
    page.get_by_role("tab", name="Planes and 3D").click()
    expect(page.locator("#volume [data-slice]").or_(page.locator("#volume[data-slice]"))).to_have_attribute(
        "data-slice", "0", timeout=LONG
    )
    canvas = page.locator("#volume canvas")
    box = canvas.bounding_box()
    page.mouse.click(box["x"] + box["width"] * 0.3, box["y"] + box["height"] * 0.24)
    page.get_by_role("tab", name="Slices").click()
    assert position(page) > 1, "a click in another plane chose another slice"
    place = page.locator("#viewer .cross line").first.get_attribute("x1")
    assert float(place.removesuffix("%")) != pytest.approx(25, abs=1)
    page.locator("#viewer .more summary").click()
    page.get_by_role("button", name="Reset zoom and window").click()
    expect(page.locator("#viewer .cross")).to_be_hidden()


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
    settings(page)
    threshold = page.get_by_role("spinbutton", name="Pruning threshold")
    threshold.fill("0.2")
    threshold.press("Enter")
    expect(page.locator("#volume canvas")).to_be_visible(timeout=LONG)
    expect(page.locator("#volume .hint")).to_be_hidden()


def test_what_an_answer_depends_on_is_drawn_in_its_file(page):
    upload(page, CT)
    question = page.locator("#question textarea")
    question.fill("Which imaging modality is this?")
    question.press("Enter")
    expect(page.locator("#chat .answer .sure")).to_contain_text("Confidence", timeout=LONG)
    page.locator("#files input[type=file]").set_input_files(XRAY)
    expect(page.get_by_role("radio", name="File 2: image")).to_be_checked(timeout=LONG)
    page.get_by_role("button", name="Where did it look?").click()
    expect(page.get_by_role("radio", name="File 1: volume, 14 slices")).to_be_checked(timeout=LONG)
    expect(page.locator("#viewer .legend")).to_contain_text("covering it makes this answer less likely")
    assert page.locator("#viewer [value=weight]").is_checked()
    screenshot(page, "evidence")
    brightest = """canvas => {
        const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
        return Math.max(...data.filter((_, index) => index % 4 === 0));
    }"""
    assert page.locator("#viewer canvas.overlay").evaluate(brightest) > 200, "the strongest slice is shown first"
    mode(page, "Kept")
    settings(page)
    threshold = page.get_by_role("spinbutton", name="Pruning threshold")
    threshold.fill("0.25")
    threshold.press("Enter")
    expect(page.locator("#viewer label.with-evidence")).to_be_hidden(timeout=LONG)


def test_evidence_that_was_not_measured_to_lie_on_findings_is_not_offered(browser, tmp_path):
    model = nano(tmp_path / "hub_model", shows_findings=False)
    with started(tmp_path, "-m", "demo", "--model", str(model)) as (address, _, _), visit(browser, address) as page:
        upload(page, XRAY)
        page.locator("#question textarea").fill("Which imaging modality is this?")
        page.locator("#question textarea").press("Enter")
        expect(page.get_by_role("button", name="Compare")).to_be_visible(timeout=LONG)
        expect(page.get_by_role("button", name="Where did it look?")).to_have_count(0)


def test_a_file_that_cannot_be_read_is_a_sentence(page, tmp_path):
    (tmp_path / "scan.nii").write_text("no scan\n" * 99)
    page.locator("#files input[type=file]").set_input_files(tmp_path / "scan.nii")
    expect(page.get_by_text("not a known medical image").first).to_be_visible(timeout=LONG)
    expect(page.locator("#samples .card").first).to_be_visible()
