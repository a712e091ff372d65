# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Writes the generated files: phantoms, resampled to a scanner's sizes, with noise of its own in every frame."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import av
import nibabel
import numpy as np
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from benchmarks.end_to_end.cases import Case
from benchmarks.generated_studies import resampled
from data_engine.phantoms import generate
from data_engine.sample_media import hounsfield_units

CT_SEEDS, MR_SEEDS = (1, 2, 3, 4), (2,)
"""Of the parts that a volume has one above the other: a trunk, and axial slices of a head."""
CT_NOISE, MR_NOISE, FILM_NOISE = 12.0, 40.0, 4.0
"""Standard deviations: HU, values of 0 to 2,040, and grey levels of 0 to 255."""
MR_SCALE = 8
EXTENT_MM = 360.0
"""Side of a slice. Slices are a millimetre apart."""
FRAME_RATE, SECONDS_OF_A_VIEW = 25, 60
FIRST_VIEW_SEED = 100
DRIFT, DRIFT_SECONDS = 3, (7.3, 11.1)
"""By how many pixels, and in how many seconds to and fro, a hand moves the probe up and down, and sideways."""
TINY = 2
"""Frames of the files that a process is warmed up with."""


def tiny(case: Case) -> Case:
    """A case of the same kind with a file of two frames beside its own."""
    return replace(case, file=f"tiny_{case.file}", frames=TINY, height=case.height // 4, width=case.width // 4)


def write_files(case: Case, folder: Path) -> None:
    """The file of a case and its tiny one."""
    for one in (case, tiny(case)):
        path = folder / one.file
        if one.kind == "video":
            _write_film(path, one)
        elif path.name.endswith(".nii.gz"):
            _write_nifti(path, one)
        else:
            _write_series(path, one)


def _slices(case: Case) -> Iterator[np.ndarray]:
    """int16 (height, width) slices: HU of CT, values of MR."""
    is_ct = case.window is not None
    modality, seeds, noise = ("CT", CT_SEEDS, CT_NOISE) if is_ct else ("MRI", MR_SEEDS, MR_NOISE)
    frames = np.concatenate([generate(modality, "volume", np.random.default_rng(seed)).frames for seed in seeds])
    coarse = (hounsfield_units(frames) if is_ct else frames[..., 0] * np.float32(MR_SCALE)).astype(np.float32)
    size = (case.frames, case.height, case.width)
    generator = np.random.default_rng(0)
    for clean in resampled(coarse, size):
        noisy = clean + noise * generator.standard_normal(clean.shape, np.float32)
        yield (noisy.clip(-1024, 3000) if is_ct else np.abs(noisy)).round().astype(np.int16)


def _write_nifti(path: Path, case: Case) -> None:
    step = EXTENT_MM / case.width
    voxels = np.stack(list(_slices(case))).transpose(2, 1, 0)
    nibabel.save(nibabel.Nifti1Image(voxels, np.diag([-step, -step, 1, 1])), path)


def _write_series(folder: Path, case: Case) -> None:
    """One DICOM file a slice, whose names do not say their order."""
    folder.mkdir()
    study, series, frame_of_reference = (generate_uid() for _ in range(3))
    for number, pixels in enumerate(_slices(case)):
        dataset = Dataset()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = CTImageStorage
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, series
        dataset.FrameOfReferenceUID, dataset.Modality = frame_of_reference, "CT"
        dataset.InstanceNumber, dataset.ImagePositionPatient = number + 1, [0, 0, number]
        dataset.ImageOrientationPatient, dataset.SliceThickness = [1, 0, 0, 0, 1, 0], 1
        dataset.PixelSpacing = [EXTENT_MM / case.height, EXTENT_MM / case.width]
        dataset.Rows, dataset.Columns = pixels.shape
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.BitsAllocated = dataset.BitsStored = 16
        dataset.HighBit, dataset.PixelRepresentation = 15, 1
        dataset.RescaleSlope, dataset.RescaleIntercept, dataset.RescaleType = 1, 0, "HU"
        dataset.PixelData = pixels.astype("<i2").tobytes()
        dataset.save_as(folder / f"{dataset.SOPInstanceUID.rpartition('.')[2]}.dcm", enforce_file_format=True)


def _view(seed: int, side: int) -> np.ndarray:
    """An ultrasound loop, forwards and backwards, int16 (frames, side, side)."""
    frames = generate("ultrasound", "video", np.random.default_rng(seed)).frames[..., 0]
    there_and_back = np.concatenate([frames, frames[-2:0:-1]])
    return np.stack([Image.fromarray(frame).resize((side, side)) for frame in there_and_back]).astype(np.int16)


def _write_film(path: Path, case: Case) -> None:
    """H.264 of ultrasound on a screen that is wider than it; each minute another view, held by hand."""
    grain = np.random.default_rng(0).normal(0, FILM_NOISE, (2 * case.height, 2 * case.width))
    left = (case.width - case.height) // 2
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FRAME_RATE, options={"preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = case.width, case.height, "yuv420p"
        for number in range(case.frames * FRAME_RATE):
            if number % (SECONDS_OF_A_VIEW * FRAME_RATE) == 0:
                view = _view(FIRST_VIEW_SEED + number // (SECONDS_OF_A_VIEW * FRAME_RATE), case.height + 2 * DRIFT)
            turns = [2 * np.pi * number / FRAME_RATE / seconds for seconds in DRIFT_SECONDS]
            y, x = (round(DRIFT * (1 + np.sin(turn))) for turn in turns)
            shown = np.roll(grain, 7919 * number)[: case.height, : case.width]
            shown[:, left : left + case.height] += view[number % len(view)][y : y + case.height, x : x + case.height]
            grey = shown.clip(0, 255).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(grey, format="gray")))
        container.mux(stream.encode())
