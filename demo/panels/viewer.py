# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The slice viewer of the page: a canvas, and the messages that the browser draws it from.

The slices travel once, in two pictures: as the file has them, and as the encoder gets them. Kept tokens, scores and
evidence follow as small pictures with one square per token, and stand-ins as numbers. Every picture, called a sheet,
has all slices in the same rows and columns, so that the browser copies the same cell from each. Nothing is written to
disk. A CT is shown in grey, in a window that fits; what the model sees, three windows as colours, is one click away.

A message is a dictionary with `sheets`, pictures as data URIs by name, and `style`, values for the variables of the
style sheet. The functions that make a message document what else it holds.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image, ImageColor, ImageOps
from plotly.colors import sample_colorscale

from demo.panels.components import templates
from demo.service.windows import MODELS, PRESETS, Window
from hub_model.clip_omniv_med import PLANES, Clip, Series
from hub_model.processing_omniv_med import ProcessedClip

LARGEST_SIDE = 448
"""Longest side of a drawn slice in pixels; larger slices are scaled down."""
LARGEST_SHEET = 6_000_000
"""Pixels of all slices together, so that they reach a browser within a second."""
LARGEST_OVERLAY = 2_500_000
"""Pixels of all the squares that show kept and removed tokens."""
LARGEST_SQUARE = 48
"""Longest side of such a square in pixels; its border is one pixel wide."""
MOST_THUMBNAILS = 16
THUMBNAIL = 64
HIGHEST_SCORE = 2.0
"""The end of the scale on which scores are drawn; 1 is the threshold."""
KEPT, REMOVED, DEPENDED = "#2dd4bf", "#6366f1", "#f59e0b"
TINT = 64
"""Opacity, of 255, of a removed token's tint: it leaves the anatomy to see, and shows on black, too."""
SCALE = [ImageColor.getrgb(colour) for colour in sample_colorscale("Plasma", np.linspace(0, 1, 256).tolist())]
"""Red, green and blue of 256 steps, from dark (little) to bright (much)."""
STYLE = {
    "--kept": KEPT,
    "--removed": REMOVED,
    "--depended": DEPENDED,
    "--scale": "linear-gradient(90deg, {})".format(", ".join(f"rgb{colour}" for colour in SCALE[::15])),
}
"""The same colours for the legend."""
NO_EVIDENCE: dict[str, Any] = {"sheets": {"weight": ""}, "first": 0}
LETTERS = {"axial": "APRL", "coronal": "HFRL", "sagittal": "HFAP"}
"""Which way the top, bottom, left and right of a volume's slices lie, by plane (`Clip`); PS3.3 C.7.6.1.1.1."""
NO_ORIENTATION = "gives no orientation"
"""In the note of a reader that took an orientation which the header does not state."""


def make_viewer() -> gr.HTML:
    """Makes the component; `show`, `show_pruning`, `show_frames` and `show_evidence` make its updates."""
    return gr.HTML(
        value=None,
        model=None,
        pruning=None,
        evidence=NO_EVIDENCE,
        elem_id="viewer",
        **templates("viewer", "sheets", "gestures", "measure", "crosshair"),
    )


def rows_and_columns(count: int) -> tuple[int, int]:
    """The rows and columns of a sheet of `count` slices."""
    columns = math.ceil(math.sqrt(count))
    return math.ceil(count / columns), columns


def _tiled(tiles: np.ndarray) -> np.ndarray:
    """Slices (T, H, W, …) as one array (rows · H, columns · W, …), with zeros in empty cells."""
    count, height, width, *channels = tiles.shape
    rows, columns = rows_and_columns(count)
    tiles = np.concatenate([tiles, np.zeros((rows * columns - count, height, width, *channels), tiles.dtype)])
    grid = tiles.reshape(rows, columns, height, width, *channels).swapaxes(1, 2)
    return grid.reshape(rows * height, columns * width, *channels)


def _data_uri(picture: Image.Image, kind: str, **options: Any) -> str:
    packed = io.BytesIO()
    picture.save(packed, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(packed.getvalue()).decode()}"


def _resized(frame: np.ndarray, size: tuple[int, int], resampling: Image.Resampling) -> np.ndarray:
    """A frame (H, W, 3) as (height, width, 3) of `size` (width, height)."""
    picture = Image.fromarray(np.ascontiguousarray(frame))
    return np.asarray(picture if picture.size == size else picture.resize(size, resampling))


def photographs(frames: np.ndarray, size: tuple[int, int]) -> str:
    """Frames (T, H, W, 3) as a sheet, each resized to `size` (width, height)."""
    tiles = np.stack([_resized(frame, size, Image.Resampling.BICUBIC) for frame in frames])
    return _data_uri(Image.fromarray(_tiled(tiles)), "WEBP", quality=85, method=0)


def painted(indices: np.ndarray, colours: Sequence[tuple[int, ...]], **options: Any) -> str:
    """Indices of colours, uint8 (T, H, W), as a sheet."""
    picture = Image.fromarray(_tiled(indices)).convert("L")
    picture.putpalette([value for colour in colours for value in colour])
    return _data_uri(picture, "PNG", compress_level=1, **options)


def display_size(clip: Clip) -> tuple[int, int]:
    """Width and height in pixels at which a clip's frames are drawn, in the body's true proportions."""
    count, height, width = clip.frames.shape[:3]
    rows, columns = clip.pixel_spacing
    stretch = math.sqrt(rows / columns) if rows > 0 and columns > 0 else 1.0
    height, width = height * stretch, width / stretch
    scale = min(1.0, LARGEST_SIDE / max(height, width), math.sqrt(LARGEST_SHEET / (count * height * width)))
    return max(round(width * scale), 1), max(round(height * scale), 1)


def thumbnails(count: int) -> np.ndarray:
    """The indices of the frames in the strip of a clip of `count` frames, evenly spaced."""
    return np.linspace(0, count - 1, min(count, MOST_THUMBNAILS)).round().astype(int)


def strip(frames: np.ndarray) -> str:
    """Thumbnails of some frames (T, H, W, 3) side by side, as a picture for the style sheet."""
    small = [
        ImageOps.fit(Image.fromarray(np.ascontiguousarray(frames[index])), (THUMBNAIL - 2, THUMBNAIL))
        for index in thumbnails(len(frames))
    ]
    edged = [np.pad(np.asarray(picture), ((0, 0), (1, 1), (0, 0))) for picture in small]
    return f"url({_data_uri(Image.fromarray(np.concatenate(edged, axis=1)), 'WEBP', quality=80, method=0)})"


def bars(shares: np.ndarray, colour: str) -> str:
    """Bars under the thumbnails, each as long as the frame's share from 0 to 1, as a picture for the style sheet."""
    lengths = shares[thumbnails(len(shares)), None] * (THUMBNAIL - 2)
    pixels = (np.arange(THUMBNAIL) < lengths).astype(np.uint8).reshape(1, 1, -1)
    return f"url({painted(pixels, [(0, 0, 0), ImageColor.getrgb(colour)], transparency=0)})"


def orientation(clip: Clip) -> str:
    """The letters at the top, bottom, left and right of a clip's slices; "" where its file does not state them."""
    known = clip.kind == "volume" and all(clip.pixel_spacing)
    known = known and not any(NO_ORIENTATION in note for note in clip.notes)
    return LETTERS[clip.plane] if known else ""


def slices(clip: Clip, window: Window | None = None, grey: np.ndarray | None = None) -> dict[str, Any]:
    """The message with the slices of a clip as the file has them.

    Args:
        clip: a `Clip`.
        window: of a CT.
        grey: uint8 (T, H, W), the CT in that window.

    Returns:
        The sheet "original"; `rows` and `columns` of all sheets; `frames`, how many slices, and their `kind`; `grey`,
        whether they have no colours; `scale`, the values that are black (`low`) and white (`low` + `width`); `windows`,
        those that a CT can be shown in, and the name of the `window` that it is shown in; `letters`, as `orientation`
        gives them; `millimetres`, width and height of a slice, or None; `planes` that it can be sliced in and its
        `plane`; `series` to choose from, each with its `name`, its `number`, and whether it `is_read`.
    """
    frames = clip.frames
    width, height = display_size(clip)
    scale = {"low": 0.0, "width": 255.0, "unit": ""}
    if window is not None and grey is not None:
        frames = np.broadcast_to(grey[..., None], frames.shape)
        scale = {"low": window.low, "width": window.width, "unit": "HU"}
    rows, columns = rows_and_columns(len(frames))
    style = {
        "--shape": f"{width / height:.4f}",
        "--strip": strip(frames),
        "--thumbnails": str(len(thumbnails(len(frames)))),
    }
    offered = [*PRESETS.values(), *MODELS] if window is not None else []
    spacing = clip.pixel_spacing
    has_planes = clip.kind == "volume" and all(spacing)
    return {
        "sheets": {"original": photographs(frames, (width, height))},
        "style": style,
        "rows": rows,
        "columns": columns,
        "frames": len(frames),
        "kind": clip.kind,
        "grey": is_grey(frames),
        "scale": scale,
        "window": window.name if window is not None else "",
        "windows": [{"name": each.name, "width": each.width, "level": each.level} for each in offered],
        "letters": orientation(clip),
        "millimetres": [spacing[1] * clip.frames.shape[2], spacing[0] * clip.frames.shape[1]] if all(spacing) else None,
        "planes": list(PLANES) if has_planes else [],
        "plane": clip.plane,
        "series": [{"name": series_name(each), "number": each.number, "is_read": each.is_read} for each in clip.series],
    }


def series_name(series: Series) -> str:
    """What the page calls a DICOM series: by its number, what made it, and how many slices it has."""
    return f"Series {series.number}: {f'{series.modality}, ' if series.modality else ''}{series.slices} slices"


def is_grey(frames: np.ndarray) -> bool:
    """Whether frames (T, H, W, 3) have no colours."""
    some = frames[:: max(len(frames) // 4, 1), ::2, ::2]
    return bool((some == some[..., :1]).all())


def encoder_slices(processed: ProcessedClip) -> dict[str, Any]:
    """The message with the slices of a `ProcessedClip` as the encoder gets them.

    Returns:
        The sheet "encoded"; `grid`, rows and columns of tokens in a slice; `first`, the slice to show first.
    """
    shown = processed.shown_frames()
    height, width = shown.shape[1:3]
    scale = min(1.0, math.sqrt(LARGEST_SHEET / (len(shown) * height * width)))
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    return {
        "sheets": {"encoded": photographs(shown, size)},
        "grid": list(processed.grid),
        "first": first_to_show(processed.pruned.keep_mask.numpy()),
    }


def first_to_show(keep: np.ndarray) -> int:
    """The slice nearest the middle that has both kept and removed tokens, given (slices, tokens); it says most."""
    kept, middle = keep.sum(axis=1), (len(keep) - 1) / 2
    mixed = (kept > 0) & (kept < keep.shape[1])
    return int(np.argmin(np.abs(np.arange(len(keep)) - middle) + np.where(mixed, 0, len(keep))))


def captions(clip: Clip, kept: np.ndarray, tokens: int) -> list[str]:
    """The caption of each slice: its number, its position, and how many of its tokens are kept.

    An image has no position, nor have slices whose file gives no millimetres.
    """
    has_unit = clip.kind == "video" or (clip.kind == "volume" and all(clip.pixel_spacing))
    unit, count = {"volume": "Slice", "video": "Frame", "image": ""}[clip.kind], len(clip.frames)
    numbers = [f"{unit} {number} of {count}" if count > 1 else "" for number in range(1, count + 1)]
    places = [f"{position:.1f} {clip.unit}" if has_unit else "" for position in clip.positions]
    counts = [f"{number} of {tokens} tokens kept" for number in kept]
    return [" · ".join(filter(None, words)) for words in zip(numbers, places, counts, strict=True)]


def outlined(keep: np.ndarray, side: int) -> np.ndarray:
    """Kept tokens (T, rows, columns) as indices of colours (T, rows · side, columns · side), uint8.

    2 fills the removed ones; 1 is a line, one pixel wide, along the edges of kept regions; 0 is the rest.
    """
    frames, rows, columns = keep.shape
    squares = np.empty((frames, rows, columns, side, side), np.uint8)
    squares[...] = np.where(keep, 0, 2)[..., None, None]
    around = np.pad(keep, ((0, 0), (1, 1), (1, 1)))
    for edge, neighbour in (
        ((0,), around[:, :-2, 1:-1]),
        ((-1,), around[:, 2:, 1:-1]),
        ((slice(None), 0), around[:, 1:-1, :-2]),
        ((slice(None), -1), around[:, 1:-1, 2:]),
    ):
        squares[(*np.nonzero(keep & ~neighbour), *edge)] = 1
    return squares.swapaxes(2, 3).reshape(frames, rows * side, columns * side)


def pruning(processed: ProcessedClip) -> dict[str, Any]:
    """The message with what the pruner decided.

    Returns:
        The sheets "kept", kept regions outlined and removed tokens tinted, and "score", scores from 0 to
        `HIGHEST_SCORE`; `stand_ins`, a line per slice with, for each token, its stand-in as slice · tokens + place;
        `captions`, a line per slice. Lists would be slow, because Gradio's page watches each of their entries.
    """
    pruned, grid = processed.pruned, processed.grid
    keep = pruned.keep_mask.numpy()
    side = int(min(max(math.sqrt(LARGEST_OVERLAY / keep.size), 3), LARGEST_SQUARE))
    overlay = outlined(keep.reshape(len(keep), *grid), side)
    colours = [(0, 0, 0), ImageColor.getrgb(KEPT), ImageColor.getrgb(REMOVED)]
    scores = (pruned.scores.clamp(0, HIGHEST_SCORE) / HIGHEST_SCORE * 255).round().numpy().astype(np.uint8)
    kept = keep.sum(axis=1)
    return {
        "sheets": {
            "kept": painted(overlay, colours, transparency=bytes([0, 255, TINT])),
            "score": painted(scores.reshape(len(keep), *grid), SCALE),
        },
        "style": {"--bars": bars(kept / keep.shape[1], KEPT), **STYLE},
        "stand_ins": "\n".join(" ".join(map(str, row)) for row in pruned.stand_in.tolist()),
        "captions": "\n".join(captions(processed.clip, kept, keep.shape[1])),
    }


def evidence(weights: np.ndarray, frame: int) -> dict[str, Any]:
    """The message with what an answer depends on (frames, rows, columns), relative to the strongest.

    Returns:
        The sheet "weight"; `first`, the `frame` to show first; bars for the strongest part of each frame.
    """
    shares = weights / (weights.max() or 1.0)
    shades = (shares * 255).round().astype(np.uint8)
    style = {"--evidence-bars": bars(shares.max(axis=(1, 2)), DEPENDED)}
    return {"sheets": {"weight": painted(shades, SCALE)}, "style": style, "first": frame}


def show(
    processed: ProcessedClip | None, window: Window | None = None, grey: np.ndarray | None = None
) -> dict[str, Any]:
    """The update that shows a `ProcessedClip` in the viewer, or empties it for None; `window` and `grey` as above."""
    if processed is None:
        return gr.update(value=None, model=None, pruning=None, evidence=NO_EVIDENCE)
    return gr.update(
        value=slices(processed.clip, window, grey),
        model=encoder_slices(processed),
        pruning=pruning(processed),
        evidence=NO_EVIDENCE,
    )


def show_pruning(processed: ProcessedClip, resized: bool = False) -> dict[str, Any]:
    """The update that shows other kept tokens on the same slices.

    Args:
        processed: the clip, pruned again.
        resized: whether its token grid has changed because of a small budget.
    """
    changes: dict[str, Any] = {"pruning": pruning(processed), "evidence": NO_EVIDENCE}
    return gr.update(**changes, model=encoder_slices(processed)) if resized else gr.update(**changes)


def show_window(clip: Clip, window: Window, grey: np.ndarray) -> dict[str, Any]:
    """The update that shows the same slices of a CT in another window."""
    return gr.update(value=slices(clip, window, grey))


def show_evidence(weights: np.ndarray, frame: int) -> dict[str, Any]:
    """The update that shows what an answer depends on (frames, rows, columns), beginning at a frame."""
    return gr.update(evidence=evidence(weights, frame))
