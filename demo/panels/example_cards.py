# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The cards of the examples: a thumbnail, what it is, and a question that fits.

`python -m demo.panels.example_cards` draws the thumbnails again.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape

import gradio as gr

from demo.panels.components import FOLDER, templates
from demo.service.samples import Example, examples
from demo.service.thumbnails import thumbnail
from hub_model.media_omniv_med import load_clip

SIDE = 160
"""Pixels of a thumbnail's side."""


def make_cards(shown: Sequence[Example]) -> gr.HTML:
    """Makes the component; its event `pick` carries the `index` of the example whose card was pressed."""
    cards = "".join(_card(index, example) for index, example in enumerate(shown))
    return gr.HTML(value=cards, elem_id="samples", **templates("cards"))


def _card(index: int, example: Example) -> str:
    picture = base64.b64encode((FOLDER / f"{example.name}.webp").read_bytes()).decode()
    return (
        f'<button type="button" class="card" data-index="{index}">'
        f'<img src="data:image/webp;base64,{picture}" alt="" /><b>{escape(example.label)}</b>'
        f"<small>{escape(example.detail)}</small><q>{escape(example.question)}</q></button>"
    )


def main() -> None:
    """Draws the thumbnails of all examples."""
    for example in examples():
        (FOLDER / f"{example.name}.webp").write_bytes(thumbnail(load_clip(example.path), SIDE))


if __name__ == "__main__":
    main()
