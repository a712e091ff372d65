# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Planes and a 3D view of a volume in NiiVue, the WebGL viewer, with the kept tokens laid over it.

NiiVue comes from nilearn's wheel and is the only file that the page serves besides its own. The volume travels as a
small NIfTI inside a message when its tab is opened; nothing is written to disk.
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

from demo.panels.components import templates
from hub_model.clip_omniv_med import Clip
from hub_model.processing_omniv_med import ProcessedClip

NIIVUE = Path(nilearn.__file__).resolve().parent / "_assets" / "js" / "niivue.umd.js"
LARGEST_SIDE = 128
"""Most voxels along an axis; larger volumes are reduced, so that a browser without a GPU can draw them too."""
KEPT, REMOVED = 2, 1
"""Values of the overlay; 0 is transparent in NiiVue."""
COLOURS = {"R": [0, 0, 45], "G": [0, 0, 212], "B": [0, 0, 191], "A": [0, 0, 255], "I": [0, 128, 255]}
"""NiiVue's colour map of the overlay: transparent up to `REMOVED`, the viewer's colour at `KEPT`."""
LOOK = {
    "isRadiologicalConvention": True,
    "backColor": [0, 0, 0, 1],
    "crosshairColor": [0.96, 0.62, 0.04, 1],
    "crosshairWidth": 0.5,
    "multiplanarLayout": 2,
    "multiplanarShowRender": 1,
}
"""Options of NiiVue: a grid of the three planes and the 3D view."""
RIGHT, ANTERIOR, SUPERIOR = np.eye(3)
AXES = {
    "axial": (SUPERIOR, -ANTERIOR, -RIGHT),
    "coronal": (-ANTERIOR, -SUPERIOR, -RIGHT),
    "sagittal": (-RIGHT, -SUPERIOR, -ANTERIOR),
}
"""The directions of a `Clip`'s slices, rows and columns in NIfTI's axes, by the plane of its slices."""


def make_volume_view() -> gr.HTML:
    """Makes the component; `show_volume` makes its updates."""
    gr.set_static_paths([NIIVUE])
    return gr.HTML(value={"problem": why_not(None)}, mask=None, elem_id="volume", **templates("volume", "crosshair"))


def why_not(processed: ProcessedClip | None) -> str:
    """Why a `ProcessedClip` has no planes and 3D, in one sentence; "" if it has."""
    if processed is None:
        return "Planes and 3D of a volume appear here."
    if processed.clip.kind != "volume":
        return f"Planes and 3D need a volume; this is {'an image' if processed.clip.kind == 'image' else 'a video'}."
    if not all(processed.clip.pixel_spacing):
        return "Planes and 3D need millimetres, which this file does not give; their shape would be invented."
    return ""


def _places(positions: np.ndarray) -> tuple[np.ndarray, float]:
    """The slices nearest to evenly spaced places, and the distance between these places in mm.

    The places are as close as the slices, unless that makes more than `LARGEST_SIDE` of them.
    """
    steps = np.diff(positions)
    count = min(round((positions[-1] - positions[0]) / steps[steps > 0].min()) + 1, LARGEST_SIDE)
    places, step = np.linspace(positions[0], positions[-1], count, retstep=True)
    return np.abs(positions[:, None] - places).argmin(axis=0), float(step)


def _nifti(values: np.ndarray, steps: tuple[float, float, float], plane: str) -> str:
    """Slices (T, H, W), uint8, cut along `plane`, `steps` mm apart along slices, rows and columns, around the origin.

    Returns:
        Base64 of a gzipped NIfTI whose voxels run to the right, the front and the head.
    """
    affine = np.eye(4)
    affine[:3, :3] = np.stack([axis * step for axis, step in zip(AXES[plane], steps, strict=True)], axis=1)
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(values.shape) - 1) / 2)
    image = nibabel.as_closest_canonical(nibabel.Nifti1Image(np.ascontiguousarray(values), affine))
    image.header.set_xyzt_units("mm")
    return base64.b64encode(gzip.compress(image.to_bytes(), 1)).decode()


def background(clip: Clip) -> str:
    """A volume as a uint8 NIfTI: a CT in its widest window, any other scan as it is."""
    chosen, step = _places(clip.positions)
    height, width = clip.frames.shape[1:3]
    size = (min(width, LARGEST_SIDE), min(height, LARGEST_SIDE))
    pictures = (Image.fromarray(np.ascontiguousarray(clip.frames[index, :, :, 0])) for index in chosen)
    small = [np.asarray(picture.resize(size, Image.Resampling.BOX)) for picture in pictures]
    rows, columns = clip.pixel_spacing
    return _nifti(np.stack(small), (step, rows * height / size[1], columns * width / size[0]), clip.plane)


def mask(processed: ProcessedClip) -> str:
    """The tokens of a `ProcessedClip` as a NIfTI that covers its volume: one voxel per token, `KEPT` or `REMOVED`."""
    clip, grid = processed.clip, processed.grid
    chosen, step = _places(clip.positions)
    keep = processed.pruned.keep_mask.numpy().reshape(-1, *grid)[chosen]
    height, width = (size * count for size, count in zip(clip.pixel_spacing, clip.frames.shape[1:3], strict=True))
    values = np.where(keep, KEPT, REMOVED).astype(np.uint8)
    return _nifti(values, (step, height / grid[0], width / grid[1]), clip.plane)


def space(clip: Clip) -> dict[str, Any]:
    """Where the slices of a volume lie in the NIfTI that shows it, for the crosshair (`crosshair.js`).

    Returns:
        `places`, a line with the millimetres of each slice along the first of the `directions`, which are those of
        slices, rows and columns; `size`, height and width of a slice in mm. The origin is the volume's middle.
    """
    places = clip.positions - (clip.positions[0] + clip.positions[-1]) / 2
    sizes = (size * count for size, count in zip(clip.pixel_spacing, clip.frames.shape[1:3], strict=True))
    return {
        "places": " ".join(f"{place:.3f}" for place in places),
        "directions": [axis.tolist() for axis in AXES[clip.plane]],
        "size": list(sizes),
    }


def show_volume(processed: ProcessedClip | None) -> dict[str, Any]:
    """The update that shows a volume with its kept tokens, or says why there is none.

    Its messages are `value`, with the address, the look and the colours of NiiVue, the volume as `background` and
    where its slices lie as `space`, and `mask`. If there is none, `value` has the sentence as its `problem`.
    """
    problem = why_not(processed)
    if processed is None or problem:
        return gr.update(value={"problem": problem})
    library = gr.FileData(path=str(NIIVUE)).model_dump()  # inside a value, gradio makes its address of it
    value = {
        "problem": "",
        "niivue": library,
        "look": LOOK,
        "colours": COLOURS,
        "background": background(processed.clip),
        "space": space(processed.clip),
    }
    return gr.update(value=value, mask=mask(processed))


def show_mask(processed: ProcessedClip) -> dict[str, Any]:
    """The update that shows other kept tokens on the same volume."""
    return gr.skip() if why_not(processed) else gr.update(mask=mask(processed))
