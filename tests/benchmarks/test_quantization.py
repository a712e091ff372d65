# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The benchmark of int8 and int4: what counts as ruined, and, where torchao is installed, a run on a tiny model."""

from __future__ import annotations

import importlib.util
import json

import pytest
from PIL import Image

from benchmarks import quantization

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_format_that_loses_more_answers_than_bfloat16_does_is_refused_with_a_sentence():
    assert quantization.refusal("int8", share=0.84, yardstick=0.86) is None
    assert quantization.refusal("int4", share=0.30, yardstick=0.86) == (
        "int4 is refused: it keeps 30% of the answers of float32, and bfloat16 keeps 86%."
    )


def test_a_folder_without_pictures_or_a_missing_package_is_told_at_once(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["quantization", str(tmp_path), "--json", str(tmp_path / "figures.json")])
    with pytest.raises(SystemExit):
        quantization.main()
    installed = importlib.util.find_spec("torchao") is not None
    assert ("Give a folder" if installed else "torchao is not installed") in capsys.readouterr().err


@pytest.mark.skipif(importlib.util.find_spec("torchao") is None, reason="torchao is not installed")
def test_every_format_is_smaller_than_the_one_before_and_has_its_row(tiny, tmp_path, picture, monkeypatch):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for seed in range(2):
        Image.fromarray(picture(seed, 48, 48)).save(folder / f"{seed}.png")
    monkeypatch.setattr(quantization, "QUESTIONS", quantization.QUESTIONS[:1])
    out = tmp_path / "figures.json"
    command = ["quantization", str(folder), "--json", str(out), "--model", str(tiny), "--max-new-tokens", "3"]
    monkeypatch.setattr("sys.argv", command)
    quantization.main()
    figures = json.loads(out.read_text())
    assert figures["pictures"] == 2
    rows = figures["rows"]
    sizes = {name: row["bytes"] for name, row in rows.items()}
    assert sizes.keys() == quantization.FORMATS.keys()
    assert sizes["float32"] == 2 * sizes["bfloat16"]
    assert sizes["float32"] > sizes["int8, rest float32"]
    assert sizes["bfloat16"] > sizes["int8, rest bfloat16"] > sizes["int4, rest bfloat16"]
    assert sizes["float32"] > sizes["int8 by torch.ao"]
    assert rows["float32"]["same_answers"]["share"] == 1
    assert all(row["same_answers"]["n"] == 2 for row in rows.values())
