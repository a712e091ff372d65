# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The slice viewer of the page: a canvas, and the small messages that it is drawn from.

All slices travel once, as one picture; a new threshold sends only which tokens are kept. Nothing is written to disk.
"""

from __future__ import annotations

import base64
import io
import math
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

LARGEST_SIDE = 384
"""Pixels; larger frames are drawn smaller, because one picture with all slices must stay within WebP's 16,383."""
FOLDER = Path(__file__).resolve().parent


def make_viewer() -> gr.HTML:
    """The component; `show` and `show_pruning` make the updates for it."""
    html, css, javascript = ((FOLDER / f"viewer.{kind}").read_text(encoding="utf-8") for kind in ("html", "css", "js"))
    return gr.HTML(value=None, pruning=None, html_template=html, css_template=css, js_on_load=javascript)


def slices(processed: Any) -> dict[str, Any]:
    """All slices of a `ProcessedClip` at the encoder's resolution.

    Returns:
        `sprite`, a WebP data URI with the slices in rows of `columns`; `frames`, how many; `width` and `height` of
        one in pixels; `grid`, rows and columns of tokens; `positions`, "12.5 mm" or "3.0 s" each, "" for an image
        and for slices whose file gives no millimetres.
    """
    shown = processed.shown_frames()
    count, height, width = shown.shape[:3]
    scale = min(1.0, LARGEST_SIDE / max(height, width))
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    columns = math.ceil(math.sqrt(count))
    sheet = Image.new("RGB", (columns * size[0], math.ceil(count / columns) * size[1]))
    for index, frame in enumerate(shown):
        picture = Image.fromarray(np.ascontiguousarray(frame))
        picture = picture if scale == 1 else picture.resize(size, Image.Resampling.LANCZOS)
        sheet.paste(picture, (index % columns * size[0], index // columns * size[1]))
    packed = io.BytesIO()
    sheet.save(packed, "WEBP", quality=90, method=2)
    clip = processed.clip
    has_unit = clip.kind == "video" or (clip.kind == "volume" and all(clip.pixel_spacing))
    return {
        "sprite": "data:image/webp;base64," + base64.b64encode(packed.getvalue()).decode(),
        "frames": count,
        "columns": columns,
        "width": size[0],
        "height": size[1],
        "grid": list(processed.grid),
        "positions": [f"{position:.1f} {clip.unit}" if has_unit else "" for position in clip.positions],
    }


def pruning(processed: Any) -> dict[str, str]:
    """Which tokens are kept: `kept`, one "1" or "0" per token, slice after slice."""
    return {"kept": "".join("01"[flag] for flag in processed.pruned.keep_mask.flatten().int().tolist())}


def show(processed: Any) -> dict[str, Any]:
    """The update that shows a `ProcessedClip` in the viewer, or empties it for None."""
    if processed is None:
        return gr.update(value=None, pruning=None)
    return gr.update(value=slices(processed), pruning=pruning(processed))


def show_pruning(processed: Any) -> dict[str, Any]:
    """The update that shows other kept tokens on the slices that the viewer has."""
    return gr.update(pruning=pruning(processed))
