# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""What is taken for a DICOM UID, in headers, listings, addresses and names of files."""

from __future__ import annotations

import re

UID = re.compile(r"[0-9][0-9.]{0,63}")
"""Digits and points, so a UID is safe as a part of an address and as the name of a file. PS3.5 9.1 also forbids that a
component begins with 0; scanners write such UIDs all the same, and archives hold them."""


def is_uid(text: str) -> bool:
    """Whether a text can name a study, series or instance."""
    return UID.fullmatch(text) is not None
