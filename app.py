# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Opens the demo page, here or as a Hugging Face Space: `python app.py`.

OMNIV_MED_MODEL names the model, a folder or a Hub id (default: hub_model beside this file); GRADIO_SERVER_NAME and
GRADIO_SERVER_PORT say where the page is served.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # before gradio is imported, which reads it

import gradio as gr

from demo.assistant import Assistant
from demo.page import build_page

DEFAULT_MODEL = Path(__file__).resolve().parent / "hub_model"
LARGEST_UPLOAD = "2gb"


def main() -> None:
    model_id = os.environ.get("OMNIV_MED_MODEL") or str(DEFAULT_MODEL)
    try:
        assistant = Assistant(model_id)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        sys.exit(f"The model {model_id} cannot be loaded; 'make model' assembles it in hub_model. {reason}")
    # Fonts of the visitor's system: gradio's other themes ask a font server.
    theme = gr.themes.Default(
        primary_hue="teal", font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
    )
    build_page(assistant).launch(theme=theme, max_file_size=LARGEST_UPLOAD, footer_links=[])


if __name__ == "__main__":
    main()
