# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Files as clients of a vLLM server send them, and the prompts that they stand in."""

from __future__ import annotations

import base64
import io
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import SimpleITK
from pydicom.data import get_testdata_file

from tests.helpers.paths import ROOT

MEDIA = ROOT / "examples" / "media"
QUESTION = "Which imaging modality is this?"
KINDS = {
    "picture": "image",
    "slice": "image",
    "volume": "volume",
    "nrrd": "volume",
    "series": "volume",
    "video": "video",
}
"""The files of `files_to_send`, and what transformers' own messages call each."""


def prompt_of(processor: Any, names: Sequence[str], question: str = QUESTION) -> str:
    """What the chat template makes of a message with some files and a question."""
    content: list[dict[str, str]] = [{"type": KINDS[name]} for name in names]
    messages = [{"role": "user", "content": [*content, {"type": "text", "text": question}]}]
    return processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)


def data_uri(content: bytes) -> str:
    return f"data:application/octet-stream;base64,{base64.b64encode(content).decode()}"


def dicom_slice() -> bytes:
    """A CT slice, from pydicom's own files."""
    return Path(str(get_testdata_file("CT_small.dcm", download=False))).read_bytes()


def dicom_series(slices: int = 6) -> bytes:
    """A zip with a CT series."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as files:
        for number in range(slices):
            dataset = pydicom.dcmread(io.BytesIO(dicom_slice()))
            dataset.SOPInstanceUID, dataset.InstanceNumber = f"1.2.3.{number}", number
            dataset.ImagePositionPatient = [0, 0, 5 * number]
            dataset.PixelData = np.roll(dataset.pixel_array, 8 * number, axis=1).tobytes()
            written = io.BytesIO()
            dataset.save_as(written)
            files.writestr(f"{number}.dcm", written.getvalue())
    return archive.getvalue()


def volume_as_nrrd(folder: Path) -> bytes:
    """The CT volume as NRRD."""
    path = folder / "ct.nrrd"
    SimpleITK.WriteImage(SimpleITK.ReadImage(str(MEDIA / "ct_volume.nii.gz")), str(path), useCompression=True)
    return path.read_bytes()


def files_to_send(folder: Path) -> dict[str, tuple[str, bytes]]:
    """Name -> the part of a message that the file goes into, and its content. `folder` is empty."""
    return {
        "picture": ("image_url", (MEDIA / "xray.png").read_bytes()),
        "slice": ("image_url", dicom_slice()),
        "volume": ("video_url", (MEDIA / "ct_volume.nii.gz").read_bytes()),
        "nrrd": ("video_url", volume_as_nrrd(folder)),
        "series": ("video_url", dicom_series()),
        "video": ("video_url", (MEDIA / "ultrasound.mp4").read_bytes()),
    }
