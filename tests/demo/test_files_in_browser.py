# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Files on the page in headless Chromium: their names, their upload, their series and planes, and a second loading."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - the name all of its documentation uses

from tests.helpers.demo_server import started
from tests.helpers.media_files import make_body, number_series, series
from tests.helpers.page_visits import (
    CT,
    IN_CHROMIUM,
    LONG,
    XRAY,
    chromium,
    expect,
    playwright,
    screenshot,
    upload,
    visit,
)

pytestmark = IN_CHROMIUM


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Address and folder of the running demo."""
    folder = tmp_path_factory.mktemp("demo")
    with started(folder, "-m", "demo") as (address, _, _):
        yield address, folder


@pytest.fixture(scope="module")
def browser() -> Iterator[playwright.Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def page(browser: playwright.Browser, demo: tuple[str, Path]) -> Iterator[playwright.Page]:
    with visit(browser, demo[0]) as page:
        yield page


def test_a_file_s_name_is_shown_and_never_leaves_the_browser(page, demo, tmp_path):
    sent: list[bytes] = []
    page.on("request", lambda request: sent.append((request.url.encode()) + (request.post_data_buffer or b"")))
    named = tmp_path / "DOE_JANE_19340217.nii.gz"
    named.write_bytes(CT.read_bytes())
    upload(page, named)
    expect(page.get_by_role("radio", name="File 1: volume, 14 slices · DOE_JANE_19340217.nii.gz")).to_be_checked()
    expect(page.locator("#rail em")).to_have_text("DOE_JANE_19340217.nii.gz")
    frames = [tmp_path / f"Smith{number}.png" for number in (1, 2, 10)]
    for frame in frames:
        frame.write_bytes(XRAY.read_bytes())
    upload(page, *frames)
    expect(page.get_by_role("radio", name=re.compile(r"File 2: video, .* · Smith1\.png and 2 more"))).to_be_checked(
        timeout=LONG
    )
    page.locator("#question textarea").fill("Which imaging modality is this?")
    page.locator("#question textarea").press("Enter")
    expect(page.locator("#chat .answer .sure")).to_contain_text("Confidence", timeout=LONG)
    assert any(b"upload-a-00001.nii.gz" in each for each in sent)
    for secret in (b"DOE", b"19340217", b"Smith"):
        assert not any(secret in each for each in sent), "no request holds it"
        assert secret.decode() not in (demo[1] / "log.txt").read_text()
        assert not list(demo[1].rglob(f"*{secret.decode()}*")), "no file of the server is named by it"


def test_a_header_and_its_voxels_stay_named_alike_and_a_note_tells_where_they_are_not(page, tmp_path):
    sent: list[bytes] = []
    page.on("request", lambda request: sent.append(request.post_data_buffer or b""))
    header, packed, voxels = (tmp_path / f"DOE.{ending}" for ending in ("mhd", "zraw", "raw"))
    sitk.WriteImage(sitk.GetImageFromArray(make_body()), str(header), useCompression=True)
    upload(page, header, packed)
    expect(page.get_by_role("radio", name=re.compile("File 1: volume"))).to_be_checked(timeout=LONG)
    expect(page.get_by_text("whose names differ")).to_have_count(0)
    assert any(b"upload-a-00001.mhd" in each and b"upload-a-00001.zraw" in each for each in sent)
    sitk.WriteImage(sitk.GetImageFromArray(make_body()), str(header))
    upload(page, header, voxels.rename(tmp_path / "Smith.raw"))
    expect(page.get_by_role("radio", name=re.compile("File 2: volume"))).to_be_checked(timeout=LONG)
    expect(page.get_by_text("whose names differ")).not_to_have_count(0)


def test_an_upload_shows_its_percentage(page, tmp_path):
    large = tmp_path / "large.npy"
    np.save(large, np.random.default_rng(0).integers(0, 256, (24, 1024, 1024), np.uint8))
    session = page.context.new_cdp_session(page)
    session.send("Network.enable")
    session.send(
        "Network.emulateNetworkConditions",
        {"offline": False, "latency": 5, "downloadThroughput": -1, "uploadThroughput": 4 << 20},
    )
    page.evaluate(
        """() => {
            window.shown = [];
            const bar = document.querySelector("#top .sending");
            new MutationObserver(() => {
                if (!bar.hidden) window.shown.push([bar.textContent, Number(bar.ariaValueNow)]);
            }).observe(bar, { childList: true, subtree: true, attributes: true });
        }"""
    )
    page.locator("#files input[type=file]").set_input_files(large)
    page.wait_for_function("window.shown.some(([, percent]) => percent > 30 && percent < 100)", timeout=20_000)
    expect(page.locator("#viewer .stage")).to_be_visible(timeout=LONG)
    expect(page.locator("#top .sending")).to_be_hidden()
    shown = page.evaluate("window.shown")
    percents = [percent for _, percent in shown]
    assert percents == sorted(percents) and len(set(percents)) > 3
    assert all(words == f"{percent} % uploaded: large.npy" for words, percent in shown)


def test_a_file_larger_than_the_server_takes_is_a_sentence(page, tmp_path):
    page.evaluate("window.gradio_config.max_file_size = 1000")
    page.locator("#files input[type=file]").set_input_files(CT)
    expect(page.get_by_role("alert").filter(has_text="larger than this server takes")).to_be_visible()
    page.evaluate("window.gradio_config.max_file_size = 1 << 30")
    upload(page, CT)
    expect(page.locator("#top .problem")).to_be_hidden()


def test_of_several_series_any_can_be_shown_and_a_volume_in_any_plane(page, tmp_path):
    paths: list[Path] = []
    for number, depth in ((2, 12), (5, 9)):
        folder = number_series(series(tmp_path / str(number), make_body((depth, 20, 16))), number)
        paths += sorted(folder.iterdir())
    upload(page, *paths)
    listed = page.get_by_role("combobox", name="Series")
    assert listed.locator("option").all_inner_texts() == ["Series 2: CT, 12 slices", "Series 5: CT, 9 slices"]
    expect(listed).to_have_value("2")
    listed.select_option(label="Series 5: CT, 9 slices")
    expect(page.locator("#viewer output")).to_contain_text("of 9", timeout=LONG)
    expect(page.get_by_role("radio", name="File 1: volume, 9 slices")).to_be_checked()
    plane = page.get_by_role("combobox", name="Plane of the slices")
    expect(plane).to_have_value("axial")
    plane.select_option("coronal")
    expect(page.locator("#viewer output")).to_contain_text("of 20", timeout=LONG)
    expect(page.locator("#viewer .letter.top")).to_have_text("H")
    expect(listed).to_have_value("5")
    screenshot(page, "series")

    page.locator("#question textarea").fill("Which imaging modality is this?")
    page.locator("#question textarea").press("Enter")
    expect(page.locator("#chat .answer .sure")).to_contain_text("Confidence", timeout=LONG)
    plane.select_option("sagittal")
    expect(page.get_by_role("radio", name="File 2: volume, 16 slices")).to_be_checked(timeout=LONG)
    expect(page.get_by_role("radio", name="File 1: volume, 20 slices")).to_be_attached()


def test_what_has_no_planes_or_series_offers_none(page):
    upload(page, XRAY)
    expect(page.locator("#viewer .planes")).to_be_hidden()
    expect(page.locator("#viewer .series")).to_be_hidden()


def test_loading_the_page_again_brings_the_words_back_and_says_that_files_must_be_loaded(page):
    upload(page, XRAY)
    expect(page.locator("#earlier .earlier")).to_be_hidden()
    page.locator("#question textarea").fill("Which imaging modality is <b>this</b>?")
    page.locator("#question textarea").press("Enter")
    expect(page.locator("#chat .answer .sure")).to_contain_text("Confidence", timeout=LONG)
    said = page.locator("#chat .answer .said").inner_text()
    page.reload()
    earlier = page.locator("#earlier .earlier")
    expect(earlier).to_be_visible(timeout=LONG)
    expect(earlier).to_contain_text("load the files again")
    expect(earlier.locator(".asked")).to_contain_text("Which imaging modality is <b>this</b>? File 1: image")
    expect(earlier.locator(".words")).to_contain_text(said)
    expect(page.locator("#rail .tile")).to_have_count(0)
    screenshot(page, "reloaded")

    page.locator("#question textarea").fill("Say hello.")
    page.locator("#question textarea").press("Enter")
    expect(page.locator("#chat .answer .sure")).to_be_visible(timeout=LONG)
    page.reload()
    expect(earlier.locator(".asked")).to_have_count(2, timeout=LONG)
    earlier.get_by_role("button", name="Forget").click()
    expect(earlier).to_be_hidden()
    page.reload()
    expect(page.locator("#samples .card").first).to_be_visible(timeout=LONG)
    expect(earlier).to_be_hidden()


def test_a_new_conversation_is_forgotten_by_the_browser_too(page):
    page.locator("#question textarea").fill("Say hello.")
    page.locator("#question textarea").press("Enter")
    expect(page.locator("#chat .answer .sure")).to_be_visible(timeout=LONG)
    page.get_by_role("button", name="New conversation").click()
    expect(page.locator("#chat .message")).to_have_count(0)
    page.wait_for_function("sessionStorage.getItem('omniv-med conversation') === '[]'")


def test_on_a_phone_the_plane_is_chosen_among_the_settings_of_the_view(browser, demo):
    with visit(browser, demo[0], (390, 844)) as page:
        upload(page, CT)
        page.locator("#viewer .more summary").click()
        expect(page.locator("#viewer .panel .planes")).to_be_visible()
        bar = page.locator("#viewer .bar").evaluate("bar => [bar.scrollWidth, bar.clientWidth]")
        assert bar[0] <= bar[1], "nothing is pushed out of the bar"
