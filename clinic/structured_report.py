# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Answers as a DICOM Comprehensive SR, which an archive keeps beside the images that were asked about.

The tree, in the words of PS3.16: a title that says what this is, English as the language, the model as the observing
device (TID 1002 and 1004), a sentence that this is for research alone, the algorithm (TID 4019), the images, and for
each question a container with the question, the answer and the device's certainty in percent.
"""

from __future__ import annotations

import unicodedata
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import highdicom
from highdicom import sr
from highdicom.coding_schemes import CodingSchemeIdentificationItem
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import UID

from clinic.source_series import SeriesError, SourceSeries, values_stay_out_of_logs

RESEARCH_ONLY = (
    "Research use only. This is the output of a research model and not of a medical device; never use it for a patient."
)
SERIES_NUMBER = 9001
"""Of reports; archives show series by these numbers, and results come after the images."""
SCHEME = "99OMNIVMED"
MANUFACTURER = "OmniV-Med"


@dataclass(frozen=True)
class ModelIdentity:
    """Which model answered.

    Attributes:
        name: as it is called ("OmniV-Med-Nano").
        version: what tells its weights from others.
    """

    name: str
    version: str

    @property
    def uid(self) -> UID:
        """The same for the same name and version (PS3.5 B.2)."""
        return UID(f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, f'{self.name} {self.version}').int}")


@dataclass(frozen=True)
class QuestionAnswered:
    """One question and what the model said.

    Attributes:
        question, answer: their words.
        confidence: from 0 to 1.
        declined: whether the answer is that it cannot be told.
    """

    question: str
    answer: str
    confidence: float
    declined: bool


def as_text(words: str) -> str:
    """A model's words with a space for what the value representation UT does not allow (PS3.5, 6.2).

    Of the control characters it takes tab, line feed, form feed and carriage return alone.
    """
    return "".join(one if one in "\t\n\f\r" or unicodedata.category(one) != "Cc" else " " for one in words)


def own_code(value: str, meaning: str) -> sr.CodedConcept:
    """A code of this project's own scheme, where the standard has none."""
    return sr.CodedConcept(value, SCHEME, meaning)


def own_scheme() -> CodingSchemeIdentificationItem:
    """Who is responsible for these codes (PS3.3 C.12.1.1.2)."""
    return CodingSchemeIdentificationItem(SCHEME, name="OmniV-Med", responsible_organization="The OmniV-Med Authors")


def identity_of_result(model: ModelIdentity, series_number: int, description: str) -> dict[str, Any]:
    """What every result says of itself, as highdicom's objects take it: the only instance of a series of its own, and
    which model made it.

    Args:
        model: who made it.
        series_number: after those of the images.
        description: of the series, in a few words.
    """
    return {
        "series_instance_uid": highdicom.UID(),
        "series_number": series_number,
        "series_description": description,
        "sop_instance_uid": highdicom.UID(),
        "instance_number": 1,
        "manufacturer": MANUFACTURER,
        "manufacturer_model_name": model.name,
        "software_versions": model.version,
        "coding_schemes": [own_scheme()],
    }


TITLE = own_code("ANSWERS", "Answers of a vision-language model, research use only")
NOTICE = own_code("NOTICE", "Notice")
EXCHANGE = own_code("EXCHANGE", "Question and answer")
QUESTION = own_code("QUESTION", "Question")
ANSWER = own_code("ANSWER", "Answer")
DECLINED = own_code("DECLINED", "Model declined to answer")


def build_report(
    series: SourceSeries, answers: Sequence[QuestionAnswered], model: ModelIdentity, settings: Sequence[str] = ()
) -> sr.ComprehensiveSR:
    """Answers about a series as a report.

    Args:
        series: what was asked about; its headers say what the report holds of the patient.
        answers: in the order they were asked.
        model: who answered.
        settings: how the images were read and pruned, one sentence each.

    Raises:
        SeriesError: headers whose values no report may hold.
        ValueError: no answers.
    """
    if not answers:
        raise ValueError("A report needs one answer at least.")
    with values_stay_out_of_logs():
        try:
            return sr.ComprehensiveSR(
                evidence=series.headers,
                content=_content(series.headers, answers, model, settings),
                is_complete=True,
                **identity_of_result(model, SERIES_NUMBER, "Answers of a model, research use only"),
            )
        except (AttributeError, TypeError, ValueError):  # with the value that is wrong in its message
            raise SeriesError(
                "The headers of the series have values that DICOM does not allow, so a report cannot repeat them; "
                "leave the patient out."
            ) from None


def _content(
    headers: Sequence[Dataset], answers: Sequence[QuestionAnswered], model: ModelIdentity, settings: Sequence[str]
) -> Dataset:
    """The root of the tree."""
    observer = sr.ObserverContext(
        observer_type=codes.cid270.Device,
        observer_identifying_attributes=sr.DeviceObserverIdentifyingAttributes(
            uid=model.uid,
            name=f"{model.name} {model.version}",
            manufacturer_name=MANUFACTURER,
            model_name=model.name,
        ),
    )
    root = sr.ContainerContentItem(name=TITLE, is_content_continuous=False)
    contained = sr.RelationshipTypeValues.CONTAINS
    library = sr.ContainerContentItem(
        name=codes.DCM.ImageLibrary, is_content_continuous=False, relationship_type=contained
    )
    library.ContentSequence = sr.ContentSequence(
        [
            sr.ImageContentItem(
                name=codes.DCM.SourceOfMeasurement,
                referenced_sop_class_uid=header.SOPClassUID,
                referenced_sop_instance_uid=header.SOPInstanceUID,
                relationship_type=contained,
            )
            for header in headers
        ]
    )
    root.ContentSequence = sr.ContentSequence(
        [
            *sr.LanguageOfContentItemAndDescendants(sr.CodedConcept("en", "RFC5646", "English")),
            *observer,
            sr.TextContentItem(name=NOTICE, value=RESEARCH_ONLY, relationship_type=contained),
            *sr.AlgorithmIdentification(model.name, model.version, list(settings)),
            library,
            *(_exchange(answer) for answer in answers),
        ]
    )
    return root


def _exchange(answered: QuestionAnswered) -> sr.ContainerContentItem:
    """One question with its answer. Certainty of Finding (111013, DCM) is in percent, as in TID 4104."""
    contained = sr.RelationshipTypeValues.CONTAINS
    item = sr.ContainerContentItem(name=EXCHANGE, is_content_continuous=False, relationship_type=contained)
    certainty = sr.NumContentItem(
        name=sr.CodedConcept("111013", "DCM", "Certainty of Finding"),
        value=round(100 * answered.confidence, 1),
        unit=codes.UCUM.Percent,
        relationship_type=contained,
    )
    declined = sr.CodeContentItem(
        name=DECLINED, value=codes.SCT.Yes if answered.declined else codes.SCT.No, relationship_type=contained
    )
    item.ContentSequence = sr.ContentSequence(
        [
            sr.TextContentItem(name=QUESTION, value=as_text(answered.question), relationship_type=contained),
            sr.TextContentItem(name=ANSWER, value=as_text(answered.answer), relationship_type=contained),
            certainty,
            declined,
        ]
    )
    return item
