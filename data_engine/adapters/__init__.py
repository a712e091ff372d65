# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The adapters of public data sets, by name: what a build can read from a folder that a user has downloaded."""

from __future__ import annotations

from data_engine.adapters import (
    deeptumorvqa,
    hub_parquet,
    labelled_pictures,
    m3d,
    medframeqa,
    medvidbench,
    medxpertqa,
    mimic_cxr,
    not_medical,
    omnimedvqa,
    pmc_vqa,
    rad_3d,
    slake,
    video_folder,
    videollama3,
    vqa_rad,
    without_answer,
)
from data_engine.adapters.base import Adapter, BrokenRow, MediaStore, Row, SourceError
from data_engine.adapters.matching import matching

__all__ = ["ADAPTERS", "Adapter", "BrokenRow", "MediaStore", "Row", "SourceError", "get_adapter"]

ADAPTERS: dict[str, Adapter] = {
    adapter.name: adapter
    for adapter in (
        *vqa_rad.ADAPTERS,
        *hub_parquet.ADAPTERS,
        *slake.ADAPTERS,
        *pmc_vqa.ADAPTERS,
        *mimic_cxr.ADAPTERS,
        *m3d.ADAPTERS,
        *rad_3d.ADAPTERS,
        *medvidbench.ADAPTERS,
        *medxpertqa.ADAPTERS,
        *medframeqa.ADAPTERS,
        *omnimedvqa.ADAPTERS,
        *deeptumorvqa.ADAPTERS,
        # As in the paper, whose 3D part has M3D-Cap's retrieval turned into questions.
        matching(m3d.M3D_CAP, "image-text-matching"),
        matching(mimic_cxr.ADAPTERS[0], "image-text-matching-mimic-cxr"),
        matching(video_folder.VIDEO_CAPTIONS, "image-text-matching-video-folder"),
        *video_folder.ADAPTERS,
        *videollama3.ADAPTERS,
        *labelled_pictures.ADAPTERS,
        *without_answer.ADAPTERS,
        *not_medical.ADAPTERS,
    )
}


def get_adapter(name: str) -> Adapter:
    """The adapter of a name; raises `SourceError` with the names that there are."""
    if name not in ADAPTERS:
        raise SourceError(f"There is no adapter {name!r}; choose one of {', '.join(sorted(ADAPTERS))}.")
    return ADAPTERS[name]
