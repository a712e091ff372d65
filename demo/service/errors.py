# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Whatever goes wrong, the visitor gets a sentence, and the log no data of theirs."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import gradio as gr

logger = logging.getLogger("demo")


def sentence(error: Exception) -> str:
    """What the visitor is told of an error. A `ValueError` is such a sentence already; the log gets of any other the
    kind and the place, and not its words, in which there may be paths and names."""
    if isinstance(error, ValueError):
        return str(error)
    place = traceback.extract_tb(error.__traceback__)[-1]
    logger.error("%s in %s, line %s", type(error).__name__, place.name, place.lineno)
    if isinstance(error, MemoryError) or "OutOfMemory" in type(error).__name__:
        return "The server has not enough memory for this; prune more, or ask about fewer files."
    return "Something failed on the server; try again, with another file if it goes on."


@contextmanager
def in_one_sentence() -> Iterator[None]:
    """Turns every error inside into the `gr.Error` that the page or the client shows."""
    try:
        yield
    except gr.Error:
        raise
    except Exception as error:
        raise gr.Error(sentence(error), print_exception=False) from None
