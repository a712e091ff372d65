# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The NIfTI file that labels are laid over: its grid, on which they are written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import cast

import nibabel
import numpy as np

from clinic.source_series import Placed, SeriesError

MILLIMETRES = {1: 1000.0, 3: 0.001}
"""Of NIfTI's codes for metres and micrometres (nifti1.h, "units of spatial and temporal dimensions")."""
RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0])


@dataclass(frozen=True)
class SourceVolume(Placed):
    """A volume of a NIfTI file. Its slices follow each other along the third stored axis, its rows along the second.

    Attributes:
        shape: slices, rows and columns.
    """

    shape: tuple[int, int, int]


def read_volume(path: Path) -> SourceVolume:
    """The grid of a NIfTI file.

    Raises:
        SeriesError: the header cannot be read.
    """
    try:
        image = cast(nibabel.Nifti1Image, nibabel.load(path))  # Nifti2Image is one, too
        units = MILLIMETRES.get(int(image.header["xyzt_units"]) & 7, 1.0)
        says_place = image.header["sform_code"] > 0 or image.header["qform_code"] > 0
        affine = np.asarray(image.affine, dtype=np.float64)
        columns, rows, slices = (*image.shape, 1, 1)[:3]
    except MemoryError:
        raise
    except Exception:  # of many classes
        raise SeriesError(f"{path.name} cannot be read as NIfTI; give it the ending .nii or .nii.gz.") from None
    if not says_place:
        return SourceVolume(None, None, (slices, rows, columns))
    steps, first = units * RAS_TO_LPS @ affine[:3, :3], units * RAS_TO_LPS @ affine[:3, 3]
    return SourceVolume(first + np.arange(slices)[:, None] * steps[:, 2], steps, (slices, rows, columns))
