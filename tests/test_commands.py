"""Printed commands: a shell reads back the words that were meant."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from reszoo.commands import format_command, format_resume

ODD = [
    "my run's",
    "a b",
    "exp [lr=0.1]",
    'say "hi"',
    "$HOME",
    "`id`",
    "a\nb",
    "a\tb",
    "~",
    "a;b",
    "é",
    "x\\y",
    "*",
    "a!b",
]


def read_by_bash(command: str) -> list[str]:
    done = subprocess.run(
        ["bash", "-c", f'reszoo() {{ printf "%s\\0" "$@"; }}; {command}'],
        capture_output=True,
        check=True,
        text=True,
    )
    return done.stdout.split("\0")[:-1]


@pytest.mark.parametrize("name", ODD)
def test_a_shell_reads_back_every_name(name: str) -> None:
    command = format_resume("train", Path(name), "--data", f"folder:{name}")
    assert "\n" not in command
    assert read_by_bash(command) == [
        "train",
        "--resume",
        "--run-dir",
        name,
        "--data",
        f"folder:{name}",
    ]


def test_a_path_that_is_not_utf8_is_read_back_as_its_bytes() -> None:
    command = format_command("evaluate", Path("caf\udce9"))
    found = subprocess.run(
        ["bash", "-c", f'reszoo() {{ printf "%s" "$2"; }}; {command}'],
        capture_output=True,
        check=True,
    )
    assert found.stdout == b"caf\xe9"


def test_a_path_that_begins_with_a_dash_is_not_an_option() -> None:
    assert (
        format_command("evaluate", Path("-x"), "--data", "digits")
        == "reszoo evaluate ./-x --data digits"
    )
    assert format_resume("tune", "-x") == "reszoo tune --resume --run-dir ./-x"
