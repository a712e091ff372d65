# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Markdown tables, as documents, cards and reports hold them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """The table without a line break at its end; a cell that holds a bar must have it written as `\\|`."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("|" + "".join(f" {cell} |" if cell else " |" for cell in line) for line in lines)
