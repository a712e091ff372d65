# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Writes tiny copies of public data sets in their own formats: good rows, and one of each kind of broken row.

File names, columns and keys are the sources' own; pictures, volumes and videos are small and made up, but real files.
"""

from __future__ import annotations

import gzip
import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from tests.helpers.benchmark_fixtures import BENCHMARK_WRITERS
from tests.helpers.data_files import (
    picture,
    write_bytes,
    write_dicom,
    write_json,
    write_lines,
    write_table,
    write_video,
    write_volume,
)


def write_hub_shard(path: Path, rows: list[tuple[bytes | None, str | None, str | None]]) -> None:
    """A shard of VQA-RAD or PathVQA: pictures (bytes or none), questions and answers, two rows a row group."""
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    pictures = [None if data is None else {"bytes": data, "path": None} for data, _, _ in rows]
    table = pa.table(
        {
            "image": pa.array(pictures, kind),
            "question": pa.array([question for _, question, _ in rows], pa.string()),
            "answer": pa.array([answer for _, _, answer in rows], pa.string()),
        }
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=2)


def write_vqa_rad(folder: Path) -> None:
    """Four good rows, two of them on one picture, and four broken ones."""
    first, second = picture(1, "JPEG"), picture(2)
    write_hub_shard(
        folder / "data/train-00000-of-00001-eb8844602202be60.parquet",
        [
            (first, "are regions of the brain infarcted?", "Yes"),
            (first, "what imaging modality is used?", "CT"),
            (second, "Where is the lesion on this MRI?", "left temporal lobe"),
            (None, "is this axial?", "no"),
            (second, "is there a fracture?", " "),
            (b"no picture", "is there a mass?", "no"),
            (second, None, "no"),
        ],
    )
    write_hub_shard(
        folder / "data/test-00000-of-00001-e5bc3d208bb4deeb.parquet",
        [(picture(3), "Is there evidence of an aortic aneurysm?", "yes")],
    )


def write_path_vqa(folder: Path) -> None:
    """One row in each split, the training rows in two shards."""
    rows = {
        "train-00000-of-00002": (picture(1), "where are liver stem cells located?", "in the canals of hering"),
        "train-00001-of-00002": (picture(2), "what is present?", "gastrointestinal"),
        "validation-00000-of-00001": (picture(3), "is bone present?", "no"),
        "test-00000-of-00001": (picture(4), "what disease is shown?", "lymphoma"),
    }
    for name, row in rows.items():
        write_hub_shard(folder / f"data/{name}.parquet", [row])


def slake_entry(**changes: object) -> dict[str, object]:
    """An entry of SLAKE."""
    return {
        "img_id": 1,
        "img_name": "xmlab1/source.jpg",
        "question": "What modality is used to take this image?",
        "answer": "MRI",
        "q_lang": "en",
        "location": "Abdomen",
        "modality": "MRI",
        "answer_type": "OPEN",
        "base_type": "vqa",
        "content_type": "Modality",
        "triple": ["vhead", "_", "_"],
        "qid": 0,
    } | changes


def write_slake(folder: Path) -> None:
    """English and Chinese entries, and five broken ones."""
    for number in (1, 2):
        write_bytes(folder / f"imgs/xmlab{number}/source.jpg", picture(number, "JPEG"))
    chest = {"img_name": "xmlab2/source.jpg", "modality": "X-Ray", "location": "Chest_lung"}
    absent = slake_entry()
    del absent["question"]
    write_json(
        folder / "train.json",
        [
            slake_entry(),
            slake_entry(
                **chest, question="Is the lung healthy?", answer="No", answer_type="CLOSED", content_type="Abnormality"
            ),
            slake_entry(**chest, question="肺在哪里?", answer="胸腔", q_lang="zh", content_type="Position"),
            slake_entry(img_name="xmlab9/source.jpg"),
            absent,
            slake_entry(answer=""),
            slake_entry(img_name="../../secret.jpg"),
            "not an entry",
        ],
    )
    write_json(
        folder / "validate.json",
        [slake_entry(question="How many kidneys are there?", answer=2, content_type="Quantity")],
    )
    write_json(
        folder / "test.json", [slake_entry(**chest, content_type="Plane", question="Which plane?", answer="Coronal")]
    )


CHOICE_COLUMNS = ["Choice A", "Choice B", "Choice C", "Choice D"]
PMC_COLUMNS = ["index", "Figure_path", "Caption", "Question", *CHOICE_COLUMNS, "Answer", "split"]


def write_pmc_vqa(folder: Path) -> None:
    """Three good rows and six broken ones."""
    for number in (1, 2):
        write_bytes(folder / f"figures/PMC{number}_F1.jpg", picture(number, "JPEG"))
    choices = ["A: cyst", "B: tumour ", "C: stone", "D: none"]
    write_table(
        folder / "train_2.csv",
        PMC_COLUMNS,
        [
            ["0", "PMC1_F1.jpg", "Axial CT of the liver.", "What does the arrow show?", *choices, "B", "train"],
            [
                "1",
                "PMC2_F1.jpg",
                "MRI and CT side by side.",
                "Which organ is shown?",
                "liver",
                "lung",
                "kidney",
                "bone",
                "A",
                "train",
            ],
            ["2", "PMC3_F1.jpg", "A radiograph.", "What is it?", *choices, "B", "train"],
            ["3", "PMC1_F1.jpg", "A radiograph.", "What is it?", *choices, "E", "train"],
            ["4", "PMC1_F1.jpg", "A radiograph.", "What is it?", "cyst", "", "stone", "none", "A", "train"],
            ["5", "PMC1_F1.jpg", "A radiograph."],
            ["6", "/etc/passwd", "A radiograph.", "What is it?", *choices, "B", "train"],
            ["7", "PMC1_F1.jpg", "A radiograph.", "What is it?", *choices, "B", "train", "one too many"],
        ],
    )
    with (folder / "train_2.csv").open("ab") as file:
        file.write(b"8,PMC1_F1.jpg,caf\xe9,What is it?,a,b,c,d,A,train\r\n")
    write_table(
        folder / "test_2.csv",
        PMC_COLUMNS,
        [["0", "PMC2_F1.jpg", "H&E stain of the colon.", "What is it?", *choices, "D", "test"]],
    )


REPORT = """                                 FINAL REPORT
 EXAMINATION:  CHEST (PA AND LAT)

 INDICATION:  ___F with cough  // eval for pneumonia

 COMPARISON:  ___

 FINDINGS:

 The lungs are clear.  There is no focal
 consolidation.

 IMPRESSION:

 No acute cardiopulmonary process.
"""


def write_mimic_cxr(folder: Path) -> None:
    """Three good studies (JPG, DICOM, compressed split file), and five broken ones."""
    write_bytes(folder / "files/p10/p10000032/s50414267/aaa.jpg", picture(1, "JPEG"))
    write_bytes(folder / "files/p10/p10000032/s50414267/bbb.jpg", picture(2, "JPEG"))
    write_dicom(folder / "files/p10/p10000764/s57375967/ccc.dcm")
    write_bytes(folder / "files/p11/p11000001/s50000001/ddd.jpg", picture(3, "JPEG"))
    reports = {
        "p10/p10000032/s50414267": REPORT,
        "p10/p10000764/s57375967": " INDICATION: fever\n\n FINDINGS AND IMPRESSION: Right pleural effusion.\n",
        "p11/p11000001/s50000001": " CHEST RADIOGRAPH\n\n Impression: Large left pneumothorax.\n",
        "p11/p11000001/s50000002": REPORT,
        "p11/p11000001/s50000004": " FINAL REPORT\n INDICATION: fever\n",
    }
    for name, report in reports.items():
        write_bytes(folder / f"mimic-cxr-reports/files/{name}.txt", report.encode())
    lines = [
        "dicom_id,study_id,subject_id,split",
        "aaa,50414267,10000032,train",
        "bbb,50414267,10000032,train",
        "ccc,57375967,10000764,validate",
        "ddd,50000001,11000001,test",
        "eee,50000002,11000001,train",
        "fff,50000003,11000001,train",
        "ggg,50000004,11000001,train",
        "hhh,50000005,11000001,extra",
        "iii,50000006,11000001",
    ]
    (folder / "mimic-cxr-2.0.0-split.csv.gz").write_bytes(gzip.compress(("\n".join(lines) + "\n").encode()))


CAPTIONS = (
    "Large hypodense lesion in the right lobe of the liver.",
    "Multiple rib fractures with a small pneumothorax.",
    "The appendix is thickened and surrounded by fat stranding.",
    "Dilated small bowel loops up to a transition point in the pelvis.",
)


def write_m3d_cap(folder: Path) -> None:
    """Four training pairs, one in each other split, and four broken ones."""
    for number, caption in enumerate(CAPTIONS):
        write_volume(folder / f"M3D_Cap_npy/ct_case/00000{number}/Axial_non_contrast.npy", number)
        write_bytes(folder / f"M3D_Cap_npy/ct_case/00000{number}/text.txt", f"{caption} ".encode())
    write_bytes(folder / "M3D_Cap_npy/ct_case/000009/text.txt", b"A report without a volume.")
    write_bytes(folder / "M3D_Cap_npy/ct_case/000008/text.txt", b" \n")

    def pair(number: int) -> dict[str, str]:
        case = f"M3D_Cap_npy/ct_case/00000{number}"
        return {"image": f"{case}/Axial_non_contrast.npy", "text": f"{case}/text.txt"}

    write_json(
        folder / "M3D_Cap_npy/M3D_Cap.json",
        {
            "train": [*(pair(number) for number in range(4)), pair(9), pair(8), {"image": pair(0)["image"]}, pair(7)],
            "validation": [pair(1)],
            "test": [pair(2)],
            "test1k": [pair(2)],
        },
    )


M3D_VQA_COLUMNS = ["Image Path", "Text", "Question Type", "Question", *CHOICE_COLUMNS, "Answer", "Answer Choice"]


def write_m3d_vqa(folder: Path) -> None:
    """A question of each type, and four broken ones."""
    path = "M3D_Cap_npy/ct_quizze/000006/Axial_C__portal_venous_phase.npy"
    write_volume(folder / path)
    organs = ["spleen", "liver", "kidney", "stomach"]
    rows = [
        [path, "report", "1", "In which plane is the image?", "Sagittal", "Coronal", "Axial", "NA", "Axial", "C"],
        [
            path,
            "report",
            "2",
            "Which phase is it?",
            "arterial",
            "portal venous",
            "delayed",
            "none",
            "portal venous",
            "B",
        ],
        [path, "report", "3", "Which organ is enlarged?", *organs, "liver", "B"],
        [path, "report", "4", "Is there a fracture?", "Yes", "No", "Possibly", "NA", "Yes.", "A"],
        [path, "report", "5", "Where is the lesion?", *organs, "kidney", "C"],
        ["M3D_Cap_npy/ct_quizze/000007/Axial.npy", "report", "3", "Which organ?", *organs, "liver", "B"],
        [path, "report", "6", "Which organ?", *organs, "liver", "B"],
        [path, "report", "3", "Which organ?", *organs, "", "B"],
        [path, "report", "3", "Which organ?", *organs, "liver", "F"],
    ]
    write_table(folder / "M3D-VQA/M3D_VQA_train.csv", M3D_VQA_COLUMNS, rows)
    write_table(folder / "M3D-VQA/M3D_VQA_val.csv", M3D_VQA_COLUMNS, rows[:1])
    write_table(folder / "M3D-VQA/M3D_VQA_test.csv", M3D_VQA_COLUMNS, rows[2:3])
    write_table(folder / "M3D-VQA/M3D_VQA_test5k.csv", M3D_VQA_COLUMNS, rows[2:3])


def write_m3d_seg(folder: Path) -> None:
    """One tag with names in dataset_info.json, one with its own labels, and five broken entries."""
    root = folder / "M3D_Seg_npy"
    write_json(root / "dataset_info.json", {"0003": ["liver", "kidney", "spleen", "pancreas"]})
    for case in ("0003/case1", "0016/case2"):
        write_volume(root / case / "image.npy")
    mask = np.zeros((1, 4, 16, 16), dtype=bool)
    empty = mask.copy()
    mask[0, 1:3, 4:8, 2:16] = True
    masks = {
        "0003/case1/masks/mask_0.npy": mask,
        "0003/case1/masks/mask_9.npy": mask,
        "0003/case1/masks/mask_1.npy": empty,
        "0003/case1/masks/mask_2.npy": mask[:, :2],
        "0016/case2/masks/mask_0.npy": mask.astype(np.uint8),
    }
    for path, values in masks.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        np.save(root / path, values)

    def entry(path: str) -> dict[str, str]:
        return {"image": f"{path.split('/masks')[0]}/image.npy", "label": path}

    paths = list(masks)
    far = {name: f"/data/M3D_Seg_npy/{path}" for name, path in entry(paths[0]).items()}
    write_json(
        root / "0003/0003.json",
        {
            "train": [
                far,
                *(entry(path) for path in paths[1:4]),
                entry("0003/case1/masks/mask_3.npy"),
                entry("0003/case1/mask.npy"),
            ],
            "test": [entry(paths[0])],
        },
    )
    write_json(
        root / "0016/0016.json",
        {"labels": {"0": "background", "1": "liver"}, "training": [entry(paths[4])], "test": []},
    )


def write_video_folder(folder: Path) -> None:
    """Captions as JSON Lines, questions as a table, and five broken lines."""
    for number in (1, 2, 3):
        write_video(folder / f"case_{number}/clip.mp4", number)
    write_lines(
        folder / "captions.jsonl",
        [
            {"video": "case_1/clip.mp4", "caption": "A polyp is removed with a snare.", "modality": "endoscopy"},
            {
                "video": "case_2/clip.mp4",
                "caption": "The camera enters the caecum.",
                "modality": "endoscopy",
                "license": "CC0-1.0",
            },
            {"video": "case_3/clip.mp4", "caption": "A beating heart in four chambers.", "modality": "ultrasound"},
            "{broken",
            {"video": "case_9/clip.mp4", "caption": "No such film."},
            {"video": "case_1/clip.mp4", "caption": "Wrong split.", "split": "dev"},
        ],
    )
    write_table(
        folder / "questions.csv",
        ["video", "question", "answer", "modality", "task", "split"],
        [
            ["case_1/clip.mp4", "Is a polyp seen?", "Yes.", "endoscopy", "abnormality detection", "test"],
            ["case_2/clip.mp4", "Which instrument is used?", "grasper", "", "", ""],
            ["case_2/clip.mp4", "Which instrument is used?", "grasper", "television", "", ""],
            ["case_2/clip.mp4", "", "grasper", "", "", ""],
        ],
    )


def write_videollama3(folder: Path) -> None:
    """Lists and single paths, images and videos, several turns, and six broken entries."""
    write_bytes(folder / "media/a.jpg", picture(1, "JPEG"))
    write_bytes(folder / "media/b.jpg", picture(2, "JPEG"))
    write_video(folder / "media/c.mp4")

    def said(*words: str) -> list[dict[str, str]]:
        return [{"from": ("human", "gpt")[place % 2], "value": value} for place, value in enumerate(words)]

    write_json(
        folder / "train.json",
        [
            {
                "image": ["media/a.jpg", "media/b.jpg"],
                "conversations": said(
                    "<image>\nand <image>\nWhat changed on the chest X-ray?", "An effusion.", "On which side?", "Right."
                ),
            },
            {"image": "media/a.jpg", "conversations": said("Describe the image.", "A noisy picture.")},
            {"video": ["media/c.mp4"], "conversations": said("<video>\nWhat happens?", "Noise.")},
            {
                "image": ["media/a.jpg"],
                "video": ["media/c.mp4"],
                "conversations": [{"from": "system", "value": "Be brief."}, *said("<video> or <image>?", "Both.")],
            },
            {"image": ["media/a.jpg"], "conversations": said("<image><image> Same?", "Yes")},
            {"conversations": said("What is CT?", "Computed tomography.")},
            {"image": ["media/a.jpg"], "conversations": said("<image>\nWhat?")},
            {"image": ["/etc/passwd"], "conversations": said("<image>\nWhat?", "That.")},
            {"image": {"a": 1}, "conversations": said("<image>\nWhat?", "That.")},
        ],
    )
    write_lines(
        folder / "my_test.jsonl",
        [{"image": ["media/b.jpg"], "conversations": said("<image>\nIs this a CT?", "no")}, "{"],
    )


def vqa_rad_entry(**changes: object) -> dict[str, object]:
    """An entry of VQA-RAD's own files."""
    return {
        "qid": 1,
        "image_name": "synpic1.jpg",
        "image_organ": "HEAD",
        "answer": "Yes",
        "answer_type": "CLOSED",
        "question_type": "PRES",
        "question": "Are regions of the brain infarcted?",
        "phrase_type": "freeform",
    } | changes


def vqa_rad_entries() -> tuple[list[dict[str, object]], list[dict[str, object]]]:
    """Training and test entries: two pictures that both show, one of training only, and three broken entries.

    The first test question is asked in training too, about the same picture.
    """
    modality = {"question_type": "MODALITY", "answer_type": "OPEN", "question": "What type of imaging is this?"}
    train = [
        vqa_rad_entry(),
        vqa_rad_entry(qid=2, **modality, answer="MRI diffusion weighted"),
        vqa_rad_entry(qid=3, image_name="synpic2.jpg", image_organ="CHEST", question="Is there\ta mass?", answer="no "),
        vqa_rad_entry(qid=4, image_name="synpic3.jpg", image_organ="ABD", question_type="COUNT", answer=3),
        vqa_rad_entry(qid=5, image_name="synpic9.jpg"),
        vqa_rad_entry(qid=6, answer=" "),
        vqa_rad_entry(qid=7, image_name="../secret.jpg"),
    ]
    test = [
        vqa_rad_entry(qid=8),
        vqa_rad_entry(qid=9, image_name="synpic2.jpg", image_organ="CHEST", question_type="POS, PRES", answer="Right"),
    ]
    return train, test


def write_vqa_rad_json(folder: Path) -> None:
    """VQA-RAD in the two files that papers use."""
    for number in (1, 2, 3):
        write_bytes(folder / f"images/synpic{number}.jpg", picture(number, "JPEG"))
    for name, entries in zip(("trainset", "testset"), vqa_rad_entries(), strict=True):
        write_json(folder / f"{name}.json", entries)


def write_vqa_rad_public(folder: Path) -> None:
    """VQA-RAD in its authors' one file, whose phrase types tell the test."""
    for number in (1, 2, 3):
        write_bytes(folder / f"VQA_RAD Image Folder/synpic{number}.jpg", picture(number, "JPEG"))
    train, test = vqa_rad_entries()
    tested = [entry | {"phrase_type": f"test_{entry['phrase_type']}"} for entry in test]
    write_json(folder / "VQA_RAD Dataset Public.json", [*train, *tested])


def labelled_line(name: str, **changes: object) -> dict[str, object]:
    """A line of a list of labelled pictures, by default of breast ultrasound with one mass in the upper left."""
    return {
        "file": f"images/{name}.jpg",
        "source": "busi",
        "modality": "ultrasound",
        "license": "CC-BY-4.0",
        "group": f"busi/{name}",
        "split": "train",
        "width": 32,
        "height": 24,
        "anatomy": "breast",
        "finding": "benign mass",
        "boxes": [[0.1, 0.1, 0.3, 0.3]],
    } | changes


def labelled_lines() -> list[dict[str, object]]:
    """Breast ultrasound, fundus photographs, blood smears and a chest X-ray, in the layouts of their public sets."""
    lines = []
    for number in range(4):
        lines.append(labelled_line(f"benign_{number}"))
        lines.append(labelled_line(f"malignant_{number}", finding="malignant mass", boxes=[[0.6, 0.7, 0.9, 0.9]]))
        lines.append(labelled_line(f"normal_{number}", finding="no mass", boxes=[]))
        fundus = {"source": "idrid", "modality": "fundus photography", "anatomy": "retina", "boxes": None}
        grade = "no diabetic retinopathy" if number % 2 else "severe diabetic retinopathy"
        fundus |= {"finding": grade, "retinopathy_grade": 0 if number % 2 else 3, "macular_edema_risk": 2}
        lines.append(labelled_line(f"fundus_{number}", **fundus))
        cells = {"red_cells": 10 + number, "white_cells": 1, "platelets": 0}
        smear = {"source": "bccd", "modality": "microscopy", "license": "MIT", "anatomy": "blood smear", "finding": ""}
        lines.append(labelled_line(f"smear_{number}", **smear, **cells))
    film = {
        "source": "covid-chestxray",
        "modality": "X-ray",
        "anatomy": "chest",
        "finding": "No Finding",
        "boxes": None,
    }
    lines.append(labelled_line("film", **film, license="CC BY 3.0", view="AP Supine", split="test"))
    return lines


def write_labelled(folder: Path) -> None:
    """Lists of pictures, videos and volumes, with four broken lines."""
    lines = labelled_lines()
    for number, line in enumerate(lines):
        write_bytes(folder / str(line["file"]), picture(number, "JPEG"))
    broken = [
        labelled_line("missing", source="elsewhere"),
        labelled_line("benign_0", group="busi/other", modality="sonography"),
        labelled_line("benign_0", group="busi/other", boxes=[[0.5, 0.1, 0.3, 2]]),
        "{no JSON",
    ]
    write_lines(folder / "images.jsonl", [*lines, *broken])
    clips = []
    for number in range(2):
        write_video(folder / f"videos/clip_{number}.mp4", number)
        signs = {"b_lines": str(number), "a_lines": "0", "consolidations": "0", "effusion": "0"}
        clip = {"source": "pocus-lung", "anatomy": "lung", "finding": "COVID-19" if number else "regular"}
        clip |= {"file": f"videos/clip_{number}.mp4", "boxes": None}
        clips.append(labelled_line(f"clip_{number}", **signs, **clip))
    write_lines(folder / "videos.jsonl", clips)
    write_volume(folder / "volumes/ct.npy")
    volume = {"file": "volumes/ct.npy", "modality": "CT", "anatomy": "abdomen", "license": "CC-BY-3.0", "split": "test"}
    write_lines(folder / "volumes.jsonl", [volume])


def write_class_folders(folder: Path) -> None:
    """Plain class folders, whose names `about.yaml` explains."""
    for name in ("mel", "nv", "unused"):
        for number in range(12):
            write_bytes(folder / name / f"{number}.png", picture(number))
    words = """source: our-clinic
license: CC-BY-4.0
modality: dermoscopy
anatomy: skin
classes:
  mel: melanoma
  nv: {finding: normal skin}
"""
    (folder / "about.yaml").write_text(words, encoding="utf-8")


def write_photographs(folder: Path) -> None:
    """A list of photographs of clothing, one of them missing, one with a transparent ground."""
    buffer = io.BytesIO()
    Image.new("RGBA", (24, 32), (200, 10, 10, 90)).save(buffer, "PNG")
    write_bytes(folder / "images/hat.png", buffer.getvalue())
    write_bytes(folder / "images/shirt.jpg", picture(1, "JPEG"))
    line = {"source": "not-medical", "modality": "", "license": "CC0-1.0", "anatomy": "", "finding": ""}
    write_lines(
        folder / "not_medical.jsonl",
        [
            line | {"file": "images/hat.png", "group": "hat", "split": "train", "shows": "hat"},
            line | {"file": "images/shirt.jpg", "group": "shirt", "split": "test", "shows": "shirt"},
            line | {"file": "images/shoe.jpg", "group": "shoe", "split": "test", "shows": "shoes"},
        ],
    )


def write_slake_by_picture(folder: Path) -> None:
    """SLAKE with a picture that only training shows, one of the test, and one that Chinese questions show as well."""
    for number in (1, 2, 3):
        write_bytes(folder / f"imgs/xmlab{number}/source.jpg", picture(number, "JPEG"))
    tested = {"img_name": "xmlab2/source.jpg", "modality": "CT", "location": "Abdomen"}
    shown = {"img_name": "xmlab3/source.jpg", "modality": "X-Ray", "location": "Lung"}
    chinese = slake_entry(**tested, question="这是什么器官?", answer="肝脏", q_lang="zh", content_type="Organ")
    write_json(folder / "train.json", [slake_entry(), slake_entry(question="Is it axial?", answer="Yes"), chinese])
    write_json(folder / "validate.json", [slake_entry(**shown)])
    write_json(folder / "test.json", [slake_entry(**tested), slake_entry(**shown, question="肺?", q_lang="zh")])


def write_nothing(folder: Path) -> None:
    """For a source that draws its pictures itself."""


WRITERS = {
    "vqa-rad": write_vqa_rad,
    "path-vqa": write_path_vqa,
    "slake": write_slake,
    "pmc-vqa": write_pmc_vqa,
    "mimic-cxr": write_mimic_cxr,
    "m3d-cap": write_m3d_cap,
    "m3d-vqa-closed": write_m3d_vqa,
    "m3d-vqa-open": write_m3d_vqa,
    "m3d-positioning": write_m3d_seg,
    "image-text-matching": write_m3d_cap,
    "image-text-matching-mimic-cxr": write_mimic_cxr,
    "image-text-matching-video-folder": write_video_folder,
    "video-folder": write_video_folder,
    "videollama3": write_videollama3,
    "labelled-pictures": write_labelled,
    "unanswerable-labelled-pictures": write_labelled,
    "unanswerable-slake": write_slake_by_picture,
    "unanswerable-vqa-rad": write_vqa_rad_json,
    "photographs": write_photographs,
    "drawn-pictures": write_nothing,
    **BENCHMARK_WRITERS,
}
"""Adapter -> what writes a folder that it reads."""
