# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The slice viewer of the page: a canvas, and the small messages that it is drawn from.

The slices travel once, as two pictures: as the file has them, and as the encoder gets them. What is kept, what stands
for what, scores and attention follow as a few bytes per token, and the browser draws overlay, heatmap and
reconstruction from them. Nothing is written to disk.
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

LARGEST_SIDE = 448
"""Pixels of a slice; larger ones are drawn smaller."""
LARGEST_SHEET = 6_000_000
"""Pixels of all slices together, so that a browser has them within a second."""
HIGHEST_SCORE = 2.0
"""Scores are drawn on a scale from 0 to this; 1 is the threshold."""
EVIDENCE_PERCENTILE = 98
"""Attention at this percentile of a clip's tokens is drawn as 1: single ones often gather far more than all others."""
NO_EVIDENCE: dict[str, Any] = {"weight": "", "in_frames": []}
FOLDER = Path(__file__).resolve().parent


def make_viewer() -> gr.HTML:
    """The component; `show`, `show_pruning`, `show_frames` and `show_evidence` make the updates for it."""
    html, css, javascript = ((FOLDER / f"viewer.{kind}").read_text(encoding="utf-8") for kind in ("html", "css", "js"))
    return gr.HTML(
        value=None,
        model=None,
        pruning=None,
        evidence=NO_EVIDENCE,
        html_template=html,
        css_template=css,
        js_on_load=javascript,
        elem_id="viewer",
    )


def sheet(frames: np.ndarray, size: tuple[int, int]) -> dict[str, Any]:
    """Frames (T, H, W, 3) as one picture.

    Returns:
        `sprite`, a WebP data URI with the frames, each brought to `size` (width, height), in rows of `columns`.
    """
    columns = math.ceil(math.sqrt(len(frames) * size[1] / size[0]))
    picture = Image.new("RGB", (columns * size[0], math.ceil(len(frames) / columns) * size[1]))
    for index, frame in enumerate(frames):
        tile = Image.fromarray(np.ascontiguousarray(frame))
        tile = tile if tile.size == size else tile.resize(size, Image.Resampling.BICUBIC)
        picture.paste(tile, (index % columns * size[0], index // columns * size[1]))
    packed = io.BytesIO()
    picture.save(packed, "WEBP", quality=85, method=0)
    data = "data:image/webp;base64," + base64.b64encode(packed.getvalue()).decode()
    return {"sprite": data, "columns": columns, "width": size[0], "height": size[1]}


def display_size(clip: Any) -> tuple[int, int]:
    """Width and height in pixels at which a clip's frames are drawn, in the true shape of the body."""
    count, height, width = clip.frames.shape[:3]
    rows, columns = clip.pixel_spacing
    stretch = math.sqrt(rows / columns) if rows > 0 and columns > 0 else 1.0
    height, width = height * stretch, width / stretch
    scale = min(1.0, LARGEST_SIDE / max(height, width), math.sqrt(LARGEST_SHEET / (count * height * width)))
    return max(round(width * scale), 1), max(round(height * scale), 1)


def slices(clip: Any, frames: np.ndarray | None = None) -> dict[str, Any]:
    """The message with the slices of a clip as the file has them.

    Args:
        clip: a `Clip`.
        frames: uint8 (T, H, W, 3), shown in the place of the clip's own: the same slices in another window.

    Returns:
        `sheet` of the frames, and `frames`, how many; `unit`, the word for one of them; `positions`, "12.5 mm" or
        "3.0 s" each, "" for an image and for slices whose file gives no millimetres.
    """
    has_unit = clip.kind == "video" or (clip.kind == "volume" and all(clip.pixel_spacing))
    return sheet(clip.frames if frames is None else frames, display_size(clip)) | {
        "frames": len(clip.frames),
        "unit": {"volume": "Slice", "video": "Frame", "image": "Image"}[clip.kind],
        "positions": [f"{position:.1f} {clip.unit}" if has_unit else "" for position in clip.positions],
    }


def encoder_slices(processed: Any) -> dict[str, Any]:
    """The message with the slices of a `ProcessedClip` as the encoder gets them, and their `grid` of tokens."""
    shown = processed.shown_frames()
    height, width = shown.shape[1:3]
    scale = min(1.0, math.sqrt(LARGEST_SHEET / (len(shown) * height * width)))
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    return sheet(shown, size) | {"grid": list(processed.grid)}


def pruning(processed: Any) -> dict[str, str]:
    """What the pruner decided, one entry per token, slice after slice.

    Returns:
        `kept`, "1" or "0" each; `stand_in`, the slice whose token is given to the model, as base64 of uint16, low byte
        first; `score`, from 0 to `HIGHEST_SCORE` as base64 of uint8.
    """
    pruned = processed.pruned
    scores = (pruned.scores.clamp(0, HIGHEST_SCORE) / HIGHEST_SCORE * 255).round().numpy().astype(np.uint8)
    return {
        "kept": "".join("01"[flag] for flag in pruned.keep_mask.flatten().int().tolist()),
        "stand_in": base64.b64encode(pruned.stand_in.numpy().astype("<u2").tobytes()).decode(),
        "score": base64.b64encode(scores.tobytes()).decode(),
    }


def evidence(weights: np.ndarray) -> dict[str, Any]:
    """The message with attention on the tokens (frames, rows, columns) of a clip, drawn relative to its strongest.

    Returns:
        `weight`, one per token as base64 of uint8; `in_frames`, the sum in each frame over that in the strongest one.
    """
    scale = float(np.percentile(weights, EVIDENCE_PERCENTILE)) or 1.0
    shades = (np.clip(weights / scale, 0, 1) * 255).round().astype(np.uint8)
    in_frames = weights.sum(axis=(1, 2))
    return {
        "weight": base64.b64encode(shades.tobytes()).decode(),
        "in_frames": (in_frames / (in_frames.max() or 1.0)).round(3).tolist(),
    }


def show(processed: Any) -> dict[str, Any]:
    """The update that shows a `ProcessedClip` in the viewer, or empties it for None."""
    if processed is None:
        return gr.update(value=None, model=None, pruning=None, evidence=NO_EVIDENCE)
    return gr.update(
        value=slices(processed.clip), model=encoder_slices(processed), pruning=pruning(processed), evidence=NO_EVIDENCE
    )


def show_pruning(processed: Any, resized: bool = False) -> dict[str, Any]:
    """The update that shows other kept tokens on the slices that the viewer has.

    Args:
        processed: the clip, pruned again.
        resized: whether its token grid is another one than before, because of a small budget.
    """
    changes = {"pruning": pruning(processed), "evidence": NO_EVIDENCE}
    return gr.update(**changes, model=encoder_slices(processed)) if resized else gr.update(**changes)


def show_frames(clip: Any, frames: np.ndarray) -> dict[str, Any]:
    """The update that shows the same slices in another window."""
    return gr.update(value=slices(clip, frames))


def show_evidence(weights: np.ndarray | None) -> dict[str, Any]:
    """The update that shows attention (frames, rows, columns), or takes it away for None."""
    return gr.update(evidence=NO_EVIDENCE if weights is None else evidence(weights))
