# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The adapters of public data sets: a downloaded folder in the source's format becomes records and media."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra import numpy as arrays

from data_engine.adapters import ADAPTERS, BrokenRow, MediaStore, Row, SourceError, get_adapter, not_medical
from data_engine.adapters.base import table_rows
from data_engine.adapters.m3d import box_of
from data_engine.adapters.matching import LENDERS
from data_engine.adapters.mimic_cxr import sections
from data_engine.not_medical import KINDS
from data_engine.questions import MATCHING, REPORT_REQUESTS
from data_engine.records import DIMENSION_OF, Record, to_record
from hub_model.media_omniv_med import load_clip
from tests.helpers import data_fixtures as fixtures

OF_ONES_OWN = ("folder", "labelled-pictures", "photographs", "drawn-pictures")
"""Adapters of a user's own files, or of none, which have no page."""
CAPTIONING = "report generation and captioning"


@dataclass(frozen=True)
class Converted:
    """What came out of a folder: records by id, and the reasons of broken rows by where they are."""

    folder: Path
    built: Path
    records: dict[str, Record]
    broken: dict[str, str]

    def said(self, record: str) -> tuple[str, str]:
        """First question and answer of a record."""
        return self.records[record].question, self.records[record].answer


def convert(name: str, folder: Path, built: Path) -> Converted:
    """All rows of a folder through an adapter, as a build does it in other processes: from pickled rows."""
    adapter, records, broken = get_adapter(name), [], {}
    for row in adapter.rows(folder):
        convert_row, row = pickle.loads(pickle.dumps((adapter.records, row)))
        try:
            records += convert_row(row, folder, MediaStore(built))
        except BrokenRow as error:
            broken[row.where] = str(error)
    assert len({record.id for record in records}) == len(records)
    return Converted(folder, built, {record.id: record for record in records}, broken)


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Converted]]:
    """The converted fixture of an adapter, made once."""
    done: dict[str, Converted] = {}
    # A few of each split are enough to see.
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setattr(not_medical, "DRAWN_COUNTS", {split: len(kinds) for split, kinds in KINDS.items()})

    def get(name: str) -> Converted:
        if name not in done:
            folder, built = tmp_path_factory.mktemp(name), tmp_path_factory.mktemp(f"{name}-built")
            fixtures.WRITERS[name](folder)
            done[name] = convert(name, folder, built)
        return done[name]

    yield get
    monkeypatch.undo()


class TestAllAdapters:
    @pytest.mark.parametrize("name", sorted(ADAPTERS))
    def test_records_are_valid_and_their_media_can_be_read(self, name, converted):
        made = converted(name)
        assert made.records
        for record in made.records.values():
            assert record == to_record(json.loads(record.model_dump_json()), record.id)
            assert record.source == name or name == "labelled-pictures"
            assert record.id.startswith(f"{record.source}/{record.split}/")
            for medium in record.media:
                clip = load_clip(made.built / medium.path, kind=medium.type, max_frames=4)
                assert clip.kind == medium.type
            assert record.dimension == max(DIMENSION_OF[medium.type] for medium in record.media)
            if record.language == "en":
                assert record.answer.lower().strip(" .") not in ("yes", "no") or record.answer in ("yes", "no")

    @pytest.mark.parametrize("name", sorted(ADAPTERS))
    def test_a_second_run_gives_the_same_records_and_the_same_files(self, name, converted):
        made = converted(name)
        before = {path: path.stat().st_mtime_ns for path in made.built.rglob("*") if path.is_file()}
        again = convert(name, made.folder, made.built)
        assert (list(again.records.values()), again.broken) == (list(made.records.values()), made.broken)
        assert {path: path.stat().st_mtime_ns for path in made.built.rglob("*") if path.is_file()} == before
        assert not any(path.name.endswith(".part") for path in before)

    @pytest.mark.parametrize("name", sorted(set(ADAPTERS) - {"drawn-pictures"}))
    def test_a_folder_without_the_data_set_is_refused_with_what_it_should_hold(self, name, tmp_path):
        with pytest.raises(SourceError, match=r"holds no .*\."):
            list(get_adapter(name).rows(tmp_path))

    @pytest.mark.parametrize("name", sorted(ADAPTERS))
    def test_an_adapter_says_its_terms_and_can_be_sent_to_other_processes(self, name):
        adapter = pickle.loads(pickle.dumps(ADAPTERS[name]))
        assert adapter.name == name
        assert adapter.title
        assert adapter.license
        assert adapter.homepage.startswith("https://") or any(own in name for own in OF_ONES_OWN)

    def test_an_unknown_name_is_answered_with_the_known_ones(self):
        with pytest.raises(SourceError, match=r"no adapter 'slakes'; choose one of .*slake.*"):
            get_adapter("slakes")

    def test_a_broken_row_that_was_found_when_listing_is_reported_when_converting(self, tmp_path):
        for adapter in ADAPTERS.values():
            with pytest.raises(BrokenRow, match="the reason"):
                adapter.records(Row("here", {"broken": "the reason"}), tmp_path, MediaStore(tmp_path))


class TestVqaRad:
    def test_records(self, converted):
        made = converted("vqa-rad")
        assert list(made.records) == [*(f"vqa-rad/train/{number}" for number in (1, 2, 3)), "vqa-rad/test/1"]
        first, second, third, test = made.records.values()
        assert made.said(first.id) == ("are regions of the brain infarcted?", "yes")
        assert (first.task, first.modality) == ("abnormality detection", "unknown")
        assert (second.task, second.modality, second.answer) == ("modality recognition", "CT", "CT")
        assert (third.task, third.modality) == ("localization", "MRI")
        assert (test.split, test.license) == ("test", "CC0-1.0")

    def test_a_picture_of_several_questions_is_stored_once_with_its_own_bytes(self, converted):
        made = converted("vqa-rad")
        first, second, third, _ = made.records.values()
        assert first.media == second.media != third.media
        assert (made.built / first.media[0].path).read_bytes() == fixtures.picture(1, "JPEG")
        assert [PurePosixPath(record.media[0].path).suffix for record in (first, third)] == [".jpg", ".png"]

    def test_broken_rows(self, converted):
        shard = "train-00000-of-00001-eb8844602202be60.parquet"
        assert converted("vqa-rad").broken == {
            f"{shard}, row 4": "the picture is missing.",
            f"{shard}, row 5": "'answer' is missing or empty.",
            f"{shard}, row 6": "the picture is damaged or of an unknown format.",
            f"{shard}, row 7": "'question' is missing or empty.",
        }

    def test_a_shard_that_is_no_parquet_or_lacks_a_column_is_refused(self, tmp_path):
        fixtures.write_bytes(tmp_path / "data/test-00000-of-00001.parquet", b"PAR1")
        with pytest.raises(SourceError, match="not a Parquet file"):
            list(get_adapter("vqa-rad").rows(tmp_path))
        table = fixtures.pa.table({"image": [b""], "question": [""]})
        fixtures.pq.write_table(table, tmp_path / "data/test-00000-of-00001.parquet")
        with pytest.raises(SourceError, match="no column 'answer'"):
            list(get_adapter("vqa-rad").rows(tmp_path))


def test_path_vqa_counts_through_the_shards_of_a_split(converted):
    made = converted("path-vqa")
    assert made.broken == {}
    assert [(record.id, record.task) for record in made.records.values()] == [
        ("path-vqa/train/1", "localization"),
        ("path-vqa/train/2", "abnormality detection"),
        ("path-vqa/validation/1", "abnormality detection"),
        ("path-vqa/test/1", "diagnosis"),
    ]
    assert {record.modality for record in made.records.values()} == {"histopathology"}
    assert made.said("path-vqa/train/1") == ("where are liver stem cells located?", "in the canals of hering")


class TestSlake:
    def test_records(self, converted):
        made = converted("slake")
        described = {
            record.id: (record.modality, record.task, record.language, *made.said(record.id))
            for record in made.records.values()
        }
        question = "What modality is used to take this image?"
        assert described == {
            "slake/train/1": ("MRI", "modality recognition", "en", question, "MRI"),
            "slake/train/2": ("X-ray", "abnormality detection", "en", "Is the lung healthy?", "no"),
            "slake/train/3": ("X-ray", "localization", "zh", "肺在哪里?", "胸腔"),
            "slake/validation/1": ("MRI", "counting and measurement", "en", "How many kidneys are there?", "2"),
            "slake/test/1": ("X-ray", "view/plane identification", "en", "Which plane?", "Coronal"),
        }
        assert made.records["slake/train/1"].media[0].path == "media/slake/xmlab1/source.jpg"

    def test_broken_entries(self, converted):
        assert converted("slake").broken == {
            "train.json, entry 4": "source.jpg is missing.",
            "train.json, entry 5": "'question' is missing or empty.",
            "train.json, entry 6": "'answer' is missing or empty.",
            "train.json, entry 7": (
                "the path '../../secret.jpg' is not a relative path with forward slashes and without '..'."
            ),
            "train.json, entry 8": "the entry is not an object with named fields.",
        }

    @pytest.mark.parametrize(("content", "reason"), [("[{]", "not JSON"), ("{}", "a list of entries")])
    def test_a_file_that_is_no_list_is_refused(self, content, reason, tmp_path):
        fixtures.write_bytes(tmp_path / "test.json", content.encode())
        (tmp_path / "imgs").mkdir()
        with pytest.raises(SourceError, match=reason):
            list(get_adapter("slake").rows(tmp_path))

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            ({"q_lang": "de"}, "'q_lang' is 'de'"),
            ({"content_type": "Taste"}, "'content_type' is 'Taste'"),
            ({"answer": "\ud800"}, "'answer' is not Unicode text"),
            ({"img_name": "x" * 300}, "not a relative path"),
        ],
    )
    def test_odd_values_break_their_entry_alone(self, change, reason, tmp_path):
        fixtures.write_slake(tmp_path)
        entries = [fixtures.slake_entry(**change), fixtures.slake_entry()]
        (tmp_path / "train.json").write_text(json.dumps(entries), encoding="utf-8")
        made = convert("slake", tmp_path, tmp_path / "built")
        assert "slake/train/2" in made.records
        assert reason in made.broken["train.json, entry 1"]


class TestPmcVqa:
    def test_records(self, converted):
        made = converted("pmc-vqa")
        described = {
            record.id: (record.modality, record.task, *made.said(record.id)) for record in made.records.values()
        }
        choices = "Choices: A. cyst B. tumour C. stone D. none"
        assert described == {
            "pmc-vqa/train/1": ("CT", "abnormality detection", f"What does the arrow show? {choices}", "B. tumour"),
            "pmc-vqa/train/2": (
                "unknown",
                "anatomy recognition",
                "Which organ is shown? Choices: A. liver B. lung C. kidney D. bone",
                "A. liver",
            ),
            "pmc-vqa/test/1": ("histopathology", "abnormality detection", f"What is it? {choices}", "D. none"),
        }

    def test_broken_rows(self, converted):
        reasons = [
            "PMC3_F1.jpg is missing.",
            "the answer is 'E', which is none of the choices A, B, C, D.",
            "'Choice B' is missing or empty.",
            "'Question' is missing or empty.",
            "the path '/etc/passwd' is not a relative path with forward slashes and without '..'.",
            "the row has more fields than the header.",
            "the row is not UTF-8 text.",
        ]
        assert converted("pmc-vqa").broken == {
            f"train_2.csv, row {number}": reason for number, reason in enumerate(reasons, 3)
        }

    def test_a_cell_that_is_too_long_for_csv_breaks_its_row_alone(self, tmp_path):
        fixtures.write_table(tmp_path / "a.csv", ["b"], [["1"], ["x" * 200_000], ["3"]])
        first, second, third = table_rows(tmp_path / "a.csv", "train")
        assert "not CSV" in second.values["broken"]
        assert [row.values["entry"] for row in (first, third)] == [{"b": "1"}, {"b": "3"}]


class TestMimicCxr:
    def test_a_study_is_one_record_with_all_its_pictures(self, converted):
        made = converted("mimic-cxr")
        record = made.records["mimic-cxr/train/50414267"]
        folder = "media/mimic-cxr/files/p10/p10000032/s50414267"
        assert [medium.path for medium in record.media] == [f"{folder}/aaa.jpg", f"{folder}/bbb.jpg"]
        assert record.answer == (
            "Findings: The lungs are clear. There is no focal consolidation. "
            "Impression: No acute cardiopulmonary process."
        )
        assert record.question in [wording.format(kind="study") for wording in REPORT_REQUESTS]
        assert (record.modality, record.task, record.dimension) == ("X-ray", CAPTIONING, "2d")

    def test_splits_and_dicom_files(self, converted):
        made = converted("mimic-cxr")
        assert [record.split for record in made.records.values()] == ["train", "validation", "test"]
        assert made.records["mimic-cxr/validation/57375967"].media[0].path.endswith("/ccc.dcm")
        assert made.records["mimic-cxr/validation/57375967"].answer == "Findings: Right pleural effusion."
        assert made.records["mimic-cxr/test/50000001"].answer == "Impression: Large left pneumothorax."

    def test_broken_studies(self, converted):
        reasons = [
            "eee.jpg is missing.",
            "the report s50000003.txt is missing.",
            "the report has no section of findings or impression.",
            "the split is 'extra', not one of train, validate, test.",
            "one of its rows is incomplete.",
        ]
        assert converted("mimic-cxr").broken == {
            f"mimic-cxr-2.0.0-split.csv.gz, study 5000000{number}": reason for number, reason in enumerate(reasons, 2)
        }

    def test_sections_end_at_the_next_heading_and_keep_colons_within(self):
        report = "HISTORY: cough\nFINDINGS: Heart: normal.\n  Lungs are clear.\nNOTIFICATION: Dr. ___ at 10:30.\n"
        assert sections(report) == {"Findings": "Heart: normal. Lungs are clear."}
        assert sections("CONCLUSION: Pneumonia.\nFINDINGS:\n\n") == {"Impression": "Pneumonia."}
        assert sections("A letter without headings.") == {}

    @pytest.mark.parametrize(
        ("content", "reason"), [(b"\x1f\x8bno gzip", "is damaged"), (b"", "is damaged|no column 'dicom_id'")]
    )
    def test_a_damaged_split_file_is_refused(self, content, reason, tmp_path):
        (tmp_path / "files").mkdir()
        (tmp_path / "mimic-cxr-2.0.0-split.csv.gz").write_bytes(content)
        with pytest.raises(SourceError, match=reason):
            list(get_adapter("mimic-cxr").rows(tmp_path))


class TestM3D:
    def test_reports(self, converted):
        made = converted("m3d-cap")
        assert list(made.records) == [
            *(f"m3d-cap/train/{number}" for number in (1, 2, 3, 4)),
            "m3d-cap/validation/1",
            "m3d-cap/test/1",
        ]
        record = made.records["m3d-cap/train/1"]
        assert record.answer == fixtures.CAPTIONS[0]
        assert record.question.startswith(("Describe", "What", "Give", "Caption", "Summarise", "Briefly"))
        assert (record.dimension, record.modality, record.task) == ("3d", "CT", CAPTIONING)
        assert record.media[0].type == "volume"
        assert made.broken == {
            "M3D_Cap.json, train entry 5": "Axial_non_contrast.npy is missing.",
            "M3D_Cap.json, train entry 6": "the report text.txt is empty.",
            "M3D_Cap.json, train entry 7": "'text' is missing or empty.",
            "M3D_Cap.json, train entry 8": "the report text.txt is missing.",
        }

    def test_a_volume_is_read_slice_by_slice_without_a_spacing(self, converted):
        made = converted("m3d-cap")
        (medium,) = made.records["m3d-cap/train/1"].media
        values = np.load(made.built / medium.path)[0]
        clip = load_clip(made.built / medium.path, kind="volume", modality="CT")
        assert medium.spacing is None
        assert clip.frames.shape == (*values.shape, 3)
        assert clip.positions.tolist() == [0, 1, 2, 3]
        # Brighter voxels stay brighter, at their place: no HU windows, no turned axes.
        order = np.corrcoef(clip.frames[..., 0].ravel(), values.ravel())[0, 1]
        assert order > 0.99

    def test_questions_with_choices(self, converted):
        made = converted("m3d-vqa-closed")
        said = [(record.task, *made.said(record.id)) for record in made.records.values() if record.split == "train"]
        assert said == [
            (
                "view/plane identification",
                "In which plane is the image? Choices: A. Sagittal B. Coronal C. Axial D. NA",
                "C. Axial",
            ),
            (
                "modality recognition",
                "Which phase is it? Choices: A. arterial B. portal venous C. delayed D. none",
                "B. portal venous",
            ),
            (
                "anatomy recognition",
                "Which organ is enlarged? Choices: A. spleen B. liver C. kidney D. stomach",
                "B. liver",
            ),
            (
                "abnormality detection",
                "Is there a fracture? Choices: A. Yes B. No C. Possibly D. NA",
                "A. Yes",
            ),
            ("localization", "Where is the lesion? Choices: A. spleen B. liver C. kidney D. stomach", "C. kidney"),
        ]
        assert list(made.broken.values()) == [
            "Axial.npy is missing.",
            "'Question Type' is '6', not one of 1, 2, 3, 4, 5.",
            "'Answer' is missing or empty.",
            "the answer is 'F', which is none of the choices A, B, C, D.",
        ]

    def test_open_questions(self, converted):
        made = converted("m3d-vqa-open")
        assert made.said("m3d-vqa-open/train/3") == ("Which organ is enlarged?", "liver")
        assert made.said("m3d-vqa-open/train/4") == ("Is there a fracture?", "yes")
        assert {record.split for record in made.records.values()} == {"train", "validation", "test"}

    def test_open_and_closed_questions_share_their_volumes(self, converted):
        paths = {
            medium.path
            for name in ("m3d-vqa-open", "m3d-vqa-closed")
            for record in converted(name).records.values()
            for medium in record.media
        }
        assert paths == {"media/m3d-cap/M3D_Cap_npy/ct_quizze/000006/Axial_C__portal_venous_phase.npy"}

    def test_rows_leave_the_report_in_the_table(self, converted):
        (row, *_) = get_adapter("m3d-vqa-open").rows(converted("m3d-vqa-open").folder)
        assert "Text" not in row.values["entry"]

    def test_positions_in_both_directions(self, converted):
        made = converted("m3d-positioning")
        box = "[0.25, 0.25, 0.125, 0.5, 0.438, 0.938]"
        where, what = (made.records[f"m3d-positioning/train/0003/1/{part}"] for part in ("where", "what"))
        assert "liver" in where.question
        assert (where.answer, what.answer) == (box, "liver")
        assert box in what.question
        assert where.media == what.media
        assert {record.task for record in made.records.values()} == {"localization"}
        # Names from the tag's own labels, where 0 is the background.
        assert made.records["m3d-positioning/train/0016/1/what"].answer == "liver"
        assert sum(record.split == "test" for record in made.records.values()) == 2

    def test_masks_that_cannot_be_used(self, converted):
        reasons = [
            "class 9 of 0003 has no name in dataset_info.json.",
            "the mask is empty.",
            "the mask has the shape (2, 16, 16), and the volume (4, 16, 16).",
            "mask_3.npy is missing.",
            "the label 'mask.npy' is not named mask_<class>.npy.",
        ]
        assert converted("m3d-positioning").broken == {
            f"0003/0003.json, train entry {number}": reason for number, reason in enumerate(reasons, 2)
        }

    @given(arrays.arrays(bool, (5, 7, 3)))
    def test_a_box_is_the_smallest_that_holds_the_mask(self, mask):
        if not mask.any():
            with pytest.raises(BrokenRow, match="empty"):
                box_of(mask)
            return
        x1, y1, z1, x2, y2, z2 = json.loads(box_of(mask))
        size = np.array(mask.shape)
        low, high = (np.round(np.array(ends) * size).astype(int) for ends in ((x1, y1, z1), (x2, y2, z2)))
        places = np.argwhere(mask)
        assert (low == places.min(axis=0)).all()
        assert (high == places.max(axis=0)).all()


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Converted:
    """Matching over 60 captions of videos that share four files: two modalities, three splits."""
    folder = tmp_path_factory.mktemp("many")
    for number in range(4):
        fixtures.write_video(folder / f"{number}.mp4", number)
    words = ["polyp", "snare", "mucosa", "bleeding", "lumen", "suture", "forceps", "biopsy", "stent", "ulcer", "caecum"]
    rng = np.random.default_rng(0)
    entries = [
        {
            "video": f"{number % 4}.mp4",
            "caption": " ".join(rng.permutation(words)[:5]) + ".",
            "modality": ("endoscopy", "ultrasound")[number % 2],
            "split": ("train", "train", "validation", "test")[number // 15],
        }
        for number in range(60)
    ]
    fixtures.write_lines(folder / "captions.jsonl", entries)
    return convert("image-text-matching-video-folder", folder, tmp_path_factory.mktemp("many-built"))


class TestMatching:
    def test_half_of_the_texts_are_of_another_scan(self, many):
        assert len(many.records) > 50
        answers = [record.answer for record in many.records.values()]
        assert set(answers) == {"yes", "no"}
        assert 0.3 < answers.count("no") / len(answers) < 0.7

    def test_the_text_is_its_own_caption_or_one_of_the_same_modality_and_split(self, many):
        captions = [json.loads(line) for line in (many.folder / "captions.jsonl").read_text().splitlines()]
        for record in many.records.values():
            own = captions[int(record.id.rsplit("/", 1)[1]) - 1]
            quoted = [entry for entry in captions if f'"{entry["caption"]}"' in record.question]
            if record.answer == "yes":
                assert quoted == [own]
            else:
                (other,) = quoted
                assert other["caption"] != own["caption"]
                assert (other["modality"], other["split"]) == (own["modality"], own["split"])
            assert record.task == "image-text matching"
            assert record.question in [
                wording.format(kind="video", sentence=quoted[0]["caption"]) for wording in MATCHING
            ]

    def test_scans_keep_the_media_of_their_own_source(self, converted):
        made, source = converted("image-text-matching"), converted("m3d-cap")
        for name, record in made.records.items():
            assert record.media == source.records[name.replace("image-text-matching", "m3d-cap")].media

    def test_a_caption_that_says_the_same_is_no_counterexample(self, tmp_path):
        fixtures.write_video(tmp_path / "a.mp4")
        captions = [f"No polyp is seen in film {number}." for number in range(12)]
        fixtures.write_lines(
            tmp_path / "captions.jsonl", [{"video": "a.mp4", "caption": caption} for caption in captions]
        )
        made = convert("image-text-matching-video-folder", tmp_path, tmp_path / "built")
        assert {record.answer for record in made.records.values()} == {"yes"}
        assert set(made.broken.values()) == {"no other caption of its modality and split says something else."}

    def test_rows_stay_small(self, many):
        rows = list(get_adapter("image-text-matching-video-folder").rows(many.folder))
        assert max(len(row.values["lenders"]) for row in rows) <= LENDERS


class TestVideoFolder:
    def test_records(self, converted):
        made = converted("video-folder")
        described = {
            record.id: (record.modality, record.task, record.answer, record.license) for record in made.records.values()
        }
        terms = ADAPTERS["video-folder"].license
        assert described == {
            "video-folder/train/captions/1": ("endoscopy", CAPTIONING, "A polyp is removed with a snare.", terms),
            "video-folder/train/captions/2": ("endoscopy", CAPTIONING, "The camera enters the caecum.", "CC0-1.0"),
            "video-folder/train/captions/3": ("ultrasound", CAPTIONING, "A beating heart in four chambers.", terms),
            "video-folder/test/questions/1": ("endoscopy", "abnormality detection", "yes", terms),
            "video-folder/train/questions/2": ("unknown", "temporal and procedure understanding", "grasper", terms),
        }
        assert {record.dimension for record in made.records.values()} == {"video"}

    def test_broken_lines(self, converted):
        broken = converted("video-folder").broken
        assert "not JSON" in broken.pop("captions.jsonl, line 4")
        assert broken.pop("captions.jsonl, line 5") == "clip.mp4 is missing."
        assert broken.pop("captions.jsonl, line 6") == "'split' is 'dev', not one of train, validation, test."
        assert broken.pop("questions.csv, row 3").startswith("modality: Input should be 'CT'")
        assert broken.pop("questions.csv, row 4") == "'question' is missing or empty."
        assert broken == {}


class TestVideoLlama3:
    def test_conversations(self, converted):
        made = converted("videollama3")
        said = {
            record.id: (
                [PurePosixPath(medium.path).name for medium in record.media],
                [turn.content for turn in record.conversations],
            )
            for record in made.records.values()
        }
        assert said == {
            "videollama3/test/my_test.jsonl/1": (["b.jpg"], ["<media>\nIs this a CT?", "no"]),
            "videollama3/train/train.json/1": (
                ["a.jpg", "b.jpg"],
                ["<media>\nand <media>\nWhat changed on the chest X-ray?", "An effusion.", "On which side?", "Right."],
            ),
            "videollama3/train/train.json/2": (["a.jpg"], ["Describe the image.", "A noisy picture."]),
            "videollama3/train/train.json/3": (["c.mp4"], ["<media>\nWhat happens?", "Noise."]),
            "videollama3/train/train.json/4": (["c.mp4", "a.jpg"], ["<media> or <media>?", "Both."]),
        }

    def test_what_the_words_tell(self, converted):
        records = converted("videollama3").records
        assert records["videollama3/train/train.json/1"].modality == "X-ray"
        assert records["videollama3/test/my_test.jsonl/1"].modality == "unknown"
        assert records["videollama3/train/train.json/2"].task == CAPTIONING
        assert records["videollama3/train/train.json/4"].dimension == "video"

    def test_broken_entries(self, converted):
        broken = converted("videollama3").broken
        assert "not JSON" in broken.pop("my_test.jsonl, line 2")
        reasons = [
            "2 <image> placeholders for 1 paths in 'image'.",
            "it has no image or video.",
            "the conversation does not go from human to gpt in turns.",
            "the path '/etc/passwd' is not a relative path with forward slashes and without '..'.",
            "'image' is not a path or a list of paths.",
        ]
        assert broken == {f"train.json, entry {number}": reason for number, reason in enumerate(reasons, 5)}
