# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Planes and 3D of a volume in NiiVue, the WebGL viewer, with the kept tokens laid over it.

NiiVue's built file comes out of nilearn's wheel and is the one file that the page serves besides its own. The volume
travels as a small NIfTI inside a message, when its tab is opened; nothing is written to disk.
"""

from __future__ import annotations

import base64
import gzip
from pathlib import Path
from typing import Any

import gradio as gr
import nibabel
import nilearn
import numpy as np
from PIL import Image

NIIVUE = Path(nilearn.__file__).resolve().parent / "_assets" / "js" / "niivue.umd.js"
LARGEST_SIDE = 128
"""Voxels along each axis; larger volumes are thinned out, so that a browser without a GPU can draw them too."""
KEPT, REMOVED = 2, 1
"""Values of the overlay; 0 is transparent in NiiVue."""
FOLDER = Path(__file__).resolve().parent


def make_volume_view() -> gr.HTML:
    """The component; `show_volume` makes the update for it."""
    gr.set_static_paths([NIIVUE])
    html, css, javascript = ((FOLDER / f"volume.{kind}").read_text(encoding="utf-8") for kind in ("html", "css", "js"))
    return gr.HTML(
        value=None,
        mask=None,
        html_template=html,
        css_template=css,
        js_on_load=javascript,
        elem_id="volume",
    )


def can_show(processed: Any) -> bool:
    """Whether a `ProcessedClip` is a volume of known size."""
    return processed is not None and processed.clip.kind == "volume" and all(processed.clip.pixel_spacing)


def _nifti(values: np.ndarray, extent: tuple[float, float, float]) -> str:
    """Slices (T, H, W), feet to head, anterior up, patient right on the left, as base64 of a gzipped NIfTI.

    Args:
        values: uint8.
        extent: millimetres that the whole array covers along slices, rows and columns.
    """
    slices, rows, columns = (size / count for size, count in zip(extent, values.shape, strict=True))
    # NIfTI counts to the right, to the front and to the head: the mirror of columns and rows.
    array = np.ascontiguousarray(values.transpose(2, 1, 0)[::-1, ::-1])
    affine = np.diag([columns, rows, slices, 1.0])
    affine[:3, 3] = [-(size - step) / 2 for size, step in zip(extent[::-1], (columns, rows, slices), strict=True)]
    image = nibabel.Nifti1Image(array, affine)
    image.header.set_xyzt_units("mm")
    return base64.b64encode(gzip.compress(image.to_bytes(), 1)).decode()


def _extent(clip: Any) -> tuple[float, float, float]:
    """Millimetres that a clip covers along slices, rows and columns."""
    count, height, width = clip.frames.shape[:3]
    step = float(np.median(np.abs(np.diff(clip.positions)))) if count > 1 else 1.0
    return count * step, height * clip.pixel_spacing[0], width * clip.pixel_spacing[1]


def _chosen(count: int) -> np.ndarray:
    """The slices that are shown, evenly spaced."""
    return np.unique(np.linspace(0, count - 1, min(count, LARGEST_SIDE)).round().astype(int))


def background(clip: Any) -> str:
    """A volume as a NIfTI, uint8: the widest window of a CT, and any other scan as it is."""
    count, height, width = clip.frames.shape[:3]
    size = (min(width, LARGEST_SIDE), min(height, LARGEST_SIDE))
    pictures = (Image.fromarray(np.ascontiguousarray(clip.frames[index, :, :, 0])) for index in _chosen(count))
    small = [np.asarray(picture.resize(size, Image.Resampling.BOX)) for picture in pictures]
    return _nifti(np.stack(small), _extent(clip))


def mask(processed: Any) -> str:
    """The tokens of a `ProcessedClip` as a NIfTI in the place of its volume: one voxel each, `KEPT` or `REMOVED`."""
    keep = processed.pruned.keep_mask.numpy().reshape(-1, *processed.grid)[_chosen(len(processed.tokens))]
    return _nifti(np.where(keep, KEPT, REMOVED).astype(np.uint8), _extent(processed.clip))


def show_volume(processed: Any | None) -> dict[str, Any]:
    """The update that shows a volume with its kept tokens, or says that there is none."""
    if not can_show(processed):
        return gr.update(value=None, mask=None)
    library = gr.FileData(path=str(NIIVUE)).model_dump()  # inside a value, gradio makes its address of it
    return gr.update(value={"niivue": library, "background": background(processed.clip)}, mask=mask(processed))


def show_mask(processed: Any) -> dict[str, Any]:
    """The update that shows other kept tokens on the volume that is shown."""
    return gr.update(mask=mask(processed)) if can_show(processed) else gr.skip()
