# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""What pruning kept and removed, laid over the images: as DICOM SEG and as NIfTI on the source's own voxels.

The model sees frames, cut from the source along a plane and resized to tokens. Here each voxel of the source is
followed the other way: to the pixel of the frame that shows it (`Clip.geometry`), and to the token that this pixel is
in. Voxels of slices that were not among the chosen frames belong to no token.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import highdicom
import nibabel
import numpy as np
from highdicom.seg import Segmentation, SegmentDescription
from pydicom.sr.codedict import codes

from clinic.source_series import Placed, SeriesError, SourceSeries, values_stay_out_of_logs
from clinic.source_volume import SourceVolume
from clinic.structured_report import ModelIdentity, identity_of_result, own_code

if TYPE_CHECKING:
    from hub_model.processing_omniv_med import ProcessedClip

NOT_SEEN, KEPT, REMOVED = 0, 1, 2
"""Labels of voxels: in no frame of the clip, in a kept token, in a removed one."""
SERIES_NUMBER = 9002
"""Of segmentations, after the images and the report."""
SAME_PLACE = 0.01
"""Millimetres within which a frame and a slice are the same."""
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
COLOUR = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
"""A voxel of NIfTI's type RGB24."""


@dataclass(frozen=True)
class PixelsOfSlice:
    """Where a slice of the source is seen in the clip, each (rows, columns) of the slice.

    Attributes:
        seen: bool, whether a frame shows the voxel.
        frame, row, column: int64, the pixel that shows it; 0 where none does.
    """

    seen: np.ndarray
    frame: np.ndarray
    row: np.ndarray
    column: np.ndarray


def pixels_of_slices(processed: ProcessedClip, series: SourceSeries | SourceVolume) -> Iterator[PixelsOfSlice]:
    """For each slice of the source, the pixels of the clip's frames that show its voxels.

    Raises:
        SeriesError: where the frames or the slices do not say where they lie.
    """
    geometry = processed.clip.geometry
    if geometry is None or series.origins is None or series.steps is None:
        raise SeriesError(
            "Where the frames lie in the patient is not known (no slice positions, or slices at varying distances that "
            "are cut across), so no segmentation can be laid over the images."
        )
    height, width = processed.clip.frames.shape[1:3]
    _, rows, columns = series.shape
    to_pixels = np.linalg.inv(geometry.steps)
    column, row = np.meshgrid(np.arange(columns), np.arange(rows))
    # (rows, columns, 3): how far each voxel is from its slice's first, in columns, rows and slices of the clip.
    within = (np.stack([column, row], axis=-1) @ series.steps[:, :2].T) @ to_pixels.T
    normals = [np.cross(steps[:, 0], steps[:, 1]) for steps in (geometry.steps, series.steps)]
    frame_normal, slice_normal = (normal / np.linalg.norm(normal) for normal in normals)
    as_acquired = abs(frame_normal @ slice_normal) > 0.9999
    frame_numbers = ((geometry.origins - geometry.origins[0]) @ to_pixels.T)[:, 2]
    for origin in series.origins:
        if as_acquired:  # the slice is a frame or is not, whatever the distances of the others
            distances = np.abs((geometry.origins - origin) @ frame_normal)
            nearest = int(distances.argmin())
            frame = np.full((rows, columns), nearest)
            place = within + to_pixels @ (origin - geometry.origins[nearest])
            seen = np.full((rows, columns), distances[nearest] < SAME_PLACE)
        else:
            place = within + to_pixels @ (origin - geometry.origins[0])
            frame = np.abs(place[..., 2, None] - frame_numbers).argmin(axis=-1)
            seen = np.abs(place[..., 2] - frame_numbers[frame]) <= 0.5
        across, down = np.rint(place[..., 0]).astype(np.int64), np.rint(place[..., 1]).astype(np.int64)
        seen &= (across >= 0) & (across < width) & (down >= 0) & (down < height)
        yield PixelsOfSlice(seen, *(np.where(seen, index, 0) for index in (frame, down, across)))


def token_labels(processed: ProcessedClip, series: SourceSeries | SourceVolume) -> np.ndarray:
    """uint8 (slices, rows, columns) on the source's voxels: `NOT_SEEN`, `KEPT` or `REMOVED`.

    A frame is resized as a whole to its tokens, so pixel row r of H lies in token row floor((r + 1/2) · rows / H).

    Raises:
        SeriesError: as `pixels_of_slices`.
    """
    _, height, width = processed.clip.frames.shape[:3]
    labels = np.where(processed.pruned.keep_mask.numpy(), KEPT, REMOVED).astype(np.uint8)
    labels = labels.reshape(len(labels), *processed.grid)
    token_row = _cell_of_pixel(height, processed.grid[0])
    token_column = _cell_of_pixel(width, processed.grid[1])
    made = np.zeros(series.shape, np.uint8)
    for target, pixels in zip(made, pixels_of_slices(processed, series), strict=True):
        target[...] = np.where(
            pixels.seen, labels[pixels.frame, token_row[pixels.row], token_column[pixels.column]], NOT_SEEN
        )
    return made


def reconstruction(processed: ProcessedClip, series: SourceSeries | SourceVolume) -> np.ndarray:
    """What the language model receives, on the source's voxels, black where no frame shows them.

    Each voxel has the grey level, or the three windows, of the frame's pixel at the encoder's resolution that it is in.

    Returns:
        uint8 (slices, rows, columns), or (slices, rows, columns, 3) where the channels differ.

    Raises:
        SeriesError: as `pixels_of_slices`.
    """
    frames = processed.reconstructed_frames()
    if (frames[..., :1] == frames).all():
        frames = frames[..., 0]
    _, height, width = processed.clip.frames.shape[:3]
    small_row, small_column = _cell_of_pixel(height, frames.shape[1]), _cell_of_pixel(width, frames.shape[2])
    made = np.zeros((*series.shape, *frames.shape[3:]), np.uint8)
    for target, pixels in zip(made, pixels_of_slices(processed, series), strict=True):
        shown = frames[pixels.frame, small_row[pixels.row], small_column[pixels.column]]
        target[pixels.seen] = shown[pixels.seen]
    return made


def _cell_of_pixel(pixels: int, cells: int) -> np.ndarray:
    """int64 (pixels,): in which of so many equal cells of a side each of its pixels is centred."""
    return ((2 * np.arange(pixels) + 1) * cells // (2 * pixels)).astype(np.int64)


def write_nifti(values: np.ndarray, series: Placed, path: Path) -> None:
    """Writes voxels (slices, rows, columns), or colours (…, 3), of the source as NIfTI.

    The sform places them as the source's headers do, sheared where the gantry was tilted. NIfTI knows no patient, and
    nothing but the numbers and their place is written.

    Raises:
        SeriesError: where the distances of the slices vary.
    """
    affine = LPS_TO_RAS @ series.affine()
    if values.ndim == 4:
        values = np.ascontiguousarray(values).view(COLOUR)[..., 0]
    image = nibabel.Nifti1Image(np.ascontiguousarray(values.transpose(2, 1, 0)), affine)
    image.set_sform(affine, code="scanner")
    image.header.set_xyzt_units("mm")
    nibabel.save(image, path)


def build_segmentation(labels: np.ndarray, series: SourceSeries, model: ModelIdentity, settings: str) -> Segmentation:
    """Kept and removed tokens as a binary DICOM SEG of two segments; slices without tokens have no frame.

    Args:
        labels: as `token_labels` gives them.
        series: what they lie over; its headers say what the file holds of the patient.
        model: whose tokens they are.
        settings: how they were pruned, in a few words.

    Raises:
        SeriesError: headers that a segmentation cannot repeat, or a series of one file with many frames.
    """
    if any(header.get("NumberOfFrames") for header in series.headers):
        raise SeriesError("Segmentations are written for series with one file a slice, and this one has many in one.")
    if not all(header.get("FrameOfReferenceUID") for header in series.headers):
        raise SeriesError("The series names no frame of reference, which a segmentation must repeat.")
    with values_stay_out_of_logs():
        try:
            return Segmentation(
                source_images=series.headers,
                pixel_array=labels,
                segmentation_type="BINARY",
                segment_descriptions=_segments(model, settings),
                device_serial_number="none",
                content_label="TOKENS",
                content_description="Visual tokens that pruning kept and removed",
                **identity_of_result(model, SERIES_NUMBER, "Tokens kept and removed, research use only"),
            )
        except (AttributeError, KeyError, TypeError, ValueError):  # with the value that is wrong in its message
            raise SeriesError(
                "The headers of the series lack what a segmentation must repeat, or have values that DICOM does not "
                "allow; no segmentation is written."
            ) from None


def _segments(model: ModelIdentity, settings: str) -> list[SegmentDescription]:
    """The two segments."""
    pruner = highdicom.AlgorithmIdentificationSequence(
        name="OmniV-Med token pruning",
        family=codes.cid7162.ArtificialIntelligence,
        version=model.version,
        parameters={"settings": settings},
    )
    named = [(KEPT, "KEPT", "Token kept"), (REMOVED, "REMOVED", "Token removed")]
    return [
        SegmentDescription(
            segment_number=number,
            segment_label=meaning,
            segmented_property_category=codes.SCT.SpatialAndRelationalConcept,
            segmented_property_type=own_code(value, meaning),
            algorithm_type="AUTOMATIC",
            algorithm_identification=pruner,
        )
        for number, value, meaning in named
    ]
