# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The files in this folder that the browser gets: what draws the viewer and the volume, and the page's style."""

from __future__ import annotations

from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent


def templates(name: str) -> dict[str, Any]:
    """The arguments of `gr.HTML` for "viewer" or "volume": its markup, its style, and its function in viewer.js."""
    html = (FOLDER / f"{name}.html").read_text(encoding="utf-8")
    javascript = (FOLDER / "viewer.js").read_text(encoding="utf-8")
    return {"html_template": html, "css_template": stylesheet(name), "js_on_load": f"{javascript}\n{name}();"}


def stylesheet(name: str) -> str:
    """The style of "page", "viewer" or "volume"."""
    return (FOLDER / f"{name}.css").read_text(encoding="utf-8")
