# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The adapters of benchmarks: what they make of files in the benchmarks' own layouts, and what they refuse.

What holds of all adapters alike is tested in test_adapters.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from data_engine.adapters import BrokenRow, MediaStore, SourceError, get_adapter
from data_engine.adapters.base import WITHHELD
from data_engine.adapters.choices import asked_in_lines, lettered
from data_engine.fingerprints import Fingerprinted, fingerprint
from data_engine.leak_check import leaks
from data_engine.records import Record
from hub_model.media_omniv_med import load_clip
from tests.helpers import benchmark_fixtures as fixtures


@dataclass(frozen=True)
class Converted:
    """Records by their place in the listing, and the reasons of broken rows by where they are."""

    built: Path
    records: list[Record]
    broken: dict[str, str]


def convert(name: str, folder: Path) -> Converted:
    adapter, found, broken = get_adapter(name), [], {}
    fixtures.BENCHMARK_WRITERS[name](folder / "source")
    for row in adapter.rows(folder / "source"):
        try:
            found += adapter.records(row, folder / "source", MediaStore(folder / "built"))
        except BrokenRow as error:
            broken[row.where] = str(error)
    return Converted(folder / "built", found, broken)


@pytest.fixture(scope="module")
def rad_3d(tmp_path_factory: pytest.TempPathFactory) -> Converted:
    return convert("3d-rad", tmp_path_factory.mktemp("3d-rad"))


class TestRad3D:
    def test_every_task_gives_its_kind_of_question(self, rad_3d):
        said = {record.id.split("/")[2][:5]: record for record in rad_3d.records if record.split == "test"}
        assert {name: (one.task, one.question, one.answer) for name, one in said.items()} == {
            "Task1": ("anatomy recognition", "Which organ is enlarged?", "Heart"),
            "Task2": ("localization", "Where is the nodule?", "Right upper lobe"),
            "Task3": ("counting and measurement", "How large is the nodule?", "30x13 mm"),
            "Task4": ("abnormality detection", "Is cardiomegaly seen?", "no"),
            "Task5": (
                "temporal and procedure understanding",
                "Which state? Choices: A. refractory B. resolved C. new D. never present",
                "C. new",
            ),
            "Task6": (
                "temporal and procedure understanding",
                "It was [0, 1] before. Which state? Choices: A. refractory B. resolved C. new D. never present",
                "B. resolved",
            ),
        }
        assert rad_3d.records[0].id == "3d-rad/test/Task1_Image_Observation/Anatomical_observation/1"

    def test_the_end_of_the_authors_path_finds_the_volume(self, rad_3d):
        assert {record.media[0].path for record in rad_3d.records} == {
            "media/3d-rad/volumes/test_7_a_1.npy",
            "media/3d-rad/volumes/train_1_a_1.npy",
        }
        assert [record.split for record in rad_3d.records].count("train") == 1

    def test_broken_rows(self, rad_3d):
        assert rad_3d.broken == {
            "Cardiomegaly.csv, row 2": "the volume test_8_a_1.nii.gz has no path in valid_path.csv.",
            "Cardiomegaly.csv, row 3": "test_9_a_1.npy is missing.",
            "Cardiomegaly.csv, row 4": "the answer is 'Perhaps', neither Yes nor No, and there are no four choices.",
            "Cardiomegaly.csv, row 5": "'QuestionType' is 'Closed', neither Open nor Close.",
        }

    def test_a_split_without_the_table_of_its_volumes_is_left_out(self, tmp_path):
        fixtures.write_3d_rad(tmp_path)
        (tmp_path / "train_path.csv").unlink()
        assert {row.values["split"] for row in get_adapter("3d-rad").rows(tmp_path)} == {"test"}
        (tmp_path / "valid_path.csv").unlink()
        with pytest.raises(SourceError, match=r"valid_path\.csv"):
            list(get_adapter("3d-rad").rows(tmp_path))

    def test_the_repositorys_folder_is_read_too(self, tmp_path):
        fixtures.write_3d_rad(tmp_path / "3DRAD")
        assert len(list(get_adapter("3d-rad").rows(tmp_path))) == 11


@pytest.fixture(scope="module")
def medvidbench(tmp_path_factory: pytest.TempPathFactory) -> Converted:
    return convert("medvidbench", tmp_path_factory.mktemp("medvidbench"))


class TestMedVidBench:
    def test_answers_are_withheld_or_the_files_own(self, medvidbench):
        assert [(one.question, one.answer, one.task, one.modality) for one in medvidbench.records] == [
            ("When is cutting?", WITHHELD, "temporal and procedure understanding", "unknown"),
            ("What happens there?", WITHHELD, "report generation and captioning", "unknown"),
            ("How skilled?", "Flow: 2/5", "severity grading", "endoscopy"),
        ]

    def test_the_frames_become_a_film_at_their_rate(self, medvidbench):
        clip = load_clip(medvidbench.built / medvidbench.records[0].media[0].path, max_frames=3)
        assert clip.frames.shape == (3, 48, 64, 3)
        assert clip.positions.tolist() == [0, 1, 2]
        assert clip.frames.mean(axis=(1, 2, 3)) == pytest.approx([0, 60, 120], abs=3)

    def test_the_region_is_drawn_on_its_frame_alone(self, medvidbench):
        plain, marked = (
            load_clip(medvidbench.built / one.media[0].path, max_frames=3).frames for one in medvidbench.records[:2]
        )
        differs = np.abs(plain.astype(int) - marked.astype(int)).max(axis=3) > 60
        assert differs[1, 12:40, 12:18].mean() > 0.8, "the left side of the box"
        assert not differs[1, 24:30, 26:38].any(), "its inside"
        assert not differs[[0, 2]].any()

    def test_a_film_is_made_once(self, medvidbench, monkeypatch):
        monkeypatch.setattr("data_engine.adapters.medvidbench._encoded", lambda *given: pytest.fail("made again"))
        folder = medvidbench.built.parent / "source"
        row = next(get_adapter("medvidbench").rows(folder))
        assert get_adapter("medvidbench").records(row, folder, MediaStore(medvidbench.built)) == medvidbench.records[:1]

    def test_broken_entries(self, medvidbench):
        assert list(medvidbench.broken.values()) == [
            "9.png is missing.",
            "the path 'testdata/../../secret.png' is not a relative path with forward slashes and without '..'.",
            "damaged.png is damaged or of an unknown format.",
            "'qa_type' is 'taste', which MedVidBench does not have.",
            "'fps' is 'often', not a number of frames a second.",
        ]


class TestChoices:
    def test_medxpertqa_has_five_choices_and_several_pictures(self, tmp_path):
        made = convert("medxpertqa-mm", tmp_path)
        first, second = made.records
        assert (first.split, second.split) == ("validation", "test")
        assert second.question == (
            "Which germ does the X-ray suggest? Choices:\n"
            "A. S. aureus\nB. E. coli\nC. C. difficile\nD. B. fragilis\nE. none"
        )
        assert (second.answer, second.task, second.modality) == ("B. E. coli", "diagnosis", "X-ray")
        assert [len(one.media) for one in made.records] == [1, 2]
        assert list(made.broken.values()) == [
            "the answer is 'F', which is none of the choices A, B, C, D, E.",
            "MM-9.jpeg is missing.",
            "the choices are fewer than two, too many, or one of them is empty.",
        ]

    def test_medframeqa_takes_a_letter_or_words_for_the_right_answer(self, tmp_path):
        made = convert("medframeqa", tmp_path)
        assert [one.answer for one in made.records] == ["B. fracture", "A. effusion", "C. a normal chest"]
        assert [len(one.media) for one in made.records] == [2, 3, 2]
        assert made.records[0].media[0] == made.records[2].media[0], "the same picture is stored once"
        assert [one.modality for one in made.records] == ["X-ray", "CT", "CT"]
        assert "a cyst" in made.broken["test-00000-of-00001.parquet, row 4"]
        assert len(made.broken) == 2

    def test_omnimedvqa_has_two_to_four_choices_and_leaves_out_what_has_no_pictures(self, tmp_path):
        made = convert("omnimedvqa", tmp_path)
        assert [one.answer for one in made.records] == ["B. MR", "B. MR", "C. MR"]
        assert [one.task for one in made.records[:2]] == ["modality recognition", "severity grading"]
        assert [one.modality for one in made.records] == ["MRI", "MRI", "microscopy"]
        assert made.records[0].id == "omnimedvqa/test/S/1"
        assert list(made.broken.values()) == ["the answer 'PET' is none of the choices.", "b.png is missing."]

    def test_deeptumorvqa_gives_spacing_and_shape_to_measurements_alone(self, tmp_path):
        made = convert("deeptumorvqa", tmp_path)
        assert [(one.question, one.answer) for one in made.records] == [
            (
                "What is the volume of the spleen? The voxels' spacing is [0.8 0.8 5.0] mm, the volume's shape "
                "(512, 512, 90). Choices: A. 210 cm3 B. 90 cm3 C. 400 cm3 D. 600 cm3",
                "A. 210 cm3",
            ),
            ("Is there a cyst? Choices: A. Yes B. No C. Both D. Neither", "B. No"),
        ]
        assert list(made.broken.values()) == [
            "ct.nii.gz is missing.",
            "'mc_question' does not list the choices A, B, C, D.",
            "'question_type' is 'taste', not one of recognition, measurement, visual reasoning, medical reasoning.",
        ]

    def test_deeptumorvqa_without_choices_keeps_its_answers_in_words_and_numbers(self, tmp_path):
        made = convert("deeptumorvqa-free", tmp_path)
        assert [(one.question, one.answer) for one in made.records] == [
            (
                "What is the volume of the spleen? The voxels' spacing is [0.8 0.8 5.0] mm, the volume's shape "
                "(512, 512, 90).",
                "210 cm3",
            ),
            ("Is there a cyst?", "no"),
            (
                "What is the volume of the spleen? The voxels' spacing is [0.8 0.8 5.0] mm, the volume's shape "
                "(512, 512, 90).",
                "210 cm3",
            ),
        ]
        assert list(made.broken.values()) == [
            "ct.nii.gz is missing.",
            "'question_type' is 'taste', not one of recognition, measurement, visual reasoning, medical reasoning.",
        ]

    def test_letters_that_all_choices_carry_are_taken_off_and_others_stay(self):
        assert lettered(["A. liver", "B) spleen"]) == {"A": "liver", "B": "spleen"}
        assert lettered(["E. coli", "B. fragilis"]) == {"A": "E. coli", "B": "B. fragilis"}
        assert asked_in_lines("Which?", {"A": "x", "B": "y"}) == "Which? Choices:\nA. x\nB. y"


@pytest.mark.parametrize("name", sorted(fixtures.BENCHMARK_WRITERS))
def test_a_training_record_with_a_benchmarks_medium_leaks(name, tmp_path):
    made = convert(name, tmp_path)
    tested = next(one for one in made.records if one.split == "test")
    learned = tested.model_copy(update={"id": "own/train/1", "source": "own", "split": "train"})
    marks = tuple(fingerprint(made.built / one.path, one.type) for one in tested.media)
    (hit, *_) = leaks([Fingerprinted(learned, marks)], [Fingerprinted(tested, marks)])
    assert (hit.kind, hit.benchmark) == ("exact image", name)
