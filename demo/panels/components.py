# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The files in `browser/` that the browser gets: markup, style and JavaScript of the page and of its own components."""

from __future__ import annotations

from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent / "browser"


def templates(name: str, *scripts: str) -> dict[str, Any]:
    """The arguments of `gr.HTML` for a component: its markup, its style, and its function, which is called at the end.

    Args:
        name: of its HTML file, its style sheet, if any, its script, and the function in it.
        scripts: names of other scripts whose functions it uses.
    """
    javascript = [text_of(f"{script}.js") for script in ("common", *scripts, name)]
    return {
        "html_template": text_of(f"{name}.html"),
        "css_template": text_of(f"{name}.css") if (FOLDER / f"{name}.css").exists() else "",
        "js_on_load": "\n".join([*javascript, f"{name}();"]),
    }


def text_of(file: str) -> str:
    """A text file of the folder."""
    return (FOLDER / file).read_text(encoding="utf-8")
