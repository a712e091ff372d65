# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The notebook runs from its first cell to its last, on the assembled model, and stays small."""

from __future__ import annotations

import nbformat
from nbclient import NotebookClient

from tests.helpers.paths import ROOT

NOTEBOOK = ROOT / "examples" / "quick_tour.ipynb"
LARGEST = 150_000
"""Bytes of the committed file, its pictures among them."""


def test_the_notebook_answers_and_shows_what_was_pruned(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(NOTEBOOK.parent)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    printed = "".join(output.text for output in outputs if output.output_type == "stream")
    assert "volume: 14 slices" in printed and "Which imaging modality is this? " in printed
    assert any("image/png" in output.get("data", {}) for output in outputs)


def test_the_notebook_has_ten_cells_and_is_small():
    assert len(nbformat.read(NOTEBOOK, as_version=4).cells) == 10
    assert NOTEBOOK.stat().st_size < LARGEST
