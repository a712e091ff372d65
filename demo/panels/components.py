# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The two components that the browser draws: their files in this folder, as the arguments of `gr.HTML`."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).resolve().parent


def templates(name: str) -> dict[str, str]:
    """What the component `name` ("viewer" or "volume") is made of: its markup, its style, its function in viewer.js."""
    html, css = ((FOLDER / f"{name}.{kind}").read_text(encoding="utf-8") for kind in ("html", "css"))
    javascript = (FOLDER / "viewer.js").read_text(encoding="utf-8")
    return {"html_template": html, "css_template": css, "js_on_load": f"{javascript}\n{name}();"}
