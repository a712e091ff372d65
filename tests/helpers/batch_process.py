# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""`clinic.batch` as tests start it in processes of its own: with small groups, and killed where they say.

    python -m tests.helpers.batch_process GROUP ROWS FORMAT ARGUMENTS

A process that has written ROWS rows is killed in the middle of the next one; 0 lets it live. FORMAT is "float32", or
"preferred" for what the processor does best.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from typing import Any

import torch

import clinic.batch
import clinic.engines
import clinic.model
from data_engine.ledger import Ledger


class KilledLedger(Ledger):
    """A ledger whose process ends without notice."""

    rows_left = 0

    def append(self, row: Mapping[str, Any]) -> None:
        if not KilledLedger.rows_left:
            self._file.write(b'{"id": "cut sho')
            self._file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        KilledLedger.rows_left -= 1
        super().append(row)


if __name__ == "__main__":
    clinic.engines.GROUP, KilledLedger.rows_left = (int(one) for one in sys.argv[1:3])
    if sys.argv[3] == "float32":
        clinic.model.preferred_dtype = lambda: torch.float32
    if KilledLedger.rows_left:
        clinic.batch.Ledger = KilledLedger
    raise SystemExit(clinic.batch.main(sys.argv[4:]))
