# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Answers as a Comprehensive SR: it refers to the images, names the model, and holds the patient only if asked to."""

from __future__ import annotations

import logging

import pydicom
import pytest
from highdicom.sr import srread
from pydicom.dataset import Dataset
from pydicom.uid import ComprehensiveSRStorage

from clinic.source_series import SeriesError, read_series
from clinic.structured_report import RESEARCH_ONLY, ModelIdentity, QuestionAnswered, as_text, build_report
from tests.helpers.clinical_series import PATIENT, POSES, body, write_series
from tests.helpers.dicom_checks import errors_of, marks_in, needs_dciodvfy

MODEL = ModelIdentity("OmniV-Med-Nano", "sha256:0123456789ab")
ANSWERS = [
    QuestionAnswered("Which imaging modality is this?", "CT", 0.8714, False),
    QuestionAnswered("Ist die Leber vergrößert? 肝臓", "I cannot tell from this image.", 0.05, True),
]


@pytest.fixture
def folder(tmp_path):
    write_series(tmp_path / "series", body(), POSES["oblique"])
    return tmp_path / "series"


@pytest.fixture(params=[False, True], ids=["anonymous", "with the patient"])
def report(request, folder, tmp_path):
    """A report as it is read again, with and without the patient."""
    written = build_report(read_series(folder, keep_ids=request.param), ANSWERS, MODEL, ["Pruned by the rule anchor."])
    written.save_as(tmp_path / "answers.dcm")
    return tmp_path / "answers.dcm"


def items_called(item: Dataset, meaning: str) -> list[Dataset]:
    """Content items with this name, anywhere below an item."""
    found = []
    for child in item.get("ContentSequence", ()):
        found += [child] if child.ConceptNameCodeSequence[0].CodeMeaning == meaning else []
        found += items_called(child, meaning)
    return found


def test_questions_answers_and_certainty_are_read_again(report):
    document = srread(report)
    assert document.SOPClassUID == ComprehensiveSRStorage
    assert [item.TextValue for item in items_called(document, "Question")] == [one.question for one in ANSWERS]
    assert [item.TextValue for item in items_called(document, "Answer")] == [one.answer for one in ANSWERS]
    measured = [item.MeasuredValueSequence[0] for item in items_called(document, "Certainty of Finding")]
    assert [float(value.NumericValue) for value in measured] == [87.1, 5.0]
    assert {value.MeasurementUnitsCodeSequence[0].CodeValue for value in measured} == {"%"}
    said = [item.ConceptCodeSequence[0].CodeMeaning for item in items_called(document, "Model declined to answer")]
    assert said == ["No", "Yes"]


def test_it_says_that_it_is_for_research_and_by_which_model(report):
    document = pydicom.dcmread(report)
    assert "research use only" in document.ConceptNameCodeSequence[0].CodeMeaning
    assert "research use only" in document.SeriesDescription
    assert [item.TextValue for item in items_called(document, "Notice")] == [RESEARCH_ONLY]
    assert [item.TextValue for item in items_called(document, "Device Observer Name")] == [
        f"{MODEL.name} {MODEL.version}"
    ]
    assert [item.UID for item in items_called(document, "Device Observer UID")] == [MODEL.uid]
    assert [item.TextValue for item in items_called(document, "Algorithm Version")] == [MODEL.version]
    assert document.VerificationFlag == "UNVERIFIED"


def test_it_refers_to_every_image_of_the_series(report, folder):
    images = [pydicom.dcmread(file, stop_before_pixels=True) for file in folder.iterdir()]
    document = pydicom.dcmread(report)
    named = [item.ReferencedSOPSequence[0] for item in items_called(document, "Source of Measurement")]
    assert {item.ReferencedSOPInstanceUID for item in named} == {image.SOPInstanceUID for image in images}
    evidence = document.CurrentRequestedProcedureEvidenceSequence[0]
    assert evidence.StudyInstanceUID == document.StudyInstanceUID == images[0].StudyInstanceUID
    assert evidence.ReferencedSeriesSequence[0].SeriesInstanceUID == images[0].SeriesInstanceUID
    assert document.SeriesInstanceUID != images[0].SeriesInstanceUID


@needs_dciodvfy
def test_it_is_as_the_standard_says(report):
    assert errors_of(report) == []


def test_by_default_nothing_of_the_patient_is_in_it(folder, tmp_path):
    build_report(read_series(folder), ANSWERS, MODEL).save_as(tmp_path / "answers.dcm")
    assert marks_in((tmp_path / "answers.dcm").read_bytes()) == []
    document = pydicom.dcmread(tmp_path / "answers.dcm")
    assert (document.PatientName, document.PatientID, document.PatientIdentityRemoved) == ("ANON", "ANON", "YES")
    assert not document.PatientBirthDate and not document.StudyDate and not document.AccessionNumber


def test_on_request_patient_and_study_are_those_of_the_images(folder):
    document = build_report(read_series(folder, keep_ids=True), ANSWERS, MODEL)
    kept = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate")
    assert {keyword: str(document[keyword].value) for keyword in kept} == {
        keyword: PATIENT[keyword] for keyword in kept
    }


def test_letters_of_the_patient_and_of_the_question_are_kept(tmp_path):
    write_series(tmp_path / "series", body(2), SpecificCharacterSet="ISO_IR 100", PatientName="Müller^Jürgen")
    build_report(read_series(tmp_path / "series", keep_ids=True), ANSWERS, MODEL).save_as(tmp_path / "answers.dcm")
    document = pydicom.dcmread(tmp_path / "answers.dcm")
    assert document.PatientName == "Müller^Jürgen"
    assert items_called(document, "Question")[1].TextValue == ANSWERS[1].question


def test_no_value_of_the_patient_is_logged(tmp_path, caplog):
    """Libraries complain about names and dates by repeating them."""
    write_series(tmp_path, body(2), PatientName="Wombatowski without a caret")
    with caplog.at_level(logging.DEBUG):
        build_report(read_series(tmp_path, keep_ids=True), ANSWERS, MODEL)
    assert marks_in(caplog.text.encode()) == []


def test_of_several_series_one_must_be_named(tmp_path):
    write_series(tmp_path / "first", body(2), SeriesNumber=2)
    write_series(tmp_path / "second", body(3), SeriesNumber=7)
    with pytest.raises(SeriesError, match=r"2 series: 2 \(2 files\), 7 \(3 files\); say which"):
        read_series(tmp_path)
    assert len(read_series(tmp_path, "7").files) == 3


@pytest.mark.parametrize(
    ("content", "sentence"), [(b"", "holds no DICOM file"), (b"\0" * 128 + b"DICM\x02\x00", "There are no images")]
)
def test_what_is_no_series_is_refused(tmp_path, content, sentence):
    (tmp_path / "file.dcm").write_bytes(content)
    with pytest.raises(SeriesError, match=sentence):
        read_series(tmp_path)


@pytest.mark.parametrize(
    ("said", "written"), [("no\x1f nodule\x00", "no  nodule "), ("a\tb\nc\r", "a\tb\nc\r"), ("Ödem", "Ödem")]
)
def test_an_answer_holds_no_control_character_that_dicom_forbids(said, written):
    assert as_text(said) == written
