# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Real pictures become questions: VQA-RAD's own files, labelled folders, what has no answer, what is not medical."""

from __future__ import annotations

import json
import os
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
import yaml

from data_engine import unanswerable
from data_engine.adapters import BrokenRow, MediaStore, SourceError, get_adapter, not_medical, without_answer
from data_engine.build import BuildConfig, build, leaks_in_words
from data_engine.label_questions import NO_ABNORMALITY, Label, Planned, follow_ups, label_questions, planned
from data_engine.not_medical import KINDS
from data_engine.records import Record, read_records
from data_engine.small_talk import TALK
from data_engine.unanswerable import CANNOT_TELL, NOT_MEDICAL, UNKNOWNS, Shown
from tests.helpers import data_fixtures as fixtures

REAL = Path(__file__).resolve().parents[2] / "data_engine/configs/real.yaml"


def records_of(name: str, folder: Path, built: Path) -> tuple[list[Record], dict[str, str]]:
    """The records of a folder, and the reasons of its broken rows."""
    adapter, records, broken = get_adapter(name), [], {}
    for row in adapter.rows(folder):
        try:
            records += adapter.records(row, folder, MediaStore(built))
        except BrokenRow as error:
            broken[row.where] = str(error)
    return records, broken


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


class TestVqaRadsOwnFiles:
    def test_the_two_files_that_papers_use(self, tmp_path):
        fixtures.write_vqa_rad_json(tmp_path / "vqa-rad")
        records, broken = records_of("vqa-rad", tmp_path / "vqa-rad", tmp_path / "set")
        said = {one.id: (one.question, one.answer, one.task, one.modality) for one in records}
        assert [said[f"vqa-rad/train/{number}"] for number in (1, 2, 3)] == [
            ("Are regions of the brain infarcted?", "yes", "abnormality detection", "MRI"),
            ("What type of imaging is this?", "MRI diffusion weighted", "modality recognition", "MRI"),
            ("Is there a mass?", "no", "abnormality detection", "unknown"),
        ]
        answers = {one.task: one.answer for one in records}
        assert (answers["counting and measurement"], answers["localization"]) == ("3", "Right")
        assert broken == {
            "trainset.json, entry 5": "synpic9.jpg is missing.",
            "trainset.json, entry 6": "'answer' is missing or empty.",
            "trainset.json, entry 7": "the path '../secret.jpg' is not a relative path with forward slashes and "
            "without '..'.",
        }

    def test_the_authors_one_file_gives_the_same(self, tmp_path):
        fixtures.write_vqa_rad_json(tmp_path / "two")
        fixtures.write_vqa_rad_public(tmp_path / "one")

        def said(folder: Path) -> list[tuple[str, str, str, str]]:
            records, _ = records_of("vqa-rad", folder, tmp_path / "set")
            return [(one.split, one.question, one.answer, one.modality) for one in records]

        assert said(tmp_path / "one") == said(tmp_path / "two")

    def test_validation_is_of_pictures_that_the_test_does_not_show(self, tmp_path):
        folder = tmp_path / "vqa-rad"
        names = [f"synpic{number}.jpg" for number in range(1, 41)]
        (folder / "images").mkdir(parents=True)
        train = [fixtures.vqa_rad_entry(image_name=name) for name in names for _ in range(2)]
        test = [fixtures.vqa_rad_entry(image_name=name, question="Why?") for name in names[:20]]
        fixtures.write_json(folder / "trainset.json", train)
        fixtures.write_json(folder / "testset.json", test)
        splits = defaultdict(set)
        for row in get_adapter("vqa-rad").rows(folder):
            splits[row.values["entry"]["image_name"]].add(row.values["split"])
        assert all(splits[name] == {"train", "test"} for name in names[:20])
        carved = [name for name in names[20:] if splits[name] == {"validation"}]
        assert 0 < len(carved) < 12
        assert all(splits[name] == {"train"} for name in names[20:] if name not in carved)

    @pytest.mark.parametrize(("shared", "kept"), [(True, {2, 3, 4}), (False, {4})])
    def test_the_official_split_keeps_other_questions_about_test_pictures_and_drops_the_same(
        self, shared, kept, tmp_path, monkeypatch
    ):
        fixtures.write_vqa_rad_json(tmp_path / "vqa-rad")
        monkeypatch.setattr("data_engine.adapters.vqa_rad.VALIDATION_SHARE", 0.0)
        source = {"name": "vqa-rad", "path": "vqa-rad", "splits": ["train", "test"], "shares_pictures": shared}
        config = tmp_path / "config.yaml"
        config.write_text(yaml.safe_dump({"title": "VQA-RAD", "seed": 0, "on_leak": "drop", "sources": [source]}))
        build(BuildConfig.read(config), tmp_path / "set", "local", 1)
        train = [record.id for record in read_records(tmp_path / "set" / "train.jsonl")]
        assert {int(name.split("/")[-1]) for name in train} == kept
        assert leaks_in_words(tmp_path / "set" / "leaks.jsonl").startswith(
            f"The leak check left out {4 - len(kept)} of vqa-rad"
        )


class TestSlake:
    def test_chinese_training_rows_about_pictures_of_the_english_test_are_left_out_and_counted(self, tmp_path):
        fixtures.write_slake_by_picture(tmp_path / "slake")
        source = {"name": "slake", "path": "slake", "splits": ["train", "validation", "test"]}
        config = tmp_path / "config.yaml"
        fields = {"title": "SLAKE", "seed": 0, "on_leak": "drop", "check_validation": True}
        config.write_text(yaml.safe_dump(fields | {"sources": [source | {"held_out_languages": ["en"]}]}))
        summary = build(BuildConfig.read(config), tmp_path / "set", "local", 1)
        assert summary["language"] == {"en": 4}
        assert "left out 1 of slake" in leaks_in_words(tmp_path / "set" / "leaks.jsonl")
        row = next(line for line in (tmp_path / "set" / "README.md").read_text().splitlines() if "[SLAKE]" in line)
        assert row.split("|")[3:-1] == [" 6 ", " 0 ", " 0 ", " 1 ", " 4 "], "read, broken, duplicates, leaks, used"


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[list[Record], dict[str, str]]:
    """What the lists of labelled pictures become."""
    folder = tmp_path_factory.mktemp("labelled")
    fixtures.write_labelled(folder)
    return records_of("labelled-pictures", folder, tmp_path_factory.mktemp("set"))


class TestLabelledPictures:
    def of(self, made, name: str) -> dict[str, Record]:
        """The records of a picture by the last part of their ids."""
        return {one.id.split("/", 3)[3]: one for one in made[0] if Path(one.media[0].path).stem == name}

    def test_a_boxed_mass_is_named_placed_and_chosen(self, made):
        one = self.of(made, "benign_0")
        assert one["abnormality"].answer == one["diagnosis"].answer == "benign mass"
        assert one["choice"].answer[3:] == "benign mass"
        assert "Choices: A. " in one["choice"].question
        assert (one["place-side"].answer, one["place-quadrant"].answer) == ("left", "upper left")
        assert "mass" in one["place-side"].question
        assert "benign" not in one["place-side"].question, "the question must not give the diagnosis away"
        assert {record.source for record in one.values()} == {"busi"}
        assert {record.license for record in one.values()} == {"CC-BY-4.0"}

    def test_a_normal_picture_has_no_abnormality_and_nothing_to_locate(self, made):
        one = self.of(made, "normal_0")
        assert one["abnormality"].answer == NO_ABNORMALITY
        assert one["diagnosis"].answer == "no mass"
        assert not [name for name in one if name.startswith("place")]

    def test_grades_counts_and_views_are_asked(self, made):
        fundus = self.of(made, "fundus_0")
        assert fundus["grade-the-diabetic-retinopathy"].answer == "grade 3"
        assert fundus["grade-the-risk-of-macular-oedema"].answer == "high"
        smear = self.of(made, "smear_3")
        assert smear["count-red-blood-cells"].answer == "13"
        assert "count-white-blood-cells" not in smear, "every smear has one"
        assert "abnormality" not in smear, "nothing is known of a finding"
        views = [one.answer for one in made[0] if one.task == "view/plane identification"]
        assert set(views) <= {"AP supine"}

    def test_each_planned_question_has_either_answer_as_often(self, made):
        answers = defaultdict(Counter)
        for one in made[0]:
            part = one.id.split("/", 3)[3]
            if part.startswith(("finding-", "quadrant-", "sign-", "place-side", "place-height")):
                answers[one.source, one.split, part][one.answer] += 1
            elif part in ("abnormal", "normal"):
                answers[one.source, one.split, "abnormal or normal"][one.answer] += 1
        assert {part.split("-")[0] for _, _, part in answers} == {
            "finding",
            "sign",
            "place",
            "quadrant",
            "abnormal or normal",
        }
        assert all(len(counts) == 2 and len(set(counts.values())) == 1 for counts in answers.values())

    def test_videos_and_volumes_are_asked_about_as_such(self, made):
        kinds = {one.media[0].type: one.dimension for one in made[0]}
        assert kinds == {"image": "2d", "video": "video", "volume": "3d"}
        assert {one.answer for one in made[0] if one.id.endswith("sign-B-lines")} == {"yes", "no"}
        assert not [one for one in made[0] if "sign-a-pleural-effusion" in one.id], "no clip has one"

    def test_broken_lines_are_told(self, made):
        assert sorted(made[1].values()) == [
            "'boxes' must be a list of [left, top, right, bottom] as shares of the picture.",
            "'modality' is 'sonography', not one of CT, MRI, X-ray, ultrasound, PET, OCT, endoscopy, microscopy, "
            "histopathology, fundus photography, dermoscopy, angiography, mammography, clinical photograph.",
            "missing.jpg is missing.",
            "the line is not JSON (Expecting property name enclosed in double quotes at column 2).",
        ]

    def test_a_group_in_two_splits_is_refused(self, tmp_path):
        lines = [fixtures.labelled_line("one"), fixtures.labelled_line("two", group="busi/one", split="test")]
        fixtures.write_lines(tmp_path / "images.jsonl", lines)
        with pytest.raises(SourceError, match="'busi/one' is in train and in test; give each group one split"):
            list(get_adapter("labelled-pictures").rows(tmp_path))

    def test_plain_class_folders(self, tmp_path):
        fixtures.write_class_folders(tmp_path / "skin")
        records, broken = records_of("labelled-pictures", tmp_path / "skin", tmp_path / "set")
        assert not broken
        assert {one.media[0].path.split("/")[2] for one in records} == {"mel", "nv"}, "only named classes are read"
        assert {(one.source, one.license, one.modality) for one in records} == {
            ("our-clinic", "CC-BY-4.0", "dermoscopy")
        }
        assert {one.answer for one in records if one.id.endswith("/abnormality")} == {"melanoma", NO_ABNORMALITY}
        assert {one.split for one in records} == {"train", "validation", "test"}
        assert len({one.media[0].path for one in records}) == 24

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            ("classes: [mel]", "must hold named fields"),
            ("classes: {none: x}", "no such folder"),
            ("a: [", "is not YAML"),
            ("classes: {mel: {split: tests}}", "'split' is 'tests'"),
        ],
    )
    def test_a_wrong_about_file_is_told(self, words, message, tmp_path):
        fixtures.write_class_folders(tmp_path)
        (tmp_path / "about.yaml").write_text(words)
        with pytest.raises(SourceError, match=message):
            list(get_adapter("labelled-pictures").rows(tmp_path))


class TestLabels:
    def test_a_box_near_the_middle_has_no_side_and_two_boxes_apart_have_no_quadrant(self):
        middle = Label("image", "endoscopy", "polyp", False, boxes=((0.4, 0.1, 0.6, 0.2),), boxed="polyp")
        assert (middle.side, middle.height, middle.quadrant) == (None, "upper", None)
        apart = Label("image", "endoscopy", "polyp", False, boxes=((0, 0, 0.1, 0.1), (0.9, 0, 1, 0.1)), boxed="polyp")
        assert (apart.side, apart.height, apart.thing) == (None, "upper", "polyps")
        assert [apart.lies_in(place) for place in ("upper left", "upper right", "lower left")] == [True, True, False]
        assert middle.lies_in("upper left") is None, "it reaches into the quadrant, and does not lie there"

    def test_a_question_with_one_answer_only_is_not_planned(self):
        polyp = Label("image", "endoscopy", "polyp", False, boxes=((0, 0, 0.1, 0.1),), boxed="polyp")
        assert planned([polyp, polyp], rng()) == [[], []]

    def test_follow_ups_agree_with_the_first_answer(self):
        normal = Label("image", "ultrasound", "no mass", True, anatomy="breast", boxes=())
        mass = Label("image", "ultrasound", "benign mass", False, boxes=((0, 0, 0.1, 0.1),), boxed="mass")
        plan = [Planned("abnormal", "", "yes")]
        for seed in range(20):
            turns = follow_ups(normal, plan, "train", rng(seed))
            assert (turns[0][1], turns[1][1]) == ("no", NO_ABNORMALITY)
            assert not any("mass" in answer or "left" in answer for _, answer in turns[1:])
            turns = follow_ups(mass, plan, "train", rng(seed))
            assert [answer for _, answer in turns[:3]] == ["yes", "benign mass", "upper left"]

    def test_a_caption_of_another_finding_does_not_match(self):
        label = Label("image", "histopathology", "carcinoma", False, anatomy="oral epithelium")
        seen = set()
        for seed in range(60):
            for name, one in label_questions(label, (), ("carcinoma", "normal"), rng(seed)):
                if name == "matching" and ("carcinoma" in one.question or "without abnormality" in one.question):
                    seen.add(("carcinoma" in one.question, one.answer))
        assert seen == {(True, "yes"), (False, "no")}


class TestWithoutAnswer:
    def test_every_reply_begins_so_that_it_is_recognised(self):
        shown = Shown("image", "CT", "abdomen")
        for seed in range(100):
            for one in unanswerable.without_answer(shown, "train", 3, rng(seed)):
                assert one.answer.startswith(f"{CANNOT_TELL} ")
                assert "from this image" in one.answer
                assert one.reply == "cannot tell"
            for one in unanswerable.about_no_medical_picture(3, rng(seed)):
                assert one.answer.startswith(NOT_MEDICAL)
                assert one.reply == "not medical"
            assert unanswerable.small_talk("train", rng(seed)).reply == "conversation"

    def test_a_finding_is_asked_for_elsewhere_only_where_it_cannot_show(self):
        asked = set()
        for seed in range(200):
            one = unanswerable.cannot_tell("finding elsewhere", Shown("image", "X-ray", "chest"), "train", rng(seed))
            asked.add(one.question)
        words = " ".join(asked)
        assert "meniscal" in words
        assert not any(word in words for word in ("pneumo", "effusion", "heart", "liver", "breast", "rib"))
        assert unanswerable.cannot_tell("finding elsewhere", Shown("image", "CT", ""), "train", rng()) is None

    @pytest.mark.parametrize(
        ("about", "shown"),
        [
            ("sex", Shown("image", "ultrasound", "breast")),
            ("sex", Shown("image", "CT", "pelvis")),
            ("size", Shown("volume", "CT", "chest")),
            ("slice", Shown("image", "endoscopy", "colon")),
            ("radiation dose", Shown("image", "MRI", "brain")),
            ("body weight", Shown("volume", "CT", "whole body")),
        ],
    )
    def test_what_the_picture_may_tell_is_not_asked(self, about, shown):
        assert unanswerable.cannot_tell(about, shown, "train", rng()) is None

    def test_each_split_asks_in_words_and_about_things_of_its_own(self):
        for wordings in (*(one.wordings for one in UNKNOWNS.values()), unanswerable.ELSEWHERE_WORDINGS):
            every = [words.lower() for split in wordings for words in wordings[split]]
            assert every
            assert len(every) == len(set(every))
        for split in ("validation", "test"):
            assert any(tuple(one.wordings) == (split,) for one in UNKNOWNS.values())
        for learned, tested, _ in TALK.values():
            assert not set(learned) & set(tested)
        assert len(TALK["identity"][1]) >= 50

    def test_only_in_training_questions_are_typed_carelessly(self):
        def asked(split: str) -> list[str]:
            draws = rng()
            return [
                unanswerable.cannot_tell("age", Shown("image", "CT", "chest"), split, draws).question for _ in range(60)
            ]

        assert {words[0].isupper() for words in asked("train")} == {True, False}
        assert all(words[0].isupper() and words.endswith("?") for words in asked("test") + asked("validation"))

    def test_nothing_is_asked_in_a_split_that_has_no_words_for_it(self):
        assert unanswerable.cannot_tell("laboratory", Shown("image", "CT", "chest"), "train", rng()) is None

    def test_identity_never_claims_to_be_a_physician(self):
        for question, answer in unanswerable.identity_turns("train") + unanswerable.identity_turns("test"):
            assert "OmniV-Med" in answer
            assert "no physician" in answer
            assert question

    def test_pictures_of_two_splits_are_passed_over_and_records_are_marked(self, tmp_path):
        fixtures.write_vqa_rad_json(tmp_path / "vqa-rad")
        records, _ = records_of("unanswerable-vqa-rad", tmp_path / "vqa-rad", tmp_path / "set")
        assert {one.media[0].path for one in records} == {"media/vqa-rad/synpic3.jpg"}
        fixtures.write_slake_by_picture(tmp_path / "slake")
        records, _ = records_of("unanswerable-slake", tmp_path / "slake", tmp_path / "set")
        shown = {(one.split, one.media[0].path.split("/")[2]) for one in records}
        assert shown == {("train", "xmlab1"), ("validation", "xmlab3"), ("test", "xmlab2")}
        assert {one.reply for one in records} <= {"cannot tell", "conversation"}
        assert len(records) >= 3 * without_answer.QUESTIONS_PER_PICTURE["slake"]


class TestNotMedical:
    def test_kinds_of_the_test_are_not_kinds_of_training(self):
        names = [name for kinds in KINDS.values() for name in kinds]
        assert len(names) == len(set(names))

    @pytest.mark.parametrize(("split", "kind"), [(split, kind) for split in KINDS for kind in KINDS[split]])
    def test_drawings_are_the_same_for_a_seed_and_differ_between_seeds(self, split, kind):
        draw = KINDS[split][kind]
        first = np.asarray(draw(rng(1)))
        assert first.ndim == 3
        assert first.dtype == np.uint8
        assert np.array_equal(first, np.asarray(draw(rng(1))))
        assert not np.array_equal(first, np.asarray(draw(rng(2))))

    def test_photographs_are_reduced_and_say_what_they_show(self, tmp_path):
        fixtures.write_photographs(tmp_path / "real")
        records, broken = records_of("photographs", tmp_path / "real", tmp_path / "set")
        assert broken == {"not_medical.jsonl, line 3": "shoe.jpg is missing, damaged or no picture."}
        assert {one.id.split("/")[3] for one in records} == {"hat", "shirt"}
        assert {(one.modality, one.reply, one.license) for one in records} == {("unknown", "not medical", "CC0-1.0")}

    def test_a_class_of_photographs_lies_in_one_split(self, tmp_path):
        for name in "abcdefgh":
            for number in range(3):
                fixtures.write_bytes(tmp_path / name / f"{number}.png", fixtures.picture(number))
        (tmp_path / "about.yaml").write_text("license: CC0-1.0\n")
        splits = defaultdict(set)
        for row in get_adapter("photographs").rows(tmp_path):
            splits[row.values["entry"]["file"][0]].add(row.values["split"])
        assert len(splits) == 8
        assert all(len(one) == 1 for one in splits.values())


def write_real(folder: Path) -> None:
    """A folder laid out as `real.yaml` reads it."""
    fixtures.write_labelled(folder)
    fixtures.write_photographs(folder)
    fixtures.write_vqa_rad_json(folder / "vqa-rad")
    fixtures.write_slake_by_picture(folder / "slake")


def test_the_configuration_builds_everything_from_one_folder(tmp_path, monkeypatch, caplog):
    write_real(tmp_path / "real")
    monkeypatch.setattr(not_medical, "DRAWN_COUNTS", {"train": 11, "validation": 3, "test": 6})
    config = BuildConfig.read(REAL, tmp_path / "real")
    assert "Left out photographs, which is optional" in caplog.text
    build(config, tmp_path / "set", "local", 1)
    records = [one for name in ("train", "validation", "test") for one in read_records(tmp_path / f"set/{name}.jsonl")]
    assert {one.reply for one in records} == {"answer", "cannot tell", "not medical", "conversation"}
    assert {"vqa-rad", "slake", "busi", "idrid", "drawn-pictures", "photographs"} <= {one.source for one in records}


@pytest.mark.skipif("OMNIV_MED_REAL" not in os.environ, reason="needs OMNIV_MED_REAL, the folder of the real pictures")
def test_the_real_pictures_keep_their_groups_and_balance(tmp_path):
    folder = Path(os.environ["OMNIV_MED_REAL"])
    rows = list(get_adapter("labelled-pictures").rows(folder))
    assert not [row for row in rows if "broken" in row.values]
    split_of = defaultdict(set)
    answers = defaultdict(Counter)
    for row in rows:
        split_of[row.values["entry"].get("group", row.values["entry"]["file"])].add(row.values["split"])
        for one in row.values["plan"]:
            topic = "abnormal" if one.topic == "normal" else one.topic
            answers[row.values["entry"].get("source"), row.values["split"], topic, one.name][one.answer] += 1
    assert all(len(splits) == 1 for splits in split_of.values())
    for (_, _, _, name), counts in answers.items():
        assert max(counts.values()) <= (2 if name == "quadrant" else 1) * min(counts.values())
    pairs = json.loads((folder / "vqa-rad/testset.json").read_text())
    assert len(pairs) == 451
