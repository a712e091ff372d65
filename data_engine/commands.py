# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""What commands share: wrong arguments in one line, and an end from which the same command goes on."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

STOPPED = "Stopped; the same command goes on from here."


class UsageError(ValueError):
    """Arguments of a command that mean nothing; the message is one sentence for the user."""


class OneLineParser(argparse.ArgumentParser):
    """An argument parser, of subcommands too, that raises `UsageError` instead of printing the usage and exiting."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see --help)")


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
