# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""An archive as the source of a batch run and of `load_clip`: a real Orthanc gives what a folder gives."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clinic.archive_media import Address, ArchiveMedia, Downloads
from clinic.archive_settings import ArchiveError
from clinic.batch import ANSWERS, main
from clinic.dicomweb import Archive, FetchLimits
from clinic.studies import ArchivedSeries, Series, Skipped, StudiesError, find_series
from data_engine.ledger import read_lines
from hub_model.media_omniv_med import load_clip
from tests.helpers.hostile_server import send, serving
from tests.helpers.orthanc import PASSWORD, USER, Orthanc, needs_orthanc, orthanc_in
from tests.helpers.study_files import BIRTH_DATE, UIDS, write_studies

pytestmark = pytest.mark.usefixtures("one_thread")
QUESTIONS = """\
max_new_tokens: 4
questions:
  - {id: modality, ask: "Which imaging modality is this?"}
  - {id: bone, ask: "Is there a fracture?", modality: CT, description: head, reading: {windows: bone}}
"""


@pytest.mark.parametrize(
    "address",
    [
        "dicomweb:///studies",
        "dicomweb://a/series/1.2",
        "dicomweb://a/studies/..",
        "dicomweb://a/studies/1.2/series/1.3/instances/1.4",
        "dicomweb://a/studies/1.2?StudyDate=2024",
        "dicomweb://a/studies?PatientName=x",
        "https://a/studies",
    ],
)
def test_an_address_that_means_nothing_is_refused(address: str) -> None:
    with pytest.raises(ArchiveError):
        Address.parse(address)


def test_an_address_says_what_is_meant() -> None:
    assert Address.parse("dicomweb://a") == Address.parse("dicomweb://a/studies/") == Address("a", "", "", {})
    assert Address.parse("dicomweb://a/studies/1.2/series/1.3") == Address("a", "1.2", "1.3", {})
    searched = Address.parse("dicomweb://a/studies?ModalitiesInStudy=CT&StudyDate=20240101-20240131")
    assert searched.filters == {"ModalitiesInStudy": "CT", "StudyDate": "20240101-20240131"}


def test_no_address_is_looked_up_without_the_operators_archives(tmp_path: Path) -> None:
    with pytest.raises(StudiesError, match="give the YAML"):
        find_series("dicomweb://a/studies")
    (tmp_path / "list.csv").write_text("path\ndicomweb://a/studies/1.2\n")
    with pytest.raises(StudiesError, match="give the YAML"):
        find_series(tmp_path / "list.csv")
    (tmp_path / "archives.yaml").write_text("b: {url: https://x/}")
    with pytest.raises(ArchiveError, match="names no archive a"):
        find_series("dicomweb://a/studies", in_archive=ArchiveMedia(tmp_path / "archives.yaml").find)


# --- With Orthanc ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The DICOM files of the studies alone."""
    made = write_studies(tmp_path_factory.mktemp("folder"))
    for name in ("head.nii.gz", "picture.png", "film.mp4", "damaged.png", "export.zip", "notes.txt", ".hidden"):
        (made / name).unlink()
    return made


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Iterator[Orthanc]:
    """An archive that holds the same files."""
    with orthanc_in(tmp_path_factory.mktemp("orthanc")) as server, pytest.MonkeyPatch.context() as environment:
        environment.setenv("TEST_USER", USER)
        environment.setenv("TEST_PASSWORD", PASSWORD)
        settings = tmp_path_factory.mktemp("settings") / "archives.yaml"
        server.archives = write_settings(settings, server.address)
        Archive.read(server.archives, "local").store(
            [*folder.rglob("*_LEAKED"), *folder.rglob("loop*"), folder / "report"]
        )
        yield server


def write_settings(path: Path, address: str) -> Path:
    path.write_text(
        f"local:\n  url: {address}\n  authorization: basic\n  user_variable: TEST_USER\n"
        "  password_variable: TEST_PASSWORD\n  attempts: 2\n  first_wait_seconds: 0.01\n"
    )
    return path


def rows_in(out: Path) -> dict[str, dict[str, Any]]:
    rows = [row for _, row in read_lines(out / ANSWERS) if row is not None and "id" in row]
    return {row["id"]: {name: value for name, value in row.items() if name != "seconds"} for row in rows}


def command(studies: object, out: Path, model: Path, questions: Path, *more: object) -> list[str]:
    start = [studies, "--questions", questions, "--out", out, "--model", model]
    return [str(one) for one in [*start, *more]]


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("questions") / "questions.yaml"
    path.write_text(QUESTIONS, encoding="utf-8")
    return path


@needs_orthanc
def test_an_archive_has_the_series_of_the_same_files_in_a_folder(orthanc: Orthanc, folder: Path) -> None:
    media = ArchiveMedia(orthanc.archives)
    archived, passed_over = find_series("dicomweb://local/studies", in_archive=media.find)
    filed, _ = find_series(folder)

    def facts(series: list[Series]) -> list[tuple[object, ...]]:
        return [(one.key, one.modality, one.description, one.file_count, one.patient_id) for one in series]

    assert facts(archived) == facts(filed) and len(archived) == 4
    assert [one.reason for one in passed_over] == ["a series without pictures, or with results about some (SR)"]
    only, _ = find_series("dicomweb://local/studies?ModalitiesInStudy=US", in_archive=media.find)
    assert {one.study for one in only} == {UIDS.heart}


@needs_orthanc
def test_a_run_about_an_archive_gives_the_rows_of_one_about_a_folder(
    orthanc: Orthanc, folder: Path, questions: Path, tiny: Path, tmp_path: Path, capsys, caplog
) -> None:
    caplog.set_level(logging.DEBUG)
    archives = ["--archives", orthanc.archives]
    assert main(command("dicomweb://local/studies", tmp_path / "archived", tiny, questions, *archives)) == 0
    assert main(command(folder, tmp_path / "filed", tiny, questions)) == 0
    assert rows_in(tmp_path / "archived") == rows_in(tmp_path / "filed") and len(rows_in(tmp_path / "filed")) == 6
    printed = capsys.readouterr()
    told = [printed.out.replace(str(folder), ""), printed.err, caplog.text]
    told += [path.read_bytes().decode("latin-1") for path in (tmp_path / "archived").rglob("*") if path.is_file()]
    assert not [text for text in told if "leaked" in text.lower() or BIRTH_DATE in text or PASSWORD in text]

    (tmp_path / "list.csv").write_text(
        f"path,study,max_frames\ndicomweb://local/studies/{UIDS.head}/series/{UIDS.thin},mine,2\n"
    )
    assert main(command(tmp_path / "list.csv", tmp_path / "listed", tiny, questions, *archives)) == 0
    listed = rows_in(tmp_path / "listed").values()
    assert {(row["study"], row["series"], row["frames"]) for row in listed} == {("mine", UIDS.thin, 2)}


@needs_orthanc
def test_an_archive_that_dies_costs_rows_which_a_retry_gives(
    folder: Path, questions: Path, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_USER", USER)
    monkeypatch.setenv("TEST_PASSWORD", PASSWORD)
    server_folder = tmp_path / "server"
    server_folder.mkdir()
    with orthanc_in(server_folder) as server:
        archives = write_settings(tmp_path / "archives.yaml", server.address)
        Archive.read(archives, "local").store([*folder.rglob("*_LEAKED")])
        fetch, fetched = ArchiveMedia.fetch, []

        def fetch_and_die(self: ArchiveMedia, source: ArchivedSeries, into: Path) -> list[str]:
            fetched.append(source)
            if len(fetched) == 2:
                server.kill()
            return fetch(self, source, into)

        monkeypatch.setattr(ArchiveMedia, "fetch", fetch_and_die)
        arguments = command("dicomweb://local", tmp_path / "out", tiny, questions, "--archives", archives)
        assert main([*arguments, "--readers", "1"]) == 0
        failed = [row for row in rows_in(tmp_path / "out").values() if "error" in row]
        assert failed and all("cannot be reached or breaks off" in row["error"] for row in failed)
        server.start()
        assert main([*arguments, "--retry"]) == 0
    assert main(command(folder / "LEAKED/mixed", tmp_path / "filed", tiny, questions)) == 0
    assert rows_in(tmp_path / "out") == rows_in(tmp_path / "filed")


@needs_orthanc
def test_load_clip_reads_the_series_at_an_address(orthanc: Orthanc, folder: Path) -> None:
    clip = ArchiveMedia(orthanc.archives).load_clip(
        f"dicomweb://local/studies/{UIDS.head}/series/{UIDS.thin}", windows="bone"
    )
    files = [str(path) for path in sorted((folder / "LEAKED/mixed").iterdir())[::2]]
    expected = load_clip(files, windows="bone")
    assert np.array_equal(clip.frames, expected.frames) and clip.notes == expected.notes
    with pytest.raises(ArchiveError, match="names no series"):
        ArchiveMedia(orthanc.archives).load_clip(f"dicomweb://local/studies/{UIDS.head}")
    with pytest.raises(ArchiveError, match="no such study or series"):
        ArchiveMedia(orthanc.archives).load_clip(f"dicomweb://local/studies/{UIDS.head}/series/1.2")


@needs_orthanc
def test_what_was_read_for_the_last_time_is_deleted(orthanc: Orthanc) -> None:
    media = ArchiveMedia(orthanc.archives)
    (one, *_), _ = find_series("dicomweb://local", in_archive=media.find)
    with Downloads(media, [one.source] * 2) as downloads:
        with downloads.files(one.source) as files:
            written = [os.stat(path).st_mtime_ns for path in files]
        with downloads.files(one.source) as files:
            assert [os.stat(path).st_mtime_ns for path in files] == written, "nothing is fetched twice"
        assert not any(map(os.path.exists, files))


@needs_orthanc
def test_a_series_over_the_limits_is_passed_over(orthanc: Orthanc) -> None:
    media = ArchiveMedia(orthanc.archives, limits=FetchLimits(max_instances=3))
    found, passed_over = find_series("dicomweb://local/studies", in_archive=media.find)
    assert {one.series for one in found} == {UIDS.loops}
    assert {one.path for one in passed_over if "more instances or bytes" in one.reason} == {UIDS.thin, UIDS.thick}


def test_an_archive_that_says_nothing_of_pixels_gives_each_series_whole(tmp_path: Path) -> None:
    def listed(handler, number) -> None:
        series = b'[{"0020000E": {"vr": "UI", "Value": ["1.2.3"]}, "00080060": {"vr": "CS", "Value": ["ct <b>"]}}]'
        instances = (
            b'[{"00080018": {"vr": "UI", "Value": ["1.2.3.4"]}}, {"00080018": {"vr": "UI", "Value": ["1.2.3.5"]}}]'
        )
        study = b'[{"0020000D": {"vr": "UI", "Value": ["1.2"]}}]'
        path = handler.path.partition("?")[0]
        send(handler, body=instances if path.endswith("instances") else series if path.endswith("series") else study)

    with serving(listed) as server:
        (tmp_path / "archives.yaml").write_text(f"a: {{url: '{server.address}'}}")
        (found,) = ArchiveMedia(tmp_path / "archives.yaml").find("dicomweb://a")
    assert isinstance(found, Series) and not isinstance(found, Skipped)
    assert (found.key, found.modality) == ("1.2 1.2.3", "")
    assert found.source == ArchivedSeries("a", "1.2", "1.2.3", ("1.2.3.4", "1.2.3.5"))
