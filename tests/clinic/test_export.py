# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The command that asks about a series and writes SR, SEG and NIfTI: whole, and without the patient by default."""

from __future__ import annotations

import gzip
import logging

import nibabel
import numpy as np
import pydicom
import pytest

from clinic.archive_settings import ArchiveSettings
from clinic.dicomweb import Archive
from clinic.export import main
from tests.helpers.clinical_series import PATIENT, POSES, body, slice_alone, write_series
from tests.helpers.dicom_checks import errors_of, marks_in, needs_dciodvfy
from tests.helpers.orthanc import PASSWORD, USER, needs_orthanc, orthanc_in

pytestmark = pytest.mark.usefixtures("one_thread")

FILES = {"answers.dcm", "tokens.dcm", "tokens.nii.gz", "reconstruction.nii.gz"}
ASKED = ["--question", "Which imaging modality is this?", "--question", "Is there a lesion?"]


@pytest.fixture(scope="module")
def exported(tmp_path_factory, tiny):
    """The results for a series, once without and once with the patient, by `keep_ids`; and the series."""
    folder = tmp_path_factory.mktemp("exported")
    write_series(folder / "series", body(), POSES["oblique"])
    for name, further in {"anonymous": [], "kept": ["--keep-ids"]}.items():
        out = ["--out", str(folder / name), "--model", str(tiny)]
        assert main([str(folder / "series"), *ASKED, *out, *further]) == 0
    return folder


@pytest.mark.parametrize("name", ["anonymous", "kept"])
def test_all_results_are_there_and_whole(exported, name):
    assert {file.name for file in (exported / name).iterdir()} == FILES
    for file in ("tokens.nii.gz", "reconstruction.nii.gz"):
        assert nibabel.load(exported / name / file).shape == (16, 20, 12)
    labels = np.asarray(nibabel.load(exported / name / "tokens.nii.gz").dataobj)
    assert set(np.unique(labels)) <= {1, 2}
    report = pydicom.dcmread(exported / name / "answers.dcm")
    questions = [
        item.ContentSequence[0].TextValue
        for item in report.ContentSequence
        if item.ConceptNameCodeSequence[0].CodeValue == "EXCHANGE"
    ]
    assert questions == ASKED[1::2]


@needs_dciodvfy
@pytest.mark.parametrize("name", ["anonymous", "kept"])
@pytest.mark.parametrize("file", ["answers.dcm", "tokens.dcm"])
def test_dicom_results_are_as_the_standard_says(exported, name, file):
    assert errors_of(exported / name / file) == []


def test_by_default_no_result_holds_the_patient(exported):
    for file in (exported / "anonymous").iterdir():
        data = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
        assert marks_in(data) == [], file.name


def test_on_request_the_patient_is_in_dicom_results_and_never_in_nifti(exported):
    for file in (exported / "kept").iterdir():
        if file.suffix == ".gz":
            assert marks_in(gzip.decompress(file.read_bytes())) == []
        else:
            assert pydicom.dcmread(file).PatientName == PATIENT["PatientName"]


@pytest.mark.filterwarnings("ignore::UserWarning")  # it is the test that writes it
@pytest.mark.parametrize("keyword", ["PatientName", "PatientBirthDate", "StudyTime", "PatientSex", "AccessionNumber"])
def test_nothing_that_is_printed_or_logged_holds_the_patient(tmp_path, tiny, caplog, capfd, keyword):
    """Libraries complain about values that break the rules, and repeat them."""
    write_series(tmp_path / "series", body(2), **{keyword: "Wombatowski, against all rules"})
    caplog.clear()
    capfd.readouterr()
    with caplog.at_level(logging.DEBUG):
        main([str(tmp_path / "series"), *ASKED, "--out", str(tmp_path / "out"), "--model", str(tiny), "--keep-ids"])
    printed = capfd.readouterr()
    assert printed.out or printed.err
    assert marks_in((printed.out + printed.err + caplog.text).encode()) == []


def test_a_single_picture_gets_a_report_alone(tmp_path, tiny, capsys):
    write_series(tmp_path / "series", slice_alone())
    assert main([str(tmp_path / "series"), *ASKED, "--out", str(tmp_path / "out"), "--model", str(tiny)]) == 0
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["answers.dcm"]
    assert "Only volumes are pruned" in capsys.readouterr().err


@needs_orthanc
@pytest.mark.parametrize("name", ["anonymous", "kept"])
def test_results_go_to_an_archive_and_come_back(exported, name, tmp_path):
    with orthanc_in(tmp_path) as server:
        basic = {"authorization": "basic", "user_variable": "USER", "password_variable": "PASSWORD"}
        archive = Archive(ArchiveSettings("test", server.address, **basic), {"USER": USER, "PASSWORD": PASSWORD})
        archive.store([exported / name / "answers.dcm", exported / name / "tokens.dcm"])
        (study,) = archive.studies({})
        listed = {series.modality: series for series in archive.series(study.uid)}
        assert listed.keys() == {"SR", "SEG"}
        assert "research use only" in listed["SR"].description
        for modality, file in {"SR": "answers.dcm", "SEG": "tokens.dcm"}.items():
            (back,) = archive.fetch_series(study.uid, listed[modality].uid, tmp_path / modality)
            assert pydicom.dcmread(back) == pydicom.dcmread(exported / name / file)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["missing", "--question", "What?", "--out", "out"], "export: missing does not exist"),
        (["missing", "--question", " ", "--out", "out"], "export: A question is empty"),
        (["missing", "--out", "out"], "export: the following arguments are required: --question"),
    ],
)
def test_wrong_input_is_one_line(arguments, sentence, capsys):
    assert main(arguments) == 2
    assert capsys.readouterr().err.startswith(sentence)
