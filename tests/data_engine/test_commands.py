# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""How a command ends that goes on when it is started again: one sentence, never a traceback, but for faults."""

from __future__ import annotations

import pytest

from data_engine.commands import STOPPED, resumable_command


@pytest.mark.parametrize(
    ("raised", "prefix", "said"),
    [
        (ValueError("There is no folder."), "", "There is no folder."),
        (ValueError("There is no folder."), "Error: ", "Error: There is no folder."),
        (KeyboardInterrupt(), "Error: ", STOPPED),
    ],
)
def test_what_a_user_can_mend_and_an_interruption_end_in_one_sentence(raised, prefix, said) -> None:
    with pytest.raises(SystemExit) as ended, resumable_command(prefix):
        raise raised
    assert ended.value.code == said, "which Python prints, with exit code 1"


def test_a_fault_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError), resumable_command():
        _ = 1 / 0
