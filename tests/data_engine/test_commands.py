# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""How a command ends: wrong arguments and what a user can mend in one sentence, and a traceback for faults alone."""

from __future__ import annotations

import pytest

from data_engine.commands import STOPPED, OneLineParser, UsageError, resumable_command


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


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "the following arguments are required: command"),
        (["erase"], "invalid choice: 'erase'"),
        (["list", "--most", "many"], "argument --most: invalid int value: 'many'"),
    ],
)
def test_wrong_arguments_of_a_command_and_of_its_subcommands_are_one_line(arguments, said, capsys) -> None:
    parser = OneLineParser(prog="archive")
    listing = parser.add_subparsers(dest="command", required=True).add_parser("list")
    listing.add_argument("--most", type=int)
    with pytest.raises(UsageError) as raised:
        parser.parse_args(arguments)
    assert said in str(raised.value) and str(raised.value).endswith("(see --help)")
    assert "\n" not in str(raised.value)
    assert capsys.readouterr() == ("", ""), "the command prints it, under its own name"
