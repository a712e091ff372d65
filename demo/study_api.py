# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The endpoints about studies of the operator's archives, for programs and AI assistants; only where he names archives.

What is listed names no patient. A client names an archive of the list and codes of listings, never an address. The
limits are those of files: the largest upload, and the seconds that reading may take.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from gradio.events import api

from demo.api import answers, description
from demo.panels.errors import errors_for_visitors
from demo.panels.queues import MODEL, MOST_READING, READING
from demo.service.assistant import Assistant
from hub_model.configuration_omniv_med import PruneStage
from hub_model.token_pruning_omniv_med import PruneRule

if TYPE_CHECKING:
    from demo.service.studies import Studies
    from hub_model.media_omniv_med import Clip


class StudyEndpoints:
    """The functions behind the endpoints. Gradio and MCP publish their names, signatures and docstrings."""

    def __init__(self, assistant: Assistant, studies: Studies) -> None:
        self._assistant, self._studies = assistant, studies

    def list_studies(self, archive: str = "", modality: str = "") -> dict[str, Any]:
        """Lists studies of an archive that the operator of this server configured; nothing about the patients.

        Args:
            archive: one of the archives; "" lists these alone.
            modality: of these studies alone, such as "CT"; "" for all.

        Returns:
            archives (their names) and studies, 200 at most: code, modalities, numbers of series and images.
        """
        with errors_for_visitors():
            listed = self._studies.studies(archive, modality) if archive else []
            return {"archives": self._studies.names, "studies": [asdict(one) for one in listed]}

    def describe_study(self, study: str, series: str = "") -> dict[str, Any]:
        """Says which series a study has, and what one of them is; nothing about the patient.

        Args:
            study: its code, as list_studies gives it.
            series: the code of one of its series, which is then read; "" for the list alone.

        Returns:
            series (code, modality, number of images), and under description what describe_file says of a file, null
            where no series was named.
        """
        with errors_for_visitors():
            listed = self._studies.series(study)
            if series and series not in {one.code for one in listed}:
                raise ValueError("The study has no series of that code; take one of its list.")
            return {
                "series": [asdict(one) for one in listed],
                "description": description(self._read(series)) if series else None,
            }

    def ask_about_series(
        self,
        series: str,
        question: str,
        rule: PruneRule = "anchor",
        threshold: float = 0.1,
        keep_ratio: float = 1.0,
        stage: PruneStage = "language",
    ) -> Iterator[dict[str, Any]]:
        """Asks one question about a series of a study; for research only, answers can be wrong.

        Args:
            series: its code, as describe_study gives it.
            question: in English.
            rule: as for prune_file.
            threshold: as for prune_file.
            keep_ratio: as for prune_file.
            stage: as for ask_about_file.

        Returns:
            as ask_about_file.
        """
        with errors_for_visitors():
            changes = {"rule": rule, "threshold": threshold, "keep_ratio": keep_ratio, "stage": stage}
            yield from answers(self._assistant, lambda: self._read(series), question, changes)

    def _read(self, series: str) -> Clip:
        """Fetches and reads a series."""
        with self._studies.files(series) as files:
            return self._assistant.read(files)


def add_study_endpoints(assistant: Assistant, studies: Studies) -> None:
    """Adds the endpoints to the page that is being built."""
    endpoints = StudyEndpoints(assistant, studies)
    api(endpoints.list_studies, concurrency_limit=MOST_READING, concurrency_id=READING)
    api(endpoints.describe_study, concurrency_limit=MOST_READING, concurrency_id=READING)
    api(endpoints.ask_about_series, concurrency_limit=1, concurrency_id=MODEL)
