# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The box that takes files; the browser sends them (`uploads.js`), and Python gets the paths of what has come."""

from __future__ import annotations

from pathlib import Path

import gradio as gr
from gradio.utils import get_upload_folder

from demo.panels.components import templates
from demo.service.uploads import RefusedFileError, uploaded_file


def make_files_box() -> gr.HTML:
    """Makes the component; its event `sent` carries the `files` that have come, as `sent_files` reads them."""
    return gr.HTML(elem_id="files", **templates("files", "uploads"))


def sent_files(event: gr.EventData) -> list[Path]:
    """The uploads that an event of the box names.

    Raises:
        RefusedFileError: for anything that is not a list of uploads.
    """
    files = getattr(event, "files", None)
    found = [uploaded_file(file, get_upload_folder()) for file in files] if isinstance(files, list) else []
    uploads = [file for file in found if isinstance(file, Path)]
    if not uploads or len(uploads) < len(found):
        raise RefusedFileError("Only uploads are opened; load the file again.")
    return uploads
