# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Where the repository lies that the tests look at."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HUB_MODEL = ROOT / "hub_model"
