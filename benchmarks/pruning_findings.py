# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Findings in clips, and how much of their contrast is left in what a pruning rule shows.

Three kinds: lesions that somebody outlined in a volume, findings in a picture that somebody boxed, and spheres that we
plant into a clip. A finding survives when at least half of its contrast is left.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage

from hub_model.processing_omniv_med import ProcessedClip

SURVIVING_CONTRAST = 0.5
LEAST_CONTRAST = 0.1
"""Outlined and boxed findings that differ less from what is around them, 5 % of the display range, do not stand out."""
RING = 3
"""Pixels around an outlined lesion that it is compared with."""
RING_OF_BOX = 0.5
"""How much wider and higher, on all sides together, the ring around a box is than the box."""
DIAMETERS = (4.0, 20.0)  # mm
CONTRASTS = (0.1, 0.4)  # of the display range
DISPLAY_RANGE = 2.0  # pixel values lie in [-1, 1]
BODY_LEVEL = -0.6  # darker pixels are background
SWEEP_SPEED = 20.0  # mm/s
MOST_TRIES = 20
"""Seeded places that are tried for every sphere, as spheres in one clip may not touch the same token."""


@dataclass(frozen=True)
class Finding:
    """Where something lies in the frames (T, 3, H, W) of a clip, cut out of them.

    Attributes:
        box: slices of frames, rows and columns around the finding.
        inside, around: bool (t, h, w) within the box, the finding and what it is compared with.
    """

    box: tuple[slice, slice, slice]
    inside: torch.Tensor
    around: torch.Tensor

    def cut(self, frames: torch.Tensor) -> torch.Tensor:
        """The box out of frames (T, 3, H, W), as (3, t, h, w)."""
        times, rows, columns = self.box
        return frames[times, :, rows, columns].transpose(0, 1)

    def difference(self, frames: torch.Tensor) -> torch.Tensor:
        """Pixels of the finding less the mean around it, (3, pixels)."""
        cut = self.cut(frames)
        return cut[:, self.inside] - cut[:, self.around].mean(dim=1, keepdim=True)

    def contrast(self, frames: torch.Tensor) -> float:
        """Root of the mean squared difference from what is around, in pixel values."""
        return float(self.difference(frames).square().mean().sqrt())

    def share_left(self, frames: torch.Tensor, shown: torch.Tensor) -> float:
        """Share of the finding's contrast in what is shown: the projection of the shown difference on the true one.

        1 where all is shown as it is; 0 where the finding shows as what is around it, or as something unlike it.
        """
        true = self.difference(frames)
        return float((self.difference(shown) * true).sum() / true.square().sum())


def outlined(mask: np.ndarray, frames: torch.Tensor) -> list[Finding]:
    """The lesions of a mask that stand out.

    Args:
        mask: bool (T, h, w), in the size of the file.
        frames: float (T, 3, H, W) in [-1, 1], in the size of the encoder.
    """
    sized = torch.nn.functional.interpolate(torch.from_numpy(mask)[:, None].float(), frames.shape[2:], mode="area")
    lesion = (sized[:, 0] >= 0.5).numpy()
    labels, _ = ndimage.label(lesion, np.ones((3, 3, 3)))
    near = np.zeros((1, 2 * RING + 1, 2 * RING + 1), bool)
    near[0] = True
    found = []
    for number, box in enumerate(ndimage.find_objects(labels), start=1):
        rows, columns = (
            slice(max(side.start - RING, 0), min(side.stop + RING, size))
            for side, size in zip(box[1:], frames.shape[2:], strict=True)
        )
        wide = (box[0], rows, columns)
        inside = labels[wide] == number
        around = ndimage.binary_dilation(inside, near) & ~lesion[wide]
        if around.any():
            found.append(Finding(wide, torch.from_numpy(inside), torch.from_numpy(around)))
    return [finding for finding in found if finding.contrast(frames) >= LEAST_CONTRAST]


def boxed(boxes: list[list[float]], frames: torch.Tensor) -> list[Finding]:
    """The findings in boxes (left, top, right, bottom as shares of frames (1, 3, H, W)) that stand out."""
    height, width = frames.shape[2:]
    taken = torch.zeros(1, height, width, dtype=torch.bool)
    for box in boxes:
        taken[:, _rows(box, height), _columns(box, width)] = True
    found = []
    for left, top, right, bottom in boxes:
        aside, over = RING_OF_BOX * (right - left) / 2, RING_OF_BOX * (bottom - top) / 2
        wide = [left - aside, top - over, right + aside, bottom + over]
        rows, columns = _rows(wide, height), _columns(wide, width)
        inside = torch.zeros_like(taken)
        inside[:, _rows([left, top, right, bottom], height), _columns([left, top, right, bottom], width)] = True
        place = (slice(0, 1), rows, columns)
        around = ~taken[place]
        if around.any():
            found.append(Finding(place, inside[place], around))
    return [finding for finding in found if finding.contrast(frames) >= LEAST_CONTRAST]


def _rows(box: list[float], height: int) -> slice:
    return _pixels(box[1], box[3], height)


def _columns(box: list[float], width: int) -> slice:
    return _pixels(box[0], box[2], width)


def _pixels(start: float, end: float, size: int) -> slice:
    """The pixels between two shares of a side, at least one."""
    first = min(max(int(start * size), 0), size - 1)
    return slice(first, min(max(round(end * size), first + 1), size))


@dataclass(frozen=True)
class Sphere:
    """A lesion to put into frames (T, 3, H, W).

    Attributes:
        box: slices of frames, rows and columns that hold it.
        weights: float (t, h, w), the share of each pixel of the box that it fills.
        change: what it adds to the pixel values it fills; negative where the body is bright.
    """

    box: tuple[slice, slice, slice]
    weights: torch.Tensor
    change: float


def pixel_axes(processed: ProcessedClip, frames: torch.Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where slices, rows and columns lie, in millimetres; seconds of a film become millimetres of a probe's sweep."""
    clip = processed.clip
    depth = clip.positions * (SWEEP_SPEED if clip.kind == "video" else 1.0)
    rows = np.arange(frames.shape[2]) * clip.pixel_spacing[0] * clip.frames.shape[1] / frames.shape[2]
    columns = np.arange(frames.shape[3]) * clip.pixel_spacing[1] * clip.frames.shape[2] / frames.shape[3]
    return depth, rows, columns


def spheres(processed: ProcessedClip, frames: torch.Tensor, seed: int) -> Iterator[Sphere]:
    """Draws spheres, without end, at seeded places inside the body that show over their whole contrast."""
    rng = np.random.default_rng(seed)
    axes = pixel_axes(processed, frames)
    brightness = frames.mean(dim=1)
    body = (brightness > BODY_LEVEL).nonzero().numpy()
    while True:
        centre = body[rng.integers(len(body))]
        radius, contrast = rng.uniform(*DIAMETERS) / 2, rng.uniform(*CONTRASTS) * DISPLAY_RANGE
        pixel = axes[2][1] - axes[2][0]
        reach = [
            (np.abs(axis - axis[index]) < radius + pixel).nonzero()[0] for axis, index in zip(axes, centre, strict=True)
        ]
        times, rows, columns = (slice(int(near[0]), int(near[-1]) + 1) for near in reach)
        box = (times, rows, columns)
        z, y, x = (axis[near] - axis[index] for axis, near, index in zip(axes, box, centre, strict=True))
        distance = np.sqrt(z[:, None, None] ** 2 + y[:, None] ** 2 + x**2)
        weights = torch.from_numpy(np.clip((radius - distance) / pixel + 0.5, 0, 1)).float()
        around = float((brightness[box] * weights).sum() / weights.sum())
        yield Sphere(box, weights, contrast if around < 0 else -contrast)


@dataclass(frozen=True)
class Planted:
    """Spheres in one clip that touch no token in common.

    Attributes:
        frames: float (T, 3, H, W), with all of them.
        difference: what they added.
        spheres: that were planted.
    """

    frames: torch.Tensor
    difference: torch.Tensor
    spheres: list[Sphere]

    def shares_left(self, shown_difference: torch.Tensor) -> list[float]:
        """Share of each sphere's contrast in what is shown of the difference, (T, 3, H, W)."""
        shares = []
        for sphere in self.spheres:
            times, rows, columns = sphere.box
            touched = (sphere.weights > 0).unsqueeze(1)
            true = (self.difference[times, :, rows, columns] * touched).sum()
            shares.append(float((shown_difference[times, :, rows, columns] * touched).sum() / true))
        return shares


def plant(processed: ProcessedClip, frames: torch.Tensor, token_side: int, count: int, seed: int) -> Planted:
    """Puts up to `count` spheres into frames (T, 3, H, W); tokens are `token_side` pixels wide."""
    taken = torch.zeros(len(frames), *(size // token_side for size in frames.shape[2:]), dtype=torch.bool)
    added, planted = torch.zeros_like(frames[:, 0]), []
    for sphere in itertools.islice(spheres(processed, frames, seed), MOST_TRIES * count):
        times, rows, columns = sphere.box
        of_tokens = (slice(side.start // token_side, (side.stop - 1) // token_side + 1) for side in (rows, columns))
        place = (times, *of_tokens)
        if taken[place].any():
            continue
        taken[place] = True
        added[sphere.box] += sphere.weights * sphere.change
        planted.append(sphere)
        if len(planted) == count:
            break
    with_all = (frames + added.unsqueeze(1)).clamp(-1, 1)
    return Planted(with_all, with_all - frames, planted)
