# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""What the adapters of public data sets share: the store of media, paths that stay in a folder, the words of texts."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_engine.adapters import BrokenRow, MediaStore
from data_engine.adapters.base import inside
from data_engine.adapters.words import guess_modality, modality_named_in, task_of
from tests.helpers import data_fixtures as fixtures

CAPTIONING = "report generation and captioning"


class TestMediaStore:
    def test_a_file_is_linked_and_kept(self, tmp_path):
        (tmp_path / "a.png").write_bytes(b"picture")
        store = MediaStore(tmp_path / "set")
        assert store.add(tmp_path / "a.png", "x/a.png") == store.add(tmp_path / "a.png", "x/a.png") == "media/x/a.png"
        assert (tmp_path / "set/media/x/a.png").samefile(tmp_path / "a.png")

    def test_a_file_is_copied_where_it_cannot_be_linked(self, tmp_path, monkeypatch):
        def refuse(*_: object) -> None:
            raise OSError("another disk")

        monkeypatch.setattr("os.link", refuse)
        (tmp_path / "a.png").write_bytes(b"picture")
        MediaStore(tmp_path / "set").add(tmp_path / "a.png", "a.png")
        assert not (tmp_path / "set/media/a.png").samefile(tmp_path / "a.png")
        assert (tmp_path / "set/media/a.png").read_bytes() == b"picture"

    def test_a_half_written_file_of_an_earlier_run_is_replaced(self, tmp_path):
        store = MediaStore(tmp_path)
        fixtures.write_bytes(tmp_path / "media/a.bin", b"pict")
        store.write(b"picture", "a.bin")
        assert (tmp_path / "media/a.bin").read_bytes() == b"picture"

    def test_many_at_once(self, tmp_path):
        (tmp_path / "a.bin").write_bytes(b"picture" * 1000)
        store = MediaStore(tmp_path / "set")
        with ThreadPoolExecutor(8) as pool:
            paths = list(pool.map(lambda n: store.add(tmp_path / "a.bin", f"{n % 3}.bin"), range(300)))
        assert len(set(paths)) == 3
        assert sorted(path.name for path in (tmp_path / "set/media").iterdir()) == ["0.bin", "1.bin", "2.bin"]

    def test_missing_and_empty_files_are_named(self, tmp_path):
        (tmp_path / "empty.png").touch()
        with pytest.raises(BrokenRow, match=r"^absent\.png is missing\.$"):
            MediaStore(tmp_path).add(tmp_path / "folder/absent.png", "a.png")
        with pytest.raises(BrokenRow, match=r"^empty\.png is empty\.$"):
            MediaStore(tmp_path).add(tmp_path / "empty.png", "a.png")

    @given(st.text(st.sampled_from("a./\\:\0~ ü"), max_size=12))
    def test_no_path_leads_out_of_the_folder(self, path):
        folder = Path("/data/set")
        try:
            found = inside(folder, path)
        except BrokenRow:
            return
        assert folder in [found, *found.parents]
        assert ".." not in found.parts


class TestWords:
    @pytest.mark.parametrize(
        ("words", "modality"),
        [
            ("Axial contrast-enhanced CT of the chest", "CT"),
            ("ct scan", "CT"),
            ("CT angiography of the aorta", "CT"),
            ("18F-FDG PET/CT", "PET"),
            ("T2-weighted MR image", "MRI"),
            ("Chest X-ray and chest radiograph", "X-ray"),
            ("Transthoracic echocardiogram", "ultrasound"),
            ("OCT of the macula", "OCT"),
            ("taken in Oct 2020", "unknown"),
            ("Colonoscopy showing a polyp", "endoscopy"),
            ("Haematoxylin and eosin", "histopathology"),
            ("Scanning electron microscopy", "microscopy"),
            ("Colour fundus photograph", "fundus photography"),
            ("Coronary angiogram", "angiography"),
            ("Mammogram", "mammography"),
            ("Dermoscopic image", "dermoscopy"),
            ("Intraoperative photograph", "clinical photograph"),
            ("CT and MRI of the brain", "unknown"),
            ("expected to act on active factors", "unknown"),
            ("", "unknown"),
        ],
    )
    def test_the_modality_that_a_caption_names(self, words, modality):
        assert guess_modality(words) == modality

    def test_a_question_about_the_modality_is_told_by_its_answer(self):
        assert modality_named_in("Is this a CT?", "no") == "unknown"
        assert modality_named_in("What imaging modality is this?", "mri") == "MRI"
        assert modality_named_in("Is there a mass on this CT?", "no") == "CT"

    @pytest.mark.parametrize(
        ("question", "task"),
        [
            ("What type of imaging is this?", "modality recognition"),
            ("Is this a T2 weighted image?", "modality recognition"),
            ("Is this an axial image?", "view/plane identification"),
            ("What organ is shown?", "anatomy recognition"),
            ("Where is the mass?", "localization"),
            ("Which lobe is affected?", "localization"),
            ("How many nodules are there?", "counting and measurement"),
            ("What is the grade of the tumor?", "severity grading"),
            ("What is the most likely diagnosis?", "diagnosis"),
            ("Describe the image.", CAPTIONING),
            ("Which instrument is used?", "temporal and procedure understanding"),
            ("Is there a pneumothorax?", "abnormality detection"),
        ],
    )
    def test_the_task_of_a_question(self, question, task):
        assert task_of(question) == task
