# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The examples of the page: generated media of this repository, and open data from installed packages."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import nilearn
from pydicom.data import get_testdata_file

SAMPLES = Path(__file__).resolve().parents[2] / "examples" / "media"
MNI152 = "datasets/data/mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"


@dataclass(frozen=True)
class Example:
    """A file that visitors can try.

    Attributes:
        name: names its thumbnail, too.
        label: what it shows, in a few words.
        detail: what kind of file it is, and where it comes from.
        question: a question that fits.
        path: the file.
    """

    name: str
    label: str
    detail: str
    question: str
    path: Path


def examples() -> Iterator[Example]:
    """Yields the examples; leaves out those that the installed packages lack."""
    brain = Path(nilearn.__file__).parent / MNI152
    yield Example("brain", "MR head", "MNI152 average, 3D", "Which part of the body is shown?", brain)
    echocardiogram = get_testdata_file("examples_ybr_color.dcm", download=False)
    if echocardiogram:
        question = "Which imaging modality is this?"
        yield Example("echo", "Echocardiogram", "DICOM cine", question, Path(echocardiogram))
    ct = SAMPLES / "ct_volume.nii.gz"
    yield Example("ct", "Chest CT", "generated, 3D", "In which plane is this volume?", ct)
    yield Example("heart", "Heart ultrasound", "generated video", "What motion is seen?", SAMPLES / "ultrasound.mp4")
    yield Example("xray", "Chest X-ray", "generated image", "Which part of the body is shown?", SAMPLES / "xray.png")
