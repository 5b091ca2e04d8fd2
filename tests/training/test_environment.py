"""The command line and the machine of a process, as records keep them."""

from __future__ import annotations

import os
import sys

import pytest

from reszoo.training.environment import command_line, environment


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


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cores can be taken away on Linux")
def test_the_cores_that_a_process_may_use_are_recorded() -> None:
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        machine = environment()["machine"]
    finally:
        os.sched_setaffinity(0, before)
    assert machine["cores"] == 1 and machine["processor"]
