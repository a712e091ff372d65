# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Lists from which a visitor chooses a series: the operator's archives, their studies, the series of a study."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gradio as gr

from demo.panels.errors import errors_for_visitors
from demo.panels.queues import MOST_READING, READING

if TYPE_CHECKING:
    from demo.service.studies import Studies

Update = dict[str, Any]


class ArchivePanel:
    """The lists, placed in the layout block around the call, each filled by the choice in the one before.

    Attributes:
        series: whose value is the code of the chosen series.
        load: the button that is pressed to load it.
    """

    def __init__(self, studies: Studies) -> None:
        self._studies = studies
        with gr.Accordion("Studies of an archive", open=True, elem_id="archive"):
            archive = gr.Dropdown(studies.names, value=None, label="Archive")
            study = gr.Dropdown([], value=None, label="Study")
            self.series = gr.Dropdown([], value=None, label="Series")
            self.load = gr.Button("Load series")
        reading: dict[str, Any] = {
            "api_visibility": "private",
            "concurrency_limit": MOST_READING,
            "concurrency_id": READING,
        }
        archive.input(self.fill_studies, archive, [study, self.series], show_progress_on=study, **reading)
        study.input(self.fill_series, study, self.series, show_progress_on=self.series, **reading)

    def fill_studies(self, archive: str | None) -> tuple[Update, Update]:
        """The studies of an archive; no series is chosen then."""
        with errors_for_visitors():
            listed = self._studies.studies(archive) if archive else []
        choices = [
            (f"{one.modalities or 'unknown'}, {one.series} series, {one.images} images ({one.code})", one.code)
            for one in listed
        ]
        return gr.update(choices=choices, value=None), gr.update(choices=[], value=None)

    def fill_series(self, study: str | None) -> Update:
        """The series of a study."""
        with errors_for_visitors():
            listed = self._studies.series(study) if study else []
        choices = [(f"{one.modality or 'unknown'}, {one.images} images ({one.code})", one.code) for one in listed]
        return gr.update(choices=choices, value=None)
