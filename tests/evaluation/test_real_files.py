# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The real files: what the manifest promises holds for those that are here, and what counts as right."""

from __future__ import annotations

import pydicom
import pytest

from data_engine.phantoms import MODALITIES
from evaluation.nano import real_files
from evaluation.nano.real_files import (
    FetchError,
    Package,
    RealFile,
    fetch,
    majority,
    markdown,
    measure,
    read_manifest,
    summarise,
)
from evaluation.run import load
from hub_model.media_omniv_med import load_clip

pytestmark = pytest.mark.usefixtures("one_thread")
FILES = read_manifest()
INSTALLED = [one for one in FILES if one.package.name in ("pydicom", "nibabel")]
HEADER_SAYS = {"CT": "CT", "MR": "MRI", "US": "ultrasound", "CR": "X-ray", "DX": "X-ray"}


def test_the_manifest_lists_enough_files_each_once_with_a_modality_and_a_licence():
    assert len(FILES) >= 20
    assert len({(one.package.name, one.path) for one in FILES}) == len(FILES)
    assert {one.modality for one in FILES} <= set(MODALITIES)
    assert {one.known_from for one in FILES} == {"header", "documentation"}
    assert all(one.package.licence and one.package.version for one in FILES)
    assert not any("mni" in one.path.lower() for one in FILES), "MNI152 is trained on"


def test_the_files_of_packages_that_are_installed_are_found_and_read():
    assert INSTALLED
    for one in INSTALLED:
        assert one.find() is not None, one
        assert len(load_clip(str(one.find()), max_frames=2).frames)


@pytest.mark.parametrize("one", [f for f in FILES if f.known_from == "header" and f.find()], ids=lambda f: f.path)
def test_a_modality_known_from_the_header_is_what_the_header_says(one):
    header = pydicom.dcmread(one.find(), stop_before_pixels=True, force=True)
    assert HEADER_SAYS[header.Modality] == one.modality


def test_no_two_files_show_the_same_patient():
    seen = {}
    for one in FILES:
        if one.known_from == "header" and one.find():
            header = pydicom.dcmread(one.find(), stop_before_pixels=True, force=True)
            study = str(header.get("StudyInstanceUID") or one.path)
            assert study not in seen, f"{one.path} is of the same study as {seen[study]}"
            seen[study] = one.path


def test_most_answers_count_and_the_first_where_none_agree():
    assert majority(["CT.", "MRI", "ct"]) == "ct"
    assert majority(["MRI", "CT", "X-ray"]) == "mri"


@pytest.fixture(scope="module")
def result(tiny):
    missing = RealFile(Package("no-such-package", "PyPI", "1", "MIT", "nothing"), "a.png", "OCT", "documentation", "")
    return measure(*load(str(tiny), {}, "cpu"), [*INSTALLED[:4], missing])


def test_every_file_that_is_there_is_asked_in_all_wordings_and_others_are_listed(result):
    assert result["count"] == 4
    assert all(len(row["answers"]) == len(real_files.WORDINGS) for row in result["files"])
    assert result["missing_files"] == [{"package": "no-such-package", "path": "a.png"}]
    assert result["interval"][0] <= result["accuracy"] <= result["interval"][1]
    assert sum(count for row in result["confusion"].values() for count in row.values()) == 4
    assert "OCT" in result["modalities_without_a_file"]


def test_the_table_has_a_line_for_each_file_and_a_cell_for_each_answer():
    def row(modality, said):
        about = {"package": "p", "version": "1", "licence": "MIT", "path": "f", "shows": "s", "known_from": "header"}
        return about | {"modality": modality, "answers": [said], "said": said, "right": said == modality.lower()}

    made = summarise([row("CT", "ct"), row("CT", "mri"), row("MRI", "mri"), row("X-ray", "a | bone")], [])
    assert made["accuracy"] == 0.5
    text = markdown(made)
    assert "2 of 4 right: 50.0 %" in text
    assert "| true, down; said, across | CT | MRI | something else |" in text
    assert "| CT | 1 | 1 | |" in text
    assert "| X-ray | | | 1 |" in text
    assert "| a \\| bone | wrong |" in text
    assert text.count("| p 1 |") == 4


def test_nothing_to_ask_says_what_to_do(tiny):
    with pytest.raises(ValueError, match="--fetch"):
        measure(*load(str(tiny), {}, "cpu"), [])


def test_a_package_that_cannot_be_fetched_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(real_files, "CACHE", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FetchError, match="apt-get is not on this machine"):
        fetch(Package("insighttoolkit5-examples", "Debian", "1", "Apache-2.0", "nothing"))
