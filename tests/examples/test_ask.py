# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Tests of the command `python -m examples.ask` on the assembled model; no answer's words are assumed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pydicom
import pytest
from matplotlib.colors import Normalize
from PIL import Image
from pydicom.data import get_testdata_file

from examples.ask import main
from hub_model.pruning_heatmap_omniv_med import dim_removed, position_label, spread_over_pixels
from tests.helpers.paths import ROOT
from tests.helpers.waiting import PATIENCE

MEDIA = ROOT / "examples" / "media"
QUESTION = "Which imaging modality is this?"
FIELDS = [
    "answer",
    "confidence",
    "declined",
    "likeliest",
    "kind",
    "frames",
    "source_frames",
    "tokens_before",
    "tokens_after",
    "reduction_percent",
    "worst_error",
    "threshold",
    "seconds_to_first_token",
    "notes",
]


def ask(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Runs the command as a user does, from the root of the repository."""
    command = [sys.executable, "-m", "examples.ask", *map(str, arguments)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=PATIENCE)


@pytest.mark.parametrize("length", [10, 2**20], ids=["short", "longer than a pipe holds"])
def test_who_stops_reading_sees_no_traceback(length) -> None:
    """As `python -m examples.ask … | head -0` does; a short output is only written when the program flushes it."""
    program = f"import sys; import examples.ask as ask; ask.run = lambda given: print('x' * {length}); "
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    process = subprocess.Popen(
        [sys.executable, "-c", program + "input(); sys.exit(ask.main())"],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    process.stdout.close()
    process.stdin.write("\n")  # only now does it write
    process.stdin.close()
    assert process.stderr.read() == ""
    assert process.wait() == 1


def assert_one_line(code: int, output: str, errors: str) -> str:
    """Exit code 2, nothing on stdout, one line on stderr; returns it."""
    assert code == 2
    assert output == ""
    assert errors.startswith("ask: ") and errors.endswith("\n") and errors.count("\n") == 1, errors
    assert "Traceback" not in errors
    return errors


@pytest.fixture(scope="module")
def answered(tmp_path_factory: pytest.TempPathFactory) -> tuple[subprocess.CompletedProcess[str], Path]:
    """One run on the sample CT, with JSON and a heatmap; both are looked at below."""
    picture = tmp_path_factory.mktemp("ask") / "heatmap.png"
    options = ["--json", "--heatmap", picture, "--max-new-tokens", "3"]
    return ask(MEDIA / "ct_volume.nii.gz", QUESTION, *options), picture


def test_json_is_one_object_with_the_stable_names(answered):
    process, _ = answered
    assert process.returncode == 0, process.stderr
    fields = json.loads(process.stdout)
    assert list(fields) == FIELDS
    assert fields["kind"] == "volume"
    assert fields["frames"] == fields["source_frames"] == 14
    assert 0 < fields["tokens_after"] < fields["tokens_before"]
    saved = 100 * (1 - fields["tokens_after"] / fields["tokens_before"])
    assert fields["reduction_percent"] == pytest.approx(saved, abs=0.01)
    assert 0 <= fields["worst_error"] <= fields["threshold"]
    assert fields["seconds_to_first_token"] > 0
    assert isinstance(fields["answer"], str)
    assert 0 <= fields["confidence"] <= 1
    assert fields["declined"] is (fields["likeliest"] != fields["answer"])
    assert any("CT windows" in note for note in fields["notes"])


def test_libraries_are_silent(answered):
    process, _ = answered
    assert process.stderr == ""


def test_heatmap_is_a_picture(answered):
    _, path = answered
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        assert picture.width > 900 and picture.height > 400
        assert np.asarray(picture.convert("L")).std() > 20
    assert path.stat().st_size > 20_000


def test_only_removed_tokens_are_dimmed(processor, film):
    processed = processor.process_clip(processor.load(film(frames=4)))
    shown = processed.shown_frames()
    dimmed = dim_removed(processed, Normalize(0, 0.1))
    removed = spread_over_pixels(~processed.pruned.keep_mask.numpy(), processed.grid, *shown.shape[1:3])
    assert 0 < removed.mean() < 1
    assert (dimmed[~removed] == shown[~removed]).all()
    assert dimmed[removed].mean() < 0.8 * shown[removed].mean()


def test_slices_are_numbered_where_millimetres_are_unknown(processor):
    assert position_label(processor.load(np.zeros((3, 16, 16), dtype=np.uint8)), 1) == "slice 2, "
    assert position_label(processor.load(np.zeros((3, 16, 16), dtype=np.uint8), spacing=(2, 1, 1)), 1) == "2.0 mm, "
    assert position_label(processor.load(np.zeros((16, 16), dtype=np.uint8)), 0) == ""


def test_a_question_without_a_medium_is_answered_in_lines(capfd):
    assert main(["none", "What is computed tomography used for?", "--max-new-tokens", "2"]) == 0
    output, errors = capfd.readouterr()
    assert errors == ""
    assert "first token: " in output and "not loading the model" in output
    assert "tokens:" not in output


@pytest.mark.parametrize(
    "arguments, hint",
    [
        (["no_such_scan.nii.gz", QUESTION], "does not exist"),
        (["none"], "question"),
        (["none", " "], "question is empty"),
        (["none", QUESTION, "--sharpen"], "--sharpen"),
        (["none", QUESTION, "--max-new-tokens", "0"], "--max-new-tokens"),
        (["none", QUESTION, "--max-new-tokens", "many"], "--max-new-tokens"),
        (["none", QUESTION, "--heatmap", "map.png"], "needs a file"),
        (["examples/media/xray.png", QUESTION, "--heatmap", "map.jpg"], ".png"),
        (["examples/media/xray.png", QUESTION, "--heatmap", "no_such_folder/map.png"], "folder that exists"),
        (["none", QUESTION, "--model", "examples/media"], "no model weights"),
    ],
)
def test_wrong_arguments_are_told_in_one_line(arguments, hint, capfd, monkeypatch):
    monkeypatch.chdir(ROOT)
    code = main(arguments)
    assert hint in assert_one_line(code, *capfd.readouterr())


def write_text(path: Path) -> None:
    path.write_text("This is no NIfTI file.\n" * 40, encoding="utf-8")


def write_half_a_dicom(path: Path) -> None:
    data = Path(get_testdata_file("CT_small.dcm", download=False)).read_bytes()
    path.write_bytes(data[: len(data) // 2])


def write_dicom_header_only(path: Path) -> None:
    dataset = pydicom.dcmread(get_testdata_file("CT_small.dcm", download=False))
    del dataset.PixelData
    dataset.save_as(path)


def write_empty_zip(path: Path) -> None:
    zipfile.ZipFile(path, "w").close()


def write_nothing(path: Path) -> None:
    path.touch()


@pytest.mark.parametrize(
    "name, write",
    [
        ("scan.nii", write_text),
        ("cut_short.dcm", write_half_a_dicom),
        ("header.dcm", write_dicom_header_only),
        ("empty.zip", write_empty_zip),
        ("nothing.mp4", write_nothing),
    ],
)
def test_unreadable_media_are_told_in_one_line(name, write, tmp_path, capfd):
    write(tmp_path / name)
    code = main([str(tmp_path / name), QUESTION, "--json"])
    line = assert_one_line(code, *capfd.readouterr())
    assert name in line
    assert str(tmp_path) not in line


def test_wrong_media_end_the_process_with_code_2(tmp_path):
    write_text(tmp_path / "scan.nii")
    process = ask(tmp_path / "scan.nii", QUESTION)
    assert_one_line(process.returncode, process.stdout, process.stderr)


def test_a_model_that_is_nowhere_is_told_in_one_line(tmp_path, capfd):
    code = main(["none", QUESTION, "--model", str(tmp_path / "missing")])
    assert "cannot be loaded" in assert_one_line(code, *capfd.readouterr())


def test_help_explains_how_to_ask_without_a_file(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    assert "none" in capsys.readouterr().out
