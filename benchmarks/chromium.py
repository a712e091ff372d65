# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Which browser visits the page, without a window and without asking any other server; the tests use it, too."""

from __future__ import annotations

import shutil

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-sync"]
TO_INSTALL = "Chromium is not installed (apt-get install -y chromium)"


def chromium_path() -> str | None:
    """Path of the browser; None where none is installed."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)
