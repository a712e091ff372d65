# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Studies of the operator's archives on the page, in the API and through MCP: listed without the patient, and asked."""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client

from clinic.dicomweb import Archive
from demo.__main__ import parse_arguments
from demo.service.studies import Studies
from tests.helpers.clinical_series import MARKS, PATIENT, body, write_series
from tests.helpers.demo_server import Served, served_here
from tests.helpers.orthanc import PASSWORD, USER, needs_orthanc, orthanc_in

pytestmark = [needs_orthanc, pytest.mark.usefixtures("one_thread")]
CT, MR = ("1.2.826.0.1.3680043.8.498.21", "1.2.826.0.1.3680043.8.498.22")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
LONG = 120_000
"""Milliseconds; other work may share the machine."""


@dataclass
class Site:
    """A demo with an archive, and the operator's YAML."""

    demo: Served
    archives: Path


@pytest.fixture(scope="module")
def site(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    with orthanc_in(folder) as server, pytest.MonkeyPatch.context() as environment:
        environment.setenv("TEST_USER", USER)
        environment.setenv("TEST_PASSWORD", PASSWORD)
        archives = folder / "archives.yaml"
        archives.write_text(
            f"radiology:\n  url: {server.address}\n  authorization: basic\n  user_variable: TEST_USER\n"
            "  password_variable: TEST_PASSWORD\n  attempts: 2\n  first_wait_seconds: 0.01\n"
        )
        for study, modality in ((CT, "CT"), (MR, "MR")):
            uids = {"StudyInstanceUID": study, "SeriesInstanceUID": f"{study}.1", "Modality": modality}
            files = write_series(folder / modality, body(), **uids, SeriesDescription="Wombatowski")
            Archive.read(archives, "radiology").store(files)
        with served_here(tiny, tmp_path_factory.mktemp("uploads"), archives=archives) as demo:
            yield Site(demo, archives)


@pytest.fixture(scope="module")
def client(site: Site) -> Client:
    return Client(site.demo.address, verbose=False)


def code(uid: str) -> str:
    return hashlib.sha256(uid.encode()).hexdigest()[:16]


def test_studies_are_listed_described_and_asked_about_without_the_patient(client: Client) -> None:
    assert client.predict(api_name="/list_studies") == {"archives": ["radiology"], "studies": []}
    listed = client.predict("radiology", "CT", api_name="/list_studies")
    assert listed["studies"] == [{"code": code(CT), "modalities": "CT", "series": 1, "images": 12}]
    assert len(client.predict("radiology", api_name="/list_studies")["studies"]) == 2
    assert client.predict("radiology", "mri", api_name="/list_studies")["studies"][0]["code"] == code(MR)
    study = client.predict(code(CT), api_name="/describe_study")
    assert study == {"series": [{"code": code(f"{CT}.1"), "modality": "CT", "images": 12}], "description": None}
    described = client.predict(code(CT), code(f"{CT}.1"), api_name="/describe_study")
    assert (described["description"]["kind"], described["description"]["frames"]) == ("volume", 12)
    answered = client.predict(code(f"{CT}.1"), "Which imaging modality is this?", api_name="/ask_about_series")
    assert answered["complete"] and answered["text"]
    told = json.dumps([listed, study, described, answered])
    assert not [mark for mark in (*MARKS, PATIENT["StudyDate"], CT) if mark in told]


@pytest.mark.parametrize("place", ["http://127.0.0.1:1/dicom-web", "dicomweb://radiology/studies", CT, "../etc", ""])
def test_nothing_that_a_client_types_is_asked_for(client: Client, place: str) -> None:
    client.predict("radiology", api_name="/list_studies")
    for arguments, endpoint in (
        ((place,), "/describe_study"),
        ((code(CT), place or "x"), "/describe_study"),
        ((place, "What is it?"), "/ask_about_series"),
        ((place or "x",), "/list_studies"),
    ):
        with pytest.raises(AppError, match=r"list the studies again|no series of that code|no archive of that name"):
            client.predict(*arguments, api_name=endpoint)
    with pytest.raises(AppError, match="A modality is a code"):
        client.predict("radiology", "CT&PatientName=x", api_name="/list_studies")


def test_a_series_has_the_limits_of_a_file(site: Site) -> None:
    studies = Studies(site.archives, largest=7000)
    (listed,) = studies.studies("radiology", "CT")
    (series,) = studies.series(listed.code)
    with pytest.raises(ValueError, match="larger than files may be"), studies.files(series.code):
        pass
    with pytest.raises(ValueError, match="choose one of its series"), studies.files(listed.code):
        pass


def test_an_mcp_client_asks_about_a_study(site: Site) -> None:
    async def run() -> tuple[set[str], list[Any]]:
        async with (
            streamable_http_client(f"{site.demo.address}gradio_api/mcp/") as (reading, writing, *_),
            ClientSession(reading, writing) as session,
        ):
            await session.initialize()
            tools = {tool.name.rsplit("_med_", 1)[-1]: tool.name for tool in (await session.list_tools()).tools}
            calls = [
                ("list_studies", {"archive": "radiology"}),
                ("describe_study", {"study": code(CT)}),
                ("ask_about_series", {"series": code(f"{CT}.1"), "question": "What is it?"}),
                ("ask_about_series", {"series": "http://127.0.0.1:1/", "question": "What is it?"}),
            ]
            return set(tools), [await session.call_tool(tools[name], given) for name, given in calls]

    names, results = asyncio.run(run())
    assert {"list_studies", "describe_study", "ask_about_series"} < names
    assert [result.isError for result in results] == [False, False, False, True]
    assert code(CT) in results[0].content[0].text and code(f"{CT}.1") in results[1].content[0].text
    assert '"complete": true' in results[2].content[0].text.replace("True", "true").replace("'", '"')


def test_others_see_no_archive_without_a_login(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_arguments(["--archives", "archives.yaml", "--host", "0.0.0.0"])
    assert "give --auth-file too" in capsys.readouterr().err
    (tmp_path / "users").write_text("me:secret")
    assert parse_arguments(["--archives", "a.yaml", "--host", "0.0.0.0", "--auth-file", str(tmp_path / "users")]).auth
    assert parse_arguments(["--archives", "a.yaml"]).archives == Path("a.yaml")


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed (apt-get install -y chromium)")
def test_a_visitor_chooses_a_series_from_lists(site: Site) -> None:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as tools:
        browser = tools.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1360, "height": 900})
        page.set_default_timeout(LONG)
        page.goto(site.demo.address)
        playwright.expect(page.locator("#question textarea")).to_be_visible(timeout=LONG)
        page.locator(".open-settings").click()
        for label, choice in (("Archive", "radiology"), ("Study", code(CT)), ("Series", code(f"{CT}.1"))):
            page.get_by_role("combobox", name=label, exact=True).click()  # not the viewer's own hidden list
            page.get_by_role("option").filter(has_text=choice).click()
        page.get_by_role("button", name="Load series").click()
        playwright.expect(page.locator("#viewer .stage")).to_be_visible(timeout=LONG)
        assert not [mark for mark in MARKS if mark in page.content()]
        browser.close()
