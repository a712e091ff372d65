# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""A short stage of training in a YAML file, for the tests that compare one process with two."""

from __future__ import annotations

from pathlib import Path

import yaml

STEPS = 4
BATCH = 6
TOLERANCE = 1e-4


def stage_file(folder: Path, name: str, tiny: Path, data: Path, batch_size: int, lora: dict | None) -> Path:
    """A stage on images, volumes and videos, pruned and randomly dropped, every part trained."""
    rates = dict.fromkeys(("encoder", "projector", "language", "embeddings"), 1e-2)
    fields = {
        "output": str(folder / name),
        "model": str(tiny),
        "seed": 3,
        "data": {"folders": [str(data)], "shares": {"2d": 0.34, "3d": 0.33, "video": 0.33}},
        "learning_rates": rates,
        "lora": lora,
        "steps": STEPS,
        "batch_size": batch_size,
        "drop_visual_tokens": 0.3,
        "pruning": {"prune_rule": "anchor", "prune_threshold": 0.1},
        "bf16": False,
        "log_every": 1,
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(fields), encoding="utf-8")
    return path
