# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The rail: a thumbnail for each file that a visitor has loaded, to choose the shown one and to remove files."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import gradio as gr

from demo.panels.components import templates
from demo.service.sessions import LoadedFile


def make_rail() -> gr.HTML:
    """Makes the component; `show_files` makes its updates.

    Its events `choose` and `remove` carry the `number` of a file.
    """
    return gr.HTML(value={"files": [], "shown": None}, elem_id="rail", **templates("rail"))


def show_files(
    files: Sequence[LoadedFile], shown: LoadedFile | None, removable: Sequence[LoadedFile]
) -> dict[str, Any]:
    """The update that lists the files.

    Args:
        shown: the one in the viewer.
        removable: those that belong to no question yet.

    Of each file the browser gets its `number`, also as words (`label`, `short`), its `picture`, whether it is
    `removable`, and the made-up name that the browser sent its first file under (`upload`), with how many followed
    (`more`): so the browser can show the true name, which never leaves it.
    """
    listed = [
        {
            "number": file.number,
            "label": file.label,
            "short": str(file.number),
            "upload": file.upload,
            "more": len(file.paths) - 1,
            "picture": f"data:image/webp;base64,{base64.b64encode(file.thumbnail).decode()}",
            "removable": file in removable,
        }
        for file in files
    ]
    return gr.update(value={"files": listed, "shown": shown and shown.number})
