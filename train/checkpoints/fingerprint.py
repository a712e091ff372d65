# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""One number that says which weights and settings a folder holds, so that figures are not shown beside others."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path


def fingerprint(model: Path, files: Sequence[str] = ("*.safetensors", "config.json", "processor_config.json")) -> str:
    """SHA-256 of a folder's weights and configuration, by which a report knows its model."""
    digest = hashlib.sha256()
    for path in sorted(path for pattern in files for path in model.glob(pattern)):
        with path.open("rb") as file:
            while block := file.read(1 << 24):
                digest.update(block)
    return digest.hexdigest()
