# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""CT series as a scanner writes them, in any position, with a patient whose values must be seen nowhere else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

PATIENT = {
    "PatientName": "Wombatowski^Zygmunt",
    "PatientID": "ZQX-4711",
    "PatientBirthDate": "19340217",
    "PatientSex": "O",
    "AccessionNumber": "ACC8675309",
    "StudyID": "POTOROO7",
    "StudyDate": "20190823",
    "StudyTime": "112233",
    "StudyDescription": "Numbatova trial",
    "ReferringPhysicianName": "Bilbyson^Xaver",
    "InstitutionName": "Kowari Klinik",
    "PatientComments": "seen by Dunnart",
}
"""What the header of every slice says of the patient."""
MARKS = [part for value in PATIENT.values() for part in value.split("^") if len(part) > 3]
"""Words by which a leak of these is found."""


@dataclass(frozen=True)
class Pose:
    """How slices lie: directions of a row and of a column in LPS, and the way to the next slice in millimetres."""

    row: tuple[float, float, float]
    column: tuple[float, float, float]
    step: tuple[float, float, float]


def _turned(pose: Pose) -> Pose:
    """A pose turned about the z and then about the x axis, so that nothing lies along an axis of the body."""
    z, x = np.radians(12), np.radians(17)
    about_z = np.array([[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]])
    turn = about_x @ about_z
    return Pose(*(tuple((turn @ vector).tolist()) for vector in (pose.row, pose.column, pose.step)))


AXIAL = Pose((1, 0, 0), (0, 1, 0), (0, 0, 3.0))
POSES = {
    "axial": AXIAL,
    "from the head down": Pose((1, 0, 0), (0, 1, 0), (0, 0, -3.0)),
    "coronal": Pose((1, 0, 0), (0, 0, -1), (0, 3.0, 0)),
    "sagittal": Pose((0, 1, 0), (0, 0, -1), (-3.0, 0, 0)),
    "oblique": _turned(AXIAL),
    "tilted": Pose((1, 0, 0), (0, 1, 0), (0, 3.0 * float(np.tan(np.radians(20))), 3.0)),
}
PIXEL_SPACING = (1.5, 0.75)
"""Millimetres between rows and between columns."""
ORIGIN = (-31.25, 14.5, -203.125)


def body(slices: int = 12, rows: int = 20, columns: int = 16) -> np.ndarray:
    """int16 HU (slices, rows, columns): a block of water with a bone in a corner, in air, that changes on its way."""
    voxels = np.full((slices, rows, columns), -1000, np.int16)
    voxels[:, 2:-2, 2:-2] = 40
    voxels[: slices // 3, 3:6, 3:5] = 900
    voxels[slices // 2 :, -8:-4, -6:-3] = -700
    return voxels


def write_series(
    folder: Path,
    voxels: np.ndarray,
    pose: Pose = AXIAL,
    steps: Sequence[float] | None = None,
    **elements: object,
) -> list[Path]:
    """Writes voxels in HU as one file a slice, with all that PS3.3 A.3 asks of a CT image.

    Args:
        folder: made where it does not exist.
        voxels: int16 (slices, rows, columns).
        pose: how the slices lie.
        steps: how many steps of the pose each slice lies from the first; by default 0, 1, 2, ….
        elements: further elements of every slice, or in the place of those written here.
    """
    folder.mkdir(parents=True, exist_ok=True)
    study, series, frame_of_reference = (generate_uid() for _ in range(3))
    files = []
    for number, pixels in enumerate(voxels):
        place = np.array(ORIGIN) + np.array(pose.step) * (number if steps is None else steps[number])
        dataset = Dataset()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, generate_uid()
        dataset.file_meta.MediaStorageSOPClassUID = CTImageStorage
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, series
        dataset.FrameOfReferenceUID, dataset.PositionReferenceIndicator = frame_of_reference, ""
        dataset.Modality, dataset.Manufacturer, dataset.SeriesNumber = "CT", "Generated", 5
        dataset.SeriesDescription, dataset.ImageType = "Thorax", ["ORIGINAL", "PRIMARY", "AXIAL"]
        dataset.KVP, dataset.AcquisitionNumber, dataset.PatientPosition = 120, 1, "HFS"
        dataset.SliceThickness, dataset.InstanceNumber = 3.0, number + 1
        dataset.ImagePositionPatient = [round(float(value), 6) for value in place]
        dataset.ImageOrientationPatient = [round(value, 8) for value in (*pose.row, *pose.column)]
        dataset.PixelSpacing = list(PIXEL_SPACING)
        dataset.Rows, dataset.Columns = pixels.shape
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.BitsAllocated = dataset.BitsStored = 16
        dataset.HighBit, dataset.PixelRepresentation = 15, 1
        dataset.RescaleSlope, dataset.RescaleIntercept, dataset.RescaleType = 1, 0, "HU"
        dataset.PixelData = pixels.astype("<i2").tobytes()
        for keyword, value in {**PATIENT, **elements}.items():
            setattr(dataset, keyword, value)
        file = folder / f"{number:04d}.dcm"
        dataset.save_as(file, enforce_file_format=True)
        files.append(file)
    return files


def centre_of(pose: Pose, slice_number: float, row: float, column: float) -> np.ndarray:
    """LPS millimetres of the centre of a voxel that `write_series` wrote."""
    along_row, along_column = np.array(pose.row) * PIXEL_SPACING[1], np.array(pose.column) * PIXEL_SPACING[0]
    return np.array(ORIGIN) + np.array(pose.step) * slice_number + along_row * column + along_column * row


def slice_alone() -> np.ndarray:
    """The middle of `body` alone, int16 HU (1, rows, columns)."""
    return body()[6:7]
