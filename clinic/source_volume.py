# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The NIfTI file that labels are laid over: its grid, on which they are written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from clinic.source_series import Placed, SeriesError
from hub_model.clip_omniv_med import MediaError
from hub_model.nifti_files_omniv_med import read_header


@dataclass(frozen=True)
class SourceVolume(Placed):
    """A volume of a NIfTI file. Its slices follow each other along the third stored axis, its rows along the second.

    Attributes:
        shape: slices, rows and columns.
    """

    shape: tuple[int, int, int]


def read_volume(path: Path) -> SourceVolume:
    """The grid of a NIfTI file, as the reader of its frames sees it.

    Raises:
        SeriesError: the header cannot be read.
    """
    try:
        header = read_header(path, path.name)
    except MediaError as error:
        raise SeriesError(str(error)) from None
    columns, rows, slices = header.size[:3]
    origins = header.origins
    return SourceVolume(origins, None if origins is None else header.axes, (slices, rows, columns))
