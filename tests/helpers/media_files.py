# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Medical files that packages ship, and files written here from one body that is known voxel by voxel."""

from __future__ import annotations

import itertools
import zipfile
from pathlib import Path

import av
import nibabel
import nilearn
import numpy as np
import pydicom
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from hub_model.media_omniv_med import Clip

SPACING = (3.0, 1.5, 0.75)  # slices, rows, columns in mm
MNI = Path(nilearn.__file__).parent / "datasets/data/mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"
ANATOMICAL = Path(nibabel.__file__).parent / "tests/data/anatomical.nii"
ALL_AXES = [
    "".join(signs) for order in itertools.permutations(("LR", "PA", "SI")) for signs in itertools.product(*order)
]
METAIMAGE = b"ObjectType = Image\nNDims = 3\nBinaryData = True\nDimSize = 5 4 3\nElementType = MET_UCHAR\n"


def dicom_file(name: str) -> Path:
    """A file that pydicom ships."""
    return Path(get_testdata_file(name, download=False))


def make_body(shape: tuple[int, int, int] = (12, 20, 16)) -> np.ndarray:
    """int16 HU (z up, y to the back, x to the left): a body in air, with no symmetry that could hide a flip."""
    body = np.full(shape, -1000, np.int16)
    depth = shape[0]
    body[:, 2:-2, 2:-2] = 40
    body[: depth // 3, 3:6, 3:5] = 900  # bone: low, in front, on the patient's right
    body[depth // 2 :, -8:-4, -6:-3] = -700  # lung: high, at the back, on the left
    body += np.arange(np.prod(shape)).reshape(shape).astype(np.int16) % 7
    return body


def nifti(path: Path, body: np.ndarray, axes: str = "LPS", spacing: tuple[float, float, float] = SPACING) -> Path:
    """Writes an LPS body (z, y, x) with nibabel, its voxels stored along the three `axes`."""
    data, affine = body.transpose(2, 1, 0), np.diag([-spacing[2], -spacing[1], spacing[0], 1.0])
    image = nibabel.Nifti1Image(data, affine)
    now, wanted = (nibabel.orientations.axcodes2ornt(code) for code in ("LPS", axes))
    nibabel.save(image.as_reoriented(nibabel.orientations.ornt_transform(now, wanted)), path)
    return path


def slice_dataset(pixels: np.ndarray, modality: str = "CT", **elements) -> Dataset:
    """One DICOM slice of int16 or uint16 pixels, with a patient whose name must never be seen again."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = CTImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = generate_uid()
    dataset.PatientName, dataset.PatientID, dataset.Modality = "Secret^Patient", "Secret-4711", modality
    dataset.Rows, dataset.Columns = pixels.shape[-2:]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = pixels.dtype.itemsize * 8
    dataset.HighBit, dataset.PixelRepresentation = dataset.BitsStored - 1, int(pixels.dtype.kind == "i")
    dataset.PixelData = pixels.tobytes()
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return dataset


def series(folder: Path, body: np.ndarray, axes: str = "LPS", modality: str = "CT", uid: str = "") -> Path:
    """Writes an LPS body (z, y, x) as one file a slice: `axes` names where columns, rows and slices run to."""
    folder.mkdir(parents=True, exist_ok=True)
    uid = uid or generate_uid()
    unit = {"L": (1, 0, 0), "R": (-1, 0, 0), "P": (0, 1, 0), "A": (0, -1, 0), "S": (0, 0, 1), "I": (0, 0, -1)}
    order = [{"S": 0, "I": 0, "P": 1, "A": 1}.get(code, 2) for code in reversed(axes)]  # slices, rows, columns
    stack, origin = body.transpose(order), np.zeros(3)
    for place, code in enumerate(reversed(axes)):
        if code in "RAI":
            stack = np.flip(stack, place)
            origin[2 - order[place]] = (body.shape[order[place]] - 1) * SPACING[order[place]]
    steps = [SPACING[axis] for axis in order]
    # Numbered backwards and named at random, so that only the geometry can sort them.
    for number, pixels in enumerate(stack):
        slice_dataset(
            np.ascontiguousarray(pixels + 1024).astype(np.uint16),
            modality,
            SeriesInstanceUID=uid,
            InstanceNumber=len(stack) - number,
            ImageOrientationPatient=[*unit[axes[0]], *unit[axes[1]]],
            ImagePositionPatient=list(origin + np.array(unit[axes[2]]) * steps[0] * number),
            PixelSpacing=[steps[1], steps[2]],
            RescaleSlope=1,
            RescaleIntercept=-1024,
        ).save_as(folder / generate_uid()[-12:], enforce_file_format=True)
    return folder


def number_series(folder: Path, number: int) -> Path:
    """Gives all files of a folder a series number."""
    for path in folder.iterdir():
        dataset = pydicom.dcmread(path)
        dataset.SeriesNumber = number
        dataset.save_as(path)
    return folder


def multi_frame(pixels: np.ndarray, **elements) -> Dataset:
    return slice_dataset(pixels, NumberOfFrames=len(pixels), **elements)


def video(path: Path, count: int = 40, codec: str = "libx264") -> Path:
    """A film of 10 frames a second whose frame i has grey level 6 i, with a key frame every ten frames."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10)
        stream.height, stream.width, stream.pix_fmt, stream.gop_size = 48, 64, "yuv420p", 10
        stream.bit_rate = 4_000_000
        for index in range(count):
            grey = np.full((48, 64, 3), index * 6 % 256, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")))
        container.mux(stream.encode())
    return path


def said(clip: Clip, words: str) -> bool:
    return any(words in note for note in clip.notes)


def assert_sound(clip: Clip) -> None:
    """What every clip promises."""
    assert clip.frames.dtype == np.uint8 and clip.frames.ndim == 4 and clip.frames.shape[-1] == 3
    assert clip.positions.dtype == np.float64 and clip.positions.shape == (len(clip.frames),)
    assert (np.diff(clip.positions) > 0).all()
    assert clip.positions[0] == 0 or (len(clip.frames) == 1 and clip.positions[0] > 0)  # one frame is the middle one
    assert clip.source_frames >= len(clip.frames)
    assert not any("Secret" in note for note in clip.notes)


def damaged_jpeg(path: Path) -> Path:
    """A DICOM file whose JPEG stream has a hole in the middle."""
    dataset = pydicom.dcmread(dicom_file("SC_rgb_jpeg_dcmtk.dcm"))
    frame = bytearray(next(pydicom.encaps.generate_frames(dataset.PixelData, number_of_frames=1)))
    frame[len(frame) // 2 : len(frame) // 2 + 40] = bytes(40)
    dataset.PixelData = pydicom.encaps.encapsulate([bytes(frame)])
    dataset.save_as(path)
    return path


def archive_of(path: Path, entries: dict[str, bytes]) -> Path:
    """A zip with these files by name."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return path
