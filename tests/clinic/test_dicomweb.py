# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Studies come from a real Orthanc and go back to it, and a broken or hostile server costs no more than an error."""

from __future__ import annotations

import logging
import re

import numpy as np
import pytest

from clinic.archive_settings import ArchiveSettings
from clinic.dicomweb import Archive, ArchiveError, FetchLimits, main
from hub_model.media_omniv_med import load_clip
from tests.helpers.clinical_series import PATIENT, POSES, body, write_series
from tests.helpers.hostile_server import send, send_studies, serving
from tests.helpers.orthanc import PASSWORD, USER, needs_orthanc, orthanc_in

SECRETS = {"TEST_USER": USER, "TEST_PASSWORD": PASSWORD, "TEST_TOKEN": "a-token"}
STUDY, SERIES = "1.2.826.0.1.3680043.8.498.1", "1.2.826.0.1.3680043.8.498.1.1"


def settings(address: str, **changes) -> ArchiveSettings:
    return ArchiveSettings(**{"name": "test", "url": address, "attempts": 3, "first_wait_seconds": 0.01, **changes})


def orthanc_archive(server, **changes) -> Archive:
    basic = {"authorization": "basic", "user_variable": "TEST_USER", "password_variable": "TEST_PASSWORD"}
    return Archive(settings(server.address, **basic, **changes), SECRETS)


def hostile_archive(server, **changes) -> Archive:
    return Archive(settings(server.address, **changes), SECRETS)


# --- With Orthanc ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory):
    """A server that holds one series of a marked patient."""
    with orthanc_in(tmp_path_factory.mktemp("orthanc")) as server:
        yield server


@pytest.fixture(scope="module")
def source(tmp_path_factory, orthanc):
    """The folder of a series that the archive holds."""
    folder = tmp_path_factory.mktemp("source")
    uids = {"StudyInstanceUID": STUDY, "SeriesInstanceUID": SERIES}
    orthanc_archive(orthanc).store(write_series(folder, body(), POSES["oblique"], **uids))
    return folder


@needs_orthanc
def test_a_stored_series_is_found_by_its_patient(orthanc, source):
    archive = orthanc_archive(orthanc)
    (found,) = archive.studies({"PatientID": PATIENT["PatientID"]})
    assert (found.uid, found.date, found.modalities) == (STUDY, PATIENT["StudyDate"], "CT")
    assert (found.description, found.series, found.instances) == (PATIENT["StudyDescription"], 1, 12)
    (series,) = archive.series(STUDY)
    assert (series.uid, series.number, series.modality, series.instances) == (SERIES, "5", "CT", 12)
    assert archive.studies({"PatientID": "somebody else"}) == []


@needs_orthanc
def test_a_listing_names_the_patient_on_request_only(orthanc, source):
    archive = orthanc_archive(orthanc)
    (found,), (shown,) = archive.studies({}), archive.studies({}, show_patients=True)
    assert (found.patient_name, found.patient_id) == ("", "")
    assert (shown.patient_name, shown.patient_id) == (PATIENT["PatientName"], PATIENT["PatientID"])


@needs_orthanc
def test_a_fetched_series_is_the_clip_that_was_stored(orthanc, source, tmp_path):
    told = []
    paths = orthanc_archive(orthanc).fetch_series(
        STUDY, SERIES, tmp_path / "series", progress=lambda *n: told.append(n)
    )
    assert told == [(done, 12) for done in range(13)]
    assert {path.parent for path in paths} == {tmp_path / "series"}
    fetched, stored = load_clip(tmp_path / "series"), load_clip(source)
    assert np.array_equal(fetched.frames, stored.frames) and fetched.notes == stored.notes
    assert np.array_equal(fetched.geometry.origins, stored.geometry.origins)


@needs_orthanc
def test_what_is_there_is_not_fetched_again(orthanc, source, tmp_path):
    archive = orthanc_archive(orthanc)
    paths = archive.fetch_series(STUDY, SERIES, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in paths}
    paths[4].unlink()
    archive.fetch_series(STUDY, SERIES, tmp_path)
    assert [path for path in paths if path.stat().st_mtime_ns != before[path]] == [paths[4]]


@needs_orthanc
def test_a_fetch_goes_on_after_the_archive_died(tmp_path):
    for name in ("server", "source"):
        (tmp_path / name).mkdir()
    files = write_series(tmp_path / "source", body(), StudyInstanceUID=STUDY, SeriesInstanceUID=SERIES)
    with orthanc_in(tmp_path / "server") as server:
        archive = orthanc_archive(server)
        archive.store(files)

        def kill_after_five(done: int, total: int) -> None:
            if done == 5:
                server.kill()

        with pytest.raises(ArchiveError, match="cannot be reached or breaks off"):
            archive.fetch_series(STUDY, SERIES, tmp_path / "series", progress=kill_after_five)
        first = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "series").iterdir()}
        assert len(first) == 5
        server.start()
        archive.fetch_series(STUDY, SERIES, tmp_path / "series")
    now = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "series").iterdir()}
    assert len(now) == 12 and first.items() <= now.items()
    assert np.array_equal(load_clip(tmp_path / "series").frames, load_clip(tmp_path / "source").frames)


@needs_orthanc
def test_a_wrong_password_is_said_and_not_tried_again(orthanc):
    basic = {"authorization": "basic", "user_variable": "TEST_USER", "password_variable": "TEST_PASSWORD"}
    archive = Archive(settings(orthanc.address, **basic), {**SECRETS, "TEST_PASSWORD": "wrong"})
    with pytest.raises(ArchiveError, match=r"does not accept the user, password or token \(status 401\)"):
        archive.studies({})


@needs_orthanc
@pytest.mark.parametrize(
    ("limits", "sentence"),
    [
        (FetchLimits(max_instances=11), "lists more than 11 entries"),
        (FetchLimits(max_bytes=7679), "has 7680 bytes of pixels, over the limit of 7679; nothing is fetched"),
        (FetchLimits(max_bytes=7680), "sends more bytes than the limit allows"),
    ],
    ids=["instances", "bytes that are claimed", "bytes that come"],
)
def test_limits_hold_before_and_while_a_series_is_fetched(orthanc, source, tmp_path, limits, sentence):
    with pytest.raises(ArchiveError, match=sentence):
        orthanc_archive(orthanc).fetch_series(STUDY, SERIES, tmp_path / "series", limits)


@needs_orthanc
def test_a_series_that_is_not_there_is_said(orthanc, source, tmp_path):
    with pytest.raises(ArchiveError, match="has no such series"):
        orthanc_archive(orthanc).fetch_series(STUDY, "1.2.3", tmp_path)


@needs_orthanc
def test_the_commands_list_fetch_and_store(orthanc, source, tmp_path, capsys, monkeypatch, caplog):
    for variable, value in SECRETS.items():
        monkeypatch.setenv(variable, value)
    (tmp_path / "archives.yaml").write_text(
        f"local:\n  url: {orthanc.address}\n  authorization: basic\n"
        "  user_variable: TEST_USER\n  password_variable: TEST_PASSWORD\n"
    )
    archives = ["--archives", str(tmp_path / "archives.yaml")]
    caplog.set_level(logging.DEBUG)
    assert main([*archives, "list", "local", "--patient-id", PATIENT["PatientID"]]) == 0
    assert main([*archives, "list", "local", "--study", STUDY]) == 0
    assert main([*archives, "fetch", "local", STUDY, SERIES, "--out", str(tmp_path / "series")]) == 0
    assert main([*archives, "store", "local", str(next(source.iterdir()))]) == 0
    printed = capsys.readouterr()
    assert f"{STUDY}\t20190823\tCT\t1\t12\tNumbatova trial" in printed.out
    assert f"{SERIES}\t5\tCT\t12\tThorax" in printed.out
    assert "12 instances are in" in printed.out and "1 files were stored" in printed.out
    secret = {PATIENT["PatientID"], "Wombatowski", "Zygmunt", PASSWORD}
    assert not [word for word in secret if word in printed.out + printed.err + caplog.text]


# --- With a hostile server -------------------------------------------------------------------------------


def endless(handler, number):
    handler.send_response(200)
    handler.send_header("Content-Type", "application/dicom+json")
    handler.end_headers()
    while True:
        handler.wfile.write(b"[" * 65536)


def endless_chunks(handler, number):
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    while True:
        handler.wfile.write(b"10000\r\n" + b"[" * 65536 + b"\r\n")


def drop_by_drop(handler, number):
    handler.send_response(200)
    handler.end_headers()
    while True:
        handler.wfile.write(b" ")
        handler.wfile.flush()


HOSTILE = {
    "not JSON": (lambda handler, number: send(handler, body=b"\x00\xff garbage"), "not DICOMweb"),
    "another JSON": (lambda handler, number: send(handler, body=b'{"a": 1}'), "not DICOMweb|without their"),
    "numbers": (lambda handler, number: send(handler, body=b"[1, 2]"), "not DICOMweb"),
    "nested": (lambda handler, number: send(handler, body=b"[" * 100_000), "not DICOMweb"),
    "compressed": (lambda handler, number: send(handler, body=b"x", Content_Encoding="gzip"), "compressed"),
    "too long": (lambda handler, number: send(handler, Content_Length=str(10**15)), "more bytes than the limit"),
    "endless": (endless, "more bytes than the limit"),
    "endless chunks": (endless_chunks, "more bytes than the limit"),
    "for ever new": (
        lambda handler, number: send_studies(handler, *range(9000 * number, 9000 * number + 9000)),
        "20000",
    ),
    "in a circle": (lambda handler, number: send(handler, 302, Location=handler.path), "again and again"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_answer_is_one_sentence(name):
    answer, sentence = HOSTILE[name]
    with serving(answer) as server, pytest.raises(ArchiveError, match=sentence):
        hostile_archive(server).studies({})


def test_an_answer_that_takes_too_long_is_given_up():
    with serving(drop_by_drop) as server, pytest.raises(ArchiveError, match="takes longer than"):
        hostile_archive(server, request_seconds=0.5).studies({})


def test_a_server_that_repeats_itself_is_at_its_end():
    with serving(lambda handler, number: send_studies(handler, 1, 2)) as server:
        assert [found.uid for found in hostile_archive(server).studies({})] == ["1.2.3.1", "1.2.3.2"]


def test_no_redirect_leads_to_another_server_with_the_token():
    bearer = {"authorization": "bearer", "token_variable": "TEST_TOKEN"}
    with (
        serving(lambda handler, number: send_studies(handler)) as elsewhere,
        serving(lambda handler, number: send(handler, 302, Location=elsewhere.address)) as server,
    ):
        with pytest.raises(ArchiveError, match="redirects to another server"):
            hostile_archive(server, **bearer).studies({})
        assert server.authorizations == ["Bearer a-token"] and elsewhere.paths == []


def test_a_redirect_on_the_same_server_is_followed():
    def answer(handler, number):
        send(handler, 307, Location="/moved") if number == 0 else send_studies(handler, *range(number == 1))

    with serving(answer) as server:
        assert [found.uid for found in hostile_archive(server).studies({})] == ["1.2.3.0"]
    assert server.paths[1] == "/moved"


def test_a_wrong_token_is_said():
    bearer = {"authorization": "bearer", "token_variable": "TEST_TOKEN"}

    def answer(handler, number):
        known = handler.headers["Authorization"] == "Bearer another"
        send_studies(handler) if known else send(handler, 401, b"You are a-token")

    with serving(answer) as server:
        with pytest.raises(ArchiveError, match=r"token \(status 401\)") as raised:
            hostile_archive(server, **bearer).studies({})
        assert "a-token" not in str(raised.value)
        assert Archive(settings(server.address, **bearer), {"TEST_TOKEN": "another"}).studies({}) == []


def test_errors_of_the_server_are_tried_again_and_those_of_the_request_are_not():
    def recovers(handler, number):
        send(handler, 503) if number < 2 else send_studies(handler)

    with serving(recovers) as server:
        assert hostile_archive(server).studies({}) == []
        assert len(server.paths) == 3
    with serving(lambda handler, number: send(handler, 500)) as server:
        with pytest.raises(ArchiveError, match=r"error of its own \(status 500\)"):
            hostile_archive(server).studies({})
        assert len(server.paths) == 3
    with serving(lambda handler, number: send(handler, 400)) as server:
        with pytest.raises(ArchiveError, match=r"does not accept the request \(status 400\)"):
            hostile_archive(server).studies({})
        assert len(server.paths) == 1


def test_an_answer_that_is_cut_short_is_asked_for_again():
    def answer(handler, number):
        send(handler, body=b"[", Content_Length="5") if number == 0 else send_studies(handler)

    with serving(answer) as server:
        assert hostile_archive(server).studies({}) == []
        assert len(server.paths) == 2


def test_another_instance_than_the_one_asked_for_is_not_written(tmp_path):
    (file,) = write_series(tmp_path / "other", body(1))
    asked = b'[{"00080018": {"vr": "UI", "Value": ["1.2.3.4"]}}]'

    def answer(handler, number):
        if "/instances/" not in handler.path:
            send(handler, body=asked)
        else:
            part = b"--b\r\nContent-Type: application/dicom\r\n\r\n" + file.read_bytes() + b"\r\n--b--"
            send(handler, body=part, Content_Type='multipart/related; type="application/dicom"; boundary=b')

    with serving(answer) as server, pytest.raises(ArchiveError, match="another instance"):
        hostile_archive(server).fetch_series(STUDY, SERIES, tmp_path / "series")
    assert list((tmp_path / "series").iterdir()) == []


def test_a_uid_that_is_a_path_is_not_written(tmp_path):
    path = b'[{"00080018": {"vr": "UI", "Value": ["../../escaped"]}}]'
    with (
        serving(lambda handler, number: send(handler, body=path)) as server,
        pytest.raises(ArchiveError, match="digits and points"),
    ):
        hostile_archive(server).fetch_series(STUDY, SERIES, tmp_path / "series")
    assert list(tmp_path.rglob("*escaped*")) == []


def test_nobody_listens():
    with serving(lambda handler, number: None) as server:
        pass
    with pytest.raises(ArchiveError, match="cannot be reached"):
        hostile_archive(server).studies({})


# --- Settings --------------------------------------------------------------------------------------------

WRONG = {
    "a password in it": ("a: {url: https://x/, password: secret}", r"unknown settings \(password\)"),
    "http to elsewhere": ("a: {url: http://pacs.example.org/}", "give https"),
    "no url": ("a: {}", "needs a plain url"),
    "a user in the url": ("a: {url: https://me:secret@x/}", "needs a plain url"),
    "no variable": ("a: {url: https://x/, authorization: bearer}", "token_variable"),
    "a kind that is none": ("a: {url: https://x/, authorization: magic}", "none of none, basic, bearer"),
    "a missing certificate": ("a: {url: https://x/, ca_file: missing.pem}", "does not exist"),
    "another name": ("b: {url: https://x/}", "names no archive a; it names b"),
    "no mapping": ("- a", "must give each archive's name"),
    "no YAML": ("a: [", "is no YAML"),
    "a text for a number": ("a: {url: https://x/, attempts: many}", "numbers above 0"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_settings_are_one_sentence(tmp_path, name):
    text, sentence = WRONG[name]
    (tmp_path / "archives.yaml").write_text(text)
    with pytest.raises(ArchiveError, match=sentence) as raised:
        Archive.read(tmp_path / "archives.yaml", "a")
    assert "secret" not in str(raised.value)


def test_a_secret_that_is_not_set_is_named_by_its_variable(tmp_path):
    (tmp_path / "archives.yaml").write_text("a: {url: https://x/, authorization: bearer, token_variable: NOT_SET_7}")
    with pytest.raises(ArchiveError, match="needs the environment variable NOT_SET_7"):
        Archive.read(tmp_path / "archives.yaml", "a")


def test_the_command_says_what_is_wrong_in_one_line(tmp_path, capsys):
    assert main(["--archives", str(tmp_path / "missing.yaml"), "list", "a"]) == 2
    assert re.fullmatch(r"dicomweb: missing.yaml cannot be read; [^\n]+\n", capsys.readouterr().err)
