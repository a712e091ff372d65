# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Generated medical images, volumes and videos with exact ground truth: training data without patients or licences.

Every family imitates how its machine forms a picture and randomises all that differs between machines, sites and
exports (field of view, resolution, noise, gain, window, borders, annotations, compression), so that a small model
trained on phantoms only can name real files.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from . import (
    angiography,
    clinical_photograph,
    ct,
    dermoscopy,
    endoscopy,
    fundus,
    histopathology,
    mammography,
    microscopy,
    mri,
    oct,
    pet,
    ultrasound,
    xray,
)
from .sample import LESION_GRID, Sample

_FAMILIES: dict[str, tuple[Callable[[str, np.random.Generator], Sample], tuple[str, ...]]] = {
    "CT": (ct.generate, ("image", "volume")),
    "MRI": (mri.generate, ("image", "volume")),
    "ultrasound": (ultrasound.generate, ("image", "video")),
    "X-ray": (xray.generate, ("image",)),
    "histopathology": (histopathology.generate, ("image",)),
    "fundus photography": (fundus.generate, ("image",)),
    "endoscopy": (endoscopy.generate, ("image", "video")),
    "dermoscopy": (dermoscopy.generate, ("image",)),
    "OCT": (oct.generate, ("image", "volume")),
    "PET": (pet.generate, ("image", "volume")),
    "microscopy": (microscopy.generate, ("image",)),
    "angiography": (angiography.generate, ("image", "video")),
    "mammography": (mammography.generate, ("image",)),
    "clinical photograph": (clinical_photograph.generate, ("image",)),
}
MODALITIES: tuple[str, ...] = tuple(_FAMILIES)
"""Human names of the modalities, as they appear in answers."""
KINDS_OF: dict[str, tuple[str, ...]] = {name: kinds for name, (_, kinds) in _FAMILIES.items()}
"""The kinds of clip each modality is made as."""


def generate(modality: str, kind: str, rng: np.random.Generator) -> Sample:
    """Makes one sample of `modality` as "image", "volume" or "video"; all randomness comes from `rng`.

    Raises:
        ValueError: the modality is unknown, or is not made as that kind.
    """
    if modality not in _FAMILIES:
        raise ValueError(f"Unknown modality {modality!r}; choose one of {', '.join(MODALITIES)}.")
    make, kinds = _FAMILIES[modality]
    if kind not in kinds:
        raise ValueError(f"{modality} is made as {' or '.join(kinds)}, not as {kind!r}.")
    sample = make(kind, rng)
    if sample.facts.get("lesion") == "no":
        return replace(sample, lesions=np.zeros((len(sample.frames), LESION_GRID, LESION_GRID), np.uint8))
    return sample


__all__ = ["KINDS_OF", "LESION_GRID", "MODALITIES", "Sample", "generate"]
