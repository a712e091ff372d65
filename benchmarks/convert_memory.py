# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Measures how much memory the conversion of weights takes, beside the largest of their files.

    python -m benchmarks.convert_memory --json benchmarks/results/convert_memory.json

Writes weights of VideoLLaMA3-2B's shapes, with fewer layers, into a temporary folder, in files of about
`--shard-megabytes`. The conversion runs in a process of its own, which says how far its resident memory rose at most
while it wrote: what it allocated, and what it mapped of the files. Linux only.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from benchmarks.memory import reset_peak, resident
from benchmarks.report import write_json
from data_engine.tables import markdown_table
from hub_model.configuration_omniv_med import OmniVMedConfig
from train.checkpoints.conversion import write_weights
from train.checkpoints.foreign_layouts import expected_shapes
from train.checkpoints.shards import stored_tensors

SIZE = Path(__file__).resolve().parents[1] / "train/configs/1.5b/model.json"
MEGABYTE = 2**20
DTYPES = {"as it is (bfloat16)": None, "to float32": torch.float32}


def converted_rise(source: Path, out: Path, dtype: torch.dtype | None, answers: Any) -> None:
    """Converts the weights, in a fresh process, and answers with the rise of its resident memory in bytes."""
    stored = stored_tensors(source)
    out.mkdir()
    reset_peak()
    before = resident("VmRSS")
    write_weights(out, {name: name for name in stored}, stored, dtype, lambda sentence: None)
    answers.put(resident("VmHWM") - before)


def write_source(folder: Path, config: OmniVMedConfig, shard_bytes: int) -> list[int]:
    """Writes bfloat16 weights of a model's shapes in files of about this size; gives the sizes."""
    shard: dict[str, torch.Tensor] = {}
    sizes: list[int] = []

    def flush() -> None:
        file = folder / f"model-{len(sizes) + 1:05d}.safetensors"
        save_file(shard, file)
        sizes.append(file.stat().st_size)
        shard.clear()

    for name, shape in expected_shapes(config).items():
        tensor = torch.zeros(shape, dtype=torch.bfloat16)
        if shard and sum(one.nbytes for one in shard.values()) + tensor.nbytes > shard_bytes:
            flush()
        shard[name] = tensor
    flush()
    return sizes


def measure(config: OmniVMedConfig, shard_bytes: int) -> list[dict[str, Any]]:
    """One row for each number format: bytes of the largest file read and written, and the rise in memory."""
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / "source"
        source.mkdir()
        sizes = write_source(source, config, shard_bytes)
        context = multiprocessing.get_context("spawn")
        for number, (name, dtype) in enumerate(DTYPES.items()):
            out, answers = Path(scratch) / str(number), context.Queue()
            process = context.Process(target=converted_rise, args=(source, out, dtype, answers))
            process.start()
            rise = answers.get()
            process.join()
            written = max(file.stat().st_size for file in out.glob("*.safetensors"))
            rows.append({"weights": name, "largest_read": max(sizes), "largest_written": written, "rise": rise})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=4, help="of encoder and language model (default: 4)")
    parser.add_argument("--shard-megabytes", type=int, default=640, help="about how large a file is (default: 640)")
    parser.add_argument("--json", type=Path, help="where the figures are written")
    arguments = parser.parse_args()
    size = json.loads(SIZE.read_text(encoding="utf-8"))
    for part in ("text_config", "vision_config"):
        size[part]["num_hidden_layers"] = arguments.layers
    config = OmniVMedConfig(text_config=size["text_config"], vision_config=size["vision_config"])
    rows = measure(config, arguments.shard_megabytes * MEGABYTE)
    names = ("largest_read", "largest_written", "rise")
    table = [[row["weights"], *(f"{row[name] / MEGABYTE:.0f}" for name in names)] for row in rows]
    print(markdown_table(["weights", "largest file read, MiB", "largest file written, MiB", "memory rises by"], table))
    if arguments.json:
        write_json(arguments.json, "convert_memory", {"layers": arguments.layers, "rows": rows})


if __name__ == "__main__":
    main()
