# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""A folder of studies as exports leave them: series mixed, other files beside them, a patient in every header."""

from __future__ import annotations

import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from pydicom.dataset import Dataset

from tests.helpers.media_files import slice_dataset
from tests.helpers.paths import ROOT

FILM = ROOT / "examples/media/ultrasound.mp4"
LEAKED = "LEAKED^NAME"
BIRTH_DATE = "19340217"
PERSONAL = {
    "PatientName": LEAKED,
    "PatientID": "LEAKED-4711",
    "PatientBirthDate": BIRTH_DATE,
    "PatientAddress": "LEAKED street",
    "PatientComments": "LEAKED comment",
    "OtherPatientNames": LEAKED,
    "ReferringPhysicianName": LEAKED,
    "InstitutionName": "LEAKED hospital",
    "AccessionNumber": "LEAKED 1",
    "StudyID": "LEAKED 2",
    "StudyDescription": "LEAKED study",
    "ProtocolName": "LEAKED protocol",
    "ImageComments": "LEAKED image",
    "StationName": "LEAKED3",
    "StudyDate": BIRTH_DATE,
}
"""Elements of every DICOM file here; nothing of them may be seen again."""


@dataclass(frozen=True)
class Uids:
    """UIDs of the studies and series of `write_studies`."""

    head: str = "1.2.3.1"
    thin: str = "1.2.3.1.1"
    thick: str = "1.2.3.1.2"
    heart: str = "1.2.3.2"
    loops: str = "1.2.3.2.1"
    packed: str = "1.2.3.3"
    arms: str = "1.2.3.3.1"
    legs: str = "1.2.3.3.2"


UIDS = Uids()


def dicom(study: str, series: str, number: int, modality: str = "CT", frames: int = 1, **elements) -> Dataset:
    """One file of a series, 16 × 20 pixels large; several frames are moments of a loop."""
    pixels = np.random.default_rng(number).integers(0, 1000, (frames, 16, 20)).astype(np.uint16)
    more = {"NumberOfFrames": frames, "FrameTime": 500} if frames > 1 else {}
    return slice_dataset(
        pixels[0] if frames == 1 else pixels,
        modality,
        **{
            "StudyInstanceUID": study,
            "SeriesInstanceUID": series,
            "SOPInstanceUID": f"{series}.{number}",
            "InstanceNumber": number,
            "SeriesDescription": "LEAKED head",
            "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
            "ImagePositionPatient": [0, 0, 3 * number],
            "PixelSpacing": [1, 1],
            "RescaleSlope": 1,
            "RescaleIntercept": -1024,
            **PERSONAL,
            **more,
            **elements,
        },
    )


def save(dataset: Dataset, path: Path) -> None:
    """Writes a file with the preamble of PS3.10."""
    dataset.save_as(path, enforce_file_format=True)


def write_studies(folder: Path) -> Path:
    """Writes all of it, and returns the folder."""
    mixed = folder / "LEAKED" / "mixed"
    mixed.mkdir(parents=True)
    for number in range(4):  # files of two series take turns
        save(dicom(UIDS.head, UIDS.thin, number), mixed / f"{2 * number:02d}_LEAKED")
        save(dicom(UIDS.head, UIDS.thick, number), mixed / f"{2 * number + 1:02d}_LEAKED")
    for number in range(2):  # two loops that share their series
        save(dicom(UIDS.heart, UIDS.loops, number, "US", frames=3), folder / "LEAKED" / f"loop{number}")
    with zipfile.ZipFile(folder / "export.zip", "w") as archive:
        for number, series in enumerate((UIDS.arms, UIDS.legs, UIDS.arms, UIDS.legs)):
            save(dicom(UIDS.packed, series, number), folder / "slice")
            archive.write(folder / "slice", f"LEAKED/{number}")
    (folder / "slice").unlink()

    volume = nibabel.Nifti1Image(np.arange(4 * 10 * 12, dtype=np.int16).reshape(12, 10, 4), np.diag([1, 1, 2, 1]))
    volume.header["descrip"] = b"LEAKED"
    nibabel.save(volume, folder / "head.nii.gz")
    texts = PngInfo()
    texts.add_text("Description", LEAKED)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8))
    picture.save(folder / "picture.png", pnginfo=texts)
    shutil.copy(FILM, folder / "film.mp4")

    (folder / "damaged.png").write_bytes((folder / "picture.png").read_bytes()[:60])
    (folder / "notes.txt").write_text("LEAKED notes")
    (folder / "empty").touch()
    (folder / ".hidden").write_text("LEAKED")
    (folder / "again").symlink_to(mixed, target_is_directory=True)
    report = dicom(UIDS.head, "1.2.3.1.9", 0, "SR")
    for keyword in ("PixelData", "Rows", "Columns"):
        delattr(report, keyword)
    save(report, folder / "report")
    return folder
