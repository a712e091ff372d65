# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""One number that says which weights and settings a folder holds, so that figures are not shown beside others."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

CONFIGURATION, CALIBRATION = "config.json", "answer_calibration"
FILES = ("*.safetensors", CONFIGURATION, "processor_config.json")


def fingerprint(model: Path) -> str:
    """SHA-256 of a folder's weights and settings, by which a report knows its model.

    The calibration of its answers is left out: it is fitted on answers, and changes none that the model gives.
    """
    digest = hashlib.sha256()
    for path in sorted(path for pattern in FILES for path in model.glob(pattern)):
        if path.name == CONFIGURATION:
            settings = json.loads(path.read_text(encoding="utf-8"))
            settings.pop(CALIBRATION, None)
            digest.update(json.dumps(settings, sort_keys=True).encode())
            continue
        with path.open("rb") as file:
            while block := file.read(1 << 24):
                digest.update(block)
    return digest.hexdigest()
