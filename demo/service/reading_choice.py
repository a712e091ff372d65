# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""What a visitor chose of a file that can be read in several ways: the series, and the plane of the slices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hub_model.media_omniv_med import PLANES

if TYPE_CHECKING:
    from hub_model.clip_omniv_med import Series


@dataclass(frozen=True)
class ReadingChoice:
    """How files are read.

    Attributes:
        series: number of the DICOM series; None reads the one with the most slices.
        plane: in which volumes are sliced, one of `PLANES`.
    """

    series: int | None = None
    plane: str = "axial"

    def changed(self, plane: object, series: object, offered: Sequence[Series]) -> ReadingChoice:
        """The choice with what a client asks for; None leaves the plane, or the series, as it is.

        Raises:
            ValueError: for a plane or a series that is not offered.
        """
        numbers = [each.number for each in offered]
        if plane is not None and plane not in PLANES:
            raise ValueError(f"A volume is sliced in one of the planes {', '.join(PLANES)}.")
        if series is not None and series not in numbers:
            raise ValueError("The file holds no series of that number.")
        return ReadingChoice(
            self.series if series is None else int(str(series)), self.plane if plane is None else str(plane)
        )


AS_FOUND = ReadingChoice()
"""The choice where nobody chose."""
