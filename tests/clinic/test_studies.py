# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""What is found in a folder or a list: series by their headers, wherever their files lie, and what is passed over."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from clinic.studies import Series, StudiesError, find_series
from hub_model.media_omniv_med import load_clip
from tests.helpers.study_files import PERSONAL, UIDS, dicom, save


def found(studies: Path, **options) -> dict[tuple[str, str, str, str], Series]:
    """The series by what names them in results."""
    return {(one.study, one.series, one.part, one.path): one for one in find_series(studies, **options)[0]}


def test_files_of_two_series_in_one_folder_are_told_apart_by_their_headers(studies: Path) -> None:
    series = found(studies)
    for uid, first in ((UIDS.thin, 0), (UIDS.thick, 1)):
        one = series[UIDS.head, uid, "16x20", ""]
        assert [Path(path).name for path in one.source] == [f"{number:02d}_LEAKED" for number in range(first, 8, 2)]
        assert (one.modality, one.description) == ("CT", "LEAKED head")


def test_every_loop_of_a_series_is_a_part_of_its_own(studies: Path) -> None:
    """The reader would show the longest of them alone."""
    loops = [one for one in found(studies).values() if one.series == UIDS.loops]
    assert [(one.part, len(one.source)) for one in loops] == [(f"{UIDS.loops}.0", 1), (f"{UIDS.loops}.1", 1)]


def test_series_in_an_archive_are_found_and_read_out_of_it(studies: Path) -> None:
    series = found(studies)
    for uid in (UIDS.arms, UIDS.legs):
        one = series[UIDS.packed, uid, "16x20", ""]
        assert len(load_clip(one.source, **one.reading).frames) == 2


def test_other_files_are_series_by_their_path(studies: Path) -> None:
    assert {path for *_, path in found(studies) if path} == {"head.nii.gz", "picture.png", "damaged.png", "film.mp4"}


def test_what_is_passed_over_is_told_with_its_reason(studies: Path) -> None:
    assert Counter((one.path, one.reason.split(",")[0]) for one in find_series(studies)[1]) == Counter(
        {
            ("notes.txt", "no known medical image"): 1,
            ("empty", "an empty file"): 1,
            (".hidden", "a hidden file"): 1,
            ("again", "a link to a folder"): 1,
            ("report", "DICOM without pixels: a report"): 1,
        }
    )


def test_the_name_of_a_series_depends_on_neither_its_place_nor_its_neighbours(studies: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    shutil.copytree(studies / "LEAKED/mixed", moved / "deep")
    for path in (moved / "deep").glob("*[13579]_LEAKED"):
        path.unlink()
    (alone,) = find_series(moved)[0]
    assert alone.key in {one.key for one in find_series(studies)[0]}


def test_a_copy_of_a_series_in_an_archive_is_passed_over(tmp_path: Path) -> None:
    save(dicom(UIDS.head, UIDS.thin, 1), tmp_path / "slice")
    shutil.make_archive(str(tmp_path / "copy"), "zip", tmp_path, "slice")
    series, skipped = find_series(tmp_path)
    assert len(series) == 1 and [one.reason for one in skipped] == [
        "the same series, or file with the same options, again"
    ]


def test_dicom_without_uids_is_known_by_its_folder(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        for number in range(2):
            dataset = dicom(UIDS.head, UIDS.thin, number)
            del dataset.StudyInstanceUID
            save(dataset, tmp_path / folder / f"{number}")
    assert [(one.study, one.path, len(one.source)) for one in find_series(tmp_path)[0]] == [
        ("a", "a", 2),
        ("b", "b", 2),
    ]


def test_a_damaged_dicom_file_is_a_series_that_the_reader_will_refuse(tmp_path: Path) -> None:
    save(dicom(UIDS.heart, UIDS.loops, 0, frames=3), tmp_path / "scan")
    whole = (tmp_path / "scan").read_bytes()
    assert whole.count(b"IS\2\0003 ") == 1, "the number of frames"
    (tmp_path / "scan").write_bytes(whole.replace(b"IS\2\0003 ", b"IS\2\0x "))
    (one,), skipped = find_series(tmp_path)
    assert (one.path, one.source, skipped) == ("scan", str(tmp_path / "scan"), [])


def test_a_patients_number_is_read_only_when_it_is_asked_for(studies: Path) -> None:
    assert {one.patient_id for one in found(studies).values()} == {""}
    assert {one.patient_id for one in found(studies, patient_ids=True).values()} == {"", PERSONAL["PatientID"]}


LIST = "path,study,plane,modality,windows\npicture.png,one,,,\nhead.nii.gz,one,coronal,MRI,\nhead.nii.gz,,,CT,lung\n"


def test_a_list_names_files_with_their_options(studies: Path, tmp_path: Path) -> None:
    for name in ("picture.png", "head.nii.gz"):
        shutil.copy(studies / name, tmp_path / name)
    (tmp_path / "list.csv").write_text(LIST + "gone.png,,,,\n")
    series, skipped = find_series(tmp_path / "list.csv")
    assert [(one.study, one.path, dict(one.options), one.modality) for one in series] == [
        ("gone.png", "gone.png", {}, ""),
        ("head.nii.gz", "head.nii.gz", {"modality": "CT", "windows": "lung"}, "CT"),
        ("one", "head.nii.gz", {"plane": "coronal", "modality": "MR"}, "MR"),
        ("one", "picture.png", {}, ""),
    ]
    assert skipped == []


def test_a_parquet_list_may_name_folders(studies: Path, tmp_path: Path) -> None:
    rows = [{"path": str(studies / "LEAKED"), "max_frames": 2}, {"path": str(studies / "picture.png")}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "list.parquet")
    series = find_series(tmp_path / "list.parquet")[0]
    assert Counter((one.series, dict(one.options).get("max_frames")) for one in series) == Counter(
        {(UIDS.thin, 2): 1, (UIDS.thick, 2): 1, (UIDS.loops, 2): 2, ("", None): 1}
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label\na.png,3\n", r"the column 'label' is not known; take it out\. Known are path, study, kind"),
        ("path,plane\na.png,axial\n,axial\n", r"row 2 has no path"),
        ("path,plane\na.png,oblique\n", r"row 1: plane must be one of axial"),
        ("path,spacing\na.png,[1\n", r"row 1: an option is not written as YAML"),
        (b"PAR1\xff\xfe", "is no list"),
    ],
)
def test_a_wrong_list_is_refused_with_its_row(tmp_path: Path, text: str | bytes, message: str) -> None:
    path = tmp_path / "list.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(StudiesError, match=message):
        find_series(path)


def test_what_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(StudiesError, match="neither a folder nor a list"):
        find_series(tmp_path / "nowhere")
