# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Gradio's concurrency groups: how many requests of a kind run at once, for the page and the API together."""

from __future__ import annotations

MODEL = "model"
"""Everything that runs the model, one request at a time."""
READING = "reading"
"""Everything that reads files."""
MOST_READING = 2
"""Files that are read at once, as many as `IsolatedReader` has processes."""
