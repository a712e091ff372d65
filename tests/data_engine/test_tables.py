# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Markdown tables, as a Markdown parser reads them."""

from __future__ import annotations

from markdown_it import MarkdownIt

from data_engine.tables import markdown_table


def test_every_cell_stands_where_it_was_given_and_an_empty_one_stays_empty():
    cells = [["", "n"], ["closed", "51"], ["open", ""]]
    tokens = MarkdownIt("commonmark").enable("table").parse(markdown_table(cells[0], cells[1:]))
    read = [token.content for token in tokens if token.type == "inline"]
    assert read == [cell for row in cells for cell in row]
