# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""How a command ends that can be stopped at any moment and goes on when it is started again."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

STOPPED = "Stopped; the same command goes on from here."


@contextmanager
def resumable_command(prefix: str = "") -> Iterator[None]:
    """Ends the program with one sentence and exit code 1 where a user can mend the error, or stopped it.

    Args:
        prefix: what stands before the words of a `ValueError`; Ctrl-C says `STOPPED`.

    Raises:
        SystemExit: in place of `ValueError` and `KeyboardInterrupt`; everything else is a fault and passes unchanged.
    """
    try:
        yield
    except ValueError as error:
        sys.exit(f"{prefix}{error}")
    except KeyboardInterrupt:
        sys.exit(STOPPED)
