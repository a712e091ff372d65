# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The interval of a share, beside published examples."""

from __future__ import annotations

import pytest

from data_engine.intervals import wilson_interval


def test_the_wilson_interval_gives_the_published_example() -> None:
    """Newcombe 1998, Statistics in Medicine 17:857, table I, method 3: 81 of 263 and 0 of 20."""
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson_interval(0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)
