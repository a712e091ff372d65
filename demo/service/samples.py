# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The examples of the page: generated media of this repository, and open data from installed packages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import nilearn
from pydicom.data import get_testdata_file

SAMPLES = Path(__file__).resolve().parents[2] / "examples" / "media"
MNI152 = "datasets/data/mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"


def examples() -> Iterator[tuple[str, Path]]:
    """Yields the label and path of each example; leaves out those that the installed packages lack."""
    yield "MR head · MNI152 average", Path(nilearn.__file__).parent / MNI152
    echocardiogram = get_testdata_file("examples_ybr_color.dcm", download=False)
    if echocardiogram:
        yield "Echocardiogram · DICOM cine", Path(echocardiogram)
    yield "Chest CT · generated", SAMPLES / "ct_volume.nii.gz"
    yield "Heart ultrasound · generated", SAMPLES / "ultrasound.mp4"
    yield "Chest X-ray · generated", SAMPLES / "xray.png"
