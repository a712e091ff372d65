# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""What a report is made of (tables, examples, pictures), and how it becomes one HTML page or a Markdown file.

Questions and answers come from data sets and models, so every value is escaped and only the words of a
template are not. The HTML page holds its pictures, runs no script and loads nothing.
"""

from __future__ import annotations

import base64
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

MARKDOWN_MARKS = re.compile(r"([\\`*_{}\[\]<>#|~&$!@]|:(?=\S)|\.(?=[^\W\d])|(?<=\d)[.)](?=\s|$)|^[-+=](?!\d))")
"""What Markdown, or GitHub's, might take for a mark, in a line or at its start; a backslash makes it a character."""


@dataclass(frozen=True)
class Bar:
    """A share from 0 to 1 with the ends of its interval, drawn over the share of a baseline."""

    share: float
    low: float
    high: float
    baseline: float


@dataclass(frozen=True)
class Cell:
    """A figure, what is said below it in small letters, and a bar where there is one."""

    text: str
    detail: str = ""
    bar: Bar | None = None


@dataclass(frozen=True)
class Table:
    """Rows under a title; the first cell of each row names it.

    Attributes:
        numbers: whether its cells are figures, not words.
        folded: closed until a reader opens it, for long lists.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell | str]]
    numbers: bool = True
    folded: bool = False


@dataclass(frozen=True)
class Picture:
    """Bytes of a WebP picture, what it shows in words, and whether it holds small print and may not be shrunk."""

    data: bytes
    words: str
    detailed: bool = False


@dataclass(frozen=True)
class Answer:
    """What a run said."""

    run: str
    text: str
    right: bool


@dataclass(frozen=True)
class Example:
    """A question with its medium and everyone's answers.

    Attributes:
        facts: modality, task and the like, for the line above the question.
        choices: with their letters; empty if there are none.
        notes: what is to be said about the medium, such as why it is not shown.
    """

    id: str
    facts: str
    question: str
    choices: Sequence[str]
    truth: str
    answers: Sequence[Answer]
    pictures: Sequence[Picture]
    notes: Sequence[str]


@dataclass(frozen=True)
class Section:
    """A heading with words, tables, and examples by the heading of their group."""

    heading: str
    words: Sequence[str] = ()
    tables: Sequence[Table] = ()
    examples: dict[str, list[Example]] = field(default_factory=dict)


def clean(value: Any) -> str:
    """A value as text that any file and browser takes: control characters and half characters are marked as such."""
    return "".join(
        "\ufffd" if unicodedata.category(character) in ("Cc", "Cs") and character not in "\n\t" else character
        for character in str(value)
    )


def escape_markdown(value: Any) -> Markup:
    """Text as one line of Markdown that shows it literally, also within a table."""
    return Markup(MARKDOWN_MARKS.sub(r"\\\1", clean(" ".join(str(value).split()))))


def _environment(escape: Callable[[Any], str]) -> Environment:
    """Templates of this folder in which `escape` goes over every value that is not a template's own text."""
    return Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        finalize=lambda value: value if isinstance(value, Markup) else escape(value),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def write_html(path: Path, title: str, sections: Sequence[Section]) -> None:
    """Writes one page with everything in it."""

    def address(picture: Picture) -> Markup:
        return Markup(f"data:image/webp;base64,{base64.b64encode(picture.data).decode()}")

    template = _environment(clean).get_template("report.html.jinja")
    path.write_text(template.render(title=title, sections=sections, address=address), encoding="utf-8")


def write_markdown(path: Path, title: str, sections: Sequence[Section]) -> None:
    """Writes a Markdown file, and its pictures into the folder NAME_pictures beside it."""
    folder = path.with_name(f"{path.stem}_pictures")
    names: dict[bytes, str] = {}

    def address(picture: Picture) -> Markup:
        if picture.data not in names:
            folder.mkdir(exist_ok=True)
            names[picture.data] = f"{len(names) + 1:03d}.webp"
            (folder / names[picture.data]).write_bytes(picture.data)
        # In angle brackets, as the name of a report may hold spaces.
        return Markup(f"<{folder.name}/{names[picture.data]}>")

    template = _environment(escape_markdown).get_template("report.md.jinja")
    path.write_text(template.render(title=title, sections=sections, address=address), encoding="utf-8")
