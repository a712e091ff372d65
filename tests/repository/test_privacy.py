# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""No patient data leaves the reader: not in a clip, an error, a log line, JSON, the page, a picture or on the disk.

What a caller names a file is in the sentence that answers this caller, and nowhere else.
"""

from __future__ import annotations

import gzip
import json
import logging
import tempfile
import traceback
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import av
import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813 - the name all of its documentation uses
from PIL import Image, TiffImagePlugin
from PIL.PngImagePlugin import PngInfo
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset

from demo.panels.facts import facts
from demo.panels.viewer import show, show_pruning
from examples.ask import as_lines, main, report
from hub_model.answering_omniv_med import Answer
from hub_model.isolated_reading_omniv_med import IsolatedReader
from hub_model.media_omniv_med import MediaError, load_clip
from hub_model.pruning_heatmap_omniv_med import draw_heatmap

SECRETS = {
    "PatientName": "Wombatowski^Zygmunt",
    "PatientID": "ZQX-4711",
    "PatientBirthDate": "19340217",
    "PatientAddress": "Quokkaweg 99",
    "OtherPatientNames": "Numbatova^Zdenka",
    "ReferringPhysicianName": "Bilbyson^Xaver",
    "InstitutionName": "Kowari Klinik",
    "AccessionNumber": "ACC8675309",
    "StudyDate": "20190823",
    "StudyDescription": "Potoroo trial",
    "StudyInstanceUID": "1.2.826.0.1.3680043.8.498.777888999",
    "SeriesInstanceUID": "1.2.826.0.1.3680043.8.498.777888998",
    "ImageComments": "seen by Dunnart",
    "StationName": "PADEMELON3",
}
WORDS = [part for value in SECRETS.values() for part in value.split("^")]
EVERYTHING = " ".join(WORDS)
PRIVATE_FOLDER = "Wombatowski_Zygmunt_19340217"


def dicom(name: str = "CT_small.dcm") -> Dataset:
    """A file that pydicom ships, with a patient; also in nested and private elements."""
    dataset = pydicom.dcmread(get_testdata_file(name, download=False))
    for keyword, value in SECRETS.items():
        setattr(dataset, keyword, value)
    dataset.add_new(0x00090010, "LO", "Wombatowski")
    dataset.add_new(0x00091001, "LT", EVERYTHING)
    item = Dataset()
    item.PatientID = SECRETS["PatientID"]
    dataset.OtherPatientIDsSequence = [item]
    return dataset


def write_media(folder: Path) -> None:
    """Readable media of every kind with a patient in their headers, and in the names of folders and entries."""
    whole = folder / "ct.dcm"
    dicom().save_as(whole)
    dicom("MR_small_jpeg_ls_lossless.dcm").save_as(folder / "jpeg_ls.dcm")
    dicom("examples_ybr_color.dcm").save_as(folder / "cine.dcm")
    series = folder / "series" / PRIVATE_FOLDER
    series.mkdir(parents=True)
    for index in range(3):
        dataset = dicom()
        dataset.InstanceNumber, dataset.ImagePositionPatient = index, [0, 0, 5 * index]
        dataset.save_as(series / f"Wombatowski{index}.dcm")
    with zipfile.ZipFile(folder / "series.zip", "w") as archive:
        archive.comment = EVERYTHING.encode()
        for path in series.iterdir():
            archive.write(path, f"{PRIVATE_FOLDER}/{path.name}")

    body = np.arange(5 * 30 * 40, dtype=np.int16).reshape(5, 30, 40)
    image = nibabel.Nifti1Image(body, np.diag([1, 1, 2, 1]))
    image.header["descrip"], image.header["db_name"] = EVERYTHING[:79].encode(), b"ZQX-4711"
    image.header["aux_file"], image.header["intent_name"] = b"Wombatowski", b"Zygmunt"
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", EVERYTHING.encode()))
    nibabel.save(image, folder / "volume.nii")
    nibabel.save(image, folder / "volume.nii.gz")
    newer = nibabel.Nifti2Image(body, np.diag([1, 1, 2, 1]))
    newer.header["descrip"], newer.header["aux_file"] = EVERYTHING[:79].encode(), b"Wombatowski"
    newer.header["intent_name"] = b"Zygmunt"
    nibabel.save(newer, folder / "newer.nii")
    analyze = bytearray(nibabel.AnalyzeImage(body, None).header.binaryblock)
    analyze[4:14], analyze[148:228] = b"Wombatowsk", EVERYTHING[:80].encode()
    analyze[228:240], analyze[282:292] = b"Zygmunt".ljust(12), b"ZQX-4711".ljust(10)  # the patient's number
    with zipfile.ZipFile(folder / "pair.zip", "w") as archive:
        archive.writestr("Wombatowski.hdr", bytes(analyze))
        archive.writestr("Wombatowski.img", body.T.tobytes(order="F"))
    volume = sitk.GetImageFromArray(body)
    for keyword, value in SECRETS.items():
        volume.SetMetaData(keyword, value)
    sitk.WriteImage(volume, str(folder / "volume.nrrd"))
    sitk.WriteImage(volume, str(folder / "volume.mha"))

    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8))
    texts = PngInfo()
    texts.add_text("Description", EVERYTHING)
    picture.save(folder / "picture.png", pnginfo=texts)
    exif = picture.getexif()
    exif[TiffImagePlugin.IMAGEDESCRIPTION] = EVERYTHING
    picture.save(folder / "picture.jpg", exif=exif)
    picture.save(folder / "picture.tif", description=EVERYTHING)
    with av.open(str(folder / "film.mp4"), "w") as container:
        container.metadata["title"] = container.metadata["comment"] = EVERYTHING
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for index in range(10):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 20 * index, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def damage(folder: Path, broken: Path) -> None:
    """The same files in ways that cannot be read, and such that are refused for what they are."""
    for path in folder.iterdir():
        if path.is_file():
            data = path.read_bytes()
            (broken / f"cut_{path.name}").write_bytes(data[: max(len(data) // 2, 1000)])
    for name in ("reportsi.dcm", "badVR.dcm"):
        dicom(name).save_as(broken / name)
    misplaced, unknown = dicom(), dicom()
    del misplaced.PixelData
    unknown.file_meta.TransferSyntaxUID = SECRETS["StudyInstanceUID"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's, about what is wrong on purpose
        misplaced.Modality = SECRETS["PatientName"]  # as where a damaged header has a wrong length
        misplaced.save_as(broken / "modality.dcm", enforce_file_format=False)
        unknown.save_as(broken / "syntax.dcm", implicit_vr=False, little_endian=True, enforce_file_format=False)
    (broken / "detached.nrrd").write_text(
        f"NRRD0004\ntype: uint8\ndimension: 1\nsizes: 9\ndata file: /{PRIVATE_FOLDER}/{EVERYTHING}\n\n"
    )
    with zipfile.ZipFile(broken / "climbing.zip", "w") as archive:
        archive.writestr(f"../{PRIVATE_FOLDER}/scan.dcm", b"x")
    with zipfile.ZipFile(broken / "several.zip", "w") as archive:
        for name in ("Wombatowski1.png", "Wombatowski2.png"):
            archive.write(folder / "picture.png", name)
    with zipfile.ZipFile(broken / "alone.zip", "w") as archive, zipfile.ZipFile(folder / "pair.zip") as pair:
        archive.writestr("Wombatowski.hdr", pair.read("Wombatowski.hdr"))
    with zipfile.ZipFile(broken / "report.zip", "w") as archive:
        archive.write(broken / "reportsi.dcm", "Wombatowski.dcm")
    hollow = broken / "hollow"
    hollow.mkdir()
    (hollow / "Wombatowski.txt").write_text(EVERYTHING)


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Path], list[Path]]:
    """What can be read and what cannot, in a folder that is called after the patient."""
    good, bad = (tmp_path_factory.mktemp(name) / PRIVATE_FOLDER for name in ("good", "bad"))
    good.mkdir()
    bad.mkdir()
    write_media(good)
    damage(good, bad)
    return sorted(good.iterdir()), sorted(bad.iterdir())


@pytest.fixture(params=["here", "in another process"])
def read(request: pytest.FixtureRequest) -> Iterator[Callable]:
    if request.param == "here":
        yield load_clip
    else:
        with IsolatedReader(processes=1) as reader:
            yield reader.load_clip


@pytest.fixture
def watched(caplog, capfd, tmp_path, monkeypatch) -> Callable[[], str]:
    """All that was written so far: to the log, the terminal and, by name and content, to the scratch folder."""
    caplog.set_level(logging.DEBUG)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    seen: list[str] = []

    def everything() -> str:
        seen.extend([caplog.text, *capfd.readouterr()])
        for path in tmp_path.rglob("*"):
            seen.append(path.name)
            if path.is_file():
                seen.append(path.read_bytes().decode("latin-1"))
        return "\n".join(seen)

    return everything


def leaked(text: str) -> list[str]:
    return [word for word in [*WORDS, PRIVATE_FOLDER] if word.lower() in text.lower()]


def test_the_test_would_notice(media):
    assert leaked("WOMBATOWSKI") == ["Wombatowski"] and leaked("A CT of 5 slices.") == []
    for path in media[0]:
        data = path.read_bytes() if path.is_file() else bytes(next(path.iterdir()))
        data = gzip.decompress(data) if path.suffix == ".gz" else data
        assert leaked(data.decode("latin-1")) != [], path.name


def test_a_clip_carries_nothing(read, media, watched):
    for source in media[0]:
        clip = read(source)
        assert leaked(repr({**vars(clip), "frames": None})) == [], source.name
    assert leaked(watched()) == []


def test_an_error_carries_nothing(read, media, watched):
    """Neither what is told to the caller, nor what a server writes that logs the whole exception."""
    for source in media[1]:
        with pytest.raises(MediaError) as caught:
            read(source)
        told = "".join([str(caught.value), *traceback.format_exception(caught.value)])
        assert leaked(told) == [], source.name
    assert leaked(watched()) == []


def test_nothing_is_left_on_the_disk(media, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for source in (path for paths in media for path in paths):
        with suppress(MediaError):
            load_clip(source)
        assert list(tmp_path.iterdir()) == [], source.name


def test_a_list_of_files_carries_nothing(read, media, watched):
    (folder,) = (path for path in media[0] if path.name == "series")
    files = sorted((folder / PRIVATE_FOLDER).iterdir())
    assert leaked(repr(read(files).notes)) == []
    pixels = files[1].read_bytes()
    files[1].write_bytes(pixels[:5000])
    with pytest.raises(MediaError) as caught:
        read(files)
    files[1].write_bytes(pixels)
    assert leaked(str(caught.value)) == []
    assert leaked(watched()) == []


def test_json_pages_and_pictures_carry_nothing(processor, media, watched, tmp_path):
    for source in media[0]:
        processed = processor.process_clip(processor.load(source, max_frames=4))
        fields = report(Answer("An answer.", 0.5, False, "An answer."), 1.0, processed)
        shown = [json.dumps(fields), as_lines(fields), facts(processed)]
        shown += [repr(show(processed)), repr(show_pruning(processed))]
        assert leaked("\n".join(shown)) == [], source.name
    draw_heatmap(processed, tmp_path / "heatmap.png")
    with Image.open(tmp_path / "heatmap.png") as heatmap:
        assert set(heatmap.info) <= {"dpi", "Software"}
    assert leaked(watched()) == []


def test_the_command_tells_an_error_without_the_patient(media, watched):
    (source,) = (path for path in media[1] if path.name == "modality.dcm")
    assert main([str(source), "Which imaging modality is this?"]) == 2
    said = watched()
    assert "modality unknown" in said and leaked(said) == []
