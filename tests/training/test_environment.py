"""The command line of a process, as records keep it."""

from __future__ import annotations

import sys

import pytest

from reszoo.training.environment import command_line


@pytest.mark.parametrize(
    ("argv", "command"),
    [
        (["/venv/bin/reszoo", "tune", "my space"], "reszoo tune 'my space'"),
        (["/source/reszoo/__main__.py", "lab", "grow"], "reszoo lab grow"),
        (["/venv/lib/pytest/__main__.py", "-x"], ""),
        (["/home/me/train.py"], ""),
        (["-c"], ""),
    ],
)
def test_the_command_of_reszoo_is_recorded_and_no_other_one(
    argv: list[str], command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", argv)
    assert command_line() == command
