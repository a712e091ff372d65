# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""A batch run: its tables, its privacy, and that neither a kill nor a file that hangs costs more than it must."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from PIL import Image

from clinic.batch import ANSWERS, locked, main
from clinic.engines import Settings, answered_here, groups_left
from clinic.model import LocalModel, batches
from hub_model.isolated_reading_omniv_med import IsolatedReader
from tests.helpers.batch_runs import QUESTIONS, arguments, few_tasks, rows_in, without_seconds
from tests.helpers.paths import ROOT
from tests.helpers.study_files import BIRTH_DATE, UIDS
from tests.helpers.waiting import PATIENCE

pytestmark = pytest.mark.usefixtures("one_thread", "in_float32")


@pytest.fixture(scope="module")
def whole(studies: Path, questions: Path, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing stopped."""
    out = tmp_path_factory.mktemp("whole")
    assert main(arguments(studies, questions, out, tiny)) == 0
    return out


def test_every_series_gets_a_row_for_each_question_about_it(whole: Path) -> None:
    rows = rows_in(whole)
    asked: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        asked.setdefault((row["series"] or row["path"], row["part"]), []).append(row["question"])
    every, of_ct = ["modality", "lesion"], ["modality", "lesion", "bone"]
    assert asked == {
        **{(uid, "16x20"): of_ct for uid in (UIDS.thin, UIDS.thick, UIDS.arms, UIDS.legs)},
        **{(UIDS.loops, f"{UIDS.loops}.{number}"): every for number in range(2)},
        **{(name, ""): every for name in ("head.nii.gz", "picture.png", "film.mp4")},
        ("damaged.png", ""): ["modality,lesion"],
    }
    assert {row["frames"] for row in rows if row["series"] == UIDS.thin} == {4}
    windows = {row["question"]: row["notes"] for row in rows if row["series"] == UIDS.thin}
    assert any("bone" in note for note in windows["bone"]) and not any("bone" in note for note in windows["lesion"])


def test_a_row_says_what_was_answered_and_by_what(whole: Path) -> None:
    for row in rows_in(whole):
        assert len(row["model"]) == 64 and len(row["code"]) == 16 and row["seconds"] >= 0
        if "error" not in row:
            assert 0 <= row["confidence"] <= 1 and row["declined"] is False and row["likeliest"] == row["answer"]
            assert 0 < row["tokens_kept"] <= row["tokens_total"]
            assert row["value"] in ((row["answer"],) if row["question"] != "lesion" else ("yes", "no", None))


def test_a_file_that_cannot_be_read_costs_one_row_with_its_sentence(whole: Path) -> None:
    (failed,) = (row for row in rows_in(whole) if "error" in row)
    assert failed["path"] == "damaged.png" and failed["error"].startswith("damaged.png ")


def test_the_table_holds_the_same_rows(whole: Path) -> None:
    table = pyarrow.parquet.read_table(whole / "answers.parquet").to_pylist()
    assert [{name: value for name, value in row.items() if value is not None} for row in table] == [
        {name: value for name, value in row.items() if value is not None} for row in rows_in(whole)
    ]


def test_every_study_has_a_file(whole: Path) -> None:
    records = {path.name: json.loads(path.read_text(encoding="utf-8")) for path in (whole / "studies").iterdir()}
    assert len(records) == 7 and {f"{uid}.json" for uid in (UIDS.head, UIDS.heart, UIDS.packed)} <= records.keys()
    head = records[f"{UIDS.head}.json"]
    assert [one["series"] for one in head["series"]] == [UIDS.thin, UIDS.thick]
    assert [answer["question"] for answer in head["series"][0]["answers"]] == ["modality", "lesion", "bone"]


def test_the_report_counts_and_names_what_failed(whole: Path) -> None:
    page = (whole / "report.html").read_text(encoding="utf-8")
    assert "22, of which 0 decline" in page and "damaged.png" in page and "no medical device" in page
    assert "DICOM without pixels" in page


def test_the_report_shows_what_the_model_saw_on_request_alone(
    whole: Path, studies: Path, questions: Path, tiny: Path, tmp_path: Path
) -> None:
    assert "<img" not in (whole / "report.html").read_text(encoding="utf-8")
    few, out = tmp_path / "studies", tmp_path / "out"
    few.mkdir()
    for name in ("head.nii.gz", "picture.png", "damaged.png"):
        shutil.copy(studies / name, few / name)
    assert main([*arguments(few, questions, out, tiny), "--thumbnails"]) == 0
    shown = re.findall(r'<img src="thumbnails/(\w+\.jpg)"', (out / "report.html").read_text(encoding="utf-8"))
    assert len(shown) == 2 and sorted(shown) == sorted(path.name for path in (out / "thumbnails").iterdir())
    volume, picture = (Image.open(out / "thumbnails" / name).size for name in shown)
    assert volume[1] == picture[1] == 112 and volume[0] > picture[0], "frames of a volume lie side by side"


def test_a_finished_run_answers_nothing_again(whole: Path, studies: Path, questions: Path, tiny: Path) -> None:
    before = (whole / ANSWERS).read_bytes()
    assert main(arguments(studies, questions, whole, tiny)) == 0
    assert (whole / ANSWERS).read_bytes() == before


def assert_same_rows(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    """The same rows in the same order; in confidences, the last digits depend on what is computed together."""
    confidences = [[row.pop("confidence", 0.0) for row in rows] for rows in (found, expected)]
    assert found == expected
    assert confidences[0] == pytest.approx(confidences[1], abs=1e-5)


def test_a_killed_run_goes_on_and_ends_with_the_same_rows(
    whole: Path, studies: Path, questions: Path, tiny: Path, tmp_path: Path
) -> None:
    command = arguments(studies, questions, tmp_path, tiny)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.helpers.batch_process", "16", "7", "float32", *command],
        cwd=ROOT,
        env=environment,
        capture_output=True,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert b"LEAKED" not in done.stdout + done.stderr
    assert len(rows_in(tmp_path)) == 7 and not (tmp_path / "answers.parquet").exists()
    assert main(command) == 0
    assert_same_rows(without_seconds(rows_in(tmp_path)), without_seconds(rows_in(whole)))
    assert {path.name for path in (tmp_path / "studies").iterdir()} == {
        path.name for path in (whole / "studies").iterdir()
    }


class HangingReader(IsolatedReader):
    """A reader whose process is stopped in the middle of the film, which alone has little time."""

    def load_clip(self, source, **options):
        (worker,) = self._workers
        worker._time_limit = PATIENCE
        if str(source).endswith("film.mp4"):
            worker._time_limit = 1.0
            options["progress"] = lambda done, total: os.kill(worker._process.pid, signal.SIGSTOP)
        return super().load_clip(source, **options)


@pytest.mark.skipif(sys.platform != "linux", reason="a stopped process is killed on Linux alone")
def test_a_file_that_hangs_costs_one_row(studies: Path, questions: Path, tiny: Path, tmp_path: Path) -> None:
    tasks = few_tasks(studies, questions, tmp_path, "film.mp4", "head.nii.gz", "picture.png")
    with HangingReader(processes=1) as reader:
        answered = answered_here([tasks], LocalModel(str(tiny)), reader, Settings(4, readers=1))
        rows = [(row["path"], row.get("error", "")) for _, held in answered for row in held]
    assert [path for path, _ in rows] == ["film.mp4", *["head.nii.gz"] * 2, *["picture.png"] * 2]
    assert [error for _, error in rows[1:]] == [""] * 4
    assert rows[0][1].startswith("The file takes longer than 1 s to read")


def test_a_group_has_the_rows_that_its_series_have_one_by_one(
    studies: Path, questions: Path, tiny: Path, tmp_path: Path
) -> None:
    tasks = few_tasks(studies, questions, tmp_path, "film.mp4", "head.nii.gz", "damaged.png", "picture.png")
    model, work = LocalModel(str(tiny)), Settings(4)
    with work.reader() as reader:
        together = [row for _, rows in answered_here([tasks], model, reader, work) for row in rows]
        alone = [row for _, rows in answered_here([[one] for one in tasks], model, reader, work) for row in rows]
    assert_same_rows(without_seconds(together), without_seconds(alone))
    assert len(together) == 7


def test_a_group_is_asked_again_whole_but_for_what_failed(
    studies: Path, questions: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr("clinic.engines.GROUP", 2)
    tasks = few_tasks(studies, questions, tmp_path, "film.mp4", "head.nii.gz", "damaged.png", "picture.png")
    first, second = tasks[:2], tasks[2:]
    assert groups_left(tasks, []) == [first, second]
    assert groups_left(tasks, [*first[0].row_ids, *second[0].row_ids, *second[1].row_ids]) == [first]
    assert groups_left(tasks, [first[0].failed_row_id, second[0].row_ids[0]]) == [[first[1]], second]


def test_prompts_of_similar_length_share_a_batch_that_is_not_too_large(monkeypatch) -> None:
    monkeypatch.setattr("clinic.model.BATCH_TOKENS", 600)
    lengths = {0: 20, 1: 100, 2: 90, 4: 100, 5: 19, 6: 300}  # what 3 asks is too long for the model
    assert batches(lengths, [1, 2, 2, 1, 2, 1, 3]) == [[6], [1, 4, 2], [0, 5]]


def test_what_failed_is_asked_again_on_request_alone(
    questions: Path, studies: Path, tiny: Path, tmp_path: Path
) -> None:
    few = tmp_path / "studies"
    few.mkdir()
    for name in ("damaged.png", "picture.png"):
        shutil.copy(studies / name, few / name)
    command = arguments(few, questions, tmp_path / "out", tiny)
    assert main(command) == 0
    shutil.copy(studies / "picture.png", few / "damaged.png")
    assert main(command) == 0
    assert [row["path"] for row in rows_in(tmp_path / "out") if "error" in row] == ["damaged.png"]
    answered = {row["id"]: row for row in rows_in(tmp_path / "out") if row["path"] == "picture.png"}
    assert main([*command, "--retry"]) == 0
    rows = {row["id"]: row for row in rows_in(tmp_path / "out")}
    assert len(rows) == 4 and not [row for row in rows.values() if "error" in row]
    assert answered.items() <= rows.items(), "what was answered stays as it is"
    table = pyarrow.parquet.read_table(tmp_path / "out/answers.parquet").to_pylist()
    assert [row["path"] for row in table] == ["damaged.png"] * 2 + ["picture.png"] * 2, "in the order of the studies"


HOLDING = """
import sys
from pathlib import Path
from clinic.batch import locked
with locked(Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.read()
"""


def keeps_locks(folder: Path) -> bool:
    """Whether the file system locks at all: some of networks and sandboxes grant every lock."""
    with open(folder / "one", "w") as one, open(folder / "one") as two:
        fcntl.flock(one, fcntl.LOCK_EX)
        try:
            fcntl.flock(two, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_two_runs_do_not_write_to_one_folder(
    questions: Path, studies: Path, tiny: Path, tmp_path: Path, capsys
) -> None:
    if not keeps_locks(tmp_path):
        pytest.skip("the file system of temporary files has no locks")
    command = [sys.executable, "-c", HOLDING, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "locked\n"
        assert main(arguments(studies, questions, tmp_path, tiny)) == 2
        assert "Another run writes to" in capsys.readouterr().err
        assert not (tmp_path / ANSWERS).exists()
        other.kill()
    with locked(tmp_path):
        """Nobody holds it any more: the lock ends with its process, however that ends."""


def test_nothing_of_a_patient_is_in_any_output(whole: Path, studies: Path, questions: Path, capsys) -> None:
    assert main([str(studies), "--questions", str(questions), "--list"]) == 0
    listed = capsys.readouterr()
    told = [repr(pyarrow.parquet.read_table(whole / "answers.parquet").to_pylist())]
    for path in whole.rglob("*"):
        told += [path.name, path.read_bytes().decode("latin-1") if path.is_file() else ""]
    for text in ("\n".join(told), listed.out.replace(str(studies), ""), listed.err):
        assert "leaked" not in text.lower() and BIRTH_DATE not in text


def test_a_patients_number_is_kept_where_it_is_asked_for(
    studies: Path, questions: Path, tiny: Path, tmp_path: Path
) -> None:
    only = tmp_path / "studies" / "loop"
    only.parent.mkdir()
    shutil.copy(studies / "LEAKED/loop0", only)
    out = tmp_path / "out"
    assert main(arguments(only.parent, questions, out, tiny, "--keep-ids")) == 0
    assert {row["patient_id"] for row in rows_in(out)} == {"LEAKED-4711"}
    told = "".join(path.read_text(encoding="utf-8") for path in [out / ANSWERS, *(out / "studies").iterdir()])
    assert "LEAKED" not in told.replace("LEAKED-4711", "")
    assert "patient_id" in pyarrow.parquet.read_schema(out / "answers.parquet").names


def test_a_listing_says_what_would_be_asked_and_what_not(studies: Path, questions: Path, capsys) -> None:
    only_ct = questions.with_name("ct.yaml")
    only_ct.write_text('questions: [{id: bone, ask: "Is there a fracture?", modality: CT}]', encoding="utf-8")
    assert main([str(studies), "--questions", str(only_ct), "--list"]) == 0
    said = capsys.readouterr().out
    assert f"{UIDS.head}\n  {UIDS.thin} 16x20: CT, files: 4, asked: bone\n" in said
    assert "4 series of 2 studies; 11 passed over:\n  6 × no question is about it: " in said


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("max_new_tokens: 5", "was begun with questions '"),
        ("max_new_tokens: 4\nreading: {plane: oblique}", "line 2: reading: plane must be one of axial"),
        ("max_new_tokens: 4\nconfidence: 1", "line 2: confidence: not known here"),
    ],
)
def test_what_a_user_can_mend_is_told_in_one_sentence(
    whole: Path, studies: Path, questions: Path, tiny: Path, tmp_path: Path, capsys, change: str, message: str
) -> None:
    other = tmp_path / "questions.yaml"
    other.write_text(change + "\n" + QUESTIONS[QUESTIONS.index("questions:") :], encoding="utf-8")
    assert main(arguments(studies, other, whole, tiny)) == 2
    (line,) = (one for one in capsys.readouterr().err.splitlines() if one.startswith("clinic.batch: "))
    assert message in line


def test_a_threshold_needs_a_calibrated_model(studies: Path, tiny: Path, tmp_path: Path, capsys) -> None:
    path = tmp_path / "questions.yaml"
    path.write_text('questions: [{id: q, ask: "What is it?", confidence: 0.5}]', encoding="utf-8")
    assert main(arguments(studies, path, tmp_path / "out", tiny)) == 2
    assert "leave `confidence` out" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_results_among_the_studies_are_refused(studies: Path, questions: Path, tiny: Path, capsys) -> None:
    with pytest.raises(SystemExit):
        main(arguments(studies, questions, studies / "out", tiny))
    assert "--out lies in STUDIES" in capsys.readouterr().err
