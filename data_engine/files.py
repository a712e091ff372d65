# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Reading configurations strictly, and writing files so that they appear whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import yaml


class YamlError(ValueError):
    """A YAML file that cannot be used, in one sentence that says where."""


class _StrictLoader(yaml.SafeLoader):
    """PyYAML's safe loader, which refuses a key that stands twice in one mapping instead of taking the last value."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} is given twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> dict[str, Any]:
    """The fields of a YAML file.

    Raises:
        YamlError: a file that cannot be read, is not YAML, gives a key twice, or holds no mapping.
    """
    try:
        fields = yaml.load(path.read_text(encoding="utf-8"), Loader=_StrictLoader)
    except OSError:
        raise YamlError(f"The configuration {path} cannot be read; check its path.") from None
    except UnicodeDecodeError:
        raise YamlError(f"{path} is not YAML: it is not text in UTF-8.") from None
    except yaml.YAMLError as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
        where = f" (line {mark.line + 1}: {problem})" if mark is not None else ""
        raise YamlError(f"{path} is not YAML{where}.") from None
    if not isinstance(fields, dict):
        raise YamlError(f"{path} holds no fields; write NAME: VALUE, one a line.")
    return fields


def line_of(path: Path, place: Sequence[int | str]) -> int:
    """The line, from 1, where a field of a YAML file stands; of one that is missing, the line of what should hold it.

    Args:
        path: that `read_yaml` has read.
        place: keys and numbers of items, from the outermost to the field, as pydantic gives them.
    """
    node = yaml.compose(path.read_text(encoding="utf-8"), Loader=_StrictLoader)
    line = 0 if node is None else node.start_mark.line
    for step in place:
        if isinstance(node, yaml.MappingNode):
            held = next(((key, value) for key, value in node.value if key.value == step), None)
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
            held = (node.value[step], node.value[step])
        else:
            held = None
        if held is None:
            break
        line, node = held[0].start_mark.line, held[1]
    return int(line) + 1


@contextmanager
def write_atomically(path: Path) -> Iterator[Path]:
    """Gives a path beside `path` to write to; it takes the place of `path` at the end of the block.

    Readers see the old file or the new one, never a part of it. When the block fails, what it wrote is removed. The
    name is unique, so that several processes may write the same file, and ends in ".part": tell libraries that guess
    the format from a suffix which one you mean.
    """
    part = path.with_name(f".{uuid4().hex}.part")
    try:
        yield part
        part.replace(path)
    finally:
        # A rename does nothing where both names are links to one file, as when another process was first.
        part.unlink(missing_ok=True)
