# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Draws which visual tokens of a clip were pruned, as a picture of its slices for a report or a paper.

Needs matplotlib, which the model itself does not; no other file here imports this one.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from .clip_omniv_med import Clip
from .processing_omniv_med import ProcessedClip

try:
    import matplotlib
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure
except ImportError as error:
    raise ImportError("Drawing pruned tokens needs matplotlib; install it with 'pip install matplotlib'.") from error

MAX_SLICES = 24
MAX_COLUMNS = 8
SLICE_INCHES = 1.7
GAP_INCHES, CAPTION_INCHES, TITLE_INCHES = 0.06, 0.24, 0.45
BAR_INCHES, NO_BAR_INCHES = 1.1, 0.35
"""Height of the explanation with the colour bar, and without."""
MIN_WIDTH_INCHES = 7.5
COLOURS = matplotlib.colormaps["plasma"]
COLOUR_SHARE, PICTURE_SHARE = 0.5, 0.35
"""How bright the colour of the error and the picture under it are in a removed token: together less than a kept one."""


def spread_over_pixels(values: np.ndarray, grid: tuple[int, int], height: int, width: int) -> np.ndarray:
    """Repeats one value per token (T, N) over the token's pixels, to (T, height, width)."""
    frames = values.reshape(len(values), *grid)
    return frames.repeat(height // grid[0], axis=1).repeat(width // grid[1], axis=2)


def dim_removed(processed: ProcessedClip, error_range: Normalize) -> np.ndarray:
    """The frames as the encoder sees them, removed tokens veiled in the colour of their error; uint8 (T, H, W, 3)."""
    shown = processed.shown_frames()
    size = shown.shape[1:3]
    removed = spread_over_pixels(~processed.pruned.keep_mask.numpy(), processed.grid, *size)[..., None]
    errors = spread_over_pixels(processed.pruned.errors.numpy(), processed.grid, *size)
    veiled = COLOUR_SHARE * 255 * COLOURS(error_range(errors))[..., :3] + PICTURE_SHARE * shown
    return np.where(removed, veiled.round(), shown).astype(np.uint8)


def millimetres_per_pixel(processed: ProcessedClip, shown_width: int) -> float:
    """Width of one drawn pixel in millimetres, 0 where the file gives no spacing."""
    return processed.clip.pixel_spacing[1] * processed.clip.frames.shape[2] / shown_width


def position_label(clip: Clip, frame: int) -> str:
    """Where a slice lies, or its number where the file gives no millimetres; a single picture has neither."""
    if clip.kind == "image":
        return ""
    if clip.kind == "volume" and not all(clip.pixel_spacing):
        return f"slice {frame + 1}, "
    return f"{clip.positions[frame]:.1f} {clip.unit}, "


def draw_scale_bar(axes: Axes, shown_width: int, shown_height: int, pixel_width: float) -> None:
    """A bar of 1, 2 or 5 times a power of ten millimetres, at most 45 % of the slice wide."""
    longest = 0.45 * shown_width * pixel_width
    power = 10 ** math.floor(math.log10(longest))
    length = max(step * power for step in (1, 2, 5) if step * power <= longest)
    left, bottom = 0.06 * shown_width, 0.94 * shown_height
    right = left + length / pixel_width
    axes.plot([left, right], [bottom, bottom], color="black", linewidth=4, solid_capstyle="butt")
    axes.plot([left, right], [bottom, bottom], color="white", linewidth=2, solid_capstyle="butt")
    box = {"facecolor": "black", "alpha": 0.6, "pad": 1, "edgecolor": "none"}
    middle = (left + right) / 2
    axes.text(middle, bottom - 0.05 * shown_height, f"{length:g} mm", color="white", fontsize=7, ha="center", bbox=box)


def explanation(processed: ProcessedClip) -> str:
    """What clear and dimmed mean in this picture."""
    if processed.pruned.keep_mask.all():
        return "No token repeats what was seen before it, so all are kept."
    return (
        "Clear: kept tokens. Dimmed and coloured: removed tokens; the last kept token at the same place, a kept\n"
        "neighbour or the empty background kept before stands for them. The colour is the error of that "
        f"(worst {processed.pruned.worst_error:.3f}, threshold {processed.pruned.threshold:.3g})."
    )


def describe_pruning(processed: ProcessedClip) -> str:
    """The kind, the kept tokens, and what pruning saves."""
    kept, total = int(processed.pruned.keep_mask.sum()), processed.pruned.keep_mask.numel()
    words = f"{processed.clip.kind.capitalize()}: {kept} of {total} visual tokens kept"
    if processed.clip.kind == "image":
        return words
    change = "fewer" if processed.reduction >= 0 else "more"
    percent = abs(100 * processed.reduction)
    return f"{words}, {percent:.1f} % {change} with {processed.label_tokens} tokens of position labels counted"


def draw_heatmap(processed: ProcessedClip, path: str | Path) -> None:
    """Writes a PNG of evenly chosen slices with their pruned tokens dimmed.

    Args:
        processed: a `ProcessedClip` of the processor.
        path: the PNG file to write.
    """
    clip, pruned = processed.clip, processed.pruned
    error_range = Normalize(0, max(pruned.threshold, pruned.worst_error) or 1.0)
    pictures = dim_removed(processed, error_range)
    count, height, width = pictures.shape[:3]
    chosen = np.unique(np.linspace(0, count - 1, min(count, MAX_SLICES)).round().astype(int))
    columns = min(len(chosen), MAX_COLUMNS)
    rows = math.ceil(len(chosen) / columns)
    kept_per_frame, tokens_per_frame = pruned.keep_mask.sum(dim=1).tolist(), pruned.keep_mask.shape[1]

    # Placed by hand, in inches: matplotlib's own layouts take seconds for two dozen slices.
    slice_height = SLICE_INCHES * height / width
    removes = not bool(pruned.keep_mask.all())
    words_height = BAR_INCHES if removes else NO_BAR_INCHES
    total_width = max(columns * (SLICE_INCHES + GAP_INCHES) + GAP_INCHES, MIN_WIDTH_INCHES)
    total_height = TITLE_INCHES + rows * (slice_height + CAPTION_INCHES) + words_height
    figure = Figure(figsize=(total_width, total_height))

    def box(left: float, bottom: float, box_width: float, box_height: float) -> tuple[float, float, float, float]:
        """Inches to the shares of the figure that matplotlib takes."""
        return left / total_width, bottom / total_height, box_width / total_width, box_height / total_height

    figure.text(0.5, 1 - 0.17 / total_height, describe_pruning(processed), fontsize=11, ha="center", va="top")
    margin = (total_width - columns * (SLICE_INCHES + GAP_INCHES) + GAP_INCHES) / 2
    for place, frame in enumerate(chosen):
        row, column = divmod(place, columns)
        left = margin + column * (SLICE_INCHES + GAP_INCHES)
        bottom = words_height + (rows - row) * (slice_height + CAPTION_INCHES) - slice_height
        axes = figure.add_axes(box(left, bottom, SLICE_INCHES, slice_height))
        axes.imshow(pictures[frame], interpolation="nearest")
        axes.set_axis_off()
        caption = f"{position_label(clip, frame)}{kept_per_frame[frame]}/{tokens_per_frame} kept"
        axes.text(0.5, -0.03, caption, transform=axes.transAxes, fontsize=8, ha="center", va="top")
        pixel_width = millimetres_per_pixel(processed, width)
        if place == 0 and pixel_width > 0:
            draw_scale_bar(axes, width, height, pixel_width)

    figure.text(0.5, (words_height - 0.08) / total_height, explanation(processed), fontsize=8.5, ha="center", va="top")
    if removes:
        bar = figure.add_axes(box(total_width / 2 - 2, 0.48, 4, 0.12))
        figure.colorbar(ScalarMappable(error_range, COLOURS), cax=bar, orientation="horizontal")
        bar.set_xlabel("error: mean absolute difference of pixel values in [−1, 1] (0.1 is 5 % of the grey scale)")
        bar.tick_params(labelsize=8)
        bar.xaxis.label.set_fontsize(8.5)
    figure.savefig(path, dpi=130, format="png")
