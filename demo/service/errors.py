# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Whatever goes wrong, the visitor gets one sentence, and the log gets none of the visitor's data."""

from __future__ import annotations

import logging
import traceback

logger = logging.getLogger("demo")


def message_for_visitor(error: Exception) -> str:
    """The sentence that tells a visitor what went wrong.

    A `ValueError` carries that sentence. Of any other error the log gets the kind and the place but not the message,
    which may quote paths and names.
    """
    if isinstance(error, ValueError):
        return str(error)
    place = traceback.extract_tb(error.__traceback__)[-1]
    logger.error("%s in %s, line %s", type(error).__name__, place.name, place.lineno)
    if isinstance(error, MemoryError) or "OutOfMemory" in type(error).__name__:
        return "The server has not enough memory for this; prune more, or ask about fewer files."
    return "Something failed on the server; try again, and with another file if it fails again."
