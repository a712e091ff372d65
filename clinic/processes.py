# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""One batch run by several processes, as `accelerate launch` starts them: each takes every n-th group.

Each but the first writes its rows to a part of its own beside the ledger. The first one takes these in at the end, and
at the start those that a stopped run left. So no process waits for another one before it has answered all its groups.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

from data_engine.ledger import Ledger

Value = TypeVar("Value")
PART, PARTS = "answers.part-{:03d}.jsonl", "answers.part-*.jsonl"
LONGEST_WAIT = timedelta(days=30)
"""How long the first process that is done waits for the last one; torch's own limit of minutes would end the run."""


@dataclass(frozen=True)
class Processes:
    """The processes of a run.

    Attributes:
        number: this one's, from 0.
        count: how many there are.
    """

    number: int = 0
    count: int = 1

    @classmethod
    def launched(cls) -> Processes:
        """Those that `accelerate launch` started, connected; this one alone where it did not."""
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return cls()
        # Not above: they take seconds, and a mistake in the arguments should be told at once.
        import torch
        from accelerate import PartialState

        state = PartialState(cpu=not torch.accelerator.is_available(), timeout=LONGEST_WAIT)
        return cls(state.process_index, state.num_processes)

    @property
    def is_first(self) -> bool:
        """Whether this is the one that writes the results."""
        return self.number == 0

    def from_first(self, value: Value) -> Value:
        """The first process's value, in all of them; they wait for it."""
        if self.count == 1:
            return value
        from accelerate.utils import broadcast_object_list

        held = [value]
        broadcast_object_list(held)
        return held[0]

    def wait(self) -> None:
        """Returns when all processes are here."""
        if self.count > 1:
            from accelerate import PartialState

            PartialState().wait_for_everyone()

    def ledger(self, ledger: Path) -> Path:
        """The file that this process writes its rows to."""
        return ledger if self.is_first else ledger.with_name(PART.format(self.number))


def take_in_parts(path: Path, settings: Mapping[str, Any]) -> list[str]:
    """Puts the rows of parts that lie beside a ledger into it, and deletes them; the ids of all rows that it has then.

    Raises:
        LedgerError: a part or the ledger was begun with other settings, or is damaged.
    """
    with Ledger(path, settings) as ledger:
        for part_path in sorted(path.parent.glob(PARTS)):
            with Ledger(part_path, settings) as part:
                for row in part.rows.values():
                    if row["id"] not in ledger.rows:
                        ledger.append(row)
            part_path.unlink()
        return list(ledger.rows)
