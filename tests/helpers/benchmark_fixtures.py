# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Writes tiny copies of benchmarks in their own formats: good rows, and one of each kind of broken row."""

from __future__ import annotations

import gzip
import io
from pathlib import Path

import nibabel
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from tests.helpers.data_files import picture, write_bytes, write_json, write_lines, write_table, write_volume

RAD_3D_COLUMNS = ["Task", "Subtask", "VolumeName", "Question", "Answer", "QuestionType", "AnswerChoice"]
RAD_3D_COLUMNS += [f"Choice {letter}" for letter in "ABCD"]
HISTORY = ["refractory", "resolved", "new", "never present"]


def rad_3d_row(
    task: int, question: str, answer: str, kind: str = "Open", letter: str = "-", *choices: str
) -> list[str]:
    """A row of 3D-RAD; cells that are not used hold a dash."""
    return [str(task), str(task), "test_7_a_1.nii.gz", question, answer, kind, letter, *(choices or ["-"] * 4)]


def write_3d_rad(folder: Path) -> None:
    """A row of every task, training with one, and four broken rows."""
    write_volume(folder / "volumes/test_7_a_1.npy")
    write_volume(folder / "volumes/train_1_a_1.npy")
    # As its authors' machine had the paths: their end decides.
    write_table(
        folder / "valid_path.csv",
        ["VolumeName", "Path"],
        [
            ["test_7_a_1.nii.gz", "/home/authors/3DRAD/volumes/test_7_a_1.npy"],
            ["test_9_a_1.nii.gz", "/home/authors/3DRAD/volumes/test_9_a_1.npy"],
        ],
    )
    write_table(folder / "train_path.csv", ["VolumeName", "Path"], [["train_1_a_1.nii.gz", "volumes/train_1_a_1.npy"]])
    yes_or_no = ("Yes", "No", "-", "-")
    no = rad_3d_row(4, "Is cardiomegaly seen?", "No", "Close", "B", *yes_or_no)
    files = {
        "Task1_Image_Observation/Anatomical_observation": [rad_3d_row(1, "Which organ is enlarged?", "Heart")],
        "Task2_Anomaly_Detection/Abnormality_position": [rad_3d_row(2, "Where is the nodule?", "Right upper lobe")],
        "Task3_Medical_Computation/Size": [rad_3d_row(3, "How large is the nodule?", "30x13 mm")],
        "Task4_Existence_Detection/Cardiomegaly": [
            no,
            [*no[:2], "test_8_a_1.nii.gz", *no[3:]],
            [*no[:2], "test_9_a_1.nii.gz", *no[3:]],
            rad_3d_row(4, "Is cardiomegaly seen?", "Perhaps", "Close", "B", *yes_or_no),
            rad_3d_row(4, "Is cardiomegaly seen?", "No", "Closed", "B", *yes_or_no),
        ],
        "Task5_Static_Temporal_Diagnosis/b": [rad_3d_row(5, "Which state?", "new", "Close", "C", *HISTORY)],
        "Task6_Longitudinal_Temporal_Diagnosis/b": [
            rad_3d_row(6, "It was [0, 1] before. Which state?", "resolved", "Close", "B", *HISTORY)
        ],
    }
    for name, rows in files.items():
        write_table(folder / f"test/{name}.csv", RAD_3D_COLUMNS, rows)
    seen = [*no[:2], "train_1_a_1.nii.gz", *no[3:]]
    write_table(folder / "train/Task4_Existence_Detection/Cardiomegaly.csv", RAD_3D_COLUMNS, [seen])


def medvidbench_entry(question: str, kind: str, frames: list[str], **change: object) -> dict[str, object]:
    """An entry of MedVidBench's test."""
    metadata = {"fps": "1.0", "video_id": "v1", "input_video_start_frame": "0", "input_video_end_frame": "60"}
    return {
        "conversations": [{"from": "human", "value": f"<video>\n{question}"}],
        "video": frames,
        "metadata": metadata,
        "qa_type": kind,
        "data_source": "AVOS",
        "is_RC": False,
        "RC_info": {},
        **change,
    }


def grey_frame(level: int, size: tuple[int, int] = (65, 48)) -> bytes:
    """One frame of a film, all of one grey; its width is odd."""
    buffer = io.BytesIO()
    Image.new("RGB", size, (level, level, level)).save(buffer, "PNG")
    return buffer.getvalue()


def write_medvidbench(folder: Path) -> None:
    """Three questions about films of three frames, one of a region and one with its answer, and five broken entries."""
    frames = [f"/root/data/AVOS/v1/{number}.png" for number in range(3)]
    for number in range(3):
        write_bytes(folder / f"testdata/AVOS/v1/{number}.png", grey_frame(60 * number))
    write_bytes(folder / "testdata/AVOS/v1/damaged.png", b"\x89PNG")
    region = {"start_frame": frames[1], "start_frame_bbox": [10, 12, 50, 40]}
    answered = [{"from": "human", "value": "<video>\nHow skilled?"}, {"from": "gpt", "value": "Flow: 2/5"}]
    write_json(
        folder / "cleaned_test_data_11_04.json",
        [
            medvidbench_entry("When is cutting?", "tal", frames),
            medvidbench_entry("What happens there?", "region_caption_gpt", frames, is_RC=True, RC_info=region),
            medvidbench_entry(
                "",
                "skill_assessment",
                frames[:1],
                conversations=answered,
                metadata={"fps": "0.5", "video_id": "v2", "start_frame": "3", "end_frame": "9"},
                data_source="Cholec80_CVS",
            ),
            medvidbench_entry("When?", "tal", [*frames, "/root/data/AVOS/v1/9.png"]),
            medvidbench_entry("When?", "tal", ["testdata/../../secret.png"]),
            medvidbench_entry("When?", "tal", ["/root/data/AVOS/v1/damaged.png"]),
            medvidbench_entry("When?", "taste", frames),
            medvidbench_entry("When?", "tal", frames, metadata={"fps": "often"}),
        ],
    )


def write_medxpertqa(folder: Path) -> None:
    """A question of each split, one of them about two pictures, and three broken ones."""
    names = ["MM-1-a.jpeg", "MM-1-b.jpeg"]
    for seed, name in enumerate(names):
        write_bytes(folder / "images" / name, picture(seed, "JPEG"))
    options = dict(zip("ABCDE", ["S. aureus", "E. coli", "C. difficile", "B. fragilis", "none"], strict=True))
    entry = {
        "id": "MM-1",
        "question": "Which germ does the X-ray suggest?\nAnswer Choices: (A) S. aureus (B) E. coli (C) C. difficile",
        "options": options,
        "label": "B",
        "images": names,
        "medical_task": "Diagnosis",
        "body_system": "Digestive",
        "question_type": "Reasoning",
    }
    broken = [entry | {"label": "F"}, entry | {"images": ["MM-9.jpeg"]}, entry | {"options": {"A": "one"}}]
    write_lines(folder / "MM/test.jsonl", [entry, *broken])
    write_lines(folder / "MM/dev.jsonl", [entry | {"images": names[:1], "medical_task": "Basic Medicine"}])


def write_medframeqa(folder: Path) -> None:
    """Answers as a letter, as words and as both, two and three pictures, and two broken rows."""
    cell = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    options = ["effusion", "fracture", "a normal chest"]
    rows = [
        ("What do the frames show?", options, "B", "X-ray", [1, 2]),
        ("What do the frames show?", options, "effusion", "CT", [3, 4, 5]),
        ("What do the frames show?", ["A. effusion", "B. fracture", "C. a normal chest"], "C", "CT", [1, 3]),
        ("What do the frames show?", options, "a cyst", "CT", [1, 2]),
        ("What do the frames show?", options, "A", "CT", []),
    ]
    pictures = {
        f"image_{place + 1}": pa.array(
            [{"bytes": picture(seeds[place]), "path": None} if place < len(seeds) else None for *_, seeds in rows], cell
        )
        for place in range(5)
    }
    table = pa.table(
        {
            "question_id": pa.array([f"q{number}" for number in range(len(rows))]),
            "question": pa.array([row[0] for row in rows]),
            "options": pa.array([row[1] for row in rows], pa.list_(pa.string())),
            "correct_answer": pa.array([row[2] for row in rows]),
            "modality": pa.array([row[3] for row in rows]),
            **pictures,
        }
    )
    path = folder / "data/test-00000-of-00001.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=2)


def write_omnimedvqa(folder: Path) -> None:
    """Two, three and four choices, two of which say the same, and two broken entries."""
    write_bytes(folder / "Images/S/a.png", picture(1))
    entry = {
        "dataset": "S",
        "question_id": "S_0001",
        "question_type": "Modality Recognition",
        "question": "Which imaging technique was used?",
        "gt_answer": "MR",
        "image_path": "Images/S/a.png",
        "option_A": "CT",
        "option_B": "MR",
        "modality_type": "MR (Mag-netic Resonance Imaging)",
    }
    other = {"question_type": "Other Biological Attributes", "modality_type": "Microscopy Images"}
    write_json(
        folder / "QA_information/Open-access/S.json",
        [
            entry,
            entry | {"option_C": "PET", "question_type": "Lesion Grading"},
            entry | other | {"option_C": "MR", "option_D": "PET"},
            entry | {"gt_answer": "PET"},
            entry | {"image_path": "Images/S/b.png"},
        ],
    )
    write_json(folder / "QA_information/Restricted-access/R.json", [entry | {"image_path": "Images/R/a.png"}])


def write_deeptumorvqa(folder: Path) -> None:
    """A question of measurement, one of another type, and three broken ones."""
    volume = nibabel.Nifti1Image(np.random.default_rng(0).integers(-1000, 400, (16, 16, 4), dtype=np.int16), np.eye(4))
    write_bytes(folder / "benchmark/ct/BDMAP_00000001/ct.nii.gz", gzip.compress(volume.to_bytes()))
    entry = {
        "qid": "bench_1",
        "image_id": "BDMAP_00000001",
        "spacing": "[0.8 0.8 5.0]",
        "shape": "(512, 512, 90)",
        "sex": None,
        "age": None,
        "question": "What is the volume of the spleen?",
        "answer": "210 cm3",
        "mc_question": "What is the volume of the spleen? A: 210 cm3 B: 90 cm3 C: 400 cm3 D: 600 cm3",
        "correct_option": "A",
        "organ": "spleen",
        "lesion": False,
        "question_type": "measurement",
        "question_subtype": "organ volume measurement",
        "requires_tools": ["measure"],
    }
    seen = {
        "question": "Is there a cyst?",
        "answer": "No",
        "mc_question": "Is there a cyst?\nA: Yes\nB: No\nC: Both\nD: Neither",
        "correct_option": "B",
        "question_type": "recognition",
    }
    write_json(
        folder / "benchmark/test_qa.json",
        {
            "questions": [
                entry,
                entry | seen,
                entry | {"image_id": "BDMAP_00000002"},
                entry | {"mc_question": "What is the volume of the spleen?"},
                entry | {"question_type": "taste"},
            ]
        },
    )


BENCHMARK_WRITERS = {
    "3d-rad": write_3d_rad,
    "medvidbench": write_medvidbench,
    "medxpertqa-mm": write_medxpertqa,
    "medframeqa": write_medframeqa,
    "omnimedvqa": write_omnimedvqa,
    "deeptumorvqa": write_deeptumorvqa,
    "deeptumorvqa-free": write_deeptumorvqa,
}
"""Adapter -> what writes a folder that it reads."""
