# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""A clip that several tests of the page show."""

from __future__ import annotations

import pytest

from hub_model.media_omniv_med import load_clip


@pytest.fixture(scope="module")
def film_clip(film):
    return load_clip(film(frames=6), kind="video", spacing=0.5, fps=2.0)


@pytest.fixture(scope="module")
def processed(processor, film_clip):
    """Six frames, a moving square, so that some tokens are kept in each and most are removed."""
    return processor.process_clip(film_clip)
