# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The Nano's figures in the documents are those that were measured on the shipped weights."""

from __future__ import annotations

import copy
import json
import sys

import pytest

from evaluation.nano import documents
from evaluation.nano.documents import DOCUMENTS, METRICS, ROOT, ROWS, SECTIONS, WIDTH, filled


@pytest.fixture(scope="module")
def metrics() -> dict:
    return json.loads(METRICS.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_document_is_in_step_with_the_figures(name, metrics) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    assert filled(text, metrics) == text, "run python -m evaluation.nano.documents"
    assert any(first in text for first in ROWS) or "<!-- figures: " in text


def test_every_section_stands_in_the_page_about_the_nano() -> None:
    text = (ROOT / "docs/nano.md").read_text(encoding="utf-8")
    assert [name for name in SECTIONS if f"<!-- figures: {name} -->" not in text] == []


def test_only_what_stands_between_the_marks_changes(metrics) -> None:
    document = "Before.\n<!-- figures: benchmarks -->\nold\n<!-- end of figures -->\nAfter: 61.6 %.\n"
    text = filled(document, metrics)
    assert text.startswith("Before.\n<!-- figures: benchmarks -->\n")
    assert text.endswith("<!-- end of figures -->\nAfter: 61.6 %.\n")
    assert "SLAKE, English test, open" in text and "old" not in text


def test_a_row_is_found_by_its_first_cell(metrics) -> None:
    of_a_peer = "| Hulu-Med-4B | judged | 71.6 | 85.0 | – | – | its README |"
    row = f"{documents.CLOSED_ROW} closed | 1.0 | 2.0 | – | – | [measured here](nano.md#what-it-answers) |"
    metrics = copy.deepcopy(metrics)
    for name, accuracy in (("vqa-rad", 0.25), ("slake", 0.5)):
        metrics["real_pictures"]["sources"][name]["type"]["closed"]["accuracy"] = accuracy
    refilled = row.replace("| 1.0 | 2.0 |", "| 25.0 | 50.0 |")
    assert filled(f"{of_a_peer}\n{row}\n", metrics) == f"{of_a_peer}\n{refilled}\n"


def test_unknown_figures_are_refused(metrics) -> None:
    with pytest.raises(ValueError, match="There are no figures 'weather'"):
        filled("<!-- figures: weather -->\n<!-- end of figures -->", metrics)


def test_sentences_fit_the_width_and_no_number_is_parted_from_its_sign(metrics) -> None:
    for section in ("real pictures", "other sources"):
        lines = SECTIONS[section](metrics).split("\n")
        assert max(map(len, lines)) <= WIDTH
        assert not any(line.startswith("%") for line in lines)


def test_a_stale_document_is_named(tmp_path, monkeypatch, metrics) -> None:
    block = "<!-- figures: goals -->\nold\n<!-- end of figures -->\n"
    (tmp_path / "page.md").write_text(block, encoding="utf-8")
    monkeypatch.setattr(documents, "ROOT", tmp_path)
    monkeypatch.setattr(documents, "DOCUMENTS", ("page.md",))
    monkeypatch.setattr(sys, "argv", ["documents", "--check"])
    with pytest.raises(SystemExit, match=r"page\.md"):
        documents.main()
    assert (tmp_path / "page.md").read_text(encoding="utf-8") == block, "a check writes nothing"
    monkeypatch.setattr(sys, "argv", ["documents"])
    documents.main()
    assert (tmp_path / "page.md").read_text(encoding="utf-8") == filled(block, metrics)
