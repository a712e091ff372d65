# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Reads and writes safetensors files tensor by tensor, so that weights of any size pass through little memory.

The library's own `save_file` wants all tensors of a file at once. The format is simple: a length, a header in JSON that
says where each tensor lies, and the tensors (https://huggingface.co/docs/safetensors).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from data_engine.files import write_atomically
from train.checkpoints.vision_encoder import CheckpointError

INDEX = "model.safetensors.index.json"
ALIGNMENT = 8
"""The header is padded to a multiple of so many bytes."""
PIECE = 2**24
"""Numbers of a tensor that are converted at once."""
CODES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
"""What safetensors calls the types of weights. Others are quantised, or no weights."""


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a file: where, under which name, of what shape, and in which type by its code in safetensors."""

    file: Path
    name: str
    shape: tuple[int, ...]
    code: str

    def read(self) -> torch.Tensor:
        """The tensor as the file holds it."""
        # Opened anew for each tensor: what is mapped stays in memory until the file is closed.
        with safe_open(self.file, framework="pt") as tensors:
            return tensors.get_tensor(self.name)

    def pieces(self) -> Iterator[torch.Tensor]:
        """Its numbers in order, some at once: a copy of them in another type is as small as a piece."""
        yield from self.read().reshape(-1).split(PIECE)


@dataclass(frozen=True)
class GrownTensor(StoredTensor):
    """A matrix with a row for each token, to which rows of new tokens are added at the mean of the known ones.

    Attributes:
        shape: with the new rows.
        known: rows of the file that belong to tokens; what is beyond them is left out.
    """

    known: int

    def pieces(self) -> Iterator[torch.Tensor]:
        rows, columns = self.shape
        known = self.read()[: self.known]
        total = torch.zeros(columns, dtype=torch.float64)
        for piece in known.split(max(PIECE // 4 // columns, 1)):
            total += piece.sum(dim=0, dtype=torch.float64)
            yield piece.reshape(-1)
        yield (total / self.known).to(known.dtype).repeat(rows - self.known)


def stored_tensors(folder: Path) -> dict[str, StoredTensor]:
    """All tensors in the safetensors files of a folder, by name; reads the headers only.

    Raises:
        CheckpointError: where there are no such files, one is damaged, or a tensor is not a floating-point weight.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise CheckpointError(f"{folder} holds no *.safetensors; convert other formats with transformers first.")
    found: dict[str, StoredTensor] = {}
    for file in files:
        found |= stored_tensors_of(file)
    _check_complete(folder, {file.name for file in files})
    return found


def stored_tensors_of(file: Path) -> dict[str, StoredTensor]:
    """All tensors in one safetensors file, by name.

    Raises:
        CheckpointError: where it is damaged.
    """
    found: dict[str, StoredTensor] = {}
    try:
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - it is no dictionary
                stored = tensors.get_slice(name)
                found[name] = StoredTensor(file, name, tuple(stored.get_shape()), stored.get_dtype())
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file.name} cannot be read ({error}); download it again.") from None
    return found


def _check_complete(folder: Path, files: set[str]) -> None:
    """Raises `CheckpointError` where the folder's index names a file that is not there."""
    index = folder / INDEX
    if index.is_file():
        named = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        if missing := sorted(named - files):
            raise CheckpointError(f"{folder} lacks {', '.join(missing)}; download the rest.")


def write_shard(
    path: Path, names: Mapping[str, str], stored: Mapping[str, StoredTensor], dtype: torch.dtype | None
) -> int:
    """Writes one file of renamed tensors; one tensor at a time is in memory, and the file appears whole.

    Args:
        names: their names to the new ones.
        stored: where each lies.
        dtype: what all become; None leaves each as it is.

    Returns:
        Bytes of the tensors.

    Raises:
        CheckpointError: for a tensor that is not a floating-point weight, such as a quantised one.
    """
    code_of = {kind: code for code, kind in CODES.items()}
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for theirs, ours in names.items():
        tensor = stored[theirs]
        if tensor.code not in CODES:
            raise CheckpointError(f"{theirs} is of type {tensor.code}; quantised weights cannot be converted.")
        kind = dtype or CODES[tensor.code]
        begin, end = end, end + prod(tensor.shape) * kind.itemsize
        header[ours] = {"dtype": code_of[kind], "shape": tensor.shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    with write_atomically(path) as part, part.open("wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for theirs in names:
            for piece in stored[theirs].pieces():
                file.write(memoryview(piece.to(dtype or piece.dtype).view(torch.uint8).numpy()))
    return end


def write_index(folder: Path, files: Mapping[str, str], size: int) -> None:
    """Says which file holds which tensor, as transformers reads it."""
    index = {"metadata": {"total_size": size}, "weight_map": dict(sorted(files.items()))}
    with write_atomically(folder / INDEX) as part:
        part.write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")
