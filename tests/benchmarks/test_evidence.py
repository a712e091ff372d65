# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The benchmark of evidence: where findings lie, what counts as chance, and what the page's button hangs on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import evidence
from demo.service.measured import read_measured

pytestmark = pytest.mark.usefixtures("one_thread")


def row(group: int, strongest: int, hits: tuple[float, ...] = (0, 0.5, 0, 0), frame: int = 0) -> dict:
    """A clip of four regions in a row, of which the second holds the finding."""
    centres = [[0.5, 0.5, (place + 0.5) / 4] for place in range(4)]
    named = {"id": str(group), "group": str(group), "kind": "ultrasound"}
    return {**named, "shares": list(hits), "centres": centres, "strongest": strongest, "frames": [True], "frame": frame}


def test_the_place_of_a_finding_is_read_on_the_grid_of_tokens():
    boxes = ((0.0, 0.0, 0.5, 0.5), (0.5, 0.5, 0.75, 1.0))
    place = evidence._box_place(boxes)
    assert place((2, 2)) == pytest.approx(np.array([[[1, 0], [0, 0.5]]]))
    assert place((4, 2))[0, :, 0] == pytest.approx([1, 1, 0, 0])
    lesions = np.zeros((2, 16, 16), np.uint8)
    lesions[1, :8] = 255
    assert evidence._lesion_place(lesions)((4, 4)).sum(axis=(1, 2)) == pytest.approx([0, 8])


def test_chance_is_any_region_and_the_place_of_another_picture():
    always = evidence.figures([row(number, 1) for number in range(8)])
    assert always["count"] == 8 and "frame" not in always
    overlap = always["overlap"]
    assert (overlap["value"], overlap["chance"], overlap["elsewhere"]) == (1, 0.25, 1)
    assert overlap["gain_over_chance"][0] > 0 and overlap["gain_over_elsewhere"] == [0, 0]
    # Findings at different places, and evidence that follows them: no place does for all.
    moving = [row(place, place, tuple(float(place == other) for other in range(4))) for place in range(4)]
    assert evidence.figures(moving)["overlap"]["elsewhere"] == 0


def test_the_button_hangs_on_both_chances_of_both_sets_and_on_enough_clips():
    def found(count: int, chance: float = 0.1, elsewhere: float = 0.1) -> dict:
        gains = {"gain_over_chance": [chance, 0.5], "gain_over_elsewhere": [elsewhere, 0.5]}
        return {"count": count, "overlap": gains}

    names = evidence.DECISIVE
    assert evidence.shows_findings({name: found(100) for name in names}) == ["image"]
    assert not evidence.shows_findings({name: found(99) for name in names}), "too few"
    assert not evidence.shows_findings({names[0]: found(500)}), "one set alone"
    assert not evidence.shows_findings({names[0]: found(300), names[1]: found(300, elsewhere=-0.01)})
    assert not evidence.shows_findings({names[0]: found(300), names[1]: found(300, chance=0.0)})
    slices = found(0)["overlap"]
    assert evidence.shows_findings({evidence.PHANTOM_VOLUMES: {**found(40), "frame": slices}}) == ["volume"]
    assert not evidence.shows_findings({evidence.PHANTOM_VOLUMES: {**found(40, chance=0.0), "frame": slices}})


def test_one_command_writes_what_the_page_reads_and_goes_on_where_it_was_stopped(tiny, tmp_path, monkeypatch, capsys):
    model, real, out = tmp_path / "model", tmp_path / "real", tmp_path / "out"
    shutil.copytree(tiny, model)
    real.mkdir()
    lines = []
    for number, (finding, split) in enumerate([("polyp", "test"), ("benign mass", "test"), ("polyp", "train")]):
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (32, 32, 3), np.uint8)).save(
            real / f"{number}.png"
        )
        known = {"finding": finding, "boxes": [[0.1, 0.1, 0.4, 0.4]], "split": split, "source": finding.split()[-1]}
        lines.append(json.dumps({"file": f"{number}.png", "modality": "endoscopy", "license": "CC0", **known}))
    (real / "images.jsonl").write_text("\n".join(lines))
    options = ["--model", str(model), "--real", str(real), "--images", "2", "--volumes", "1", "--out", str(out)]
    monkeypatch.setattr("sys.argv", ["evidence", *options])
    evidence.main()
    report = json.loads((model / "evidence.json").read_text())
    assert {name: found["count"] for name, found in report["sets"].items()} == {
        evidence.REAL: 2,
        evidence.PHANTOM_IMAGES: 2,
        evidence.PHANTOM_VOLUMES: 1,
    }
    assert "frame" in report["sets"][evidence.PHANTOM_VOLUMES] and report["shows_findings"] == []
    assert str(tmp_path) not in json.dumps(report).replace(str(model), ""), "no path of the pictures"
    assert "The page hides the evidence." in capsys.readouterr().out
    assert not read_measured(str(model)).shows_findings
    monkeypatch.setattr(evidence, "measure", None)  # nothing is asked again
    evidence.main()
    assert json.loads((model / "evidence.json").read_text())["sets"] == report["sets"]


def test_a_folder_without_a_list_is_a_sentence(tmp_path: Path):
    with pytest.raises(ValueError, match=r"images\.jsonl"):
        list(evidence.real_findings(tmp_path, None))
