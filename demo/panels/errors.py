# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Errors as the page and the API's clients see them: one sentence, and no traceback in the log."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import gradio as gr

from demo.service.errors import message_for_visitor

CONNECTION_LOST = "The connection was lost, and your files were deleted; reload the page."


def visible_error(message: str) -> gr.Error:
    """The error that shows a message on the page."""
    return gr.Error(message, print_exception=False)


@contextmanager
def errors_for_visitors() -> Iterator[None]:
    """Turns every error inside into one that the page or the client shows."""
    try:
        yield
    except gr.Error:
        raise
    except Exception as error:
        raise visible_error(message_for_visitor(error)) from None
